"""The common part of `distill` and `train`: patches, progress, and what is kept beside the result."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memsr_compiler.commands.command import option_values
from memsr_compiler.commands.output import Talk, is_first
from memsr_compiler.commands.training_options import TrainingOptions
from memsr_compiler.errors import InvalidInput, MemsrError, say_missing
from memsr_compiler.evaluation.image_sets import TestImage, read_test_images
from memsr_compiler.evaluation.scores import Score, evaluate, evaluate_bicubic, mean
from memsr_compiler.files import atomic_write
from memsr_compiler.plain.info import Takes
from memsr_compiler.training import checkpoints
from memsr_compiler.training.patches import Patches, prepare_photographs
from memsr_compiler.training.progress import CURVES, LOG
from memsr_compiler.version import VERSION

if TYPE_CHECKING:
    from memsr_compiler.training.loop import Outcome
    from memsr_compiler.training.progress import Progress
    from memsr_compiler.training.recipe import Recipe

CONFIG, VERSIONS = "config.yaml", "versions.yaml"
STATE = (CONFIG, VERSIONS, LOG, "*.ckpt")  # of a run, besides its curves
OURS = (*STATE, "student.*", "network.*", "plain.onnx")  # what a run writes
MAY_CHANGE = ("every", "workers", "cache", "out", "student", "teacher", "data", "val")  # while a run goes on


@dataclass(frozen=True)
class Bench:
    """The images that networks are validated on."""

    images: Sequence[TestImage]
    takes: Takes
    words: str

    def score(self, network: nn.Module) -> Score:
        """The average score of a network, wherever it is."""
        device = next(network.parameters()).device

        def run(x: Tensor) -> Tensor:
            output: Tensor = network(x.to(device))
            return output.cpu()

        return mean(evaluate(run, self.takes, self.images, scale=self.takes.scale))

    def psnr(self, network: nn.Module) -> float:
        """PSNR of a network in dB."""
        return self.score(network).psnr

    @property
    def bicubic(self) -> Score:
        """The average score of bicubic interpolation."""
        return mean(evaluate_bicubic(self.images, scale=self.takes.scale))


def recipe(options: TrainingOptions) -> Recipe:
    """The loop's part of the options.

    Raises MemsrError where what training needs is not installed, InvalidInput for numbers that are not possible.
    """
    try:
        for name in ("accelerate", "tensorboard", "yaml"):
            importlib.import_module(name)
    except ImportError as error:
        raise MemsrError(say_missing(str(error.name), "training needs", "train")) from None
    from memsr_compiler.training.recipe import Recipe

    return Recipe(
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        warm_up=options.warm_up,
        every=options.every,
        clip=options.clip,
        average=options.ema,
        precision=options.precision,
        compiled=options.compiled,
        workers=options.workers,
    )


def read_bench(options: TrainingOptions, takes: Takes, talk: Talk) -> Bench:
    """Read the images of --val, or the photographs that ship."""
    images = read_test_images(options.val, takes.scale, warn=talk.warn)
    words = "the photographs that ship" if options.val is None else str(options.val)
    return Bench(images, takes, f"{len(images)} images, {words}")


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


def read_patches(options: TrainingOptions, takes: Takes, talk: Talk) -> Patches:
    """Read the photographs to be cut into patches.

    Raises InvalidInput for photographs and patches that do not fit the network.
    """
    if takes.channels != 3 or takes.scale == 1:
        raise InvalidInput(
            f"the network takes {takes.channels} channels and enlarges by {takes.scale}; training is for RGB, and a "
            "network that enlarges"
        )
    if options.patch % takes.scale or options.patch < takes.scale:
        raise InvalidInput(f"a patch of {options.patch} pixels is no multiple of the scale, {takes.scale}")
    small = options.patch // takes.scale
    with talk.progress() as step:

        def on_image(name: str) -> None:
            step(f"making {name} ready")

        photographs = prepare_photographs(
            options.data,
            options.cache or default_cache(),
            scale=takes.scale,
            patch=small,
            on_image=on_image,
            warn=talk.warn,
        )
    talk.say(f"data         {len(photographs)} photographs in {options.data}")
    return Patches(photographs, scale=takes.scale, patch=small, seed=options.seed, input_range=takes.input_range)


def default_cache() -> Path:
    """The folder for photographs made ready, unless told."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "memsr_compiler"


@contextmanager
def show_progress(talk: Talk, steps: int, first: int) -> Any:
    """Yield on_step(Progress): a bar; where there is no terminal a line for each validation."""
    last = first
    psnr = float("nan")
    with talk.bar(steps) as bar:
        bar(first, "resuming" if first else "starting")

        def on_step(progress: Progress) -> None:
            nonlocal last, psnr
            bar(progress.step - last, _words(progress))
            last = progress.step
            if progress.psnr != psnr and not talk.silent and not talk.err.is_terminal:
                talk.say(f"step {progress.step:>7}  {_words(progress)}, {progress.left:,.0f} s left")
            psnr = progress.psnr

        yield on_step


def _words(progress: Progress) -> str:
    return (
        f"loss {progress.loss:.5f}, {progress.psnr:.3f} dB, rate {progress.rate:.2e}, "
        f"{progress.per_second:,.1f} patches/s, {progress.waiting:.0%} waiting"
    )


def tell(outcome: Outcome, rows: Mapping[str, Score], words: str, written: Sequence[Path], talk: Talk) -> None:
    """Print the table at the end."""
    talk.json(
        {
            "psnr": {name: score.psnr for name, score in rows.items()},
            "ssim": {name: score.ssim for name, score in rows.items()},
            "scored_on": words,
            "protocol": "edsr",
            "best_step": outcome.best_step,
            "end": outcome.end,
            "written": [str(path) for path in written],
        }
    )
    cells = [(name, f"{score.psnr:.3f} dB", f"{score.ssim:.4f}") for name, score in rows.items()]
    talk.table(f"On Y, {words}, protocol edsr", ("", "PSNR", "SSIM"), cells)
    talk.say(f"best         at step {outcome.best_step:,}; at the end {outcome.end:.3f} dB")
    talk.say(f"written      {', '.join(map(str, written))}")


def steps_taken(resume: Path | None) -> int:
    """The number of steps that the run to be resumed has taken."""
    if resume is None:
        return 0
    step = checkpoints.load(checkpoints.newest(resume))["step"]
    assert isinstance(step, int)
    return step
