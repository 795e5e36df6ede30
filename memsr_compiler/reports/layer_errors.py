"""Errors of layers, as two lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memsr_compiler.reports.axes import Frame, choose_pitch, choose_step, join_points
from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.text import escape

ERRORS = ("best of this width (Eq. 15)", "the student's own")


def draw_errors(rows: Sequence[tuple[str, float, float]], *, label: str) -> Drawing:
    """Picture of two errors for every layer: (layer, the best that its width allows, the student's own)."""
    pitch = choose_pitch(len(rows))
    known = [value for _, *values in rows for value in values if math.isfinite(value)]
    highest = max([*known, 1e-6])
    each = choose_step(highest)
    count = math.ceil(highest / each - 1e-9)
    frame = Frame(52, 14, 52 + pitch * len(rows), 194, 0, len(rows), 0, each * count)
    lines = [(n * each, f"{n * each:.6g}") for n in range(count + 1)]
    drawn = [frame.draw_grid(lines)]
    for i, (name, *_) in enumerate(rows):
        middle = frame.left + (i + 0.5) * pitch
        drawn.append(f'<text class="name" x="{middle}" y="{frame.floor + 14}">{escape(name)}</text>')
    for kind in (0, 1):
        points = [(i, name, values[kind]) for i, (name, *values) in enumerate(rows) if math.isfinite(values[kind])]
        places = [(frame.x(i + 0.5), frame.y(value)) for i, _, value in points]
        drawn.append(f'<polyline class="e{kind}" points="{join_points(places)}"/>')
        for (x, y), (_, name, value) in zip(places, points, strict=True):
            title = escape(f"layer {name}: {value:.4f}, {ERRORS[kind]}")
            drawn.append(f'<circle class="e{kind}" cx="{x}" cy="{y}" r="3"><title>{title}</title></circle>')
    return frame.enclose("errors", label, frame.right + 4, lines, drawn)
