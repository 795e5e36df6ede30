"""Losses of stored numbers: constants of shifts too large for the network's numbers, and digits that these do not have.

Every number is the exact one, rounded, or the certificate's checker has refused it.  What rounding takes together is
judged here: by tensor, by channel, and by running the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import convolve_same, evaluate, run
from memsr_compiler.lowering.equivalence import find_broken_shift, probe_images
from memsr_compiler.lowering.unseen import MOST as MOST_SEARCHED
from memsr_compiler.lowering.unseen import find_images, list_unseen
from memsr_compiler.plain.halves import run_layers_in_halves
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.proof.forms import tensor_of

MOST = 2.0**-9  # of a tensor's largest magnitude: half of one of 256 levels
MOST_IN_ALL = 2.0**-8  # of what all tensors lose, each relative to its own, added up: nothing says that they cancel

MANY = 1 << 22  # stored numbers; networks of more would take long
SEARCHED_WORK = 1 << 27  # stored numbers of all searched images together
FADED = 6  # contrasts, each half of the one before, in which a searched image is tried
TOGETHER = 4  # searched images that are run at once: of more torch's own convolution is slower in float64
BATCHES = 8  # of images that go through each layer before the next: its weights are made float64 but once for all
CORNER = 10  # pixels of the noise, on which such a network is run beside the small probes


class Probed:
    """A teacher on the probe images, where it is run when something is first asked for.

    images   the probe images, by name
    """

    def __init__(self, teacher: ir.Graph) -> None:
        self.teacher = teacher
        self.images = probe_images(teacher.input.channels, (teacher.input.low, teacher.input.high))

    def reach(self) -> Mapping[str, Tensor]:
        """The largest magnitude of each channel of every tensor; of an activation's, with its operands'.

        A ReLU's own values may all be zero on these images, and not on others.
        """
        return self._reach

    @cached_property
    def _reach(self) -> dict[str, Tensor]:
        zero = torch.zeros((), dtype=torch.float64)
        reach: dict[str, Tensor] = {}

        def watch(name: str, value: Tensor) -> None:
            reach[name] = torch.maximum(reach.get(name, zero), value.abs().amax((0, 2, 3)))

        with torch.no_grad():
            for image in self.images.values():
                run(self.teacher, image, watch=watch)
        for op in self.teacher:
            if isinstance(op, (ir.Relu, ir.PRelu, ir.Clamp, ir.Maximum)):
                reach[op.name] = torch.stack([reach[name] for name in (op.name, *op.inputs)]).amax(0)
        return reach

    def search(self, images: Sequence[Tensor], net: PlainNet) -> list[Tensor]:
        """Images that show what these do not, as far as they were found, within the constants of shifts.

        A few together, (N, C, H, W): they are many and small.

        Whoever chose these could have chosen what no image of the probes passes, and every strong one.  And of a plain
        network that is far larger than its teacher fewer images are run, lest it took hours.
        """
        most = min(MOST_SEARCHED, SEARCHED_WORK // sum(p.numel() for p in net.parameters()))
        limits = _list_limits(self.teacher, net.certificate)
        found = find_images(self.teacher, list_unseen(self.teacher, images), limits, most)
        kept = [x for x in (_within_shifts(x, net) for x in found) if x is not None]
        return [torch.stack(kept[i : i + TOGETHER]) for i in range(0, len(kept), TOGETHER)]


def _within_shifts(x: Tensor, net: PlainNet) -> Tensor | None:
    """An image (C, H, W), with as little contrast as the constants of shifts ask for; None where none is little enough.

    The search keeps within those of whole tensors, and knows no parts.
    """
    middle = sum(net.info.input_range) / 2
    less = (middle + (x - middle) * 2.0**-i for i in range(FADED))
    return next((y for y in less if not find_broken_shift(y[None], net)), None)


@dataclass(frozen=True)
class ShiftLoss:
    """A tensor, what is taken from it, and its largest magnitude on the probe images.

    cause    of it, in words
    in_all   what all tensors lose, each relative to its own magnitude, added up
    """

    tensor: str
    lost: float
    peak: float
    cause: str = field(default="", compare=False)
    in_all: float = field(default=0.0, compare=False)

    @property
    def too_much(self) -> bool:
        return not (self.lost <= MOST * self.peak and self.in_all <= MOST_IN_ALL)

    def __str__(self) -> str:
        if self.lost <= MOST * self.peak:
            return (
                f"{self.cause} takes up to {self.lost / self.peak:.3g} of {self.tensor}, which is "
                f"the most, and in all, tensor by tensor, {self.in_all:.3g}; more than 1/{round(1 / MOST_IN_ALL)} is "
                "too much"
            )
        return (
            f"{self.tensor}: {self.cause} takes up to {self.lost:.3g} from it, whose values reach "
            f"{self.peak:.3g}; more than 1/{round(1 / MOST)} of that is too much"
        )


def worst_shift_loss(probed: Probed, losses: Mapping[str, float], cause: str = "") -> ShiftLoss | None:
    """The tensor that loses most for its size; None where no tensor loses anything.

    losses  by tensor, as the certificate's checker finds them
    cause   of them, in words

    A tensor that is nothing on the probe images is given a little of the image's magnitude, lest it had to be perfect.
    """
    image = probed.teacher.input
    least = max(abs(image.low), abs(image.high)) / 256
    need = {t: max(least, float(probed.reach()[tensor_of(t)].max())) for t in losses if t}
    in_all = sum(losses[tensor] / peak for tensor, peak in need.items())
    found = (ShiftLoss(t, losses[t], peak, cause, in_all) for t, peak in need.items())
    return max(found, key=lambda loss: loss.lost / loss.peak, default=None)


def gather_images(probed: Probed, net: PlainNet) -> list[Tensor]:
    """Images (N, C, H, W) on which a plain network is run: the probes, of a large one corners, and those looked for."""
    batches = list(probed.images.values())
    if sum(p.numel() for p in net.parameters()) > MANY:
        batches = [x if max(x.shape[2:]) <= CORNER else x[:1, :, :CORNER, :CORNER] for x in batches]
    return [*batches, *probed.search(batches, net)]


@torch.no_grad()
def run_teacher(probed: Probed, images: Iterable[Tensor]) -> list[Tensor]:
    """The teacher's outputs on these images, with which a plain network's are compared."""
    return [run(probed.teacher, x) for x in images]


@torch.no_grad()
def measure_stored(net: PlainNet, images: Sequence[Tensor], exact: Iterable[Tensor]) -> list[tuple[float, float]]:
    """The most that a plain network's stored numbers, run in float64, are off the teacher; its magnitude: by image.

    exact   the teacher's outputs, see `run_teacher`

    This is all that the numbers lose.  Running them in fewer digits loses more.
    """
    parts = (images[i : i + BATCHES] for i in range(0, len(images), BATCHES))
    return _compare_all((y for part in parts for y in _run_stored(net, part)), exact)


def _run_stored(net: PlainNet, images: Sequence[Tensor]) -> list[Tensor]:
    """The network's outputs in float64, a layer at a time, whose weights may be many."""
    values = list(images)
    for layer in net.checkable():
        weight, bias, slopes = layer.weight.double(), layer.bias.double()[:, None, None], layer.slopes.double()
        for i, x in enumerate(values):
            values[i] = F.pixel_shuffle(F.prelu(convolve_same(x, weight) + bias, slopes), layer.shuffle)
    return values


@torch.no_grad()
def measure_running(net: PlainNet, images: Iterable[Tensor], exact: Iterable[Tensor]) -> list[tuple[float, float]]:
    """The same of the network as it runs: in the dtype that it is stored in, of float16 layer by layer in halves."""
    dtype = net[0].weight.dtype
    run_layers = partial(run_layers_in_halves, net) if dtype == torch.float16 else nn.Sequential(*net)
    return _compare_all((run_layers(x.to(dtype)).double() for x in images), exact)


def _list_limits(teacher: ir.Graph, certificate: Certificate | None) -> dict[str, Tensor]:
    """The C of the channels of tensors that are shifted; of their other channels infinity."""
    limits: dict[str, Tensor] = {}
    for stage in certificate.stages if certificate else ():
        for m in (m for level in stage.levels for m in level if m.kind == "shifted" and m.part is None):
            if m.tensor in teacher:
                t = teacher.type(m.tensor)
                each = limits.setdefault(m.tensor, torch.full((t.channels,), torch.inf))
                each[torch.tensor(m.channels) // (t.scale // stage.base) ** 2] = m.constant
    return limits


def measure_losses(probed: Probed, by_channel: Mapping[str, Tensor]) -> list[tuple[float, float]]:
    """The most that the output moves where tensors are off by what they lose; its magnitude: by image.

    by_channel  losses, one for each channel of a tensor, as the certificate's checker finds them

    What is lost is taken to be the same at every pixel, as it is of constants.  All channels are off in one direction,
    then each in one at random.  What a tensor may lose is judged by its largest channel, and the output may have little
    to do with that one.
    """
    lost: dict[str, Tensor] = {}
    for tensor, each in by_channel.items():
        lost[tensor_of(tensor)] = each + lost.get(tensor_of(tensor), 0.0)
    generator = torch.Generator().manual_seed(0)
    random = {
        name: each * (torch.randint(0, 2, each.shape, generator=generator) * 2 - 1) for name, each in lost.items()
    }
    found = []
    for x in probed.images.values():
        exact = run(probed.teacher, x)
        for offsets in (lost, random):
            found += _compare(_run_moved(probed.teacher, x, offsets), exact)
    return found


def _run_moved(graph: ir.Graph, x: Tensor, offsets: Mapping[str, Tensor]) -> Tensor:
    """The graph's output where some values are moved, each channel by a number of its own."""
    values: dict[str, Tensor] = {}
    for op in graph:
        value = x if isinstance(op, ir.Input) else evaluate(op, *(values[i] for i in op.inputs))
        values[op.name] = value + offsets[op.name][:, None, None] if op.name in offsets else value
    return values[graph.output]


def _compare_all(found: Iterable[Tensor], exact: Iterable[Tensor]) -> list[tuple[float, float]]:
    return [each for y, z in zip(found, exact, strict=True) for each in _compare(y, z)]


def _compare(y: Tensor, exact: Tensor) -> list[tuple[float, float]]:
    """For each image the largest difference, NaN if one is, and the largest magnitude of the exact one."""
    off, peak = (values.abs().amax((1, 2, 3)).tolist() for values in (y - exact, exact))
    return list(zip(off, peak, strict=True))
