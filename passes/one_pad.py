"""Biases that zero padding would notice -> kernels on a channel of ones."""

from dataclasses import replace

import torch
from torch import Tensor

from memsr_compiler.analysis.schedule import is_pointwise
from memsr_compiler.errors import PassError
from memsr_compiler.ir import (
    ACTIVATIONS,
    Conv2d,
    Graph,
    Input,
    Meaning,
    Op,
    PixelShuffle,
    PRelu,
    Relu,
    Sum,
    kernels,
    names,
)
from memsr_compiler.ir.rewrite import rewrite, without_unused


@rewrite(source="MemSR (ICML 2022), Eq. 3 and 4, Lemma 3.1", reads=(Input, Conv2d, Sum, Relu, PRelu, PixelShuffle))
def one_pad(graph: Graph) -> Graph:
    """Where a pointwise value with a constant in it goes into a convolution with k > 1, take the constant from a
    channel of ones, which is zero-padded as the convolution expects (MemSR, Eq. 3).

    The layer below makes that channel with a zero kernel and bias 1, as ReLU(1) = 1.  Only where it is needed.
    Requires  levels, as skip_to_conv leaves them.   Raises PassError if the input itself would need a constant.
    Ensures   no bias on the pointwise way from a ReLU to a convolution with k > 1.
    """
    return _OnePad(graph).build()


class _OnePad:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops: list[Op] = []
        self.constant: dict[str, Tensor] = {}  # what a value adds to its linear part
        self.padded: set[str] = set()
        self.bare: dict[str, str] = {}  # a value -> the op that computes it without the constant
        self.level: dict[str, int] = {}
        self.member: dict[int, str] = {}  # some op of each level, for the channel of ones to be made from
        self.ones: dict[int, str] = {}

    def build(self) -> Graph:
        for op in self.graph:
            below = max((self.level[i] for i in op.inputs), default=0)
            self.level[op.name] = below + isinstance(op, ACTIVATIONS)
            if isinstance(op, (Input, *ACTIVATIONS)):
                self.member.setdefault(self.level[op.name], op.name)
            self.constant[op.name] = self._constant(op)
            if isinstance(op, Conv2d) and not op.pointwise and self.constant[op.inputs[0]].any():
                op = replace(op, inputs=(self._with_ones(op.inputs[0]),))
            self.ops.append(op)
        return without_unused(Graph(tuple(self.ops), self.graph.output))

    def _constant(self, op: Op) -> Tensor:
        if isinstance(op, Conv2d) and op.pointwise:
            return op.weight[:, :, 0, 0] @ self.constant[op.inputs[0]] + op.bias
        if isinstance(op, Sum):
            return torch.stack([self.constant[i] for i in op.inputs]).sum(0)
        return torch.zeros(self.graph.type(op.name).channels, dtype=torch.float64)

    def _with_ones(self, name: str) -> str:
        """The value with its constant taken from the channel of ones (MemSR, Eq. 3 and 4)."""
        padded = names.internal(name, "padded")
        if padded not in self.padded:
            weight = kernels.bias_rm(self.constant[name], 1)
            ones = self._channel_of_ones(self.level[name], name)
            none = torch.zeros(len(weight), dtype=torch.float64)
            constant = Conv2d(name=names.internal(name, "ones"), inputs=(ones,), weight=weight, bias=none)
            self.ops.append(constant)
            bare = self._without_constant(name)
            self.ops.append(Sum(name=padded, inputs=(constant.name, bare)))
            self.padded.add(padded)
        return padded

    def _without_constant(self, name: str) -> str:
        op = self.graph[name]
        if not is_pointwise(op) or not self.constant[name].any():
            return name
        if name not in self.bare:
            self.bare[name] = names.internal(name, "bare")
            op = replace(op, name=self.bare[name], inputs=tuple(self._without_constant(i) for i in op.inputs))
            self.ops.append(replace(op, bias=torch.zeros_like(op.bias)) if isinstance(op, Conv2d) else op)
        return self.bare[name]

    def _channel_of_ones(self, level: int, reader: str) -> str:
        if level == 0:
            raise PassError(
                f"{reader}: a constant is needed beside the input, where no layer can make it; schedule it later"
            )
        if level not in self.ones:
            below = self.member[level - 1]
            weight = torch.zeros(1, self.graph.type(below).channels, 1, 1, dtype=torch.float64)
            one = torch.ones(1, dtype=torch.float64)
            self.ones[level] = names.internal("", f"ones{level}")
            kernel = Conv2d(name=names.internal(self.ones[level], "kernel"), inputs=(below,), weight=weight, bias=one)
            meaning = (Meaning("one", (0,)),)
            self.ops += [kernel, Relu(name=self.ones[level], inputs=(kernel.name,), meaning=meaning)]
        return self.ones[level]
