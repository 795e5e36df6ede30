"""Everything at a higher resolution -> folded to the input's resolution, one pixel shuffle at the end."""

from dataclasses import replace

import torch

from memsr_compiler.ir import (
    Concat,
    Conv2d,
    Graph,
    Input,
    Op,
    PixelShuffle,
    PixelUnshuffle,
    PRelu,
    Relu,
    Select,
    Sum,
    kernels,
    names,
)
from memsr_compiler.ir.rewrite import replace_ops, rewrite

READS = (Input, Conv2d, Sum, Concat, Select, Relu, PRelu, PixelShuffle, PixelUnshuffle)


@rewrite(source="polyphase identity (Vaidyanathan 1993, ch. 4); beyond MemSR, whose tails are copied", reads=READS)
def fold_shuffle(graph: Graph) -> Graph:
    """A convolution at s times the resolution is one at resolution 1 on s * s times the channels.

    Ensures   at most one PixelShuffle, which is the output; no PixelUnshuffle; all else at the input's resolution.
              Names go on meaning the same tensors, folded as FeatureMap says.
    """
    scale, pixels = graph.scale, names.internal(graph.output, "pixels")

    def rule(op: Op) -> list[Op]:
        before = graph.type(op.inputs[0]) if op.inputs else None
        if before is None:
            return [op]
        fold = before.scale**2
        if isinstance(op, PixelShuffle):
            order = kernels.shuffle_order(graph.type(op.name).channels, op.factor, before.scale)
            return [Select(name=op.name, inputs=op.inputs, index=tuple(order))]
        if isinstance(op, PixelUnshuffle):
            shuffled = kernels.shuffle_order(before.channels, op.factor, before.scale // op.factor)
            order = torch.argsort(torch.tensor(shuffled)).tolist()
            return [Select(name=op.name, inputs=op.inputs, index=tuple(order))]
        if fold == 1:
            return [op]
        if isinstance(op, Conv2d):
            weight = kernels.polyphase(op.weight, before.scale)
            bias = op.bias.repeat_interleave(fold)
            return [Conv2d(name=op.name, inputs=op.inputs, weight=weight, bias=bias)]
        if isinstance(op, PRelu):
            return [replace(op, slope=op.slope.repeat_interleave(fold))]
        if isinstance(op, Select):
            index = tuple(i * fold + phase for i in op.index for phase in range(fold))
            return [Select(name=op.name, inputs=op.inputs, index=index)]
        return [op]

    folded = replace_ops(graph, rule)
    if scale == 1:
        return folded
    return Graph((*folded.ops, PixelShuffle(name=pixels, inputs=(graph.output,), factor=scale)), pixels)
