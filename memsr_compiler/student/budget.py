"""How wide each level of a student should be: as told, by an error, or by what the student may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from memsr_compiler.costs import Cost, cost_of_layers
from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.levels import Teacher
from memsr_compiler.student.survey import Survey, lost, output_error, spectrum


@dataclass(frozen=True)
class Budget:
    """Exactly one of these.  See `shrink`; `size` is the (width, height) that max_macs and max_memory are for."""

    theta: float | None = None
    width: int | None = None
    widths: tuple[int, ...] | None = None
    max_params: int | None = None
    max_macs: int | None = None
    max_memory: int | None = None
    size: tuple[int, int] = (960, 540)

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        names = ("theta", "width", "widths", "max_params", "max_macs", "max_memory")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            told = " and ".join(given) or "nothing"
            raise InvalidInput(f"say how wide the student should be in one way, not {told}: {', '.join(names)}")
        if self.theta is not None and not 0 < self.theta < 1:
            raise InvalidInput(f"theta is a relative error, between 0 and 1, not {self.theta:g}; 0.05 is usual")
        if min(self.size) < 1:
            raise InvalidInput(f"an image of {self.size[0]}x{self.size[1]} pixels has no pixel")

    @property
    def limit(self) -> int | None:
        """What the student may cost, if that is how its widths are told."""
        return next((v for v in (self.max_params, self.max_macs, self.max_memory) if v is not None), None)

    def spent(self, cost: Cost) -> int:
        """What a student costs, in the units of `limit`."""
        width, height = self.size
        if self.max_params is not None:
            return cost.parameters
        if self.max_macs is not None:
            return cost.macs_per_pixel * width * height
        return cost.memory(height, width)


def chosen_widths(teacher: Teacher, seen: Survey | None, budget: Budget, align: int) -> tuple[int, ...]:
    """A width for each level but the last, all multiples of `align`.

    seen   needed for theta and for limits, else may be None

    Raises InvalidInput for a width below 1 or above the teacher's, a wrong number of widths, a limit below what the
    narrowest student costs.
    """
    largest = full_widths(teacher, align)
    if budget.width is not None:
        _require_width(budget.width, max(largest, default=budget.width))
        return tuple(min(_aligned(budget.width, align), most) for most in largest)
    if budget.widths is not None:
        if len(budget.widths) != len(largest):
            raise InvalidInput(
                f"{len(budget.widths)} widths are given, and the student has {len(largest)} inner levels"
            )
        for given, most in zip(budget.widths, largest, strict=True):
            _require_width(given, most)
        return tuple(min(_aligned(w, align), most) for w, most in zip(budget.widths, largest, strict=True))
    assert seen is not None, "theta and limits go by what was seen of the teacher's features"
    if budget.theta is not None:
        needed = [_for_error(spectrum(m), budget.theta) for m in seen.features]
        return tuple(min(_aligned(w, align), most) for w, most in zip(needed, largest, strict=True))
    errors = [output_error(m, s) for m, s in zip(seen.features, seen.sensitivity, strict=True)]
    return _within(teacher, errors, budget, largest, align)


def full_widths(teacher: Teacher, align: int) -> tuple[int, ...]:
    """The widths that hold all of the teacher, and a channel of ones for the borders, aligned."""
    return tuple(_aligned(level.channels + 1, align) for level in teacher.levels[:-1])


def student_cost(teacher: Teacher, widths: Sequence[int]) -> Cost:
    """Of a student with these inner widths."""
    every = (teacher.input.channels, *widths, teacher.levels[-1].channels)
    shapes = [(after, below, k, k) for below, after, k in zip(every, every[1:], teacher.kernels, strict=False)]
    return cost_of_layers([(s, teacher.scale if i == len(shapes) - 1 else 1) for i, s in enumerate(shapes)])


def _aligned(width: int, align: int) -> int:
    return width + -width % align


def _require_width(width: int, most: int) -> None:
    if not 1 <= width <= most:
        raise InvalidInput(f"a width of {width} is not between 1 and the teacher's, {most}")


def _for_error(singular_values: Tensor, theta: float) -> int:
    """The smallest width of which Eq. 15 is below theta."""
    return next(r for r in range(1, len(singular_values) + 1) if lost(singular_values, r) < theta)


def _within(
    teacher: Teacher, errors: Sequence[Tensor], budget: Budget, largest: Sequence[int], align: int
) -> tuple[int, ...]:
    """From the full widths down, always where the output loses least for what is saved, until the limit is met."""
    limit = budget.limit
    assert limit is not None
    widths = list(largest)

    def spent(candidate: Sequence[int]) -> int:
        return budget.spent(student_cost(teacher, candidate))

    narrowest = spent([min(align, most) for most in largest])
    if narrowest > limit:
        raise InvalidInput(
            f"the limit of {limit:,} is below what a student {align} wide everywhere takes: {narrowest:,}; "
            "raise it, or take a smaller --align"
        )
    now = spent(widths)
    while now > limit:
        worth = [_worth(i, widths, errors[i], spent, now, align) for i in range(len(widths))]
        best = min(range(len(widths)), key=worth.__getitem__)
        if worth[best] == float("inf"):  # only memory: several levels are at its peak, none alone lowers it
            best = min(_at_peak(teacher, widths, align), key=lambda i: _error(errors[i], widths[i] - align))
        widths[best] -= align
        now = spent(widths)
    return tuple(widths)


def _worth(
    i: int, widths: Sequence[int], error: Tensor, spent: Callable[[Sequence[int]], int], now: int, align: int
) -> float:
    """Error gained for each unit saved by narrowing level i."""
    if widths[i] <= align:
        return float("inf")
    saved = now - spent([*widths[:i], widths[i] - align, *widths[i + 1 :]])
    gained = _error(error, widths[i] - align) - _error(error, widths[i])
    return gained / saved if saved > 0 else float("inf")


def _error(error: Tensor, width: int) -> float:
    return float(error[min(width, len(error) - 1)])


def _at_peak(teacher: Teacher, widths: Sequence[int], align: int) -> list[int]:
    """Levels that can be narrowed and are next to the layer with the largest maps."""
    every = (teacher.input.channels, *widths, teacher.levels[-1].channels)
    pairs = [below + after for below, after in pairwise(every)]
    for layer in sorted(range(len(pairs)), key=pairs.__getitem__, reverse=True):
        found = [i for i in (layer - 1, layer) if 0 <= i < len(widths) and widths[i] > align]
        if found:
            return found
    raise AssertionError("a limit that the narrowest student meets was not met")
