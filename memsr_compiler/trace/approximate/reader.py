"""torch.fx graphs -> IR, where what the compiler has no word for may stay in the dark as long as it ends as a gate.

A value is then a view of an op, as for the exact reader; or `Dark`, made of the image in a way that no plain network
can follow; or `Bent`, an elementwise function of one op.  A dark value that multiplies a feature map is a gate and
becomes a number a channel; a bent one becomes straight pieces where it is read.  Any other use of dark values keeps
them dark, and a network that returns one is refused for the reason for which the first was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import fx

from memsr_compiler import ir
from memsr_compiler.errors import InvalidGraph, UnsupportedModel
from memsr_compiler.ir.approximation import Replacement, replacement_ops
from memsr_compiler.trace.asked import SIDES, Asked
from memsr_compiler.trace.builder import Builder, Padded, Resized, Uncropped
from memsr_compiler.trace.fx_reader import OF_SIZES, SHAPES, Cell, Reader, attribute_of, leaves_of
from memsr_compiler.trace.needed import ALIASES, is_inplace, word_of
from memsr_compiler.trace.views import DependsOnBatch, DependsOnSize, Size, Unreadable, View, WrongChannels

BOUNDED = ("sigmoid", "tanh", "softsign", "erf")  # activations that make a gate of what they bend
CURVES = (
    *BOUNDED, "gelu", "silu", "softplus", "hardswish", "mish", "elu", "selu", "celu", "logsigmoid",
    "log_sigmoid", "tanhshrink", "exp", "square", "pow", "rsqrt", "sqrt", "sin", "cos",
)  # fmt: skip
WRITTEN_OUT = "curve"  # kind of an activation of several operations
_ELEMENTWISE = (
    *CURVES, "add", "sub", "subtract", "rsub", "mul", "multiply", "div", "truediv", "neg", "negative", "relu",
)  # fmt: skip
_PRODUCTS = ("mul", "multiply", "div", "truediv", "divide")
_ARITHMETIC = (*_PRODUCTS, "add", "sub", "subtract", "rsub", "pow")
_SUMS = {
    **dict.fromkeys(("sum", "nansum", "cumsum", "matmul", "bmm", "mm", "einsum"), 1.0),
    **dict.fromkeys(("norm", "vector_norm", "linalg_vector_norm"), 0.5),
}
"""By which power of the number of pixels sums, and roots of sums of squares, grow."""
_POINTWISE = (ir.Affine, ir.Relu, ir.PRelu, ir.Clamp)


@dataclass(frozen=True, eq=False)
class Dark:
    """A value that the compiler does not follow, and the refusal of the first operation on the way to it.

    pixels   whether it may hang on those of the image, not on its size alone
    factors  by which it was multiplied that hang on the size, at several sizes; none where these come to one
    sized    whether more was made of these
    """

    refusal: UnsupportedModel
    pixels: bool = True
    factors: tuple[float, ...] = ()
    sized: bool = False


@dataclass(frozen=True, eq=False)
class Bent:
    """An elementwise function of an op's value, made by a node of the torch.fx graph.

    place     the beginning of its name;   kind   the activation: "silu"
    bounded   whether it lies between bounds, as a gate does
    """

    root: str
    node: fx.Node
    place: str
    kind: str
    bounded: bool
    refusal: UnsupportedModel


@dataclass(frozen=True)
class Place:
    """A place that is approximated, by names of nodes of the torch.fx graph.

    result   what a replacement stands for, as a function of `source`
    gate     what multiplies the source there; "" for an activation
    inverse  whether it divides
    refusal  why it cannot be exact
    """

    name: str
    kind: str
    source: str
    result: str
    refusal: UnsupportedModel
    gate: str = ""
    inverse: bool = False


class ApproximateReader(Reader):
    """Reads a torch.fx graph, and puts replacements where the teacher is approximated.

    numbers   by name; where there are none yet a value passes as it is, and only the places are found
    """

    def __init__(self, module: fx.GraphModule, builder: Builder, numbers: Mapping[str, Replacement]) -> None:
        super().__init__(module, builder, None)
        self.numbers, self.channels = numbers, builder.types[builder.input.op].channels
        self.places: list[Place] = []
        self.sources: dict[str, fx.Node] = {builder.input.op: next(iter(module.graph.nodes))}

    def _output(self, node: fx.Node) -> View | Resized:
        for read in node.all_input_nodes:
            self._settle(read)
            if isinstance(dark := self.env[read].value, Dark):
                raise dark.refusal
        return super()._output(node)

    def _norm(self, node: fx.Node) -> Cell:
        read = node.all_input_nodes[0]
        self._settle(read)
        if isinstance(self.env[read].value, Dark):
            return Cell(self.env[read].value)
        return self._follow(node, super()._norm)

    def _call(self, node: fx.Node) -> Cell:
        bent = [n for n in node.all_input_nodes if isinstance(self.env[n].value, Bent)]
        if bent and (cell := self._bend_on(node)):
            return cell
        if cell := self._gate(node):
            return cell
        for read in bent:
            self._settle(read)
        dark = next((v for v in self._values(node) if isinstance(v, Dark)), None)
        if dark is not None:
            return self._keep(node, dark)
        return self._follow(node, super()._call)

    def _follow(self, node: fx.Node, read: Callable[[fx.Node], Cell]) -> Cell:
        """Read a node exactly, or what may be made of it by approximation."""
        try:
            cell = read(node)
        except (WrongChannels, DependsOnBatch):
            raise
        except UnsupportedModel as refusal:
            return self._bend(node, refusal) or self._gate(node, refusal) or self._keep(node, self._darken(refusal))
        view = cell.value
        if isinstance(view, View) and view.axes == View.of(view.op, *self._type(view.op)).axes:
            self.sources.setdefault(view.op, node)
        return cell

    # -- activations -------------------------------------------------------------------------------------------

    def _bend(self, node: fx.Node, refusal: UnsupportedModel) -> Cell | None:
        """A smooth activation of a feature map, or a product of functions of the same one."""
        name = word_of(node)
        views = [n for n in node.all_input_nodes if isinstance(self.env[n].value, View)]
        if len(views) != len([v for v in self._values(node) if not _is_constant(v)]) or not views:
            return None
        if any(isinstance(v, Size) for v in self._values(node)):
            return None
        product = name in _PRODUCTS and all(isinstance(a, fx.Node) for a in node.args)
        if not product and name not in CURVES:
            return None
        root = self._common([self._root(n) for n in views])
        if root is None:
            return None
        kind = WRITTEN_OUT if product else name
        return self._store(node, name, is_inplace(node), self._bent(root, node, kind, name in BOUNDED, refusal))

    def _bend_on(self, node: fx.Node) -> Cell | None:
        """A bent value, bent on: elementwise, with constants and functions of the same op."""
        name, values = word_of(node), [v for v in self._values(node) if not _is_constant(v)]
        if name not in _ELEMENTWISE or not all(isinstance(v, (View, Bent)) for v in values):
            return None
        if any(isinstance(v, Size) for v in self._values(node)):
            return None
        read = [n for n in node.all_input_nodes if isinstance(self.env[n].value, (View, Bent))]
        root = self._common([self._root(n) for n in read])
        if root is None:
            return None
        first = next(v for v in values if isinstance(v, Bent))
        bounded = name in BOUNDED or (first.bounded and len(read) == 1)
        return self._store(node, name, is_inplace(node), self._bent(root, node, WRITTEN_OUT, bounded, first.refusal))

    def _bent(self, root: str, node: fx.Node, kind: str, bounded: bool, refusal: UnsupportedModel) -> Bent:
        return Bent(root, node, self.builder.describe_place(kind), kind, bounded, refusal)

    def _settle(self, node: fx.Node) -> None:
        """Make straight pieces of a bent value, for all that read it from now on."""
        bent = self.env[node].value
        if isinstance(bent, Bent):
            source, name = self.sources[bent.root], self.builder.number_name(bent.place)
            self.places.append(Place(name, bent.kind, source.name, bent.node.name, bent.refusal))
            self.env[node].value = self._replace(name, bent.kind, bent.root, bent.node)

    # -- gates -------------------------------------------------------------------------------------------------

    def _gate(self, node: fx.Node, refusal: UnsupportedModel | None = None) -> Cell | None:
        """A feature map times, or by, a value that is dark, or bent into bounds.

        refusal   of the product, where it has no other reading: then a clamped feature map is a gate too
        """
        if word_of(node) not in _PRODUCTS or len(node.args) != 2 or not all(isinstance(a, fx.Node) for a in node.args):
            return None
        left, right = node.args
        assert isinstance(left, fx.Node) and isinstance(right, fx.Node), "it has been asked"
        inverse = "div" in word_of(node)
        for x, gate in ((left, right),) if inverse else ((left, right), (right, left)):
            why = self._why_gate(self.env[gate].value, inverse, refusal)
            if why is None:
                continue
            self._settle(x)
            if isinstance(self.env[x].value, View):
                dark = self.env[gate].value
                if isinstance(dark, Dark) and (dark.sized or dark.factors or not dark.pixels):
                    self.builder.give_up(OF_SIZES, DependsOnSize)  # a mean of such says nothing at other sizes
                return self._store(node, word_of(node), is_inplace(node), self._gated(node, x, gate, inverse, why))
        return None

    def _why_gate(
        self, value: object, inverse: bool, refusal: UnsupportedModel | None = None
    ) -> UnsupportedModel | None:
        """The refusal of a value that may be a gate; None of another."""
        if isinstance(value, Dark) or (isinstance(value, Bent) and value.bounded and not inverse):
            return value.refusal
        return refusal if not inverse and isinstance(value, View) and self._is_clamped(value) else None

    def _gated(self, node: fx.Node, x: fx.Node, gate: fx.Node, inverse: bool, refusal: UnsupportedModel) -> View:
        operand = self.builder.feature(self.env[x].value)
        name = self.builder.name("gate")
        self.places.append(Place(name, "gate", x.name, node.name, refusal, gate.name, inverse))
        return self._replace(name, "gate", operand, node)

    def _is_clamped(self, view: View) -> bool:
        """Whether a value lies between bounds, whatever the image: a hard sigmoid, say."""
        made = self.builder.ops[view.op]
        while isinstance(made, ir.Affine):
            made = self.builder.ops[made.inputs[0]]
        return isinstance(made, ir.Clamp) and math.isfinite(made.low) and math.isfinite(made.high)

    # -- the rest ----------------------------------------------------------------------------------------------

    def _replace(self, name: str, kind: str, operand: str, node: fx.Node) -> View:
        """Put a replacement in place of what a node gives."""
        replacement = self.numbers.get(name, Replacement(name, kind, (1.0,)))
        channels = self.builder.types[operand].channels
        try:
            *_, last = [self.builder.add(op) for op in replacement_ops(replacement, operand, channels)]
        except ValueError as error:
            raise InvalidGraph(str(error)) from None
        self.sources[last.op] = node
        return last

    def _keep(self, node: fx.Node, dark: Dark) -> Cell:
        """A value in the dark, in place of what it was made of where that was changed in place."""
        name = word_of(node)
        of_shape = name in SHAPES or name.endswith("_like") or name.startswith("new_")
        pixels = not of_shape and any(map(self._hangs_on_pixels, self._values(node)))
        factors, sized = self._weigh(node) if pixels else ((), False)
        dark = replace(dark, pixels=pixels, factors=factors, sized=sized)
        return self._store(node, name, is_inplace(node), dark)

    def _weigh(self, node: fx.Node) -> tuple[tuple[float, ...], bool]:
        """Factors of a value in the dark that hang on the size, and whether more is made of the size here.

        A mean that is written out divides a sum by it, and a variance takes N / (N - 1) times that.
        """
        name = word_of(node)
        pixels = [n for n in node.all_input_nodes if any(map(self._hangs_on_pixels, leaves_of([self.env[n].value])))]
        darks = [v for v in self._values(node) if isinstance(v, Dark) and v.pixels]
        sized = any(dark.sized for dark in darks)
        before = next((dark.factors for dark in darks if dark.factors), ())
        sizes = [n for n in node.all_input_nodes if n not in pixels and self._hangs_on_size(n)]
        if name in _ARITHMETIC and sizes:
            factors = self._factors(node, pixels[0], sizes[0])
            after = tuple(a * b for a, b in zip(before or (1.0,) * len(factors), factors, strict=True))
            return (() if _is_one(after, self._growth(pixels[0])) else after), sized
        if name in ALIASES or (name in _PRODUCTS and len(pixels) == 1):
            return before, sized
        return (), sized or bool(before)

    def _hangs_on_size(self, node: fx.Node) -> bool:
        """Whether a value that hangs on no pixel differs from size to size; of a tensor, whether it is a sum."""
        if not isinstance(self.env[node].value, (Size, Dark)):
            return False
        numbers = self.asked.list_values(node)
        if all(isinstance(number, (int, float)) for number in numbers):
            return len(set(numbers)) != 1
        return bool(self._growth(node))

    def _factors(self, node: fx.Node, pixels: fx.Node, size: fx.Node) -> tuple[float, ...]:
        """Factors that a product has at several sizes, or NaN where it is none that is known."""
        divides = "div" in word_of(node)
        if word_of(node) not in _PRODUCTS or (divides and node.args[0] is not pixels):
            return (math.nan,) * len(SIDES)
        known = self.asked.list_values(size)
        if known and all(isinstance(number, (int, float)) and number for number in known):
            return tuple(1 / number if divides else float(number) for number in known)
        of_ones = divides and self._growth(pixels) == 1
        return tuple(1 / (h * w) if of_ones else math.nan for h, w in SIDES)

    def _growth(self, node: fx.Node) -> float:
        """The power of the number of pixels by which a value grows that is made of a sum, or of a norm, by arithmetic
        alone; 0 of others."""
        left, met = [node], {node}
        while left:
            made = left.pop()
            if word_of(made) in _SUMS:
                return _SUMS[word_of(made)]
            if word_of(made) in _ARITHMETIC or word_of(made) in ALIASES:
                left += [n for n in made.all_input_nodes if n not in met]
                met.update(made.all_input_nodes)
        return 0.0

    @cached_property
    def asked(self) -> Asked:
        return Asked(self.module.graph, self.channels, torch.float64, lambda path: attribute_of(self.module, path))

    def _hangs_on_pixels(self, value: object) -> bool:
        """Whether a value may hang on what the image shows; that of `torch.ones_like` does not."""
        if isinstance(value, Dark):
            return value.pixels
        if not isinstance(value, View):
            return not _is_constant(value)
        left, met = [value.op], {value.op}
        while left:
            made = self.builder.ops[left.pop()]
            if isinstance(made, ir.Input):
                return True
            if not (isinstance(made, ir.Affine) and not bool(made.scale.any())):
                left += [name for name in made.inputs if name not in met]
                met.update(made.inputs)
        return False

    def _darken(self, refusal: UnsupportedModel) -> Dark:
        """A value in the dark for this reason, which says where."""
        try:
            if isinstance(refusal, Unreadable):
                self._locate(refusal)
        except UnsupportedModel as located:
            refusal = located
        return Dark(refusal)

    def _values(self, node: fx.Node) -> list[Any]:
        return list(leaves_of(self.env[n].value for n in node.all_input_nodes))

    def _root(self, node: fx.Node) -> str:
        """The op of which a node's value is an elementwise function."""
        value = self.env[node].value
        if isinstance(value, Bent):
            return value.root
        op = self.builder.feature(value)
        self.sources.setdefault(op, node)
        return op

    def _common(self, roots: list[str]) -> str | None:
        """The nearest op of which all these are elementwise functions."""
        chains = [self._chain(root) for root in roots]
        return next((op for op in chains[0] if op in self.sources and all(op in chain for chain in chains)), None)

    def _chain(self, op: str) -> list[str]:
        chain = [op]
        while isinstance(made := self.builder.ops[chain[-1]], _POINTWISE):
            chain.append(made.inputs[0])
        return chain

    def _type(self, op: str) -> tuple[int, int]:
        t = self.builder.types[op]
        return t.channels, t.scale


def _is_one(factors: Sequence[float], growth: float) -> bool:
    """Whether factors are the same at all sizes but the smallest; of what grows with these, whether they undo that."""
    shares = [tuple(factors)]
    if growth:
        pairs = list(zip(factors, SIDES, strict=True))
        shares += [tuple(f * h**growth for f, (h, _) in pairs), tuple(f * w**growth for f, (_, w) in pairs)]
        shares += [tuple(f * (h * w) ** growth for f, (h, w) in pairs)]
    return any(math.isclose(min(share), max(share), rel_tol=_FEW_PIXELS) for share in shares)


_FEW_PIXELS = 1e-3  # by so much N / (N - 1) is off 1 at the smallest of the sizes


def _is_constant(value: object) -> bool:
    return not isinstance(value, (View, Bent, Dark, Resized, Padded, Uncropped))
