"""Budgets of students as text: "theta 0.05", which is also what a sweep calls the student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memsr_compiler.commands.interface.quantities import (
    WrongValue,
    parse_bytes,
    parse_count,
    parse_fractions,
    parse_whole_numbers,
)
from memsr_compiler.errors import InvalidInput


def name_student(budget: Mapping[str, Any]) -> str:
    """{"theta": 0.05} -> "theta 0.05"."""
    return " ".join(f"{name} {_say(value)}" for name, value in budget.items())


def parse_budget(text: str) -> dict[str, Any]:
    """ "width 16 layers 12" -> {"width": 16, "layers": 12}, arguments of `shrink`; names as options have them, too.

    Raises InvalidInput for what is no budget.
    """
    words = text.split()
    names = [word.replace("-", "_") for word in words[::2]]
    if not words or len(words) % 2 or len({*names}) < len(names) or not {*names} <= {*_PARSERS}:
        known = ", ".join(_PARSERS)
        raise InvalidInput(f"budget {text!r}: want a name and a value, as in 'theta 0.05'; names are {known}")
    try:
        return {name: _PARSERS[name](value) for name, value in zip(names, words[1::2], strict=True)}
    except WrongValue as error:
        raise InvalidInput(f"budget {text!r}: {error.message}") from None


def _single(parse: Callable[[object], Sequence[Any]], wanted: str) -> Callable[[object], Any]:
    """A parser of one value, made of one of several with commas between."""

    def parse_one(text: object) -> Any:
        values = parse(text)
        if len(values) > 1:
            raise WrongValue(text, wanted)
        return values[0]

    return parse_one


def _say(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


_PARSERS: dict[str, Callable[[object], Any]] = {
    "theta": _single(parse_fractions, "one number"),
    "width": _single(parse_whole_numbers, "one whole number"),
    "widths": parse_whole_numbers,
    "max_params": parse_count,
    "max_macs": parse_count,
    "max_memory": parse_bytes,
    "layers": _single(parse_whole_numbers, "one whole number"),
}
