"""Reading .pt2 files of torch.export without running what a hostile one asks for.

torch's own loader trusts the archive. It unpickles weights, constants and sample inputs where the archive
says so; it evaluates the text of symbolic sizes; it takes any attribute of the module `torch` (its import of
`os` included) as the target of a node; it imports the modules that a pytree names; and it generates Python
from the names of values. So an archive is read first, and loaded only if nothing in it goes beyond what
exported networks of tensors need.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import nn

from memsr_compiler.errors import InvalidInput, MemsrError, first_line
from memsr_compiler.quantities import say_count
from memsr_compiler.teachers import archive
from memsr_compiler.teachers.pickle_scan import WITH_ATTRIBUTES, foreign_imports
from memsr_compiler.teachers.pt2_operations import is_checked, require_norms_that_fit
from memsr_compiler.teachers.pt2_sizes import is_condition, require_short_sizes, say_sizes
from memsr_compiler.trace.fx.casts import INTEGERS, integers_of_image, refuse_autocast, tell_integers
from memsr_compiler.trace.fx.claims import require_true
from memsr_compiler.trace.fx.programs import TOLD, generalise
from memsr_compiler.trace.fx.regions import inline_regions, list_nodes

_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|extra/.*"
)
# What `with torch.no_grad():` and autocast inside forward leave: a call of a part of the same program.
_WRAPPED = re.compile(r"torch\.ops\.higher_order\.(wrap_with_(set_grad_enabled|autocast)|cond)")
_SIZE_ARITHMETIC = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|torch\.sym_\w+|math\.(trunc|ceil|floor|sqrt)"
)
_PLAIN_TEXT = re.compile(r"[\w.:+-]*")
_EQUATION = re.compile(r"[\w.,> -]*")  # of einsum, "om,micd->oicd"
_RUNTIME_ASSERTION = re.compile(r"Runtime assertion failed for expression [\w().,<>=!*+/% -]* on node '\w+'")
_SIZE_FORMULA = re.compile(r"[\w*+ ()-]*")  # "2*s39", what torch keeps a range of; it is compared, and not evaluated
_EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword,
    ast.UnaryOp, ast.USub, ast.UAdd,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod, ast.Pow,
)  # fmt: skip
_EXPRESSION_FUNCTIONS = frozenset([
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality", "StrictLessThan",
    "LessThan", "StrictGreaterThan", "GreaterThan", "FloorDiv", "CeilDiv", "CleanDiv",
    "ModularIndexing", "PythonMod", "IntTrueDiv", "FloatTrueDiv", "PowByNatural", "CeilToInt",
    "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat", "Where", "Identity",
])  # fmt: skip
_SYMBOL = re.compile(r"Symbol\(")
_WHOLE = re.compile(r"(?:Integer\()?(-?\d{1,3})\)?")
_LARGEST_EXPONENT = 16
_MOST_COMPARED = 16  # sizes, of which Max and Min compare each with each
_CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})


def suspicions(data: bytes) -> list[str]:
    """Things that loading this .pt2 archive would do beyond making a network of tensors, one phrase each.

    data  the whole file

    Nothing is executed. Raises InvalidInput if it is no such archive, is damaged, or declares tensors larger
    than it stores.
    """
    members = archive.check_archive(data)
    try:
        # The loader's own zip reader, because two readers can be made to disagree about an archive.
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
        records = reader.get_all_records()
        contents = {name: reader.get_record(name) for name in records if not name.startswith("extra/")}
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(f"damaged zip archive ({first_line(error)})") from error
    order = contents.get("byteorder", b"little")
    if order != b"little":
        raise InvalidInput(f"says that its byte order is {order[:20]!r}; export it again, on a machine like this one")
    reasons = [f"holds {name!r}" for name in records if not _RECORDS.fullmatch(name)]
    # The loader turns to these when it fails on the rest, with another zip reader.
    reasons += [f"holds {name!r}" for name in members if name == "version" or name.startswith("serialized_")]
    try:
        for kind in ("weights", "constants"):
            config = json.loads(contents[f"data/{kind}/model_{kind}_config.json"])["config"]
            reasons += _payload_suspicions(config, f"data/{kind}/", contents)
        program = json.loads(contents["models/model.json"])
        reasons += _json_suspicions(program)
        if not reasons:  # else a text may be no expression
            require_short_sizes(program)
        samples = contents["data/sample_inputs/model.pt"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"an incomplete archive of torch.export ({type(error).__name__}: {first_line(error)})"
        ) from error
    if samples:
        # Any other format would be unpickled as well, by older code with more ways in.
        inner = samples.startswith(archive.MAGIC)
        if inner:
            archive.check_archive(samples)
        imported = foreign_imports(samples) if inner else ["(not a zip archive)"]
        imported = [name for name in imported if name not in WITH_ATTRIBUTES]  # as Dim.DYNAMIC leaves one in the image
        reasons += [f"imports {name} in its sample inputs" for name in imported]
    return list(dict.fromkeys(reasons))


def load_exported(data: bytes) -> tuple[nn.Module, tuple[str, ...]]:
    """The network in a .pt2 archive as a module in ATen operations, in evaluation mode; what is assumed.

    Executes whatever the archive asks for: call `suspicions` first. Raises InvalidInput if torch cannot load
    it.
    """
    with _hold_back_log() as told:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # which some versions of torch raise about themselves
                program = torch.export.load(io.BytesIO(data))
                _lay_out(program)
                _require_types(program)
                require_norms_that_fit(program)
                _require_evaluation(program)
                refuse_autocast(program.graph_module)
                assumed = say_sizes(program)
                program._guards_code = []  # it is told, and text that torch would compute
                module: Any = program.module(check_guards=False)
                assumed = (*assumed, *tell_integers(module.graph))
                module.meta |= {TOLD: True, INTEGERS: integers_of_image(module.graph)}
                _take_any_size(module)
                inline_regions(module)
                require_true(module)
                generalise(module)
        except MemsrError:
            raise
        except Exception as error:  # torch raises whatever the damage leads to
            cause = told[0] if told else error
            raise InvalidInput(f"torch.export cannot load it ({type(cause).__name__}: {first_line(cause)})") from error
    for part in module.modules():
        part.training = False  # an exported module refuses eval(): its mode was fixed when it was exported
    return module, assumed


def _take_any_size(module: Any) -> None:
    """Let a network take images of any size, where that is not one: its hooks ask for what `say_sizes` has told.

    module   a GraphModule of torch.fx
    """
    if any(node.op == "placeholder" and _is_of_any_size(node) for node in module.graph.nodes):
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()


def _is_of_any_size(image: Any) -> bool:
    """Whether an input of the network is an image whose height and width may differ."""
    shape = getattr(image.meta.get("val"), "shape", ())
    return len(shape) in (3, 4) and not any(isinstance(side, int) for side in shape[-2:])


@contextlib.contextmanager
def _hold_back_log() -> Iterator[list[BaseException]]:
    """The errors that torch.export logs, with their tracebacks, where it raises another that only points at them."""
    told: list[BaseException] = []

    def hold(record: logging.LogRecord) -> bool:
        told.extend(error for error in (record.exc_info or ())[1:2] if isinstance(error, BaseException))
        return False

    log = logging.getLogger("torch.export")
    log.addFilter(hold)
    try:
        yield told
    finally:
        log.removeFilter(hold)


def _lay_out(program: torch.export.ExportedProgram) -> None:
    """Give stored weights memory of their own, of which several numbers lie in one place: the file says where they lie.

    Some of torch's operations read as many as there are from the first on, and write there.
    """
    for stored in (program.state_dict, program.constants):
        for name, tensor in stored.items():
            if isinstance(tensor, torch.Tensor) and torch._debug_has_internal_overlap(tensor):
                apart = tensor.detach().clone(memory_format=torch.contiguous_format)
                stored[name] = nn.Parameter(apart, False) if isinstance(tensor, nn.Parameter) else apart


def _require_types(program: torch.export.ExportedProgram) -> None:
    """Raises InvalidInput where the program was made for weights of another type or shape than the file stores."""
    stored = {**program.constants, **program.state_dict}
    kept = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    for node in program.graph.nodes:
        name, due = kept.get(node.name), node.meta.get("val")
        have = None if name is None else stored.get(name)
        if not (isinstance(have, torch.Tensor) and isinstance(due, torch.Tensor)):
            continue
        if (have.dtype, have.shape) != (due.dtype, due.shape):
            words = (f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in (have, due))
            raise InvalidInput("{}: is stored as {}, and the program takes {}; export it again".format(name, *words))


def _require_evaluation(program: torch.export.ExportedProgram) -> None:
    """Raises InvalidInput for a program in training mode, whose batch norms and dropouts no later eval() reaches."""
    for _, node in list_nodes(program.graph_module):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        schema = node.target._schema
        for place, argument in enumerate(schema.arguments):
            said = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, False)
            if argument.name in ("training", "train") and said and not _drops_nothing(node):
                name = schema.name.removeprefix("aten::")
                raise InvalidInput(
                    f"{node.name}: was exported in training mode, in which {name} computes something else; "
                    "export network.eval() again"
                )


def _drops_nothing(node: Any) -> bool:
    """Whether it is a dropout of nothing, `F.dropout(x, 0.0)`, which every mode leaves as it is."""
    return "dropout" in node.target._schema.name and (*node.args[1:], node.kwargs.get("p"))[0] == 0


def _payload_suspicions(config: Mapping[str, Any], folder: str, contents: Mapping[str, bytes]) -> Iterator[str]:
    for name, entry in config.items():
        path = folder + entry["path_name"]
        if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            yield f"unpickles {name!r} from {path!r}"
            continue
        # Torch makes zeros of any declared size for an empty record.
        size = prod(dimension["as_int"] for dimension in entry["tensor_meta"]["sizes"])
        if size > len(contents[path]):
            raise InvalidInput(
                f"{name}: declares {say_count(size, 'number')}, and the file stores "
                f"{say_count(len(contents[path]), 'byte')}"
            )


def _json_suspicions(node: Any, key: str = "") -> Iterator[str]:
    """Every text in the program that the loader would evaluate, import or write into code as it stands."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "metadata" and all(isinstance(text, str) for text in value.values()):
                continue  # of a node: stack traces and module paths, which stay text
            if not (key == "range_constraints" and _SIZE_FORMULA.fullmatch(name)):
                yield from _json_suspicions(name)
            yield from _json_suspicions(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _json_suspicions(value, key)
    elif isinstance(node, str) and not _harmless_text(key, node):
        yield f"has {f'{key} {node[:60]!r}' if key else f'the key {node[:60]!r}'}"


def _harmless_text(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return is_checked(text) or any(pattern.fullmatch(text) for pattern in (_SIZE_ARITHMETIC, _WRAPPED))
    if key == "guards_code":
        return is_condition(text)
    if key == "as_string" and any(pattern.fullmatch(text) for pattern in (_EQUATION, _RUNTIME_ASSERTION)):
        return True  # an argument, which torch writes into code as a literal
    if key == "expr_str":
        return _harmless_expression(text)
    if key in ("in_spec", "out_spec"):
        return _harmless_tree(json.loads(text)[1])
    return _PLAIN_TEXT.fullmatch(text) is not None


def _harmless_expression(text: str) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    compared = [node.args for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Max", "Min")]
    return (
        all(isinstance(node, _EXPRESSION_NODES) for node in nodes)
        and all(isinstance(function, ast.Name) and function.id in _EXPRESSION_FUNCTIONS for function in calls)
        and all(map(_ends_soon, nodes))
        and sum(map(len, compared)) <= _MOST_COMPARED
    )


def _ends_soon(node: ast.AST) -> bool:
    """Whether it is no power, or one of a size with a small exponent: 7^99,999,999 would be computed for minutes."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        operands = [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and "Pow" in node.func.id:
        operands = node.args[:2]
    else:
        return True
    if len(operands) != 2 or not _SYMBOL.match(ast.unparse(operands[0])):
        return False
    exponent = _WHOLE.fullmatch(ast.unparse(operands[1]))
    return exponent is not None and abs(int(exponent[1])) <= _LARGEST_EXPONENT


def _harmless_tree(spec: Mapping[str, Any]) -> bool:
    context = json.loads(spec["context"]) if spec["context"] else None
    plain = context is None or (isinstance(context, list) and all(isinstance(item, str) for item in context))
    return spec["type"] in _CONTAINERS and plain and all(_harmless_tree(child) for child in spec["children_spec"])
