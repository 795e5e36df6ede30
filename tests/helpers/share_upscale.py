"""Kills one of three processes that share a folder in `memsrc upscale`, again and again: MODEL PHOTOS PLACE.

Imports once and forks for each process.  Of all renamings, removals and durable writes that one of the three makes, it
is killed before the first, in another run before the fifth, and so on.  Then the other two have to complete all, with
the results of a run of one process, bit for bit, and after the next run there is nothing else in the folder.  No image
may be enlarged twice but the one that was in the killed process's hands.  Writes how many points there were, and how
many images the killed processes had begun.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from helpers.kill_upscale import JOURNAL, contents, die_at, finish, import_all

from memsr_compiler import cli
from memsr_compiler.commands import upscale
from memsr_compiler.runtime.upscale_file import enlarge_file


def start(model: Path, photos: Path, out: Path, rank: int, run: str, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin one process of three; it writes into a file beside the results whatever image it begins with."""
    if child := os.fork():
        return child
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)
        os.dup2(silence.fileno(), 2)
    os.environ.update(WORLD_SIZE="3", RANK=str(rank), LOCAL_WORLD_SIZE="3", TORCHELASTIC_RUN_ID=run)

    def noted(engine: Any, image: Any, *rest: Any) -> None:
        with open(log_of(out), "ab", buffering=0) as file:
            file.write(f"{rank} {image.path.name}\n".encode())
        enlarge_file(engine, image, *rest)

    mock.patch.object(upscale, "enlarge_file", noted).start()
    sys.argv = ["memsrc", "upscale", str(photos), str(out), "--model", str(model), "-q"]
    prepare()
    try:
        cli.main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0)
    os._exit(99)


def log_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def main(model: Path, photos: Path, place: Path) -> None:
    import_all()
    finish(model, photos, place / "alone")
    expected = contents(place / "alone")
    done = 0
    for point in count(1, 4):
        out = place / f"point {point}"
        children = [start(model, photos, out, 1, out.name, die_at(point))]
        children += [start(model, photos, out, rank, out.name) for rank in (0, 2)]
        first, *others = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert others == [0, 0], f"exit statuses {others} where another was killed at point {point}"
        results = {name: content for name, content in contents(out).items() if not name.startswith(".")}
        assert results == expected, f"other results after a kill at point {point}: {os.listdir(out)}"
        finish(model, photos, out)  # it finds all done; and the last to leave may have been the killed one
        assert contents(out) == expected, f"left after a kill at point {point}: {os.listdir(out)}"
        begun = [line.split() for line in log_of(out).read_text().splitlines()]
        times = Counter(name for _, name in begun)
        again = [name for name, number in times.items() if number > 1]
        assert len(times) == len(expected) and max(times.values()) <= 2 and len(again) <= (first != 0), begun
        by_killed = [name for rank, name in begun if rank == "1"]
        assert again in ([], by_killed[-1:]), f"{again} were begun twice, by {begun}"
        assert (out / JOURNAL).read_bytes().count(b"\n") >= 1 + 2 * len(expected) - 1
        done += len(by_killed)
        if first == 0:
            sys.stdout.write(f"{point - 1} points, {done} begun by processes that were killed\n")
            return  # there are no more


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
