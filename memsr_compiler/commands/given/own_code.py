"""The user's own code, of `--arch package.module:factory`: results depend on it as they do on the weights."""

from __future__ import annotations

import ast
import logging
import os
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from memsr_compiler.commands.given.texts_in_code import list_texts
from memsr_compiler.files import file_digest

_log = logging.getLogger(__name__)

_BY_NAME = ("import_module", "__import__")  # functions that import a module by its name
_BY_FILE = ("spec_from_file_location", "SourceFileLoader", "run_path", "load_source")  # and those that run a file
_READING = ("open", "read", "read_text", "read_bytes", "compile")  # calls within `eval` where that runs a file
_FOREIGN = ("site-packages", "dist-packages")  # folders of what was installed
_LIBRARY = Path(ast.__file__).parent  # Python's own
_OURS = __name__.partition(".")[0]  # whose version is noted elsewhere


def digest_code(arch: str | None) -> dict[str, str]:
    """SHA-256, by module, of the files of a factory that was imported, of where its module has it from, and of what
    these import from beside them, and so on.

    "Beside" is below the folder in which the factory's package, or module, stands; what was installed is not followed.
    Imports are read in the code, whether they have been made or not, so that the same files give the same at any time:
    what has been loaded differs with what the process did before.  Only where code computes a module's name do those
    count that are loaded from beside it; by now the factory has been called, and has imported what it wants.  Of files
    that code runs by their paths, or reads and gives to `exec`, those count whose names are seen in it; where they are
    fewer than it runs, the log hears of it.
    Empty for a family that is known here.
    """
    module, own, path = (arch or "").partition(":")
    if not own or module not in sys.modules:
        return {}
    factory: object = reduce(getattr, path.split("."), sys.modules[module])
    begin = (module, getattr(factory, "__module__", module))
    files = {name: file for name in begin if (file := _file_of(name)) is not None}
    left = list(files.items())
    while left:
        name, file = left.pop()
        found = {other: there for other, there in _find_beside(name, file) if other not in files}
        files |= found
        left += found.items()
    return {name: file_digest(files[name]) for name in sorted(files)}


def _file_of(module: str) -> Path | None:
    """The file from which a module was imported; None where there is none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def _find_beside(module: str, file: Path) -> Iterator[tuple[str, Path]]:
    """The modules below the same folder that a module imports, and the packages that these and it are in."""
    package = file.name == "__init__.py"
    above = module.count(".") + 1 + package
    root = file.absolute().parents[above - 1] if above <= len(file.absolute().parents) else None
    if root is None or root == _LIBRARY or any(part in _FOREIGN for part in root.parts):
        return
    if module.partition(".")[0] == _OURS:
        return
    for name in (module, *_read_imports(module if package else module.rpartition(".")[0], file, root)):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            part = ".".join(parts[:count])
            there = _find_file(root, parts[:count])
            if there is not None and parts[0] != _OURS and _is_from(part, there):
                yield part, there


def _is_from(module: str, file: Path) -> bool:
    """Whether Python has a module from that file, or would, where it has not been imported yet."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return module.partition(".")[0] not in sys.stdlib_module_names
    there = _file_of(module)
    return there is not None and there.samefile(file)


def _find_file(root: Path, parts: list[str]) -> Path | None:
    """The file of a module or package below a folder."""
    place = root.joinpath(*parts)
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def _read_imports(package: str, file: Path, root: Path) -> Iterator[str]:
    """All names that a module may import, as they are read in its code: of `from a import b` both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # no Python, as an extension module is none
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _resolve(node.module or "", node.level, package)
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in _calls_of(_BY_NAME, tree, calls):
        name = _text_of((*call.args, *(word.value for word in call.keywords if word.arg == "name"))[:1])
        if name is None:
            yield from _loaded_from(root)
        else:
            yield _resolve(name.lstrip("."), len(name) - len(name.lstrip(".")), package)
    if by_file := [*_calls_of(_BY_FILE, tree, calls), *filter(_runs_text, calls)]:
        texts = list_texts(tree)
        places = _list_places(texts, file, root)
        named = [_find_named(text, places, file) for text in texts if text.endswith(".py")]
        known = [files for files in named if files and all(root in there.parents for there in files)]
        if len(known) < len(by_file):
            _log.warning(
                "%s:%d: runs a file, and the code does not show which one; runs are gone on with though it has changed",
                file,
                by_file[0].lineno,
            )
        there = dict.fromkeys(path for files in named for path in files if root in path.parents)
        yield from (".".join(path.relative_to(root).with_suffix("").parts) for path in there)


def _resolve(name: str, level: int, package: str) -> str:
    """The whole name of a module, before which so many dots stand in that package."""
    above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
    return ".".join(filter(None, (*above, name)))


def _calls_of(functions: tuple[str, ...], tree: ast.Module, calls: list[ast.Call]) -> list[ast.Call]:
    """Calls of functions that are called so, or imported under another name."""
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = {*functions, *(alias.asname for alias in imported if alias.name in functions)}
    return [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", None)) in names]


def _text_of(arguments: tuple[ast.expr, ...]) -> str | None:
    """The text that the first argument is; None for what is computed."""
    value = arguments[0].value if arguments and isinstance(arguments[0], ast.Constant) else None
    return value if isinstance(value, str) else None


def _loaded_from(root: Path) -> list[str]:
    """The modules that are loaded from below a folder."""
    files = {name: _file_of(name) for name in list(sys.modules)}
    return [name for name, file in files.items() if file is not None and root in file.absolute().parents]


def _runs_text(call: ast.Call) -> bool:
    """Whether a call runs a text that does not stand there: `exec`, and `eval` of what it reads or compiles."""
    name = getattr(call.func, "id", None)
    if name not in ("exec", "eval") or not call.args or isinstance(call.args[0], ast.Constant):
        return False
    within = [node.func for node in ast.walk(call.args[0]) if isinstance(node, ast.Call)]
    return name == "exec" or any(getattr(func, "attr", getattr(func, "id", None)) in _READING for func in within)


def _list_places(texts: list[str], file: Path, root: Path) -> list[Path]:
    """Folders that code may join a name to, or `open`: its own, the root, ours, and below the root those it names."""
    places = list(dict.fromkeys((file.parent.absolute(), root, Path.cwd())))
    for place in places:  # grows meanwhile: a folder may be named within one that is
        inner = dict.fromkeys(Path(os.path.normpath(place / text)) for text in texts)
        places += [path for path in inner if root in path.parents and path not in places and os.path.isdir(path)]
    return places


def _find_named(text: str, places: list[Path], file: Path) -> list[Path]:
    """The other files that a name in a module's code may mean, in one of these folders."""
    there = dict.fromkeys(Path(os.path.normpath(place / text)) for place in places)
    return [path for path in there if os.path.isfile(path) and path != file.absolute()]
