"""Ratios of rows and columns as shades: an SVG file that needs no style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from memsr_compiler.reports.colours import INK, PAPER, SOFT
from memsr_compiler.reports.scale_bar import SCALE_HEIGHT, draw_scale_bar
from memsr_compiler.reports.text import escape

_TOLD = 20  # rows or columns; in a larger matrix cells are too small for their numbers
_CELL = 44  # pixels of a cell that holds its number
_STEPS = 60  # of colour in the scale bar


def draw_matrix(values: Sequence[Sequence[float]], *, rows: str, columns: str, label: str) -> str:
    """Ratios 0..1 as shades, row 1 and column 1 in the lower left corner: an SVG file that needs no style sheet.

    In a matrix that is not too large every cell holds its number.
    """
    longest = max(len(values), len(values[0]))
    numbered = longest <= _TOLD
    cell = _CELL if numbered else max(8, 880 // longest)
    wide, tall = cell * len(values[0]), cell * len(values)
    left, top = 56, 42 + SCALE_HEIGHT
    every = 1 if cell >= 20 else 5
    drawn = []
    for i, row in enumerate(values):
        y = top + tall - (i + 1) * cell
        drawn += [_draw_cell(left + j * cell, y, cell, f"layers {i + 1} and {j + 1}", v) for j, v in enumerate(row)]
        if numbered:
            drawn += [_write_cell(left + (j + 0.5) * cell, y + cell / 2 + 4, value) for j, value in enumerate(row)]
        if (i + 1) % every == 0 or i == 0:
            drawn.append(f'<text x="{left - 6}" y="{y + cell / 2 + 4}" text-anchor="end">{i + 1}</text>')
    for j in (j for j in range(len(values[0])) if (j + 1) % every == 0 or j == 0):
        drawn.append(f'<text x="{left + (j + 0.5) * cell}" y="{top + tall + 14}" text-anchor="middle">{j + 1}</text>')
    note = "" if numbered else "The number of every cell: memsrc similarity --csv FILE"
    width, height = max(left + wide + 24, 400), top + tall + (44 if numbered else 62)
    colours = [f'fill="{_choose_shade((i + 0.5) / _STEPS)}"' for i in range(_STEPS)]
    ticks = [(n / 4, f"{n / 4:g}") for n in range(5)]
    scale = draw_scale_bar((left, 34), 4 * _STEPS, colours, ticks, caption=f"{label}, a ratio without unit")
    turned = f"rotate(-90 16 {top + tall / 2})"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(label)}</title>'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/><g fill="{INK}">'
        f'<text x="{left}" y="22" font-size="13" font-weight="600">{escape(label)}</text>'
        f'{scale}<text x="{left}" y="{height - 10}" fill="{SOFT}">{note}</text>'
        f'<text x="{left + wide / 2}" y="{top + tall + 34}" text-anchor="middle">layers of {escape(columns)}</text>'
        f'<text x="16" y="{top + tall / 2}" text-anchor="middle" transform="{turned}">layers of {escape(rows)}</text>'
        f"{''.join(drawn)}</g></svg>\n"
    )


def _draw_cell(x: float, y: float, side: float, name: str, ratio: float) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{_choose_shade(ratio)}">'
        f"<title>{name}: {ratio:.4f}</title></rect>"
    )


def _write_cell(x: float, y: float, ratio: float) -> str:
    ink = ' fill="#fff"' if ratio > 0.8 else ""  # where it stands out better than black does
    return f'<text x="{x}" y="{y}" text-anchor="middle"{ink}>{ratio:.4f}</text>'


def _choose_shade(ratio: float) -> str:
    """Colour of a ratio: white for 0, dark blue for 1, and most of the change near 1."""
    red, green, blue = (round(253 + (dark - 253) * ratio**2) for dark in (18, 58, 110))
    return f"rgb({red},{green},{blue})"
