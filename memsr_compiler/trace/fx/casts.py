"""Casts between float32 and float64 in programs of torch.export, which are run in float64 too; images of integers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.torch_helpers import HALVES, is_whole
from memsr_compiler.trace.fx.needed import word_of
from memsr_compiler.trace.fx.regions import list_programs

log = logging.getLogger(__name__)

_A = torch.ops.aten
_CHECK = _A._assert_tensor_metadata.default
_CASTS = (_A._to_copy.default, _A.to.dtype, _A.to.dtype_layout, _A.to.device, _A.to.other, _A.type_as.default)
_SELECT = frozenset({
    "alias", "cat", "chunk", "clone", "concat", "concatenate", "contiguous", "detach", "expand", "flatten", "flip",
    "getitem", "index", "index_select", "lift_fresh_copy", "movedim", "narrow", "permute", "pixel_shuffle",
    "pixel_unshuffle", "repeat", "repeat_interleave", "reshape", "select", "slice", "split", "split_with_sizes",
    "squeeze", "stack", "transpose", "unbind", "unflatten", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes",
    "unsqueeze", "view", "_unsafe_view",
})  # fmt: skip
"""What puts numbers elsewhere, and computes nothing with them."""


def refuse_autocast(model: nn.Module) -> None:
    """Raises UnsupportedModel for programs of torch.export that round to halves in parts, within torch.autocast.

    In float64 nothing is rounded there, nor on another device than that of which it speaks: networks are read on a CPU.
    """
    for path, program in model.named_modules():
        for node in program.graph.nodes if isinstance(program, fx.GraphModule) else ():
            if getattr(node.target, "_name", "") != "wrap_with_autocast":
                continue
            device, kind, enabled = node.args[:3]
            if device == "cpu" and enabled:
                name = "halves" if kind is None else _name(kind)
                raise UnsupportedModel(
                    f"{path or 'the network'}: torch.autocast: a cast to {name} rounds values; leave it away, or "
                    "export within torch.autocast('cpu', enabled=False), and check the PSNR"
                )


def has_dtypes(program: fx.GraphModule) -> bool:
    """Whether a program demands the type that it was exported in; torch.export does so beside most casts."""
    return any(node.target == _CHECK or node.target in _CASTS for node in program.graph.nodes)


def drop_dtype_checks(graph: fx.Graph) -> None:
    """Take out of an exported graph what demands the type of the image that it was exported with, beside each cast."""
    for node in list(graph.nodes):
        if node.target == _CHECK:
            graph.erase_node(node)


def integers_of_image(graph: fx.Graph) -> torch.dtype | None:
    """The type of integers of which a program takes its image, uint8 say; None of others."""
    values = (node.meta.get("val") for node in graph.nodes if node.op == "placeholder")
    image = next((value for value in values if isinstance(value, Tensor)), None)
    return image.dtype if image is not None and image.dim() in (3, 4) and is_whole(image) else None


def range_of_integers(model: nn.Module) -> tuple[float, float] | None:
    """The input values of a program that takes images of uint8, which can be no others; None of all else."""
    kinds = (program.meta.get(INTEGERS) or integers_of_image(program.graph) for program in list_programs(model))
    return (0.0, 255.0) if torch.uint8 in kinds else None


INTEGERS = "memsr_compiler.integers"
"""In the notes of a program from a file, the type of integers of which it took its image."""


def tell_integers(graph: fx.Graph) -> tuple[str, ...]:
    """Warn of a program that takes images of integers; words on what is assumed of it: see `Teacher.assumed`."""
    kind = integers_of_image(graph)
    if kind is None:
        return ()
    log.warning("it was exported for images of %s: read as for the same values as floating-point numbers", _name(kind))
    return (f"its images, of {_name(kind)}, are given as floating-point numbers of the same values",)


def _use_floats(graph: fx.Graph) -> set[fx.Node]:
    """Let a program that takes an image of integers, or halves, take the same values in float32; what was of those.

    That is the same program where it casts them before it computes: sums and products of uint8 begin again at 256.
    One that computes with halves stays as it is.  Raises UnsupportedModel where it computes with integers.
    """
    images = [node for node in graph.nodes if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)]
    whole = integers_of_image(graph)
    if not images or (whole is None and images[0].meta["val"].dtype not in HALVES):
        return set()
    kind = images[0].meta["val"].dtype
    of_kind = {images[0]}
    for node in graph.nodes:
        if of_kind.isdisjoint(node.all_input_nodes) or node.op == "output":
            continue
        made = node.meta.get("val")
        several = made if isinstance(made, (tuple, list)) else (made,)
        if not all(isinstance(one, Tensor) and (one.dtype == kind or is_whole(one)) for one in several):
            continue  # a size; a cast; a quotient, which torch computes in float32
        if word_of(node) not in _SELECT and not (node.target in _CASTS and several[0].dtype == kind):
            if whole is None:
                return set()
            raise UnsupportedModel(
                f"the network: {word_of(node)}: the program takes images of {_name(kind)} and computes with them as "
                "integers, which are rounded and begin again beyond their largest; cast the image first, x.float(), "
                "and export it again"
            )
        of_kind.add(node)
    for node in of_kind:
        node.meta["val"] = tree_map(lambda one: one.to(torch.float32), node.meta["val"])
    return of_kind


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def forget_dtypes(program: fx.GraphModule) -> None:
    """Take casts between float32 and float64, and demands for a type, out of a network: it is run in float64 too.

    `x.float()`, `mean.type_as(x)` and the like leave both, for the type that it was exported in.  What casts to
    another type stays another tensor, as code may write into it.
    """
    drop_dtype_checks(program.graph)
    now_floats = _use_floats(program.graph)
    _follow_image(program.graph)
    for node in list(program.graph.nodes):
        if node.target not in _CASTS or not _is_exact(node):
            continue
        given = node.all_input_nodes[0]
        asked = _list_asked(node)
        copies = given in now_floats or _makes_a_copy(node, asked)
        layout = asked.get("memory_format")
        if given.op == "get_attr" and not _is_exact(given):
            _store_as_floats(program, given)
        if not _is_exact(given):
            continue
        if copies:
            node.target, node.args, node.kwargs = _A.clone.default, (given,), {}
        elif layout not in (None, torch.preserve_format):  # which is a copy too, where the image is not laid out so
            node.target, node.args, node.kwargs = _A.to.dtype_layout, (given,), {"memory_format": layout}
        else:
            node.replace_all_uses_with(given)
            program.graph.erase_node(node)


def _follow_image(graph: fx.Graph) -> None:
    """Let tensors that are made as another, or as large as the image to be written into, be of its type, float64 say.

    `torch.zeros(y.shape, dtype=y.dtype)` is exported with float32: what is written into it would be rounded.
    """
    images = [node for node in graph.nodes if node.op == "placeholder" and _is_exact(node)]
    for node in graph.nodes:
        if node.target in _LIKE and "dtype" in node.kwargs and all(map(_is_exact, (node, node.args[0]))):
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "dtype"}
        elif (
            node.target in _MADE
            and len(images) == 1
            and _is_exact(node)
            and _has_a_side(node.args[0])
            and _is_written(node)
        ):
            node.target, node.args, node.kwargs = _MADE[node.target], (images[0], *node.args), {}


def _is_written(node: fx.Node) -> bool:
    """Whether something is written into a tensor, or into a view of it."""
    for user in node.users:
        target = user.target
        if not isinstance(target, torch._ops.OpOverload) or user.args[0] is not node:
            continue
        alias = target._schema.arguments[0].alias_info
        if (alias is not None and alias.is_write) or (target.is_view and _is_written(user)):
            return True
    return False


def _has_a_side(sizes: Any) -> bool:
    return any(isinstance(size, fx.Node) for size in sizes)


_LIKE = (
    _A.zeros_like.default, _A.ones_like.default, _A.full_like.default, _A.empty_like.default, _A.new_zeros.default,
    _A.new_ones.default, _A.new_full.default,
)  # fmt: skip
_MADE = {
    _A.zeros.default: _A.new_zeros.default, _A.ones.default: _A.new_ones.default, _A.full.default: _A.new_full.default,
}  # fmt: skip


def _list_asked(cast: fx.Node) -> dict[str, Any]:
    """The operands of a cast, by name."""
    target = cast.target
    assert isinstance(target, torch._ops.OpOverload), "it is a cast"
    return dict(zip((argument.name for argument in target._schema.arguments), cast.args, strict=False)) | cast.kwargs


def _makes_a_copy(cast: fx.Node, asked: Mapping[str, Any]) -> bool:
    """Whether a cast gives another tensor, in which code may write; where it is exported as functions, none does."""
    if cast.target == _A._to_copy.default:
        return False
    given = cast.all_input_nodes[0].meta.get("val")
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
