"""The user's own code, of `--arch package.module:factory`: results depend on it as they do on the weights."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from memsr_compiler.files import file_digest

_FOREIGN = ("site-packages", "dist-packages")  # folders of what was installed
_LIBRARY = Path(ast.__file__).parent  # Python's own
_OURS = __name__.partition(".")[0]  # whose version is noted elsewhere


def digest_code(arch: str | None) -> dict[str, str]:
    """SHA-256, by module, of the files of a factory that was imported, of where its module has it from, and of what
    these import from beside them, and so on.

    "Beside" is below the folder in which the factory's package, or module, stands; what was installed is not followed.
    Imports are read in the code, whether they have been made or not, so that the same files give the same at any time.
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
    for name in (module, *_read_imports(module if package else module.rpartition(".")[0], file)):
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


def _read_imports(package: str, file: Path) -> Iterator[str]:
    """All names that a module may import, as they are read in its code: of `from a import b` both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # no Python, as an extension module is none
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, (*above, node.module)))
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
