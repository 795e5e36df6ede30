"""Arithmetic of sizes in programs of torch.export, which is computed as often as these run: it must end soon."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from memsr_compiler.errors import InvalidInput

_OF_A_SIZE = 64  # bits
_MOST = 1 << 16  # bits of a number; the product of a thousand sizes
_LARGEST_EXPONENT = 1 << 8


def require_short_numbers(graph: fx.Graph) -> None:
    """Raises InvalidInput where a number could have so many digits that it is computed for minutes.

    graph   of a program, no part of which is a graph of its own
    """
    bits: dict[fx.Node, int] = {}
    for node in graph.nodes:
        most = max((bits.get(one, _OF_A_SIZE) for one in node.all_input_nodes), default=_OF_A_SIZE)
        if getattr(operator, getattr(node.target, "__name__", ""), None) is not node.target:
            bits[node] = most + 1
        elif node.target is not operator.getitem:
            _require_numbers(node)
            of_each = [bits.get(one, _OF_A_SIZE) if isinstance(one, fx.Node) else _bits(one) for one in node.args]
            bits[node] = max(of_each) + 1
            if node.target is operator.mul:
                bits[node] = sum(of_each)
            elif node.target is operator.pow:
                bits[node] = of_each[0] * _times(node.args[-1])
            if bits[node] > _MOST:
                raise InvalidInput(
                    f"{node.name}: a size is multiplied until it has too many digits, which would be computed for "
                    "minutes; no image has so many pixels: export the network again"
                )


def _require_numbers(node: fx.Node) -> None:
    """Raises InvalidInput for sums and products of texts or lists, which grow as fast."""
    if node.kwargs or not all(isinstance(one, (fx.Node, int, float)) for one in node.args):
        raise InvalidInput(f"{node.name}: computes with what is no number; export the network again")


def _bits(number: Any) -> int:
    return number.bit_length() if isinstance(number, int) else _OF_A_SIZE


def _times(exponent: Any) -> int:
    """The factor by which a power is longer than its base: too large, where that is not known."""
    if isinstance(exponent, float):
        return 1
    return max(1, abs(exponent)) if isinstance(exponent, int) and abs(exponent) <= _LARGEST_EXPONENT else _MOST + 1
