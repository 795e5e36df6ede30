"""The loop: steps, validation, checkpoints.  Devices, processes and mixed precision are accelerate's."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn

from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.training import checkpoints
from memsr_compiler.training.losses import Objective
from memsr_compiler.training.patches import Batch, Patches, batches

Precision = Literal["no", "bf16", "fp16"]
LOG, BEST, CURVES = "log.jsonl", "best.ckpt", "tensorboard"


@dataclass(frozen=True)
class Recipe:
    """How to train.

    steps        optimizer steps;  batch  patches in each, of all processes together
    rate         peak of the one-cycle learning rate (Smith and Topin 2018);  warm_up  share of the steps until it
    start        the first learning rate, as a part of the peak
    every        steps from one validation to the next, each with a checkpoint
    clip         largest norm of the gradient; 0: none
    average      decay of the exponential moving average of weights, which is then what is validated and kept; 0: none.
                 After step t it is (1 + t) / (10 + t) at most
    precision    accelerate's mixed precision;  compiled  by torch.compile
    workers      processes that cut patches
    """

    steps: int = 10_000
    batch: int = 16
    rate: float = 2e-4
    warm_up: float = 0.3
    start: float = 0.04
    every: int = 500
    clip: float = 0.0
    average: float = 0.0
    precision: Precision = "no"
    compiled: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidInput for numbers that are not possible."""
        for name, low in (("steps", 1), ("batch", 1), ("every", 1), ("workers", 0)):
            if getattr(self, name) < low:
                raise InvalidInput(f"{name} {getattr(self, name)}: want {low} or more")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InvalidInput(f"a learning rate of {self.rate} is not possible; 2e-4 is the paper's")
        for name, value, fits, wanted in (
            ("warm-up", self.warm_up, 0 < self.warm_up < 1, "between 0 and 1"),
            ("first rate", self.start, 0 < self.start <= 1, "above 0, at most 1"),
            ("average (--ema)", self.average, 0 <= self.average < 1, "from 0 to below 1"),
            ("clip", self.clip, math.isfinite(self.clip) and self.clip >= 0, "from 0 on"),
        ):
            if not fits:
                raise InvalidInput(f"{name} {value}: want a number {wanted}")
        if self.precision not in ("no", "bf16", "fp16"):
            raise InvalidInput(f"precision {self.precision!r}: want no, bf16 or fp16")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    loss, pixels, features   means since the last report;   psnr   of the last validation, in dB
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


@dataclass(frozen=True)
class Outcome:
    """psnr of the validation images in dB: at the start, best, and at the end;  best_step  when it was best"""

    start: float
    best: float
    best_step: int
    end: float


def run(
    objective: Objective,
    patches: Patches,
    recipe: Recipe,
    out: Path,
    *,
    validate: Callable[[nn.Module], float],
    resume: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Train `objective`, whose `.network` ends with the best weights that a validation has met.

    objective  a module (low, high, share) -> (loss, its L1, the features' distance): `objective`
    out        a folder, for checkpoints, the log and TensorBoard's files
    validate   PSNR in dB of a network
    resume     a run's folder, or a checkpoint of one, to go on from: exactly as if it had not been stopped

    Raises InvalidInput for a checkpoint that is damaged or of another run, MemsrError where the loss is no number any
    more, ExportError where a checkpoint cannot be written.
    """
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=not torch.cuda.is_available())
    processes, rank = accelerator.num_processes, accelerator.process_index
    if recipe.batch % processes:
        raise InvalidInput(f"a batch of {recipe.batch} patches cannot be shared by {processes} processes equally")
    optimizer = torch.optim.Adam(
        (p for p in objective.parameters() if p.requires_grad), lr=recipe.rate, betas=(0.9, 0.999)
    )
    schedule = _one_cycle(optimizer, recipe)
    average = _Average(objective, recipe.average) if recipe.average else None
    state = _State(objective, optimizer, schedule, average)
    if resume is not None:
        state.restore(checkpoints.load(checkpoints.newest(resume)))
        if not checkpoints.is_whole(out / BEST):
            state.forget_best()
    objective.train()
    model, ready = accelerator.prepare(objective, optimizer)
    state.after(accelerator)
    compiled = torch.compile(model) if recipe.compiled else model
    main = accelerator.is_main_process
    record = _Record(out, state.step) if main else None

    def review(progress: Progress | None) -> None:
        """Validate, keep the state; in the main process."""
        with state.averaged():
            network = objective.settled()
            if state.step:
                _require_finite(network, state.step)
            psnr = _validated(network, validate)
            state.seen(psnr)
            if state.best_step == state.step:
                checkpoints.save({"network": _on_cpu(network), "step": state.step, "psnr": psnr}, out / BEST)
        assert record is not None
        record.validated(state.step, psnr, progress)  # before the checkpoint: what is later than that is taken back
        checkpoints.save_step(state.content(), out, state.step)

    try:
        if main and math.isnan(state.best):  # a new run, or one whose best network was lost
            review(None)
        shares = {"size": recipe.batch, "rank": rank, "processes": processes, "workers": recipe.workers}
        source = batches(patches, first=state.step, last=recipe.steps, **shares)
        meter = _Meter(recipe, state.step)
        for batch in meter.waited(source):
            share = state.step / recipe.steps
            low, high = (x.to(accelerator.device, non_blocking=True) for x in (batch.low, batch.high))
            parts = compiled(low, high, share)
            numbers = torch.stack(parts).tolist()  # a GPU is waited for once in a step
            _require_number(numbers[0], batch, state.step, float(schedule.get_last_lr()[0]))
            accelerator.backward(parts[0])
            if recipe.clip:
                accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
            ready.step()
            ready.zero_grad()
            schedule.step()
            state.step += 1
            if average is not None:
                average.add(objective, state.step)
            ends = state.step % recipe.every == 0 or state.step == recipe.steps
            meter.add(numbers)
            if ends:
                meter.share(accelerator)
            if main:
                progress = meter.progress(state, float(schedule.get_last_lr()[0]), renew=ends)
                if ends:
                    review(progress)
                if on_step is not None:
                    on_step(replace(progress, psnr=state.last))
            if ends:
                accelerator.wait_for_everyone()
    finally:
        if record is not None:
            record.close()
    accelerator.wait_for_everyone()
    best = checkpoints.load(out / BEST)
    objective.network.load_state_dict(best["network"])
    accelerator.end_training()
    objective.cpu()
    return Outcome(state.start, state.best, state.best_step, state.last)


def _one_cycle(optimizer: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.rate,
        total_steps=max(recipe.steps + 1, 2),  # it is asked for one rate more than there are steps
        pct_start=recipe.warm_up,
        div_factor=1 / recipe.start,
        cycle_momentum=False,
    )


def _validated(network: nn.Module, validate: Callable[[nn.Module], float]) -> float:
    was = network.training
    network.eval()
    try:
        return validate(network)
    finally:
        network.train(was)


def _require_number(loss: float, batch: Batch, step: int, rate: float) -> None:
    if not math.isfinite(loss):
        named = ", ".join(dict.fromkeys(batch.names))
        raise MemsrError(
            f"the loss is {loss} at step {step + 1}, learning rate {rate:.3g}, images {named}; start again "
            "with a lower --rate or with --clip 1"
        )


def _require_finite(network: nn.Module, step: int) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in network.parameters()):
        raise MemsrError(f"weights are no numbers after step {step}; start again with a lower --rate or with --clip 1")


def _on_cpu(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, value) for name, value in module.named_parameters() if value.requires_grad)


class _Average:
    """An exponential moving average of the weights, over fewer steps at first: else it long remembers new weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in _trained(module)}

    def add(self, module: nn.Module, step: int) -> None:
        """The weights after step 1, 2, ..."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in _trained(module):
                mine = self.values[name] = self.values[name].to(value.device)
                mine.lerp_(value.detach(), 1 - decay)

    def swap(self, module: nn.Module) -> None:
        """The module gets the averages, and its own are kept here, until the next swap."""
        with torch.no_grad():
            for name, value in _trained(module):
                kept = value.detach().clone()
                value.copy_(self.values[name])
                self.values[name] = kept


class _State:
    """All that a run is at a step: what a checkpoint holds."""

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        average: _Average | None,
    ) -> None:
        self._objective, self._optimizer, self._schedule, self._average = objective, optimizer, schedule, average
        self._accelerator: Accelerator | None = None
        self._scaler: dict[str, Any] | None = None
        self.step = self.best_step = 0
        self.start = self.best = self.last = math.nan

    def seen(self, psnr: float) -> None:
        self.last = psnr
        if math.isnan(self.start):
            self.start = psnr
        if not psnr <= self.best:  # the first time too
            self.best, self.best_step = psnr, self.step

    def forget_best(self) -> None:
        self.best, self.best_step = math.nan, 0

    def averaged(self) -> _Averaged:
        return _Averaged(self._objective, self._average)

    def content(self) -> checkpoints.State:
        scaler = self._accelerator.scaler if self._accelerator is not None else None
        return {
            "step": self.step,
            "objective": _on_cpu(self._objective),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": None if self._average is None else self._average.values,
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": torch.get_rng_state(),
            "psnr": [self.start, self.best, self.last],
            "best_step": self.best_step,
        }

    def restore(self, content: checkpoints.State) -> None:
        """Raises InvalidInput for the state of another run."""
        try:
            self._objective.load_state_dict(content["objective"])
            self._optimizer.load_state_dict(content["optimizer"])
            steps = content["schedule"]["total_steps"]
            if steps != self._schedule.total_steps:  # type: ignore[attr-defined]
                raise ValueError(f"it is of a run of {steps - 1} steps")
            self._schedule.load_state_dict(content["schedule"])
            if (self._average is None) != (content["average"] is None):
                raise ValueError("it averages weights, or does not, unlike this run")
            if self._average is not None:
                self._average.values = content["average"]
            self._scaler = content["scaler"]
            torch.set_rng_state(content["random"])
            self.step, self.best_step = content["step"], content["best_step"]
            self.start, self.best, self.last = content["psnr"]
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidInput(
                f"the checkpoint does not fit this run ({reason}); give the options it began with"
            ) from None

    def after(self, accelerator: Accelerator) -> None:
        """What can be restored only once accelerate has prepared everything."""
        self._accelerator = accelerator
        if self._scaler is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(self._scaler)


class _Averaged:
    """While it lasts the module has its averaged weights, if they are averaged."""

    def __init__(self, objective: nn.Module, average: _Average | None) -> None:
        self._objective, self._average = objective, average

    def __enter__(self) -> None:
        if self._average is not None:
            self._average.swap(self._objective)

    def __exit__(self, *_: object) -> None:
        if self._average is not None:
            self._average.swap(self._objective)


class _Meter:
    """Means, speed, and the share of the time that was spent waiting for patches."""

    def __init__(self, recipe: Recipe, first: int) -> None:
        self._recipe = recipe
        self._begun = self._since = time.perf_counter()
        self._first = first
        self._waited = 0.0
        self._sums = [0.0, 0.0, 0.0]
        self._count = 0

    def waited(self, source: Iterable[Batch]) -> Iterable[Batch]:
        batches_ = iter(source)
        while True:
            start = time.perf_counter()
            batch = next(batches_, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, numbers: Sequence[float]) -> None:
        self._sums = [total + number for total, number in zip(self._sums, numbers, strict=True)]
        self._count += 1

    def share(self, accelerator: Accelerator) -> None:
        """The sums become those of all processes, by their number."""
        sums = torch.tensor(self._sums, device=accelerator.device)
        self._sums = accelerator.reduce(sums, "mean").tolist()

    def progress(self, state: _State, rate: float, *, renew: bool) -> Progress:
        now = time.perf_counter()
        total, done = now - self._begun, state.step - self._first
        mean = [value / self._count for value in self._sums]
        found = Progress(
            step=state.step,
            loss=mean[0],
            pixels=mean[1],
            features=mean[2],
            psnr=state.last,
            rate=rate,
            per_second=done * self._recipe.batch / total,
            waiting=self._waited / total,
            left=total / done * (self._recipe.steps - state.step),
        )
        if renew:
            self._sums, self._count = [0.0, 0.0, 0.0], 0
        return found


class _Record:
    """The log, a JSON object a line, and TensorBoard's files; what a killed run wrote after `step` is taken back."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / LOG
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        self._path.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self._board = SummaryWriter(str(out / CURVES), purge_step=step + 1 if step else None)

    def validated(self, step: int, psnr: float, progress: Progress | None) -> None:
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
        self._board.close()
