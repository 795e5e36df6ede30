"""The parts of the site that are made from the code: the page of commands, the page of public names, docstrings.

An extension of Sphinx, named in conf.py; nothing generated lies in the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import memsr_compiler

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# `scale   the same as info.scale`, `max_params, max_macs   ...`: a name, two spaces or more, what it is.
ENTRY = re.compile(r"(\w+(?:, \w+)*) {2,}(\S.*)")
NAMES_ALONE = re.compile(r"\w+(?:, \w+)+")
SECOND_ENTRY = re.compile(r"; {3}(?=\w+(?:, \w+)* {3})")
CODE = re.compile(r"(`[^`]*`)")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _fill_in)
    app.connect("autodoc-process-docstring", _translate)


def _fill_in(app: Sphinx, page: str, source: list[str]) -> None:
    parts = {"docs/commands": ("<!-- commands -->", commands), "docs/api": (".. names", names)}
    if page in parts:
        place, text = parts[page]
        assert place in source[0], f"{page} has no {place}"
        source[0] = source[0].replace(place, text())


def _translate(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    lines[:] = restructured(lines)


def commands() -> str:
    """Every command of memsrc as Markdown, with the texts of its --help."""
    from typer.main import get_command

    from memsr_compiler.cli import app

    group: Any = get_command(app)
    names = group.list_commands(group.make_context("memsrc", [], resilient_parsing=True))
    return "\n".join(line for name in names for line in _command(name, group.commands[name]))


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(f"memsrc {name}", [], resilient_parsing=True)
    yield f"## {name}\n"
    yield f"{_markdown(command.help)}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    if command.epilog:
        heading, _, examples = command.epilog.partition(": ")
        lines = "\n".join(f"    {example}" for example in examples.split("; "))
        yield f"{heading}:\n\n{lines}\n"
    panel = None
    for param in command.params:
        record = param.get_help_record(context)
        if record is None or record[0] == "--help":
            continue
        if param.rich_help_panel not in (panel, None):
            panel = param.rich_help_panel
            yield f"**{panel}**\n"
        yield f"`{' '.join(record[0].split())}`\n: {_markdown(record[1])}\n"


def _markdown(text: str) -> str:
    """Plain text as Markdown that shows it as it is; options stand as code."""
    text = re.sub(r"([\\*_\[\]<>|])", r"\\\1", text)
    return re.sub(r"(?<![\w-])(--[a-z][a-z-]*)", r"`\1`", text)


def names() -> str:
    """Every public name as reStructuredText, for autodoc: what is done, what is held, what may be raised."""
    classes = _classes()
    errors = [name for name, value in classes.items() if issubclass(value, Exception)]
    parts = {
        "Functions": [name for name in _public() if name not in classes],
        "Classes": [name for name in classes if name not in errors],
        "Errors": errors,
    }
    return "\n".join(line for title, members in parts.items() for line in _part(title, members))


@cache
def _public() -> list[str]:
    return [name for name in memsr_compiler.__all__ if not name.startswith("_")]


@cache
def _classes() -> dict[str, type]:
    public = {name: getattr(memsr_compiler, name) for name in _public()}
    return {name: value for name, value in public.items() if isinstance(value, type)}


def _part(title: str, members: list[str]) -> Iterator[str]:
    yield f"{title}\n{'-' * len(title)}\n"
    for name in members:
        value = getattr(memsr_compiler, name)
        if not isinstance(value, type):
            yield f".. autofunction:: memsr_compiler.{name}\n"
        elif issubclass(value, Exception):
            yield f".. autoexception:: memsr_compiler.{name}\n   :show-inheritance:\n"
        else:
            yield f".. autoclass:: memsr_compiler.{name}\n   :members:\n"


def restructured(lines: Iterable[str]) -> list[str]:
    """A docstring of ours as reStructuredText.  Its aligned columns become a definition list, indented lines code."""
    out: list[str] = []
    state = ""  # what the line before was: text, code, or an entry
    for line in lines:
        entry = ENTRY.fullmatch(line)
        if not line.strip():
            state = "" if state != "code" else state
            out.append("")
        elif entry or NAMES_ALONE.fullmatch(line):
            for row in SECOND_ENTRY.split(line):
                out += _entry(row)
            state = "entry"
        elif line.startswith(" ") and state == "entry":
            text, *rows = SECOND_ENTRY.split(line.strip())
            out.append(f"   {_escaped(text)}")
            for row in rows:
                out += _entry(row)
        elif line.startswith(" ") and state != "text":
            out += [*(["::", ""] if state != "code" else []), line]
            state = "code"
        else:
            out += [*([""] if state in ("entry", "code") else []), _escaped(line.strip())]
            state = "text"
    return [*out, ""]


def _entry(row: str) -> list[str]:
    """`name   text` as a term and its definition, which may follow."""
    names, _, text = row.partition("  ")
    term = ", ".join(f"``{name}``" for name in names.split(", "))
    return ["", term, *([f"   {_escaped(text.strip())}"] if text else [])]


def _escaped(text: str) -> str:
    """Text whose signs mean nothing to reStructuredText; what is in `backquotes` is code, public classes are links."""
    parts = CODE.split(text)
    return "".join(f"`{part}`\\ " if part.startswith("`") else _linked(part) for part in parts)


def _linked(text: str) -> str:
    words = re.split(r"(\w+)", re.sub(r"([\\*|])", r"\\\1", text))
    return "".join(f":py:obj:`~memsr_compiler.{word}`\\ " if word in _classes() else word for word in words)
