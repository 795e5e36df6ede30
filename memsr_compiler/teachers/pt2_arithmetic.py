"""Arithmetic of sizes in the graph of a `.pt2`: torch computes it as it loads one, so it must end soon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OF_A_SIZE = 64  # bits
_MOST = 1 << 16  # bits of a number; the product of a thousand sizes
_LARGEST_EXPONENT = 16
Operand = int | float | str | None  # a number, or the name of one
_MUL, _POW = "_operator.mul", "_operator.pow"


def find_endless(model: Any, given: int = _OF_A_SIZE) -> Iterator[str]:
    """Products and powers of a program that could be of so many digits that they are computed for minutes.

    model   what models/model.json holds, every graph in it
    given   bits of numbers that a graph is given; graphs within others may be given any that these compute
    """
    if isinstance(model, Mapping):
        if isinstance(model.get("nodes"), list):
            yield from _of_graph(model["nodes"], given)
        for name, part in model.items():
            yield from find_endless(part, _MOST // 2 if name == "as_graph" else given)
    elif isinstance(model, list):
        for part in model:
            yield from find_endless(part, given)


def _of_graph(nodes: list[Any], given: int) -> Iterator[str]:
    known: dict[str, int] = {}  # bits of results, by their names
    for node in nodes:
        operands = [_operand(one["arg"]) for one in node["inputs"]]
        bits = [known.get(one, given) if isinstance(one, str) else _bits(one) for one in operands]
        if node["target"].startswith("torch.ops.higher_order."):
            found = _MOST
        elif node["target"] not in (_MUL, _POW):
            found = max(_OF_A_SIZE, *bits, 0) + 1
        elif len(operands) != 2 or None in operands:
            found = _MOST + 1  # what is multiplied may be a list
        else:
            found = sum(bits) if node["target"] == _MUL else bits[0] * _times(operands[1])
        if found > _MOST:
            yield f"computes a number of too many digits in {node['target']!r}"
        known |= {name: found for name in map(_operand, node["outputs"]) if isinstance(name, str)}


def _times(exponent: Operand) -> int:
    """How many times as long a power is as its base: too many times, where that is not known."""
    if isinstance(exponent, float):
        return 1
    return max(1, abs(exponent)) if isinstance(exponent, int) and abs(exponent) <= _LARGEST_EXPONENT else _MOST + 1


def _bits(operand: Operand) -> int:
    """How long a number is that is written there."""
    return operand.bit_length() if isinstance(operand, int) else _OF_A_SIZE


def _operand(argument: Mapping[str, Any]) -> Operand:
    """A number, or the name of one; None of all else."""
    ((kind, value),) = argument.items()
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        ((kind, value),) = value.items()
    return value if kind in ("as_int", "as_float", "as_bool", "as_name") else None
