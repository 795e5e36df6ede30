"""Singular values of layers, as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.axes import Frame, choose_whole_step, join_points
from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.scale_bar import SCALE_HEIGHT, draw_scale_bar
from memsr_compiler.reports.text import escape

_DECADES = 6  # at most, on a logarithmic scale
_SHADES = 6  # of lines from the first layer to the last
_SWATCH = 50  # pixels of a shade in the scale bar: six fit into the narrowest window


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer's features, largest first, and how many of them the student's width is."""

    label: str
    values: Sequence[float]
    kept: int


def draw_spectra(spectra: Sequence[Spectrum], *, label: str) -> Drawing:
    """Picture of every layer's singular values relative to the largest, on a logarithmic scale.

    A dot marks the kept width. Colours go from the first layers to the last: a scale bar above the plot says which.
    """
    lines = [_take_logarithms(spectrum.values) for spectrum in spectra]
    deepest = min((value for line in lines for value in line), default=-1.0)
    foot = -max(1, min(_DECADES, math.ceil(-deepest)))
    longest = max(2, max(len(line) for line in lines))
    top = 12 + SCALE_HEIGHT
    frame = Frame(44, top, 724, top + 260, 1, longest, foot, 0)
    each = choose_whole_step(longest)
    decades = [(d, "1" if d == 0 else f"10<tspan dy='-4'>{d}</tspan>") for d in range(0, foot - 1, -1)]
    drawn = [_draw_shade_scale(spectra, frame.left), frame.draw_grid(decades)]
    for n in [1, *range(each, longest + 1, each)]:
        drawn.append(f'<text class="name" x="{frame.x(n)}" y="{frame.floor + 15}">{n}</text>')
    dots = []
    for i, (spectrum, line) in enumerate(zip(spectra, lines, strict=True)):
        if not line:
            continue
        shade = i * _SHADES // len(spectra)
        places = [(frame.x(n), frame.y(max(value, foot))) for n, value in enumerate(line, 1)]
        kept = min(max(spectrum.kept, 1), len(places)) - 1
        title = f"<title>{escape(f'layer {spectrum.label}: {spectrum.kept} of {len(line)} kept')}</title>"
        drawn.append(f'<polyline class="s{shade}" points="{join_points(places)}">{title}</polyline>')
        dots.append(f'<circle class="s{shade}" cx="{places[kept][0]}" cy="{places[kept][1]}" r="3.5">{title}</circle>')
    return frame.enclose("spectra", label, frame.right + 12, decades, [*drawn, *dots])


def name_shades(spectra: Sequence[Spectrum]) -> list[str]:
    """The layers, from .. to, that share each colour of `draw_spectra`; '' for a colour of none."""
    names: list[list[str]] = [[] for _ in range(_SHADES)]
    for i, spectrum in enumerate(spectra):
        names[i * _SHADES // len(spectra)].append(spectrum.label)
    return [(n[0] if len(n) == 1 else f"{n[0]}–{n[-1]}") if n else "" for n in names]


def _draw_shade_scale(spectra: Sequence[Spectrum], left: float) -> str:
    names = [(f'class="s{shade}"', name) for shade, name in enumerate(name_shades(spectra)) if name]
    ticks = [((i + 0.5) / len(names), name) for i, (_, name) in enumerate(names)]
    colours = [colour for colour, _ in names]
    return draw_scale_bar((left, 4), _SWATCH * len(names), colours, ticks, caption="layer")


def _take_logarithms(values: Sequence[float]) -> list[float]:
    """Logarithms to base 10 of the values by the largest, 0 as the lowest that is ever drawn; [] if all are 0."""
    largest = max(values, default=0.0)
    if not largest > 0:
        return []
    return [math.log10(value / largest) if value > 10.0**-_DECADES * largest else -float(_DECADES) for value in values]
