"""The two ways to a network's torch.fx graph: `torch.fx.symbolic_trace` is quick, `torch.export` understands more."""

from __future__ import annotations

import inspect
import io
import logging
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from functools import cached_property
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.torch_helpers import (
    InFloat64,
    copy_module,
    list_buffers,
    list_parameters,
    list_weights,
    writes_in_place,
)
from memsr_compiler.trace.fx.asked import Asked, asks_how_many, asks_no_size
from memsr_compiler.trace.fx.casts import drop_dtype_checks
from memsr_compiler.trace.fx.needed import INPLACE, changes, list_written, may_be
from memsr_compiler.trace.fx.reader import refuse_impossible, refuse_remembered
from memsr_compiler.trace.fx.renamed import rename_in_graph, rename_in_program
from memsr_compiler.trace.fx.unchanged import Unchanged
from memsr_compiler.trace.kept.held_values import leaving_values
from memsr_compiler.trace.own_code.decisions import HOW_MANY
from memsr_compiler.trace.own_code.own_files import is_foreign
from memsr_compiler.trace.own_code.places import words_of
from memsr_compiler.trace.own_code.read_off import READ_OFF
from memsr_compiler.trace.own_code.statements import Places, answer_that_goes_on, only_raises, only_tells
from memsr_compiler.trace.own_code.unheard import callers, foreign_lines
from memsr_compiler.trace.views import BATCH, HEIGHT, WIDTH


@leaving_values
def trace_symbolically(model: nn.Module, channels: int, dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    """The network as torch.fx.symbolic_trace sees it, down to functions.  Raises whatever the trace raises.

    channels   of the image, by which code may decide
    """
    traced = copy_module(model, dtype)
    tracer = _Tracer(traced, channels, dtype)
    with tracer.named, InFloat64() if dtype == torch.float64 else nullcontext(), _Assigning(tracer):
        graph = tracer.trace(traced)
    if tracer.named.changed:
        refuse_remembered(graph)  # which says more
        raise fx.proxy.TraceError(
            "a tensor is changed after it was used, or used after it was changed, of which the graph has other numbers"
        )
    clean = copy_module(model, dtype)  # code that assigns attributes left proxies in the traced one
    for constant, name in tracer.tensor_attrs.items():  # tensors that forward makes itself
        if "." not in name and not hasattr(clean, name):
            setattr(clean, name, constant)
    rename_in_graph(graph, clean)
    return fx.GraphModule(clean, graph)


def _taking_the_image(model: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The network's forward, `forward` in its class, with the image as its only argument.

    Others get their defaults, which torch.fx would have it ask for: `if return_features:` is then no decision, nor is
    `if mask is not None:` taken for one that says yes.
    """
    own = vars(model).get("forward")  # which torch.fx would pass over
    try:
        _, *others = inspect.signature(model.forward).parameters.values()
    except ValueError:  # no arguments; or none that can be seen
        return forward
    if (not others and own is None) or any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in others
    ):
        return forward

    def take(self: nn.Module, image: Tensor) -> Any:
        return forward(self, image) if own is None else own(image)

    return take


@leaving_values
def export_module(model: nn.Module, channels: int) -> tuple[fx.GraphModule, Callable[[fx.Node], Any]]:
    """The network as torch.export sees it, functional, with a way to find the constants among its inputs.

    Height and width are fixed, at sizes by which they are recognised: an export with free ones takes several times as
    long, and of a network that asks for them it says no more.  Raises what export and `refuse_impossible` raise.
    """
    from torch.export import export
    from torch.export.graph_signature import OutputKind

    example = torch.empty(int(BATCH), channels, HEIGHT, WIDTH, dtype=torch.float64)  # no pixel is computed
    with InFloat64(), _KeepsImages():
        program = _quietly(lambda: export(copy_module(model, torch.float64), (example,)))
    refuse_impossible(program.graph, frozenset(program.graph_signature.user_inputs))  # what follows takes as long again
    names = rename_in_program(program, model)
    program = _quietly(lambda: program.run_decompositions({}))
    drop_dtype_checks(program.graph)
    signature = program.graph_signature
    returned = next(node for node in program.graph.nodes if node.op == "output")
    _refuse_remembered(program.graph, signature, names)
    kinds = [spec.kind for spec in signature.output_specs]  # an input changed in place is an output too
    returned.args = (tuple(a for a, k in zip(returned.args[0], kinds, strict=True) if k is OutputKind.USER_OUTPUT),)
    model = copy_module(model, torch.float64)  # weights that are computed from others are then computed exactly
    exact = list_weights(model)
    inputs = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }

    def constant(node: fx.Node) -> Any:
        name = inputs.get(node.name)
        if name is None:
            return None
        path = names.get(name, name)
        return exact[path].detach() if path in exact else program.constants.get(name, program.state_dict.get(name))

    return program.graph_module, constant


def _refuse_remembered(graph: fx.Graph, signature: Any, names: Mapping[str, str]) -> None:
    """Raises UnsupportedModel for a program that computes with a buffer, and leaves something of the image in it."""
    of_image: set[fx.Node] = set()
    for node in graph.nodes:
        if node.name in signature.user_inputs or not of_image.isdisjoint(node.all_input_nodes):
            of_image.add(node)
    needed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.name in signature.user_outputs or node in needed:
            needed.update((node, *node.all_input_nodes))
    nodes = {node.name: node for node in graph.nodes}
    buffers = {path: nodes[name] for name, path in signature.inputs_to_buffers.items()}
    for value, path in signature.buffers_to_mutate.items():
        if nodes[value] in of_image and buffers[path] in needed:
            raise UnsupportedModel(
                f"{names.get(path, path)}: the network keeps something of an image in it, and computes the next with "
                "that, as networks for films do; give a module that takes all it needs as channels of an image"
            )


class LeavesTorch(Exception):
    """Code makes Python numbers, or a tensor each, of so many values that torch.export would take minutes."""


class _KeepsImages(TorchFunctionMode):
    """Raises LeavesTorch where feature maps are taken apart, by `tolist()`, by rows or pixels, or by many `item()`s.

    UnsupportedModel for functions that write into tensors without saying so, which torch.export leaves out, and for
    code that goes from tile to tile, of which the example has hundreds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.tiles: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.__iter__, Tensor.unbind, torch.unbind):
            given = kwargs or {}
            axis = args[1] if len(args) > 1 else given.get("dim", 0)
            x = args[0] if args else given["input"]
            count = x.shape[axis] if x.dim() else 0
            if count > _MOST_PARTS or (count and 0 in (count % HEIGHT, count % WIDTH)):
                raise LeavesTorch
        elif func in READ_OFF:
            self.numbers += args[0].numel()
            if self.numbers > _MOST_NUMBERS:
                raise LeavesTorch
        elif func in _WRITE_UNSEEN:
            raise UnsupportedModel(
                f"the network: {func.__name__}: it writes how large values are into other tensors, of which "
                "torch.export knows nothing; leave it out: batch norm in eval mode takes the statistics that it has"
            )
        result = func(*args, **(kwargs or {}))
        if func is Tensor.__getitem__ and result.dim() == 4 == args[0].dim() and result.shape[2:] != args[0].shape[2:]:
            self.tiles.add(str(args[1]))
            if len(self.tiles) > _MOST_TILES:
                raise UnsupportedModel(
                    "the network: getitem: it cuts the image into tiles, as many as its size makes, and a plain "
                    "network treats every pixel alike; give the module that is run on each tile"
                )
        return result


_WRITE_UNSEEN = (
    torch.batch_norm_update_stats,
    torch.batch_norm_gather_stats,
    torch.batch_norm_gather_stats_with_counts,
)
_MOST_NUMBERS = 50  # of which sums of symbols are made, ever slower ones
_MOST_PARTS = 2048  # channels may be taken apart
_MOST_TILES = 16  # parts of a feature map, each elsewhere


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
    """Remembers `x += y` as what it is: it changes x for everyone who holds it.  A parameter of one number is one."""

    def __getattr__(self, name: str) -> fx.proxy.Attribute:
        return _Attribute(self, name)

    @property  # type: ignore[misc]  # Python's can be set
    def __class__(self) -> Any:
        """The kind of a value where code demands one, so that `assert isinstance(x, Tensor)` goes on.

        Elsewhere a proxy is none, and the code is looked at for what it asks.
        """
        asker = sys._getframe(1)
        if not is_foreign(asker.f_code.co_filename) or not only_raises(callers(asker)):
            return type(self)
        assert isinstance(self.tracer, _Tracer), "who makes these"
        kind = self.tracer.asked.kind(self.node)
        if kind is None:
            raise fx.proxy.TraceError("the kind of a value cannot be used as input to control flow")
        return kind

    def __setattr__(self, name: str, value: Any) -> None:
        """Numbers put in the place of a tensor's own, `z.data = y`, of which torch.export knows as little.

        Weights have those that a run has put there.
        """
        if name in _OWN_NUMBERS and self.node.op != "get_attr":
            raise UnsupportedModel(
                f"the network{words_of(callers(sys._getframe(1))[0])}: it puts other numbers into a tensor by "
                f"z.{name} = y, which no reader hears; write z = y, or z.copy_(y) where others hold z too"
            )
        super().__setattr__(name, value)

    def __setitem__(self, place: Any, value: Any) -> None:
        """A kernel that `forward` makes and writes weights into: `k[mask] = w[mask]`."""
        self.tracer.create_proxy("call_function", operator.setitem, (self, place, value), {})

    def __hash__(self) -> int:
        """A size among others, `x.shape[2] in {720, 1080}`, would be none of them."""
        assert isinstance(self.tracer, _Tracer), "who makes these"
        if asks_no_size(self.node) and (told := self.tracer.asked.told(self.node)) is not None:
            return hash(told)  # of keys of a table, `(x.device, x.dtype)`, which are compared then
        if self.node.target == "item" or not self.tracer.asked.is_tensor(self.node):
            raise fx.proxy.TraceError("symbolically traced sizes cannot be used as inputs to control flow")
        return super().__hash__()

    def __repr__(self) -> str:
        """A text of a size among others, `f"{x.shape[2]}" in table`, would be none of them either."""
        assert isinstance(self.tracer, _Tracer), "who makes these"
        asker = sys._getframe(1)
        own = super().__repr__()
        return self.tracer.to_text(self.node, callers(asker), own) if _is_networks(asker) else own

    def __format__(self, spec: str) -> str:
        """The same for `f"{x.shape[2]:04d}"`, of which Python itself says that there is no such text."""
        assert isinstance(self.tracer, _Tracer), "who makes these"
        return self.tracer.to_text(self.node, callers(sys._getframe(1)), super().__repr__(), spec)

    def __len__(self) -> int:
        assert isinstance(self.tracer, _Tracer), "who makes these"
        count = self.tracer.count(self.node)
        return super().__len__() if count is None else count

    def __float__(self) -> float:
        assert isinstance(self.tracer, _Tracer), "who makes these"
        return float(self.tracer.compute(self.node))

    def __int__(self) -> int:
        assert isinstance(self.tracer, _Tracer), "who makes these"
        return int(self.tracer.compute(self.node))

    def __index__(self) -> int:
        assert isinstance(self.tracer, _Tracer), "who makes these"
        return operator.index(self.tracer.compute(self.node))


def _is_networks(asker: FrameType) -> bool:
    """Whether code is the network's: also that of a program of torch.fx, which has no file."""
    name = asker.f_code.co_filename
    return is_foreign(name) or name.startswith("<eval_with_key>")


class _Attribute(fx.proxy.Attribute, _Proxy):
    """`x.shape`, whose length is asked for, and the like."""


def _inplace(name: str) -> Callable[[Any, Any], Any]:
    def method(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in INPLACE:
    setattr(_Proxy, f"__{_name}__", _inplace(_name))


_NUMBERS = ("item", "tolist", "numpy")
_OWN_NUMBERS = ("data", "real", "imag")  # attributes by which all numbers of a tensor are set


def _list_held(nodes: Iterable[fx.Node]) -> set[str]:
    """Names of the tensors of the network, and of constants, of which nodes may be views."""
    left, held = list(nodes), dict[fx.Node, None]()
    while left:
        node = left.pop()
        left += [operand for operand in may_be(node) if operand not in held]
        held[node] = None
    return {str(node.target) for node in held if node.op == "get_attr"}


class _Assigning(TorchFunctionMode):
    """Writes what is made of parameters alone into tensors that code has made, which are then used as they are.

    What is written elsewhere at some place, or hangs on the image, `k[0] = x.mean()`, is recorded, which torch.fx does
    not do.
    """

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        written = kwargs.get("out", args[0] if args and writes_in_place(func) else None)
        if isinstance(written, Tensor):
            proxies = [value for value in tree_leaves((args, kwargs)) if isinstance(value, fx.Proxy)]
            known = {id(proxy): self.tracer.known(proxy.node) for proxy in proxies}
            if self.tracer.named.is_new(written) and all(value is not None for value in known.values()):
                args, kwargs = tree_map(lambda value: known.get(id(value), value), (args, kwargs))
            elif known and func is Tensor.__setitem__:
                self.tracer.create_proxy("call_function", operator.setitem, args, {})
                return None
        return func(*args, **kwargs)


class _Tracer(fx.Tracer):
    """Looks into torch's own modules too, except those whose forward asks what cannot be asked of a proxy."""

    def __init__(self, model: nn.Module, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.channels, self.dtype = channels, dtype
        self.weights = list_parameters(model)
        self.paths = {id(weight): path for path, weight in self.weights.items()}
        attributes = (value for module in model.modules() for value in vars(module).values())
        held = (value for value in attributes if isinstance(value, Tensor))
        self.named = Unchanged([*list_buffers(model).values(), *held])
        self.changed: set[str] = set()  # weights that the graph changes

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        assert isinstance(self.root, nn.Module), "networks are traced"
        return super().create_args_for_root(_taking_the_image(self.root, root_fn), is_module, concrete_args)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """The same as torch.fx gives, which searches all parameters for each that is read."""
        path = self.paths.get(id(attr_val), "")
        if not path:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if path not in parameter_proxy_cache:
            self.named.use(attr_val)
            parameter_proxy_cache[path] = self.create_proxy("get_attr", path, (), {})
        return parameter_proxy_cache[path]

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor):
            self.named.use(a)
        return super().create_arg(a)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        for path in _list_held(list_written(node)):
            if path in self.weights:
                self.changed.add(path)
            else:
                self.named.write(self._fetch(path))
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **options: Any) -> Any:
        """A proxy, or the numbers that code takes out of parameters alone, which are the same for every image."""
        taken = kind == "call_method" and target in _NUMBERS and isinstance(args[0], fx.Proxy)
        if taken and (value := self.known(args[0].node)) is not None:
            return getattr(value, target)(*args[1:], **kwargs)
        return super().create_proxy(kind, target, args, kwargs, *others, **options)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m)  # run only in what is looked into
        return isinstance(m, nn.modules.batchnorm._NormBase) and type(m).__module__.startswith("torch.") and not own

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Sides of a shape, one by one: `y.view(n, c, *x.shape[2:])`."""
        count = self.count(obj.node)
        return super().iter(obj) if count is None else (operator.getitem(obj, i) for i in range(count))

    def count(self, node: fx.Node) -> int | None:
        """The number of values in a shape, or in what is made of parameters alone; None of others."""
        value = self.known(node)
        return len(value) if hasattr(value, "__len__") else self.asked.count(node)

    def known(self, node: fx.Node) -> Any:
        """A value made of parameters and constants, None of others."""
        try:
            return self.compute(node)
        except Exception:  # whatever torch raises of code that has not been followed yet
            return None

    def compute(self, node: fx.Node) -> Any:
        """A value made of parameters, and constants.  Raises TypeError where it hangs on the image, or was changed."""
        if node.op == "get_attr":
            held = self._fetch(str(node.target))
            if node.target in self.changed or self.named.is_written(held):
                raise TypeError("a tensor that the graph changes is no number yet")
            return held.clone()
        if node.op not in ("call_function", "call_method") or any(map(changes, node.users)) or changes(node):
            raise TypeError("a Proxy is no number")
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.compute)
        if callable(node.target):
            return node.target(*args, **kwargs)
        return getattr(args[0], node.target)(*args[1:], **kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        try:
            return bool(self.compute(obj.node))  # of parameters: the same for every image
        except (TypeError, RuntimeError):  # it hangs on the image, or is no single number
            pass
        if (places := foreign_lines()) and (answer := answer_that_goes_on(places)) is not None:
            return answer
        if asks_no_size(obj.node):
            if (answer := self.asked.answer(obj.node)) is not None:
                return answer
            raise fx.proxy.TraceError("a decision by the type, or by the length of an axis that hangs on the size")
        if asks_how_many(obj.node):
            raise fx.proxy.TraceError(f"{HOW_MANY} cannot be used as inputs to control flow")
        return super().to_bool(obj)

    def to_text(self, node: fx.Node, places: Places, own: str, spec: str = "") -> str:
        """The text of a value, as `spec` says, in lines of the model's code; `own`: that of its proxy, to be shown."""
        try:
            return format(self.compute(node), spec)  # of parameters: the same for every image
        except (TypeError, RuntimeError):
            pass
        if only_tells(places):
            return own
        if asks_no_size(node) and (told := self.asked.told(node)) is not None:
            return format(told, spec)
        what = HOW_MANY if asks_how_many(node) else "symbolically traced texts"
        raise fx.proxy.TraceError(f"{what} cannot be used as inputs to control flow")

    @cached_property
    def asked(self) -> Asked:
        return Asked(self.graph, self.channels, self.dtype, self._fetch)

    def _fetch(self, path: str) -> Tensor:
        """A tensor by the name that the graph has for it, past what torch.fx puts in place of a module's attributes."""
        if path in self.weights:
            return self.weights[path].detach()
        made = {name: tensor for tensor, name in self.tensor_attrs.items() if isinstance(tensor, Tensor)}
        return made[path] if path in made else list_buffers(self.root)[path]
