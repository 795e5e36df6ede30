"""Processes that share out pieces of work: each is done by one of them, and by another where that one dies.

Nothing is dealt out beforehand.  Whoever is free claims the next piece by a lock, which ends with the process, and
notes what has become of it; what is claimed and not noted when its process dies is claimed again.  The processes need a
folder in common, and nothing else: no port, no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.locks import claim, share_folder

_COMING = 30.0  # seconds, that a process waits at the end for one that has not come yet
_PAUSE = 0.1
_DIGITS = 9  # of a number in the environment
_NOTES = "notes"  # what is claimed to read and write them; pieces are called by their own names


@dataclass(frozen=True)
class Launch:
    """The processes that were started together, by torchrun or accelerate: which of them this one is.

    run    a name that they have in common;   rank  from 0;   size  all of them
    beside   those on this machine;   place   this one's among them, from 0
    """

    run: str
    rank: int
    size: int
    beside: int
    place: int

    @staticmethod
    def find(environment: Mapping[str, str] = os.environ) -> Launch | None:
        """This process's launch, as torchrun tells it; None where it is alone.

        Raises InvalidInput for what is no number, and for numbers that do not go together.
        """
        size = _number(environment, "WORLD_SIZE", 1)
        if size > 1 and "RANK" not in environment:  # else each of them would take itself for the first
            raise InvalidInput(
                f"WORLD_SIZE={size} in the environment, and no RANK; set both, as torchrun does, or none"
            )
        told = f"WORLD_SIZE={size}" if "WORLD_SIZE" in environment else "no WORLD_SIZE"
        rank = _number(environment, "RANK", 0, size, told)
        if size == 1:
            return None
        place = f"{environment.get('MASTER_ADDR', '')}:{environment.get('MASTER_PORT', '')}"
        if environment.get("GROUP_WORLD_SIZE", "1") == "1":  # all on one machine, and another may say the same
            place = f"{platform.node()}:{place}"
        beside = _number(environment, "LOCAL_WORLD_SIZE", 1)
        most = beside if "LOCAL_WORLD_SIZE" in environment else None
        at = _number(environment, "LOCAL_RANK", 0, most, f"LOCAL_WORLD_SIZE={beside}")
        run = f"{environment.get('TORCHELASTIC_RUN_ID', '')} {place}"
        name = hashlib.sha256(run.encode(errors="surrogateescape")).hexdigest()[:16]
        return Launch(name, rank, size, beside, at)

    def take_gpu(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Let this process see one of the machine's GPUs alone, each its own; before anything looks for them."""
        visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environment["CUDA_VISIBLE_DEVICES"] = visible[self.place % len(visible)] if visible else str(self.place)


def count_processes() -> int:
    """The processes of this launch, of which one alone is 1.  Raises InvalidInput as `Launch.find`."""
    launch = Launch.find()
    return launch.size if launch is not None else 1


def _number(environment: Mapping[str, str], name: str, least: int, processes: int | None = None, told: str = "") -> int:
    """A number of the environment; where it is one process's, below how many there are, which is `told` there."""
    text = environment.get(name, str(least))
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < least:
        raise InvalidInput(
            f"{name}={text[:40]!r} in the environment: want a number from {least}, as torchrun sets it, or none"
        )
    number = int(text)
    if processes is not None and number >= processes:
        raise InvalidInput(
            f"{name}={number} in the environment, and {told}: processes are numbered from 0, so that {name} is "
            f"{processes - 1} at most; set both as torchrun does, or none"
        )
    return number


class Team:
    """The processes of one run at work in a folder."""

    def __init__(self, folder: Path, launch: Launch, file: FileIO) -> None:
        self.launch = launch
        self._folder, self._file = folder, file
        self._read = 0  # bytes of the file
        self._come: set[int] = set()
        self._notes: dict[str, Any] = {}

    @staticmethod
    @contextlib.contextmanager
    def join(folder: Path, launch: Launch) -> Iterator[Team]:
        """Join the others in the folder.

        At the end, those that have not come yet are waited for, as they would begin anew.  Raises InvalidInput where
        another run is at work there, or the place has no locks.
        """
        with share_folder(folder, launch.run) as file:
            team = Team(folder, launch, file)
            team._write({"come": launch.rank})
            yield team
            patience = time.monotonic() + _COMING
            while len(team._come) < launch.size and time.monotonic() < patience:
                time.sleep(_PAUSE)
                team.notes()

    def alone(self) -> AbstractContextManager[object]:
        """Work that no two of the processes do at the same time."""
        return claim(self._folder, _NOTES, wait=True)

    def notes(self) -> Mapping[str, Any]:
        """Whatever has been noted by any of the processes, of each piece the last."""
        with self.alone():
            self._catch_up()
        return self._notes

    def note(self, piece: str, outcome: object) -> None:
        """Note what has become of a piece, as JSON holds it, so that nobody does it any more."""
        self._write({"piece": piece, "outcome": outcome})

    def each(self, pieces: Sequence[str], do: Callable[[str], object]) -> Iterator[Mapping[str, Any]]:
        """Do pieces until all are done by somebody; `do` gives what is to be noted.  Yields all notes, now and then."""
        left = list(pieces)
        while left:
            busy = []
            for piece in left:
                if piece in self._notes:
                    continue
                with claim(self._folder, f"piece {piece}") as ours:
                    if not ours:
                        busy.append(piece)
                    elif piece not in self.notes():
                        self.note(piece, do(piece))
                yield self._notes
            left = [piece for piece in busy if piece not in self.notes()]
            if len(left) == len(busy):
                time.sleep(_PAUSE)
        yield self._notes

    def _write(self, line: object) -> None:
        """Raises ExportError where there is no room for it."""
        with self.alone():
            self._catch_up()
            self._file.seek(self._read)  # behind the last whole line: what is half was a dead process's
            self._file.truncate()
            left = memoryview(json.dumps(line).encode() + b"\n")
            try:
                while left:  # a full disk takes a part, and refuses the rest
                    left = left[self._file.write(left) :]
            except OSError as error:
                raise ExportError(f"{self._folder}: cannot be written ({error.strerror}). Free some space.") from None
            self._catch_up()

    def _catch_up(self) -> None:
        """Read what has been written since the last time."""
        self._file.seek(self._read)
        whole, end, _ = self._file.readall().rpartition(b"\n")
        for line in whole.splitlines()[0 if self._read else 1 :]:
            entry = json.loads(line)
            if "come" in entry:
                self._come.add(entry["come"])
            else:
                self._notes[entry["piece"]] = entry["outcome"]
        self._read += len(whole) + len(end)
