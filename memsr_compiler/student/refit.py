"""All layers of a student at once, against the teacher's output: stochastic natural gradient, no label.

Layer by layer, a student is the best that each layer can do for itself; what they can do for each other is left.  The
loss is the squared difference of the two networks' outputs on crops of the calibration images, nothing else is known of
them.  Every step takes one batch.  The Gauss-Newton matrix of a layer is taken to be a Kronecker product, of the
moments of what it reads and of the output's sensitivity to what it makes (Martens and Grosse 2015, "Optimizing Neural
Networks with Kronecker-factored Approximate Curvature", equations 1 and 23), both running means over batches; its
inverse preconditions gradient descent with momentum.  What is taken is an average of students on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.report import Kernel
from memsr_compiler.student.statistics.moments import Moments, pixels
from memsr_compiler.student.statistics.spill import Record, Spool
from memsr_compiler.student.statistics.tap_products import TapGrid

LENGTH = 0.06  # of a step, at most, in units of the natural gradient; less from step to step, as half a cosine wave
SHORTEST = 0.3  # of that, in the end: what steps stray by then, the average of students takes out
AVERAGED = 10  # steps, about, over which students are averaged; those averages are looked at, and one is taken
PROMISE = 0.15  # of the loss: steps are shorter where the gradient promises more, which a noisy batch easily does
LOWERED = 1.05  # times the loss may be where linear channels are lowered: a student of full width is its teacher
MOMENTUM = 0.9
REACH = 2.0  # times as far as to this batch's minimum: there its loss is what it was
DAMPING = 1e-4  # of either factor's diagonal
RARE = 1e-6  # of the mean of what a layer reads, squared: else channels that hardly ever are on get huge weights
FORGET = 0.8  # weight of the curvature so far when another batch's is added
RENEW = 20  # steps after which that is done; and in every one of the first WARM_UP, which go nowhere yet
WARM_UP = 5
LOOK = (
    4  # steps after which it is looked anew how the loss bends; in between as the curvature says, times what it was off
)
REVIEWS = 10  # times that the loss is looked at on the way
HELD_OUT = 8  # one batch in so many is never taken a step on: by those the steps are judged

Direction = list[Tensor]  # a matrix (C_out, taps + 1) a layer


@dataclass(frozen=True)
class Refitted:
    """A student after the joint refit.

    kernels   of every layer, the best that were seen
    losses    mean squared difference to the teacher on batches held out: before, on the way, in the end
    """

    kernels: tuple[Kernel, ...]
    losses: tuple[float, ...]


def refit_to_output(
    teacher: LeveledTeacher,
    kernels: Sequence[Kernel],
    inputs: Sequence[Tensor],
    steps: int,
    *,
    lowered: Sequence[Kernel] | None = None,
    seed: int = 0,
    on_step: Callable[[str], None] | None = None,
) -> Refitted:
    """Refit a student to its teacher's output for the inputs, batches (N, C, H, W).  See `refit`.

    lowered   the student with its linear channels lowered: begun from if that costs at most LOWERED
    """
    with run_teacher(teacher, inputs, on_step) as batches:
        if lowered is not None and _loss(lowered, batches) <= LOWERED * _loss(kernels, batches):
            kernels = lowered
        return refit(kernels, batches, steps, seed=seed, on_step=on_step)


@contextmanager
def run_teacher(
    teacher: LeveledTeacher, inputs: Sequence[Tensor], on_step: Callable[[str], None] | None = None
) -> Iterator[Spool]:
    """Run a teacher on batches (N, C, H, W), and hold what `refit` takes while the context lasts."""
    with Spool() as batches:
        for number, batch in enumerate(inputs):
            if on_step is not None:
                on_step(f"running the teacher, {number + 1} of {len(inputs)}")
            image = batch.float().contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                batches.append({"image": image, "output": teacher.target(image)})
        yield batches


def refit(
    kernels: Sequence[Kernel],
    batches: Spool,
    steps: int,
    *,
    seed: int = 0,
    on_step: Callable[[str], None] | None = None,
) -> Refitted:
    """Take `steps` steps; never ends worse than it began, on batches that no step has seen, if there are enough.

    kernels   of every layer, ReLU after all but the last
    batches   records {"image": (N, C, H, W), "output": (N, C', H, W)}, float32: the teacher's output for it, before the
              pixel shuffle; where they are, the work is done
    seed      of their order
    """
    training, judges = _part(len(batches))
    watched = [batches[i] for i in judges]
    student = _Chain(kernels, watched[0]["image"].device)
    losses = [student.loss(watched)]
    best = losses[0], student.matrices
    curvature = _Curvature(student)
    velocity = [torch.zeros_like(m) for m in student.matrices]
    average = _Chain(kernels, watched[0]["image"].device)
    off: float | None = None
    order = _order(training, seed)
    for step in range(-WARM_UP if steps else 0, steps):
        if on_step is not None and step >= 0:
            on_step(f"fitting all layers together, step {step + 1} of {steps}")
        batch = batches[next(order)]
        if step < 0 or step % RENEW == 0:
            curvature.add(batch, seed=step + WARM_UP)
        if step < 0:
            continue
        length = LENGTH * (SHORTEST + (1 - SHORTEST) * (1 + math.cos(math.pi * step / steps)) / 2)
        velocity, off = _step(student, batch, curvature, velocity, length, None if step % LOOK == 0 else off)
        fresh = max(1 / AVERAGED, (AVERAGED - 1) / (AVERAGED + step))  # the first students are soon forgotten
        average.matrices = [a.lerp(m, fresh) for a, m in zip(average.matrices, student.matrices, strict=True)]
        if (step + 1) * REVIEWS // steps > step * REVIEWS // steps:
            losses.append(average.loss(watched))
            best = min(best, (losses[-1], average.matrices), key=lambda pair: pair[0])
    student.matrices = best[1]
    return Refitted(student.kernels(), tuple(losses))


def _step(
    student: _Chain, batch: Record, curvature: _Curvature, velocity: Direction, length: float, off: float | None
) -> tuple[Direction, float | None]:
    """Move the student on: never so far that this batch's loss, as a parabola, would rise.

    off   how many times as much as the curvature says the loss bends; None: this is looked at

    Returns by how much it was moved, and `off` for the next step.
    """
    gradient, loss = student.gradient(batch)
    natural = curvature.inverse_times(gradient)
    promised = max(_dot(natural, gradient), 1e-300)
    length = min(length, PROMISE * loss / promised)
    direction = [MOMENTUM * v - length * n for v, n in zip(velocity, natural, strict=True)]
    slope = _dot(gradient, direction)
    if slope >= 0:  # what is left of former steps leads uphill
        direction, slope = [-length * n for n in natural], -length * promised
    start = student.matrices
    student.matrices = _move(start, direction, 1.0)
    expected = max(curvature.along(direction), 1e-300)
    bend = student.loss([batch]) - loss - slope if off is None else off * expected
    share = min(1.0, REACH * -slope / (2 * bend)) if bend > 0 else 1.0
    student.matrices = _move(start, direction, share)
    return [share * d for d in direction], bend / expected if 0 < bend < math.inf else None


def _move(start: Direction, direction: Direction, share: float) -> Direction:
    return [s + share * d for s, d in zip(start, direction, strict=True)]


def _loss(kernels: Sequence[Kernel], batches: Spool) -> float:
    """The loss on the batches to judge by."""
    watched = [batches[i] for i in _part(len(batches))[1]]
    return _Chain(kernels, watched[0]["image"].device).loss(watched)


def _part(count: int) -> tuple[Sequence[int], Sequence[int]]:
    """Part the batches in those to take steps on and those to judge by; the same where there are few."""
    judges = range(HELD_OUT // 2, count, HELD_OUT) if count >= HELD_OUT else range(count)
    return [i for i in range(count) if i not in judges or count < HELD_OUT], judges


def _order(batches: Sequence[int], seed: int) -> Iterator[int]:
    """Yield every batch once, in a random order, then again in another, for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


def _dot(a: Direction, b: Direction) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


class _Chain:
    """A chain of convolutions and ReLUs as matrices on taps, (C_out, C_in * k * k + 1) float64 each, on a device."""

    def __init__(self, kernels: Sequence[Kernel], device: torch.device) -> None:
        self.shapes = [weight.shape for weight, _ in kernels]
        matrices = (torch.cat([w.flatten(1), b[:, None]], dim=1) for w, b in kernels)
        self.matrices: Direction = [matrix.double().to(device) for matrix in matrices]

    def kernels(self) -> tuple[Kernel, ...]:
        """Weights and biases, on the CPU."""
        parts = zip((matrix.cpu() for matrix in self.matrices), self.shapes, strict=True)
        return tuple((m[:, :-1].reshape(shape).contiguous(), m[:, -1].clone()) for m, shape in parts)

    def single(self) -> list[Tensor]:
        return [m.float() for m in self.matrices]

    def run(
        self, image: Tensor, weights: Sequence[Tensor], watch: Callable[[Tensor, Tensor], None] | None = None
    ) -> Tensor:
        """Run forward in float32; `watch(read, result)` sees every layer's input and its result before the ReLU."""
        value = image
        for i, (matrix, shape) in enumerate(zip(weights, self.shapes, strict=True)):
            read = value
            value = F.conv2d(value, matrix[:, :-1].reshape(shape), matrix[:, -1], padding=shape[-1] // 2)
            if watch is not None:
                watch(read, value)
            if i < len(weights) - 1:
                value = value.relu_() if watch is None else value.relu()
        return value

    def loss(self, batches: Sequence[Record]) -> float:
        """Mean squared difference to the teacher's output; infinite where that is not a number."""
        total, count, weights = 0.0, 0, self.single()
        with torch.no_grad():
            for batch in batches:
                difference = self.run(batch["image"], weights) - batch["output"]
                total += float(difference.double().square().sum())
                count += difference.numel()
        return total / count if math.isfinite(total) else math.inf

    def gradient(self, batch: Record) -> tuple[Direction, float]:
        """Gradient of the loss on a batch, and that loss."""
        weights = [w.requires_grad_() for w in self.single()]
        loss = (self.run(batch["image"], weights) - batch["output"]).square().mean()
        return [g.double() for g in torch.autograd.grad(loss, weights)], loss.item()


class _Curvature:
    """Two Kronecker factors for each layer, of what it makes and of what it reads, and their inverses."""

    def __init__(self, student: _Chain) -> None:
        self._student = student
        self._factors: list[tuple[Tensor, Tensor]] = []
        self._inverses: list[tuple[Tensor, Tensor]] = []

    def add(self, batch: Record, seed: int) -> None:
        """Add another batch's share."""
        factors = self._measure(batch, seed)
        pairs = zip(self._factors or factors, factors, strict=True)
        self._factors = [(FORGET * a + (1 - FORGET) * x, FORGET * b + (1 - FORGET) * y) for (a, b), (x, y) in pairs]
        self._inverses = [(_invert(made, DAMPING, 0.0), _invert(read, RARE, DAMPING)) for made, read in self._factors]

    def inverse_times(self, gradient: Direction) -> Direction:
        return [made @ g @ read for g, (made, read) in zip(gradient, self._inverses, strict=True)]

    def along(self, direction: Direction) -> float:
        """Second derivative of the loss along a direction, but for a factor that is the same for all."""
        factors = zip(direction, self._factors, strict=True)
        return sum(float(((made @ d @ read) * d).sum()) for d, (made, read) in factors)

    def _measure(self, batch: Record, seed: int) -> list[tuple[Tensor, Tensor]]:
        seen: list[tuple[Tensor, Tensor]] = []
        weights = self._student.single()
        some = batch["image"][: -(-len(batch["image"]) // 2)]  # running means over batches do with half of each
        output = self._student.run(some, [weights[0].requires_grad_(), *weights[1:]], lambda *pair: seen.append(pair))
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
        gradients = torch.autograd.grad((output * signs).sum(), [result for _, result in seen])
        factors = []
        for made, (read, _), shape in zip(gradients, seen, self._student.shapes, strict=True):
            taps = Moments.of_taps(TapGrid.of(read.detach(), shape[-1]))
            factors.append((Moments.of(pixels(made)).second.to(made.device), taps.second.to(made.device)))
        return factors


def _invert(second: Tensor, of_mean: float, of_own: float) -> Tensor:
    """Invert a matrix, damped by a share of the mean of its diagonal, and of each entry of it."""
    diagonal = second.diagonal()
    inverse: Tensor = torch.linalg.inv(second + torch.diag(of_own * diagonal + of_mean * diagonal.mean() + 1e-300))
    return inverse
