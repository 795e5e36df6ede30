"""Grouped, depthwise and dilated convolutions -> dense ones."""

from dataclasses import replace

from memsr_compiler.ir import Conv2d, Graph, Op, kernels
from memsr_compiler.ir.rewrite import replace_ops, rewrite


@rewrite(source="MemSR (ICML 2022), Sec. 3.2 knows dense convolutions only; a group is a block of a dense kernel")
def dense_conv(graph: Graph) -> Graph:
    """Write out the zeros that groups and dilation leave out.

    Ensures   every Conv2d has groups 1 and dilation 1.
    """

    def rule(op: Op) -> list[Op]:
        if isinstance(op, Conv2d) and (op.groups > 1 or op.dilation > 1):
            return [replace(op, weight=kernels.dense(op.weight, op.groups, op.dilation), groups=1, dilation=1)]
        return [op]

    return replace_ops(graph, rule)
