"""All that a run is at a step, which is what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.quantities import say_count
from memsr_compiler.training import checkpoints
from memsr_compiler.training.losses import Objective
from memsr_compiler.training.muon import Muon
from memsr_compiler.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunState:
    """All that a run is at a step.

    step         steps that were taken
    start, best, last   PSNR in dB of the validations, NaN before there is one;   best_step  when it was best
    optimizer, schedule, average   of the objective's weights; average is None where none is kept
    """

    def __init__(self, objective: Objective, recipe: Recipe) -> None:
        """The state at the start of a run."""
        trained = (value for _, value in _parameters(objective))
        self.optimizer: torch.optim.Optimizer = (
            Muon(trained, lr=recipe.rate)
            if recipe.optimizer == "muon"
            else torch.optim.Adam(trained, lr=recipe.rate, betas=(0.9, 0.999))
        )
        self.schedule = _one_cycle(self.optimizer, recipe)
        self.average = Average(objective, recipe.average) if recipe.average else None
        self.step = self.best_step = 0
        self.start = self.best = self.last = math.nan
        self._objective = objective
        self._accelerator: Accelerator | None = None
        self._scaler: dict[str, Any] | None = None

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def advance(self) -> None:
        """Note that the optimizer took a step."""
        self.schedule.step()
        self.step += 1
        if self.average is not None:
            self.average.add(self._objective, self.step)

    def note_score(self, psnr: float) -> None:
        """Note the PSNR of a validation, in dB; one that is no number is never better than one that is."""
        self.last = psnr
        if math.isnan(self.start):
            self.start = psnr
        if math.isnan(self.best) or psnr > self.best:  # the first time, whatever it is
            self.best, self.best_step = psnr, self.step

    def forget_best(self) -> None:
        """Forget which step was best, since its network is lost."""
        self.best, self.best_step = math.nan, 0

    @contextmanager
    def use_average(self) -> Iterator[None]:
        """Give the objective its averaged weights while it lasts, if they are averaged."""
        if self.average is None:
            yield
            return
        self.average.swap(self._objective)
        try:
            yield
        finally:
            self.average.swap(self._objective)

    def content(self) -> checkpoints.State:
        """All of it, for a checkpoint."""
        scaler = self._accelerator.scaler if self._accelerator is not None else None
        return {
            "step": self.step,
            "objective": copy_to_cpu(self._objective),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.values,
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": torch.get_rng_state(),
            "psnr": [self.start, self.best, self.last],
            "best_step": self.best_step,
        }

    def restore(self, content: checkpoints.State) -> None:
        """Become what a checkpoint holds.  Raises InvalidInput for the state of another run."""
        try:
            self._objective.load_state_dict(content["objective"])
            self.optimizer.load_state_dict(content["optimizer"])
            steps = content["schedule"]["total_steps"]
            if steps != self.schedule.total_steps:
                raise ValueError(f"it is of a run of {say_count(steps - 1, 'step')}")
            self.schedule.load_state_dict(content["schedule"])
            if (self.average is None) != (content["average"] is None):
                raise ValueError("it averages weights, or does not, unlike this run")
            if self.average is not None:
                self.average.values = content["average"]
            self._scaler = content["scaler"]
            torch.set_rng_state(content["random"])
            self.step, self.best_step = (_whole(content[name], steps) for name in ("step", "best_step"))
            self.start, self.best, self.last = map(float, content["psnr"])
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, AssertionError) as error:
            reason = first_line(error) or type(error).__name__
            raise InvalidInput(
                f"the checkpoint does not fit this run ({reason}); give the options it began with"
            ) from None

    def attach(self, accelerator: Accelerator) -> None:
        """Restore what can be restored only once accelerate has prepared everything."""
        self._accelerator = accelerator
        if self._scaler is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(self._scaler)


class Average:
    """An exponential moving average of the weights, over fewer steps at first: else it long remembers new weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in _parameters(module)}

    def add(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step 1, 2, ..."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in _parameters(module):
                mine = self.values[name] = self.values[name].to(value.device)
                mine.lerp_(value.detach(), 1 - decay)

    def swap(self, module: nn.Module) -> None:
        """Give the module the averages, and keep its own weights here, until the next swap."""
        with torch.no_grad():
            for name, value in _parameters(module):
                kept = value.detach().clone()
                value.copy_(self.values[name])
                self.values[name] = kept


def copy_to_cpu(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the module's state dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _whole(value: object, most: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"step {value!r}")
    return value


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are trained, by name."""
    return ((name, value) for name, value in module.named_parameters() if value.requires_grad)


def _one_cycle(optimizer: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.OneCycleLR:
    total = recipe.steps + 1  # it is asked for one rate more than there are steps
    at_once = recipe.warm_up * total == 1  # the first rate is the peak: torch divides by the zero steps until then
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.rate,
        total_steps=total,
        pct_start=recipe.warm_up * (1 - 1e-9) if at_once else recipe.warm_up,
        div_factor=1 / recipe.start,
        cycle_momentum=False,
    )
