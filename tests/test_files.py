"""Reading what is a file; writing files: each whole or not at all, several together or none."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.files import atomic_write, atomic_write_together, read_file


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_where_hard_links_are_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with atomic_write_together([tmp_path / "a", tmp_path / "b"]) as (a, b):
            a.write_text("new")
            b.write_text("new")
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "full").touch()  # now b cannot take its name

    with pytest.raises(ExportError):
        write()
    assert (tmp_path / "a").read_text() == "old"
    with atomic_write_together([tmp_path / "a", tmp_path / "c"]) as (a, c):
        a.write_text("new")
        c.write_text("new")
    assert (tmp_path / "a").read_text() == (tmp_path / "c").read_text() == "new"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_single_file_appears_or_not(failure: BaseException, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def write() -> None:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"new")
            raise failure

    with pytest.raises((ExportError, KeyboardInterrupt)):
        write()
    assert contents(tmp_path) == {"file": b"old"}
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert contents(tmp_path) == {"file": b"new"}


def test_only_what_is_a_file_is_read(tmp_path: Path) -> None:
    """A device may have no end, and a pipe that nobody writes to would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path, reason in (
        (tmp_path, "is a directory. Give the file with the weights."),
        (tmp_path / "pipe", "is a device or a pipe. Give a file."),
        (Path("/dev/zero"), "is a device or a pipe. Give a file."),
        (tmp_path / "none", "cannot be read (No such file or directory). Check the path."),
        (tmp_path / "empty", "is empty. Download or save it again."),
    ):
        with pytest.raises(InvalidInput, match=re.escape(reason)):
            read_file(path, "the weights")


def test_a_file_for_which_there_is_no_memory(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 42)  # takes no room on the disk
    with pytest.raises(InvalidInput, match=r"has 4,398,046,511,104 bytes, for which there is not enough memory"):
        read_file(tmp_path / "a", "the weights")
