"""Copies of a user's module (what we do to a network, we do to a copy), and how many of torch's threads work."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar, cast
from weakref import ProxyTypes

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from memsr_compiler.closures import leave_out_atoms, list_slots, rename_in_copies
from memsr_compiler.errors import InvalidInput, first_line

T = TypeVar("T", bound=Tensor)


def copy_module(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy on the CPU, its weights in `dtype`; None: each in its own.

    Raises InvalidInput for what is no module, has no weights yet, or holds what cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"a torch.nn.Module is wanted, not {type(model).__name__}; files are read by load_teacher")
    require_told_apart(model)
    require_values(model)
    for name, tensor in list_weights(model).items():
        if tensor.layout != torch.strided:
            raise InvalidInput(f"{name}: is kept as {_word(tensor.layout)}, which is not read; {_PUT} to_dense() gives")
        if tensor.is_floating_point() and tensor.itemsize == 1:
            raise InvalidInput(f"{name}: is kept as {_word(tensor.dtype)}, which is not read; {_PUT} float() gives")
    copies: dict[int, Any] = {}
    try:
        with _CopyingComputed():
            copied = copy.deepcopy(model, copies)
            _copy_slots(model, copied, copies)
        rename_in_copies(copies)
    except RecursionError as error:
        raise InvalidInput(f"{type(model).__name__} cannot be copied: {_say_deep(model)}") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever what it holds raises
        raise InvalidInput(
            f"{type(model).__name__} cannot be copied ({first_line(error)}): it holds something besides weights and "
            "modules, such as a lock, an open file, a generator or a function of TorchScript; make that in forward, or "
            "leave it out"
        ) from error
    given = dict(walk(model))
    for path, module in walk(copied):
        vars(module).pop("_compiled_call_impl", None)  # of `compile()`: the original's, which a __getstate__ may keep
        if path in given and "training" in vars(given[path]):  # a __setstate__ may make it anew, as einops' do
            vars(module)["training"] = given[path].training
    shared = set(map(id, list_weights(model).values()))
    for name, tensor in list_weights(copied).items():
        if id(tensor) in shared:
            raise InvalidInput(
                f"{name}: a copy of the network has the same tensor, not one of its own, and what is done to copies "
                "would be done to it; let its module's __deepcopy__ copy it, or leave that out"
            )
    if dtype == torch.float64 and first_weight(model).dtype != dtype:
        for value in copies.values():
            if _is(value, dtype):
                vars(value)[_DOUBLE] = True
    if dtype is not None:  # not by `to(dtype)`, which makes complex weights real without a word
        copied._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)  # type: ignore[no-untyped-call]
    return put(copied, "cpu")


def _copy_slots(model: nn.Module, copied: nn.Module, copies: dict[int, Any]) -> None:
    """Copy what modules hold in `__slots__`, which torch's `__setstate__` leaves out."""
    others = dict(walk(copied))
    for path, module in walk(model):
        other = others.get(path, module)
        for slot in list_slots(type(module)):
            if hasattr(module, slot) and not hasattr(other, slot):
                object.__setattr__(other, slot, copy.deepcopy(getattr(module, slot), copies))


def _say_deep(model: nn.Module) -> str:
    deepest = max((path for path, _ in walk(model)), key=lambda path: path.count("."))
    depth = deepest.count(".") + 1
    if depth < _DEEP:
        return "what it holds, functions too, lies within each other more deeply than Python goes; take some of it out"
    return (
        f"its modules lie within each other more deeply than Python goes, {depth} of them at {deepest[:40]}; take "
        "those away that only hold another"
    )


_DEEP = 100  # modules within each other, of which each takes a few of Python's 1000 calls


class _CopyingComputed(TorchFunctionMode):
    """Lets tensors that were computed from weights be copied, which torch refuses, wherever they are held.

    Weights that another parametrisation computes (torch.nn.utils.weight_norm) are such, and results that are kept.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
        return memo[id(tensor)]


def require_values(model: nn.Module) -> None:
    """Raises InvalidInput for weights and buffers without numbers."""
    for path, module in walk(model):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or not (tensor.is_meta or hasattr(tensor, "fake_mode") or nn.parameter.is_lazy(tensor)):
                continue
            why = "has no values yet; load the weights first"
            if name in module._non_persistent_buffers_set:
                why = (
                    "has no values, and no file holds any for it: make it anew, on the CPU, once the weights are loaded"
                )
            raise InvalidInput(f"{path}.{name}: {why}" if path else f"{name}: {why}")


HALVES = (torch.float16, torch.bfloat16)


def is_whole(tensor: Tensor) -> bool:
    """Whether it is of whole numbers, or of truth values."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by their paths, each once, as `named_modules` has it: by no method of somebody's own, nor by `==`."""
    walked, left = set[int](), [("", model)]
    while left:
        path, module = left.pop()
        if id(module) in walked:
            continue
        walked.add(id(module))
        yield path, module
        inside = [(name, child) for name, child in module._modules.items() if child is not None]
        left += [(f"{path}.{name}" if path else name, child) for name, child in reversed(inside)]


def list_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """As `named_parameters` of torch gives them: one of a network's own may give groups for an optimiser, or some."""
    return dict(_list_held(model, lambda module: module._parameters))


def list_buffers(model: nn.Module) -> dict[str, Tensor]:
    """As `named_buffers` of torch gives them."""
    return dict(_list_held(model, lambda module: module._buffers))


def list_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by name."""
    return {**list_parameters(model), **list_buffers(model)}


def _list_held(model: nn.Module, of: Callable[[nn.Module], Mapping[str, T | None]]) -> Iterator[tuple[str, T]]:
    listed = set[int]()
    for path, module in walk(model):
        for name, tensor in of(module).items():
            if tensor is not None and id(tensor) not in listed:
                listed.add(id(tensor))
                yield f"{path}.{name}" if path else name, tensor


def require_told_apart(model: nn.Module) -> None:
    """Raises InvalidInput for modules that compare equal: torch's own methods, and its readers, take them for one.

    Not for those without weights and modules, which are one to them.
    """
    paths: dict[nn.Module, str] = {}
    for path, module in walk(model):
        if isinstance(module, ProxyTypes):
            raise InvalidInput(
                f"{path}: is a weakref.proxy of a module, which torch takes for one more module, and eval() and to() "
                "end there; hold a weakref.ref, which is called, or the proxy in a tuple"
            )
        try:
            other = paths.setdefault(module, path)
        except TypeError as error:  # an `__eq__` without `__hash__`
            raise InvalidInput(f"{path or type(model).__name__}: {_say_equal(module, first_line(error))}") from error
        if other != path and (module._parameters or module._buffers or module._modules):
            raise InvalidInput(f"{other}: {_say_equal(module, f'it is equal to {path}')}")


def _say_equal(module: nn.Module, why: str) -> str:
    return (
        f"{type(module).__name__} has an __eq__ of its own ({why}), and torch takes equal modules for one: "
        "parameters(), to() and eval() pass over the others; let modules be compared by identity, by "
        "@dataclass(eq=False) say"
    )


_PUT = "put in its place what its"


def _word(kind: torch.layout | torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def put(module: nn.Module, place: torch.device | str) -> nn.Module:
    """The module itself, its weights there; what an `_apply` of its own returns is not used.

    Where a `to` of its own refuses, as those of networks in 8 bits do, torch's does it.
    """
    try:
        module.to(place)
    except Exception:  # whatever it raises
        nn.Module.to(module, place)
    return module


def prepare(module: nn.Module, place: torch.device | str = "cpu") -> nn.Module:
    """The same in float32 and in eval mode; a `train()` of its own, which keeps norms as they are, returns anything."""
    require_values(module)
    module.float()
    try:
        module.eval()
    except NotImplementedError:  # of a program of torch.export, whose mode was fixed when it was exported
        for part in module.modules():
            part.training = False
    return put(module, place)


def unwrap(model: nn.Module) -> nn.Module:
    """The network that torch.compile, or a module that shares batches out among devices, was given.

    One that computes something of its own besides, in a hook or by a method of somebody's, is left as it is.  Raises
    InvalidInput for a hook on what torch.compile gave, of which copies of it know nothing.
    """
    while True:
        compiled = _is_compiled(model)
        hooked = bool(model._forward_hooks or model._forward_pre_hooks)
        if compiled and hooked:
            raise InvalidInput("what torch.compile gave has a hook, which is not read; put it on the network")
        if not compiled and (hooked or not _only_shares_out(model)):
            return model
        model = cast(nn.Module, model._orig_mod if compiled else model.module)


def _is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile gave it."""
    return type(model).__module__ == "torch._dynamo.eval_frame"  # which takes long to import


def _only_shares_out(model: nn.Module) -> bool:
    """Whether it shares batches out among devices, and does no part of that itself; its attributes may be its own."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    wrapper = next((kind for kind in type(model).__mro__ if kind in wrappers), None)
    if wrapper is None or "forward" in vars(model):
        return False
    kinds = type(model).__mro__[: type(model).__mro__.index(wrapper)]
    own = {name for kind in kinds for name in vars(kind)}
    parts = {name for name in vars(wrapper) if not name.startswith("__")}
    return own.isdisjoint((*parts, "__call__", "_call_impl", "__getattribute__"))


def unwrap_inside(model: nn.Module, known: dict[int, nn.Module] | None = None) -> nn.Module:
    """The network without torch.compile, or what shares batches out, around it and the modules in it.

    Where there are some inside, a copy of what holds them, with the same weights.  What torch runs to compile a module,
    and its threads, are else taken for the network's code.
    known   what has been unwrapped already, by ids: modules with an `__eq__` of their own may be equal
    """
    known = {} if known is None else known
    plain = unwrap(model)
    if id(plain) not in known:
        held = plain._modules.items()
        inside = {name: child if child is None else unwrap_inside(child, known) for name, child in held}
        known[id(plain)] = plain
        if any(inside[name] is not child for name, child in held):
            known[id(plain)] = _hold(plain, inside)
    return known[id(plain)]


def _hold(model: nn.Module, inside: dict[str, nn.Module | None]) -> nn.Module:
    """A network with all that this one holds, but other modules: not by a `__getstate__`, which may leave some out."""
    other = object.__new__(type(model))
    vars(other).update(vars(model))
    vars(other).pop("_compiled_call_impl", None)
    vars(other)["_modules"] = inside
    for slot in list_slots(type(model)):
        if hasattr(model, slot):
            object.__setattr__(other, slot, getattr(model, slot))
    return other


@contextmanager
def running_itself(model: nn.Module) -> Iterator[None]:
    """Let a network itself, no copy, be run: without compiling it, and with what that writes into tensors put back."""
    tensors = [t for _, module in walk(model) for t in _list_tensors(vars(module)) if has_numbers(t)]
    data = [t.data for t in tensors]
    memory = {part.data_ptr(): part for part in map(_bytes_of, tensors)}.values()
    before = [part.clone() for part in memory]
    compiled = any(_is_compiled(module) or module._compiled_call_impl is not None for _, module in walk(model))
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        try:
            yield
        finally:
            for tensor, own in zip(tensors, data, strict=True):
                if (tensor.data_ptr(), tensor.shape) != (own.data_ptr(), own.shape):
                    tensor.data = own
            for part, numbers in zip(memory, before, strict=True):
                if not torch.equal(part, numbers):
                    part.copy_(numbers)


def has_numbers(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory, as none does on meta, nor a weight whose `data` was set to a fake tensor."""
    return tensor.layout == torch.strided and tensor.untyped_storage().device.type != "meta"


def _bytes_of(tensor: Tensor) -> Tensor:
    """All of the memory in which a tensor lies, whatever it shows of that: views may show some of it twice."""
    memory = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)


def _list_tensors(held: object, depth: int = 4) -> Iterator[Tensor]:
    """Tensors in containers in containers."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, (Mapping, list, tuple)) and depth:
        for value in leave_out_atoms(held.values() if isinstance(held, Mapping) else held):
            yield from _list_tensors(value, depth - 1)


@contextmanager
def compiling_nothing() -> Iterator[None]:
    """Let functions that torch.compile gave run as they are written, while it lasts, or what it decorates.

    The compiler fails where something listens to operations, and lets torch.fx trace nothing that was compiled.
    """
    dynamo = sys.modules.get("torch._dynamo")  # which takes long to import, and whoever compiles has done that
    if dynamo is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"), dynamo.config.patch(error_on_nested_fx_trace=False):
        yield


@contextmanager
def leaving_transforms() -> Iterator[None]:
    """Leave the transforms of torch.func (vmap, grad) that were begun in it, and not ended, as exported ones may be."""
    functions = torch._C._functorch
    depth = functions.get_dynamic_layer_stack_depth()
    try:
        yield
    finally:
        if functions.get_dynamic_layer_stack_depth() > depth:
            functions.pop_dynamic_layer_stack_and_undo_to_depth(depth)


class InFloat64(TorchFunctionMode):
    """Runs a module that was copied to float64, whose code may be written for float32.

    A cast to float32 (`x.float()`) leaves a float64 tensor as it is, but for one of float64 in the network itself, of
    which it gives another.  A constant that code makes, such as a kernel into which it writes weights, is of float64.
    One in float32 is left, since others may hold it (an attribute, or `torch.Tensor(3)`, of which torch tells nobody):
    beside float64 a copy of it is taken, and what is written into it is rounded, as it is in float32.
    Functions that torch.compile gave run as in `compiling_nothing`.
    """

    def __enter__(self) -> InFloat64:
        self._compiling_nothing = compiling_nothing()
        self._compiling_nothing.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._compiling_nothing.__exit__(*raised)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_list_tensors((args, kwargs), _DEEPEST))
        first: Any = next(iter((*args, *kwargs.values())), None)
        if func in _CASTS and _is(first, torch.float64):
            return _cast(func, first, func(*args, **kwargs), args, kwargs)
        if func in _DRAWN and _is(first, torch.float64):  # other numbers than in float32
            return first.copy_(func(first.float(), *args[1:], **kwargs))
        kinds = {x.dtype for x in given}
        if {torch.float32, torch.float64} <= kinds:
            result = _run_mixed(func, args, kwargs)
        else:
            result = func(*args, **kwargs)  # here, since a function of ours in between is taken for what runs a network
            made = _is(result, torch.float32) and torch.float32 not in kinds and result._base is None
            exports = func is torch.empty_strided or isinstance(func, torch._ops.OpOverload)
            shared = func in _SHARING and hasattr(first, "__array_interface__")  # with NumPy
            if made and not exports and func not in _OF_NUMBERS:  # by which torch.export makes some without numbers
                result = result.double()
            elif made and not exports and not shared:  # not rounded, as numbers beside tensors; some keep no pixels
                result = func(*args, **{**kwargs, "dtype": torch.float64})
        if any(map(_is_double, given)) and _promotes(given):
            for made in tree_leaves(result):
                if _is(made, torch.float64) and not any(made is x for x in given):
                    vars(made)[_DOUBLE] = True
        return result


_DOUBLE = "_is_double"
"""Of tensors that are of float64 in the network itself, too: of them a cast to float32 gives another tensor."""


def _is_double(value: Any) -> bool:
    return isinstance(value, Tensor) and _DOUBLE in vars(value)


def _promotes(given: Sequence[Tensor]) -> bool:
    """Whether what is computed of these is of float64 in the network itself: by numbers without axes it is not."""
    kinds = {(x.ndim > 0, _is_double(x)) for x in given if x.is_floating_point()}
    return (True, True) in kinds or (True, False) not in kinds


def _cast(func: Callable[..., Any], first: Tensor, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a cast in float64: that one, or another of its numbers where it gives another in float32.

    One that is asked for by `x.dtype` is asked for by float64 here, and taken for another.
    """
    if not (_is(result, torch.float32) or _is(result, torch.float64)):
        return result
    asked = [*args[1:], *kwargs.values()]
    kinds = [value for value in asked if isinstance(value, (str, type, torch.dtype))]
    likes = [value for value in asked if isinstance(value, Tensor)]
    wide = func is Tensor.double or not _WIDE.isdisjoint(kinds) or any(map(_is_double, likes))
    wide = wide or (_is_double(first) and func is not Tensor.float and not kinds and not likes)
    flags = [value for value in args[1:] if isinstance(value, bool)]  # non_blocking, copy
    copies = wide != _is_double(first) or bool(kwargs.get("copy")) or any(flags[1:])
    result = first if _is(result, torch.float32) else result
    result = result.clone() if copies else result
    if wide:
        vars(result)[_DOUBLE] = True
    return result


def _run_mixed(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a function of tensors in float32 and float64."""
    if func == _PUT_DATA:
        return func(*args, **kwargs)
    if writes_in_place(func):
        first, *others = args or (None,)
        if not isinstance(first, Tensor):
            return func(*args, **kwargs)
        return func(first, *tree_map(partial(_to, first.dtype), others), **tree_map(partial(_to, first.dtype), kwargs))
    wide = tree_map(partial(_to, torch.float64), kwargs)
    result = func(*tree_map(partial(_to, torch.float64), args), **wide)
    if kwargs.get("out") is None:
        return result
    for given, written in zip(tree_leaves(kwargs["out"]), tree_leaves(wide["out"]), strict=True):
        if given is not written:
            given.resize_(written.shape).copy_(written)
    return kwargs["out"]


def writes_in_place(func: Callable[..., Any]) -> bool:
    """Whether a function of torch changes its first operand, by its name: "copy_", in exported ones "copy_.default"."""
    return _IN_PLACE.fullmatch(getattr(func, "__name__", "").partition(".")[0]) is not None


_DEEPEST = 8  # lists within each other that an operation is given
_IN_PLACE = re.compile(r"(?!__).*[^_]_|__(setitem|i(?!nvert|ndex|nt)[a-z]+)__")
_PUT_DATA: Any = Tensor.data.__set__  # type: ignore[attr-defined]
_WIDE = frozenset([torch.float64, float, torch.DoubleTensor, "torch.DoubleTensor"])
_SHARING = (torch.as_tensor, torch.asarray)
_CASTS = frozenset([Tensor.float, Tensor.double, Tensor.to, Tensor.type, Tensor.type_as, *_SHARING])
_DRAWN = frozenset([Tensor.normal_, Tensor.random_, Tensor.uniform_])
_OF_NUMBERS = frozenset([
    *_SHARING, torch.tensor, torch.scalar_tensor, torch.full, torch.full_like, Tensor.new_tensor, Tensor.new_full,
])  # fmt: skip


def _is(value: Any, kind: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype == kind


def _to(kind: torch.dtype, x: Any) -> Any:
    """A number of a type in another, if it is a tensor of float32 or float64."""
    return x.to(kind) if _is(x, torch.float32) or _is(x, torch.float64) else x


def first_weight(model: nn.Module) -> Tensor:
    """A weight of a network, which tells where all are and in what dtype.

    One without numbers, float32 on the CPU, where it has none: a network read from ONNX or TFLite holds constants, and
    takes images as they come.
    """
    return next((t for t in list_weights(model).values() if t.is_floating_point()), torch.empty(0))


@contextmanager
def some_threads(count: int | None) -> Iterator[None]:
    """Let so many of torch's threads work while it lasts; None: as many as do now."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let one of torch's threads work while it lasts, or while what it decorates runs.

    Reading, compiling and checking are very many operations on few numbers each.  More threads gain nothing there,
    and where the processor has other work too, each operation waits until the last of them has had its turn: minutes
    instead of seconds.
    """
    with some_threads(1):
        yield


def enlarge(x: Tensor, factor: int, mode: str) -> Tensor:
    """Images (N, C, H, W) `factor` times as large.

    mode   "nearest": every pixel is repeated; or torch's "bilinear" and "bicubic", without aligned corners
    """
    align = {} if mode == "nearest" else {"align_corners": False}
    return nn.functional.interpolate(x, scale_factor=factor, mode=mode, **align)


def torch_device(name: str) -> torch.device:
    """The device of this name, "cpu" or "cuda", "cuda:1".  Raises InvalidInput where it is not to be had."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InvalidInput(f"device {name!r}: want cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"device {name!r}: want cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(
            f"device {name}: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices; check "
            "nvidia-smi, or install a build of torch with CUDA"
        )
    return device


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """While it lasts cuDNN computes float32 as such, not in TF32's 10 bits, and the same way every time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
