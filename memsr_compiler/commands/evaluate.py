"""memsrc eval: networks side by side on test images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memsr_compiler.atomic import atomic_write
from memsr_compiler.commands.console import Talk
from memsr_compiler.commands.models import Model, open_model
from memsr_compiler.commands.outputs import check_outputs
from memsr_compiler.commands.photographs import finite, read_photographs
from memsr_compiler.commands.teachers import TeacherOptions
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images import sample_photographs
from memsr_compiler.metrics import Protocol
from memsr_compiler.scoring import Score, TestImage, evaluate, evaluate_bicubic, mean

BICUBIC = "bicubic"


@dataclass(frozen=True)
class EvalOptions:
    """As given on the command line.

    models   files, or "bicubic";   teacher  how to read those that are teachers, its path is of no meaning
    data     a folder; None: the photographs that ship;   scale  None: the models' own
    """

    models: Sequence[str]
    teacher: TeacherOptions
    data: Path | None = None
    scale: int | None = None
    protocol: Protocol = "edsr"
    csv: Path | None = None


def run(options: EvalOptions, talk: Talk) -> None:
    """Open, read, score, show."""
    if options.csv is not None:
        for name in options.models:
            check_outputs(Path(name), [options.csv])
    models = {name: None if name == BICUBIC else _opened(name, options, talk) for name in options.models}
    if len(models) < len(options.models):
        raise InvalidInput("a model is named twice; name each once")
    scale = _scale(options.scale, [model for model in models.values() if model is not None])
    images = _images(options, scale, talk)
    scores: dict[str, list[Score]] = {}
    with talk.progress(len(models)) as step:
        for name, model in models.items():
            step(f"running {name}")
            scores[name] = (
                evaluate_bicubic(images, scale=scale, protocol=options.protocol)
                if model is None
                else evaluate(model.network, model.takes, images, scale=scale, protocol=options.protocol)
            )
    averages = {name: mean(found) for name, found in scores.items()}
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(as_csv(scores).encode())
    talk.json(
        {
            "scale": scale,
            "protocol": options.protocol,
            "data": str(options.data) if options.data else "the photographs that ship",
            "models": {
                name: {"average": _data(averages[name]), "images": {s.name: _data(s) for s in found}}
                for name, found in scores.items()
            },
        }
    )
    rows = [[image.name, *(_cell(found[i]) for found in scores.values())] for i, image in enumerate(images)]
    talk.table(
        f"PSNR in dB and SSIM on Y, x{scale}, {len(images)} images, protocol {options.protocol}",
        ("", *(_short(name) for name in scores)),
        [*rows, ["average", *(_cell(average) for average in averages.values())]],
    )
    if options.csv is not None:
        talk.say(f"written      {options.csv}")


def as_csv(scores: Mapping[str, Sequence[Score]]) -> str:
    """One line for each model and image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "image", "psnr_y_db", "ssim_y"])
    for name, found in scores.items():
        writer.writerows([name, s.name, f"{s.psnr:.4f}", f"{s.ssim:.5f}"] for s in found)
    return text.getvalue()


def _opened(name: str, options: EvalOptions, talk: Talk) -> Model:
    return open_model(replace(options.teacher, path=Path(name)), talk)


def _scale(told: int | None, models: Sequence[Model]) -> int:
    """What the images are to be enlarged by."""
    own = {model.name: model.takes.scale for model in models if model.takes.scale > 1}
    if len(set(own.values())) > 1:
        found = ", ".join(f"{name} x{scale}" for name, scale in own.items())
        raise InvalidInput(f"the networks enlarge differently ({found}); compare those of one scale")
    wanted = next(iter(own.values()), told)
    if wanted is None:
        raise InvalidInput("no network says by how much to enlarge; give --scale 2, 3 or 4")
    if told is not None and told != wanted:
        name = next(iter(own))
        raise InvalidInput(f"--scale {told}: {name} enlarges by {wanted}; leave --scale out")
    return wanted


def _images(options: EvalOptions, scale: int, talk: Talk) -> list[TestImage]:
    """Folders HR and LR, HR images alone, or the photographs that ship."""
    if options.data is None:
        return [TestImage.of(f"photograph {i}", image, scale) for i, image in enumerate(sample_photographs(), 1)]
    pairs = (options.data / "HR").is_dir()
    folder = options.data / "HR" if pairs else options.data
    grey = options.protocol == "srcnn"
    high = read_photographs(folder, talk, keep_grey=grey)
    if not (pairs and (options.data / "LR").is_dir()):
        return [TestImage.of(p.name, p.pixels, scale) for p in high]
    low = read_photographs(options.data / "LR", talk, keep_grey=grey)
    stems = [(Path(h.name).stem, Path(w.name).stem) for h, w in zip(high, low, strict=False)]
    if len(high) != len(low) or not all(b.startswith(a) for a, b in stems):
        raise InvalidInput(f"{options.data}: HR and LR do not hold the same images; give every image one name in both")
    found = []
    for h, w in zip(high, low, strict=True):
        tall, wide = (size * scale for size in w.pixels.shape[:2])
        cropped = h.pixels[:tall, :wide]
        if cropped.shape[:2] != (tall, wide) or max(h.pixels.shape[0] - tall, h.pixels.shape[1] - wide) >= scale:
            sizes = [f"{p.pixels.shape[1]}x{p.pixels.shape[0]}" for p in (h, w)]
            raise InvalidInput(f"{options.data}: {h.name}: HR is {sizes[0]} and LR {sizes[1]}, which is not x{scale}")
        found.append(TestImage(h.name, cropped, w.pixels))
    return found


def _cell(score: Score) -> str:
    return f"{score.psnr:.3f}  {score.ssim:.4f}"


def _short(name: str) -> str:
    return name if name == BICUBIC else Path(name).name


def _data(score: Score) -> dict[str, Any]:
    return {"psnr": finite(score.psnr), "ssim": score.ssim}
