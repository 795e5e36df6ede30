"""The folder of a run of `train` or `distill`: what it began with, and whether it may begin there or go on."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from memsr_compiler.commands.command import option_values
from memsr_compiler.commands.output import is_first
from memsr_compiler.commands.training_options import TrainingOptions
from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write
from memsr_compiler.training import checkpoints
from memsr_compiler.training.progress import CURVES, LOG
from memsr_compiler.version import VERSION

if TYPE_CHECKING:
    from memsr_compiler.training.recipe import Recipe

CONFIG, VERSIONS = "config.yaml", "versions.yaml"
STATE = (CONFIG, VERSIONS, LOG, "*.ckpt")  # of a run, besides its curves
OURS = (*STATE, "student.*", "network.*", "plain.onnx")  # what a run writes
MAY_CHANGE = ("every", "workers", "cache", "out", "student", "teacher", "data", "val")  # while a run goes on


def check(options: TrainingOptions, how: Recipe, record: Mapping[str, Any]) -> None:
    """Check what can be known before any work.  Raises InvalidInput for a run that cannot be begun, or gone on with."""
    out, processes = options.out, int(os.environ.get("WORLD_SIZE", "1"))
    for folder in (options.data, options.val):
        if folder is not None and not folder.is_dir():
            raise InvalidInput(f"{folder}: is no folder; give one with photographs")
    how.share_of(processes)
    if how.precision == "fp16" and not torch.cuda.is_available():
        raise InvalidInput("--precision fp16 is for GPUs, and there is none; use bf16, or leave it out")
    if options.resume is not None:
        _check_resumed(options, options.resume, record)
        return
    if not is_first():
        return  # the first process may have begun the run by now, and its files are no other run's
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out}: is a file; give a folder for the run")
    if options.overwrite:
        return
    if out.is_dir() and checkpoints.steps(out):
        raise InvalidInput(f"{out}: holds a run already; --resume {out} goes on with it, --overwrite begins anew")
    there = sorted(path.name for pattern in OURS for path in out.glob(pattern))
    if there:
        raise InvalidInput(
            f"{out}: holds {there[0]} already, which a run would replace; choose another --out or --overwrite"
        )


def _check_resumed(options: TrainingOptions, place: Path, now: Mapping[str, Any]) -> None:
    import yaml

    run = place.parent if place.is_file() else place
    if options.out.resolve() != run.resolve():
        raise InvalidInput(f"--out {options.out}: a run goes on in its own folder, {run}; leave --out out")
    checkpoints.load(checkpoints.newest(place))
    recorded = {k: v for k, v in yaml.safe_load((run / CONFIG).read_text("utf-8")).items() if v != []}
    for name in (name for name in {**recorded, **now} if name not in MAY_CHANGE):
        if now.get(name) != recorded.get(name):
            raise InvalidInput(
                f"--{name} {now.get(name)}: the run began with {recorded.get(name)}, and goes on with that; leave it "
                "out, or begin another run"
            )


def begin(options: TrainingOptions, record: Mapping[str, Any]) -> None:
    """Make the run's folder, and write into it how it was begun.  Raises InvalidInput where that is not possible."""
    import yaml

    out = options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be made a folder ({error.strerror}); choose another place") from None
    if not is_first():
        return
    checkpoints.tidy(out)
    if options.resume is not None:
        return
    if options.overwrite:
        _remove_run(out)
    for name, content in ((CONFIG, record), (VERSIONS, versions())):
        with atomic_write(out / name) as file:
            file.write(yaml.safe_dump(content, sort_keys=False).encode())


def _remove_run(folder: Path) -> None:
    """Remove the state of a run, so that another can begin; its results stay until the other one ends."""
    for path in [path for pattern in STATE for path in folder.glob(pattern)]:
        path.unlink()
    shutil.rmtree(folder / CURVES, ignore_errors=True)


def record_of(*options: object) -> dict[str, Any]:
    """All options of a run by their names, not where they came from.

    Files by their whole paths, so that a run can go on from any folder.
    """
    values = {name: value for group in options for name, value in option_values(group).items()}
    return {
        name: os.path.abspath(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value not in (None, []) and name not in ("resume", "config", "overwrite")
    }


def versions() -> dict[str, str]:
    """The version of everything that a result may depend on."""
    from accelerate import __version__ as accelerate

    return {
        "memsr_compiler": VERSION,
        "torch": str(torch.__version__),
        "accelerate": accelerate,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
    }


def steps_taken(resume: Path | None) -> int:
    """The number of steps that the run to be resumed has taken."""
    if resume is None:
        return 0
    step = checkpoints.load(checkpoints.newest(resume))["step"]
    assert isinstance(step, int)
    return step
