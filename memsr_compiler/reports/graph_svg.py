"""Networks, drawn as boxes and lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memsr_compiler import ir
from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.graph_layout import ACTIVATIONS, find_arcs, place_columns, place_lanes, take_beginning
from memsr_compiler.reports.op_words import abbreviate_op, describe_op, name_operands
from memsr_compiler.reports.text import escape

DRAWN = 2000  # ops; of a longer network only the first are drawn
LABELLED = 400  # ops; in a longer network they are too small for text
KINDS: Mapping[str, tuple[type[ir.Op], ...]] = {
    "convolution": (ir.Conv2d, ir.BlockConv2d, ir.ConvTranspose2d),
    "1×1 or per channel": (ir.Affine,),
    "activation": ACTIVATIONS,
    "sum": (ir.Sum,),
    "concatenation, selection": (ir.Concat, ir.Select),
    "carry": (ir.Carry,),
    "pixel shuffle": (ir.PixelShuffle, ir.PixelUnshuffle),
    "input": (ir.Input,),
}


@dataclass(frozen=True)
class Style:
    """Sizes in pixels: an op's box, from column to column, from lane to lane."""

    box: tuple[int, int]
    column: int
    lane: int
    labelled: bool


LARGE = Style((46, 30), 60, 42, labelled=True)
SMALL = Style((8, 8), 13, 12, labelled=False)


def draw_graph(graph: ir.Graph, *, label: str) -> Drawing:
    """Picture of a network, its ops from left to right; of a very long one the first DRAWN."""
    graph = take_beginning(graph, DRAWN)
    style = LARGE if len(graph.ops) <= LABELLED else SMALL
    column = place_columns(graph)
    lane = place_lanes(graph, column)
    bent = find_arcs(graph, column, lane)
    rise = {(a, b): _choose_rise(column[b] - column[a], lane[b], style) for a, b in bent}
    top = max((rise[edge] for edge in bent if lane[edge[1]] == 0), default=0) + 6
    at = {name: (8 + column[name] * style.column, top + lane[name] * style.lane) for name in column}
    edges = [(i, op.name) for op in graph for i in op.inputs]
    lines = "".join(_draw_line(at[a], at[b], style) for a, b in edges if (a, b) not in bent)
    bows = "".join(_draw_arc(at[a], at[b], rise[a, b], style) for a, b in edges if (a, b) in bent)
    boxes = "".join(_draw_box(graph, op, at[op.name], style) for op in graph)
    width = max(x for x, _ in at.values()) + style.box[0] + 8
    height = max(y for _, y in at.values()) + style.box[1] + 8
    content = f'<path class="edge" d="{lines}"/><path class="edge skip" d="{bows}"/>{boxes}'
    return Drawing("graph", label, width, height, content)


def classify_op(op: ir.Op) -> str:
    """The one of KINDS that an op is drawn as."""
    if isinstance(op, ir.Conv2d) and op.pointwise:
        return "1×1 or per channel"
    return next(name for name, types in KINDS.items() if isinstance(op, types))


def _choose_rise(span: int, lane: int, style: Style) -> int:
    """Pixels that an arc over so many columns rises above its ops: it stays below the lane above, if there is one."""
    return min(3 + span // 2, style.lane - style.box[1] - 2) if lane else min(12 + 4 * span, 90)


def _draw_line(a: tuple[int, int], b: tuple[int, int], style: Style) -> str:
    """A line from op to op: along the source's lane, then across in the last gap before the user."""
    wide, high = style.box
    x, y, user_y = a[0] + wide, a[1] + high // 2, b[1] + high // 2
    gap = style.column - wide
    bend = b[0] - gap
    across = f"C{b[0] - gap // 3} {y} {bend + gap // 3} {user_y} {b[0]} {user_y}" if y != user_y else f"H{b[0]}"
    return f"M{x} {y}H{bend}{across}" if y != user_y and bend > x else f"M{x} {y}{across}"


def _draw_arc(a: tuple[int, int], b: tuple[int, int], rise: int, style: Style) -> str:
    """An arc from the top of one op to the top of another one in the same lane."""
    x, end, y = a[0] + style.box[0] * 2 // 3, b[0] + style.box[0] // 3, a[1]
    corner = min(rise, (end - x) // 2)
    return f"M{x} {y}Q{x} {y - rise} {x + corner} {y - rise}H{end - corner}Q{end} {y - rise} {end} {y}"


def _draw_box(graph: ir.Graph, op: ir.Op, at: tuple[int, int], style: Style) -> str:
    """The box of an op with its tooltip, and where there is room with its name and channels."""
    (x, y), (wide, high) = at, style.box
    number = list(KINDS).index(classify_op(op))
    title = f"<title>{escape(_write_tooltip(graph, op))}</title>"
    box = f'<path class="k{number}" d="M{x} {y}h{wide}v{high}h-{wide}z"'
    if not style.labelled:
        return f"{box}>{title}</path>"
    t = graph.type(op.name)
    width = f"{t.channels}" + (f" ↑{t.scale}" if t.scale > 1 else "")
    middle = x + wide // 2
    return (
        f"<g>{title}{box}/>"
        f'<text x="{middle}" y="{y + 13}">{abbreviate_op(op)}</text><text x="{middle}" y="{y + 25}">{width}</text></g>'
    )


def _write_tooltip(graph: ir.Graph, op: ir.Op) -> str:
    operands = name_operands(op)
    return "\n".join([op.name, *describe_op(graph, op), *([f"of {operands}"] if operands else [])])
