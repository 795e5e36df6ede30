"""The images of a folder that are done, so that a run that was stopped goes on where it was, wherever that is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from memsr_compiler.errors import ExportError
from memsr_compiler.files import atomic_write, explain_unwritten

NAME = ".memsrc-upscale.json"
UNTIMED = 5  # facts in an entry without the result's time


class JournalNotWritten(ExportError):
    """The record of what is done cannot be kept, so that going on would be in vain."""


@dataclass(frozen=True)
class ImageState:
    """Facts on an image file: cheap to compare, and different once it has been changed, or another has its name.

    modified   when its content was written, in ns, as whoever copied it says;   changed   when anything of it was
    """

    path: str
    size: int
    modified: int
    changed: int

    @staticmethod
    def of(image: Path) -> ImageState:
        """Raises OSError where it is gone."""
        status = image.stat()
        return ImageState(str(image.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_of(self, image: Path) -> bool:
        """Whether the image is still in that state."""
        try:
            return ImageState.of(image) == self
        except OSError:
            return False


class Journal(AbstractContextManager["Journal"]):
    """A record of results, kept in the folder that they go to.

    Lines of JSON: what is done to every image, as text, with the results of earlier runs by name; then one for each
    result, `[name, [image's path, size, times, result's size]]`.  A result is noted before it takes its name, with its
    own time, and with the entry of the one that it replaces: what is there is one of the two, whenever the process was
    killed, and what somebody else has put there is neither.
    """

    def __init__(
        self, folder: Path, work: str, alone: Callable[[], AbstractContextManager[object]] | None = None
    ) -> None:
        """Go on with the journal of a folder; with an empty one if it cannot be read, or is about other work.

        alone   keeps out the other processes that write this journal too; None: there are none
        """
        self._path, self._work = folder / NAME, work
        self._shared, self._alone = alone is not None, alone or nullcontext
        self._done = _read(self._path, work)
        self._file: BinaryIO | None = None  # until there is something to write

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def has(self, image: ImageState, result: Path) -> bool:
        """Whether the result is there, of this image as it is now."""
        if not result.is_file():
            return False
        if self._shared and not self._knows(image, result):  # another may have made it since
            with self._alone():
                self._done = _read(self._path, self._work)
        return self._knows(image, result)

    def _knows(self, image: ImageState, result: Path) -> bool:
        entry, before = _split(self._done.get(result.name))
        untimed = _describe(image, result)
        return untimed in (entry, before) or entry == [*untimed, result.stat().st_mtime_ns]

    def announce(self, image: ImageState, result: Path, staged: Path) -> None:
        """Note that a file will take its name as a result."""
        entry, before = _split(self._done.get(result.name))
        known = entry if entry and len(entry) == UNTIMED else before
        self._add(result.name, [*_describe(image, staged), staged.stat().st_mtime_ns, known])

    def confirm(self, image: ImageState, result: Path) -> None:
        """Note that it has."""
        self._add(result.name, _describe(image, result))

    def _add(self, name: str, entry: list[Any]) -> None:
        try:
            with self._alone():
                file = self._file = self._file or self._begin()
                file.write(_encode([name, entry]))
                file.flush()
                os.fsync(file.fileno())
                if self._shared:  # the next time another may have begun it anew
                    file.close()
                    self._file = None
        except OSError as error:
            raise JournalNotWritten(str(explain_unwritten(self._path, error))) from None
        except ExportError as error:
            raise JournalNotWritten(str(error)) from None
        self._done[name] = entry

    def _begin(self) -> BinaryIO:
        if self._shared and _goes_on(self._path, self._work):
            return open(self._path, "ab")
        if self._shared:
            self._done = _read(self._path, self._work)
        with atomic_write(self._path) as file:
            file.write(_encode({"work": self._work, "done": self._done}))
        return open(self._path, "ab")


def _goes_on(path: Path, work: str) -> bool:
    """Whether lines can be added to the journal as it is."""
    try:
        with open(path, "rb") as file:
            ours = json.loads(file.readline())["work"] == work
            file.seek(-1, os.SEEK_END)
            return bool(ours and file.read() == b"\n")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _read(path: Path, work: str) -> dict[str, Any]:
    """Results by name; what the last line lacks, if the machine went down, is not known."""
    done: dict[str, Any] = {}
    try:
        head, *lines = path.read_bytes().splitlines()
        begun = json.loads(head)
        if begun["work"] != work:
            return {}
        done.update(begun["done"])
        for line in lines:
            name, entry = json.loads(line)
            done[name] = entry
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return done


def _describe(image: ImageState, result: Path) -> list[Any]:
    return [image.path, image.size, image.modified, image.changed, result.stat().st_size]


def _split(entry: Any) -> tuple[Any, Any]:
    """An entry, and that of the result which it was to replace."""
    if isinstance(entry, list) and len(entry) == UNTIMED + 2:
        return entry[:-1], entry[-1]
    return entry, None


def _encode(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"
