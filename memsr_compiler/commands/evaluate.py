"""memsrc eval: networks side by side on test images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memsr_compiler.arithmetic import join_arithmetics, name_arithmetic
from memsr_compiler.commands.given.networks import open_network
from memsr_compiler.commands.interface.check_outputs import check_outputs
from memsr_compiler.commands.interface.command import SomeNotDone
from memsr_compiler.commands.interface.options import EvalOptions, ReadingOptions
from memsr_compiler.commands.interface.output import Talk, finite
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import SSIM_WINDOW, TestImage, find_scale, read_test_images
from memsr_compiler.evaluation.scores import Score, evaluate, evaluate_bicubic, mean, say_identical
from memsr_compiler.files import atomic_write
from memsr_compiler.images.metrics import Protocol
from memsr_compiler.quantities import say_count
from memsr_compiler.runtime.open import Model, common_scale
from memsr_compiler.tflite.model import TFLITE
from memsr_compiler.torch_helpers import torch_device

BICUBIC = "bicubic"
MADE = "made of HR by MATLAB's bicubic, antialiased"
BICUBIC_ARITHMETIC = name_arithmetic("float64", "NumPy")


def run(options: EvalOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Open networks, read images, score, show."""
    if options.device is not None:
        torch_device(options.device)  # raises where it is not to be had
    if options.csv is not None:
        check_outputs(
            [options.csv],
            reads=[Path(name) for name in options.model],
            images=[options.data],
            overwrite=options.overwrite,
        )
    models = {name: None if name == BICUBIC else _open(name, options, reading, talk) for name in options.model}
    if len(models) < len(options.model):
        raise InvalidInput("a model is named twice; name each once")
    scale = _choose_scale([model for model in models.values() if model is not None], options)
    passed_over: list[str] = []

    def pass_over(text: str) -> None:
        passed_over.append(text)
        talk.warn(text)

    images = read_test_images(
        options.data,
        scale,
        keep_grey=options.protocol == "srcnn",
        window=SSIM_WINDOW,
        warn=talk.warn,
        on_skip=pass_over,
    )
    low = _say_low(images, models.values(), options.protocol)
    scores: dict[str, list[Score]] = {}
    with talk.progress(len(models)) as step:
        for name, model in models.items():
            step(f"running {name}")
            scores[name] = (
                evaluate_bicubic(images, scale=scale, protocol=options.protocol)
                if model is None
                else _evaluate(name, model, images, scale, options.protocol)
            )
    arithmetics = {
        name: BICUBIC_ARITHMETIC if model is None else model.network.arithmetic for name, model in models.items()
    }
    averages = {name: mean(of_model) for name, of_model in scores.items()}
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(format_csv(scores, arithmetics).encode(errors="backslashreplace"))
    talk.json(
        {
            "scale": scale,
            "protocol": options.protocol,
            "lr": low,
            "data": str(options.data) if options.data else "the photographs that ship",
            "models": {
                name: {
                    "average": _list_values(averages[name]),
                    "images": {s.name: _list_values(s) for s in of_model},
                    "arithmetic": arithmetics[name],
                    "assumed": () if model is None else model.assumed,
                }
                for (name, of_model), model in zip(scores.items(), models.values(), strict=True)
            },
            "passed_over": passed_over,
        }
    )
    rows = [
        [image.name, *(_format_score(of_model[i]) for of_model in scores.values())] for i, image in enumerate(images)
    ]
    talk.table(
        f"PSNR in dB and SSIM on Y, x{scale}, {say_count(len(images), 'image')}, protocol {options.protocol}; LR {low}",
        ("", *(_shorten(name) for name in scores)),
        [*rows, ["average", *(_format_score(average) for average in averages.values())]],
    )
    for name, average in averages.items():
        if average.identical:
            talk.say(f"{_shorten(name)}: {say_identical(average.identical)}")
    talk.say(f"computed in  {join_arithmetics({_shorten(name): words for name, words in arithmetics.items()})}")
    if options.csv is not None:
        talk.say(f"written      {options.csv}")
    if passed_over:
        several = "1 file was" if len(passed_over) == 1 else f"{len(passed_over)} files were"
        raise SomeNotDone(f"{options.data}: {several} passed over, and the averages are without; see above")


def _evaluate(name: str, model: Model, images: Sequence[TestImage], scale: int, protocol: Protocol) -> list[Score]:
    """Scores of a network, whose name an error tells: it is one of several."""
    try:
        return evaluate(model.network, model.takes, images, scale=scale, protocol=protocol)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error


def _say_low(images: Sequence[TestImage], models: Iterable[Model | None], protocol: Protocol) -> str:
    """Words on where LR comes from: protocol "srcnn" makes its own of Y, whatever was given."""
    low = f"{MADE}, rounded to 8 bits" if all(image.made for image in images) else "as given"
    of_y = [model is None or model.takes.channels == 1 for model in models]
    if protocol == "edsr" or not any(of_y):
        return low
    return f"{MADE}, of Y, not rounded" + ("" if all(of_y) else f"; for networks of RGB {low}")


def _choose_scale(models: Sequence[Model], options: EvalOptions) -> int:
    """The models' own scale, the one that is told, or what HR and LR show."""
    scale = options.scale
    if scale is None and all(model.takes.scale == 1 for model in models):
        scale = find_scale(options.data)
    return common_scale(models, scale)


def format_csv(scores: Mapping[str, Sequence[Score]], arithmetics: Mapping[str, str]) -> str:
    """One line for each model and image.  arithmetics: what each model is computed in, in words."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "image", "psnr_y_db", "ssim_y", "arithmetic"])
    for name, of_model in scores.items():
        writer.writerows([name, s.name, f"{s.psnr:.4f}", f"{s.ssim:.5f}", arithmetics[name]] for s in of_model)
    return text.getvalue()


def _open(name: str, options: EvalOptions, reading: ReadingOptions, talk: Talk) -> Model:
    in_torch = Path(name).suffix.lower() not in (".onnx", TFLITE)
    provider = options.device or options.provider if in_torch else options.provider
    return open_network(reading.of(Path(name)), talk, provider=provider, threads=options.threads)


def _format_score(score: Score) -> str:
    return f"{score.psnr:.3f}  {score.ssim:.4f}"


def _shorten(name: str) -> str:
    return name if name == BICUBIC else Path(name).name


def _list_values(score: Score) -> dict[str, Any]:
    return {"psnr": finite(score.psnr), "ssim": score.ssim, "identical": score.identical}
