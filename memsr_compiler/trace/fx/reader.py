"""torch.fx graphs -> IR, whichever tracer made them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from memsr_compiler.errors import UnsupportedModel, first_line
from memsr_compiler.quantities import say_count
from memsr_compiler.torch_helpers import InFloat64
from memsr_compiler.trace import spread
from memsr_compiler.trace.builder import Builder, Padded, Resized, Uncropped
from memsr_compiler.trace.fx.needed import ALIASES, ITSELF, find_needed, find_remembered, is_inplace, word_of
from memsr_compiler.trace.samples import ALONE
from memsr_compiler.trace.spread import Spread
from memsr_compiler.trace.torch_ops import activation, choices, constants, convolution, pointwise, resolution, shape
from memsr_compiler.trace.torch_ops.registry import WORDS
from memsr_compiler.trace.torch_ops.shape import SAME
from memsr_compiler.trace.torch_ops.unsupported import ATTENTION, IMPOSSIBLE, MATRIX_PRODUCTS
from memsr_compiler.trace.views import (
    BATCH,
    HEIGHT,
    WIDTH,
    Axes,
    Batch,
    DependsOnBatch,
    DependsOnSize,
    Size,
    Unreadable,
    View,
)

# Imported, their words are in WORDS.
VOCABULARY = (activation, choices, constants, convolution, pointwise, resolution, shape)
_TAKES = {
    **dict.fromkeys(("conv2d", "convolution", "avg_pool2d"), Padded),
    **dict.fromkeys(("getitem", "slice", "pad", "constant_pad_nd"), Uncropped),
}
_TAKE_RESIZED = ("add", "sub", "subtract", "rsub", "mul", "multiply", *SAME)
_ALIKE = (
    "relu", "relu6", "leaky_relu", "hardtanh", "hardsigmoid", "clamp", "clip", "clamp_min", "clamp_max", "abs", "neg",
    "softshrink", "add", "sub", "rsub", "mul", "div", "truediv", "maximum", "minimum", "lerp",
)  # fmt: skip
_TAKE_MASKS = ("where", "masked_fill")
_TAKE_COUNTS = (
    "view", "reshape", "_unsafe_view", "expand", "broadcast_to", "repeat", "tile", "unflatten", "zeros", "ones",
    "empty", "new_zeros", "new_ones", "new_empty", "rand", "randn", "getattr", "getitem", "narrow", "split", "chunk",
    "tensor_split", "select", "split_with_sizes",
)  # fmt: skip
"""Operations to which the number of images says the length of an axis, or a place in it."""
NO_WORD = (
    "the compiler has no word for this operation; write it with convolutions, ReLUs, sums, concatenations and pixel "
    "shuffles, or convert the parts around it"
)
_SIZE_WAY_OUT = (
    "a plain network treats images of all sizes alike; pad to a multiple and crop outside the network, say, and give "
    "the module that does neither"
)
OF_SIZES = f"it computes with the height or width of the image; {_SIZE_WAY_OUT}"
_HALVES = (torch.float16, torch.bfloat16)
_CASTS = {
    "half": torch.float16, "bfloat16": torch.bfloat16, "bool": torch.bool, "byte": torch.uint8, "char": torch.int8,
    "short": torch.int16, "int": torch.int32, "long": torch.int64,
}  # fmt: skip
"""Methods of tensors that cast to a type that holds fewer values than float32."""
_STEPS = ("eq", "ne", "lt", "le", "gt", "ge", "mod", "floordiv")  # may give the same for a few numbers only
_OUR_NAMES = {
    "input": "x", "self": "x", "other": "y", "axis": "dim", "axis0": "dim0", "axis1": "dim1", "keepdims": "keepdim",
}  # fmt: skip
"""Names of arguments, of torch's or as NumPy has them, and what our words call them."""
SHAPES = ("getattr", "size", "dim", "sym_size")
"""What asks for a tensor's shape, not for its values."""
_AS_ANOTHER = ("to", "type_as", "expand_as", "view_as", "reshape_as")  # of another they take the type or the shape


class Cell:
    """A value that names in the network's code hold: in-place ops change it for all names of the same tensor.

    memory   the same for all whose tensors may share memory: one may be a view of the other, or the other itself
    """

    def __init__(self, value: Any, memory: object = None) -> None:
        self.value = value
        self.memory = memory or object()


def read(module: fx.GraphModule, builder: Builder, constant: Callable[[fx.Node], Any] | None = None) -> View | Resized:
    """Build the graph of a torch.fx module.  Raises Unreadable, or UnsupportedModel for what cannot be plain."""
    return Reader(module, builder, constant).read()


def refuse_impossible(graph: fx.Graph, images: frozenset[str]) -> None:
    """Refuse what can never be plain before the rest is understood, since reading large networks takes long.

    That is an operation of `IMPOSSIBLE` for which there is no word either, on the way from the image to the result.
    images   names of the inputs that are images
    Raises UnsupportedModel.
    """
    refuse_attention(graph, images)
    for node in _on_the_way(graph, images):
        name = word_of(node)
        if name in IMPOSSIBLE and name not in WORDS:
            _refuse(node, *IMPOSSIBLE[name])


def refuse_attention(graph: fx.Graph, images: frozenset[str]) -> None:
    """Refuse products of two feature maps as matrices, before the norms and the like around them.

    These could be retrained as something else, and attention between pixels would still be in the way.
    Raises UnsupportedModel.
    """
    pixels = _on_the_way(graph, images)
    for node in pixels:
        features = [n for n in node.all_input_nodes if n in pixels or n.name in images]
        if word_of(node) in MATRIX_PRODUCTS and len(features) > 1:
            _refuse(node, *ATTENTION)


def refuse_remembered(graph: fx.Graph) -> None:
    """Raise Unreadable for code that keeps something of the image in a tensor of the network, as torch.fx saw it."""
    if (node := find_remembered(graph)) is not None:
        path, name = module_of(node)[0] or "the network", word_of(node)
        raise Unreadable(
            f"{path}: {name}: it writes something of the image into a tensor that the network keeps, by which its code "
            "may decide; give what is written a name of its own",
            located=True,
        )


def _on_the_way(graph: fx.Graph, images: frozenset[str]) -> dict[fx.Node, None]:
    """The nodes on the way from the image to the result that depend on pixels, not on its shape alone, in order."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in needed:
            needed.update(node.all_input_nodes)
    pixels: set[fx.Node] = set()
    for node in graph.nodes:
        read = node.all_input_nodes[:1] if word_of(node) in _AS_ANOTHER else node.all_input_nodes
        if node.name in images or (word_of(node) not in SHAPES and not pixels.isdisjoint(read)):
            pixels.add(node)
    return {node: None for node in graph.nodes if node in pixels and node in needed and node.name not in images}


def _refuse(node: fx.Node, reason: str, way_out: str) -> NoReturn:
    raise UnsupportedModel(f"{module_of(node)[0] or 'the network'}: {word_of(node)}: {reason}; {way_out}")


class Reader:
    """Walks over a torch.fx graph, node by node, and has the builder build what each says."""

    def __init__(self, module: fx.GraphModule, builder: Builder, constant: Callable[[fx.Node], Any] | None) -> None:
        self.module, self.builder, self.constant = module, builder, constant
        self.env: dict[fx.Node, Cell] = {}
        self.order = {node: i for i, node in enumerate(module.graph.nodes)}
        self.needed = find_needed(module.graph)
        self.fed = False

    def read(self) -> View | Resized:
        for node in self.module.graph.nodes:
            if node.op == "output" and isinstance(result := _only(node.args[0]), (tuple, list, dict)):
                self._refuse_result(result)  # before what the others are made of
        for node in self.module.graph.nodes:
            if node.op == "output":
                return self._output(node)
            if node not in self.needed:
                continue
            path, kind = module_of(node)
            self.builder.where, self.builder.last = path, word_of(node)
            self.builder.leaf = "torch.nn.modules." in kind
            self.env[node] = self._node(node)
        raise Unreadable("the network: output: it returns nothing; return the image", located=True)

    def _output(self, node: fx.Node) -> View | Resized:
        result = _only(self._value(node.args[0]))
        if isinstance(result, Resized) and result.body is not None:
            return result
        if not isinstance(result, View):
            self.builder.where, self.builder.last = "", "output"
            self.builder.require_settled([result])
            self._refuse_result(result)
        return result

    def _refuse_result(self, result: Any) -> NoReturn:
        self.builder.where, self.builder.last = "", "output"
        self.builder.refuse(
            f"the network returns {_kind(result)}, not one image", "wrap it in a module that returns the image only"
        )

    def _node(self, node: fx.Node) -> Cell:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return Cell(attribute_of(self.module, str(node.target)))
        if node.op == "call_module":
            return self._norm(node)
        return self._call(node)

    def _placeholder(self, node: fx.Node) -> Cell:
        if self.constant is not None and (value := self.constant(node)) is not None:
            return Cell(value)
        if not self.fed:
            self.fed = True
            image = self.builder.input
            return Cell((image,) if str(node.target).startswith("*") else image)  # def forward(self, *images)
        if node.args:  # an argument with a default
            return Cell(node.args[0])
        self.builder.where, self.builder.last = "", f"input '{node.target}'"
        self.builder.refuse("the network takes more than one input", "wrap it in a module that takes the image only")

    def _norm(self, node: fx.Node) -> Cell:
        norm = self.module.get_submodule(str(node.target))
        self.builder.last, self.builder.leaf = type(norm).__name__, True
        assert isinstance(norm, nn.modules.batchnorm._NormBase), "all that the tracer leaves whole"
        of_image = norm.training or norm.running_mean is None  # as torch decides, whatever is tracked
        if isinstance(norm, nn.modules.instancenorm._InstanceNorm) and (of_image or not norm.track_running_stats):
            self.builder.refuse(*IMPOSSIBLE["instance_norm"])
        x = self._value(node.all_input_nodes[0])
        mean, var = norm.running_mean, norm.running_var
        gain, bias = (norm.weight.detach(), norm.bias.detach()) if norm.affine else (None, None)
        return Cell(pointwise.batch_norm(self.builder, x, mean, var, gain, bias, of_image, 0.0, norm.eps))

    def _call(self, node: fx.Node) -> Cell:
        name, inplace = word_of(node), is_inplace(node)
        args = [self._value(a) for a in node.args]
        kwargs = {k: self._value(v) for k, v in node.kwargs.items()}
        values = list(leaves_of([*args, *kwargs.values()]))
        if name == "setitem" and any(isinstance(v, (View, Resized, Padded, Uncropped)) for v in values):
            self.builder.give_up(NO_WORD)  # torch.export makes other operations of it
        resized = next((v for v in values if isinstance(v, Resized)), None)
        if resized is not None and name not in _TAKE_RESIZED:
            self._refuse_resized(resized, name)
        used = leaves_of(a for a in (*args, *kwargs.values()) if not isinstance(a, activation.Extreme))
        if (places := next((v for v in used if isinstance(v, activation.Places)), None)) is not None:
            self.builder.refuse(
                f"it computes with the places of a {places.kind} (its indices), which jump from one channel to "
                "another, and a plain network is continuous",
                "use the values alone",
            )
        if name not in _TAKE_MASKS and any(isinstance(v, choices.Above) for v in values):
            self.builder.give_up(choices.MASK)
        if name not in _TAKE_COUNTS and _is_computed_with(node, args, kwargs):
            self.builder.give_up(ALONE, DependsOnBatch)
        if name not in SAME:
            self.builder.require_settled(values, _TAKES.get(name))
        if name == "getattr":
            return Cell(self._getattr(args[0], args[1]))
        if not any(isinstance(v, (View, Resized, Padded, Uncropped, choices.Above)) for v in values):
            return Cell(self._compute(node, args, kwargs))
        if any(isinstance(v, Spread) for v in values):
            args, kwargs = self._beside(name, args, kwargs)
        self._refuse_rounding(name, args, kwargs)
        if name not in WORDS:
            if name in IMPOSSIBLE:
                self.builder.refuse(*IMPOSSIBLE[name])
            self.builder.give_up(NO_WORD)
        for unwanted in ("memory_format", "dtype", "layout", "device", "pin_memory"):
            kwargs.pop(unwanted, None)
        if kwargs.get("out", "") is None:  # as NumPy calls a tensor's methods
            del kwargs["out"]
        kwargs = {_OUR_NAMES.get(k, k): v for k, v in kwargs.items()}
        args, axes = self._flatten(name, args, kwargs.values())
        try:
            value = WORDS[name](self.builder, *args, **kwargs)
            value = value if axes is None else View(self.builder.feature(value), axes)
        except Unreadable as error:
            self._locate(error)
        except (TypeError, AttributeError, IndexError):
            if any(isinstance(v, Size) for v in values):
                self.builder.give_up(OF_SIZES, DependsOnSize)
            called = ", ".join([*map(_describe, args), *(f"{k}={_describe(v)}" for k, v in kwargs.items())])
            self.builder.give_up(f"it is called as {name}({called}), which is not read; write it otherwise")
        return self._store(node, name, inplace, value)

    def _flatten(self, name: str, args: list[Any], options: Iterable[Any]) -> tuple[list[Any], Axes | None]:
        """Operands of what does the same to every number of feature maps, as these lie, and how they are looked at.

        Those of several feature maps, red and green say, have to lie alike.
        """
        views, types = [v for v in args if isinstance(v, View)], self.builder.types
        if name not in _ALIKE or not views or shape.is_image(views[0]) or not all(map(_is_plain, options)):
            return args, None
        x = views[0]
        if any(v.axes != x.axes or types[v.op] != types[x.op] for v in views):
            return args, None
        laid = [shape.lay_down(self.builder, x, v) if isinstance(v, Tensor) else v for v in args]
        fits = all(
            one is not None if isinstance(v, Tensor) else isinstance(v, View) or _is_plain(v)
            for v, one in zip(args, laid, strict=True)
        )
        flat = [View.of(v.op, types[v.op].channels, types[v.op].scale) if isinstance(v, View) else v for v in laid]
        return (flat, x.axes) if fits else (args, None)

    def _beside(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Operands of what takes a feature map, and a constant that is spread over it."""
        if (operands := spread.beside(name, args, kwargs)) is None:
            self.builder.give_up(
                "it takes a constant that is spread over the image, or the batch, which is read in sums, products, "
                "maxima and minima with feature maps; make it by x.new_full(x.shape, c), say"
            )
        return operands

    def _refuse_rounding(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse a cast to a type that holds fewer values than float32: on few images nobody may see it."""
        types = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.dtype)]
        if name in ("to", "type_as"):
            types += [v.dtype for v in args[1:] if isinstance(v, Tensor)]
        if name == "type":  # by the name of a class of tensors too
            types += [torch.empty(0).type(v).dtype for v in (*args, *kwargs.values()) if isinstance(v, str)]
        types += [_CASTS[name]] if name in _CASTS else []
        other = next((v for v in types if v not in (torch.float32, torch.float64)), None)
        if other is not None:
            halves = ", call float() on modules whose weights are halves" if other in _HALVES else ""
            self.builder.refuse(
                f"a cast to {str(other).removeprefix('torch.')} rounds values",
                f"leave it away{halves}, and check the PSNR",
            )

    def _compute(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A node whose operands are all known: weight algebra, sizes."""
        if word_of(node) in ("eq", "ne") and args[0] != args[1] and any(isinstance(v, Size) for v in args):
            self.builder.give_up(OF_SIZES, DependsOnSize)  # they may be equal for some images
        if word_of(node) in _STEPS and _steps_by_batch(word_of(node), *args):
            self.builder.give_up(ALONE, DependsOnBatch)
        try:
            with InFloat64():  # constants that forward makes are of float32
                value = self._spread_or_compute(node, args, kwargs)
            if spread.is_by_count(value, [args, kwargs]):
                self.builder.give_up(ALONE, DependsOnBatch)
            if isinstance(value, str) and any(isinstance(v, (Size, View)) for v in leaves_of(args)):
                self.builder.give_up(OF_SIZES, DependsOnSize)  # as a text it is another for each
            return value.detach() if isinstance(value, Tensor) else value  # nn.Parameter(...) would be followed back
        except Unreadable as error:
            self._locate(error)
        except (TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
            if self._is_of_sizes(node):
                self.builder.give_up(OF_SIZES, DependsOnSize)
            self.builder.give_up(f"constants cannot be computed before the image is known ({first_line(error)})")

    def _spread_or_compute(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        name = word_of(node)
        if not spread.concerns(name, [args, kwargs]):
            return _compute(node, args, kwargs)
        if self.constant is not None and name in spread.MAKERS:
            args = [_recognise_images(a) for a in args]
        return spread.compute(name, lambda args, kwargs: _compute(node, args, kwargs), args, kwargs)

    def _is_of_sizes(self, node: fx.Node) -> bool:
        """Whether a constant is made of the height or width of the image, as `torch.ones(1, 1, h, w)`."""
        left, met = [node], {node}
        while left:
            made = left.pop()
            operands = map(self._value, (*made.args, *made.kwargs.values()))
            if any(isinstance(v, Size) for v in leaves_of(operands)):
                return True
            before = [
                n for n in made.all_input_nodes if n not in met and isinstance(self.env[n].value, (Tensor, Spread))
            ]
            left += before
            met.update(before)
        return False

    def _locate(self, error: Unreadable) -> NoReturn:
        """Raise the error again with the module, the operation and the way out, if it lacks them."""
        if error.located:
            raise error
        if isinstance(error, DependsOnBatch):
            self.builder.give_up(ALONE, DependsOnBatch)
        way_out = _SIZE_WAY_OUT if isinstance(error, DependsOnSize) else "write it with fewer reshapes"
        self.builder.give_up(f"{error}; {way_out}", type(error))

    def _refuse_resized(self, resized: Resized, name: str) -> NoReturn:
        if name in SHAPES:
            self.builder.give_up("it asks for the shape of the enlarged image; multiply that of the image instead")
        if resized.body is not None:
            self.builder.refuse(
                f"it takes the sum with the image, enlarged by {resized.mode} interpolation",
                "that sum has to be the last thing; do what follows outside the network",
            )
        self.builder.refuse(
            f"it takes the image enlarged by {resized.mode} interpolation, which clamps at the edge, and zero padding "
            "does not",
            "enlarge the image before the network, and give the module that takes the enlarged image (as VDSR does)",
        )

    def _store(self, node: fx.Node, name: str, inplace: bool, value: Any) -> Cell:
        changed = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("self"))
        source = self.env.get(changed) if isinstance(changed, fx.Node) else None
        if source is None:
            return Cell(value)
        if inplace:
            if self._is_used_otherwise(node, source):
                self.builder.give_up(
                    "it changes in place a tensor of which there are views, or other names; write x = x + y for x += y"
                )
            source.value = value
            return source
        if name in ITSELF and value is source.value:
            return source
        return Cell(value, source.memory if name in ALIASES else None)

    def _is_used_otherwise(self, node: fx.Node, source: Cell) -> bool:
        """Whether code after this node looks at the memory that it changes by another name than this tensor's."""
        others = [n for n, cell in self.env.items() if cell.memory is source.memory and cell is not source]
        users = self.needed.intersection(user for other in others for user in other.users)
        return any(self.order[user] > self.order[node] for user in users)

    def _getattr(self, value: Any, name: str) -> Any:
        if isinstance(value, View):
            known = {
                "shape": value.shape,
                "ndim": len(value.axes),
                "device": torch.device("cpu"),
                "dtype": torch.float32,
            }
            if name in known:
                return known[name]
            self.builder.give_up(f"it asks for the tensor's {name}, which is not known; do without")
        if isinstance(value, Spread):
            try:
                return spread.ask(value, name)
            except Unreadable as error:
                self._locate(error)
        try:
            return getattr(value, name)
        except AttributeError:
            self.builder.give_up(f"it asks {_describe(value)} for its {name}, which is not known; do without")

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.env[argument].value
        if self.constant is not None and type(argument) is int:
            return _recognise_size(argument)
        if isinstance(argument, (tuple, list)):
            return type(argument)(self._value(a) for a in argument)
        if isinstance(argument, slice):
            return slice(self._value(argument.start), self._value(argument.stop), self._value(argument.step))
        return argument


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and type of the module whose code calls a node."""
    stack = [entry for entry in node.meta.get("nn_module_stack", {}).values() if "." in str(entry) or entry[0]]
    path, kind = (str(stack[-1][0]), str(stack[-1][1])) if stack else ("", "")
    return path.removeprefix("L['self'].").removeprefix("L__self___"), kind


def _recognise_size(number: int) -> int | Size:
    """A number that can only have come from the example's height or width, as what it stands for."""
    if number > 0 and number % HEIGHT == 0:
        return Size("h", Fraction(number // HEIGHT))
    if number > 0 and number % WIDTH == 0:
        return Size("w", Fraction(number // WIDTH))
    return number


def _recognise_images(sizes: Any) -> Any:
    """The shape of a constant as high or wide as the example, with the number of its images as what it stands for."""
    of_image = isinstance(sizes, (list, tuple)) and len(sizes) == 4 and any(isinstance(n, Size) for n in sizes)
    return [BATCH, *sizes[1:]] if of_image and sizes[0] == BATCH else sizes


def attribute_of(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else value


def _compute(node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The value of a node; raises whatever its operation raises."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    if isinstance(node.target, type(torch.ops.aten.add.Tensor)) and any(isinstance(a, Size) for a in args):
        return getattr(operator, word_of(node))(*args)
    return node.target(*args, **kwargs)


def _is_computed_with(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation takes the number of images for a value, which code of numbers alone does not do."""
    operands = [*args, *kwargs.values()]
    of_numbers = getattr(node.target, "__module__", "") == "_operator"
    if of_numbers and not any(isinstance(v, (View, Tensor, Spread)) for v in operands):
        return False
    values = leaves_of(operands) if word_of(node) in ("new_tensor", "tensor", "as_tensor") else operands
    return any(isinstance(v, Batch) for v in values)


def _steps_by_batch(name: str, a: Any, b: Any) -> bool:
    """Whether a step is by the number of images, of which another one may give something else."""
    if isinstance(a, Batch) and isinstance(b, Batch):
        return False
    share = name == "floordiv" and isinstance(a, Batch) and isinstance(b, int) and b and not a % b
    return not share and (isinstance(a, Batch) or isinstance(b, Batch))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _describe(value: Any) -> str:
    """An argument, for a message: 'a feature map', 'a size of the image', '2'."""
    if isinstance(value, (View, Resized, Padded, Uncropped)):
        return "a feature map"
    if isinstance(value, choices.Above):
        return "a mask"
    if isinstance(value, Spread):
        return "a constant spread over the image"
    if isinstance(value, Size):
        return "a size of the image"
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_describe, value))}]"
    return str(value)


def leaves_of(values: Any) -> Iterator[Any]:
    for v in values:
        if isinstance(v, (tuple, list)):
            yield from leaves_of(v)
        else:
            yield v


def _only(result: Any) -> Any:
    """The value that a network returns, out of lists of it alone."""
    while isinstance(result, (tuple, list)) and len(result) == 1:
        result = result[0]
    return result


def _kind(value: Any) -> str:
    value = value.value if isinstance(value, Spread) else value
    if isinstance(value, (tuple, list)):
        return f"{say_count(len(value), 'value')}"
    if isinstance(value, choices.Above):
        return "a mask"
    return "a dict" if isinstance(value, dict) else type(value).__name__
