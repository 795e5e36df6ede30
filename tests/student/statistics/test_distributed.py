"""Statistics over two processes: the very sums that one process has."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers.two_processes import run_two

from memsr_compiler.student.statistics.distributed import (
    join_processes,
    min_over_processes,
    share,
    sum_moments,
    sum_over_processes,
)
from memsr_compiler.student.statistics.moments import Moments, Regression

PROGRAM = """
import os, sys
import torch
from memsr_compiler.student.statistics.distributed import join_processes, min_over_processes, share
from memsr_compiler.student.statistics.distributed import sum_moments, sum_regression
from memsr_compiler.student.statistics.moments import Moments, Regression

x = torch.load(sys.argv[1])
with join_processes():
    mine = x[:, list(share(range(x.shape[1])))]
    moments, regression = sum_moments(Moments.of(mine)), sum_regression(Regression.of(mine, mine[:2]))
    found = [torch.tensor(moments.count), moments.total, moments.products]
    found += [regression.inputs.products, regression.total, regression.cross, min_over_processes(mine.amin(1))]
torch.save(found, sys.argv[2] + os.environ["RANK"])
"""


def test_two_processes_sum_what_one_sums(tmp_path: Path) -> None:
    """Small integers, so that sums in any order are the same numbers."""
    x = torch.randint(-9, 10, (4, 7), generator=torch.Generator().manual_seed(0)).double()
    torch.save(x, tmp_path / "x.pt")
    (tmp_path / "program.py").write_text(PROGRAM)
    run_two([tmp_path / name for name in ("program.py", "x.pt", "rank")])
    moments, regression = Moments.of(x), Regression.of(x, x[:2])
    want = [torch.tensor(7), moments.total, moments.products]
    want += [regression.inputs.products, regression.total, regression.cross, x.amin(1)]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}")
        assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))


def test_one_process_alone_keeps_all() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    own = Moments.of(x)
    with join_processes():
        assert share([1, 2, 3]) == [1, 2, 3] and sum_moments(own) is own
        assert sum_over_processes(x) is x and min_over_processes(x) is x
