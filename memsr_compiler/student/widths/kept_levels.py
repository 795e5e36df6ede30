"""The levels of its teacher that a student of fewer layers keeps.

A level that is left out only moves the teacher's values on: the layer above reads the student's features from further
below, and has to do in one convolution what the teacher does in several.  What is lost for good are the ReLUs of that
level, so those that the output would miss most are kept, and levels without any are left out first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.moments import Regression, pixels, taps

RIDGE = 1e-6
SPREAD = 1e-2  # weight of evenness, against all that the output could miss: it decides between levels without ReLUs
BATCHES = 2  # that the ReLUs are missed on

Kept = tuple[int, ...]


def even_levels(inner: int, count: int) -> Kept:
    """Spread `count` levels evenly over the inner levels 1 to `inner`."""
    return tuple(round((i + 1) * (inner + 1) / (count + 1)) for i in range(count))


def best_levels(missed: Sequence[float], count: int) -> Kept:
    """Choose the `count` inner levels of which least is missed of the others, and among such the most even.

    missed   what the output would miss of each inner level, see `missed_relus`
    """
    inner = len(missed)
    whole = sum(missed) or 1.0
    paths: dict[int, tuple[float, Kept]] = {0: (0.0, ())}  # the best that ends at each level, with so many kept
    for number in range(1, count + 2):
        ends = [inner + 1] if number > count else range(number, inner + 1)
        further: dict[int, tuple[float, Kept]] = {}
        for end in ends:
            for start, (cost, path) in paths.items():
                if start < end:
                    lost = sum(missed[start : end - 1]) / whole + SPREAD * ((end - start) / (inner + 1)) ** 2
                    further[end] = min(further.get(end, (float("inf"), ())), (cost + lost, (*path, end)))
        paths = further
    return paths[inner + 1][1][:-1]


@torch.no_grad()
def missed_relus(
    teacher: LeveledTeacher, inputs: Sequence[Tensor], on_step: Callable[[str], None] | None = None
) -> tuple[float, ...]:
    """Mean squared error of the output where one inner level has straight lines for ReLUs, for each of them.

    The lines are the best linear fit, on the same images, to what the level's ReLUs give for its values below them.

    inputs   batches (N, C, H, W)
    """
    chosen = [inputs[round((i + 0.5) * len(inputs) / BATCHES - 0.5)] for i in range(min(BATCHES, len(inputs)))]
    missed = [0.0] * (len(teacher.levels) - 1)
    for number, batch in enumerate(chosen, 1):
        if on_step is not None:
            on_step(f"what the output would miss, {number} of {len(chosen)}")
        values = teacher.start(batch.float())
        output = teacher.output(batch.float())
        for i, level in enumerate(teacher.levels[:-1]):
            features = teacher.advance(level, values)
            values = features.values
            relus = level.relu.nonzero()[:, 0]
            if len(relus):
                read = taps(features.before, 1)
                lines = Regression.of(read, pixels(features.after[:, relus])).solve(RIDGE).to(read) @ read
                straight = features.after.clone()
                n, _, height, width = straight.shape
                straight[:, relus] = lines.view(len(relus), n, height, width).transpose(0, 1)
                without = teacher.finish(level, teacher.resume(level, straight))
                missed[i] += float((without - output).double().square().mean()) / len(chosen)
    return tuple(missed)
