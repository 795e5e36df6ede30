"""Small graphs by hand, and what every pass has to hold to."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir.interpreter import run
from memsr_compiler.ir.rewrite import Pass

SIZES = ((1, 1), (1, 7), (3, 2), (5, 4))


def integers(*shape: int, seed: int = 0) -> Tensor:
    """Small integers, so that exact passes are exact in float64."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).double()


def source(channels: int = 2, low: float = -1.0, high: float = 1.0) -> ir.Input:
    return ir.Input(name="x", channels=channels, low=low, high=high)


def conv(
    name: str, operand: str, c_out: int = 2, c_in: int = 2, k: int = 3, *, bias: bool = True, **options: Any
) -> ir.Conv2d:
    seed = sum(map(ord, name))
    groups = options.get("groups", 1)
    weight = integers(c_out, c_in // groups, k, k, seed=seed)
    offset = integers(c_out, seed=seed + 1) if bias else torch.zeros(c_out).double()
    return ir.Conv2d(name=name, inputs=(operand,), weight=weight, bias=offset, **options)


def relu(name: str, operand: str) -> ir.Relu:
    return ir.Relu(name=name, inputs=(operand,))


def add(name: str, *operands: str) -> ir.Sum:
    return ir.Sum(name=name, inputs=operands)


def graph(*ops: ir.Op) -> ir.Graph:
    return ir.Graph(ops, ops[-1].name)


def residual(low: float = 0.0) -> ir.Graph:
    """A residual block, then a sum with its result past another ReLU."""
    return graph(
        source(2, low), conv("a", "x"), relu("r", "a"), conv("b", "r"), add("y", "b", "a"), relu("s", "y"),
        conv("c", "s"), add("z", "c", "y"),
    )  # fmt: skip


def apply(
    step: Pass | Callable[..., ir.Graph], before: ir.Graph, *, idempotent: bool = True, **options: Any
) -> ir.Graph:
    """Run a pass; require that it is exact, up to the border, again changes nothing, and left its operand alone."""
    kept = copy.deepcopy(before)
    after = step(before, **options)
    assert before.text() == kept.text() and before.sha256() == kept.sha256()
    require_equal(before, after)
    if idempotent:
        again = step(after, **options)
        assert again.text() == after.text()
        require_equal(before, again)
    return after


def require_equal(before: ir.Graph, after: ir.Graph) -> None:
    """Bit for bit, on integers within the input's range (times eight), on tiny sizes, border included."""
    for height, width in SIZES:
        x = integers(2, before.input.channels, height, width, seed=height * 31 + width)
        x = x.abs() if before.input.low >= 0 else x
        assert torch.equal(run(before, x), run(after, x))


@st.composite
def random_graphs(draw: st.DrawFn, most: int = 10) -> ir.Graph:
    """Canonical graphs with skips of every kind: nested, crossing, dense, from the input; some ops may be unused."""
    low = draw(st.sampled_from([0.0, -1.0]))
    ops: list[ir.Op] = [source(draw(st.integers(1, 3)), low)]
    width = {"x": ops[0].channels}  # type: ignore[attr-defined]
    for i in range(draw(st.integers(1, most))):
        name, operand = f"v{i}", draw(st.sampled_from(sorted(width)))
        kind = draw(st.sampled_from(["conv", "conv", "relu", "relu", "mix", "sum", "sum"]))
        if kind == "relu":
            ops.append(relu(name, operand))
        elif kind == "sum":
            alike = sorted(n for n in width if width[n] == width[operand])
            others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3))
            ops.append(add(name, operand, *others))
        else:
            k, bias = 1 if kind == "mix" else draw(st.sampled_from([3, 5])), draw(st.booleans())
            ops.append(conv(name, operand, draw(st.integers(1, 3)), width[operand], k, bias=bias))
        op = ops[-1]
        width[name] = len(op.bias) if isinstance(op, ir.Conv2d) else width[operand]
    return graph(*ops)


def random_chain(seed: int) -> ir.Graph:
    """A chain as merge_parallel leaves it, kernels in blocks, with dead, zero and equal channels planted."""
    rng = random.Random(seed)
    widths = [2, *(rng.randint(2, 6) for _ in range(rng.randint(1, 3))), 1]
    ops: list[ir.Op] = [source()]
    for level, (c_in, c_out) in enumerate(pairwise(widths), start=1):
        last, k = level == len(widths) - 1, rng.choice([1, 3])
        weight = integers(c_out, c_in, k, k, seed=rng.randrange(999)).abs() + 1  # positive: nothing cancels
        bias = integers(c_out, seed=rng.randrange(999))
        for _ in range(rng.randint(0, 3)) if level > 1 else ():
            weight[:, rng.randrange(c_in)] = 0  # what is below is dead
        for _ in range(rng.randint(0, 3)) if not last else ():
            row, other = rng.randrange(c_out), rng.randrange(c_out)
            kind = rng.choice(["zero", "constant", "equal"])
            weight[row] = weight[other] if kind == "equal" else 0
            bias[row] = {"zero": -1.0 * rng.randint(0, 1), "constant": 2.0, "equal": float(bias[other])}[kind]
        name = "y" if last else f"l{level}"
        ops.append(
            ir.BlockConv2d(
                name=name, inputs=(ops[-1].name,), channels_in=c_in, kernel_size=k, blocks=_blocks(weight, rng),
                bias=bias,
            )
        )  # fmt: skip
        if not last:
            half = rng.randint(1, c_out - 1)
            meaning = tuple(
                ir.Meaning("value", tuple(part), f"t{level}", tuple(part)) for part in (range(half), range(half, c_out))
            )
            ops.append(ir.Relu(name=f"l{level}.relu", inputs=(name,), meaning=meaning))
    return graph(*ops)


def _blocks(weight: Tensor, rng: random.Random) -> tuple[ir.Block, ...]:
    """A kernel in four blocks or less, and its centre taps, for the most part, in further ones."""
    weight, (rows, columns, k, _) = weight.clone(), weight.shape
    row, column, middle = rng.randint(0, rows), rng.randint(0, columns), k // 2
    centre = weight[:, :, middle : middle + 1, middle : middle + 1] // 2
    weight[:, :, middle : middle + 1, middle : middle + 1] -= centre
    return tuple(
        ir.Block(top, left, kernel[top:bottom, left:right].contiguous())
        for kernel in (weight, centre)
        for top, bottom in ((0, row), (row, rows))
        for left, right in ((0, column), (column, columns))
        if top < bottom and left < right
    )


def prelu(name: str, operand: str, *slopes: float) -> ir.PRelu:
    return ir.PRelu(name=name, inputs=(operand,), slope=torch.tensor(slopes, dtype=torch.float64))
