"""The sections on a student's layers: their widths, spectra and errors, drawn and as tables."""

from __future__ import annotations

from collections.abc import Sequence

from memsr_compiler.reports import page
from memsr_compiler.reports.layer_errors import ERRORS, draw_errors
from memsr_compiler.reports.spectra import Spectrum, draw_spectra
from memsr_compiler.reports.text import format_decibels, format_error
from memsr_compiler.reports.width_pairs import HOLDS, Pair, draw_pairs
from memsr_compiler.student.report import LayerShrunk, ShrinkReport


def write_widths(layers: Sequence[LayerShrunk]) -> str:
    """The section on widths; nothing for a student of one layer."""
    if not layers:
        return ""
    pairs = [Pair(str(a.number), a.teacher_width, a.relus, a.width - a.relus) for a in layers]
    label = f"Widths of the student's layers: {', '.join(str(pair.student) for pair in pairs)}"
    shown = [name for name, n in zip(HOLDS, _sum_pairs(pairs), strict=True) if n]
    return page.section(
        "Widths, layer by layer",
        page.picture(draw_pairs(pairs, label=label), "widths, layer by layer"),
        page.legend("w", HOLDS, shown),
        page.note(
            "One bar for each layer but the last: behind, the channels that the teacher holds there; in front, the "
            "student's."
        ),
        page.folded_table("widths, as a table", _tabulate_pairs(pairs)),
    )


def _sum_pairs(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    return sum(p.teacher for p in pairs), sum(p.relus for p in pairs), sum(p.carried for p in pairs)


def _tabulate_pairs(pairs: Sequence[Pair]) -> str:
    rows = (
        [page.head_cell(p.label), *(page.number(str(n)) for n in (p.teacher, p.student, p.relus, p.carried))]
        for p in pairs
    )
    columns = ["layer", "teacher's channels", "student's", *HOLDS[1:]]
    return page.table(columns, rows, numeric=range(1, 5))


def write_spectra(layers: Sequence[LayerShrunk]) -> str:
    """The section on singular values; nothing for a student of one layer."""
    spectra = [Spectrum(str(a.number), a.singular_values.tolist(), a.width) for a in layers]
    if not spectra:
        return ""
    return page.section(
        "Singular values of the teacher's features",
        page.picture(draw_spectra(spectra, label="singular values, layer by layer"), "singular values"),
        page.note(
            "Of the centred features of each layer, relative to the largest. A dot marks the student's width: what is "
            "right of it, no network of this width can hold linearly (Eq. 15)."
        ),
        page.folded_table("singular values at the dots, as a table", _tabulate_spectra(spectra)),
    )


def _tabulate_spectra(spectra: Sequence[Spectrum]) -> str:
    rows = (
        [
            page.head_cell(spectrum.label),
            page.number(str(spectrum.kept)),
            page.number(str(len(spectrum.values))),
            *(page.number(_format_relative(spectrum, place)) for place in (spectrum.kept - 1, spectrum.kept)),
        ]
        for spectrum in spectra
    )
    columns = ["layer", "kept", "of", "the last one kept", "the first one lost"]
    return page.table(columns, rows, numeric=range(1, 5))


def _format_relative(spectrum: Spectrum, place: int) -> str:
    """A singular value by the largest; a dash where there is none."""
    values = spectrum.values
    if not 0 <= place < len(values) or not values[0] > 0:
        return "–"
    return f"{values[place] / values[0]:.1e}"


def write_errors(report: ShrinkReport) -> str:
    """The section on errors, of layers and of the output; nothing for a student of one layer."""
    if not report.layers:
        return ""
    rows = [(str(layer.number), layer.lost, layer.own_error) for layer in report.layers]
    return page.section(
        "Error per layer",
        page.picture(draw_errors(rows, label="relative errors, layer by layer"), "error per layer"),
        page.legend("e", ERRORS, ERRORS),
        page.note(
            "How far the teacher's features are from what can be told of them, relative to their deviation from the "
            "mean: from the best features of the student's width, and from those that the student computes."
        ),
        page.folded_table("errors, as a table", _tabulate_errors(rows)),
        _write_fidelity(report.fidelity),
    )


def _tabulate_errors(rows: Sequence[tuple[str, float, float]]) -> str:
    body = ([page.head_cell(name), *(page.number(format_error(value)) for value in values)] for name, *values in rows)
    return page.table(["layer", *ERRORS], body, numeric=(1, 2))


def _write_fidelity(steps: Sequence[float]) -> str:
    if not steps:
        return ""
    names = [
        "as derived layer by layer",
        *(f"after {n / (len(steps) - 1):.0%} of the joint refit" for n in range(1, len(steps))),
    ]
    rows = (
        [page.head_cell(name), page.number(format_decibels(value))] for name, value in zip(names, steps, strict=True)
    )
    return page.table(["student's output against the teacher's", "PSNR"], rows, numeric=(1,))
