"""Widths -> multiples that engines run at full speed."""

from dataclasses import replace

import torch

from memsr_compiler.errors import PassError
from memsr_compiler.ir import BlockConv2d, Graph, Input, Meaning, PixelShuffle, PRelu, Relu
from memsr_compiler.ir.rewrite import rewrite
from memsr_compiler.passes.drop_channels import chain, rebuild


@rewrite(
    source="vector width of the engines: 65 channels cost what 72 cost",
    reads=(Input, BlockConv2d, Relu, PRelu, PixelShuffle),
)
def align_channels(graph: Graph, *, multiple: int = 8) -> Graph:
    """Pad every level with channels that are zero and that nobody reads, up to a multiple.  Exact.

    Requires  the chain that merge_parallel leaves.   Raises PassError for a multiple below 1.
    """
    if multiple < 1:
        raise PassError(f"widths cannot be aligned to {multiple}; take a multiple of 1 or more")
    convs, relus = chain(graph)
    for i, relu in enumerate(relus):
        width = len(convs[i].bias)
        extra = -width % multiple
        if not extra:
            continue
        convs[i] = replace(convs[i], bias=torch.cat([convs[i].bias, torch.zeros(extra, dtype=torch.float64)]))
        convs[i + 1] = replace(convs[i + 1], channels_in=width + extra)
        padding = Meaning("zero", tuple(range(width, width + extra)))
        if isinstance(relu, PRelu):  # zeros pass whatever there is; a level of nothing but ones stays one
            slopes = torch.full((extra,), float((relu.slope == 1).all()), dtype=torch.float64)
            relu = replace(relu, slope=torch.cat([relu.slope, slopes]))
        relus[i] = replace(relu, meaning=(*relu.meaning, padding))
    return rebuild(graph, convs, relus)
