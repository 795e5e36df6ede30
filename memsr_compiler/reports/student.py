"""The report of a student, as one self-contained HTML page: no script, no font, pictures inside, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.errors import InvalidInput
from memsr_compiler.ir import names
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantities import say_count
from memsr_compiler.reports import page
from memsr_compiler.reports.approximation import write_replacements
from memsr_compiler.reports.side_by_side import Picture, write_pictures
from memsr_compiler.reports.student_charts import write_errors, write_spectra, write_widths
from memsr_compiler.reports.text import escape, format_decibels, format_error, format_seconds
from memsr_compiler.student.report import LayerShrunk, ShrinkReport

_MODES = {"data-aware": "data-aware initialisation", "memsr": "MemSR's initialisation (Algorithm 1)"}


@dataclass(frozen=True)
class Row:
    """A network, or a way of enlarging, beside the student.

    cost   None if it is no network;   psnr   on Y in dB, None if it was not measured
    """

    name: str
    cost: Cost | None = None
    psnr: float | None = None


def report_student(
    net: PlainNet,
    *,
    teacher_name: str,
    rows: Sequence[Row],
    size: tuple[int, int],
    images: str,
    pictures: Sequence[Picture] = (),
) -> str:
    """Page on a student.

    net      a student just derived
    rows     of the cost table, the teacher the first that has a cost, the student the last
    size     (width, height) of the input for which costs are counted
    images   what the PSNR was measured on, in words

    Raises InvalidInput for a network that `shrink` did not make, or that was read from a file.
    """
    report: object = net.report
    if not isinstance(report, ShrinkReport):
        raise InvalidInput(
            "this network was not just derived, so there is nothing to report; use memsrc shrink --report"
        )
    sections = (
        _write_head(net, report, teacher_name),
        _write_costs(rows, size, images),
        write_replacements(report.frozen),
        write_pictures(pictures),
        write_widths(report.layers),
        write_spectra(report.layers),
        write_errors(report),
        _write_layers(report.layers),
        _write_seconds(report),
    )
    return page.write_page(f"A student of {teacher_name}", sections, with_images=True)


def _write_head(net: PlainNet, report: ShrinkReport, teacher_name: str) -> str:
    info = net.info
    low, high = info.input_range
    facts = {
        "made by": f"{escape(info.tool)}, {escape(_MODES[report.mode])}",
        "derived from": f"{say_count(report.images, 'crop')}, {say_count(report.pixels, 'input pixel')}",
        "scale": f"×{info.scale}, {say_count(info.channels, 'channel')} in",
        "input range": f"{low:g} to {high:g}",
        "receptive field": f"up to {info.receptive_field} input pixels away",
        "teacher": page.folded_hash(info.teacher_sha256),
        "student": page.folded_hash(net.sha256()),
    }
    if info.image_skip:
        facts["beside it"] = escape(f"the image, enlarged by {info.image_skip} interpolation, is added to the output")
    widest = max(net.widths[1:-1], default=0)
    before = max((layer.teacher_width for layer in report.layers), default=0)
    return (
        f"<header>\n<h1>A student of {escape(teacher_name)}: {say_count(len(net.layers), 'layer')}, up to "
        f"{say_count(widest, 'channel')}</h1>\n"
        f'<p class="guarantee">It approximates the teacher, whose layers need up to {before} channels; no training was '
        f"done.</p>\n{page.facts(facts)}</header>\n"
    )


def _write_costs(rows: Sequence[Row], size: tuple[int, int], images: str) -> str:
    width, height = size
    base = next((row.cost for row in rows if row.cost is not None), None)
    body = []
    for row in rows:
        cells = [page.head_cell(row.name), page.number(format_decibels(row.psnr))]
        if row.cost is None or base is None:
            cells += [page.number("")] * 6
        else:
            macs, memory = row.cost.macs_per_pixel * width * height, row.cost.memory(height, width)
            cells += [
                page.number(f"{row.cost.parameters / 1e3:,.1f}"),
                page.number(_format_ratio(row.cost.parameters, base.parameters)),
                page.number(f"{macs / 1e9:,.1f}"),
                page.number(_format_ratio(row.cost.macs_per_pixel, base.macs_per_pixel)),
                page.number(f"{memory / 2**20:,.1f}"),
                page.number(_format_ratio(row.cost.floats_per_pixel, base.floats_per_pixel)),
            ]
        body.append(cells)
    costs = ("parameters, 10³", "multiply-adds, 10⁹", "live feature maps, MiB")
    columns = ["", "PSNR-Y", *(name for cost in costs for name in (cost, "ratio"))]
    return page.section(
        "What it costs, and what it gives",
        page.table(columns, body, numeric=range(1, 8)),
        page.note(
            f"Costs for an input of {width}×{height} pixels in float32, from shapes alone. Live feature maps: the most "
            "that must be held at once; in the teacher every value goes after its last use. The plain network is the "
            f"teacher's equivalent, so its PSNR is the teacher's. PSNR on {escape(images)}."
        ),
    )


def _format_ratio(value: float, base: float) -> str:
    return f"×{value / base:.2f}" if base else ""


def _write_layers(layers: Sequence[LayerShrunk]) -> str:
    rows = (
        [
            page.head_cell(str(layer.number)),
            page.number(str(layer.teacher_width)),
            page.number(str(layer.width)),
            page.number(str(layer.relus)),
            page.number(format_error(layer.lost)),
            page.number(format_error(layer.own_error)),
            page.cell(", ".join(map(names.value, layer.holds))),
        ]
        for layer in layers
    )
    columns = ["layer", "teacher's width", "student's", "of them ReLUs", "Eq. 15", "own error", "the teacher's tensors"]
    return page.section("Layers", page.table(columns, rows, numeric=range(1, 6)))


def _write_seconds(report: ShrinkReport) -> str:
    rows = [[page.head_cell(name), page.number(format_seconds(value))] for name, value in report.seconds.items()]
    rows.append([page.head_cell("together"), page.number(format_seconds(sum(report.seconds.values())))])
    return page.section("Seconds", page.table(["stage", "time"], rows, numeric=(1,)))
