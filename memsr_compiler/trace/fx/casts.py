"""Casts between float32 and float64 in programs of torch.export, which are run in float64 too."""

from __future__ import annotations

import torch
from torch import Tensor, fx

_A = torch.ops.aten
_CHECK = _A._assert_tensor_metadata.default
_CASTS = (_A._to_copy.default, _A.to.dtype, _A.to.dtype_layout, _A.to.device, _A.to.other)


def has_dtypes(program: fx.GraphModule) -> bool:
    """Whether a program demands the type that it was exported in; torch.export does so beside most casts."""
    return any(node.target == _CHECK or node.target in _CASTS for node in program.graph.nodes)


def drop_dtype_checks(graph: fx.Graph) -> None:
    """Take out of an exported graph what demands the type of the image that it was exported with, beside each cast."""
    for node in list(graph.nodes):
        if node.target == _CHECK:
            graph.erase_node(node)


def forget_dtypes(program: fx.GraphModule) -> None:
    """Take casts between float32 and float64, and demands for a type, out of a network: it is run in float64 too.

    `x.float()`, `mean.type_as(x)` and the like leave both, for the type that it was exported in.  What casts to
    another type stays another tensor, as code may write into it.
    """
    drop_dtype_checks(program.graph)
    for node in list(program.graph.nodes):
        if node.target not in _CASTS or not _is_exact(node):
            continue
        given, copies = node.all_input_nodes[0], _makes_a_copy(node)
        if given.op == "get_attr" and not _is_exact(given):
            _store_as_floats(program, given)
        if not _is_exact(given):
            continue
        if copies:
            node.target, node.args, node.kwargs = _A.clone.default, (given,), {}
        else:
            node.replace_all_uses_with(given)
            program.graph.erase_node(node)


def _makes_a_copy(cast: fx.Node) -> bool:
    """Whether a cast gives another tensor, in which code may write; where it is exported as functions, none does."""
    if cast.target == _A._to_copy.default:
        return False
    given, target = cast.all_input_nodes[0].meta.get("val"), cast.target
    assert isinstance(target, torch._ops.OpOverload), "it is a cast"
    asked = dict(zip((argument.name for argument in target._schema.arguments), cast.args, strict=False)) | cast.kwargs
    return bool(asked.get("copy")) or not isinstance(given, Tensor) or given.dtype != cast.meta["val"].dtype


def _store_as_floats(program: fx.GraphModule, node: fx.Node) -> None:
    """Keep an integer buffer that only casts read in the type to which they take it, of a quantised weight say.

    A module that is taken to float64 takes its floating-point buffers along, and those alone.
    """
    readers = [other for other in program.graph.nodes if other.op == "get_attr" and other.target == node.target]
    casts = [cast for reader in readers for cast in reader.users]
    types = {cast.meta["val"].dtype if cast.target in _CASTS and _is_exact(cast) else None for cast in casts}
    stored = node.meta.get("val")
    if isinstance(stored, Tensor) and not stored.is_floating_point() and len(types) == 1 and None not in types:
        path, _, name = str(node.target).rpartition(".")
        owner = program.get_submodule(path)
        setattr(owner, name, getattr(owner, name).to(*types))
        for reader in readers:
            reader.meta["val"] = casts[0].meta["val"]


def _is_exact(node: fx.Node) -> bool:
    """Whether a value is in a type to which a cast takes nothing that counts; float16 and float8 round."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float64)
