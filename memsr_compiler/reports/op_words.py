"""Ops in words: as much as fits into a box, or all that is to be said."""

from __future__ import annotations

from collections.abc import Iterator

from memsr_compiler import ir
from memsr_compiler.quantities import say_count


def describe_op(graph: ir.Graph, op: ir.Op) -> list[str]:
    """Lines on an op: its type, channels and size; then its kernel, or what the channels of an activation mean."""
    t = graph.type(op.name)
    where = f" at {t.scale} times the input's size" if t.scale > 1 else ""
    return [f"{type(op).__name__}, {say_count(t.channels, 'channel')}{where}", *_detail_op(op)]


def name_operands(op: ir.Op) -> str:
    """The first six tensors that an op reads, and how many more."""
    more = f" and {len(op.inputs) - 6} more" if len(op.inputs) > 6 else ""
    return f"{', '.join(op.inputs[:6])}{more}"


def _detail_op(op: ir.Op) -> Iterator[str]:
    if isinstance(op, ir.Conv2d):
        extra = [f"{name} {n}" for name, n in (("groups", op.groups), ("dilation", op.dilation)) if n > 1]
        yield ", ".join([f"kernel {'×'.join(map(str, op.weight.shape))}", *extra])
    elif isinstance(op, ir.BlockConv2d):
        k = op.kernel_size
        blocks = f"{len(op.blocks)} blocks" if len(op.blocks) > 1 else "one block"
        yield f"kernel {len(op.bias)}×{op.channels_in}×{k}×{k} in {blocks}"
    elif isinstance(op, ir.ConvTranspose2d):
        yield f"kernel {'×'.join(map(str, op.weight.shape))}, stride {op.stride}"
    elif isinstance(op, ir.ACTIVATIONS):
        yield from (f"{m.kind} {m.tensor} ({len(m.positions)})".replace("  ", " ") for m in op.meaning)


def abbreviate_op(op: ir.Op) -> str:
    """An op in the few letters that fit into a box."""
    if isinstance(op, ir.Conv2d):
        k = op.weight.shape[-1]
        return f"{k}×{k}" + (f"/{op.groups}" if op.groups > 1 else "")
    if isinstance(op, ir.BlockConv2d):
        return f"{op.kernel_size}×{op.kernel_size}"
    if isinstance(op, (ir.PixelShuffle, ir.PixelUnshuffle)):
        return f"{'↑' if isinstance(op, ir.PixelShuffle) else '↓'}{op.factor}"
    words: dict[type[ir.Op], str] = {
        ir.ConvTranspose2d: "up",
        ir.Affine: "a·x+b",
        ir.Sum: "+",
        ir.Concat: "cat",
        ir.Select: "pick",
        ir.Relu: "ReLU",
        ir.PRelu: "PReLU",
        ir.Maximum: "max",
        ir.Input: "in",
    }
    return words.get(type(op), type(op).__name__.lower())
