"""Records in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.levels import noise

from memsr_compiler.locks import remove_leftovers
from memsr_compiler.student.statistics.spill import Spool


def test_a_spool_gives_back_what_it_took_and_leaves_no_file() -> None:
    with Spool(in_memory=100) as spool:
        for i in range(4):
            spool.append({"x": noise(3, 3, seed=i)})
        spool[2] = {"x": noise(2, seed=9), "y": noise(1, seed=8)}
        assert torch.equal(spool[0]["x"], noise(3, 3, seed=0))
        assert [sorted(record) for record in spool] == [["x"], ["x"], ["x", "y"], ["x"]]
        folder = spool._folder
        assert folder is not None and any(folder.iterdir())
        remove_leftovers(folder.parent)  # as any other process would
        assert any(folder.iterdir())
    assert not folder.exists()


def test_records_of_killed_processes_go_when_the_next_writes_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / ".memsr-left.tmp").mkdir()
    (tmp_path / ".memsr-left.tmp" / "0.pt").write_bytes(b"much")
    with Spool(in_memory=0) as spool:
        spool.append({"x": noise(3, 3, seed=0)})
        assert len(list(tmp_path.iterdir())) == 1 and not (tmp_path / ".memsr-left.tmp").exists()
    assert not list(tmp_path.iterdir())
