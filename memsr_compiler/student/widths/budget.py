"""Widths of a student's levels, as they are told or by an error (MemSR, Eq. 15, Sec. 3.5); what a student costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memsr_compiler.analysis.cost import Cost, cost_of_layers
from memsr_compiler.checks import require_number, require_size, require_whole
from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import say_count
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.statistics.survey import Survey, eq15_error, spectrum
from memsr_compiler.student.widths.latency import LatencyModel


@dataclass(frozen=True)
class Budget:
    """One way to say how wide a student should be: exactly one of these.

    See `shrink`; `size` is the (width, height) that max_macs, max_memory and max_latency are for.

    latency   what a stack of layers takes, for max_latency
    """

    theta: float | None = None
    width: int | None = None
    widths: tuple[int, ...] | None = None
    max_params: int | None = None
    max_macs: int | None = None
    max_memory: int | None = None
    size: tuple[int, int] = (960, 540)
    max_latency: float | None = None
    latency: LatencyModel | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInput for a budget that says nothing, too much, or what cannot be."""
        names = ("theta", "width", "widths", "max_params", "max_macs", "max_memory", "max_latency")
        said = [name for name in names if getattr(self, name) is not None]
        if len(said) != 1:
            ways = " and ".join(said) or "nothing"
            raise InvalidInput(f"say how wide the student should be in one way, not {ways}: {', '.join(names)}")
        self._check_values()

    def _check_values(self) -> None:
        if self.theta is not None:
            require_number("theta", self.theta)
            if not 0 < self.theta < 1:
                raise InvalidInput(f"theta is a relative error, between 0 and 1, not {self.theta:g}; 0.05 is usual")
        widths: object = self.widths
        if widths is not None and not isinstance(widths, tuple):
            raise InvalidInput(f"widths={widths!r}: want a list, one width for each inner level")
        named = [("width", self.width), *(("widths", width) for width in self.widths or ())]
        for name, width in named:
            if width is not None:
                require_whole(name, width, 1, f"a width of {width} is no layer; give 1 or more, 32 say")
        for name, limit in (
            ("max_params", self.max_params),
            ("max_macs", self.max_macs),
            ("max_memory", self.max_memory),
        ):
            if limit is not None:
                require_whole(name, limit, 1, f"{name}={limit}: a limit below 1 leaves room for no student")
        if self.max_latency is not None:
            require_number("max_latency", self.max_latency)
            if not 0 < self.max_latency < float("inf"):
                raise InvalidInput(f"max_latency={self.max_latency:g}: want milliseconds, above 0")
        require_size(self.size)

    @property
    def limit(self) -> float | None:
        """Limit on what the student may cost, if that is how its widths are told."""
        limits = (self.max_params, self.max_macs, self.max_memory, self.max_latency)
        return next((v for v in limits if v is not None), None)

    def measure(self, teacher: LeveledTeacher, widths: Sequence[int]) -> float:
        """Cost of a student with these inner widths in the units of `limit`."""
        width, height = self.size
        if self.max_latency is not None:
            assert self.latency is not None, "a limit on latency comes with a model of it"
            return self.latency.predict(list_shapes(teacher, widths), width * height)
        cost = student_cost(teacher, widths)
        if self.max_params is not None:
            return cost.parameters
        if self.max_macs is not None:
            return cost.macs_per_pixel * width * height
        return cost.memory(height, width)


def choose_widths(teacher: LeveledTeacher, seen: Survey | None, budget: Budget, align: int) -> tuple[int, ...]:
    """Choose a width for each level but the last, all multiples of `align`, for a budget that is no limit.

    seen   needed for theta, else may be None

    Raises InvalidInput for a width below 1 or above the teacher's, or a wrong number of widths.
    """
    largest = full_widths(teacher, align)
    told = budget.widths if budget.width is None else (budget.width,) * len(largest)
    if told is not None:
        if len(told) != len(largest):
            are = "is" if len(told) == 1 else "are"
            inner = say_count(len(largest), "inner level")
            raise InvalidInput(f"{say_count(len(told), 'width')} {are} given, and the student has {inner}")
        if teacher.whole:  # else nobody said which levels would be kept
            require_widths(teacher, budget, align)
        return tuple(int(min(align_up(width, align), most)) for width, most in zip(told, largest, strict=True))
    assert seen is not None and budget.theta is not None, "a limit is shared out by `share_limit`"
    needed = [_narrowest(spectrum(m).square(), budget.theta) for m in seen.features]
    return tuple(min(align_up(w, align), most) for w, most in zip(needed, largest, strict=True))


def require_widths(teacher: LeveledTeacher, budget: Budget, align: int) -> None:
    """Raise InvalidInput for widths above the teacher's: the same level's, where one is told for each."""
    largest = full_widths(teacher, align)
    if budget.widths is not None and len(budget.widths) == len(largest):
        limits = [*zip(budget.widths, largest, strict=True)]
    else:
        limits = [(width, max(largest, default=width)) for width in budget.widths or (budget.width,) if width]
    for width, most in limits:
        if width > most:
            raise InvalidInput(f"a width of {width} is not between 1 and the teacher's, {most}")


def require_affordable(teacher: LeveledTeacher, budget: Budget, align: int) -> None:
    """Raise InvalidInput for a limit below what the narrowest student costs."""
    narrowest = budget.measure(teacher, [align] * (len(teacher.levels) - 1))
    if budget.limit is not None and narrowest > budget.limit:
        raise InvalidInput(
            f"the limit of {budget.limit:,} is below what a student {align} wide everywhere takes: {narrowest:,.9g}; "
            "raise it, or take a smaller --align"
        )


def is_affordable(teacher: LeveledTeacher, budget: Budget, align: int) -> bool:
    """Whether the narrowest student of a teacher's levels is within the limit."""
    narrowest = budget.measure(teacher, [align] * (len(teacher.levels) - 1))
    return budget.limit is None or narrowest <= budget.limit


def equal_widths(teacher: LeveledTeacher, budget: Budget, align: int) -> tuple[int, ...]:
    """Find the largest equal widths, as far as the teacher has as many, within the budget's limit."""
    largest = full_widths(teacher, align)
    chosen = tuple(min(align, most) for most in largest)
    for width in range(align, max(largest, default=align) + 1, align):
        widths = tuple(min(width, most) for most in largest)
        if budget.limit is None or budget.measure(teacher, widths) > budget.limit:
            break
        chosen = widths
    return chosen


def full_widths(teacher: LeveledTeacher, align: int) -> tuple[int, ...]:
    """Widths that hold all of the teacher, and a channel of ones for the borders, aligned."""
    return tuple(align_up(level.channels + 1, align) for level in teacher.levels[:-1])


def student_cost(teacher: LeveledTeacher, widths: Sequence[int]) -> Cost:
    """Cost of a student with these inner widths."""
    shapes = list_shapes(teacher, widths)
    return cost_of_layers([(s, teacher.scale if i == len(shapes) - 1 else 1) for i, s in enumerate(shapes)])


def list_shapes(teacher: LeveledTeacher, widths: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Shapes (C_out, C_in, k, k) of a student's kernels, by its inner widths."""
    every = (teacher.input.channels, *widths, teacher.levels[-1].channels)
    return [(after, below, k, k) for below, after, k in zip(every, every[1:], teacher.kernels, strict=False)]


def align_up(width: int, align: int) -> int:
    """Smallest multiple of `align` that is at least the width."""
    return width + -width % align


def _narrowest(energy: Tensor, theta: float) -> int:
    """Smallest width of which MemSR's Eq. 15 is below theta (Sec. 3.5)."""
    return next(r for r in range(1, len(energy) + 1) if eq15_error(energy, r) < theta)
