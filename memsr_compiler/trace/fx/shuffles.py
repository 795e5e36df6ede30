"""Pixel shuffles of programs that were exported for one size, into whose reshapes that size is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_A = torch.ops.aten
RESHAPES = (_A.view.default, _A.reshape.default, _A._unsafe_view.default)
_COPIES = (_A.clone.default, _A.contiguous.default)
_SHUFFLES: dict[tuple[int, ...], Any] = {
    (0, 1, 4, 2, 5, 3): _A.pixel_shuffle.default,
    (0, 1, 3, 5, 2, 4): _A.pixel_unshuffle.default,
}


def restore_shuffles(graph: fx.Graph) -> None:
    """Write pixel shuffles as such where core ATen has two reshapes and a permutation for them, with sizes as numbers.

    At the one size of the program the two are the same; at others its code is unknown, which is told of all such.
    """
    for node in list(graph.nodes):
        if (shuffle := _read_shuffle(node)) is None:
            continue
        steps, target, factor = shuffle
        with graph.inserting_before(steps[1] if steps[1].target in _COPIES else node):  # where the pixels are copied
            made = graph.call_function(target, (steps[-1].args[0], factor))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        for step in steps:
            graph.erase_node(step)


def has_shuffles(graph: fx.Graph) -> bool:
    """Whether there are such reshapes."""
    return any(_read_shuffle(node) is not None for node in graph.nodes)


def _read_shuffle(last: fx.Node) -> tuple[list[fx.Node], Any, int] | None:
    """The steps of a shuffle, from its last one backwards, which shuffle it is, and by which factor; None of others.

    What else takes one of these steps may be what writes into it.
    """
    steps = [last, *_list_steps(last)] if last.target in RESHAPES else []
    if len(steps) < 3:
        return None
    order: Any = steps[-2].args[1]
    target = _SHUFFLES.get(tuple(axis % 6 for axis in order))
    shapes = [_shape_of(node) for node in (steps[-1].args[0], steps[-1], last)]
    if target is None or [len(shape) for shape in shapes] != [4, 6, 4] or any(len(n.users) > 1 for n in steps[1:]):
        return None
    before, split, after = shapes
    unshuffles = target == _A.pixel_unshuffle.default
    (images, channels, height, width), fine = (after, before) if unshuffles else (before, after)
    factor = split[3] if unshuffles else split[2]
    # Of one pixel the reshapes are views, into which writes reach the features; a shuffle is a copy.
    if factor < 2 or channels % factor**2 or (height, width) == (1, 1):
        return None
    shares = (images, channels // factor**2)
    whole = (*shares, height, factor, width, factor) if unshuffles else (*shares, factor, factor, height, width)
    return (steps, target, factor) if (split, fine) == (whole, (*shares, height * factor, width * factor)) else None


def _list_steps(last: fx.Node) -> list[fx.Node]:
    """The steps before a reshape, backwards to another: a copy, or none, and a permutation."""
    steps: list[fx.Node] = []
    for targets in (_COPIES, (_A.permute.default,), RESHAPES):
        node = (steps or [last])[-1].args[0]
        if isinstance(node, fx.Node) and node.target in targets:
            steps.append(node)
        elif targets != _COPIES:
            return []
    return steps


def _shape_of(node: Any) -> tuple[int, ...]:
    """The shape of a value, where all of it is a number; nothing where it is not."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    return shape if all(type(size) is int for size in shape) else ()
