"""Notes that processes share: one that does not fit on the disk is no note, and that is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.locks import LOCK
from memsr_compiler.sharing import Launch, Team, count_processes


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks, and a limit on the size of files")
def test_a_note_that_fits_in_part_is_told_and_nobody_reads_it(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Team.join(tmp_path, Launch("run", 0, 1, 1, 0)) as team:
        team.note("one", "done")
        most = (tmp_path / LOCK).stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(ExportError, match="cannot be written"):
                team.note("two", "x" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert dict(team.notes()) == {"one": "done"}
        team.note("two", "done after all")  # in the place of what is half
        assert dict(team.notes()) == {"one": "done", "two": "done after all"}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "5"}, "RANK=5 in the environment, and WORLD_SIZE=2: .* RANK is 1 at most"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 1 at most"),
        ({"WORLD_SIZE": "1", "RANK": "1"}, "RANK is 0 at most"),
        ({"RANK": "1"}, "RANK=1 in the environment, and no WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 in the environment, and no RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment: want a number from 1"),
        ({"WORLD_SIZE": "-2", "RANK": "0"}, "WORLD_SIZE='-2'"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE='0'"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK='-1'"),
        ({"WORLD_SIZE": "2", "RANK": "0.5"}, r"RANK='0\.5'"),
        ({"WORLD_SIZE": "9" * 5000, "RANK": "0"}, "WORLD_SIZE='9{40}'"),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "3"}, "LOCAL_RANK is 1 at most"),
    ],
)
def test_numbers_of_processes_that_cannot_be_are_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        Launch.find(environment)
    assert "\n" not in str(refused.value)


def test_a_launch_that_can_be_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Launch.find({}) is None and Launch.find({"WORLD_SIZE": "1", "RANK": "0"}) is None
    launch = Launch.find({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    assert launch is not None and (launch.rank, launch.size, launch.beside, launch.place) == (3, 4, 2, 1)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert count_processes() == 3
