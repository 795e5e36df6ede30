"""The user's own code, of `--arch package.module:factory`: results depend on it as they do on the weights."""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path

from memsr_compiler.files import file_digest


def digest_code(arch: str | None) -> dict[str, str]:
    """SHA-256, by module, of the files of a factory that was imported, and of where its module has it from.

    Empty for a family that is known here.
    """
    module, own, path = (arch or "").partition(":")
    if not own or module not in sys.modules:
        return {}
    factory: object = reduce(getattr, path.split("."), sys.modules[module])
    names = dict.fromkeys((module, getattr(factory, "__module__", module)))
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    return {name: file_digest(Path(file)) for name, file in files.items() if file and Path(file).is_file()}
