"""The state of a run in a file, whole or not at all, and known to be whole when it is read again."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import torch

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.files import atomic_write, read_file

KEPT = 2  # of the run's states
_DIGEST = 64  # characters of SHA-256 at the start

State = dict[str, Any]


def save(state: State, path: Path) -> None:
    """Write a state with its SHA-256.  Raises ExportError where that fails; what was there before stays then."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    with atomic_write(path) as file:
        file.write(hashlib.sha256(content).hexdigest().encode())
        file.write(content)


def load(path: Path) -> State:
    """Read a state.  Raises InvalidInput for a file that is not as it was written, and names the one before it."""
    try:
        content = read_file(path, "the state of a run")
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    digest, body = content[:_DIGEST], memoryview(content)[_DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise InvalidInput(f"{path}: is damaged or no checkpoint of ours, its SHA-256 differs{_way_out(path)}")
    try:
        state: State = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever it is led to
        raise InvalidInput(f"{path}: is no checkpoint ({first_line(error)}){_way_out(path)}") from None
    return state


def is_of(path: Path, step: int, psnr: float) -> bool:
    """Whether a file holds the network of a step, which a validation gave so many dB, on other images perhaps."""
    try:
        state = load(path)
    except InvalidInput:
        return False
    scores = (state.get("psnr"), state.get("before"))
    return state.get("step") == step and any(isinstance(kept, float) and same_psnr(kept, psnr) for kept in scores)


def same_psnr(one: float, other: float) -> bool:
    """Whether two validations are one; NaN is a result too."""
    return one == other or (math.isnan(one) and math.isnan(other))


def save_step(state: State, run: Path, step: int) -> None:
    """Keep a run's state after a step; of those before it the newest stays."""
    save(state, path_of(run, step))
    remove_old(run)


def remove_old(run: Path) -> None:
    """Remove all states of a run but the newest."""
    for old in steps(run)[:-KEPT]:
        path_of(run, old).unlink(missing_ok=True)


def path_of(run: Path, step: int) -> Path:
    """The file of a run's state after a step."""
    return run / f"step-{step:08}.ckpt"


def steps(run: Path) -> list[int]:
    """The steps of which a run has checkpoints, in order."""
    names = [p.stem.removeprefix("step-") for p in run.glob("step-*.ckpt")]
    return sorted(int(name) for name in names if name.isdecimal())


def newest(place: Path) -> Path:
    """A run's newest checkpoint; a checkpoint itself.  Raises InvalidInput if there is none."""
    if place.is_file():
        if not place.name.startswith("step-"):
            raise InvalidInput(f"{place}: is no state of a run; give one of its step-*.ckpt, or the run's folder")
        return place
    known = steps(place)
    if not known:
        raise InvalidInput(f"{place}: has no checkpoint; give the folder of a run that was begun, or start without it")
    return path_of(place, known[-1])


def _way_out(path: Path) -> str:
    name = path.stem.removeprefix("step-")
    before = [step for step in steps(path.parent) if name.isdecimal() and step < int(name)]
    if not before:
        return "; there is none before it: begin the run again"
    return f"; the one before it: --resume {path_of(path.parent, before[-1])}"
