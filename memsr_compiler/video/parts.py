"""A result in parts: whole files of a few seconds each, so that a run that was stopped goes on where it was.

They are in a folder beside the result, with a journal: a line on the work, then one for each part, written when the
part is whole and has its name.  Players show them, without sound.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import av
from av.container.output import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.files import atomic_write, explain_unwritten, file_digest, find_full_disk
from memsr_compiler.locks import hold_folder
from memsr_compiler.video.codecs import Encoding
from memsr_compiler.video.film import read_state

JOURNAL = "journal.jsonl"
ENDING = ".parts"
FARTHEST = 64  # frames that an encoder decodes one before it is shown; of those here at most 17 are waited for
# What a damaged line of a journal raises; OSError: where it names a file that no system could have.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)

OnPart = Callable[[str], None]
"""Hears the name of a part before it is read from its first byte to its last: those of a long film take minutes."""


@dataclass(frozen=True)
class Part:
    """A file of frames that follow one another.

    times, lengths   of its frames as they are shown, in units of the original's time base
    order            of its packets: which of the frames each holds
    size, sha256     of the file; of an earlier version's part nobody knows them: 0, ""
    """

    name: str
    times: list[int]
    lengths: list[int]
    order: list[int]
    size: int = 0
    sha256: str = ""

    @staticmethod
    def parse(entry: dict[str, Any]) -> Part:
        """A part, as it stands in a journal.  Raises KeyError, TypeError or ValueError where that is damaged."""
        numbers = (entry["times"], entry["lengths"], entry["order"])
        if not all(isinstance(each, list) and all(type(number) is int for number in each) for each in numbers):
            raise ValueError("numbers that are none")
        part = Part(**entry)
        if type(part.size) is not int or not isinstance(part.sha256, str):
            raise ValueError("a size or a hash that is none")
        if sorted(part.order) != list(range(len(part.times))) or len(part.lengths) != len(part.times):
            raise ValueError("numbers that do not go together")
        if any(later <= earlier for earlier, later in itertools.pairwise(part.times)):
            raise ValueError("times that do not rise")
        if Path(part.name).name != part.name:
            raise ValueError("a file elsewhere")
        return part

    def find_change(self, folder: Path) -> str:
        """Why its file is not what was written, in words; "" where it is."""
        path = folder / self.name
        if not self.sha256:
            return "was made by an earlier version, which noted no checksum"
        try:
            if not path.is_file():
                return "is gone"
            same = path.stat().st_size == self.size and file_digest(path) == self.sha256
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"
        return "" if same else "is not what was written: it has been damaged or replaced"


class Parts:
    """The parts of a result that are there.

    finished   the result's size and time, and what there is to say about it, where it was about to get its name
    changed    the first part that is not what was written, and why, in words; from there on all is made again
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Part] = []
        self.finished: dict[str, Any] | None = None
        self.changed = ""
        self._checked: dict[str, tuple[int, int, int]] = {}  # states of files whose checksums are known to be right

    @property
    def frames(self) -> int:
        return sum(len(part.times) for part in self.all)

    def add(self, part: Part) -> None:
        """Note a part whose file is there, and what was written."""
        self._write(_note(part))
        self.take(part, read_state(self.folder / part.name))

    def take(self, part: Part, state: tuple[int, int, int]) -> None:
        """Take a part whose file, in that state, is what was written."""
        self.all.append(part)
        self._checked[part.name] = state

    def announce(self, staged: Path, words: dict[str, Any]) -> None:
        """Note that a file is about to be the result, and what there is to say about it."""
        self.finished = {"file": list(_state_of_result(staged)), "words": words}
        self._write({"finished": self.finished})

    def is_done(self, target: Path) -> bool:
        """Whether the result is there already, and nothing is left to do but to tidy up."""
        return (
            self.finished is not None and target.is_file() and self.finished["file"] == list(_state_of_result(target))
        )

    def require_unchanged(self, on_part: OnPart) -> None:
        """Raises ExportError where a part is no more what was written; those that nobody has touched are not read."""
        for part in self.all:
            with contextlib.suppress(OSError):
                if read_state(self.folder / part.name) == self._checked[part.name]:
                    continue
            on_part(part.name)
            reason = part.find_change(self.folder)
            if reason:
                raise_changed(self.folder / part.name, reason)

    def _write(self, line: dict[str, Any]) -> None:
        path = self.folder / JOURNAL
        try:
            with open(path, "ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise explain_unwritten(path, error) from None


def _state_of_result(path: Path) -> tuple[int, int]:
    """Size and time of a file, which stay when it gets its name."""
    return read_state(path)[:2]


def raise_changed(path: Path, reason: str) -> NoReturn:
    """Raises ExportError for a part that is not what was written."""
    raise ExportError(f"{path}: {reason}; run the same command again, which makes it anew")


def name_folder(target: Path) -> Path:
    return target.with_name(target.name + ENDING)


@contextlib.contextmanager
def open_parts(target: Path, work: str, *, begin_anew: bool, on_part: OnPart) -> Iterator[Parts]:
    """The parts of a result, held for this process.  The folder is removed where it is left without a part.

    work         all that parts depend on, as text
    begin_anew   whether parts of other work are replaced
    on_part      hears of each that is read

    Raises InvalidInput where there are parts of other work, or where another process is at it.
    """
    folder = name_folder(target)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be made a folder ({error.strerror}); choose another place") from None
    try:
        with hold_folder(folder):
            parts, same = _read(folder, work, on_part)
            if not same:
                if not begin_anew and any(folder.glob("*.mkv")):
                    raise InvalidInput(
                        f"{folder}: holds parts of this result made of another film, by another network or with other "
                        "options; give those again to go on, or --overwrite to begin anew"
                    )
                _clear(folder)
            _write_anew(parts, work)
            try:
                yield parts
            finally:
                if not parts.all:
                    _clear(folder)
    finally:
        with contextlib.suppress(OSError):  # it holds parts
            folder.rmdir()


def _note(part: Part) -> dict[str, Any]:
    """An entry of a journal, with a checksum of its own: a number that is another makes a wrong film too."""
    return {"part": vars(part), "check": hashlib.sha256(json.dumps(vars(part)).encode()).hexdigest()}


def _write_anew(parts: Parts, work: str) -> None:
    """Write the journal without what is not true any more, or was not written to its end."""
    lines: list[dict[str, Any]] = [{"work": work}, *map(_note, parts.all)]
    if parts.finished is not None:
        lines.append({"finished": parts.finished})
    with atomic_write(parts.folder / JOURNAL) as file:
        file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def remove_parts(parts: Parts) -> None:
    """Remove the parts of a result that is there."""
    parts.all.clear()
    _clear(parts.folder)


def _clear(folder: Path) -> None:
    for path in (*folder.glob("*.mkv"), folder / JOURNAL):  # the journal last: it says what the parts are
        with contextlib.suppress(OSError):
            path.unlink()


def _read(folder: Path, work: str, on_part: OnPart) -> tuple[Parts, bool]:
    """The parts that the journal knows and that are what was written, and whether it is about this work.

    A line that the machine did not write to its end is none.
    """
    parts = Parts(folder)
    try:
        head, *lines = (folder / JOURNAL).read_bytes().splitlines()
        if json.loads(head)["work"] != work:
            return parts, False
    except UNREADABLE:
        return parts, False
    with contextlib.suppress(*UNREADABLE):
        for line in lines:
            entry = json.loads(line)
            if "finished" in entry:
                parts.finished = {"file": entry["finished"]["file"], "words": dict(entry["finished"]["words"])}
                continue
            part = Part.parse(entry["part"])
            if parts.changed:  # what comes behind has to be made again too, in its place
                continue
            on_part(part.name)
            state = read_state(folder / part.name) if (folder / part.name).is_file() else (0, 0, 0)
            reason = part.find_change(folder)
            if part.sha256 and entry.get("check") != _note(part)["check"]:
                reason = f"its line in {JOURNAL} is damaged"
            if reason:
                parts.changed = f"{folder / part.name}: {reason}"
            else:
                parts.take(part, state)
    return parts, True


class PartWriter:
    """A part that is being written: frame by frame, and then `close` gives it its name."""

    def __init__(self, folder: Path, number: int, encoding: Encoding) -> None:
        self._path = folder / f"{number:06}.mkv"
        self._encoding = encoding
        self._undo = contextlib.ExitStack()
        self._times: list[int] = []
        self._lengths: list[int] = []
        self._order: list[int] = []
        file = self._undo.enter_context(atomic_write(self._path))
        self._container: OutputContainer = av.open(file, "w", format="matroska")
        self._stream: VideoStream = encoding.add_to(self._container)

    def __len__(self) -> int:
        return len(self._times)

    def add(self, frame: VideoFrame, time: int, length: int) -> None:
        """Encode a frame."""
        frame.pts, frame.time_base = len(self._times), 1 / self._encoding.rate
        self._times.append(time)
        self._lengths.append(length)
        self._mux(frame)

    def close(self) -> Part:
        """Write the file to its end; it vanishes where that cannot be."""
        try:
            self._mux(None)
            with _explain_errors(self._path):
                self._container.close()
            self._undo.close()
            with _explain_errors(self._path):
                size, sha256 = self._path.stat().st_size, file_digest(self._path)
        except BaseException:
            self.abandon()
            raise
        if sorted(self._order) != list(range(len(self._times))):
            raise ExportError(f"{self._encoding.codec}: gave {len(self._order)} packets of {len(self._times)} frames")
        return Part(self._path.name, self._times, self._lengths, self._order, size, sha256)

    def abandon(self) -> None:
        """Let the file go."""
        with contextlib.suppress(FFmpegError, OSError):
            self._container.close()
        with contextlib.suppress(_Abandoned):
            self._undo.__exit__(_Abandoned, _Abandoned(), None)

    def _mux(self, frame: VideoFrame | None) -> None:
        with _explain_errors(self._path):
            for packet in self._stream.encode(frame):
                self._order.append(self._number(packet))
                self._check_order(packet)
                self._container.mux(packet)

    def _number(self, packet: Packet[VideoStream]) -> int:
        """The frame that a packet holds, counted from the part's first."""
        assert packet.pts is not None, "an encoder tells the time that it was told"
        return round(packet.pts * packet.time_base * self._encoding.rate)

    def _check_order(self, packet: Packet[VideoStream]) -> None:
        """Give a packet the time of its decoding where it has none that can be.

        libx265 does not set it where a part has one frame or two: it is what its memory held, and no muxer takes that.
        So few frames are decoded in the order in which they are shown.
        """
        shown, decoded = packet.pts, packet.dts
        frame = packet.time_base * self._encoding.rate
        if shown is None or decoded is None or not 0 <= (shown - decoded) * frame <= FARTHEST:
            packet.dts = shown


class _Abandoned(Exception):
    """A reason for a file not to be written."""


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FFmpegError as error:
        raise explain_ffmpeg(path, error) from error
    except OSError as error:
        raise explain_unwritten(path, error) from error


def explain_ffmpeg(path: Path, error: FFmpegError) -> ExportError:
    """The error that tells which file FFmpeg did not write; a full disk is the system's error, passed on."""
    full = find_full_disk(error.strerror)
    if full is not None:
        return explain_unwritten(path, full)
    return ExportError(f"{path}: cannot be written ({error.strerror or error})")
