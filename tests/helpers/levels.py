"""Small teachers as levels, and the images and comparisons that tests of students need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.report import ShrinkReport
from memsr_compiler.teachers.families.edsr import EDSR, Tail


def edsr(blocks: int = 2, channels: int = 8) -> EDSR:
    """A small EDSR with random weights, the same at every call."""
    torch.manual_seed(4)
    return EDSR(scale=2, blocks=blocks, channels=channels).eval()


def leveled(blocks: int = 2, channels: int = 8) -> LeveledTeacher:
    """That EDSR as levels."""
    return LeveledTeacher.of(edsr(blocks, channels), (0.0, 1.0))


def paper_teacher(blocks: int = 2, channels: int = 8, tail: Tail = "conv") -> LeveledTeacher:
    """An EDSR as the paper's teachers are: with a mean shift, and one convolution for a tail."""
    torch.manual_seed(4)
    network = EDSR(scale=2, blocks=blocks, channels=channels, mean=(0.4, 0.5, 0.6), tail=tail)
    return LeveledTeacher.of(network, (0.0, 1.0))


def chain(widths: Sequence[int] = (3, 6, 5, 4), kernels: Sequence[int] = (3, 3, 3)) -> nn.Sequential:
    """Convolutions with ReLUs between, whose levels and kernels need no compiler to be known."""
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for below, above, k in zip(widths[:-1], widths[1:], kernels, strict=True):
        layers += [nn.Conv2d(below, above, k, padding=k // 2), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in 0..1, float64, the same for the same seed."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_batch(count: int = 6, size: int = 12, channels: int = 3) -> Tensor:
    """Uniform noise, one tensor (N, C, size, size + 1), float64."""
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, channels, size, size + 1, generator=generator, dtype=torch.float64)


def smooth_images(count: int = 4, size: int = 40, channels: int = 3) -> list[Tensor]:
    """Noise of several scales: neighbours are alike, as in photographs."""
    generator = torch.Generator().manual_seed(7)
    images = []
    for _ in range(count):
        levels = [torch.rand(1, channels, n, n, generator=generator) for n in (3, 9, size)]
        large = [F.interpolate(x, (size, size), mode="bilinear", align_corners=False) for x in levels]
        images.append((0.6 * large[0] + 0.3 * large[1] + 0.1 * large[2]).double())
    return images


def features(teacher: LeveledTeacher, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Features of every level: those below it, before and after its ReLUs."""
    result, below, values = [], x, teacher.start(x)
    for level in teacher.levels:
        held = teacher.advance(level, values)
        result.append((below, held.before, held.after))
        below, values = held.after, held.values
    return result


@torch.no_grad()
def difference(a: nn.Module, b: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Root of the mean squared difference of what two networks make of images, in float32."""
    squares = torch.cat([(a(x.float()) - b(x.float())).flatten() for x in inputs]).square()
    return float(squares.mean().sqrt())


def reported(net: object) -> ShrinkReport:
    """The report that shrink left with a student."""
    report = net.report  # type: ignore[attr-defined]
    assert isinstance(report, ShrinkReport)
    return report


CALIBRATION = [noise(2, 3, 24, 24), noise(2, 3, 20, 20, seed=1)]
