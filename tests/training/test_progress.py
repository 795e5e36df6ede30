"""Meters and logs: means since the last validation, shares of the time, lines of a killed run taken back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from memsr_compiler.training.patches import Batch
from memsr_compiler.training.progress import LOG, Log, Meter
from memsr_compiler.training.recipe import Recipe


def test_a_meter_gives_means_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, *(1.0, 3.0), 8.0, 8.0, *(8.0, 10.0), 20.0])  # begun; waited 2; asked twice; waited 2; asked
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = Meter(Recipe(steps=20, batch=4), first=10)
    source = meter.time_waiting([Batch(torch.zeros(1), torch.zeros(1), ("a",))] * 2)
    next(source)
    meter.add([1.0, 2.0, 3.0])
    assert meter.progress(11, psnr=30.0, rate=0.1).left == 8.0 * 9
    meter.add([3.0, 2.0, 1.0])
    both = meter.progress(12, psnr=30.0, rate=0.1)
    assert (both.loss, both.pixels, both.features) == (2.0, 2.0, 2.0)
    assert (both.per_second, both.waiting, both.left) == (2 * 4 / 8, 2 / 8, 8 / 2 * 8)
    meter.renew()
    next(source)
    meter.add([5.0, 5.0, 5.0])
    after = meter.progress(13, psnr=30.0, rate=0.1)
    assert after.loss == 5.0 and after.waiting == 4 / 20  # means begin anew, times do not


def test_what_a_killed_run_wrote_after_its_checkpoint_is_taken_back(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "psnr": 30.0 + step}) for step in (0, 2, 4)]
    (tmp_path / LOG).write_text("\n".join([*lines, '{"step": 6, "ps']))
    log = Log(tmp_path, 2)
    log.add(3, 33.0, None)
    log.close()
    kept = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert kept == [{"step": 0, "psnr": 30.0}, {"step": 2, "psnr": 32.0}, {"step": 3, "psnr": 33.0}]
