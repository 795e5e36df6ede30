"""The images of a folder that are done, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memsr_compiler.files import atomic_write

NAME = ".memsrc-upscale.json"


@dataclass
class Journal:
    """A record of results, kept in the folder that they go to.

    work  what is done to every image: what it depends on, as text;   done  result by name: what image it is of, and how
    large it is itself
    """

    path: Path
    work: str
    done: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(folder: Path, work: str) -> Journal:
        """The journal of a folder; empty if there is none, it cannot be read, or is about other work."""
        path = folder / NAME
        try:
            content = json.loads(path.read_text("utf-8"))
            same = content["work"] == work and isinstance(content["done"], dict)
        except (OSError, ValueError, TypeError, KeyError):
            same = False
        return Journal(path, work, content["done"] if same else {})

    def has(self, image: Path, result: Path) -> bool:
        """Whether the result is there, of this image as it is now."""
        return result.is_file() and self.done.get(result.name) == _identity(image, result)

    def add(self, image: Path, result: Path) -> None:
        self.done[result.name] = _identity(image, result)
        with atomic_write(self.path) as file:
            file.write(json.dumps({"work": self.work, "done": self.done}).encode())


def _identity(image: Path, result: Path) -> list[Any]:
    """Facts on an image and its result: cheap to compare, and different once either has been changed."""
    status = image.stat()
    return [str(image.resolve()), status.st_size, status.st_mtime_ns, result.stat().st_size]
