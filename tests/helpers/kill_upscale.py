"""Kills `memsrc upscale` of a folder again and again: python kill_upscale.py MODEL PHOTOS PLACE [KILLS] [SEED].

Imports once and forks for each run, so that a kill costs a fraction of a second.  First, it kills before each
renaming, removal and durable write of a run, one after the other; then at random moments.  After the kills a run has to
complete, with the results of a run that was left alone, bit for bit, and nothing else in the folder.  Writes how many
kills there were.
"""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import onnx  # noqa: F401  # before the fork, as all that a run imports: it would be killed in the middle of that
import onnxruntime  # noqa: F401
from PIL import Image

from memsr_compiler import cli
from memsr_compiler.commands import upscale  # noqa: F401

POINTS = ("replace", "fsync", "unlink")  # of os
JOURNAL = ".memsrc-upscale.json"


def import_all() -> None:
    """Import what a run does on its way as well, before the fork."""
    Image.init()
    sys.argv = ["memsrc", "upscale", "--help"]
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        cli.main()


def start(model: Path, photos: Path, out: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin a run in a process of its own."""
    if child := os.fork():
        return child
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)
        os.dup2(silence.fileno(), 2)
    sys.argv = ["memsrc", "upscale", str(photos), str(out), "--model", str(model), "--threads", "1", "-q"]
    prepare()
    try:
        cli.main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0)
    os._exit(99)


def finish(model: Path, photos: Path, out: Path) -> None:
    """Run to the end."""
    status = os.waitstatus_to_exitcode(os.waitpid(start(model, photos, out), 0)[1])
    assert status == 0, f"exit status {status} after a kill: {sorted(os.listdir(out))}"


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != JOURNAL}


def die_at(number: int) -> Callable[[], None]:
    """Kill the process itself before the number-th of the points."""
    count = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counted

    def prepare() -> None:
        for name in POINTS:
            setattr(os, name, wrap(getattr(os, name)))

    return prepare


def main(model: Path, photos: Path, place: Path, kills: int, seed: int) -> None:
    """Kill at every point, and so many times at random."""
    import_all()
    begun = time.monotonic()
    finish(model, photos, place / "undisturbed")
    seconds = time.monotonic() - begun
    expected = contents(place / "undisturbed")
    assert len(expected) == len(os.listdir(photos))
    points = 0
    while True:
        out = place / f"point {points + 1}"
        child = start(model, photos, out, die_at(points + 1))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break  # there are no more
        points += 1
        finish(model, photos, out)
        assert contents(out) == expected, f"other results after a kill at point {points}"
    chance = random.Random(seed)
    killed = 0
    while killed < kills:
        out = place / f"random {killed}"
        for _ in range(chance.choice((1, 1, 2, 3))):  # some are killed again while they go on
            child = start(model, photos, out)
            time.sleep(chance.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        finish(model, photos, out)
        assert contents(out) == expected, f"other results after random kill {killed}"
    sys.stdout.write(f"{points} points, {killed} random, undisturbed {seconds:.2f} s\n")


if __name__ == "__main__":
    model, photos, place = map(Path, sys.argv[1:4])
    kills, seed = map(int, [*sys.argv[4:], *("20", "0")[len(sys.argv) - 4 :]])
    main(model, photos, place, kills, seed)
