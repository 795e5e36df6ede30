"""Locks that end with their process: who works in a folder, and which temporary files nobody writes any more.

The system lets go of such a lock when the process ends, however it ends, so no process number has to be trusted.
Where it has none (Windows, some network file systems) nobody is kept out, and nothing is removed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from memsr_compiler.errors import ExportError, InvalidInput

fcntl: Any = None  # Windows has none
with contextlib.suppress(ImportError):
    fcntl = importlib.import_module("fcntl")

LOCK = ".memsr-lock"
_PREFIX, _SUFFIX = ".memsr-", ".tmp"
_PATIENCE = 10.0  # seconds, that what a killed process started may outlive it: torch's workers look every 5
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for this process while the block lasts; what killed processes left in it is removed first.

    Raises InvalidInput where another process holds it, and tells which; ExportError where it cannot be written.
    """
    handle = _take(folder)
    try:
        remove_leftovers(folder)
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()  # before it is let go: afterwards it may be another's
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that no living process holds, of those that this module made."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                with contextlib.suppress(OSError):  # held, another user's, or gone already
                    _remove_unheld(Path(entry.path))


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in the folder, open to be written.  It is held until the end, under another name too.

    What has its temporary name then vanishes.
    """
    with contextlib.ExitStack() as undo:
        while True:
            path = _new_name(folder)
            undo.callback(_remove, path)  # said before it is made: an interrupt may come as soon as it is there
            file = undo.enter_context(open(path, "xb"))
            if _hold(path, undo):
                break
        yield path, file


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in another one, which vanishes at the end; what killed processes left there is removed first."""
    remove_leftovers(parent)
    with contextlib.ExitStack() as undo:
        while True:
            path = _new_name(parent)
            undo.callback(_remove, path)
            path.mkdir(mode=0o700)
            if _hold(path, undo):
                break
        yield path


@contextlib.contextmanager
def keep_temporary_files() -> Iterator[None]:
    """Let the temporary files of other libraries go to a folder of ours, which goes with them, sooner or later.

    For commands, which are alone in their process: the place is the whole process's.
    """
    before = tempfile.tempdir
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def _take(folder: Path) -> int | None:
    """A handle that holds the folder; None where there are no locks."""
    if fcntl is None:
        return None
    path = folder / LOCK
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        except OSError as error:
            raise ExportError(
                f"{folder}: cannot be written ({error.strerror}). Check the permissions, or choose another folder."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                os.truncate(handle, 0)
                os.write(handle, f"{os.getpid()} {platform.node()}".encode())
                return handle
            os.close(handle)  # who held it has just removed it
        except BlockingIOError:
            number, _, machine = os.read(handle, 300).decode(errors="replace").partition(" ")
            os.close(handle)
            if not _has_ended(number, machine) or time.monotonic() > patience:
                who = f"process {number} on {machine}" if machine else "another process"
                raise InvalidInput(
                    f"{folder}: {who} is at work in it. Wait until it is done, end it, or choose another folder."
                ) from None
            time.sleep(0.1)
        except OSError:  # no locks here
            os.close(handle)
            path.unlink(missing_ok=True)
            return None


def _has_ended(number: str, machine: str) -> bool:
    """Whether a process of this machine is known to be no more."""
    if machine != platform.node() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no number of a process
        return False
    return False


def _new_name(folder: Path) -> Path:
    return folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _hold(path: Path, undo: contextlib.ExitStack) -> bool:
    """Hold a new file or folder until the stack is undone, where there are locks.

    False where another process took it for a leftover before it was held.
    """
    if fcntl is None:
        return True
    try:
        handle = _open(path)
    except FileNotFoundError:
        return False
    undo.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:  # no locks here
        return True
    return _is_at(handle, path)


def _remove_unheld(path: Path) -> None:
    """Remove a file or folder.  Raises OSError where it is held, or it is not known whether it is."""
    if fcntl is None:
        return
    handle = _open(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    kind = os.O_RDONLY if path.is_dir() else os.O_RDWR  # to be locked over a network, a file has to be writable
    return os.open(path, kind | _NO_LINK | getattr(os, "O_NONBLOCK", 0))


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)
