"""Files that a command is to write: what cannot be written, or must not be replaced, is found before the work.

One rule for all commands: a network, certificate, report, table or chart that memsrc wrote is replaced; any other file
that is there already is refused, unless --overwrite; a file that is read is never replaced.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write
from memsr_compiler.locks import remove_leftovers

MARK = b"<!-- written by memsr_compiler -->\n"  # ends pages and drawings

_KEYS = {  # what is somewhere in files of ours
    ".onnx": (b"memsr_format", b"memsr_quantized"),
    ".safetensors": (b"memsr_format",),
    ".tflite": (b"memsr_compiler",),
    ".json": (b"memsr certificate",),
    ".html": (MARK,),
    ".svg": (MARK,),
    ".png": (b"Software\0memsr_compiler",),
}
_HEADERS = (  # what tables of ours begin with
    b"model,image,psnr_y_db,",
    b"network,engine,width,height,",
    b"network,parameters,multiply_adds,",
    b"layer,1,",
)


def check_outputs(
    outputs: Sequence[Path], *, reads: Sequence[Path], images: Sequence[Path | None] = (), overwrite: bool
) -> None:
    """Check every place, and remove what killed processes left half written there.

    reads    networks that are read;   images   folders, or files, of images that are read; None: none
    Raises InvalidInput for a place that cannot be written, and what the rule above does not allow.
    """
    read = {os.path.realpath(path) for path in reads}
    for i, path in enumerate(outputs):
        _check_writable(path)
        if os.path.realpath(path) in read:
            raise InvalidInput(f"{path}: is the network that is read; write somewhere else")
        if path.exists() and any(_holds(folder, path) for folder in images if folder is not None):
            raise InvalidInput(f"{path}: is among the images that are read; write somewhere else")
        if os.path.realpath(path) in (os.path.realpath(other) for other in outputs[:i]):
            raise InvalidInput(f"{path}: is to be written twice; give every file a name of its own")
        if os.path.lexists(path) and not overwrite and not (path.exists() and is_ours(path)):  # a link to nothing too
            raise InvalidInput(
                f"{path}: is there already, and not as memsrc writes it; choose another place, or give --overwrite"
            )
    for folder in {path.parent for path in outputs}:
        remove_leftovers(folder)


def _holds(images: Path, path: Path) -> bool:
    """Whether a file is one of these images: of the folder, those below it, or what links there lead to."""
    if not images.is_dir():
        return os.path.realpath(images) == os.path.realpath(path)
    files = (os.path.join(folder, name) for folder, _, names in os.walk(images) for name in names)
    return not is_ours(path) and os.path.realpath(path) in map(os.path.realpath, files)


def is_ours(path: Path) -> bool:
    """Whether a file is one that memsrc wrote, as far as can be told from it."""
    if not path.stat().st_size:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if path.suffix == ".csv":
            return content[:100].startswith(_HEADERS)
        return any(content.rfind(key) >= 0 for key in _KEYS.get(path.suffix.lower(), ()))


def write_page(path: Path, text: str) -> None:
    """Write HTML or SVG, with the mark by which it is known again."""
    with atomic_write(path) as file:
        file.write(text.encode() + MARK)


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise InvalidInput(f"{path}: the folder {folder} does not exist; make it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidInput(f"{path}: cannot be written; choose another place")
