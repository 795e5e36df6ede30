"""The section on the passes of a conversion: its numbers, and drawings of what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memsr_compiler import ir, passes
from memsr_compiler.ir.pipeline import PassReport
from memsr_compiler.quantities import say_count
from memsr_compiler.reports import page
from memsr_compiler.reports.graph_layout import take_beginning
from memsr_compiler.reports.graph_svg import DRAWN, KINDS, classify_op, draw_graph
from memsr_compiler.reports.op_words import describe_op, name_operands
from memsr_compiler.reports.text import escape, format_seconds


@dataclass(frozen=True)
class _Step:
    """A graph and how it came about.

    before      the graph that the pass was given; None if no step shows it
    """

    title: str
    name: str
    graph: ir.Graph
    report: PassReport | None
    before: ir.Graph | None

    @property
    def changed(self) -> bool:
        return self.before is None or self.before.text() != self.graph.text()


def write_passes(reports: Sequence[PassReport], steps: Sequence[tuple[str, ir.Graph]]) -> str:
    """The section; reports and steps as `report_conversion` has them."""
    story = list(_list_steps(reports, steps))
    shown = {classify_op(op) for step in story for op in step.graph}
    return page.section(
        "Pass by pass",
        page.note(
            "After each pass the network was run in float64, borders included, and compared with the one before; the "
            "bound is what rounding may do. One box is one tensor, with its channels in the second row; red arcs are "
            "skips. Each box's name in the teacher is in the table under its drawing, and shown where you point."
        ),
        page.legend("k", list(KINDS), [name for name in KINDS if name in shown]),
        *map(_write_step, story),
    )


def _list_steps(reports: Sequence[PassReport], steps: Sequence[tuple[str, ir.Graph]]) -> Iterator[_Step]:
    """The teacher, then every pass; a pass that ran once for each stage begins with a graph that no step shows."""
    name, graph = steps[0]
    yield _Step(name, name, graph, None, None)
    total = Counter(report.name for report in reports)
    seen: Counter[str] = Counter()
    stage = 0
    for report, (name, after) in zip(reports, steps[1:], strict=True):
        seen[name] += 1
        here = seen[name] if total[name] > 1 else 0
        before = graph if here == stage else None
        yield _Step(f"{name}, stage {here}" if here else name, name, after, report, before)
        graph, stage = after, here


def _write_step(step: _Step) -> str:
    opened = " open" if step.report is None else ""
    return (
        f'<details class="pass"{opened}>\n'
        f"<summary><b>{escape(step.title)}</b>{_write_numbers(step)}</summary>\n"
        f"{_write_purpose(step.name)}{_write_drawings(step)}</details>\n"
    )


def _write_numbers(step: _Step) -> str:
    p = step.report
    if p is None:
        widest = max(step.graph.type(op.name).channels for op in step.graph)
        texts = [f"{say_count(len(step.graph.ops), 'op')}", f"widest {widest}"]
    else:
        texts = [
            f"{_format_change(p.ops_before, p.ops_after)} ops",
            f"widest {_format_change(p.channels_before, p.channels_after)}",
            f"{format_seconds(p.seconds)}, check {format_seconds(p.validation_seconds)}",
            f"deviation {_format_small(p.deviation)}, bound {_format_small(p.bound)}",
        ]
    return "".join(f"<span>{text}</span>" for text in texts)


def _format_change(before: int, after: int) -> str:
    return f"{before} → {after}" if before != after else f"{after}"


def _write_purpose(name: str) -> str:
    """The purpose of a pass and its source, in its own words; nothing for what is no pass."""
    for p in (*passes.CANONICAL, *passes.PLAIN):
        if p.name == name:
            first = " ".join((p.__doc__ or "").split("\n\n")[0].split())
            return f"<p>{escape(first)}</p>\n{page.note(f'Source: {escape(p.source)}')}"
    return ""


def _write_drawings(step: _Step) -> str:
    if not step.changed:
        return page.note("Ops, widths and wiring are as they were before this pass.")
    drawn = _write_drawing(step.graph, f"network, {step.title}")
    if step.report is None:
        return drawn
    if step.before is None:
        return f"<h3>after, this stage alone</h3>\n{drawn}"
    before = _write_drawing(step.before, f"network before {step.title}")
    return f"<h3>before</h3>\n{before}<h3>after</h3>\n{drawn}"


def _write_drawing(graph: ir.Graph, label: str) -> str:
    count = len(graph.ops)
    cut = page.note(f"The first {DRAWN} of {count} ops.") if count > DRAWN else ""
    return (
        cut
        + page.picture(draw_graph(graph, label=label), f"drawing: {label}")
        + page.folded_table("its ops, as a table", _tabulate_ops(take_beginning(graph, DRAWN)))
    )


def _tabulate_ops(graph: ir.Graph) -> str:
    rows = (
        [page.head_cell(op.name), page.cell("; ".join(describe_op(graph, op))), page.cell(name_operands(op))]
        for op in graph
    )
    return page.table(["name", "given by", "of"], rows, numeric=())


def _format_small(value: float) -> str:
    return f"{value:.1e}" if value else "0"
