"""A run's progress in numbers, for whoever watches; and the log of its validations."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from memsr_compiler.files import atomic_write
from memsr_compiler.training.patches import Batch
from memsr_compiler.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG, CURVES = "log.jsonl", "tensorboard"


@dataclass(frozen=True)
class Progress:
    """A run's progress.

    loss, pixels, features   means since the last validation;   psnr   of the last validation, in dB
    rate                     the learning rate;   per_second  patches;   waiting  share of the time, for patches
    left                     seconds until the end
    """

    step: int
    loss: float
    pixels: float
    features: float
    psnr: float
    rate: float
    per_second: float
    waiting: float
    left: float


class Meter:
    """Means since the last validation, speed, and the share of the time that was spent waiting for patches."""

    def __init__(self, recipe: Recipe, first: int) -> None:
        """Begin after the first `first` steps, which were taken before."""
        self._recipe = recipe
        self._begun = time.perf_counter()
        self._first = first
        self._waited = 0.0
        self.renew()

    def renew(self) -> None:
        """Begin new means."""
        self._sums = [0.0, 0.0, 0.0]
        self._count = 0

    def time_waiting(self, source: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, counting the time until each comes."""
        batches = iter(source)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, numbers: Sequence[float]) -> None:
        """Add loss, pixels and features of a step."""
        self._sums = [total + number for total, number in zip(self._sums, numbers, strict=True)]
        self._count += 1

    def share(self, accelerator: Accelerator) -> None:
        """Replace the sums by the means of all processes' sums."""
        sums = torch.tensor(self._sums, device=accelerator.device)
        self._sums = accelerator.reduce(sums, "mean").tolist()

    def progress(self, step: int, *, psnr: float, rate: float) -> Progress:
        """Progress of the run after a step."""
        total, steps = time.perf_counter() - self._begun, step - self._first
        loss, pixels, features = (value / self._count for value in self._sums)
        return Progress(
            step=step,
            loss=loss,
            pixels=pixels,
            features=features,
            psnr=psnr,
            rate=rate,
            per_second=steps * self._recipe.batch / total,
            waiting=self._waited / total,
            left=total / steps * (self._recipe.steps - step),
        )


class Log:
    """A JSON object a line, and TensorBoard's files; what a killed run wrote after `step` is taken back."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / LOG
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        with atomic_write(self._path) as file:
            file.write(b"".join(line + b"\n" for line in kept))
        self._board = SummaryWriter(str(out / CURVES), purge_step=step + 1 if step else None)

    def add(self, step: int, psnr: float, progress: Progress | None) -> None:
        """Note a validation; at the start of a run there is no progress."""
        numbers = {"psnr": psnr}
        if progress is not None:
            numbers |= {"loss": progress.loss, "l1": progress.pixels, "features": progress.features}
            numbers |= {"rate": progress.rate, "patches_per_second": progress.per_second, "waiting": progress.waiting}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's files."""
        self._board.close()


def noted_psnr(out: Path, step: int) -> float | None:
    """PSNR in dB that the log of a run's folder has of a step; None where it has none."""
    path = out / LOG
    lines = path.read_bytes().splitlines() if path.exists() else []
    noted = [json.loads(line).get("psnr") for line in lines if _step_of(line) == step]
    return next((psnr for psnr in reversed(noted) if isinstance(psnr, float)), None)


def _step_of(line: bytes) -> float:
    """The step that a line of the log is about; infinity for one that was not written to its end."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return math.inf
