"""A start for training, deeper or at another scale: the layers of a student, and a last one fitted to photographs.

    python benchmarks/transferred.py STUDENT LAYERS TARGET PHOTOGRAPHS start.safetensors

STUDENT       its name if it ships, or its file
LAYERS        how many the start has; what the student lacks are layers that do nothing, spread among its own: each
              channel is itself, and no value behind a ReLU is changed by another
TARGET        the student that ships which the start is for: it has that one's scale
PHOTOGRAPHS   a folder of high-resolution photographs, 60 of which are taken

x3-small, derived from IMDN with its gates frozen, began 3 dB lower than it could be trained to; with all but the last
layer of x2-small, it begins where that training ended.  The last layer is the least squares of what is wanted beside
the image outside.  Told is the PSNR in RGB of 20 other photographs, in dB, by the start and by the student that ships.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor

from memsr_compiler import load_model
from memsr_compiler.files import list_files
from memsr_compiler.images.files import crop_to_multiple, read_image, to_tensor
from memsr_compiler.images.resize import resize
from memsr_compiler.models.catalogue import find_file
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.write import save_plain
from memsr_compiler.torch_helpers import enlarge

FITTED, JUDGED = 60, 20


def pairs(paths: Sequence[Path], scale: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each photograph made smaller, and as it is: (1, 3, h, w) and (1, 3, s h, s w) in 0 to 1."""
    for path in paths:
        high = crop_to_multiple(read_image(path), scale)
        yield to_tensor(resize(high, 1 / scale)), to_tensor(high)


def deepen(layers: Sequence[PlainLayer], count: int) -> list[PlainLayer]:
    """These layers and `count` more that change nothing, as evenly among them as can be."""
    behind = [round((i + 1) * len(layers) / (count + 1)) for i in range(count)]
    found = []
    for i, layer in enumerate(layers, 1):
        found.append(layer)
        found.extend(pass_on(layer.out_channels) for _ in range(behind.count(i)))
    return found


def pass_on(channels: int) -> PlainLayer:
    """A layer that gives what it is given, if none of that is below zero."""
    kernel = torch.zeros(channels, channels, 3, 3)
    kernel[range(channels), range(channels), 1, 1] = 1
    return PlainLayer(kernel, torch.zeros(channels), relu=True)


def fit_last(layers: Sequence[PlainLayer], paths: Sequence[Path], scale: int) -> PlainLayer:
    """The 3x3 layer that makes the most of these layers' features, before its pixel shuffle."""
    taps = layers[-1].out_channels * 9 + 1
    squares = torch.zeros(taps, taps, dtype=torch.float64)
    products = torch.zeros(taps, 3 * scale**2, dtype=torch.float64)
    for low, high in pairs(paths, scale):
        value = low
        for layer in layers:
            value = layer(value)
        read = F.unfold(value, 3, padding=1)[0].double()
        read = torch.cat([read, torch.ones(1, read.shape[1], dtype=torch.float64)])
        wanted = F.pixel_unshuffle(high - enlarge(low, scale, "nearest"), scale)[0].flatten(1).double()
        squares += read @ read.T
        products += read @ wanted.T
    found = torch.linalg.solve(squares + torch.diag(1e-8 * squares.diagonal() + 1e-9), products).T.float()
    kernel = found[:, :-1].reshape(3 * scale**2, -1, 3, 3).contiguous()
    return PlainLayer(kernel, found[:, -1].contiguous(), relu=False, shuffle=scale)


def psnr(net: PlainNet, paths: Sequence[Path]) -> float:
    """Mean PSNR in RGB, in dB, of whole photographs."""
    span = net.info.input_range[1]
    errors = [
        float(((net(span * low) / span).clamp(0, 1) - high).square().mean()) for low, high in pairs(paths, net.scale)
    ]
    return float(np.mean(-10 * np.log10(errors)))


@torch.no_grad()
def main(source: str, depth: int, target: str, folder: Path, out: Path) -> None:
    print(machine())
    known, other = load_plain(find_file(source)), load_model(target)
    paths = list_files(folder)
    order = np.random.default_rng(0).permutation(len(paths))
    fitted, judged = ([paths[i] for i in part] for part in (order[:FITTED], order[FITTED : FITTED + JUDGED]))
    low, high = known.info.input_range
    own = [  # on 0..1: kernels are as they were, and biases in parts of the range
        PlainLayer(layer.weight.detach().clone(), layer.bias.detach() / (high - low), relu=True)
        for layer in list(known)[:-1]
    ]
    layers = deepen(own, depth - 1 - len(own))
    info = dataclasses.replace(known.info, input_range=(0.0, 1.0), scale=other.scale, receptive_field=depth)
    start = PlainNet([*layers, fit_last(layers, fitted, other.scale)], info)
    save_plain(start, out)
    print(f"the start {psnr(start, judged):.3f} dB, {target} {psnr(other, judged):.3f} dB; written to {out}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
