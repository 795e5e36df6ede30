"""torch.fx graphs -> IR.  `torch.fx.symbolic_trace` is quick, `torch.export` understands more; both end here."""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.torch_ops import activation, convolution, pointwise, resolution, shape
from memsr_compiler.trace.torch_ops.registry import WORDS
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE
from memsr_compiler.trace.views import BATCH, Size, Unreadable, View

VOCABULARY = (activation, convolution, pointwise, resolution, shape)  # imported, their words are in WORDS
HEIGHT, WIDTH = 997, 1009  # primes: what is a multiple of them is a height or a width
_INPLACE = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "truediv"}
_SHAPES = ("getattr", "size", "dim", "sym_size")  # ask for a tensor's shape, not for its values
_ALIASES = (
    "slice",
    "chunk",
    "split",
    "split_with_sizes",
    "narrow",
    "view",
    "reshape",
    "transpose",
    "permute",
    "getitem",
    "select",
    "unbind",
    "squeeze",
    "unsqueeze",
    "flatten",
    "unflatten",
)


def symbolic(model: nn.Module) -> fx.GraphModule:
    """The network as torch.fx.symbolic_trace sees it, down to functions.  Raises whatever the trace raises."""
    traced = copy_module(model, torch.float64)  # a tracer may leave proxies behind in what it traces
    return fx.GraphModule(traced, _Tracer(traced).trace(traced))


def exported(model: nn.Module, channels: int) -> tuple[fx.GraphModule, Callable[[fx.Node], Any]]:
    """The network as torch.export sees it, functional, with a way to find the constants among its inputs.

    Height and width are fixed, at sizes by which they are recognised: an export with free ones takes several times as
    long, and of a network that asks for them it says no more.  Raises what export and `refuse_impossible` raise.
    """
    from torch.export import export
    from torch.export.graph_signature import OutputKind

    example = torch.empty(BATCH, channels, HEIGHT, WIDTH)  # no pixel is computed
    program = _quietly(lambda: export(copy_module(model, torch.float32), (example,)))
    refuse_impossible(program.graph, frozenset(program.graph_signature.user_inputs))  # what follows takes as long again
    program = _quietly(lambda: program.run_decompositions({}))
    signature = program.graph_signature
    returned = next(node for node in program.graph.nodes if node.op == "output")
    kinds = [spec.kind for spec in signature.output_specs]  # an input changed in place is an output too
    returned.args = (tuple(a for a, k in zip(returned.args[0], kinds, strict=True) if k is OutputKind.USER_OUTPUT),)
    model = copy_module(model, torch.float64)  # weights that are computed from others are then computed exactly
    exact = dict(model.named_parameters()) | dict(model.named_buffers())
    inputs = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }

    def constant(node: fx.Node) -> Any:
        name = inputs.get(node.name)
        if name is None:
            return None
        return exact[name].detach() if name in exact else program.constants.get(name, program.state_dict.get(name))

    return program.graph_module, constant


def _quietly(make: Callable[[], Any]) -> Any:
    """torch.export prints whole graphs when it fails; what failed is in its exception."""
    nowhere, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            return make()
    finally:
        logging.disable(before)


class _Proxy(fx.Proxy):
    """Remembers `x += y` as what it is: it changes x for everyone who holds it."""


def _inplace(name: str) -> Callable[[Any, Any], Any]:
    def method(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in _INPLACE:
    setattr(_Proxy, f"__{_name}__", _inplace(_name))


class _Tracer(fx.Tracer):
    """Looks into torch's own modules too, except those whose forward asks what cannot be asked of a proxy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.paths = {id(parameter): (path, parameter) for path, parameter in model.named_parameters()}

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """The same as torch.fx gives, which searches all parameters for each that is read."""
        path, _ = self.paths.get(id(attr_val), ("", None))
        if not path:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if path not in parameter_proxy_cache:
            parameter_proxy_cache[path] = self.create_proxy("get_attr", path, (), {})
        return parameter_proxy_cache[path]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.modules.batchnorm._NormBase)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Cell:
    """The value of a name in the network's code: in-place ops change it for all names of the same tensor."""

    def __init__(self, value: Any, shared: bool = False) -> None:
        self.value = value
        self.shared = shared  # some other cell is a view of the same memory


def read(module: fx.GraphModule, builder: Builder, constant: Callable[[fx.Node], Any] | None = None) -> View | Resized:
    """Build the graph of a torch.fx module.  Raises Unreadable, or UnsupportedModel for what cannot be plain."""
    return _Reader(module, builder, constant).read()


def refuse_impossible(graph: fx.Graph, images: frozenset[str]) -> None:
    """Refuse what can never be plain before the rest is understood, since reading large networks takes long.

    That is an operation of `IMPOSSIBLE` for which there is no word either, on the way from the image to the result.
    images   names of the inputs that are images
    Raises UnsupportedModel.
    """
    needed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in needed:
            needed.update(node.all_input_nodes)
    pixels: set[fx.Node] = set()  # what depends on the values of the image, not on its shape alone
    for node in graph.nodes:
        name = _word(node)
        if node.name in images:
            pixels.add(node)
        elif name not in _SHAPES and not pixels.isdisjoint(node.all_input_nodes):
            pixels.add(node)
            if node in needed and name in IMPOSSIBLE and name not in WORDS:
                reason, way_out = IMPOSSIBLE[name]
                raise UnsupportedModel(f"{_module_of(node)[0] or 'the network'}: {name}: {reason}; {way_out}")


class _Reader:
    """Walks over a torch.fx graph, node by node, and has the builder build what each says."""

    def __init__(self, module: fx.GraphModule, builder: Builder, constant: Callable[[fx.Node], Any] | None) -> None:
        self.module, self.builder, self.constant = module, builder, constant
        self.env: dict[fx.Node, _Cell] = {}
        self.fed = False

    def read(self) -> View | Resized:
        for node in self.module.graph.nodes:
            if node.op == "output":
                return self._output(node)
            path, kind = _module_of(node)
            self.builder.where, self.builder.last = path, _word(node)
            self.builder.leaf = "torch.nn.modules." in kind
            self.env[node] = self._node(node)
        raise Unreadable("the traced network returns nothing")

    def _output(self, node: fx.Node) -> View | Resized:
        result = self._value(node.args[0])
        while isinstance(result, (tuple, list)) and len(result) == 1:
            result = result[0]
        if isinstance(result, Resized) and result.body is not None:
            return result
        if not isinstance(result, View):
            self.builder.where, self.builder.last = "", "output"
            self.builder.refuse(
                f"the network returns {_kind(result)}, not one image", "wrap it in a module that returns the image only"
            )
        return result

    def _node(self, node: fx.Node) -> _Cell:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return _Cell(_attribute(self.module, str(node.target)))
        if node.op == "call_module":
            return self._norm(node)
        return self._call(node)

    def _placeholder(self, node: fx.Node) -> _Cell:
        if self.constant is not None and (found := self.constant(node)) is not None:
            return _Cell(found)
        if not self.fed:
            self.fed = True
            return _Cell(self.builder.input)
        if node.args:  # an argument with a default
            return _Cell(node.args[0])
        self.builder.where, self.builder.last = "", f"input '{node.target}'"
        self.builder.refuse("the network takes more than one input", "wrap it in a module that takes the image only")

    def _norm(self, node: fx.Node) -> _Cell:
        norm = self.module.get_submodule(str(node.target))
        self.builder.where, self.builder.last, self.builder.leaf = str(node.target), type(norm).__name__, True
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            self.builder.refuse(*IMPOSSIBLE["instance_norm"])
        statistics = norm.training or not norm.track_running_stats
        x = self._value(node.args[0])
        mean, var = norm.running_mean, norm.running_var
        gain, bias = (norm.weight.detach(), norm.bias.detach()) if norm.affine else (None, None)
        return _Cell(pointwise.batch_norm(self.builder, x, mean, var, gain, bias, statistics, 0.0, norm.eps))

    def _call(self, node: fx.Node) -> _Cell:
        name, inplace = _word(node), _is_inplace(node)
        args = [self._value(a) for a in node.args]
        kwargs = {k: self._value(v) for k, v in node.kwargs.items()}
        if name == "getattr":
            return _Cell(self._getattr(args[0], args[1]))
        if not any(isinstance(v, (View, Resized)) for v in _leaves([*args, *kwargs.values()])):
            return _Cell(_compute(node, args, kwargs))
        if name not in WORDS:
            if name in IMPOSSIBLE:
                self.builder.refuse(*IMPOSSIBLE[name])
            self.builder.unknown(f"the operation '{name}' is not known")
        for unwanted in ("memory_format", "dtype", "layout", "device", "pin_memory"):
            kwargs.pop(unwanted, None)
        kwargs = {{"input": "x", "self": "x", "other": "y"}.get(k, k): v for k, v in kwargs.items()}
        try:
            value = WORDS[name](self.builder, *args, **kwargs)
        except (TypeError, AttributeError, IndexError) as error:
            self.builder.unknown(f"called in a way that is not read ({error})")
        return self._store(node, name, inplace, value)

    def _store(self, node: fx.Node, name: str, inplace: bool, value: Any) -> _Cell:
        source = self.env.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if inplace and source is not None:
            if source.shared:
                self.builder.unknown("it changes in place a tensor of which there are views")
            source.value = value
            return source
        if source is not None and name in _ALIASES:
            source.shared = True
            return _Cell(value, shared=True)
        if source is not None and value is source.value and name != "clone":
            return source
        return _Cell(value)

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
            self.builder.unknown(f"asks for the tensor's {name}")
        return getattr(value, name)

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.env[argument].value
        if self.constant is not None and type(argument) is int:
            return _recognised(argument)
        if isinstance(argument, (tuple, list)):
            return type(argument)(self._value(a) for a in argument)
        if isinstance(argument, slice):
            return slice(self._value(argument.start), self._value(argument.stop), self._value(argument.step))
        return argument


def _module_of(node: fx.Node) -> tuple[str, str]:
    """Path and type of the module whose code calls a node."""
    stack = [entry for entry in node.meta.get("nn_module_stack", {}).values() if "." in str(entry) or entry[0]]
    path, kind = (str(stack[-1][0]), str(stack[-1][1])) if stack else ("", "")
    return path.removeprefix("L['self'].").removeprefix("L__self___"), kind


def _recognised(number: int) -> int | Size:
    """A number that can only have come from the example's height or width, as what it stands for."""
    if number > 0 and number % HEIGHT == 0:
        return Size("h", Fraction(number // HEIGHT))
    if number > 0 and number % WIDTH == 0:
        return Size("w", Fraction(number // WIDTH))
    return number


def _word(node: fx.Node) -> str:
    """The plain name of what a node calls: 'relu' for F.relu, Tensor.relu_, aten.relu.default."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[-1].removesuffix("_")
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    name = _INPLACE.get(name, name)
    return name if name.startswith("__") else name.removesuffix("_") or name


def _is_inplace(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return (
        name in _INPLACE
        or (name.endswith("_") and not name.startswith("__"))
        or node.kwargs.get("inplace") is True
        or (name in ("relu", "relu6", "hardtanh", "leaky_relu") and len(node.args) > 1 and node.args[-1] is True)
    )


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else value


def _compute(node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A node whose operands are all known: weight algebra, sizes."""
    try:
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        if isinstance(node.target, type(torch.ops.aten.add.Tensor)) and any(isinstance(a, Size) for a in args):
            return getattr(operator, _word(node))(*args)
        return node.target(*args, **kwargs)
    except (TypeError, RuntimeError, ValueError, AttributeError) as error:
        raise Unreadable(f"{_word(node)}: cannot be computed beforehand: {error}") from None


def _leaves(values: Any) -> Iterator[Any]:
    for v in values:
        if isinstance(v, (tuple, list)):
            yield from _leaves(v)
        else:
            yield v


def _kind(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, (tuple, list)) else type(value).__name__
