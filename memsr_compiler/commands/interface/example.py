"""Command lines that lack something, completed into ones that would run: with the files that are there."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memsr_compiler.errors import InvalidInput

_TEACHERS = (".pt", ".pth", ".ckpt", ".pt2", ".safetensors", ".onnx", ".tflite")
_PLAIN = "plain.onnx"
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


class Incomplete(InvalidInput):
    """A command line that lacks something; `arguments` and `options` would complete it."""

    def __init__(self, message: str, *, arguments: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.arguments, self.options = arguments, options


def complete(typed: Sequence[str], arguments: Sequence[str], options: Sequence[str]) -> str:
    """Complete a command line: arguments after the last one that is there, options at the end."""
    command, *rest = typed
    if command == "shrink" and not arguments and (not rest or rest[0].startswith("-")):
        arguments = [] if _find_plain() != _PLAIN else [find_teacher()]  # it takes a plain network by itself
    there = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    return shlex.join(["memsrc", command, *rest[:there], *arguments, *rest[there:], *options])


def suggest(command: str, name: str, values: Mapping[str, Any]) -> str:
    """A value for a command's parameter that is missing, given those that are there."""
    return _SUGGESTIONS.get(f"{command} {name}", _SUGGESTIONS[name])(values)


def find_teacher() -> str:
    """The name of a file in this folder that may be a trained network, or what it may be called."""
    return _first_file(
        lambda path: path.suffix in _TEACHERS and not (_is_plain(path) or _is_quantized(path)), "teacher.pt"
    )


def _is_plain(path: Path) -> bool:
    from memsr_compiler.plain.read import is_plain  # with numpy, which --help does not wait for

    return is_plain(path)


def _is_quantized(path: Path) -> bool:
    from memsr_compiler.plain.read import is_quantized

    return is_quantized(path)


def _find_plain() -> str:
    return _first_file(_is_plain, _PLAIN)


def _find_student() -> str:
    return _first_file(lambda path: path.suffix == ".safetensors" and _is_plain(path), "student.safetensors")


def _find_image() -> str:
    return _first_file(lambda path: path.suffix.lower() in _IMAGES, "photo.png")


def _find_network() -> str:
    return _first_file(lambda path: path.suffix in _TEACHERS, _PLAIN)


def _find_float_onnx() -> str:
    return _first_file(lambda path: path.suffix == ".onnx" and not _is_quantized(path), _PLAIN)


def _find_photographs() -> str:
    folders = (path for path in sorted(Path().iterdir()) if path.is_dir() and not path.name.startswith("."))
    return next((f"{f}/" for f in folders if any(p.suffix.lower() in _IMAGES for p in f.iterdir())), "photographs/")


def _first_file(fits: Callable[[Path], bool], otherwise: str) -> str:
    return next((str(path) for path in sorted(Path().iterdir()) if _has_content(path) and fits(path)), otherwise)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _name_quantized(values: Mapping[str, Any]) -> str:
    return str(Path(values.get("model") or _find_float_onnx()).with_suffix(".int8.onnx"))


def _name_enlarged(values: Mapping[str, Any]) -> str:
    source = Path(values.get("source") or _find_image())
    return f"{source}-large/" if source.is_dir() else f"{source.stem}-large.png"


_SUGGESTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "teacher": lambda _: find_teacher(),
    "plain": lambda _: _find_plain(),
    "student": lambda _: _find_student(),
    "model": lambda _: _find_network(),
    "first": lambda _: find_teacher(),
    "second": lambda _: _find_plain(),
    "source": lambda _: _find_image(),
    "target": _name_enlarged,
    "out": lambda _: "run/",
    "quantize model": lambda _: _find_float_onnx(),
    "quantize out": _name_quantized,
    "data": lambda _: _find_photographs(),
    "scale": lambda _: "2",
}
