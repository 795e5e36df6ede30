"""`tail="keep"`: one graph for each resolution, instead of folding all to the lowest."""

from dataclasses import dataclass

from memsr_compiler.errors import StagesCannotBeKept
from memsr_compiler.ir import Concat, Graph, Input, Op, PixelShuffle, PixelUnshuffle, Select, names
from memsr_compiler.ir.rewrite import without_unused


@dataclass(frozen=True)
class StageGraph:
    """The part of a graph at one resolution.  `starts`, `ends`: the tensors, side by side, that it reads and makes."""

    graph: Graph
    starts: tuple[str, ...]
    ends: tuple[str, ...]


def split_stages(graph: Graph) -> list[StageGraph]:
    """Cut a graph where the resolution rises.

    Each stage ends with the tensors that the next one starts from; resolutions count from the stage's own input.
    Raises StagesCannotBeKept where a value skips a resolution or comes back to a lower one.
    """
    for op in graph:
        if isinstance(op, PixelUnshuffle):
            raise StagesCannotBeKept(
                f"{op.name}: goes back to a lower resolution, so stages cannot be kept; use --tail fold"
            )
    scales = sorted({graph.type(op.name).scale for op in graph})
    stages: list[StageGraph] = []
    crossing: tuple[str, ...] = (graph.input.name,)
    for here, above in zip(scales, [*scales[1:], 0], strict=True):
        ops: list[Op] = [graph.input] if here == 1 else _start(graph, crossing, here)
        ops += [op for op in graph if graph.type(op.name).scale == here and op.name not in {o.name for o in ops}]
        if not above:
            stages.append(StageGraph(without_unused(Graph(tuple(ops), graph.output)), crossing, (graph.output,)))
            break
        starts, crossing = crossing, _rising(graph, here, above)
        ops += [graph[name] for name in crossing]
        out = crossing[0]
        if len(crossing) > 1:
            out = names.internal(f"stage{len(stages)}", "out")
            ops.append(Concat(name=out, inputs=crossing))
        stages.append(StageGraph(without_unused(Graph(tuple(ops), out)), starts, crossing))
    return stages


def _rising(graph: Graph, here: int, above: int) -> tuple[str, ...]:
    """The pixel shuffles from one resolution to the next.  Their operands may be of that resolution only."""
    shuffles = []
    for op in graph:
        scale = graph.type(op.name).scale
        lower = [i for i in op.inputs if graph.type(i).scale < scale]
        if not lower or graph.type(lower[0]).scale != here:
            continue
        if not isinstance(op, PixelShuffle) or scale != above:
            raise StagesCannotBeKept(
                f"{op.name}: rises from resolution {here} to {scale} while others stop at {above}, so stages cannot be "
                "kept; use --tail fold"
            )
        shuffles.append(op.name)
    return tuple(shuffles)


def _start(graph: Graph, crossing: tuple[str, ...], here: int) -> list[Op]:
    widths = [graph.type(name).channels for name in crossing]
    name = crossing[0] if len(crossing) == 1 else names.internal("stage", f"in{here}")
    source = Input(name=name, channels=sum(widths))
    if len(crossing) == 1:
        return [source]
    starts = [sum(widths[:i]) for i in range(len(widths))]
    selects = [
        Select(name=name, inputs=(source.name,), index=tuple(range(s, s + w)))
        for name, s, w in zip(crossing, starts, widths, strict=True)
    ]
    return [source, *selects]
