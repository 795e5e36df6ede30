"""Places in a model's own code, of which an error can tell: file, line, module."""

from __future__ import annotations

import inspect
import linecache
import traceback

from torch import nn

from memsr_compiler.trace.own_code.own_files import TORCH, lies_in


def place_of(model: nn.Module, error: Exception) -> str:
    """'body.3 (file:line: code)' of the innermost frame in the model's own code; "" where there is none."""
    files = files_of(model)
    place, path, paths = "", "", dict[int, str]()
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, type(model)) and not paths:  # a copy of the model
            paths = {id(module): name for name, module in owner.named_modules()}
        path = paths.get(id(owner), path)
        name = frame.f_code.co_filename
        if name in files:
            place = f"{path or 'the network'} ({name}:{line}: {linecache.getline(name, line).strip()})"
    return place


def line_of(model: nn.Module, error: Exception) -> str:
    """' (at file:line: code)' of the innermost frame in the model's own code, where there is one."""
    files = files_of(model)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return words_of(frames[-1]) if frames else ""


def words_of(place: traceback.FrameSummary) -> str:
    """' (at file:line: code)'."""
    return f" (at {place.filename}:{place.lineno}: {place.line})"


def files_of(model: nn.Module) -> set[str]:
    """Files of the code of the model's modules, other than torch's."""
    files = set()
    for module in model.modules():
        try:
            files.add(inspect.getfile(type(module)))
        except (TypeError, OSError):
            continue
    return {name for name in files if not lies_in(name, (TORCH,))}
