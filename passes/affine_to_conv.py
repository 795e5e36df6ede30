"""Batch norm, scales, shifts and negation -> 1x1 convolutions."""

import torch

from memsr_compiler.ir import Affine, Graph, Op
from memsr_compiler.ir.rewrite import conv_1x1, replace_ops, rewrite


@rewrite(source="Ioffe & Szegedy 2015, inference form", removes=(Affine,))
def affine_to_conv(graph: Graph) -> Graph:
    """An affine map of each channel is a 1x1 convolution with a diagonal kernel; fuse_1x1 folds it away later."""

    def rule(op: Op) -> list[Op]:
        if not isinstance(op, Affine):
            return [op]
        return [conv_1x1(op.name, op.inputs[0], torch.diag(op.scale), op.shift)]

    return replace_ops(graph, rule)
