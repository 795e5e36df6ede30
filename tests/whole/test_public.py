"""The public interface: every name is there, says what it is and raises, and is annotated."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import memsr_compiler
from memsr_compiler.errors import MemsrError

NAMES = [name for name in dir(memsr_compiler) if name != "__version__"]
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(memsr_compiler, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(memsr_compiler, name))]


def test_every_name_is_a_function_or_a_class() -> None:
    assert sorted(FUNCTIONS + CLASSES) == NAMES
    assert {"compile_to_plain", "shrink", "export_onnx", "check_certificate", "read_teacher"} <= set(FUNCTIONS)
    assert {"Teacher", "PlainNet", "PaperOptions", "Upscaler", "UnsupportedModel"} <= set(CLASSES)


def test_dir_shows_the_names_before_they_are_used() -> None:
    program = "import memsr_compiler; print(*dir(memsr_compiler))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == dir(memsr_compiler) == sorted(memsr_compiler.__all__)


def test_type_checkers_know_the_same_names_from_the_same_homes() -> None:
    tree = ast.parse(Path(memsr_compiler.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {name: f"memsr_compiler.{home}.{name}" for name, home in memsr_compiler._HOME.items()}


@pytest.mark.parametrize("name", NAMES)
def test_names_come_from_where_they_are_made(name: str) -> None:
    value = getattr(memsr_compiler, name)
    assert value.__module__ == f"memsr_compiler.{memsr_compiler._HOME[name]}"


def test_a_star_imports_them_all() -> None:
    names: dict[str, object] = {}
    exec("from memsr_compiler import *", names)
    assert set(NAMES) <= set(names)


def test_submodules_never_stand_in_place_of_a_name() -> None:
    for home in set(memsr_compiler._HOME.values()):
        import_module(f"memsr_compiler.{home}")
    assert not [name for name in NAMES if inspect.ismodule(getattr(memsr_compiler, name))]


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compile_to_plane'"):
        memsr_compiler.compile_to_plane  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_every_name_says_what_it_is(name: str) -> None:
    text = inspect.getdoc(getattr(memsr_compiler, name)) or ""
    first = text.partition("\n")[0]
    assert len(first) > 15, f"{name}: no docstring of its own"
    assert not first.startswith(("Of ", "How ", "What ", f"{name}("))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_it_raises(name: str) -> None:
    text = inspect.getdoc(getattr(memsr_compiler, name)) or ""
    assert re.search(r"\bRaises\b|Never raises|and errors", text), f"{name}: which errors of ours can it raise?"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_of_a_function_is_explained(name: str) -> None:
    function = getattr(memsr_compiler, name)
    text = inspect.getdoc(function) or ""
    if "with the same arguments" in text:
        return
    options = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    missing = [option for option in options if not re.search(rf"\b{option}\b", text)]
    assert not missing, f"{name}: {', '.join(missing)}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_annotated(name: str) -> None:
    signature = inspect.signature(getattr(memsr_compiler, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert not [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]


def test_every_error_of_ours_is_public() -> None:
    errors = import_module("memsr_compiler.errors")
    raised = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, MemsrError)}
    assert raised <= set(NAMES)
