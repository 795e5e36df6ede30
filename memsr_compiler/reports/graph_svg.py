"""Networks, and the widths of a plain one, as SVG text for an HTML page whose style sheet is report.css.

A network is drawn from left to right.  Whatever ends a layer (a ReLU, or the carry that becomes one) stands in one
column with the others that end it; a skip that cannot go straight is an arc.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from memsr_compiler import ir
from memsr_compiler.reports.charts import tick
from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.text import escape

DRAWN = 2000  # ops; of a longer network only the first are drawn
LABELLED = 400  # ops; in a longer network they are too small for text
ACTIVATIONS = (ir.Relu, ir.PRelu, ir.Clamp, ir.Maximum)
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
HOLDS = (
    "image, or between stages",
    "ReLU output",
    "carried free",
    "carried split",
    "carried shifted",
    "constant 1",
    "padding",
)


@dataclass(frozen=True)
class Style:
    """Sizes in pixels: an op's box, from column to column, from lane to lane."""

    box: tuple[int, int]
    column: int
    lane: int
    labelled: bool


LARGE = Style((46, 30), 60, 42, labelled=True)
SMALL = Style((8, 8), 13, 12, labelled=False)


@dataclass(frozen=True)
class Bar:
    """One level of a plain network: (what its channels hold, how many, of which tensors) from below."""

    label: str
    parts: tuple[tuple[str, int, str], ...]

    @property
    def width(self) -> int:
        return sum(channels for _, channels, _ in self.parts)


def draw_graph(graph: ir.Graph, *, label: str) -> Drawing:
    """The network, from left to right."""
    graph = beginning(graph, DRAWN)
    style = LARGE if len(graph.ops) <= LABELLED else SMALL
    column = columns(graph)
    lane = lanes(graph, column)
    bent = arcs(graph, column, lane)
    rise = {(a, b): _rise(column[b] - column[a], lane[b], style) for a, b in bent}
    top = max((rise[edge] for edge in bent if lane[edge[1]] == 0), default=0) + 6
    at = {name: (8 + column[name] * style.column, top + lane[name] * style.lane) for name in column}
    edges = [(i, op.name) for op in graph for i in op.inputs]
    lines = "".join(_line(at[a], at[b], style) for a, b in edges if (a, b) not in bent)
    bows = "".join(_arc(at[a], at[b], rise[a, b], style) for a, b in edges if (a, b) in bent)
    boxes = "".join(_box(graph, op, at[op.name], style) for op in graph)
    width = max(x for x, _ in at.values()) + style.box[0] + 8
    height = max(y for _, y in at.values()) + style.box[1] + 8
    content = f'<path class="edge" d="{lines}"/><path class="edge skip" d="{bows}"/>{boxes}'
    return Drawing("graph", label, width, height, content)


def beginning(graph: ir.Graph, count: int) -> ir.Graph:
    """Its first `count` ops, operands before users as ever."""
    if len(graph.ops) <= count:
        return graph
    return ir.Graph(graph.ops[:count], graph.ops[count - 1].name)


def columns(graph: ir.Graph) -> dict[str, int]:
    """Column of every op, right of its operands; all that end the same layer stand in one column."""
    layer: dict[str, int] = {}
    depth: dict[str, int] = {}
    deepest: dict[int, int] = {}
    for op in graph:
        here = max((layer[i] for i in op.inputs), default=0) + isinstance(op, (*ACTIVATIONS, ir.Carry))
        layer[op.name] = here
        depth[op.name] = max((depth[i] + 1 for i in op.inputs if layer[i] == here), default=0)
        deepest[here] = max(deepest.get(here, 0), depth[op.name])
    start = {n: sum(deepest[m] + 1 for m in range(n)) for n in deepest}
    return {name: start[layer[name]] + depth[name] for name in layer}


def lanes(graph: ir.Graph, column: Mapping[str, int]) -> dict[str, int]:
    """Lane of every op: that of an operand where nothing is in the way, else the nearest free one.

    In a column the longest way through the network chooses first, so that it stays in the uppermost lane.
    """
    taken: set[tuple[int, int]] = set()
    lane: dict[str, int] = {}
    through = _through(graph)
    for op in sorted(graph, key=lambda op: (column[op.name], -through[op.name])):
        here = column[op.name]
        ways: list[tuple[int, range]] = [
            (lane[i], range(column[i] + 1, here + 1)) for i in sorted(op.inputs, key=lambda i: (-column[i], lane[i]))
        ]
        origin = ways[0][0] if ways else 0
        others = sorted(range(len(taken) + 1), key=lambda n: (abs(n - origin), n))
        ways += [(n, range(here, here + 1)) for n in others]
        chosen, way = next((n, way) for n, way in ways if all((c, n) not in taken for c in way))
        taken |= {(c, chosen) for c in way}
        lane[op.name] = chosen
    return lane


def _through(graph: ir.Graph) -> dict[str, int]:
    """Ops on the longest way from the input to any end through each op."""
    ahead: dict[str, int] = {}
    for op in reversed(graph.ops):
        ahead[op.name] = 1 + max((ahead[user.name] for user in graph.users(op.name)), default=0)
    behind: dict[str, int] = {}
    for op in graph:
        behind[op.name] = 1 + max((behind[i] for i in op.inputs), default=0)
    return {name: ahead[name] + behind[name] for name in ahead}


def arcs(graph: ir.Graph, column: Mapping[str, int], lane: Mapping[str, int]) -> set[tuple[str, str]]:
    """(operand, user) in one lane with other ops between them."""
    full = {(column[name], lane[name]) for name in column}
    edges = ((i, op.name) for op in graph for i in op.inputs if lane[i] == lane[op.name])
    return {(a, b) for a, b in edges if any((c, lane[a]) in full for c in range(column[a] + 1, column[b]))}


def draw_widths(bars: Sequence[Bar], *, label: str) -> Drawing:
    """Stacked bars, one a level."""
    pitch = max(32, min(72, 1100 // len(bars)))
    left, top, tall = 36, 18, 200
    step = tick(max(bar.width for bar in bars))
    highest = step * math.ceil(max(bar.width for bar in bars) / step)
    floor = top + tall
    right = left + pitch * len(bars)

    def y(channels: float) -> float:
        return round(floor - tall * channels / highest, 1)

    lines = range(0, highest + 1, step)
    axis = "".join(f'<text class="tick" x="{left - 6}" y="{y(n) + 4}">{n}</text>' for n in lines)
    drawn = [*(f'<path class="grid" d="M{left} {y(n)}H{right}"/>' for n in lines), axis]
    for i, bar in enumerate(bars):
        x, below = left + i * pitch + 3, 0
        for kind, channels, tensors in bar.parts:
            size = round(y(below) - y(below + channels), 1)
            title = escape(f"{bar.label}: {channels} channels, {kind}" + (f"\n{tensors}" if tensors else ""))
            place = f'x="{x}" y="{y(below + channels)}" width="{pitch - 6}" height="{size}"'
            drawn.append(f'<rect class="h{HOLDS.index(kind)}" {place}><title>{title}</title></rect>')
            below += channels
        middle = x + (pitch - 6) / 2
        drawn.append(f'<text x="{middle}" y="{y(below) - 4}">{bar.width}</text>')
        drawn.append(f'<text class="name" x="{middle}" y="{floor + 15}">{escape(bar.label.split()[-1])}</text>')
    return Drawing("widths", label, right + 4, floor + 20, "".join(drawn), (left - 2, axis))


def kind(op: ir.Op) -> str:
    """Which of KINDS an op is drawn as."""
    if isinstance(op, ir.Conv2d) and op.pointwise:
        return "1×1 or per channel"
    return next(name for name, types in KINDS.items() if isinstance(op, types))


def _rise(span: int, lane: int, style: Style) -> int:
    """How far above its ops an arc over that many columns goes, in pixels: below the lane above, if there is one."""
    return min(3 + span // 2, style.lane - style.box[1] - 2) if lane else min(12 + 4 * span, 90)


def _line(a: tuple[int, int], b: tuple[int, int], style: Style) -> str:
    """From op to op: along the source's lane, then across in the last gap before the user."""
    wide, high = style.box
    x, y, user_y = a[0] + wide, a[1] + high // 2, b[1] + high // 2
    gap = style.column - wide
    bend = b[0] - gap
    across = f"C{b[0] - gap // 3} {y} {bend + gap // 3} {user_y} {b[0]} {user_y}" if y != user_y else f"H{b[0]}"
    return f"M{x} {y}H{bend}{across}" if y != user_y and bend > x else f"M{x} {y}{across}"


def _arc(a: tuple[int, int], b: tuple[int, int], rise: int, style: Style) -> str:
    """From the top of one op to the top of another one in the same lane."""
    x, end, y = a[0] + style.box[0] * 2 // 3, b[0] + style.box[0] // 3, a[1]
    corner = min(rise, (end - x) // 2)
    return f"M{x} {y}Q{x} {y - rise} {x + corner} {y - rise}H{end - corner}Q{end} {y - rise} {end} {y}"


def _box(graph: ir.Graph, op: ir.Op, at: tuple[int, int], style: Style) -> str:
    (x, y), (wide, high) = at, style.box
    number = list(KINDS).index(kind(op))
    title = f"<title>{escape(_title(graph, op))}</title>"
    box = f'<path class="k{number}" d="M{x} {y}h{wide}v{high}h-{wide}z"'
    if not style.labelled:
        return f"{box}>{title}</path>"
    t = graph.type(op.name)
    width = f"{t.channels}" + (f" ↑{t.scale}" if t.scale > 1 else "")
    middle = x + wide // 2
    return (
        f"<g>{title}{box}/>"
        f'<text x="{middle}" y="{y + 13}">{_short(op)}</text><text x="{middle}" y="{y + 25}">{width}</text></g>'
    )


def _short(op: ir.Op) -> str:
    """What fits into a box."""
    if isinstance(op, ir.Conv2d):
        k = op.weight.shape[-1]
        return f"{k}×{k}" + (f"/{op.groups}" if op.groups > 1 else "")
    if isinstance(op, ir.BlockConv2d):
        return f"{op.kernel_size}×{op.kernel_size}"
    if isinstance(op, (ir.PixelShuffle, ir.PixelUnshuffle)):
        return f"{'↑' if isinstance(op, ir.PixelShuffle) else '↓'}{op.factor}"
    words: dict[type[ir.Op], str] = {
        ir.ConvTranspose2d: "up",
        ir.Affine: "a·x+b",
        ir.Sum: "+",
        ir.Concat: "cat",
        ir.Select: "pick",
        ir.Relu: "ReLU",
        ir.PRelu: "PReLU",
        ir.Maximum: "max",
        ir.Input: "in",
    }
    return words.get(type(op), type(op).__name__.lower())


def _title(graph: ir.Graph, op: ir.Op) -> str:
    operands = name_operands(op)
    return "\n".join([op.name, *describe_op(graph, op), *([f"of {operands}"] if operands else [])])


def name_operands(op: ir.Op) -> str:
    """The first six tensors that an op reads, and how many more."""
    more = f" and {len(op.inputs) - 6} more" if len(op.inputs) > 6 else ""
    return f"{', '.join(op.inputs[:6])}{more}"


def describe_op(graph: ir.Graph, op: ir.Op) -> list[str]:
    """Lines on an op: its type, channels and size; then its kernel, or what the channels of a ReLU mean."""
    t = graph.type(op.name)
    where = f" at {t.scale} times the input's size" if t.scale > 1 else ""
    return [f"{type(op).__name__}, {t.channels} channels{where}", *_details(op)]


def _details(op: ir.Op) -> Iterator[str]:
    if isinstance(op, ir.Conv2d):
        extra = [f"{name} {n}" for name, n in (("groups", op.groups), ("dilation", op.dilation)) if n > 1]
        yield ", ".join([f"kernel {'×'.join(map(str, op.weight.shape))}", *extra])
    elif isinstance(op, ir.BlockConv2d):
        k = op.kernel_size
        yield f"kernel {len(op.bias)}×{op.channels_in}×{k}×{k} in {len(op.blocks)} blocks"
    elif isinstance(op, ir.ConvTranspose2d):
        yield f"kernel {'×'.join(map(str, op.weight.shape))}, stride {op.stride}"
    elif isinstance(op, ir.Relu):
        yield from (f"{m.kind} {m.tensor} ({len(m.positions)})".replace("  ", " ") for m in op.meaning)
