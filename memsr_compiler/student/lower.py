"""Linear channels, which lie above zero everywhere, are lowered towards it, before the joint refit and before training.

Derivation raises them until no ReLU clips them, and far more where one carries the constants of others.  Eight bits
have steps for the whole way up from zero, and on the frame of an image, where the next layer reads zeros, whatever
moves that layer's weights is multiplied by all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.student.crops import find_range, take_pixels
from memsr_compiler.student.report import Kernel

MARGIN, DERIVED_MARGIN = 0.25, 0.5
"""Ranges of its own that are left below a channel's lowest value, for other images; where no training mends it."""

FRAMES = (1000.0, 0.0)
"""Weights of what is done to the frame, beside what channels reach too far: the first by which anything is lowered."""

MENDED = 2.0
"""Grey levels, in root mean square over the images, by which the output moves at most; 300 steps mended 1."""

PAYS = 0.9
"""Part of the reach, as `choose_drops` has it, that is left at most; else a layer stays as it is."""

_SWEEPS = 500
_SETTLED = 1e-4  # of the room


@dataclass(frozen=True)
class Lowered:
    """Channels of a layer, counted from 1, that were lowered, and by how much at most."""

    layer: int
    channels: int
    most: float


def lower_channels(student: PlainNet, images: Sequence[Tensor]) -> list[Lowered]:
    """Lower linear channels in place; list what was done.

    The next layer's bias takes up the change, so on the images the output stays, but for a frame: where the next layer
    reads zeros around its input, nothing was lowered.  So it is done as far as the frame allows, see `choose_drops`;
    where that is nowhere, as in trained students, regardless of it, unless the output moves by more than MENDED.

    images   batches (N, C, H, W) in the student's range
    """
    values = take_pixels(images)
    low, high = student.info.input_range
    with torch.no_grad():
        wanted = [student(value) for value in values]
        for frame in FRAMES:
            lowered = copy.deepcopy(student)
            done = _lower(lowered, values, frame)
            moved = torch.cat([(lowered(x) - y).flatten() for x, y in zip(values, wanted, strict=True)])
            if done and float(moved.square().mean().sqrt()) <= MENDED * (high - low) / 255:
                student.load_state_dict(lowered.state_dict())
                return done
    return []


def lower_kernels(kernels: Sequence[Kernel], images: Sequence[Tensor]) -> tuple[Kernel, ...]:
    """Kernels of every layer of a derived student, its linear channels lowered as far as the frame allows.

    kernels   ReLU after all but the last;   images   batches (N, C, H, W) in the student's range
    """
    last = len(kernels) - 1
    stack = [PlainLayer(weight.clone(), bias.clone(), relu=i < last) for i, (weight, bias) in enumerate(kernels)]
    with torch.no_grad():
        values = [x.to(kernels[0][0].device).float() for x in take_pixels(images)]
        _lower(stack, [x.contiguous(memory_format=torch.channels_last) for x in values], FRAMES[0], DERIVED_MARGIN)
    return tuple((layer.weight.detach(), layer.bias.detach()) for layer in stack)


def _lower(
    student: Iterable[PlainLayer], values: Sequence[Tensor], frame: float, margin: float = MARGIN
) -> list[Lowered]:
    """Lower channels of every layer that pays, in place.  Constant ones stay: at zero they would be dead.

    What channels reach is computed in the dtype of the values, kernels and drops in that of the kernels.
    """
    done = list[Lowered]()
    for i, (layer, reader) in enumerate(pairwise(student), start=1):
        single = copy.deepcopy(layer).to(values[0])
        if layer.relu and layer.shuffle == 1:
            before = [single.before_activation(value) for value in values]
            lows, highs = zip(*map(find_range, before), strict=True)
            least = torch.stack(lows).amin(0)
            span = torch.stack(highs).amax(0) - least
            room = (least - margin * span).clamp_min(0) * (span > 0)
            drops = choose_drops(room.double(), reader.weight.double(), frame).to(room)
            most, column = least + span, reader.weight.square().sum((0, 2, 3)).sqrt()
            if ((most - drops) * column)[room > 0].norm() < PAYS * (most * column)[room > 0].norm():
                layer.bias.sub_(drops)
                before = [x - drops[:, None, None] for x in before]
                reader.bias.add_((reader.weight.double().sum((2, 3)) @ drops.double()).to(reader.bias))
                done.append(Lowered(i, int(drops.count_nonzero()), float(drops.max())))
            values = [x.relu() for x in before]
        else:
            values = [single(value) for value in values]
    return done


def choose_drops(room: Tensor, kernel: Tensor, frame: float) -> Tensor:
    """Drops of channels, (C,): all that there is room for, against what that does to the frame.

    Minimises  |column|^2 (room - drop)^2  over all channels, what they reach too far as the next layer sees it, and
    `frame` times the square of what that layer's outputs change by on each side of an image: the drops times the taps
    that lie beyond it.  A derived student has a channel that is nearly constant, by which it makes up on the frame for
    all that are raised, so all can be lowered with it.

    room     (C,), 0 for channels that stay;   kernel   of the next layer, (C_out, C, k, k)
    frame    weight of the frame; 0: all the room is used
    """
    middle, device = kernel.shape[-1] // 2, room.device
    room, kernel = room.cpu(), kernel.cpu()  # many small steps
    sides = [
        taps.sum((2, 3))
        for taps in (
            kernel[:, :, :middle],
            kernel[:, :, middle + 1 :],
            kernel[..., :middle],
            kernel[..., middle + 1 :],
        )
    ]
    trace = torch.cat(sides) * room  # (4 C_out, C), of drops as shares of the room
    reach = kernel.square().sum((0, 2, 3)) * room.square()
    matrix = frame * trace.T @ trace + reach.diag()
    share = torch.ones_like(room)
    single = share.numpy()  # the same memory, of which one number is quicker to reach
    rows, steep, pull = list(matrix), matrix.diagonal().tolist(), reach.tolist()
    for _ in range(_SWEEPS):  # a channel after the other: the minimum is one, and so found
        before = share.clone()
        for c in (matrix.diagonal() > 0).nonzero().flatten().tolist():
            step = (float(rows[c].dot(share)) - pull[c]) / steep[c]
            single[c] = min(max(float(single[c]) - step, 0.0), 1.0)
        if float((share - before).abs().max()) < _SETTLED:
            break
    return (share * room).to(device)
