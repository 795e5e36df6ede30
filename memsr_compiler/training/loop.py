"""The loop: steps, validation, checkpoints.  Devices, processes and mixed precision are accelerate's."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.training import checkpoints
from memsr_compiler.training.losses import Objective
from memsr_compiler.training.patches import Batch, Patches, batches
from memsr_compiler.training.progress import LOG, Log, Meter, Progress, noted_psnr
from memsr_compiler.training.recipe import Recipe
from memsr_compiler.training.state import RunState, copy_to_cpu

BEST = "best.ckpt"
log = logging.getLogger(__name__)

Validate = Callable[[nn.Module], float]
"""PSNR in dB of a network."""


@dataclass(frozen=True)
class Outcome:
    """PSNR of the validation images in dB: at the start, best, and at the end;  best_step  when it was best"""

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
    validate: Validate,
    judged: str = "",
    resume: Path | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Train `objective`, whose `.network` ends with the best weights that a validation has met.

    out        a folder, for checkpoints, the log and TensorBoard's files
    validate   PSNR in dB of a network
    judged     what the images of `validate` are known by: on others the best network is validated anew
    resume     a run's folder, or a checkpoint of one, to go on from: exactly as if it had not been stopped

    Raises InvalidInput for a checkpoint that is damaged or of another run, MemsrError where the loss is no number any
    more, ExportError where a checkpoint cannot be written.
    """
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=not torch.cuda.is_available())
    recipe.share_of(accelerator.num_processes)
    state = RunState(objective, recipe)
    if resume is not None:
        path = checkpoints.newest(resume)
        state.restore(checkpoints.load(path))
        _require_own(path, state, out)
    else:
        state.judged = judged
    stepper = _Stepper(accelerator, objective, state, recipe)
    with ExitStack() as stack:
        review = _Review(objective, state, out, validate) if accelerator.is_main_process else None
        if review is not None:
            stack.enter_context(closing(review))
            if resume is None:
                review.hold(None)
            else:
                review.find_best(judged)
        meter = Meter(recipe, state.step)
        for batch in meter.time_waiting(_share(patches, recipe, state.step, accelerator)):
            meter.add(stepper.take(batch))
            due = state.step % recipe.every == 0 or state.step == recipe.steps
            if due:
                meter.share(accelerator)
            if review is not None:
                progress = meter.progress(state.step, psnr=state.last, rate=state.rate)
                if due:
                    review.hold(progress)
                if on_step is not None:
                    on_step(replace(progress, psnr=state.last))
            if due:
                meter.renew()
                accelerator.wait_for_everyone()
        if review is not None:
            checkpoints.remove_old(out)  # a run that was killed after its last checkpoint had no time for it
    accelerator.wait_for_everyone()
    objective.network.load_state_dict(checkpoints.load(out / BEST)["network"])
    accelerator.end_training()
    objective.cpu()
    return Outcome(state.start, state.best, state.best_step, state.last)


def _share(patches: Patches, recipe: Recipe, first: int, accelerator: Accelerator) -> Iterator[Batch]:
    """This process's share of every batch from step `first` on."""
    return batches(
        patches,
        size=recipe.batch,
        first=first,
        last=recipe.steps,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=recipe.workers,
    )


class _Stepper:
    """Takes a step of the optimizer, on this process's share of a batch."""

    def __init__(self, accelerator: Accelerator, objective: Objective, state: RunState, recipe: Recipe) -> None:
        self._accelerator, self._state, self._recipe = accelerator, state, recipe
        self._objective = objective
        objective.train()
        self._model, self._optimizer = accelerator.prepare(objective, state.optimizer)
        self._compiled = torch.compile(self._model) if recipe.compiled else self._model
        state.attach(accelerator)

    def take(self, batch: Batch) -> list[float]:
        """Loss, L1 and the features' distance before the step.  Raises MemsrError where the loss is no number."""
        accelerator, state = self._accelerator, self._state
        low, high = (x.to(accelerator.device, non_blocking=True) for x in (batch.low, batch.high))
        if self._recipe.precision != "no":
            low = low.contiguous(memory_format=torch.channels_last)  # bf16 on a processor: a seventh faster
        parts = self._compiled(low, high, state.step / self._recipe.steps)
        numbers: list[float] = torch.stack(parts).tolist()  # a GPU is waited for once in a step
        _require_number(numbers[0], batch, state)
        accelerator.backward(parts[0])
        for parameter in self._objective.resting():
            parameter.grad = None  # an optimizer passes over what has none
        if self._recipe.clip:
            accelerator.clip_grad_norm_(self._model.parameters(), self._recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        state.advance()
        return numbers


class _Review:
    """Validates, logs, and keeps the best network and the state; in the first process only."""

    def __init__(self, objective: Objective, state: RunState, out: Path, validate: Validate) -> None:
        self._objective, self._state, self._out, self._validate = objective, state, out, validate
        self._log = Log(out, state.step)

    def hold(self, progress: Progress | None) -> None:
        """Validate the network as it is now, log and keep it.  Raises MemsrError where its weights are no numbers."""
        state = self._state
        content = self._score()
        self._log.add(state.step, state.last, progress)  # before the checkpoint: what is later than that is taken back
        checkpoints.save_step(state.content(), self._out, state.step)
        if state.best_step == state.step:  # after the checkpoint, which has this network too, should it be lost
            checkpoints.save(content, self._out / BEST)

    def find_best(self, judged: str) -> None:
        """Look for the best network after a run was stopped; one that is lost is found anew, from here on.

        judged   what the images are known by: PSNR on one set of them is nothing to compare PSNR on another with
        """
        state, path = self._state, self._out / BEST
        alike = state.judged == judged
        state.judged = judged
        if checkpoints.is_of(path, state.best_step, state.best):
            if not alike:
                self._judge_anew()
            return
        if state.best_step != state.step:
            log.warning("%s: is not of step %d, the best so far; the best from here on is kept", path, state.best_step)
            state.forget_best()
        elif not alike:
            state.forget_best()
        checkpoints.save(self._score(), path)

    def _judge_anew(self) -> None:
        """Validate the best network and the one of now on other images than before, and keep the better one.

        A run may be killed between any two files: the best network is known by its score on either images until the
        state has the one on these, and only then makes place for the network of now, which that state has too.
        """
        state, path = self._state, self._out / BEST
        best, last = checkpoints.load(path), state.last
        network = copy.deepcopy(self._objective.settle())
        network.load_state_dict(best["network"])
        state.start = math.nan  # on the images of before
        best["before"] = state.best
        state.best = best["psnr"] = _score(network, self._validate, state.best_step)
        now = self._score()
        state.last = last  # the log has it: by this the state is known to be of this run
        checkpoints.save(best, path)
        checkpoints.save(state.content(), checkpoints.path_of(self._out, state.step))
        if state.best_step == state.step:
            checkpoints.save(now, path)

    def _score(self) -> checkpoints.State:
        """Validate the network as it is now, and give it as it is kept.  Raises MemsrError as `hold`."""
        state = self._state
        with state.use_average():
            network = self._objective.settle()
            if state.step:
                _require_finite(network, state.step)
            psnr = _score(network, self._validate, state.step)
            state.note_score(psnr)
            return {"network": copy_to_cpu(network), "step": state.step, "psnr": psnr}

    def close(self) -> None:
        """Close the log."""
        self._log.close()


def _require_own(path: Path, state: RunState, out: Path) -> None:
    """Raises InvalidInput for the state of another run: one of as many steps and weights fits, and would go on."""
    noted = noted_psnr(out, state.step)
    if noted is not None and not checkpoints.same_psnr(noted, state.last):
        raise InvalidInput(
            f"{path}: is of another run, or {out / LOG} is: {state.last:.3f} dB after step {state.step}, and there "
            f"{noted:.3f} dB; put the run's own file back"
        )


def _score(network: nn.Module, validate: Validate, step: int) -> float:
    """PSNR of a validation.  Raises MemsrError where training made a network that cannot be scored."""
    was = network.training
    network.eval()
    try:
        return validate(network)
    except InvalidInput as error:
        if not step:
            raise
        message = f"after step {step}: {error} Start again with a lower --rate or with --clip 1."
        raise MemsrError(message) from None
    finally:
        network.train(was)


def _require_number(loss: float, batch: Batch, state: RunState) -> None:
    if not math.isfinite(loss):
        named = ", ".join(dict.fromkeys(batch.names))
        raise MemsrError(
            f"the loss is {loss} at step {state.step + 1}, learning rate {state.rate:.3g}, images {named}; start again "
            "with a lower --rate or with --clip 1"
        )


def _require_finite(network: nn.Module, step: int) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in network.parameters()):
        raise MemsrError(f"weights are no numbers after step {step}; start again with a lower --rate or with --clip 1")
