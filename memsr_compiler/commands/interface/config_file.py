"""Options from a YAML file, and those that a run began with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import typer

from memsr_compiler.errors import InvalidInput, MemsrError, say_missing
from memsr_compiler.files import open_file

SOURCE = "memsr_compiler.config_file"  # where a context remembers the YAML file of its options
FORMER = {"optimizer": "adam", "ema": 0.0, "labels": "photographs"}
"""Choices of runs that began before there was one, and do not name them."""

_MOST_BYTES = 1 << 18  # PyYAML takes a second or two for them
_SHOWN = 60  # letters of a name that is wrong
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def use_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options of a YAML file the defaults, before the others are read."""
    if path is not None:
        known = {option: p.name for p in context.command.params for option in (p.name, *p.opts) if option and p.name}
        values = read_settings(path, known, f"memsrc {context.info_name}")
        if "config" in values:
            raise InvalidInput(f"{path}: config: a file of options reads no other; give its lines here")
        repeated = {p.name for p in context.command.params if getattr(p, "multiple", False)}
        values |= {n: [v] for n, v in values.items() if n in repeated and v is not None and not isinstance(v, list)}
        context.default_map = {**(context.default_map or {}), **values}
        context.meta[SOURCE] = path
    return path


def resume_run(context: typer.Context, place: Path | None) -> Path | None:
    """Make the options that a run began with the defaults, its folder being where it is now."""
    if place is not None:
        if not place.exists():
            raise InvalidInput(f"{place}: there is no such run; give a run's folder, or one of its checkpoints")
        folder = place.parent if place.is_file() else place
        use_config_file(context, folder / "config.yaml")
        context.default_map = {**FORMER, **(context.default_map or {}), "out": str(folder)}
    return place


def read_settings(path: Path, known: Mapping[str, str], command: str) -> dict[str, Any]:
    """Read a YAML file, `name: value`, as parameters' defaults.

    known     parameters by the names that may be used for them: warm_up and --warm-up are one
    command   whose parameters these are: "memsrc train"

    Raises InvalidInput for a file that is none, and names that no option has; MemsrError without PyYAML.
    """
    try:
        import yaml
    except ImportError:
        raise MemsrError(say_missing("PyYAML", "reads the options' file", "train")) from None
    try:
        with open_file(path, "the options") as file:
            text = file.read(_MOST_BYTES + 1)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error} Give the file, or the run, with the options.") from None
    if len(text) > _MOST_BYTES:
        raise InvalidInput(
            f"{path}: has more than {_MOST_BYTES:,} bytes, which no options have; give lines of name: value"
        )
    try:
        content = yaml.load(text.decode(), _make_loader())  # a SafeLoader
    except Exception as error:  # PyYAML has errors of its own, and lets Python's through: of numbers, dates, nesting
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidInput(f"{path}: is no YAML ({reason}); give lines of name: value") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}: want lines of name: value")
    values: dict[str, Any] = {}
    for name, value in content.items():
        option = next(
            (known[n] for n in (str(name), f"--{name}", f"--{str(name).replace('_', '-')}") if n in known), None
        )
        if option is None:
            raise InvalidInput(f"{path}: no option of {command} is called {str(name)[:_SHOWN]}")
        if not (_is_word(value) or (isinstance(value, list) and all(map(_is_word, value)))):
            raise InvalidInput(f"{path}: {name}: want a word, a number or a list of them (a date in quotes)")
        if option in values:
            raise InvalidInput(f"{path}: {name}: is given twice, under two spellings of its name; leave one out")
        values[option] = value
    return values


@cache
def _make_loader() -> Any:
    """A loader of YAML to which a value is what the command line would take it for.

    To YAML 1.1, which PyYAML reads, `no` is false, and then 0 where a number is wanted, 010 is 8 and 1:30 is 90; and of
    two lines with one name the last counts.  Here such words stay text, which the option reads, and such lines are
    refused.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # of PyYAML nothing is known to mypy
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            double = next((name for name, times in Counter(names).items() if times > 1), None)
            if double is not None:
                raise ValueError(f"{double[:_SHOWN]} is given twice")
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    def refuse(loader: Any, node: Any) -> Any:
        raise ValueError(f"{node.tag.rpartition(':')[2]} is said of {str(node.value)[:_SHOWN]!r}; leave the tag out")

    own = ("bool", "int", "float")
    kept = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in own]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = kept
    for kind, pattern in (("int", _INTEGER), ("float", _FLOAT)):
        whole = re.compile(rf"(?:{pattern.pattern})\Z")
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", whole, list("-+.0123456789"))
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", _read_if(whole, kind, refuse))
    Loader.add_constructor("tag:yaml.org,2002:bool", refuse)
    return Loader


def _read_if(whole: re.Pattern[str], kind: str, refuse: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A constructor of numbers that are written as the command line takes them; a tag that is written out says less."""

    def construct(loader: Any, node: Any) -> Any:
        written = str(node.value)
        return getattr(loader, f"construct_yaml_{kind}")(node) if whole.match(written) else refuse(loader, node)

    return construct


def _is_word(value: object) -> bool:
    """Whether it could be given on a command line; a list in a list may stand for billions of words.

    Names of files may hold all but NUL: blanks of other scripts, joiners, line breaks, and bytes that are no UTF-8,
    which Python has as surrogates of its own.
    """
    if isinstance(value, str):
        try:
            return b"\0" not in value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
    return value is None or isinstance(value, (bool, int, float))
