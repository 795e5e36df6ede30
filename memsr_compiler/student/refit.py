"""All layers of a student at once, against the teacher's output: a few Gauss-Newton steps, no label, no schedule.

Layer by layer, a student is the best that each layer can do for itself; what they can do for each other is left.  The
loss is the squared difference of the two networks' outputs on the calibration images, nothing else is known of them.
The Gauss-Newton matrix of a layer is taken to be a Kronecker product, of the moments of what it reads and of the
output's sensitivity to what it makes (Martens and Grosse 2015, "Optimizing Neural Networks with Kronecker-factored
Approximate Curvature", Eq. 1 and 23); its inverse preconditions conjugate gradients (Polak-Ribiere), and every step is
as long as a parabola through three losses has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memsr_compiler.student.derived import Kernel
from memsr_compiler.student.levels import Teacher
from memsr_compiler.student.moments import Moments, pixels, taps
from memsr_compiler.student.spool import Spool

DAMPING = 1e-4  # of either factor's diagonal
RENEW = 5  # steps after which the curvature is measured anew
FIRST_STEP = 0.01

Direction = list[Tensor]  # a matrix (C_out, taps + 1) a layer


@dataclass(frozen=True)
class Refitted:
    """kernels   of every layer;  losses   mean squared difference to the teacher, before and after each step"""

    kernels: tuple[Kernel, ...]
    losses: tuple[float, ...]


def refit_to_output(
    teacher: Teacher,
    kernels: Sequence[Kernel],
    inputs: Sequence[Tensor],
    steps: int,
    on_step: Callable[[str], None] | None = None,
) -> Refitted:
    """Refit a student to what its teacher makes of the inputs, batches (N, C, H, W)."""
    with Spool() as batches, torch.no_grad():
        for batch in inputs:
            image = batch.float()
            batches.append({"image": image, "output": teacher.output(image)})
        with torch.enable_grad():
            return refit(kernels, batches, steps, on_step)


def refit(
    kernels: Sequence[Kernel],
    batches: Spool,
    steps: int,
    on_step: Callable[[str], None] | None = None,
) -> Refitted:
    """Take `steps` steps; never ends worse than it began.

    kernels   of every layer, ReLU after all but the last
    batches   records {"image": (N, C, H, W), "output": (N, C', H, W)}, float32: what the teacher makes of it, before
              the pixel shuffle
    """
    student = _Student(kernels)
    loss = student.loss(batches)
    losses = [loss]
    length, inverses = FIRST_STEP, []
    before: tuple[Direction, Direction, float] | None = None
    for step in range(steps):
        if on_step is not None:
            on_step(f"fitting all layers together, step {step + 1} of {steps}")
        if step % RENEW == 0:
            inverses, before = student.curvature(batches), None
        gradient = student.gradient(batches)
        natural = [out @ g @ taken for g, (out, taken) in zip(gradient, inverses, strict=True)]
        power = _dot(natural, gradient)
        direction = [-n for n in natural]
        if before is not None:
            older, past, past_power = before
            beta = (power - _dot(natural, older)) / past_power
            candidate = [d + beta * p for d, p in zip(direction, past, strict=True)]
            if beta > 0 and _dot(candidate, gradient) < 0:
                direction = candidate
        before = gradient, direction, power
        length, loss = _line_search(student, batches, direction, _dot(direction, gradient), length, losses[-1])
        losses.append(loss)
        if length == 0:
            break
    return Refitted(student.kernels(), tuple(losses))


def _line_search(
    student: _Student, batches: Spool, direction: Direction, slope: float, length: float, loss: float
) -> tuple[float, float]:
    """Go along the direction: try as far as last time, then where a parabola has its minimum, keep the better.

    Returns how far and the loss there; (0, loss) if there is nothing to gain.
    """
    start = student.matrices
    found = (0.0, loss)
    for _ in range(6):
        student.matrices = _along(start, direction, length)
        tried = student.loss(batches)
        if tried < found[1]:
            found = length, tried
        bend = (tried - loss - slope * length) / length**2
        longest, shortest = 4 * length, length / 10
        length = min(max(-slope / (2 * bend), shortest), longest) if bend > 0 else longest
        if found[0]:
            student.matrices = _along(start, direction, length)
            tried = student.loss(batches)
            found = min(found, (length, tried), key=lambda pair: pair[1])
            break
    student.matrices = _along(start, direction, found[0])
    return found


def _along(start: Direction, direction: Direction, length: float) -> Direction:
    return [s + length * d for s, d in zip(start, direction, strict=True)]


def _dot(a: Direction, b: Direction) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


class _Student:
    """A chain of convolutions and ReLUs as matrices on taps, (C_out, C_in * k * k + 1) float64 each."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.shapes = [weight.shape for weight, _ in kernels]
        self.matrices: Direction = [torch.cat([w.flatten(1), b[:, None]], dim=1).double() for w, b in kernels]

    def kernels(self) -> tuple[Kernel, ...]:
        parts = zip(self.matrices, self.shapes, strict=True)
        return tuple((m[:, :-1].reshape(shape).contiguous(), m[:, -1].clone()) for m, shape in parts)

    def _run(self, image: Tensor, weights: Sequence[Tensor], read: list[Tensor], made: list[Tensor]) -> Tensor:
        """Forward in float32; `read` and `made` collect every layer's input and its result before the ReLU."""
        value = image
        for i, (matrix, shape) in enumerate(zip(weights, self.shapes, strict=True)):
            read.append(value)
            value = F.conv2d(value, matrix[:, :-1].reshape(shape), matrix[:, -1], padding=shape[-1] // 2)
            made.append(value)
            value = value.relu() if i < len(weights) - 1 else value
        return value

    def _single(self) -> list[Tensor]:
        return [m.float() for m in self.matrices]

    def loss(self, batches: Spool) -> float:
        """Mean squared difference to the teacher's output."""
        total, count, weights = 0.0, 0, self._single()
        with torch.no_grad():
            for batch in batches:
                difference = self._run(batch["image"], weights, [], []) - batch["output"]
                total += float(difference.double().square().sum())
                count += difference.numel()
        return total / count

    def gradient(self, batches: Spool) -> Direction:
        """Of the loss."""
        weights = [w.requires_grad_() for w in self._single()]
        total = [torch.zeros_like(m) for m in self.matrices]
        count = 0
        for batch in batches:
            difference = self._run(batch["image"], weights, [], []) - batch["output"]
            count += difference.numel()
            for sum_, more in zip(total, torch.autograd.grad(difference.square().sum(), weights), strict=True):
                sum_ += more.double()
        return [t / count for t in total]

    def curvature(self, batches: Spool) -> list[tuple[Tensor, Tensor]]:
        """For each layer the inverses of its two Kronecker factors: of what it makes, of what it reads."""
        weights = self._single()
        reads = [Moments.none(w.shape[1]) for w in weights]
        notices = [Moments.none(len(w)) for w in weights]
        for number, batch in enumerate(batches):
            read: list[Tensor] = []
            made: list[Tensor] = []
            output = self._run(batch["image"], [weights[0].requires_grad_(), *weights[1:]], read, made)
            generator = torch.Generator().manual_seed(number)
            signs = torch.randint(0, 2, output.shape, generator=generator).float() * 2 - 1
            gradients = torch.autograd.grad((output * signs).sum(), made)
            for i, shape in enumerate(self.shapes):
                reads[i] += Moments.of(taps(read[i].detach(), shape[-1]), exact=False)
                notices[i] += Moments.of(pixels(gradients[i]), exact=False)
        return [(_inverse(n, 0.0), _inverse(r, DAMPING)) for n, r in zip(notices, reads, strict=True)]


def _inverse(moments: Moments, damping: float) -> Tensor:
    second = moments.second
    diagonal = second.diagonal()
    mean = float(diagonal.mean())
    raised = damping * diagonal + (1e-9 if damping else DAMPING) * mean + 1e-300
    inverse: Tensor = torch.linalg.inv(second + torch.diag(raised))
    return inverse
