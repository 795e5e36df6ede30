"""Questions of a model's code about the axes of its tensors, answered for images of one number of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from memsr_compiler.torch_helpers import InFloat64
from memsr_compiler.trace.own_code.read_off import KnownNumbers, no_pixels, without_reports

SIDES = ((48, 64), (96, 160), (49_152, 81_920))  # whose common multiples windows and steps divide
_ODD = ((2, 3), (61, 83))  # which they need not divide: code may fail there
_COMPARISONS = (
    "eq", "ne", "lt", "le", "gt", "ge", "mod", "floordiv", "is_", "is_not", "not_", "and_", "or_",
)  # fmt: skip


class Asked:
    """Values of a graph that is being made, at some sizes of image: what is one number at all hangs on no size.

    No pixel is computed.
    fetch   the tensor that a get_attr node reads
    """

    def __init__(self, graph: fx.Graph, channels: int, dtype: torch.dtype, fetch: Callable[[str], Any]) -> None:
        self.graph, self.fetch = graph, fetch
        self.images = [(1, channels, *sides) for sides in (*SIDES, *_ODD)]
        self.dtype = dtype
        self.known: tuple[dict[fx.Node, Any], ...] = tuple({} for _ in self.images)

    def answer(self, node: fx.Node) -> bool | None:
        """The answer to a question about numbers of axes and channels; None where it is not one, for all images."""
        if not self._is_known(node):
            return None
        if any(self.number(n) is None for n in _numbers_in(node)):
            return None
        return bool(self.known[0][node])

    def number(self, node: fx.Node) -> int | None:
        """The length of an axis that hangs on no size; None of other values."""
        value = self.told(node)
        return value if isinstance(value, int) else None

    def told(self, node: fx.Node) -> int | torch.dtype | torch.device | None:
        """The same, and the type or the device of a tensor."""
        if not self._is_known(node):
            return None
        first, *others = (known[node] for known in self.known if node in known)
        usual = type(first) in (int, torch.dtype, torch.device) and all(other == first for other in others)
        return first if usual else None

    def list_values(self, node: fx.Node) -> list[Any]:
        """A value for images of `SIDES`; none where it is not known."""
        return [known[node] for known in self.known[: len(SIDES)]] if self._is_known(node) else []

    def count(self, node: fx.Node) -> int | None:
        """The number of sides of a shape, or of a part of one; None where it is none."""
        if not self._is_known(node):
            return None
        value = self.known[0][node]
        return len(value) if isinstance(value, torch.Size) else None

    def kind(self, node: fx.Node) -> type | None:
        """The type of a value, Tensor for all kinds of these; None where it is not known, or hangs on the size."""
        if not self._is_known(node):
            return None
        values = (known[node] for known in self.known)
        kinds = {torch.Tensor if isinstance(value, torch.Tensor) else type(value) for value in values}
        return kinds.pop() if len(kinds) == 1 else None

    def is_tensor(self, node: fx.Node) -> bool:
        """Whether a value is known to be a tensor, no number and no shape."""
        return self._is_known(node) and isinstance(self.known[0][node], torch.Tensor)

    def _is_known(self, node: fx.Node) -> bool:
        for number, (image, known) in enumerate(zip(self.images, self.known, strict=True)):
            try:
                self._run_to(node, image, known)
            except Exception:  # whatever torch raises of code that has not been followed yet
                if number < len(SIDES):
                    return False
        return True

    def _run_to(self, node: fx.Node, image: tuple[int, ...], known: dict[fx.Node, Any]) -> None:
        with torch.no_grad(), InFloat64(), no_pixels(), KnownNumbers(), without_reports():
            for other in self.graph.nodes:
                if other not in known:
                    known[other] = self._run(other, image, known)
                if other is node:
                    return

    def _run(self, node: fx.Node, image: tuple[int, ...], known: dict[fx.Node, Any]) -> Any:
        if node.op == "placeholder":
            return torch.empty(image, dtype=self.dtype)
        if node.op == "get_attr":
            return self.fetch(str(node.target))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        if node.op == "call_module":  # a norm, all that the tracer leaves whole
            return next(iter((*args, *kwargs.values())))
        if callable(node.target):
            return node.target(*args, **kwargs)
        return getattr(args[0], node.target)(*args[1:], **kwargs)


def asks_no_size(node: fx.Node) -> bool:
    """Whether a value hangs on no height, width, or pixel: `x.dim() == 3`, `x.shape[1] != 3`, `x.dtype`."""
    name = getattr(node.target, "__name__", node.target)
    if name == "getattr" and node.args[1] == "type":
        return isinstance(home := node.args[0], fx.Node) and home.target is getattr and home.args[1] == "device"
    if name == "getattr":
        return node.args[1] in ("ndim", "dtype", "device", "is_cuda", "requires_grad", "training")
    if node.op == "call_method" and name in ("dim", "ndimension", "is_floating_point", "get_device", "size"):
        return name != "size" or axis_of(node) in (1, -3)
    if name == "getitem":
        return axis_of(node) in (1, -3)
    return name in _COMPARISONS and bool(node.all_input_nodes) and all(map(asks_no_size, node.all_input_nodes))


def asks_how_many(node: fx.Node) -> bool:
    """Whether a value hangs on the number of images alone: `x.shape[0] > 4`."""
    name = getattr(node.target, "__name__", node.target)
    if name in ("size", "getitem"):
        return axis_of(node) in (0, -4)
    return name in _COMPARISONS and bool(node.all_input_nodes) and all(map(asks_how_many, node.all_input_nodes))


def axis_of(node: fx.Node) -> Any:
    """The axis of which a value is the length, `x.size(dim=1)`, `x.shape[1]`; None of other values."""
    name = getattr(node.target, "__name__", node.target)
    if name == "getitem":
        return node.args[1] if _is_shape(node.args[0]) else None
    return (*node.args[1:], node.kwargs.get("dim"))[0] if name == "size" else None


def _is_shape(value: Any) -> bool:
    """Whether a value is the shape of a tensor."""
    name = getattr(value.target, "__name__", value.target) if isinstance(value, fx.Node) else ""
    return name == "size" or (name == "getattr" and value.args[1] == "shape")


def _numbers_in(node: fx.Node) -> Iterator[fx.Node]:
    """The numbers that a question compares."""
    if getattr(node.target, "__name__", node.target) not in _COMPARISONS:
        yield node
        return
    for read in node.all_input_nodes:
        yield from _numbers_in(read)
