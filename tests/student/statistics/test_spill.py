"""Records in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers.levels import noise

from memsr_compiler.student.statistics.spill import Spool


def test_a_spool_gives_back_what_it_took_and_leaves_no_file(tmp_path: Path) -> None:
    with Spool(in_memory=100) as spool:
        for i in range(4):
            spool.append({"x": noise(3, 3, seed=i)})
        spool[2] = {"x": noise(2, seed=9), "y": noise(1, seed=8)}
        assert torch.equal(spool[0]["x"], noise(3, 3, seed=0))
        assert [sorted(record) for record in spool] == [["x"], ["x"], ["x", "y"], ["x"]]
        folder = Path(spool._folder.name) if spool._folder else tmp_path
        assert any(folder.iterdir())
    assert not folder.exists() or folder == tmp_path
