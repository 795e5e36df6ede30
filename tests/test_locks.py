"""Locks: a folder has one process at a time, and only what dead processes left is removed."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memsr_compiler import locks
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.files import atomic_write, atomic_write_together

pytest.importorskip("fcntl", reason="Windows has no such locks")

HOLDS = "with hold_folder(folder):\n    wait()"
WRITES = "with atomic_write(folder / 'file') as file:\n    wait()"
WRITES_TWO = "with atomic_write_together([folder / 'a', folder / 'b']) as (a, b):\n    a.write_text('half')\n    wait()"
KEEPS = "with temporary_folder(folder) as mine:\n    (mine / 'spilled').write_text('much')\n    wait()"


@contextmanager
def process(what: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of it, and killed at the end."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from memsr_compiler.files import atomic_write, atomic_write_together\n"
        "from memsr_compiler.locks import hold_folder, keep_temporary_files, temporary_folder\n"
        "folder = Path(sys.argv[1])\n"
        f"def wait():\n    print('there', flush=True)\n    sys.stdin.read()\n{what}\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdin is not None and started.stdout is not None
    with started.stdin, started.stdout:
        assert started.stdout.readline() == "there\n"
        yield started
        started.kill()
        started.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_held_by_one_process_and_the_other_is_told_by_whom(tmp_path: Path) -> None:
    with process(HOLDS, tmp_path) as other:
        before = names(tmp_path)
        with (
            pytest.raises(InvalidInput, match=f"process {other.pid} on {platform.node()} is at work in it"),
            locks.hold_folder(tmp_path),
        ):
            raise AssertionError("two hold it")
        assert names(tmp_path) == before == [locks.LOCK]
        other.kill()  # without a chance to tidy up
        other.wait()
        with locks.hold_folder(tmp_path), pytest.raises(InvalidInput, match=str(os.getpid())):
            locks.hold_folder(tmp_path).__enter__()
    assert names(tmp_path) == []


def test_what_a_killed_process_started_may_take_a_moment_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that it had forked share its lock; torch's, which cut patches, look after some seconds."""
    forks = "import os\nwith hold_folder(folder):\n    if os.fork():\n        wait()\n    sys.stdin.read()"
    with process(forks, tmp_path) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        monkeypatch.setattr(locks, "_PATIENCE", 0.2)
        with pytest.raises(InvalidInput, match=f"process {other.pid}"), locks.hold_folder(tmp_path):
            raise AssertionError("the child still has it")
        assert other.stdin is not None
        other.stdin.close()  # now the child ends
        monkeypatch.setattr(locks, "_PATIENCE", 30)
        with locks.hold_folder(tmp_path):
            pass


@pytest.mark.parametrize("what", [WRITES, WRITES_TWO, KEEPS])
def test_leftovers_go_with_the_next_run_and_never_those_of_a_living_process(tmp_path: Path, what: str) -> None:
    with process(what, tmp_path) as other:
        left = names(tmp_path)
        assert len(left) == 1
        with locks.hold_folder(tmp_path):
            assert set(left) < set(names(tmp_path))
        other.kill()
        other.wait()
        assert names(tmp_path) == left
        with locks.hold_folder(tmp_path):
            assert names(tmp_path) == [locks.LOCK]
    assert names(tmp_path) == []


def test_only_our_names_are_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("somebody's")
    for name in (".memsr-notes", "notes.tmp", ".memsrc-upscale.json"):
        (tmp_path / name).write_text("somebody's")
    (tmp_path / ".memsr-0123.tmp").symlink_to(tmp_path / "elsewhere")
    locks.remove_leftovers(tmp_path)
    assert len(names(tmp_path)) == 5
    locks.remove_leftovers(tmp_path / "nowhere")


def test_files_in_the_middle_of_being_written_are_this_process_own(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file, atomic_write_together([tmp_path / "b"]) as (b,):
        file.write(b"a")
        b.write_text("b")
        locks.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a", "b"]


def test_what_was_taken_for_a_leftover_before_it_was_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = locks._hold
    taken: list[Path] = []

    def late(path: Path, undo: contextlib.ExitStack) -> bool:
        if len(taken) < 2:
            taken.append(path)
            locks.remove_leftovers(tmp_path)
        return hold(path, undo)

    monkeypatch.setattr(locks, "_hold", late)
    with locks.temporary_file(tmp_path) as (path, file):
        file.write(b"x")
        assert path.exists() and len(taken) == 2
    taken.clear()
    with locks.temporary_folder(tmp_path) as folder:
        assert folder.is_dir() and len(taken) == 2


def test_without_locks_nobody_is_kept_out_and_nothing_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".memsr-0123.tmp").touch()
    (tmp_path / "held").mkdir()

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", refuse)
        with locks.hold_folder(tmp_path), locks.hold_folder(tmp_path), atomic_write(tmp_path / "file") as file:
            file.write(b"x")
    monkeypatch.setattr(locks, "fcntl", None)
    with locks.hold_folder(tmp_path), locks.hold_folder(tmp_path), atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    with locks.temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert names(tmp_path) == [".memsr-0123.tmp", "file", "held"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written"), locks.hold_folder(tmp_path / "nowhere"):
        raise AssertionError("it is not there")


def test_temporary_files_of_other_libraries_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs = "with keep_temporary_files():\n    tempfile.mkdtemp()\n    wait()"
    with process(f"import tempfile\ntempfile.tempdir = str(folder)\n{theirs}", tmp_path) as other:
        left = names(tmp_path)
        with locks.keep_temporary_files():
            Path(tempfile.mkdtemp(), "file").write_text("x")
            assert len(names(tmp_path)) == 2
        assert names(tmp_path) == left and tempfile.gettempdir() == str(tmp_path)
        other.kill()
        other.wait()
        with locks.keep_temporary_files():
            assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


def test_an_interrupt_right_after_a_file_was_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, undo: contextlib.ExitStack) -> bool:
        assert path.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(locks, "_hold", interrupt)
    for make in (locks.temporary_file, locks.temporary_folder):
        with pytest.raises(KeyboardInterrupt), make(tmp_path):
            raise AssertionError("nothing is made")
    assert names(tmp_path) == []
