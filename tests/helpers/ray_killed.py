"""Runs examples/ray_upscale.py with two workers of which one is killed: python ray_killed.py PHOTOS PLACE.

Whoever comes to the second photograph first is killed (SIGKILL) in the middle of it: its result is written, and has not
got its name yet.  Prints what came of each photograph, and by how many processes each was begun.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.examples import load_example

from memsr_compiler.commands import upscale
from memsr_compiler.distributed import EnlargeFiles
from memsr_compiler.runtime.upscale_file import enlarge_file


class Mortal(EnlargeFiles):
    """A worker that writes down what it begins, and dies once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        place = Path(options["folder"]).parent

        def enlarge(engine: Any, image: Any, target: Path, scale: int, on_rows: Any, on_whole: Any) -> None:
            with open(place / "log", "ab", buffering=0) as log:
                log.write(f"{os.getpid()} {image.path.name}\n".encode())

            def die_once(staged: Path) -> None:
                on_whole(staged)
                if image.path.name == "b.png" and not (place / "killed").exists():
                    (place / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)

            enlarge_file(engine, image, target, scale, on_rows, die_once)

        vars(upscale)["enlarge_file"] = enlarge


def main(photos: Path, place: Path) -> None:
    rows = load_example("ray_upscale").main(photos, place / "large", 2, Mortal)
    begun = [line.split() for line in (place / "log").read_text().splitlines()]
    said = {
        "errors": {Path(row["path"]).name: row["error"] for row in rows},
        "begun": Counter(name for _, name in begun),
        "processes": len({process for process, _ in begun}),
        "killed": (place / "killed").exists(),
    }
    sys.stdout.write(f"{json.dumps(said)}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
