"""Concatenations, selections and chains of 1x1 convolutions -> sums of terms, the form that scheduling wants."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from memsr_compiler.ir import (
    Concat,
    Conv2d,
    Graph,
    Input,
    Op,
    Part,
    PixelShuffle,
    PRelu,
    Relu,
    Select,
    Sum,
    kernels,
    names,
)
from memsr_compiler.ir.rewrite import conv_1x1, rewrite, without_unused


@rewrite(
    source="MemSR (ICML 2022), x + y = [I I][x; y] of Prop. 3.6's proof, read from right to left",
    reads=(Input, Conv2d, Sum, Concat, Select, Relu, PRelu, PixelShuffle),
    removes=(Concat, Select),
)
def gather_terms(graph: Graph) -> Graph:
    """Write every pointwise value as  sum of matrix_i * leaf_i + bias, so that its terms can be computed, or carried,
    one by one.

    A leaf is the input, a ReLU, a convolution with k > 1, or a pointwise value that several ops share.
    Ensures   no Concat, no Select; a Sum's operands are leaves or `Part`s of the tensor it belongs to.
    """
    forms: dict[str, LinearForm] = {}
    ops: list[Op] = []
    identity = cache(partial(torch.eye, dtype=torch.float64))  # one of each size, of which the terms are views
    for op in graph:
        if isinstance(op, Select):
            matrix = kernels.selection(op.index, graph.type(op.inputs[0]).channels)
            op = conv_1x1(op.name, op.inputs[0], matrix)
        if isinstance(op, Conv2d) and op.pointwise and _narrows(graph, op):
            ops.append(_into_producer(op, graph[op.inputs[0]]))
        elif isinstance(op, (Sum, Concat)) or (isinstance(op, Conv2d) and op.pointwise):
            forms[op.name] = _form(graph, op, forms, identity)
            ops.extend(_emit(op.name, forms[op.name], identity))
        else:
            ops.append(op)
    return without_unused(Graph(tuple(ops), graph.output))


Identity = Callable[[int], Tensor]


@dataclass(frozen=True)
class LinearForm:
    """A pointwise value: the sum of matrix * leaf over `terms`, + bias."""

    terms: dict[str, Tensor]
    bias: Tensor

    @property
    def has_names(self) -> bool:
        """Whether its leaves are tensors of the teacher, not several side by side as a stage's input is."""
        return not any(names.is_internal(leaf) for leaf in self.terms)

    @property
    def picks(self) -> bool:
        """Whether each channel is a multiple of one channel of one leaf: a selection, a concatenation, a negation."""
        used = sum(((m != 0).sum(1) for m in self.terms.values()), torch.zeros(len(self.bias), dtype=torch.int64))
        return not self.bias.any() and int(used.max()) <= 1


def _narrows(graph: Graph, op: Conv2d) -> bool:
    """Whether a 1x1 convolution is the only user of a larger one and has no more channels: better done at once."""
    producer = graph[op.inputs[0]]
    larger = isinstance(producer, Conv2d) and not producer.pointwise
    return larger and len(graph.users(producer.name)) == 1 and op.weight.shape[0] <= op.weight.shape[1]


def _into_producer(op: Conv2d, producer: Op) -> Conv2d:
    assert isinstance(producer, Conv2d)
    matrix = op.weight[:, :, 0, 0]
    weight = kernels.mix_outputs(matrix, producer.weight)
    return Conv2d(name=op.name, inputs=producer.inputs, weight=weight, bias=matrix @ producer.bias + op.bias)


def _matrices(graph: Graph, op: Op, identity: Identity) -> tuple[list[tuple[str, Tensor]], Tensor]:
    """An op's own terms, before any of its operands is looked into, and its bias."""
    width = graph.type(op.name).channels
    zero = torch.zeros(width, dtype=torch.float64)
    if isinstance(op, Conv2d):
        return [(op.inputs[0], op.weight[:, :, 0, 0])], op.bias
    if isinstance(op, Sum):
        return [(name, identity(width)) for name in op.inputs], zero
    widths = [graph.type(name).channels for name in op.inputs]
    return list(zip(op.inputs, torch.split(identity(width), widths, dim=1), strict=True)), zero


def _form(graph: Graph, op: Op, forms: dict[str, LinearForm], identity: Identity) -> LinearForm:
    terms: dict[str, Tensor] = {}
    own, bias = _matrices(graph, op, identity)
    for name, matrix in own:
        inner = forms.get(name)
        shrinks = isinstance(op, Sum) or matrix.shape[0] <= matrix.shape[1]
        if inner is not None and inner.has_names and (inner.picks or (shrinks and len(graph.users(name)) == 1)):
            bias = bias + matrix @ inner.bias
            linear = {
                leaf: kernels.mix_outputs(matrix, m[:, :, None, None])[:, :, 0, 0] for leaf, m in inner.terms.items()
            }
        else:
            linear = {name: matrix}
        for leaf, m in linear.items():
            terms[leaf] = terms[leaf] + m if leaf in terms else m
    return LinearForm({leaf: m for leaf, m in terms.items() if m.any()} or dict([next(iter(terms.items()))]), bias)


def _emit(name: str, form: LinearForm, identity: Identity) -> list[Op]:
    leaves = tuple(form.terms)
    if len(leaves) == 1:
        return [conv_1x1(name, leaves[0], form.terms[leaves[0]], form.bias)]
    ops: list[Op] = []
    operands = []
    for leaf, matrix in form.terms.items():
        if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, identity(len(matrix))):
            operands.append(leaf)
            continue
        part = Part(name, (leaf,), tuple(other for other in leaves if other != leaf))
        operands.append(names.term(name, leaf))
        ops.append(replace(conv_1x1(operands[-1], leaf, matrix), part=part))
    if not form.bias.any():
        return [*ops, Sum(name=name, inputs=tuple(operands))]
    total = Sum(name=names.partial_sum(name, "sum"), inputs=tuple(operands), part=Part(name, leaves, ()))
    return [*ops, total, conv_1x1(name, total.name, identity(len(form.bias)), form.bias)]
