"""Runs passes one after the other; each is checked by meaning right after it ran."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import NotEquivalent
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.ir.validate import (
    Deviation,
    ProbeRun,
    amplified_deviation,
    largest_deviation,
    long_probe,
    probes,
    rounding_of_constants,
    run_on_probes,
)


@dataclass(frozen=True)
class PassReport:
    """Report of one pass: ops and widest value before and after, seconds, largest deviation and its bound."""

    name: str
    ops_before: int
    ops_after: int
    channels_before: int
    channels_after: int
    seconds: float
    validation_seconds: float
    deviation: float
    bound: float


def run_passes(
    graph: ir.Graph,
    passes: Sequence[Pass],
    *,
    on_pass: Callable[[PassReport], None] | None = None,
    on_graph: Callable[[str, ir.Graph], None] | None = None,
) -> tuple[ir.Graph, list[PassReport]]:
    """Run the passes in order.  `on_pass` hears of each when it is done, `on_graph` sees what each made.

    Each pass is validated on tiny images, all of them together also on a strip longer than the receptive field.

    Raises PassError (contract), InvalidGraph (types) and NotEquivalent (meaning), all naming the pass.
    """
    inputs, strip = probes(graph), long_probe(graph)
    given = graph
    before, at_first = run_on_probes(graph, inputs), run_on_probes(graph, strip)
    reports = []
    for step in passes:
        start = time.perf_counter()
        result = step(graph)
        done = time.perf_counter()
        after = before if _has_same_ops(graph, result) else run_on_probes(result, inputs, before)
        deviation = _require_small(inputs, before, after, (graph, result), step.name)
        report = PassReport(
            name=step.name,
            ops_before=len(graph.ops),
            ops_after=len(result.ops),
            channels_before=_widest(graph),
            channels_after=_widest(result),
            seconds=done - start,
            validation_seconds=time.perf_counter() - done,
            deviation=deviation.largest,
            bound=deviation.bound,
        )
        reports.append(report)
        if on_pass is not None:
            on_pass(report)
        if on_graph is not None:
            on_graph(step.name, result)
        graph, before = result, after
    _require_small(strip, at_first, run_on_probes(graph, strip), (given, graph), "")
    return graph, reports


def _require_small(
    inputs: dict[str, Tensor], before: ProbeRun, after: ProbeRun, graphs: tuple[ir.Graph, ir.Graph], pass_name: str
) -> Deviation:
    """The largest deviation, or NotEquivalent.  Without a name it is of all passes together.

    The constants of shifts that the result has, and what weights make of rounding, are looked at only where the bound
    without them is exceeded: the latter takes as long as many runs.
    """
    deviation = largest_deviation(inputs, before, after)
    if not deviation.largest <= deviation.bound:
        deviation = largest_deviation(inputs, before, after, rounding_of_constants(graphs[1], inputs))
    if not deviation.largest <= deviation.bound and math.isfinite(deviation.largest):
        deviation = amplified_deviation(inputs, before, after, graphs, deviation)
    if not deviation.largest <= deviation.bound:
        raise NotEquivalent(
            f"{pass_name or 'the passes together'} changed what the network computes by {deviation}",
            deviation=deviation.largest,
            bound=deviation.bound,
            probe=deviation.probe,
            at=deviation.at,
            expected=deviation.before,
            found=deviation.after,
            pass_name=pass_name,
            clipped=after.clipped,
        )
    return deviation


def _has_same_ops(before: ir.Graph, after: ir.Graph) -> bool:
    """Whether the pass gave back the very same ops."""
    pairs = zip(before.ops, after.ops, strict=False)
    return len(before.ops) == len(after.ops) and before.output == after.output and all(a is b for a, b in pairs)


def _widest(graph: ir.Graph) -> int:
    return max(graph.type(op.name).channels for op in graph)
