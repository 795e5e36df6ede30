"""Places in a model's own code, of which an error or a warning can tell: file, line, module."""

from __future__ import annotations

import ast
import inspect
import linecache
import traceback

from torch import fx, nn


def is_decided(model: nn.Module, problem: Exception) -> bool:
    """Whether torch.fx was stopped by a line of the model's own that does one thing or another.

    A line that does nothing but raise is none: where it does not, the network is the same.
    """
    *_, place = (f for f in traceback.extract_tb(problem.__traceback__) if "/torch/fx/" not in f.filename)
    decides = isinstance(problem, fx.proxy.TraceError) and "inputs to control flow" in str(problem)
    ours = place.filename in _files(model) and "/torch/" not in place.filename  # torch's own code is known
    return decides and ours and not _only_raises(place)


def place_of(model: nn.Module, error: Exception) -> str:
    """'body.3 (file:line: code)' of the innermost frame in the model's own code; "" where there is none."""
    files = _files(model)
    place, path, paths = "", "", dict[int, str]()
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, type(model)) and not paths:  # a copy of the model
            paths = {id(module): name for name, module in owner.named_modules()}
        path = paths.get(id(owner), path)
        name = frame.f_code.co_filename
        if name in files and "/torch/" not in name:
            place = f"{path or 'the network'} ({name}:{line}: {linecache.getline(name, line).strip()})"
    return place


def line_of(model: nn.Module, error: Exception) -> str:
    """' (at file:line: code)' of the innermost frame in the model's own code, where there is one."""
    files = _files(model)
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename in files and "/torch/" not in f.filename
    ]
    return f" (at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _files(model: nn.Module) -> set[str]:
    """Files of the code of the model's modules."""
    files = set()
    for module in model.modules():
        try:
            files.add(inspect.getfile(type(module)))
        except (TypeError, OSError):
            continue
    return files


def _only_raises(place: traceback.FrameSummary) -> bool:
    """Whether a line is of an `assert`, or of an `if` that does nothing but raise."""
    try:
        code = ast.parse("".join(linecache.getlines(place.filename)))
    except SyntaxError:  # of a notebook, say
        return False
    around = [node for node in ast.walk(code) if isinstance(node, ast.stmt) and _has_line(node, place.lineno or 0)]
    last = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)
    if isinstance(last, ast.If):
        return all(isinstance(statement, ast.Raise) for statement in last.body) and not last.orelse
    return isinstance(last, ast.Assert)


def _has_line(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
