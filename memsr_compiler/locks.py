"""Locks that end with their process: who works in a folder, who does what in it, and which temporary files nobody
writes any more.

The system lets go of such a lock when the process ends, however it ends, so no process number has to be trusted.
Where it has none (Windows, some network file systems) nobody is kept out, and nothing is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from memsr_compiler.errors import ExportError, InvalidInput

fcntl: Any = None  # Windows has none
with contextlib.suppress(ImportError):
    fcntl = importlib.import_module("fcntl")

LOCK = ".memsr-lock"
_PREFIX, _SUFFIX = ".memsr-", ".tmp"
_PATIENCE = 10.0  # seconds, that what a killed process started may outlive it: torch's workers look every 5
_BEGINNING = 3.0  # seconds, in which the first process of a run has said whose the folder is
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


@contextlib.contextmanager
def share_folder(folder: Path, run: str) -> Iterator[FileIO]:
    """Keep a folder for the processes of one run, which all give it the same name; each is in this block on its own.

    Yields a file that they have in common while any of them is here, to be read and written by one at a time, its first
    line ours; what killed processes left in the folder is removed first.  Raises InvalidInput where other processes
    hold the folder, or the place has no locks; ExportError where it cannot be written.
    """
    handle = _share(folder, run)
    try:
        remove_leftovers(folder)
        with os.fdopen(os.dup(handle), "r+b", buffering=0) as file:
            yield file
        remove_leftovers(folder)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):  # another is still here, and will be the last
            _remove_unheld(folder / LOCK)


@contextlib.contextmanager
def claim(folder: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Take what has this name in a folder for this process; yields whether it is ours.

    wait   until it is

    Raises InvalidInput where the place has no locks.
    """
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:24]
    path = folder / f"{_PREFIX}{digest}{_SUFFIX}"
    while True:
        handle = _open_lock(path)
        if not _lock(handle, path, exclusive=True, wait=wait):
            os.close(handle)
            yield False
            return
        if _is_at(handle, path):
            break
        os.close(handle)  # taken for a leftover, or done with
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before it is let go
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
        handle = _open_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                os.truncate(handle, 0)
                os.write(handle, f"{os.getpid()} {platform.node()}".encode())
                return handle
            os.close(handle)  # who held it has just removed it
        except BlockingIOError:
            number, machine, _ = _read_holder(handle)
            os.close(handle)
            if not _has_ended(number, machine) or time.monotonic() > patience:
                raise _say_held(folder, number, machine) from None
            time.sleep(0.1)
        except OSError:  # no locks here
            os.close(handle)
            path.unlink(missing_ok=True)
            return None


def _share(folder: Path, run: str) -> int:
    """A handle that holds the folder together with the other processes of the run."""
    path = folder / LOCK
    begun = time.monotonic()
    while True:
        handle = _open_lock(path)
        if _lock(handle, path, exclusive=True) and _is_at(handle, path):  # alone, so it begins
            os.truncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {platform.node()} {run}\n".encode(), 0)
        # Between the two locks there is a moment without any, in which another may come first.
        shared = _lock(handle, path, exclusive=False)
        number, machine, name = _read_holder(handle)
        if shared and name == run and _is_at(handle, path):
            return handle
        os.close(handle)
        waited = time.monotonic() - begun
        if name != run and waited > (_PATIENCE if _has_ended(number, machine) else _BEGINNING):
            raise _say_held(folder, number, machine)
        time.sleep(random.uniform(0.01, 0.1))  # or two would look at the same moments again and again


def _open_lock(path: Path) -> int:
    """Raises ExportError where the folder cannot be written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
    except OSError as error:
        raise ExportError(
            f"{path.parent}: cannot be written ({error.strerror}). Check the permissions, or choose another folder."
        ) from error


def _lock(handle: int, path: Path, *, exclusive: bool, wait: bool = False) -> bool:
    """Lock an open file; False where another process has it.  Raises InvalidInput where there are no locks."""
    try:
        if fcntl is None:
            raise OSError(0, "the system has none")
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
        raise InvalidInput(
            f"{path.parent}: several processes cannot share out work there, as it has no locks ({error.strerror}). "
            "Choose another folder, or run one process."
        ) from None
    return True


def _read_holder(handle: int) -> tuple[str, str, str]:
    """Number and machine of the process that wrote a lock's file, and the name of its run; "" for what is not there."""
    line = os.pread(handle, 1000, 0).partition(b"\n")[0].decode(errors="replace")
    number, machine, run, *_ = [*line.split(" ", 2), "", "", ""]
    return number, machine, run


def _say_held(folder: Path, number: str, machine: str) -> InvalidInput:
    who = f"process {number} on {machine}" if machine else "another process"
    return InvalidInput(f"{folder}: {who} is at work in it. Wait until it is done, end it, or choose another folder.")


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
        if not _is_at(handle, path):
            return
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
