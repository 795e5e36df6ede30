"""The texts that code holds, of which some may name files: those that stand there, and those that it puts together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile

_COMPUTED = re.compile(r"%[sr]|\{[^{}]*\}")  # in a text that % or `format` fills in


def list_texts(tree: ast.Module) -> list[str]:
    """Every text in a module's code.

    Of texts put together, f"{HERE}/nets/arch.py", HERE + "/arch.py", "%s/arch.py" % HERE, what stands behind the last
    part that is computed and a slash: nets/arch.py, arch.py.  Names that are given a text once stand for it.
    """
    names = _read_names(tree)
    texts: list[str] = []
    within: set[ast.AST] = set()
    for node in ast.walk(tree):  # the outer before the inner
        if node in within:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        elif _is_put_together(node):
            held = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            texts += [end for end in _end_of([*_list_parts(node, names)]) if end not in held]  # each once
            within |= {part for part in ast.walk(node) if _is_put_together(part)}
    return texts


def _read_names(tree: ast.Module) -> dict[str, str]:
    """Names of the module that are given a text, and nothing else anywhere."""
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
    stored += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return {
        target.id: line.value.value
        for line in tree.body
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
        for target in line.targets
        if isinstance(target, ast.Name) and stored.count(target.id) == 1
    }


def _is_put_together(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, (ast.Add, ast.Mod))
    return isinstance(node, ast.JoinedStr) or _template_of(node) is not None


def _template_of(node: ast.AST) -> str | None:
    """The text that is filled in by % or `format`."""
    value: ast.expr | None = None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        value = node.left
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        value = node.func.value
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _list_parts(node: ast.AST, names: Mapping[str, str]) -> Iterator[str | None]:
    """The parts of a text one behind the other; None for what is computed."""
    template = _template_of(node)
    if template is not None:
        for i, text in enumerate(_COMPUTED.split(template)):
            yield from (None, text) if i else (text,)
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _list_parts(value, names)
    elif isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
        yield from _list_parts(node.value, names)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _list_parts(node.left, names)
        yield from _list_parts(node.right, names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Attribute) and node.attr == "sep":  # os.sep
        yield "/"
    else:
        yield names.get(node.id) if isinstance(node, ast.Name) else None


def _end_of(parts: list[str | None]) -> list[str]:
    """The end behind the last part that is computed, where that is a folder; none for arch in f"{kind}arch.py"."""
    known = [part for part in takewhile(lambda part: part is not None, reversed(parts)) if part is not None]
    end = "".join(reversed(known))
    if len(known) == len(parts):
        return [end]
    return [end.lstrip("/")] if end.startswith("/") else []
