"""Transposed convolutions -> convolution + pixel shuffle."""

from memsr_compiler.ir import Conv2d, ConvTranspose2d, Graph, Op, PixelShuffle, kernels, names
from memsr_compiler.ir.rewrite import replace_ops, rewrite


@rewrite(
    source="Shi et al. 2016, 'Is the deconvolution layer the same as a convolutional layer?'",
    removes=(ConvTranspose2d,),
)
def upsample_to_shuffle(graph: Graph) -> Graph:
    """A transposed convolution of stride s is s * s interleaved convolutions of its operand.

    Nearest-neighbour enlargement needs no rule: it is read as repeated channels before a PixelShuffle.
    """

    def rule(op: Op) -> list[Op]:
        if not isinstance(op, ConvTranspose2d):
            return [op]
        conv = Conv2d(
            name=names.internal(op.name, "phases"),
            inputs=op.inputs,
            weight=kernels.unfold_transposed(op.weight, op.stride, op.padding, op.groups),
            bias=op.bias.repeat_interleave(op.stride**2),
        )
        return [conv, PixelShuffle(name=op.name, inputs=(conv.name,), factor=op.stride)]

    return replace_ops(graph, rule)
