"""What shrinking did, as one self-contained HTML page: no script, no font, nothing fetched; pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import png
from memsr_compiler.ir import names
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.reports import page
from memsr_compiler.reports.charts import ERRORS, HOLDS, Pair, Spectrum, draw_errors, draw_pairs, draw_spectra
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


@dataclass(frozen=True)
class Picture:
    """One place in one photograph, made by several networks.

    whole     the photograph, small;   place   (left, top, width, height) of the crop in it, as fractions of its size
    crops     (by whom, pixels, PSNR of the whole image in dB or None), the original first; all of one size
    """

    name: str
    whole: NDArray[np.uint8]
    place: tuple[float, float, float, float]
    crops: Sequence[tuple[str, NDArray[np.uint8], float | None]]


def shrink_report(
    net: PlainNet,
    *,
    teacher_name: str,
    rows: Sequence[Row],
    size: tuple[int, int],
    images: str,
    pictures: Sequence[Picture] = (),
) -> str:
    """The page.

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
        _head(net, report, teacher_name),
        _costs(rows, size, images),
        _pictures(pictures),
        _widths(report.layers),
        _spectra(report.layers),
        _errors(report),
        _layers(report.layers),
        _seconds(report),
    )
    return page.write_page(f"A student of {teacher_name}", sections, with_images=True)


def _head(net: PlainNet, report: ShrinkReport, teacher_name: str) -> str:
    info = net.info
    low, high = info.input_range
    told = {
        "made by": f"{escape(info.tool)}, {escape(_MODES[report.mode])}",
        "derived from": f"{report.images:,} crops, {report.pixels:,} input pixels",
        "scale": f"×{info.scale}, {info.channels} channels in",
        "input range": f"{low:g} to {high:g}",
        "receptive field": f"up to {info.receptive_field} input pixels away",
        "teacher": page.short_hash(info.teacher_sha256),
        "student": page.short_hash(net.sha256()),
    }
    if info.image_skip:
        told["beside it"] = escape(f"the image, enlarged by {info.image_skip} interpolation, is added to the output")
    widest = max(net.widths[1:-1], default=0)
    before = max((layer.teacher_width for layer in report.layers), default=0)
    return (
        f"<header>\n<h1>A student of {escape(teacher_name)}: {len(net.layers)} layers, up to {widest} channels</h1>\n"
        f'<p class="guarantee">It approximates the teacher, whose layers need up to {before} channels; no training was '
        f"done.</p>\n{page.facts(told)}</header>\n"
    )


def _costs(rows: Sequence[Row], size: tuple[int, int], images: str) -> str:
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
                page.number(_ratio(row.cost.parameters, base.parameters)),
                page.number(f"{macs / 1e9:,.1f}"),
                page.number(_ratio(row.cost.macs_per_pixel, base.macs_per_pixel)),
                page.number(f"{memory / 2**20:,.1f}"),
                page.number(_ratio(row.cost.floats_per_pixel, base.floats_per_pixel)),
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


def _ratio(value: float, base: float) -> str:
    return f"×{value / base:.2f}" if base else ""


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    return page.section(
        "Side by side",
        page.note(
            "Where enlarging is hardest: the part of each photograph that bicubic gets most wrong, with its pixels "
            "enlarged. PSNR is that of the whole image."
        ),
        *map(_picture, pictures),
    )


def _picture(picture: Picture) -> str:
    left, top, width, height = (f"{100 * part:.2f}%" for part in picture.place)
    tall, wide = picture.whole.shape[:2]
    frame = (
        f'<svg class="place" viewBox="0 0 {wide} {tall}" aria-hidden="true"><rect x="{left}" y="{top}" '
        f'width="{width}" height="{height}"/></svg>'
    )
    crops = "".join(
        f"<figure>{_image(pixels, f'{picture.name}, {name}', 'crop')}<figcaption>{escape(name)}"
        f"<span>{format_decibels(psnr)}</span></figcaption></figure>\n"
        for name, pixels, psnr in picture.crops
    )
    whole = _image(picture.whole, picture.name, "whole")
    return (
        f'<div class="pictures">\n<figure class="whole"><div>{whole}{frame}</div>'
        f"<figcaption>{escape(picture.name)}</figcaption></figure>\n"
        f'<div class="crops">\n{crops}</div>\n</div>\n'
    )


def _image(pixels: NDArray[np.uint8], label: str, kind: str) -> str:
    height, width = pixels.shape[:2]
    data = base64.b64encode(png(pixels)).decode()
    return (
        f'<img class="{kind}" alt="{escape(label)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


def _widths(layers: Sequence[LayerShrunk]) -> str:
    if not layers:
        return ""
    pairs = [Pair(str(a.number), a.teacher_width, a.relus, a.width - a.relus) for a in layers]
    label = f"Widths of the student's layers: {', '.join(str(pair.student) for pair in pairs)}"
    shown = [name for name, n in zip(HOLDS, _held(pairs), strict=True) if n]
    return page.section(
        "Widths, layer by layer",
        page.scrolling(draw_pairs(pairs, label=label), "widths, layer by layer"),
        page.legend("w", HOLDS, shown),
        page.note(
            "One bar for each layer but the last: behind, the channels that the teacher holds there; in front, the "
            "student's."
        ),
        page.numbers("widths, as a table", _pairs_table(pairs)),
    )


def _pairs_table(pairs: Sequence[Pair]) -> str:
    rows = (
        [page.head_cell(p.label), *(page.number(str(n)) for n in (p.teacher, p.student, p.relus, p.carried))]
        for p in pairs
    )
    columns = ["layer", "teacher's channels", "student's", *HOLDS[1:]]
    return page.table(columns, rows, numeric=range(1, 5))


def _held(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    return sum(p.teacher for p in pairs), sum(p.relus for p in pairs), sum(p.carried for p in pairs)


def _spectra(layers: Sequence[LayerShrunk]) -> str:
    spectra = [Spectrum(str(a.number), a.singular_values.tolist(), a.width) for a in layers]
    if not spectra:
        return ""
    return page.section(
        "Singular values of the teacher's features",
        page.scrolling(draw_spectra(spectra, label="singular values, layer by layer"), "singular values"),
        page.note(
            "Of the centred features of each layer, relative to the largest. A dot marks the student's width: what is "
            "right of it, no network of this width can hold linearly (Eq. 15)."
        ),
        page.numbers("singular values at the dots, as a table", _spectra_table(spectra)),
    )


def _spectra_table(spectra: Sequence[Spectrum]) -> str:
    rows = (
        [
            page.head_cell(spectrum.label),
            page.number(str(spectrum.kept)),
            page.number(str(len(spectrum.values))),
            *(page.number(_relative(spectrum, place)) for place in (spectrum.kept - 1, spectrum.kept)),
        ]
        for spectrum in spectra
    )
    columns = ["layer", "kept", "of", "the last one kept", "the first one lost"]
    return page.table(columns, rows, numeric=range(1, 5))


def _relative(spectrum: Spectrum, place: int) -> str:
    """A singular value by the largest; a dash where there is none."""
    values = spectrum.values
    if not 0 <= place < len(values) or not values[0] > 0:
        return "–"
    return f"{values[place] / values[0]:.1e}"


def _errors(report: ShrinkReport) -> str:
    if not report.layers:
        return ""
    rows = [(str(layer.number), layer.lost, layer.own_error) for layer in report.layers]
    return page.section(
        "Error per layer",
        page.scrolling(draw_errors(rows, label="relative errors, layer by layer"), "error per layer"),
        page.legend("e", ERRORS, ERRORS),
        page.note(
            "How far the teacher's features are from what can be told of them, relative to their deviation from the "
            "mean: from the best features of the student's width, and from those that the student computes."
        ),
        page.numbers("errors, as a table", _errors_table(rows)),
        _fidelity(report.fidelity),
    )


def _errors_table(rows: Sequence[tuple[str, float, float]]) -> str:
    body = ([page.head_cell(name), *(page.number(format_error(value)) for value in values)] for name, *values in rows)
    return page.table(["layer", *ERRORS], body, numeric=(1, 2))


def _fidelity(steps: Sequence[float]) -> str:
    if not steps:
        return ""
    told = [
        "as derived layer by layer",
        *(f"after {n / (len(steps) - 1):.0%} of the joint refit" for n in range(1, len(steps))),
    ]
    rows = (
        [page.head_cell(name), page.number(format_decibels(value))] for name, value in zip(told, steps, strict=True)
    )
    return page.table(["student's output against the teacher's", "PSNR"], rows, numeric=(1,))


def _layers(layers: Sequence[LayerShrunk]) -> str:
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


def _seconds(report: ShrinkReport) -> str:
    rows = [[page.head_cell(name), page.number(format_seconds(value))] for name, value in report.seconds.items()]
    rows.append([page.head_cell("together"), page.number(format_seconds(sum(report.seconds.values())))])
    return page.section("Seconds", page.table(["stage", "time"], rows, numeric=(1,)))
