"""Runs: a student derived and trained in one way with one seed; kept, gone on with, and scored after its last step."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

from memsr_compiler.cli import INTERRUPTED, app
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.evaluation.image_sets import TestImage, read_test_images
from memsr_compiler.evaluation.scores import enlarge, mean_psnr
from memsr_compiler.files import atomic_write, file_digest, list_files
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.teacher import as_teacher
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.training import checkpoints
from memsr_compiler.training.branches import Branched
from memsr_compiler.training.losses import CentredStudent, Objective
from memsr_compiler.training.progress import LOG
from memsr_compiler.training.starts import no_means
from paper.pairs import SCALE, Found, find_pair
from paper.settings import Settings

SETS = ("Set5", "Set14", "B100", "Urban100")
SHIPPED = "photographs"
"""The photographs that ship, which runs are validated on."""

VALIDATIONS = 10  # on the way of a run
SMOKE_SIDE = 48  # pixels of a photograph

_DIVERGED = re.compile(r"the loss is|weights are no numbers|after step \d+")


@dataclass(frozen=True)
class Method:
    """A way to derive a student and to train it.

    shrink, distill   options of the commands
    branches          new weights with branches beside every layer, by `train --branches`; empty: `distill`
    """

    name: str
    shrink: tuple[str, ...] = ()
    distill: tuple[str, ...] = ()
    branches: str = ""

    @property
    def folder(self) -> str:
        """The name of its runs' folder, of the options alone: tables that name them otherwise share the run."""
        return _join_words((*self.shrink, "to", *self.distill, *([self.branches] if self.branches else [])))


@dataclass(frozen=True)
class Outcome:
    """A run that is done.

    curve    (step, dB) on the photographs that ship, from the start to the last step
    scores   dB on each test set after the last step; empty for a run that diverged, of which `failure` tells
    machine  that trained it
    """

    curve: tuple[tuple[int, float], ...]
    scores: Mapping[str, float]
    machine: str
    failure: str = ""


def test_sets(settings: Settings) -> list[str]:
    """The test sets that there are, in the paper's order."""
    if settings.tests is None:
        return []
    there = [name for name in SETS if (settings.tests / name / f"x{SCALE}").is_dir()]
    if not there:
        raise InvalidInput(f"--tests {settings.tests}: has none of {', '.join(SETS)} with x{SCALE} in it")
    return there


def run_method(method: Method, seed: int, settings: Settings) -> Outcome | None:
    """The outcome of a run, which is trained as far as it is not done; None where nothing is to be trained.

    Raises InvalidInput for a run that was begun with other settings.
    """
    folder = _folder_of(settings) / f"{method.folder}-{seed}"
    done = folder / "outcome.json"
    if settings.done and not done.exists():
        return None
    pair = find_pair(settings)
    _keep_settings(folder / "settings.json", _settings_of(method, seed, settings, pair))
    outcome = _read(done) if done.exists() else {}
    if not outcome:
        failure = _train(method, seed, settings, pair, folder)
        outcome = {"machine": machine(), "failure": failure, "scores": {}}
        _write(done, outcome)
    missing = [] if outcome["failure"] else [name for name in test_sets(settings) if name not in outcome["scores"]]
    if missing:
        net = load_last(folder / "run", _start_of(method, settings, pair), method)
        outcome["scores"] |= {name: score(net, settings, name) for name in missing}
        _write(done, outcome)
    entries = [json.loads(line) for line in (folder / "run" / LOG).read_text("utf-8").splitlines()]
    curve = tuple((entry["step"], entry["psnr"]) for entry in entries)
    return Outcome(curve, outcome["scores"], outcome["machine"], outcome["failure"])


def score(network: PlainNet | Path, settings: Settings, name: str) -> float:
    """PSNR-Y in dB on a test set, or on the photographs that ship."""
    teacher, images = as_teacher(network, plain=True), _read_set(settings, name)
    module = copy_module(teacher.module, torch.float32).to(settings.device).eval()

    def run(x: Tensor) -> Tensor:
        output: Tensor = module(x.to(settings.device))
        return output.cpu()

    psnr = mean_psnr(images, (enlarge(run, teacher.takes, image) for image in images))
    assert psnr is not None, "a test set has images"
    return psnr


@cache
def _read_set(settings: Settings, name: str) -> tuple[TestImage, ...]:
    if name == SHIPPED:
        return tuple(read_test_images(_validation(settings), SCALE))
    assert settings.tests is not None
    return tuple(read_test_images(settings.tests / name / f"x{SCALE}", SCALE))


def load_last(run: Path, start: Path, method: Method) -> PlainNet:
    """The student after the last step, not the best one of a validation: nothing is chosen by any image."""
    objective: Objective
    written = run / "network.safetensors"  # of a network of its own, whose range is not that of the teacher's student
    net = load_plain(written if method.branches else start, require_certificate=False).float()
    if method.branches:
        objective = Branched(net, normalised=method.branches == "repvgg", start="he", seed=0)
    else:
        objective = CentredStudent(net, no_means(net))
    state = checkpoints.load(checkpoints.newest(run))
    weights = {**state["objective"], **(state["average"] or {})}
    unknown = objective.load_state_dict(weights, strict=False)  # of more: maps, an auto-encoder
    assert not unknown.missing_keys, unknown.missing_keys
    settled = objective.eval().settle()
    assert isinstance(settled, PlainNet)
    return settled


def load_student(method: Method, seed: int, settings: Settings) -> PlainNet | None:
    """The student of a run after its last step; None where that is not done, or diverged.

    Raises InvalidInput as `run_method`.
    """
    outcome = run_method(method, seed, settings)
    if outcome is None or outcome.failure:
        return None
    start = _start_of(method, settings, find_pair(settings))
    return load_last(_folder_of(settings) / f"{method.folder}-{seed}" / "run", start, method)


def load_start(method: Method, settings: Settings) -> PlainNet:
    """The student that the runs of a method begin with, as it was derived."""
    return load_plain(_start_of(method, settings, find_pair(settings)), require_certificate=False).float()


def _train(method: Method, seed: int, settings: Settings, pair: Found, folder: Path) -> str:
    """Train a run to its end, or to where it diverges; words on that, else nothing."""
    run, start = folder / "run", _start_of(method, settings, pair)
    torch.manual_seed(seed)  # whatever ran before in this process
    try:
        command = "train" if method.branches else "distill"
        if run.is_dir() and checkpoints.steps(run):
            memsrc(command, "--resume", run)
            return ""
        photographs = settings.data or _photographs(settings)
        how: tuple[object, ...] = ("--data", photographs, "--out", run, "--cache", settings.runs / "cache")
        how += ("--steps", settings.steps, "--batch", settings.batch, "--patch", settings.patch, "--seed", seed)
        how += ("--every", max(settings.steps // VALIDATIONS, 1))
        validation = _validation(settings)
        how += () if validation is None else ("--val", validation)
        if method.branches:
            net = load_plain(start, require_certificate=False)
            shape = ("--layers", len(net.layers), "--width", net.widths[1], "--image-skip", "none")
            memsrc("train", "--arch", "plain", "--scale", SCALE, *shape, "--branches", method.branches, *how)
        else:
            memsrc("distill", start, "--teacher", pair.teacher, *how, *method.distill)
    except MemsrError as error:
        if not _DIVERGED.match(str(error)):  # others speak of steps too, further on
            raise
        return str(error)
    return ""


def _start_of(method: Method, settings: Settings, pair: Found) -> Path:
    """The student that the run begins with, derived once for all that begin with it."""
    name = f"{_join_words(method.shrink)}-{pair.width}-{file_digest(pair.teacher)[:12]}.safetensors"
    path = _folder_of(settings) / "starts" / name
    derive_student(pair.teacher, ("--width", str(pair.width), *method.shrink), path, settings)
    return path


def derive_student(teacher: Path, options: Sequence[str], path: Path, settings: Settings) -> None:
    """Write a student by `memsrc shrink` with these options, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    small = ("--calibration", _photographs(settings)) if settings.smoke else ()
    memsrc("shrink", teacher, *options, *small, "--out", path)


def memsrc(*arguments: object) -> None:
    """A command of memsrc, in this process.  Raises MemsrError where the command line exits with 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the command line does
        status = app([*map(str, arguments), "--quiet"], standalone_mode=False)
    if status == INTERRUPTED:  # typer has caught it
        raise KeyboardInterrupt


def _join_words(words: Sequence[str]) -> str:
    """Options as a part of a file's name: init_memsr_beta_0."""
    return "_".join(re.sub(r"[^\w.]+", "", word) for word in words)


def _folder_of(settings: Settings) -> Path:
    """The folder of a pair's runs."""
    return settings.runs / ("smoke" if settings.smoke else settings.pair)


def _settings_of(method: Method, seed: int, settings: Settings, pair: Found) -> dict[str, Any]:
    """What a run is about, for comparison with one that is there."""
    about = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(method).items()}
    del about["name"]
    data = "those that ship" if settings.data is None else _digest_names(settings.data)
    numbers = {"steps": settings.steps, "batch": settings.batch, "patch": settings.patch, "seed": seed}
    return {**about, **numbers, "teacher": file_digest(pair.teacher), "width": pair.width, "photographs": data}


def _digest_names(folder: Path) -> str:
    """Names and sizes of a folder's files, as a short digest: what they hold `memsrc` compares itself."""
    listed = sorted((path.name, path.stat().st_size) for path in list_files(folder))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _keep_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Note what a run is about.  Raises InvalidInput where there is another."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, settings)
        return
    before = _read(path)
    for name in (name for name in settings if before.get(name) != settings[name]):
        raise InvalidInput(
            f"{path.parent}: is a run with {name} {before.get(name)}, not {settings[name]}; give what it began with, "
            "or another folder by --runs"
        )


def _photographs(settings: Settings) -> Path:
    """The photographs that ship as a folder; small parts of two of them to see that all works."""
    folder = settings.runs / "photographs"
    if not folder.exists():
        images = sample_photographs()
        if settings.smoke:
            images = [image[100 : 100 + SMOKE_SIDE, 100 : 100 + SMOKE_SIDE] for image in images[:2]]
        unfinished = folder.with_name("photographs.unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            write_image(unfinished / f"{number}.png", image)
        unfinished.rename(folder)
    return folder


def _validation(settings: Settings) -> Path | None:
    """What runs are validated on; None: the photographs that ship."""
    return _photographs(settings) if settings.smoke else None


def _read(path: Path) -> dict[str, Any]:
    """Raises InvalidInput for what is no JSON object."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: is damaged ({error}); remove it") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path}: is no outcome of a run; remove it")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode())
