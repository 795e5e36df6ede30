"""Charts as SVG text: for HTML pages whose style sheet is report.css, and one that stands alone.

Numbers that are not finite are left out of the lines; what cannot be zero on a logarithmic scale is drawn at its foot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memsr_compiler.reports.drawing import SCALE_HEIGHT, Drawing, draw_scale_bar
from memsr_compiler.reports.text import escape

HOLDS = ("teacher", "ReLUs of the teacher", "linear directions")
ERRORS = ("best of this width (Eq. 15)", "the student's own")
_LINE = 18  # pixels from a line of a table to the next
_CELL = 44  # pixels of a cell that holds its number
_DECADES = 6  # at most, on a logarithmic scale
_SHADES = 6  # of lines from the first layer to the last
_SWATCH = 50  # pixels of a shade in the scale bar: six fit into the narrowest window


@dataclass(frozen=True)
class Pair:
    """The width of one layer in the teacher and in the student, whose channels are of two kinds."""

    label: str
    teacher: int
    relus: int
    carried: int

    @property
    def student(self) -> int:
        return self.relus + self.carried


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer's features, largest first, and how many of them the student's width is."""

    label: str
    values: Sequence[float]
    kept: int


@dataclass(frozen=True)
class Point:
    """A network in a trade-off: what it is, multiply-adds, bytes of feature maps, PSNR in dB."""

    label: str
    macs: float
    memory: float
    psnr: float


def tick(highest: int) -> int:
    """A round distance between grid lines, about five of them, on an axis of whole numbers."""
    return max(1, round(step(highest)))


def step(highest: float) -> float:
    """A round distance between grid lines, about five of them, from 0 to `highest` > 0."""
    power: float = 10.0 ** math.floor(math.log10(highest / 4))
    return next(f * power for f in (1, 2, 5, 10) if highest <= 5 * f * power)


@dataclass(frozen=True)
class _Frame:
    """Where numbers are in a drawing: pixels of the plot's edges, and the values at them."""

    left: float
    top: float
    right: float
    floor: float
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return round(self.left + (self.right - self.left) * (value - self.x0) / (self.x1 - self.x0), 1)

    def y(self, value: float) -> float:
        return round(self.floor - (self.floor - self.top) * (value - self.y0) / (self.y1 - self.y0), 1)

    def grid(self, lines: Sequence[tuple[float, str]]) -> str:
        """Horizontal lines with their numbers on the left."""
        paths = "".join(f'<path class="grid" d="M{self.left} {self.y(value)}H{self.right}"/>' for value, _ in lines)
        return paths + self.numbers(lines)

    def numbers(self, lines: Sequence[tuple[float, str]]) -> str:
        """The numbers on the left alone."""
        return "".join(
            f'<text class="tick" x="{self.left - 6}" y="{self.y(value) + 4}">{text}</text>' for value, text in lines
        )


def draw_pairs(pairs: Sequence[Pair], *, label: str) -> Drawing:
    """The student's widths in front of the teacher's, layer by layer: MemSR, Figure 7."""
    pitch = _pitch(len(pairs))
    each = tick(max(max(p.teacher, p.student) for p in pairs))
    highest = each * math.ceil(max(max(p.teacher, p.student) for p in pairs) / each)
    frame = _Frame(36, 18, 36 + pitch * len(pairs), 218, 0, 1, 0, highest)
    lines = [(n, str(n)) for n in range(0, highest + 1, each)]
    drawn = [frame.grid(lines)]
    for i, pair in enumerate(pairs):
        left, wide = frame.left + i * pitch + 3, pitch - 6
        told = (
            f"layer {pair.label}: {pair.student} of {pair.teacher} channels\n"
            f"{pair.relus} ReLUs of the teacher, {pair.carried} linear directions"
        )
        stack = ((0, 0, pair.teacher), (1, 0, pair.relus), (2, pair.relus, pair.student))
        bars = "".join(
            f'<rect class="w{kind}" x="{left + 4 * (kind > 0)}" y="{frame.y(above)}" '
            f'width="{wide - 8 * (kind > 0)}" height="{round(frame.y(below) - frame.y(above), 1)}"/>'
            for kind, below, above in stack
            if above > below
        )
        middle = left + wide / 2
        top = frame.y(max(pair.teacher, pair.student))
        drawn.append(
            f"<g><title>{escape(told)}</title>{bars}"
            f'<text x="{middle}" y="{top - 4}">{pair.teacher}</text>'
            f'<text class="inside" x="{middle}" y="{_inside(frame, pair.student)}">{pair.student}</text>'
            f'<text class="name" x="{middle}" y="{frame.floor + 15}">{escape(pair.label)}</text></g>'
        )
    return _drawing("pairs", label, frame, frame.right + 4, lines, drawn)


def _inside(frame: _Frame, width: int) -> float:
    """Where a bar's number stands: below its top, or on its foot if it is too low for that."""
    return min(frame.y(width) + 12, frame.floor - 3)


def draw_spectra(spectra: Sequence[Spectrum], *, label: str) -> Drawing:
    """Singular values of every layer relative to its largest one, on a logarithmic scale; a dot at the kept width.

    Colours go from the first layers to the last: a scale bar above the plot says which.
    """
    lines = [_relative(spectrum.values) for spectrum in spectra]
    deepest = min((value for line in lines for value in line), default=-1.0)
    foot = -max(1, min(_DECADES, math.ceil(-deepest)))
    longest = max(2, max(len(line) for line in lines))
    top = 12 + SCALE_HEIGHT
    frame = _Frame(44, top, 724, top + 260, 1, longest, foot, 0)
    each = tick(longest)
    decades = [(d, "1" if d == 0 else f"10<tspan dy='-4'>{d}</tspan>") for d in range(0, foot - 1, -1)]
    drawn = [_shade_scale(spectra, frame.left), frame.grid(decades)]
    for n in [1, *range(each, longest + 1, each)]:
        drawn.append(f'<text class="name" x="{frame.x(n)}" y="{frame.floor + 14}">{n}</text>')
    dots = []
    for i, (spectrum, line) in enumerate(zip(spectra, lines, strict=True)):
        if not line:
            continue
        shade = i * _SHADES // len(spectra)
        places = [(frame.x(n), frame.y(max(value, foot))) for n, value in enumerate(line, 1)]
        kept = min(max(spectrum.kept, 1), len(places)) - 1
        title = f"<title>{escape(f'layer {spectrum.label}: {spectrum.kept} of {len(line)} kept')}</title>"
        drawn.append(f'<polyline class="s{shade}" points="{_points(places)}">{title}</polyline>')
        dots.append(f'<circle class="s{shade}" cx="{places[kept][0]}" cy="{places[kept][1]}" r="3.5">{title}</circle>')
    return _drawing("spectra", label, frame, frame.right + 12, decades, [*drawn, *dots])


def name_shades(spectra: Sequence[Spectrum]) -> list[str]:
    """The layers, from .. to, that share each colour of `draw_spectra`; '' for a colour of none."""
    names: list[list[str]] = [[] for _ in range(_SHADES)]
    for i, spectrum in enumerate(spectra):
        names[i * _SHADES // len(spectra)].append(spectrum.label)
    return [(n[0] if len(n) == 1 else f"{n[0]}–{n[-1]}") if n else "" for n in names]


def _shade_scale(spectra: Sequence[Spectrum], left: float) -> str:
    names = [(f'class="s{shade}"', name) for shade, name in enumerate(name_shades(spectra)) if name]
    ticks = [((i + 0.5) / len(names), name) for i, (_, name) in enumerate(names)]
    colours = [colour for colour, _ in names]
    return draw_scale_bar((left, 4), _SWATCH * len(names), colours, ticks, caption="layer")


def draw_errors(rows: Sequence[tuple[str, float, float]], *, label: str) -> Drawing:
    """Two errors for every layer: (layer, the best that its width allows, the student's own)."""
    pitch = _pitch(len(rows))
    known = [value for _, *values in rows for value in values if math.isfinite(value)]
    highest = max([*known, 1e-6])
    each = step(highest)
    count = math.ceil(highest / each - 1e-9)
    frame = _Frame(52, 14, 52 + pitch * len(rows), 194, 0, len(rows), 0, each * count)
    lines = [(n * each, f"{n * each:.6g}") for n in range(count + 1)]
    drawn = [frame.grid(lines)]
    for i, (name, *_) in enumerate(rows):
        middle = frame.left + (i + 0.5) * pitch
        drawn.append(f'<text class="name" x="{middle}" y="{frame.floor + 14}">{escape(name)}</text>')
    for kind in (0, 1):
        found = [(i, name, values[kind]) for i, (name, *values) in enumerate(rows) if math.isfinite(values[kind])]
        places = [(frame.x(i + 0.5), frame.y(value)) for i, _, value in found]
        drawn.append(f'<polyline class="e{kind}" points="{_points(places)}"/>')
        for (x, y), (_, name, value) in zip(places, found, strict=True):
            title = escape(f"layer {name}: {value:.4f}, {ERRORS[kind]}")
            drawn.append(f'<circle class="e{kind}" cx="{x}" cy="{y}" r="3"><title>{title}</title></circle>')
    return _drawing("errors", label, frame, frame.right + 4, lines, drawn)


def draw_tradeoff(
    students: Sequence[Point], others: Sequence[Point], levels: Sequence[tuple[str, float]], *, label: str
) -> str:
    """PSNR against multiply-adds, and against memory, and all numbers under it: an SVG file that needs no style sheet.

    others   networks to compare with, the teacher say;   levels   PSNR without a cost, bicubic say
    """
    every = [*students, *others]
    scores = [p.psnr for p in every] + [value for _, value in levels]
    finite = [value for value in scores if math.isfinite(value)] or [0.0]
    low, high = math.floor(min(finite) - 0.2), math.ceil(max(finite) + 0.2)
    panels = (
        ("multiply-adds, 10⁹", [p.macs / 1e9 for p in students], [p.macs / 1e9 for p in others]),
        ("feature maps, MiB", [p.memory / 2**20 for p in students], [p.memory / 2**20 for p in others]),
    )
    drawn = []
    for i, (name, here, there) in enumerate(panels):
        left = 56 + 430 * i
        most = max([*here, *there, 1e-6])
        each = step(most)
        frame = _Frame(left, 58, left + 350, 320, 0, each * math.ceil(most / each), low, high)
        drawn.append(_panel(frame, name, each, students, here))
        drawn += [_mark(frame, x, p, "#b8452f") for x, p in zip(there, others, strict=True) if math.isfinite(p.psnr)]
        for text, value in levels:
            if math.isfinite(value):
                y = frame.y(value)
                drawn.append(f'<path d="M{left} {y}H{frame.right}" stroke="#5b6168" stroke-dasharray="4 3"/>')
                drawn.append(f'<text x="{frame.right}" y="{y - 4}" text-anchor="end">{escape(text)}</text>')
    rows = [(p.label, f"{p.psnr:.2f}", f"{p.macs / 1e9:,.2f}", f"{p.memory / 2**20:,.1f}") for p in every]
    rows += [(text, f"{value:.2f}", "", "") for text, value in levels]
    known = [row for row, value in zip(rows, scores, strict=True) if math.isfinite(value)]
    drawn.append(_table(("", "PSNR, dB", *(name for name, _, _ in panels)), known, top=392))
    height = 392 + _LINE * (len(known) + 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="880" height="{height}" viewBox="0 0 880 {height}" fill="none" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(label)}</title>'
        f'<rect width="880" height="{height}" fill="#fdfdfc"/><g fill="#1d1f21">'
        f'<text x="56" y="22" font-size="13" font-weight="600">{escape(label)}</text>{"".join(drawn)}</g></svg>\n'
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, top: float) -> str:
    """Lines of text under the panels: a name on the left, then numbers, right-aligned under their heads."""
    ends = (406, 540, 674)

    def line(cells: Sequence[str], y: float, colour: str) -> str:
        numbers = (
            f'<tspan x="{x}" text-anchor="end">{escape(text)}</tspan>'
            for x, text in zip(ends, cells[1:], strict=True)
            if text
        )
        name = f'<tspan x="56">{escape(cells[0])}</tspan>' if cells[0] else ""
        return f'<text y="{y}" fill="{colour}">{name}{"".join(numbers)}</text>'

    lines = [line(row, top + _LINE * i, "#1d1f21") for i, row in enumerate(rows, 1)]
    return line(heads, top, "#5b6168") + "".join(lines)


def draw_matrix(values: Sequence[Sequence[float]], *, rows: str, columns: str, label: str) -> str:
    """Ratios 0..1 as shades, row 1 and column 1 in the lower left corner: an SVG file that needs no style sheet.

    Up to 20 rows and columns every cell holds its number.
    """
    longest = max(len(values), len(values[0]))
    told = longest <= 20
    cell = _CELL if told else max(8, 880 // longest)
    wide, tall = cell * len(values[0]), cell * len(values)
    left, top = 56, 42 + SCALE_HEIGHT
    every = 1 if cell >= 20 else 5
    drawn = []
    for i, row in enumerate(values):
        y = top + tall - (i + 1) * cell
        for j, value in enumerate(row):
            drawn.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell}" height="{cell}" fill="{_shade(value)}">'
                f"<title>layers {i + 1} and {j + 1}: {value:.4f}</title></rect>"
            )
            if told:
                ink = ' fill="#fff"' if value > 0.8 else ""
                place = f'x="{left + (j + 0.5) * cell}" y="{y + cell / 2 + 4}"'
                drawn.append(f'<text {place} text-anchor="middle"{ink}>{value:.4f}</text>')
        if (i + 1) % every == 0 or i == 0:
            drawn.append(f'<text x="{left - 6}" y="{y + cell / 2 + 4}" text-anchor="end">{i + 1}</text>')
    for j in (j for j in range(len(values[0])) if (j + 1) % every == 0 or j == 0):
        drawn.append(f'<text x="{left + (j + 0.5) * cell}" y="{top + tall + 14}" text-anchor="middle">{j + 1}</text>')
    note = "" if told else "The number of every cell: memsrc similarity --csv FILE"
    width, height = max(left + wide + 24, 400), top + tall + (44 if told else 62)
    scale = draw_scale_bar(
        (left, 34),
        240,
        [f'fill="{_shade((i + 0.5) / 60)}"' for i in range(60)],
        [(n / 4, f"{n / 4:g}") for n in range(5)],
        caption=f"{label}, a ratio without unit",
    )
    turned = f"rotate(-90 16 {top + tall / 2})"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(label)}</title>'
        f'<rect width="{width}" height="{height}" fill="#fdfdfc"/><g fill="#1d1f21">'
        f'<text x="{left}" y="22" font-size="13" font-weight="600">{escape(label)}</text>'
        f'{scale}<text x="{left}" y="{height - 10}" fill="#5b6168">{note}</text>'
        f'<text x="{left + wide / 2}" y="{top + tall + 34}" text-anchor="middle">layers of {escape(columns)}</text>'
        f'<text x="16" y="{top + tall / 2}" text-anchor="middle" transform="{turned}">layers of {escape(rows)}</text>'
        f"{''.join(drawn)}</g></svg>\n"
    )


def _shade(ratio: float) -> str:
    """Colour of a ratio: white for 0, dark blue for 1, and most of the change near 1."""
    red, green, blue = (round(253 + (dark - 253) * ratio**2) for dark in (18, 58, 110))
    return f"rgb({red},{green},{blue})"


def _panel(frame: _Frame, name: str, each: float, students: Sequence[Point], costs: Sequence[float]) -> str:
    drawn = []
    lines = step(frame.y1 - frame.y0)
    for n in range(math.ceil(frame.y0 / lines), math.floor(frame.y1 / lines) + 1):
        y = frame.y(n * lines)
        drawn.append(f'<path d="M{frame.left} {y}H{frame.right}" stroke="#dcdedf"/>')
        drawn.append(f'<text x="{frame.left - 6}" y="{y + 4}" text-anchor="end">{n * lines:.6g}</text>')
    for n in range(round(frame.x1 / each) + 1):
        x = frame.x(n * each)
        drawn.append(f'<text x="{x}" y="{frame.floor + 16}" text-anchor="middle">{n * each:.6g}</text>')
    middle = (frame.left + frame.right) / 2
    drawn.append(f'<text x="{middle}" y="{frame.floor + 34}" text-anchor="middle">{name}</text>')
    drawn.append(f'<text x="{frame.left - 6}" y="{frame.top - 12}" text-anchor="end">dB</text>')
    known = [(x, p) for x, p in zip(costs, students, strict=True) if math.isfinite(p.psnr)]
    along = sorted(known, key=lambda pair: pair[0])
    places = [(frame.x(x), frame.y(p.psnr)) for x, p in along]
    drawn.append(f'<polyline points="{_points(places)}" stroke="#1f5fa8" stroke-width="1.5" fill="none"/>')
    drawn += [_mark(frame, x, p, "#1f5fa8") for x, p in along]
    return "".join(drawn)


def _mark(frame: _Frame, cost: float, point: Point, colour: str) -> str:
    x, y = frame.x(cost), frame.y(point.psnr)
    end = x > frame.right - 60
    at = f'x="{x - 7}" y="{y + 14}" text-anchor="end"' if end else f'x="{x + 6}" y="{y + 14}"'
    return (
        f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"><title>{escape(point.label)}: {point.psnr:.2f} dB</title>'
        f"</circle><text {at}>{escape(point.label)}</text>"
    )


def _pitch(count: int) -> int:
    return max(32, min(72, 1100 // count))


def _relative(values: Sequence[float]) -> list[float]:
    """Logarithms to base 10 of the values by the largest, 0 as the lowest that is ever drawn; [] if all are 0."""
    largest = max(values, default=0.0)
    if not largest > 0:
        return []
    return [math.log10(value / largest) if value > 10.0**-_DECADES * largest else -float(_DECADES) for value in values]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _drawing(
    kind: str, label: str, frame: _Frame, width: float, lines: Sequence[tuple[float, str]], drawn: Sequence[str]
) -> Drawing:
    axis = (frame.left - 2, frame.numbers(lines))
    return Drawing(f"chart {kind}", label, width, frame.floor + 20, "".join(drawn), axis)
