"""Students beside pruned networks of as many multiply-adds, none of them trained, from the paper's Teacher-M at x2.

    python benchmarks/pruned.py MODELS BENCHMARKS [CHANNELS ...]

MODELS      a folder with teacher_m_x2.safetensors (16 blocks of 64)
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set14/...
CHANNELS    of 64 that the pruned blocks keep between their two convolutions; default: 8 and 16

Calibration: the photographs that come with scikit-image.  A residual network is pruned inside of its blocks, since all
of them read and write the same 64 channels:

    L1       the kernels of the largest sum of magnitudes are kept: Li et al. 2017, arXiv 1608.08710
    ThiNet   the channels without which the next convolution's output changes least, and that convolution refitted by
             least squares: Luo et al. 2017, arXiv 1707.06342; block after block, on what the pruned network computes
    global   all of its remaining weights at once against the teacher's output, by Newton's method whose equations are
             solved by conjugate gradients, no matrix formed: as SNOWS does, arXiv 2411.18376, which does so for some
             layers ahead; here for all, on the Gauss-Newton matrix

About half an hour of one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor, nn
from torch.func import jvp, vjp

from memsr_compiler import evaluate, read_teacher
from memsr_compiler.evaluation.scores import mean
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.student.shrink import shrink
from memsr_compiler.student.statistics.moments import Moments, Regression
from memsr_compiler.student.statistics.tap_products import TapGrid
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.teacher import Teacher

RANGE = (0.0, 255.0)
RIDGE = 1e-6
NEWTON, CONJUGATE, DAMPING = 8, 10, 1e-3
Weights = list[Tensor]


class Plain64(nn.Module):
    """An EDSR with one convolution for a tail, its blocks as narrow inside as their weights are."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(w.clone(), requires_grad=False) for w in weights)

    def forward(self, x: Tensor) -> Tensor:
        return run(list(self.weights), x)


def read_weights(network: EDSR) -> Weights:
    """Weights and biases in the order in which they are used."""
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [part.detach().clone() for conv in convs for part in (conv.weight, conv.bias) if part is not None]


def block(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    inner = F.conv2d(x, weights[0], weights[1], padding=1).relu()
    return x + F.conv2d(inner, weights[2], weights[3], padding=1)


def run(weights: Sequence[Tensor], image: Tensor) -> Tensor:
    first = value = F.conv2d(image, weights[0], weights[1], padding=1)
    for i in range(2, len(weights) - 4, 4):
        value = block(weights[i : i + 4], value)
    value = first + F.conv2d(value, weights[-4], weights[-3], padding=1)
    return F.pixel_shuffle(F.conv2d(value, weights[-2], weights[-1], padding=1), 2)


def keep(weights: Sequence[Tensor], channels: Tensor) -> Weights:
    """A block of these inner channels alone."""
    return [weights[0][channels], weights[1][channels], weights[2][:, channels], weights[3]]


def prune_by_magnitude(weights: Weights, count: int) -> Weights:
    pruned = list(weights)
    for i in range(2, len(weights) - 4, 4):
        largest = weights[i].abs().sum(dim=(1, 2, 3)).argsort(descending=True)[:count].sort().values
        pruned[i : i + 4] = keep(weights[i : i + 4], largest)
    return pruned


@torch.no_grad()
def prune_by_reconstruction(weights: Weights, count: int, inputs: Sequence[Tensor]) -> Weights:
    pruned = list(weights)
    true = [F.conv2d(x, weights[0], weights[1], padding=1) for x in inputs]
    own = list(true)
    for i in range(2, len(weights) - 4, 4):
        here = weights[i : i + 4]
        inner = [F.conv2d(x, here[0], here[1], padding=1).relu() for x in own]
        wanted = [block(here, t) - x for t, x in zip(true, own, strict=True)]
        moments = sum((Moments.of_taps(TapGrid.of(x, 3)) for x in inner), Moments.none(64 * 9 + 1))
        kept = least_missed(moments.second[:-1, :-1], here[2], count)
        fit = Regression.none(count * 9 + 1, 64)
        for x, y in zip(inner, wanted, strict=True):
            fit += Regression.of_taps(x[:, kept], 3, y)
        rows = fit.solve(RIDGE).float()
        pruned[i : i + 4] = [here[0][kept], here[1][kept], rows[:, :-1].reshape(64, count, 3, 3), rows[:, -1].clone()]
        true = [block(here, t) for t in true]
        own = [block(pruned[i : i + 4], x) for x in own]
    return pruned


def least_missed(second: Tensor, weight: Tensor, count: int) -> Tensor:
    """Channels that are left if always the one is taken without which the sum over all changes least."""
    channels = weight.shape[1]
    columns = weight.double().permute(1, 2, 3, 0).reshape(channels, 9, -1)
    parts = torch.einsum("cao,cadb,dbo->cd", columns, second.reshape(channels, 9, channels, 9), columns)
    gone: list[int] = []
    for _ in range(channels - count):
        cost = parts.diagonal() + 2 * parts[:, gone].sum(1)
        cost[gone] = float("inf")
        gone.append(int(cost.argmin()))
    return torch.tensor([c for c in range(channels) if c not in gone])


def refit_all(weights: Weights, teacher: Weights, inputs: Sequence[Tensor]) -> Weights:
    """Take Newton's steps on all weights, each on another batch."""
    flat = torch.cat([w.flatten() for w in weights])
    shapes = [w.shape for w in weights]
    for step in range(NEWTON):
        image = inputs[step % len(inputs)]
        with torch.no_grad():
            target = run(teacher, image)
        flat = newton_step(flat, shapes, image, target)
    return unpack(flat, shapes)


def unpack(flat: Tensor, shapes: Sequence[torch.Size]) -> Weights:
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def newton_step(flat: Tensor, shapes: Sequence[torch.Size], image: Tensor, target: Tensor) -> Tensor:
    """Weights after a step on the Gauss-Newton matrix; halved, at most thrice, where it does not help on this batch."""

    def output(values: Tensor) -> Tensor:
        return run(unpack(values, shapes), image)

    value, pull = vjp(output, flat)[:2]
    difference = value.detach() - target

    def curvature(direction: Tensor) -> Tensor:
        along: Tensor = pull(jvp(output, (flat,), (direction,))[1])[0]
        return along

    probe = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    damping = DAMPING * float(probe @ curvature(probe)) / len(flat)  # of the mean of the diagonal
    direction = solve(lambda v: curvature(v) + damping * v, -pull(difference)[0])
    for share in (1.0, 0.5, 0.25, 0.125):
        moved = flat + share * direction
        with torch.no_grad():
            if float((output(moved) - target).square().sum()) < float(difference.square().sum()):
                return moved
    return flat


def solve(matrix: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """Conjugate gradients, CONJUGATE steps."""
    x, rest = torch.zeros_like(right), right
    direction, power = rest, float(rest @ rest)
    for _ in range(CONJUGATE):
        along = matrix(direction)
        length = power / float(direction @ along)
        x, rest = x + length * direction, rest - length * along
        power, last = float(rest @ rest), power
        direction = rest + power / last * direction
    return x


def count_macs(weights: Weights) -> int:
    return sum(w.numel() for w in weights if w.ndim == 4)


def shape_of(macs: int, layers: int) -> int:
    """Largest width, a multiple of 4, of a student of so many layers with at most so many multiply-adds a pixel."""
    fitting = (w for w in range(64, 3, -4) if 27 * w + 9 * w * w * (layers - 2) + 108 * w <= macs)
    return next(fitting)


def main(models: Path, benchmarks: Path, counts: Sequence[int]) -> None:
    torch.set_num_threads(1)
    print(machine())
    teacher = read_teacher(models / "teacher_m_x2.safetensors")
    assert isinstance(teacher.module, EDSR)
    weights = read_weights(teacher.module)
    inputs = [b.float() for b in batches(sample_inputs(scale=2, channels=3, input_range=RANGE), samples=24)]

    def row(name: str, make: Callable[[], nn.Module], macs: int | None = None) -> None:
        start = time.process_time()
        net = make()
        seconds = time.process_time() - start
        source = Teacher(module=net, input_range=RANGE) if isinstance(net, Plain64) else net
        psnr = "  ".join(f"{mean(evaluate(source, benchmarks / t / 'x2')).psnr:.3f}" for t in ("Set5", "Set14"))
        report: object = getattr(net, "report", None)
        cost = report.cost.macs_per_pixel if isinstance(report, ShrinkReport) else macs
        assert cost is not None, "a network that is no student comes with its multiply-adds"
        print(f"{name:34} {cost / 1e3:6.0f} K a pixel  {psnr} dB  {seconds:5.0f} CPU s", flush=True)

    row("Teacher-M", lambda: Plain64(weights), count_macs(weights))
    for count in counts:
        by_l1 = prune_by_magnitude(weights, count)
        macs = count_macs(by_l1)
        row(f"L1, {count} of 64", lambda kept=by_l1: Plain64(kept), macs)  # type: ignore[misc]
        found: dict[str, Weights] = {}

        def reconstruct(count: int = count, found: dict[str, Weights] = found) -> nn.Module:
            found["thinet"] = prune_by_reconstruction(weights, count, inputs)
            return Plain64(found["thinet"])

        row(f"ThiNet, {count} of 64", reconstruct, macs)
        row("  and global, second order", lambda f=found: Plain64(refit_all(f["thinet"], weights, inputs)), macs)  # type: ignore[misc]
        for layers in (18, 35):
            width = shape_of(macs, layers)
            for how, refit in (("", 0), (", joint refit", None)):
                row(
                    f"ours, {layers} layers of {width}{how}",
                    lambda layers=layers, width=width, refit=refit: shrink(  # type: ignore[misc]
                        teacher, layers=layers, width=width, align=4, refit=refit
                    ),
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(n) for n in sys.argv[3:]] or [8, 16])
