"""torch.fx graphs -> IR, where what the compiler has no word for may stay in the dark as long as it ends as a gate.

A value is then a view of an op, as for the exact reader; or `Dark`, made of the image in a way that no plain network
can follow; or `Bent`, an elementwise function of one op.  A dark value that multiplies a feature map is a gate and
becomes a number a channel; a bent one becomes straight pieces where it is read.  Any other use of dark values keeps
them dark, and a network that returns one is refused for the reason for which the first was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import fx

from memsr_compiler import ir
from memsr_compiler.errors import InvalidGraph, UnsupportedModel
from memsr_compiler.ir.approximation import Replacement, replacement_ops
from memsr_compiler.trace.approximate import growth
from memsr_compiler.trace.builder import Builder, Padded, Resized, Uncropped
from memsr_compiler.trace.fx.asked import Asked
from memsr_compiler.trace.fx.needed import is_inplace, word_of
from memsr_compiler.trace.fx.reader import SHAPES, Cell, Reader, attribute_of, leaves_of
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
_SIZED = "it computes with the height or width of the image, or with a sum over its pixels (where a mean would do)"
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
        product = name in growth.PRODUCTS and all(isinstance(a, fx.Node) for a in node.args)
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
        product = word_of(node) in growth.PRODUCTS and len(node.args) == 2
        if not product or not all(isinstance(a, fx.Node) for a in node.args):
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
                    return self._keep(node, self._darken(DependsOnSize(_SIZED)))  # its mean says nothing at other sizes
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
        factors, sized = ((), False) if of_shape else self._weigh(node)
        dark = replace(dark, pixels=pixels, factors=factors, sized=sized)
        return self._store(node, name, is_inplace(node), dark)

    def _weigh(self, node: fx.Node) -> tuple[growth.Factors, bool]:
        """Factors of a value in the dark that hang on the size, and whether more is made of the size here.

        A mean that is written out divides a sum by it, and a variance takes N / (N - 1) times that.
        """
        numbers = {n: self._numbers_of(n) for n in node.all_input_nodes if self._is_of_image(n)}
        sizes = [n for n, known in numbers.items() if known is not None and len(set(known)) != 1]
        held = {n: self._factors_of(n) for n, known in numbers.items() if known is None}
        sized = any(v.sized for v in self._values(node) if isinstance(v, Dark))
        if not held:
            return (), sized
        if sizes and word_of(node) in growth.ARITHMETIC:
            factors = growth.times(next(iter(held.values())), self._factors(node, sizes[0]))
        else:
            factors = growth.multiply(node, held, self.asked.list_values)
        known = not any(map(math.isnan, factors))
        return (factors if known and not growth.are_one(factors) else ()), sized or not known

    def _is_of_image(self, node: fx.Node) -> bool:
        """Whether a value hangs on the image, be it on its size alone."""
        return any(isinstance(v, Size) or not _is_constant(v) for v in leaves_of([self.env[node].value]))

    def _factors_of(self, node: fx.Node) -> growth.Factors:
        darks = [v for v in leaves_of([self.env[node].value]) if isinstance(v, Dark)]
        return next((dark.factors for dark in darks if dark.factors), growth.ONE)

    def _numbers_of(self, node: fx.Node) -> list[Any] | None:
        """A number at several sizes, none where it is not known there; None for what is no number."""
        value = self.env[node].value
        if not isinstance(value, (Size, Dark)) or (isinstance(value, Dark) and value.pixels):
            return None
        numbers = self.asked.list_values(node)
        return numbers if all(isinstance(number, (int, float)) for number in numbers) else None

    def _factors(self, node: fx.Node, size: fx.Node) -> growth.Factors:
        """Factors that a product with a number has at several sizes."""
        divides = "div" in word_of(node)
        known = self.asked.list_values(size)
        if word_of(node) not in growth.PRODUCTS or (divides and node.args[0] is size) or not known or not all(known):
            return growth.UNKNOWN
        return growth.power(tuple(map(float, known)), -1 if divides else 1)

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


def _is_constant(value: object) -> bool:
    return not isinstance(value, (View, Bent, Dark, Resized, Padded, Uncropped))
