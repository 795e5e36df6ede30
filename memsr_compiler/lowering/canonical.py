"""The canonical form that scheduling starts from: convolutions, sums and ReLUs, one graph for each resolution kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from memsr_compiler import passes
from memsr_compiler.ir import Graph
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.passes.split_stages import StageGraph, split_stages

Tail = Literal["fold", "keep"]
Apply = Callable[[Graph, Sequence[Pass]], Graph]


def apply_passes(graph: Graph, recipe: Sequence[Pass]) -> Graph:
    """The graph after these passes, none of them validated."""
    for step in recipe:
        graph = step(graph)
    return graph


def canonical(
    graph: Graph,
    tail: Tail,
    *,
    keep_prelu: bool = False,
    further: Sequence[Pass] = (),
    apply: Apply = apply_passes,
) -> list[StageGraph]:
    """Stages of a traced teacher in canonical form: one if the tail is folded, else one for each resolution.

    keep_prelu PReLUs stay, for the PReLU form
    further   passes that each stage goes through afterwards
    apply     runs passes one after the other
    """
    options = {passes.activation_to_relu.name: {"keep_prelu": keep_prelu}}
    local = [step.bind(**options.get(step.name, {})) for step in passes.LOCAL]
    if tail == "fold":  # one recipe: what one pass leaves is what the next starts from, also for the validation
        folded = apply(graph, (*local, *passes.FOLD, *further))
        return [StageGraph(folded, (graph.input.name,), (graph.output,))]
    high = apply(graph, local)
    return [replace(stage, graph=apply(stage.graph, (*passes.FOLD, *further))) for stage in split_stages(high)]
