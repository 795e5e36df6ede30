"""Files and their contents: reading what is a file; writing each whole or not at all, whatever goes wrong; SHA-256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.locks import temporary_file, temporary_folder

DIGEST_KEY = "file_sha256"
"""Metadata entry of an ONNX or TFLite file of ours whose value ends the file: the SHA-256 of all that comes before."""
NO_DIGEST = "0" * 64
"""That value until the rest is written."""

_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".tga", ".ppm", ".pgm")
_CHUNK = 1 << 22
DISK_FULL = {
    errno.ENOSPC: "Free some space or write elsewhere.",
    errno.EDQUOT: "Free some space or write elsewhere.",
    errno.EFBIG: "Write to a file system that takes files of this size.",
}
"""What to do, by the number of the error of a disk that takes no more."""

_WAYS_OUT = {
    **DISK_FULL,
    errno.ENOENT: "Create the folder first.",
    errno.ENOTDIR: "A part of the path is a file; choose another.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A temporary binary file beside `path`, which takes its name when the block ends well, else vanishes.

    A file that was there before stays until then; a symbolic link is replaced, not followed. Raises
    ExportError where the folder, the disk or what is there already does not allow it.
    """
    target = Path(path)
    with _explain_errors(target):
        _require_writable(target)
        with temporary_file(target.parent) as (staged, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(staged, target)
        sync_folder(target.parent)


@contextlib.contextmanager
def atomic_write_together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Paths at which to write files of one folder that belong together; then all take their names, or none does.

    They are written in a temporary folder under their final names, so that they can refer to each other. They
    move in the order given, the one that refers to the others last; what was there before comes back if a
    move fails. (A power cut between two moves cannot be undone; readers notice by hash.) Raises ExportError
    as atomic_write does.
    """
    folder = paths[0].parent
    assert len({p.name for p in paths}) == len(paths), "files written together need different names"
    assert all(p.parent == folder for p in paths), "files written together share a folder"
    with _explain_errors(paths[-1]):
        for path in paths:
            _require_writable(path)
        with temporary_folder(folder) as staging:
            staged = [staging / p.name for p in paths]
            yield staged
            for file in staged:
                with open(file, "rb+") as written:
                    os.fsync(written.fileno())
            _move_in(staged, paths)
        sync_folder(folder)


def _move_in(staged: Sequence[Path], targets: Sequence[Path]) -> None:
    """Give the files their names; where that fails, what was there before comes back."""
    before = [s.with_name(f"{i}.before") for i, s in enumerate(staged)]
    begun = 0
    try:
        for new, target, old in zip(staged, targets, before, strict=True):
            _require_writable(target)
            begun += 1
            if os.path.lexists(target):
                _keep(target, old)
            os.replace(new, target)
    except BaseException:  # an interrupt too
        for new, target, old in list(zip(staged, targets, before, strict=True))[:begun]:
            if os.path.lexists(old):
                os.replace(old, target)
            elif not os.path.lexists(new):
                target.unlink(missing_ok=True)
        raise


def _keep(target: Path, old: Path) -> None:
    """Give the file a second name, so that it is never missing; its only one where there are no hard links."""
    try:
        os.link(target, old, follow_symlinks=False)
    except (OSError, NotImplementedError):  # the second is os.link's where follow_symlinks is not to be had
        os.replace(target, old)


def _require_writable(target: Path) -> None:
    if target.is_dir():
        raise ExportError(f"{target}: cannot be written, it is a directory. Give the name of a file.")
    if target.exists() and not target.is_file():  # as root, /dev/null would be replaced by a file
        raise ExportError(f"{target}: cannot be written, it is a device or a pipe. Give the name of a file.")


@contextlib.contextmanager
def _explain_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_unwritten(target, error) from error


def explain_unwritten(target: Path, error: OSError) -> ExportError:
    """The error that tells which file the system did not write, why, and what to do."""
    way_out = _WAYS_OUT.get(error.errno or 0, "Check the permissions, or write elsewhere.")
    return ExportError(f"{target}: cannot be written ({error.strerror or error}). {way_out}")


def find_full_disk(text: object) -> OSError | None:
    """The system's error that another library's text tells of, where it is one of a disk that takes no more."""
    known = (number for number in DISK_FULL if os.strerror(number) in str(text))
    return next((OSError(number, os.strerror(number)) for number in known), None)


def sync_folder(folder: Path) -> None:
    """Make the new names durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def describe_folder(path: Path, content: str) -> str:
    """Words on a folder where a file is due; `content` is what that should hold, "the weights"."""
    if (path / ".metadata").is_file():
        return f"is a checkpoint of torch.distributed, in parts. {JOIN_PARTS}"
    return f"is a directory. Give the file with {content}."


JOIN_PARTS = (
    "Make one file of its folder: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER teacher.pt"
)


@contextlib.contextmanager
def open_file(path: Path, content: str) -> Iterator[BinaryIO]:
    """A file that is open for reading; `content` is what it should hold, "the weights".

    Raises InvalidInput, which does not repeat the path, also for what is no file: a device may have no end, and a pipe
    would be waited for.
    """
    try:
        if path.is_dir():
            raise InvalidInput(describe_folder(path, content))
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput("is a device or a pipe. Give a file.")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InvalidInput(f"cannot be read ({error.strerror or error}). Check the path.") from error


def read_file(path: Path, content: str) -> bytes:
    """All bytes of a file, of which there is at least one; `content` and errors as those of `open_file`."""
    with open_file(path, content) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read()
        except (MemoryError, OverflowError):
            raise InvalidInput(f"has {size:,} bytes, for which there is not enough memory.") from None
    if not data:
        raise InvalidInput("is empty. Download or save it again.")
    return data


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def numbers_sha256(dtype: str, shape: tuple[int, ...], content: bytes | memoryview) -> str:
    """Hash of numbers, little-endian and in C order, and of what they are: "float32", (C_out, C_in, k, k)."""
    digest = hashlib.sha256(f"torch.{dtype}{shape}".encode())  # as torch prints the two: files are older than this
    digest.update(content)
    return digest.hexdigest()


def stack_sha256(layers: Iterable[tuple[str, str, bool | str, int]]) -> str:
    """Hash of what layers compute: of each the hashes of weight and bias, ReLU or not, the pixel shuffle's factor.

    In place of a ReLU there may be a PReLU: the hash of its slopes.
    """
    digest = hashlib.sha256()
    for weight, bias, relu, shuffle in layers:
        digest.update(f"{weight} {bias} {relu} {shuffle};".encode())
    return digest.hexdigest()


def list_files(folder: Path) -> list[Path]:
    """All that is meant as a file in a folder, in order of name, whether it can be read or not: see `require_file`.

    Left out are hidden ones, and folders that are not named like an image.
    """
    with os.scandir(folder) as entries:
        meant = [e.name for e in entries if not e.name.startswith(".") and (is_image_name(e.name) or not _is_dir(e))]
    return sorted(folder / name for name in meant)


def require_file(path: Path) -> None:
    """Raise InvalidInput for what is there and no file: a pipe, say, which would be waited for."""
    try:
        mode = path.stat().st_mode
    except OSError:  # reading it will tell
        if path.is_symlink():
            raise InvalidInput(f"{path}: is a link to nothing") from None
        return
    if stat.S_ISDIR(mode):
        raise InvalidInput(f"{path}: is a folder")
    if not stat.S_ISREG(mode):
        raise InvalidInput(f"{path}: is no file but a pipe, a socket or a device")


def path_or_content(path: Path) -> str | bytes:
    """The path as text, for libraries that take no other than one in UTF-8; the file's content where it is none."""
    text = str(path)
    return text if is_utf8(text) else path.read_bytes()


def is_utf8(text: str) -> bool:
    """Whether a name is one in UTF-8: what is not has half surrogate pairs for its bytes."""
    return text.encode(errors="replace").decode() == text


def is_image_name(name: str) -> bool:
    """Whether people know it for an image by its name."""
    return name.lower().endswith(_IMAGE_ENDINGS)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # it will be told when it is read
        return False
