"""Chains of 1x1 convolutions and sums -> one convolution from each ReLU below to each ReLU above."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memsr_compiler.errors import PassError
from memsr_compiler.ir import ACTIVATIONS, Conv2d, Graph, Input, Op, PixelShuffle, PRelu, Relu, Sum, kernels, names
from memsr_compiler.ir.rewrite import rewrite


@rewrite(source="MemSR (ICML 2022), Lemma 3.1", reads=(Input, Conv2d, Sum, Relu, PRelu, PixelShuffle))
def fuse_1x1(graph: Graph) -> Graph:
    """Fold every linear 1x1 convolution into the convolutions around it (MemSR, Lemma 3.1).

    Requires  no bias before a convolution with k > 1 (one_pad sees to it); no two such convolutions in a row.
    Ensures   the operand of every activation, and the output, is a convolution of ReLUs or the input, or a Sum of such.
    """
    forms: dict[str, LinearForm] = {}
    unread = {op.name: len(graph.users(op.name)) for op in graph}
    ops: list[Op] = []
    for op in graph:
        if isinstance(op, Input):
            ops.append(op)
        elif isinstance(op, (*ACTIVATIONS, PixelShuffle)):
            name = op.inputs[0] if isinstance(op, PixelShuffle) else names.internal(op.name, "sum")
            produced = _emit(name, _without_ones(graph, _operand(graph, op.inputs[0], forms)))
            ops += [*produced, replace(op, inputs=(produced[-1].name,))]
        else:
            forms[op.name] = _linear_form(graph, op, forms)
        for name in set(op.inputs):
            unread[name] -= 1
            if not unread[name] and name != graph.output:
                forms.pop(name, None)
    if not isinstance(graph[graph.output], (Input, *ACTIVATIONS, PixelShuffle)):
        ops += _emit(graph.output, _without_ones(graph, forms[graph.output]))
    return Graph(tuple(ops), graph.output)


@dataclass(frozen=True)
class LinearForm:
    """A linear value: the sum of kernel * x over `kernels`, + bias; each x a ReLU or the input."""

    kernels: dict[str, Tensor]
    bias: Tensor


def _operand(graph: Graph, name: str, forms: dict[str, LinearForm]) -> LinearForm:
    """A value as a linear form: as itself, if it is a ReLU's or the input."""
    if name in forms:
        return forms[name]
    width = graph.type(name).channels
    identity = torch.eye(width, dtype=torch.float64)[:, :, None, None]
    return LinearForm({name: identity}, torch.zeros(width, dtype=torch.float64))


def _linear_form(graph: Graph, op: Op, forms: dict[str, LinearForm]) -> LinearForm:
    """A linear op as the form that its operands' forms give."""
    if isinstance(op, Conv2d) and op.inputs[0] not in forms:
        return LinearForm({op.inputs[0]: op.weight}, op.bias)
    first, *others = (_operand(graph, i, forms) for i in op.inputs)
    if isinstance(op, Conv2d) and op.pointwise:
        matrix = op.weight[:, :, 0, 0]
        mixed = {name: kernels.mix_outputs(matrix, k) for name, k in first.kernels.items()}
        return LinearForm(mixed, matrix @ first.bias + op.bias)
    if isinstance(op, Conv2d):
        if first.bias.any():
            raise PassError(f"{op.name}: reads a constant that zero padding would cut at the border; run one-pad first")
        if any(k.shape[-1] > 1 for k in first.kernels.values()):
            raise PassError(f"{op.name}: reads another {op.inputs[0]} with no ReLU between; run skip-to-conv first")
        return LinearForm({n: kernels.mix_inputs(op.weight, k[:, :, 0, 0]) for n, k in first.kernels.items()}, op.bias)
    total = dict(first.kernels)
    for other in others:
        for name, k in other.kernels.items():
            total[name] = _plus(total[name], k) if name in total else k
    return LinearForm(total, torch.stack([first.bias, *(o.bias for o in others)]).sum(0))


def _without_ones(graph: Graph, form: LinearForm) -> LinearForm:
    """The part of the channel of ones that the border does not cut, taken into the bias (MemSR, Eq. 4)."""
    bias, terms = form.bias, dict(form.kernels)
    for name, kernel in form.kernels.items():
        source = graph[name]
        if isinstance(source, Relu) and any(m.kind == "one" for m in source.meaning):
            terms[name], centre = kernels.bias_from_ones(kernel)
            bias = bias + centre
    return LinearForm(terms, bias)


def _plus(a: Tensor, b: Tensor) -> Tensor:
    size = max(a.shape[-1], b.shape[-1])
    return kernels.center_pad(a, size) + kernels.center_pad(b, size)


def _emit(name: str, form: LinearForm) -> list[Op]:
    """A linear form as Conv2ds and a Sum; terms that are zero are left out, the first other has the bias."""
    terms = {source: k for source, k in form.kernels.items() if k.any()} or dict([next(iter(form.kernels.items()))])
    bias, ops = form.bias, list[Op]()
    for source, k in terms.items():
        ops.append(Conv2d(name=names.term(name, source), inputs=(source,), weight=k, bias=bias))
        bias = torch.zeros_like(bias)
    if len(ops) == 1:
        return [replace(ops[0], name=name)]
    return [*ops, Sum(name=name, inputs=tuple(op.name for op in ops))]
