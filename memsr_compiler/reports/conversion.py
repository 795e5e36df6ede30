"""What a conversion did, as one self-contained HTML page: no script, no font, nothing fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from memsr_compiler import ir, passes
from memsr_compiler.analysis.cost import Cost
from memsr_compiler.errors import InvalidInput
from memsr_compiler.ir import Meaning
from memsr_compiler.ir.pipeline import PassReport
from memsr_compiler.lowering.compile import Report
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.reports import page
from memsr_compiler.reports.graph_svg import (
    DRAWN,
    HOLDS,
    KINDS,
    Bar,
    beginning,
    describe_op,
    draw_graph,
    draw_widths,
    kind,
    name_operands,
)
from memsr_compiler.reports.text import escape, format_seconds

WIDTH, HEIGHT = 480, 270  # of the input for which multiply-adds and memory are stated


def convert_report(
    net: PlainNet,
    steps: Sequence[tuple[str, ir.Graph]],
    *,
    teacher_name: str,
    teacher_cost: Cost,
    measured: Mapping[str, str] = {},
) -> str:
    """The page.  The same text for the same conversion, but for the seconds in it.

    steps      the teacher as read, then (name of a pass, graph after it) in order, as `on_graph` heard of them
    measured   further facts, (what, how much) in words

    Raises InvalidInput for a network without its compiler's report: one read from a file, or changed since.
    """
    report: object = net.report
    if not isinstance(report, Report) or net.certificate is None or report.cost is None:
        raise InvalidInput(
            "this network was not just compiled, so there is nothing to report; use memsrc convert --report"
        )
    expected = [p.name for p in report.passes]
    assert [name for name, _ in steps[1:]] == expected, "steps are the teacher as read and one graph for each pass"
    sections = (
        _head(net, net.certificate, teacher_name, measured),
        _costs(net, report.cost, teacher_cost, steps[0][1]),
        _widths(net, net.certificate),
        _passes(report.passes, steps),
        _carried(report),
        _seconds(report),
    )
    return page.write_page(f"{teacher_name} as a plain network", sections)


def _head(net: PlainNet, certificate: Certificate, teacher_name: str, measured: Mapping[str, str]) -> str:
    info = net.info
    low, high = info.input_range
    facts = {
        "scale": f"×{info.scale}, {info.channels} channels in",
        "input range": f"{low:g} to {high:g}",
        "receptive field": f"up to {info.receptive_field} input pixels away",
        "teacher": page.short_hash(certificate.teacher_sha256),
        "plain network": page.short_hash(certificate.plain_sha256),
        "made by": escape(info.tool),
    }
    if info.image_skip:
        facts["beside it"] = escape(f"the image, enlarged by {info.image_skip} interpolation, is added to the output")
    facts |= {escape(what): escape(how) for what, how in measured.items()}
    sentence = escape(info.guarantee[:1].upper() + info.guarantee[1:])
    return (
        f"<header>\n<h1>{escape(teacher_name)} as a plain network of {len(net.layers)} layers</h1>\n"
        f'<p class="guarantee">{sentence}.</p>\n<p class="note">Proved by a certificate: a checker that knows none of '
        "the passes has compared every kernel with what the channels on both its sides mean in the teacher.</p>\n"
        f"{page.facts(facts)}</header>\n"
    )


def _costs(net: PlainNet, plain: Cost, teacher: Cost, read: ir.Graph) -> str:
    convolutions = sum(isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)) for op in read)
    pixels = WIDTH * HEIGHT
    rows = [
        ("convolutions", convolutions, len(net.layers), "{:,.0f}"),
        ("parameters, thousands", teacher.parameters / 1e3, plain.parameters / 1e3, "{:,.1f}"),
        (
            "multiply-adds, 10⁹",
            teacher.macs_per_pixel * pixels / 1e9,
            plain.macs_per_pixel * pixels / 1e9,
            "{:,.1f}",
        ),
        ("live feature maps, MiB", _mebibytes(teacher), _mebibytes(plain), "{:,.1f}"),
        ("widest map, channels", teacher.widest, plain.widest, "{:,.0f}"),
    ]
    body = (
        [
            page.head_cell(name),
            page.number(form.format(a)),
            page.number(form.format(b)),
            page.number(f"×{b / a:.2f}" if a else ""),
        ]
        for name, a, b, form in rows
    )
    return page.section(
        "What it costs",
        page.table(["", "teacher", "plain", "ratio"], body, numeric=(1, 2, 3)),
        page.note(
            f"For an input of {WIDTH}×{HEIGHT} pixels in float32, from shapes alone. Live feature maps: the most that "
            "must be held at once; in the teacher every value goes after its last use. Widths are counted at the "
            "input's resolution."
        ),
    )


def _mebibytes(cost: Cost) -> float:
    return cost.memory(HEIGHT, WIDTH) / 2**20


def _widths(net: PlainNet, certificate: Certificate) -> str:
    bars = bars_of(certificate)
    shown = {what for bar in bars for what, _, _ in bar.parts}
    staged = " Every stage has its own resolution." if len(certificate.stages) > 1 else ""
    label = f"Widths from input to output: {', '.join(str(bar.width) for bar in bars)}"
    return page.section(
        "Widths, and what the channels hold",
        page.scrolling(draw_widths(bars, label=label), "widths, layer by layer"),
        page.legend("h", HOLDS, [name for name in HOLDS if name in shown]),
        page.note(
            "One bar for the channels between two layers; numbers below are layers. The teacher's tensors in each "
            f"part are in the table, and shown where you point.{staged}"
        ),
        page.numbers("the channels of every level, as a table", _parts_table(bars)),
    )


def _parts_table(bars: Sequence[Bar]) -> str:
    rows = (
        [
            page.head_cell(bar.label),
            page.cell(what),
            page.number(str(channels)),
            page.cell(", ".join(tensors.split("\n"))),
        ]
        for bar in bars
        for what, channels, tensors in bar.parts
    )
    return page.table(["level", "holds", "channels", "tensors of the teacher (channels)"], rows, numeric=(2,))


def bars_of(certificate: Certificate) -> list[Bar]:
    """Every level of every stage as a bar."""
    bars: list[Bar] = []
    layer = 0
    for stage in certificate.stages:
        below: frozenset[str] = frozenset()
        for i, level in enumerate(stage.levels):
            ends = i in (0, len(stage.levels) - 1)
            layer += i > 0
            label = f"after layer {layer}" if layer else "input"
            if not (ends and i == 0 and layer):
                bars.append(Bar(label, _parts(level, below, ends)))
            below = frozenset(m.tensor for m in level)
    return bars


def _parts(level: Sequence[Meaning], below: frozenset[str], ends: bool) -> tuple[tuple[str, int, str], ...]:
    """What a level's channels hold, in the order of HOLDS; `below` are the tensors in the level before it."""
    found: dict[str, Counter[str]] = {what: Counter() for what in HOLDS}
    for m in level:
        found[_holds(m, below, ends)][m.tensor] += len(m.positions)
    return tuple(
        (what, sum(tensors.values()), "\n".join(f"{name} ({n})" for name, n in tensors.items() if name))
        for what, tensors in found.items()
        if tensors
    )


def _holds(m: Meaning, below: frozenset[str], ends: bool) -> str:
    if m.kind == "value":
        return HOLDS[0] if ends else "carried free" if m.tensor in below else "ReLU output"
    return {
        "positive": "carried split",
        "negative": "carried split",
        "shifted": "carried shifted",
        "one": "constant 1",
        "zero": "padding",
    }[m.kind]


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


def _passes(reports: Sequence[PassReport], steps: Sequence[tuple[str, ir.Graph]]) -> str:
    story = list(_story(reports, steps))
    shown = {kind(op) for step in story for op in step.graph}
    return page.section(
        "Pass by pass",
        page.note(
            "After each pass the network was run in float64, borders included, and compared with the one before; the "
            "bound is what rounding may do. One box is one tensor, with its channels in the second row; red arcs are "
            "skips. Each box's name in the teacher is in the table under its drawing, and shown where you point."
        ),
        page.legend("k", list(KINDS), [name for name in KINDS if name in shown]),
        *map(_detail, story),
    )


def _story(reports: Sequence[PassReport], steps: Sequence[tuple[str, ir.Graph]]) -> Iterator[_Step]:
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


def _detail(step: _Step) -> str:
    opened = " open" if step.report is None else ""
    return (
        f'<details class="pass"{opened}>\n'
        f"<summary><b>{escape(step.title)}</b>{_numbers(step)}</summary>\n"
        f"{_about(step.name)}{_drawings(step)}</details>\n"
    )


def _numbers(step: _Step) -> str:
    p = step.report
    if p is None:
        widest = max(step.graph.type(op.name).channels for op in step.graph)
        told = [f"{len(step.graph.ops)} ops", f"widest {widest}"]
    else:
        told = [
            f"{_change(p.ops_before, p.ops_after)} ops",
            f"widest {_change(p.channels_before, p.channels_after)}",
            f"{format_seconds(p.seconds)}, check {format_seconds(p.validation_seconds)}",
            f"deviation {_small(p.deviation)}, bound {_small(p.bound)}",
        ]
    return "".join(f"<span>{text}</span>" for text in told)


def _change(before: int, after: int) -> str:
    return f"{before} → {after}" if before != after else f"{after}"


def _about(name: str) -> str:
    """What the pass does and where it comes from, in its own words."""
    for p in (*passes.CANONICAL, *passes.PLAIN):
        if p.name == name:
            first = " ".join((p.__doc__ or "").split("\n\n")[0].split())
            return f"<p>{escape(first)}</p>\n{page.note(f'Source: {escape(p.source)}')}"
    return ""


def _drawings(step: _Step) -> str:
    if not step.changed:
        return page.note("Ops, widths and wiring are as they were before this pass.")
    drawn = _drawing(step.graph, f"network, {step.title}")
    if step.report is None:
        return drawn
    if step.before is None:
        return f"<h3>after, this stage alone</h3>\n{drawn}"
    before = _drawing(step.before, f"network before {step.title}")
    return f"<h3>before</h3>\n{before}<h3>after</h3>\n{drawn}"


def _drawing(graph: ir.Graph, label: str) -> str:
    count = len(graph.ops)
    cut = page.note(f"The first {DRAWN} of {count} ops.") if count > DRAWN else ""
    return (
        cut
        + page.scrolling(draw_graph(graph, label=label), f"drawing: {label}")
        + page.numbers("its ops, as a table", _ops_table(beginning(graph, DRAWN)))
    )


def _ops_table(graph: ir.Graph) -> str:
    rows = (
        [page.head_cell(op.name), page.cell("; ".join(describe_op(graph, op))), page.cell(name_operands(op))]
        for op in graph
    )
    return page.table(["name", "given by", "of"], rows, numeric=())


def _carried(report: Report) -> str:
    if not report.carried:
        return page.section("Carried tensors", "<p>None: no value is needed past a layer.</p>\n")
    rows = (
        [
            page.head_cell(c.tensor),
            page.number(str(c.channels)),
            page.cell(c.form),
            page.number(str(c.layers)),
            page.cell(c.guarantee),
        ]
        for c in report.carried
    )
    columns = ["tensor", "channels", "form", "layers", "guarantee"]
    return page.section(
        "Carried tensors",
        page.note(
            "What the skips of the teacher became: values taken past ReLUs, how many channels of them, in which form, "
            "and past how many layers."
        ),
        page.table(columns, rows, numeric=(1, 3)),
    )


def _seconds(report: Report) -> str:
    order = ["trace", "passes", "validation", "build", "certificate"]
    stages = sorted(report.seconds, key=lambda name: order.index(name) if name in order else len(order))
    rows = [[page.head_cell(name), page.number(format_seconds(report.seconds[name]))] for name in stages]
    rows.append([page.head_cell("together"), page.number(format_seconds(sum(report.seconds.values())))])
    return page.section(
        "Seconds",
        page.table(["stage", "time"], rows, numeric=(1,)),
        page.note(f"The teacher was read by {escape(report.reader)}."),
    )


def _small(value: float) -> str:
    return f"{value:.1e}" if value else "0"
