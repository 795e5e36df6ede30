"""The common part of `distill` and `train`: the recipe, photographs, progress, and the table at the end."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from memsr_compiler.arithmetic import name_arithmetic
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.interface.training_options import TrainingOptions
from memsr_compiler.commands.runs.choices import Choices
from memsr_compiler.commands.runs.run_folder import CODE, begin, digest_tests, keep_data
from memsr_compiler.errors import InvalidInput, MemsrError, say_missing
from memsr_compiler.evaluation.image_sets import SSIM_WINDOW, TestImage, read_test_images
from memsr_compiler.evaluation.scores import Score, evaluate, evaluate_bicubic, mean
from memsr_compiler.plain.info import Takes
from memsr_compiler.quantities import say_count
from memsr_compiler.torch_helpers import first_weight
from memsr_compiler.training.labels import Labeller
from memsr_compiler.training.patches import Patches, find_image_folder, prepare_folders
from memsr_compiler.training.zoom import Zoom, zoom_photographs

if TYPE_CHECKING:
    from memsr_compiler.training.loop import Outcome
    from memsr_compiler.training.progress import Progress
    from memsr_compiler.training.recipe import Recipe

_ZOOMED = {"out": "out of", "in": "into", "both": "out of or into"}  # said of photographs


@dataclass(frozen=True)
class Bench:
    """The images that networks are validated on."""

    images: Sequence[TestImage]
    takes: Takes
    words: str
    arithmetics: set[str] = field(default_factory=set)
    """In what networks have been scored so far, in words."""

    @property
    def key(self) -> str:
        """Hash of the images, by which a run knows whether they are those that it was validated on."""
        return hashlib.sha256(" ".join(digest_tests(self.images).values()).encode()).hexdigest()

    def score(self, network: nn.Module, takes: Takes | None = None) -> Score:
        """The average score of a network, wherever it is; takes: what it takes, where that is not what these do."""
        device = first_weight(network).device
        self.arithmetics.add(name_arithmetic("float32", "torch", device.type))

        def run(x: Tensor) -> Tensor:
            output: Tensor = network(x.to(device))
            return output.cpu()

        return mean(evaluate(run, takes or self.takes, self.images, scale=self.takes.scale))

    def psnr(self, network: nn.Module) -> float:
        """PSNR of a network in dB."""
        return self.score(network).psnr

    @property
    def bicubic(self) -> Score:
        """The average score of bicubic interpolation."""
        return mean(evaluate_bicubic(self.images, scale=self.takes.scale))


def recipe(options: TrainingOptions, choices: Choices) -> Recipe:
    """The loop's part of the options and choices.

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
        rate=choices.rate,
        warm_up=options.warm_up,
        every=options.every,
        clip=options.clip,
        average=choices.ema,
        optimizer=choices.optimizer,
        precision=options.precision,
        compiled=options.compiled,
        workers=options.workers,
    )


def read_data(
    options: TrainingOptions,
    takes: Takes,
    record: Mapping[str, Any],
    resume: Path | None,
    talk: Talk,
    code: Mapping[str, str],
    networks: Mapping[str, str] | None = None,
    labeller: Labeller | None = None,
    zoom: Zoom = "none",
) -> tuple[Patches, Bench]:
    """Begin the run, if it does not go on, and read what it trains and is validated on.

    code       SHA-256 of the files of own code that builds its network or teacher, by `digest_code`
    networks   SHA-256 of the files that it is about besides, by what they are
    labeller   adds a teacher's outputs to the photographs
    zoom       what is trained on beside the photographs as they are

    Raises InvalidInput for data that do not fit the network, or are not those that a run began with.
    """
    new = resume is None
    if new and not options.overwrite:
        begin(options.out, record)  # before the photographs: making those ready takes long, and may be stopped too
    patches = read_patches(options, takes, talk, labeller, zoom)
    judged = read_bench(options, takes, talk)
    if new and options.overwrite:
        begin(options.out, record)  # not sooner: now it is known that the old run is given up for something
    tests = digest_tests(judged.images)
    data = {"photographs": patches.digests, "validation": tests, "networks": networks or {}, CODE: code}
    keep_data(options, data, resume, talk)
    return patches, judged


def read_bench(options: TrainingOptions, takes: Takes, talk: Talk) -> Bench:
    """Read the images of --val, or the photographs that ship."""
    images = read_test_images(options.val, takes.scale, window=SSIM_WINDOW, warn=talk.warn)
    words = "the photographs that ship" if options.val is None else str(options.val)
    return Bench(images, takes, f"{say_count(len(images), 'image')}, {words}")


def read_patches(
    options: TrainingOptions, takes: Takes, talk: Talk, labeller: Labeller | None = None, zoom: Zoom = "none"
) -> Patches:
    """Read the photographs to be cut into patches.

    Raises InvalidInput for photographs and patches that do not fit the network.
    """
    if takes.channels != 3 or takes.scale == 1:
        raise InvalidInput(
            f"the network takes {say_count(takes.channels, 'channel')} and enlarges by {takes.scale}; "
            "training is for RGB, and a "
            "network that enlarges"
        )
    if options.patch % takes.scale or options.patch < takes.scale:
        raise InvalidInput(f"a patch of {options.patch} pixels is no multiple of the scale, {takes.scale}")
    small = options.patch // takes.scale
    with talk.progress() as step:

        def on_image(name: str) -> None:
            step(f"making {name} ready")

        photographs = prepare_folders(
            options.data,
            options.cache or default_cache(),
            scale=takes.scale,
            patch=small,
            on_image=on_image,
            warn=talk.warn,
        )
        of_them = len(photographs)
        photographs = zoom_photographs(
            photographs,
            zoom,
            scale=takes.scale,
            patch=small,
            on_image=lambda name: step(f"zooming {_ZOOMED[zoom]} {name}"),
        )
        if labeller is not None:
            photographs = labeller.label(photographs, lambda name: step(f"enlarging {name} by the teacher"))
    left_out = of_them * {"none": 1, "out": 2, "in": 2, "both": 3}[zoom] - len(photographs)
    if left_out:
        talk.warn(
            f"--zoom {zoom}: {left_out:,} of {say_count(of_them, 'photograph')}, made smaller by two, hold no patch of "
            f"{options.patch} pixels and are left out; give larger ones, or a smaller --patch"
        )
    places = ", ".join(str(find_image_folder(folder)) for folder in options.data)
    more = f", and {len(photographs) - of_them:,} zoomed {_ZOOMED[zoom]}" if zoom != "none" else ""
    talk.say(f"data         {say_count(of_them, 'photograph')} in {places}{more}")
    return Patches(
        photographs,
        scale=takes.scale,
        patch=small,
        seed=options.seed,
        input_range=takes.input_range,
        labels="photographs" if labeller is None else labeller.labels,
    )


def default_cache() -> Path:
    """The folder for photographs made ready, unless told."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "memsr_compiler"


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


def tell(outcome: Outcome, rows: Mapping[str, Score], judged: Bench, written: Sequence[Path], talk: Talk) -> None:
    """Print the table at the end."""
    arithmetic = " and ".join(sorted(judged.arithmetics))
    talk.json(
        {
            "psnr": {name: score.psnr for name, score in rows.items()},
            "ssim": {name: score.ssim for name, score in rows.items()},
            "scored_on": judged.words,
            "protocol": "edsr",
            "arithmetic": arithmetic,
            "best_step": outcome.best_step,
            "end": outcome.end,
            "written": [str(path) for path in written],
        }
    )
    cells = [(name, f"{score.psnr:.3f} dB", f"{score.ssim:.4f}") for name, score in rows.items()]
    talk.table(f"On Y, {judged.words}, protocol edsr", ("", "PSNR", "SSIM"), cells)
    talk.say(f"computed in  {arithmetic}, validations too")
    talk.say(f"best         at step {outcome.best_step:,}; at the end {outcome.end:.3f} dB")
    talk.say(f"written      {', '.join(map(str, written))}")
