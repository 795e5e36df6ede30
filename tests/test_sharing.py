"""Notes that processes share: one that does not fit on the disk is no note, and that is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memsr_compiler.errors import ExportError
from memsr_compiler.locks import LOCK
from memsr_compiler.sharing import Launch, Team


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
