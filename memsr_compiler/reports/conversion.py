"""The report of a conversion, as one self-contained HTML page: no script, no font, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memsr_compiler import ir
from memsr_compiler.analysis.cost import Cost
from memsr_compiler.errors import InvalidInput
from memsr_compiler.lowering.compile import Report
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.quantities import say_count
from memsr_compiler.reports import page
from memsr_compiler.reports.approximation import write_replacements
from memsr_compiler.reports.level_contents import HOLDS, Bar, list_bars
from memsr_compiler.reports.level_widths import draw_widths
from memsr_compiler.reports.pass_by_pass import write_passes
from memsr_compiler.reports.text import escape, format_seconds

WIDTH, HEIGHT = 480, 270  # of the input for which multiply-adds and memory are stated


def report_conversion(
    net: PlainNet,
    steps: Sequence[tuple[str, ir.Graph]],
    *,
    teacher_name: str,
    measured: Mapping[str, str] = {},
) -> str:
    """Page on a conversion.  The same text for the same conversion, but for the seconds in it.

    steps      the teacher as read, then (name of a pass, graph after it) in order, as `on_graph` heard of them
    measured   further facts, (what, how much) in words

    Raises InvalidInput for a network without its compiler's report: one read from a file, or changed since.
    """
    report: object = net.report
    if not isinstance(report, Report) or net.certificate is None:
        raise InvalidInput(
            "this network was not just compiled, so there is nothing to report; use memsrc convert --report"
        )
    expected = [p.name for p in report.passes]
    assert [name for name, _ in steps[1:]] == expected, "steps are the teacher as read and one graph for each pass"
    sections = (
        _write_head(net, net.certificate, teacher_name, measured),
        _write_costs(net, report.cost, report.teacher_cost, steps[0][1]),
        write_replacements(report.frozen),
        _write_widths(net, net.certificate),
        write_passes(report.passes, steps),
        _write_carried(report),
        _write_seconds(report),
    )
    return page.write_page(f"{teacher_name} as a plain network", sections)


def _write_head(net: PlainNet, certificate: Certificate, teacher_name: str, measured: Mapping[str, str]) -> str:
    info = net.info
    low, high = info.input_range
    facts = {
        "scale": f"×{info.scale}, {say_count(info.channels, 'channel')} in",
        "input range": f"{low:g} to {high:g}",
        "receptive field": f"up to {info.receptive_field} input pixels away",
        "teacher": page.folded_hash(certificate.teacher_sha256),
        "plain network": page.folded_hash(certificate.plain_sha256),
        "made by": escape(info.tool),
    }
    if info.image_skip:
        facts["beside it"] = escape(f"the image, enlarged by {info.image_skip} interpolation, is added to the output")
    if info.assumed:
        facts["assumed"] = escape("; ".join(info.assumed))
    facts |= {escape(what): escape(how) for what, how in measured.items()}
    of = "frozen network" if certificate.approximation else "teacher"
    sentence = escape(info.guarantee[:1].upper() + info.guarantee[1:])
    return (
        f"<header>\n<h1>{escape(teacher_name)} as a plain network of {say_count(len(net.layers), 'layer')}</h1>\n"
        f'<p class="guarantee">{sentence}.</p>\n<p class="note">Proved by a certificate: a checker that knows none of '
        f"the passes has compared every kernel with what the channels on both its sides mean in the {of}.</p>\n"
        f"{page.facts(facts)}</header>\n"
    )


def _write_costs(net: PlainNet, plain: Cost, teacher: Cost, read: ir.Graph) -> str:
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
        ("live feature maps, MiB", _count_mebibytes(teacher), _count_mebibytes(plain), "{:,.1f}"),
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


def _count_mebibytes(cost: Cost) -> float:
    return cost.memory(HEIGHT, WIDTH) / 2**20


def _write_widths(net: PlainNet, certificate: Certificate) -> str:
    bars = list_bars(certificate, [layer.slopes for layer in net.checkable()] if net.info.carry == "pass" else ())
    shown = {what for bar in bars for what, _, _ in bar.parts}
    staged = " Every stage has its own resolution." if len(certificate.stages) > 1 else ""
    label = f"Widths from input to output: {', '.join(str(bar.width) for bar in bars)}"
    return page.section(
        "Widths, and what the channels hold",
        page.picture(draw_widths(bars, label=label), "widths, layer by layer"),
        page.legend("h", HOLDS, [name for name in HOLDS if name in shown]),
        page.note(
            "One bar for the channels between two layers; numbers below are layers. The teacher's tensors in each "
            f"part are in the table, and shown where you point.{staged}"
        ),
        page.folded_table("the channels of every level, as a table", _tabulate_parts(bars)),
    )


def _tabulate_parts(bars: Sequence[Bar]) -> str:
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


def _write_carried(report: Report) -> str:
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


def _write_seconds(report: Report) -> str:
    order = ["trace", "passes", "validation", "build", "certificate"]
    stages = sorted(report.seconds, key=lambda name: order.index(name) if name in order else len(order))
    rows = [[page.head_cell(name), page.number(format_seconds(report.seconds[name]))] for name in stages]
    rows.append([page.head_cell("together"), page.number(format_seconds(sum(report.seconds.values())))])
    return page.section(
        "Seconds",
        page.table(["stage", "time"], rows, numeric=(1,)),
        page.note(f"The teacher was read by {escape(report.reader)}."),
    )
