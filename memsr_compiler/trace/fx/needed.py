"""Which nodes of a torch.fx graph its result needs: what a network computes besides is not read, nor refused."""

from __future__ import annotations

import inspect
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import fx

from memsr_compiler.trace.torch_ops.registry import WORDS
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE

INPLACE = {
    "iadd": "add", "iand": "and_", "ifloordiv": "floordiv", "ilshift": "lshift", "imatmul": "matmul", "imod": "mod",
    "imul": "mul", "ior": "or_", "ipow": "pow", "irshift": "rshift", "isub": "sub", "itruediv": "truediv",
    "ixor": "xor",
}  # fmt: skip
ALIASES = (
    "slice", "chunk", "split", "split_with_sizes", "tensor_split", "narrow", "view", "reshape", "_unsafe_view",
    "transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "getitem", "select", "unbind", "squeeze",
    "unsqueeze", "flatten", "unflatten", "expand", "expand_as", "broadcast_to", "view_as", "reshape_as", "contiguous",
    "to", "_to_copy", "float", "double", "type", "type_as",
)  # fmt: skip
"""Operations whose result may be a view of what they are given, or, by its type or layout, that itself."""
ITSELF = ("detach", "alias", "dropout", "dropout2d", "feature_dropout", "alpha_dropout", "native_dropout")
"""Operations that give what they are given, or a view of all of it."""
_MAY_BE_VIEWS = ("einsum", "dequantize")  # of those that no reader takes: of one operand, and of float32
_ATTRIBUTES = "attributes"  # the memory of all parameters and buffers, which may be one under two names


def find_needed(graph: fx.Graph) -> frozenset[fx.Node]:
    """The inputs, and the nodes without which the result would be another.

    What changes a tensor in place counts where its memory is read later on, by whatever name.
    """
    memory = _find_memory(graph)
    needed: set[fx.Node] = set()
    read: set[object] = set()
    for node in reversed(graph.nodes):
        writes = any(memory[written] in read for written in list_written(node))
        if node in needed or writes or node.op in ("placeholder", "output") or _may_do_anything(node):
            needed.update((node, *node.all_input_nodes))
            read.update(memory[n] for n in (node, *node.all_input_nodes))
    return frozenset(needed)


def find_remembered(graph: fx.Graph) -> fx.Node | None:
    """The first node that writes something of an input into a parameter, a buffer or a constant; None without one.

    While torch.fx traces, a buffer is a tensor of numbers, by which code may decide: those of before the write.
    """
    memory = _find_memory(graph)
    of_image: set[fx.Node] = set()
    node: fx.Node
    for node in graph.nodes:
        if node.op == "placeholder" or not of_image.isdisjoint(node.all_input_nodes):
            of_image.add(node)
            if any(memory[written] is _ATTRIBUTES for written in list_written(node)):
                return node
    return None


def _find_memory(graph: fx.Graph) -> dict[fx.Node, object]:
    """The same for all nodes whose tensors may share memory."""
    memory: dict[fx.Node, object] = {}
    for node in graph.nodes:
        given = may_be(node)
        memory[node] = memory[given[0]] if given else _ATTRIBUTES if node.op == "get_attr" else node
        together = [memory[other] for other in given]
        if len(together) > 1:
            one = _ATTRIBUTES if _ATTRIBUTES in together else together[0]
            memory.update({n: one for n, m in memory.items() if m in together})
    return memory


def may_be(node: fx.Node) -> list[fx.Node]:
    """Operands of which a result may be a view, or which it may be: of what nobody knows all."""
    name = word_of(node)
    if node.op not in ("call_function", "call_method"):
        return []  # of the modules only norms are left whole
    if name in ALIASES or name in ITSELF or changes(node):
        return node.all_input_nodes[:1]
    new = name in WORDS or name in IMPOSSIBLE
    return [] if new and name not in _MAY_BE_VIEWS else node.all_input_nodes


def list_written(node: fx.Node) -> list[fx.Node]:
    """Operands into which an operation writes."""
    written = [node.kwargs.get("out")]
    if changes(node):
        every = word_of(node).startswith("_foreach_")  # of which lists are given
        written += node.all_input_nodes if every else node.all_input_nodes[:1]
    if node.op == "call_function":
        names, told = _list_operands(node.target)
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        of_image = next((given[name] for name in _BY_IMAGE if name in given), word_of(node) not in _KEEPING)
        written += [given.get(name) for name in (*told, *(_KEPT if of_image else ()))]
    found: list[fx.Node] = []
    fx.node.map_arg(written, found.append)
    return found


_KEPT = ("running_mean", "running_var")
"""Operands into which norms write a mean and a variance of the image, of which schemas of torch say nothing."""
_BY_IMAGE = ("training", "use_input_stats")
"""Operands that say whether norms do so."""
_KEEPING = ("_native_batch_norm_legit_no_training", "_batch_norm_no_update")
"""Norms without such an operand that do not."""


@cache
def _list_operands(function: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The operands of a function, by name, and those of them into which its schema says that it writes."""
    if isinstance(function, FunctionType):
        return _list_parameters(function), ()
    packet = getattr(torch.ops.aten, getattr(function, "__name__", ""), None)
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    overloads = [function] if isinstance(function, torch._ops.OpOverload) else overloads[:1]
    operands = [operand for overload in overloads for operand in overload._schema.arguments]
    written = (operand.name for operand in operands if operand.alias_info and operand.alias_info.is_write)
    return tuple(operand.name for operand in operands), tuple(written)


def changes(node: fx.Node) -> bool:
    """Whether an operation changes what it is given."""
    return is_inplace(node) or word_of(node) in ("setitem", "__setitem__")


def _may_do_anything(node: fx.Node) -> bool:
    """Whether a node is somebody's own code, fails on some images, or writes into what it is told to."""
    own = isinstance(node.target, FunctionType) and not node.target.__module__.startswith("torch.")
    return own or "out" in node.kwargs or "assert" in str(node.target)


def word_of(node: fx.Node) -> str:
    """The plain name of what a node calls: 'relu' for F.relu, Tensor.relu_, aten.relu.default."""
    target = node.target
    if isinstance(target, torch._ops.OpOverloadPacket):
        return target._qualified_op_name.removeprefix("aten::")
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.removeprefix("aten::").removeprefix("prims::").removesuffix("_")
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    if isinstance(target, FunctionType) and not target.__module__.startswith("torch."):
        return f"{target.__module__}.{name}"  # somebody's own, whatever its name
    name = INPLACE.get(_bare(name), name)
    return name if name.startswith("__") else name.removesuffix("_") or name


def _bare(name: str) -> str:
    """`ior` of `operator.ior` and of `Tensor.__ior__`, which torch calls where the left side is no image."""
    return name.strip("_") if name.startswith("__") else name


def is_inplace(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    name = name.partition(".")[0]  # mul_.Tensor
    return _bare(name) in INPLACE or (name.endswith("_") and not name.startswith("__")) or bool(_told_inplace(node))


def _told_inplace(node: fx.Node) -> Any:
    """Operand `inplace` of a function, of which torch takes all that is true: `nn.ReLU(1)`."""
    names = _list_parameters(node.target) if node.op == "call_function" else ()
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}.get("inplace", False)


@cache
def _list_parameters(function: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C, or without
        return ()
