"""Teachers, read as the options say."""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memsr_compiler.commands.interface.options import TeacherOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.errors import InvalidInput

if TYPE_CHECKING:
    from memsr_compiler.teachers.teacher import Teacher


def read(
    options: TeacherOptions, talk: Talk, *, say: bool = True, own_process: bool = True
) -> tuple[Teacher, tuple[float, float]]:
    """Read a teacher, one from an ONNX or TFLite file beside its engine, and the range of its input values.

    say           what is assumed, aloud
    own_process   this process is the command's own, and is set up as it needs it
    """
    # With torch, which upscale, say, does without.
    from memsr_compiler.runtime.beside_engine import require_as_in_engine
    from memsr_compiler.teachers.load import read_teacher

    if own_process:
        set_up(options, talk)
    arguments = teacher_arguments(options)
    teacher = read_teacher(
        options.teacher,
        arch=options.arch,
        arch_args=arguments or None,
        prefix=options.prefix,
        allow_pickle=options.allow_pickle,
        input_range=options.input_range,
        probe=not options.no_probe,
    )
    if say:
        say_assumed(options.teacher, teacher.assumed, talk)
    why = require_as_in_engine(teacher)
    if why and say and not talk.quiet:
        talk.err.print(f"{options.teacher}: {why}", markup=False)
    return teacher, teacher.input_range


def say_assumed(path: Path, assumed: Sequence[str], talk: Talk) -> None:
    """Say on standard error what was assumed of a network, as its file does not tell."""
    if assumed and not talk.quiet:
        talk.err.print(f"{path}: assumed: {', '.join(assumed)}", markup=False)


def set_up(options: TeacherOptions, talk: Talk) -> None:
    """Prepare this process for reading a teacher: interrupts, messages, and where the user's modules are."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # everything is imported: from here on Ctrl-C tidies up
    handler = logging.StreamHandler()
    handler.addFilter(_Once())
    level = logging.INFO if talk.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    if options.arch is not None and ":" in options.arch and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` would: the user's own module lies here


class _Once(logging.Filter):
    """Lets each message pass once: a command may read its teacher several times."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self.said
        self.said.add(message)
        return new


def teacher_arguments(options: TeacherOptions) -> dict[str, object]:
    """The arguments that the architecture is called with.  Raises InvalidInput."""
    arguments = parse_arguments(options.arch_args or ())
    if options.scale is not None:
        arguments["scale"] = options.scale
    return arguments


def parse_arguments(pairs: Sequence[str]) -> dict[str, object]:
    """["blocks=8,channels=32", "mean=None"] -> values; what is no Python literal is text.  Raises InvalidInput."""
    arguments: dict[str, object] = {}
    for pair in (p for group in pairs for p in _split(group)):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InvalidInput(f"--arch-args {pair}: want NAME=VALUE, as in --arch-args blocks=8")
        arguments[key.strip()] = _read_value(value.strip())
    return arguments


def _read_value(text: str) -> object:
    """A value as Python or JSON writes it; other text as it is."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_WORDS = {"true": True, "false": False, "none": None, "null": None}


def _split(group: str) -> list[str]:
    """Split at commas, but not inside brackets or before anything that is no NAME=."""
    parts: list[str] = []
    for piece in group.split(","):
        name = piece.partition("=")[0].strip()
        if parts and not ("=" in piece and name.isidentifier()):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return parts


def describe(teacher: Teacher, input_range: tuple[float, float]) -> str:
    """'edsr (scale=2, blocks=8), input 0 to 1'."""
    hyper = ", ".join(f"{k}={v}" for k, v in teacher.hyper.items())
    name = teacher.family or type(teacher.module).__name__
    return f"{name}{f' ({hyper})' if hyper else ''}, input values {input_range[0]:g} to {input_range[1]:g}"
