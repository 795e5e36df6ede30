"""A start for training at another scale: the layers of a student that ships, and a last one fitted to photographs.

    python benchmarks/transferred.py x2-small x3-small PHOTOGRAPHS start.safetensors

PHOTOGRAPHS   a folder of high-resolution photographs, 60 of which are taken

x3-small, derived from IMDN with its gates frozen, began 3 dB lower than it could be trained to; with all but the last
layer of x2-small, it begins where that training ended.  The last layer is the least squares of what is wanted beside
the image outside.  Told is the PSNR in RGB of 20 other photographs, in dB, by the start and by the student that ships.
"""

from __future__ import annotations

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
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.write import save_plain
from memsr_compiler.torch_helpers import enlarge

FITTED, JUDGED = 60, 20


def pairs(paths: Sequence[Path], scale: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each photograph made smaller, and as it is: (1, 3, h, w) and (1, 3, s h, s w) in 0 to 1."""
    for path in paths:
        high = crop_to_multiple(read_image(path), scale)
        yield to_tensor(resize(high, 1 / scale)), to_tensor(high)


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
    errors = [float((net(low).clamp(0, 1) - high).square().mean()) for low, high in pairs(paths, net.scale)]
    return float(np.mean(-10 * np.log10(errors)))


@torch.no_grad()
def main(source: str, target: str, folder: Path, out: Path) -> None:
    print(machine())
    known, other = load_model(source), load_model(target)
    low, high = known.info.input_range
    layers = [  # on 0..1: kernels are as they were, and biases in parts of the range
        PlainLayer(layer.weight.detach().clone(), layer.bias.detach() / (high - low), relu=True)
        for layer in list(known)[:-1]
    ]
    paths = list_files(folder)
    order = np.random.default_rng(0).permutation(len(paths))
    fitted, judged = ([paths[i] for i in part] for part in (order[:FITTED], order[FITTED : FITTED + JUDGED]))
    start = PlainNet([*layers, fit_last(layers, fitted, other.scale)], other.info)
    save_plain(start, out)
    print(f"the start {psnr(start, judged):.3f} dB, {target} {psnr(other, judged):.3f} dB; written to {out}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
