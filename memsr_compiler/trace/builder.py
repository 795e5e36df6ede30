"""Builds the graph while a network is being read: constants, views and refusals become ops or errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import InvalidGraph, UnsupportedModel
from memsr_compiler.ir import names
from memsr_compiler.trace.views import BATCH, Factor, Size, Unreadable, View, WrongChannels

MAX_SCALE = 16
"""The largest enlargement that is read."""
MAX_KERNEL = 63
"""The largest kernel of a file, dilation included, that is read."""
MAX_CHANNELS = 2**14
"""The most channels of a feature map, at the input's resolution, that are read."""
_OF_PARTS = ("getitem", "select", "setitem", "slice", "slice_scatter")
"""Operations that take a part of a feature map, or write into one."""


@dataclass(frozen=True)
class Resized:
    """The network's input enlarged by interpolation, which only its end may use: y = body + resized."""

    mode: str
    factor: int
    body: View | None = None


@dataclass(frozen=True)
class Padded:
    """A feature map with rows of zeros above and below it, and columns left and right, which a convolution is to take.

    As TensorFlow's converters write the padding of a convolution, and code with `ZeroPad2d`.
    """

    inner: View
    rows: int
    columns: int


@dataclass(frozen=True, eq=False)
class Uncropped:
    """The result of a transposed convolution with rows and columns too many, which slices are to take off.

    make      builds the convolution whose first pixel is in this row and column of what it makes
    sizes     height and width without what is too many
    first     row and column of the first pixel that is left by now
    surplus   rows and columns that are still too many
    why       what is said where nothing takes them off
    """

    make: Callable[[tuple[int, int]], View]
    sizes: tuple[Size, Size]
    first: tuple[int, int]
    surplus: tuple[int, int]
    why: str


class Builder:
    """Collects ops.  `where` is the module path being read, for names and messages."""

    def __init__(self, channels: int, low: float, high: float) -> None:
        self.ops: dict[str, ir.Op] = {}
        self.types: dict[str, ir.FeatureMap] = {}
        self.taken: set[str] = set()
        self.features: dict[View, str] = {}
        self.where = ""
        self.last = ""  # the op being read, as the network calls it
        self.leaf = False  # where is a module of one op only: its path is then the op's name
        self.input = self.add(ir.Input(name=self.name("input"), channels=channels, low=low, high=high))

    def require_settled(self, values: Iterable[object], but: type | None = None) -> None:
        """Refuse values with zeros around them, which a convolution alone takes, and with pixels that are too many.

        but   such values that are taken
        """
        for value in values:
            if isinstance(value, Padded) and but is not Padded:
                if self.last in _OF_PARTS:
                    self.refuse(
                        "it takes, or writes into, rows of what has zeros around it, as training branches do, which "
                        "put a bias there (SeqConv3x3 of ECBSR, BNAndPad of DBB)",
                        "merge such branches into one convolution first, by the network's own code, or give the state "
                        "dict, without --arch, where its family is known (ECBSR)",
                    )
                self.refuse(
                    "zeros are put around what it takes, which is read before a convolution only",
                    "give the padding to the convolution that follows",
                )
            if isinstance(value, Uncropped) and but is not Uncropped:
                raise UnsupportedModel(value.why)

    def require_one_image(self, count: int) -> None:
        """Refuse to make so many images of each, unless that is one."""
        if count != 1:
            self.refuse(f"it makes {count} images of each", "export it for a batch of any number")

    # -- ops -------------------------------------------------------------------------------------------------

    def add(self, op: ir.Op) -> View:
        try:
            self.types[op.name] = op.infer(*(self.types[i] for i in op.inputs))
        except InvalidGraph as error:
            kind = WrongChannels if self._has_wrong_channels(op) else UnsupportedModel
            raise kind(str(error)) from None
        made = self.types[op.name]
        self.room(made.scale, MAX_SCALE, "an enlargement")
        self.room(made.channels * made.scale**2, MAX_CHANNELS, "a number of channels, at the input's resolution,")
        self.ops[op.name] = op
        return View.of(op.name, made.channels, made.scale)

    def _has_wrong_channels(self, op: ir.Op) -> bool:
        if isinstance(op, ir.Conv2d):
            return op.weight.shape[1] * op.groups != self.types[op.inputs[0]].channels
        return isinstance(op, ir.ConvTranspose2d) and len(op.weight) != self.types[op.inputs[0]].channels

    def name(self, kind: str) -> str:
        """A new name: the module path, with the op's kind where the module is not that op alone."""
        return self.number_name(self.describe_place(kind))

    def describe_place(self, kind: str) -> str:
        """The same, which other ops may have too."""
        base = self.where if self.leaf and self.where else ".".join(p for p in (self.where, kind) if p)
        return names.escape(base)

    def number_name(self, base: str) -> str:
        """A new name that begins so."""
        name, i = base, 1
        while name in self.taken:
            i += 1
            name = names.number(base, i)
        self.taken.add(name)
        return name

    def graph(self, output: View) -> ir.Graph:
        from memsr_compiler.ir.rewrite import without_unused

        result = self.feature(output)
        return without_unused(ir.Graph(tuple(self.ops.values()), result))

    def channels(self, view: View) -> int:
        return self.types[self.feature(view)].channels

    def scale(self, view: View) -> int:
        return self.types[self.feature(view)].scale

    # -- views -----------------------------------------------------------------------------------------------

    def feature(self, view: View) -> str:
        """The op whose value the view is, as (N, C, H, W); a permutation becomes a Select or a shuffle."""
        if view not in self.features:
            self.features[view] = self._feature(view)
        return self.features[view]

    def _feature(self, view: View) -> str:
        t = self.types[view.op]
        if view.axes == View.of(view.op, t.channels, t.scale).axes:
            return view.op
        if len(view.axes) != 4 or view.axes[0] != (Factor("n", 1, BATCH),):
            self.refuse(
                "its axes are no longer (batch, channels, height, width)", "bring them back before the next layer"
            )
        channels, *space = view.axes[1:]
        if any(f.axis == "n" for axis in view.axes[1:] for f in axis):
            self.refuse("the batch axis is mixed into others", "treat images one by one")
        if all(
            len(axis) == 1 and axis[0].axis == a and axis[0].stride == 1 for axis, a in zip(space, "hw", strict=True)
        ):
            return self._select(view.op, channels)
        if all(
            len(axis) == 2 and axis[0].axis == a and axis[1].axis == "c" for axis, a in zip(space, "hw", strict=True)
        ):
            dy, dx = space[0][1], space[1][1]
            if dy.size == dx.size and isinstance(dy.size, int) and space[0][0].stride == space[1][0].stride == 1:
                mixed = self._select(view.op, (*channels, dy, dx))
                return self.feature(
                    self.add(ir.PixelShuffle(name=self.name("pixel_shuffle"), inputs=(mixed,), factor=dy.size))
                )
        if all(
            len(axis) == 1 and axis[0].axis == a and axis[0].stride > 1 for axis, a in zip(space, "hw", strict=True)
        ):
            return self._unshuffle(view, space[0][0].stride)
        if set(view.axes) == set(View.of(view.op, t.channels, t.scale).axes):
            self.refuse(
                "it works on axes in another order, channels last, say",
                "bring them back to (batch, channels, height, width) before it",
            )
        self.refuse(
            "a reshape or permutation mixes pixels and channels in a way that is no pixel shuffle", "use PixelShuffle"
        )

    def _select(self, op: str, factors: tuple[Factor, ...]) -> str:
        index = torch.zeros(1, dtype=torch.int64)
        for f in factors:
            if f.axis != "c" or not isinstance(f.size, int):
                self.refuse("a reshape puts height or width into the channels", "use PixelUnshuffle")
            index = (index[:, None] + torch.arange(f.size) * f.stride).reshape(-1)
        numbers = tuple(index.tolist())
        if numbers == tuple(range(self.types[op].channels)):
            return op
        return self.feature(self.add(ir.Select(name=self.name("select"), inputs=(op,), index=numbers)))

    def _unshuffle(self, view: View, factor: int) -> str:
        """Height and width split into (cells, factor), the fine parts among the channels."""
        whole = self.pixel_unshuffle(View.of(view.op, self.types[view.op].channels, self.types[view.op].scale), factor)
        stride = {"c": factor * factor, "h": factor, "w": 1}
        order = tuple(Factor("c", f.stride * stride[f.axis], f.size) for f in view.axes[1] if f.axis != "n")
        return self._select(whole.op, order)

    # -- ops that several words of the vocabulary share --------------------------------------------------------

    def pixel_shuffle(self, x: View, factor: int) -> View:
        if self.channels(x) % factor**2:
            self.refuse(
                f"{self.channels(x)} channels make no blocks of {factor} x {factor} pixels",
                f"give it a multiple of {factor**2}",
            )
        return self.add(ir.PixelShuffle(name=self.name("pixel_shuffle"), inputs=(self.feature(x),), factor=factor))

    def pixel_unshuffle(self, x: View, factor: int) -> View:
        if self.scale(x) % factor:
            self.refuse(
                f"it works at 1/{factor} of the input's resolution, and a plain network shifts with every pixel",
                "convert the network from there on, and feed it the unshuffled image",
            )
        return self.add(ir.PixelUnshuffle(name=self.name("pixel_unshuffle"), inputs=(self.feature(x),), factor=factor))

    def crop(self, x: Uncropped, axis: int, first: int, last: int) -> View | Uncropped:
        """Take so many rows, of axis 0, or columns off, before and behind."""
        surplus, begins = list(x.surplus), list(x.first)
        surplus[axis] -= first + last
        begins[axis] += first
        if min(first, last, surplus[axis]) < 0:
            self.refuse(
                f"it cuts {first} and {last} pixels off, where {x.surplus[axis]} are too many",
                "a plain network keeps every pixel; crop outside the network",
            )
        rest = replace(x, first=(begins[0], begins[1]), surplus=(surplus[0], surplus[1]))
        return rest if any(surplus) else x.make(rest.first)

    def enlarge(self, x: View, factor: int) -> View:
        """Nearest-neighbour enlargement: every channel factor**2 times, then a pixel shuffle."""
        if factor == 1:
            return x
        name, index = self.name("nearest"), tuple(c for c in range(self.channels(x)) for _ in range(factor**2))
        repeated = self.add(ir.Select(name=self.number_name(f"{name}.repeat"), inputs=(self.feature(x),), index=index))
        return self.add(ir.PixelShuffle(name=name, inputs=(repeated.op,), factor=factor))

    def affine(self, x: View, scale: Tensor | float, shift: Tensor | float) -> View:
        """scale * x + shift; both a number or one for each channel."""
        width = self.channels(x)
        if bool((torch.as_tensor(scale) == 1).all()) and not bool(torch.as_tensor(shift).any()):
            return x
        pair = [torch.broadcast_to(torch.as_tensor(v, dtype=torch.float64), (width,)).clone() for v in (scale, shift)]
        return self.add(ir.Affine(name=self.name("affine"), inputs=(self.feature(x),), scale=pair[0], shift=pair[1]))

    def per_channel(self, constant: object, x: View) -> Tensor | None:
        """A constant operand as one number for each channel of x; None if it is not one (it varies in space, say)."""
        c = torch.as_tensor(constant, dtype=torch.float64)
        if c.numel() == 1:
            return c.reshape(1)
        if c.dim() == 4 and len(c) == BATCH and bool((c == c[:1]).all()):  # repeated for every image
            c = c[:1]
        width = self.channels(x)
        shape = (1,) * (4 - c.dim()) + tuple(c.shape)
        if c.dim() <= 4 and shape == (1, width, 1, 1):
            return c.reshape(width)
        return None

    # -- refusals ----------------------------------------------------------------------------------------------

    def refuse(self, reason: str, way_out: str) -> NoReturn:
        """The network cannot be made plain: where, what, why, what to do."""
        raise UnsupportedModel(f"{self.where or 'the network'}: {self.last}: {reason}; {way_out}")

    def room(self, count: int, limit: int, what: str) -> None:
        """Refuse what would take too much memory."""
        if count > limit:
            self.refuse(f"{what} of {count} is more than {limit}", "this limit guards memory against damaged files")

    def give_up(self, what: str, kind: type[Unreadable] = Unreadable) -> NoReturn:
        """Raise Unreadable: this way of reading the network does not understand it, another may.

        what   the reason, and the way out
        """
        raise kind(f"{self.where or 'the network'}: {self.last}: {what}", located=True)
