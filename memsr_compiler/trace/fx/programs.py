"""Programs of torch.fx, those of torch.export among them: whether a graph is all that runs, and what asks for sizes."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from inspect import getclosurevars
from itertools import chain
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.torch_helpers import copy_module, list_weights
from memsr_compiler.trace.fx.casts import forget_dtypes, has_dtypes, integers_of_image, tell_integers
from memsr_compiler.trace.fx.guards import list_found, tell_exported
from memsr_compiler.trace.fx.regions import inline_regions, list_programs, list_regions
from memsr_compiler.trace.fx.rewritten import forget_shape, require_same, run_as_made
from memsr_compiler.trace.fx.shuffles import RESHAPES, has_shuffles, restore_shuffles
from memsr_compiler.trace.fx.size_arithmetic import require_short_numbers
from memsr_compiler.trace.own_code.own_files import is_foreign

_OPERATIONS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)
_UNHEARD = ("attrgetter", "call", "contains", "countOf", "indexOf", "is_", "is_not", "itemgetter", "methodcaller")
_ARITHMETIC = frozenset(getattr(operator, name) for name in operator.__all__ if name not in _UNHEARD)


def is_graph_alone(program: fx.GraphModule, knows: Callable[[Any], bool], knows_name: Callable[[str], bool]) -> bool:
    """Whether torch calls a program as it calls its own, and all that its graph calls tells a tracer of it.

    knows        whether a function is known to do so
    knows_name   whether the name of a method, or of an attribute, is
    """
    code = program.graph._codegen
    made = not is_foreign(_file_of(type(code).generate_output)) and code._body_transformer is None
    told = all(_is_told(node, knows, knows_name) for node in program.graph.nodes)
    return made and told and _is_called_as_torch_does(program)


def _is_called_as_torch_does(program: fx.GraphModule) -> bool:
    calls = [vars(base)["__call__"] for base in type(program).__mro__ if "__call__" in vars(base)]
    kind: Any = type(program)
    return kind._wrapped_call.cls_call is None and not any(map(is_foreign, map(_file_of, calls)))


def require_whole(model: nn.Module) -> None:
    """Raises InvalidInput for forms of programs of torch.export that lack their weights, or that torch cannot copy."""
    regions = {
        f"{path}.{name}".lstrip(".")
        for path, program in model.named_modules()
        if isinstance(program, fx.GraphModule)
        for name in list_regions(program)
    }
    for path, module in model.named_modules():
        what = ""
        if f"{type(module).__module__}.{type(module).__name__}" == _UNFLATTENED:
            what = "what torch.export.unflatten makes of a program, which torch cannot copy"
        elif isinstance(module, fx.GraphModule) and _takes_weights(module.graph) and path not in regions:
            what = "the graph_module of a program of torch.export, which lacks its weights"
        if what:
            raise InvalidInput(f"{path or 'the network'}: it is {what}; give program.module()")


def _takes_weights(graph: fx.Graph) -> bool:
    """Whether a graph takes weights and buffers beside images, by the names that torch.export gives them."""
    inputs = [node for node in graph.nodes if node.op == "placeholder" and isinstance(node.meta.get("val"), FakeTensor)]
    return len(inputs) > 1 and any(re.match(r"[pbc]_\w", node.name) for node in inputs)


_UNFLATTENED = "torch.export.unflatten.UnflattenedModule"


def without_guards(model: nn.Module) -> nn.Module:
    """A network without what torch.export puts into its programs: questions whether an image is as they take it.

    Its programs then take any number of images, in float64 too, and any size where that is free, as they do when read
    from a file.  A copy, where there are such questions; `tell_guarded` tells of them.
    """
    if not any(map(_is_exported, model.modules())):
        return model
    given, model = model, copy_module(model, None)
    for path, program in given.named_modules():
        if _is_exported(program):
            _require_untouched(path, program, model.get_submodule(path))
    for program in filter(_is_exported, list_programs(model)):
        guards = _list_guards(program)
        for node in guards:
            program.graph.erase_node(node)
            delattr(program, str(node.target))
        if guards and not any(isinstance(side, int) for side in _shape_of(program)[-2:]):
            program._forward_pre_hooks.clear()  # of torch.export itself, which ask for the same
        generalise(program)
    return model


def _require_untouched(path: str, program: nn.Module, copied: nn.Module) -> None:
    """Raises InvalidInput for a program that does something else than its graph, of which its copy is made anew.

    Many take no small image, as they were made for one size, and are compared with nothing by running them.
    """
    assert isinstance(program, fx.GraphModule), "it has been asked"
    asked = [program.get_submodule(str(node.target)) for node in _list_guards(program)]
    hooks = [
        hook
        for part in (program, *asked)
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
    ]
    code, graphs = (getattr(type(one).forward, "__code__", None) for one in (program, copied))
    as_its_graph = code == graphs and "forward" not in vars(program) and _is_called_as_torch_does(program)
    kinds = _list_kinds(copied)  # but for what its graph has no use for
    of_its_kind = all(kinds.get(name, kind) is kind for name, kind in _list_kinds(program).items())
    if not (as_its_graph and of_its_kind and all(map(_is_torchs, hooks))):
        raise InvalidInput(
            f"{path or 'the network'}: something was put on what torch.export made, a hook say, a forward of its own, "
            "weights or parts whose copies are of another class, or a graph that was changed and not recompiled; give "
            "it as torch.export made it, in a module that does the rest"
        )


def _list_kinds(program: nn.Module) -> dict[str, type]:
    """The class of each part of a program, but for other programs, which have each their own, and of each tensor."""
    kinds = {name: type(tensor) for name, tensor in list_weights(program).items()}
    for path, part in program.named_modules():
        held = {name: value for name, value in vars(part).items() if isinstance(value, Tensor)}
        kinds |= {f"{path}.{name}".lstrip("."): type(tensor) for name, tensor in held.items()}
        if not isinstance(part, fx.GraphModule):
            kinds[path] = type(part)
    return kinds


def _is_torchs(hook: Any) -> bool:
    """Whether a hook is one of those by which torch.export asks what its programs are given."""
    return isinstance(hook, FunctionType) and hook.__module__.startswith("torch.export.")


def generalise(program: fx.GraphModule) -> None:
    """Let a program of torch.export take any number of images, in float64 too; what it computes stays the same.

    Raises InvalidInput for one whose sizes take too long to compute, or that was exported for single images and does
    something else to a batch of one; UnsupportedModel where it does something else after all.
    """
    inline_regions(program)
    require_short_numbers(program.graph)
    runs = run_as_made(program)
    restore_shuffles(program.graph)
    flatten_pixels(program.graph)
    free_batch(program.graph)
    forget_dtypes(program)
    program.recompile()
    if any(x.dim() == 3 for x, _ in runs):
        forget_shape(program)
    require_same(program, runs)


def _is_exported(module: nn.Module) -> bool:
    return isinstance(module, fx.GraphModule) and (
        bool(_list_guards(module))
        or bool(_shape_of(module))
        or has_dtypes(module)
        or bool(list_regions(module))
        or has_shuffles(module.graph)
        or integers_of_image(module.graph) is not None
    )


def tell_guarded(model: nn.Module) -> tuple[str, ...]:
    """Warn of programs of torch.export that were made for some images; words on what is assumed of them."""
    told = [words for program in list_programs(model) for words in tell_integers(program.graph)]
    for path, program in _list_untold(model):
        guards = [program.get_submodule(str(node.target)) for node in _list_guards(program)]
        shape = _shape_of(program)
        asked = chain.from_iterable(map(_texts_of, guards)) if guards else list_found(shape)
        told += tell_exported(shape, asked, f"its part {path}" if path else "it")  # which is given features, maybe
    return tuple(dict.fromkeys(told))


def _texts_of(guard: nn.Module) -> list[str]:
    """Demands of a module that torch.export puts in, in its own words, which are those of its errors."""
    codes = list(_list_codes(vars(guard).get("forward")))
    texts = [text for code in codes for text in code.co_consts if isinstance(text, str) and text.startswith(_FAILED)]
    made = [code for code in codes if code.co_name == "_"]  # as torch.export calls what it makes
    known = bool(made) and not any(is_foreign(code.co_filename) for code in codes if code not in made)
    return [text.removeprefix(_FAILED) for text in texts] if known else ["what its guards demand"]


_FAILED = "Guard failed: "


def _list_codes(function: Any, depth: int = 3) -> Iterator[CodeType]:
    """The code of a function, and of those that it wraps."""
    if isinstance(function, FunctionType):
        yield function.__code__
        for held in getclosurevars(function).nonlocals.values() if depth else ():
            yield from _list_codes(held, depth - 1)


def _list_untold(model: nn.Module, path: str = "") -> Iterator[tuple[str, fx.GraphModule]]:
    """Programs of torch.export that have been told of by nobody, but for parts of others, which take no images."""
    if not isinstance(model, fx.GraphModule):
        for name, part in model.named_children():
            yield from _list_untold(part, f"{path}.{name}".lstrip("."))
    elif TOLD not in model.meta:
        yield path, model


TOLD = "memsr_compiler.told"
"""In the notes of a program whose file has been told of."""


def _list_guards(program: fx.GraphModule) -> list[fx.Node]:
    """Calls of what torch.export puts in to ask for the sizes for which a program was made."""
    calls = [node for node in program.graph.nodes if node.op == "call_module" and not node.users]
    kinds = {node: type(program.get_submodule(str(node.target))) for node in calls}
    return [node for node, kind in kinds.items() if f"{kind.__module__}.{kind.__name__}" == _GUARDS]


_GUARDS = "torch.export._unlift.GuardsFn"


def _shape_of(program: fx.GraphModule) -> tuple[Any, ...]:
    """The shape of the image that a program was made for; symbols stand for sizes that are free."""
    inputs = (node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder")
    return next((tuple(value.shape) for value in inputs if isinstance(value, FakeTensor)), ())


def flatten_pixels(graph: fx.Graph) -> None:
    """Let a reshape ask for -1 where it writes the number of pixels as a product of sizes, as `y.flatten(2)` becomes.

    That is the same number, and a product of a height with a width is nothing that readers know.
    """
    of_image: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not of_image.isdisjoint(node.all_input_nodes):
            of_image.add(node)
        if node.target not in RESHAPES or node.args[0] not in of_image or not isinstance(node.args[1], (list, tuple)):
            continue
        sizes = list(node.args[1])
        products = [i for i, size in enumerate(sizes) if isinstance(size, fx.Node) and _is_area(size)]
        if len(products) == 1 and -1 not in sizes:
            sizes[products[0]] = -1
            node.args = (node.args[0], sizes)


def _is_area(size: fx.Node) -> bool:
    """Whether a size is a product of two sizes of an image."""
    return size.target is operator.mul and all(isinstance(factor, fx.Node) for factor in size.args)


def free_batch(graph: fx.Graph) -> None:
    """Let what a graph that was exported for one image writes as 1, the number of images, be any.

    For one image it stays the same graph: the number is asked of the image, or follows from the other sizes.
    """
    images = [node for node in graph.nodes if node.op == "placeholder" and _is_one_image(node)]
    if len(images) != 1:
        return
    count: fx.Node | None = None
    of_image = set(images)
    for node in list(graph.nodes):
        made = node.meta.get("val")
        several = isinstance(made, (tuple, list)) and any(isinstance(one, Tensor) for one in made)
        if (several or isinstance(made, Tensor)) and not of_image.isdisjoint(node.all_input_nodes):
            of_image.add(node)
        place = _place_of_sizes(node)
        if place is None or len(node.args) <= place or not isinstance(node.args[place], (list, tuple)):
            continue
        if not node.args[place]:  # of one number
            continue
        first, *others = node.args[place]
        reshapes = node.target in RESHAPES and node in of_image
        made_as_large = node.target not in RESHAPES and any(isinstance(size, fx.Node) for size in others)
        if isinstance(first, fx.Node) or first != 1 or not others or not (reshapes or made_as_large):
            continue
        if reshapes and -1 not in others:
            first = -1
        elif count is None:
            with graph.inserting_after([other for other in graph.nodes if other.op == "placeholder"][-1]):
                first = count = graph.call_function(torch.ops.aten.sym_size.int, (images[0], 0))
        else:
            first = count
        node.args = (*node.args[:place], [first, *others], *node.args[place + 1 :])


def _is_one_image(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() == 4 and type(value.shape[0]) is int and value.shape[0] == 1


def _place_of_sizes(node: fx.Node) -> int | None:
    """Where among its arguments an operation takes the shape of what it gives; None of others."""
    if node.target in RESHAPES or node.target in _MAKES_LIKE:
        return 1
    return 0 if node.target in _MAKES else None


_A = torch.ops.aten
_MAKES_LIKE = (_A.new_zeros.default, _A.new_ones.default, _A.new_full.default)
_MAKES = (_A.zeros.default, _A.ones.default, _A.full.default)


def _is_told(node: fx.Node, knows: Callable[[Any], bool], knows_name: Callable[[str], bool]) -> bool:
    if node.op == "call_method":
        return knows_name(str(node.target))
    if node.op != "call_function":
        return True
    if node.target is getattr:
        return isinstance(node.args[1], str) and knows_name(node.args[1])
    return isinstance(node.target, _OPERATIONS) or node.target in _ARITHMETIC or knows(node.target)


def _file_of(function: Any) -> str:
    return function.__code__.co_filename if isinstance(function, FunctionType) else ""
