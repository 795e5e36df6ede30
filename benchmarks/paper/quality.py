"""PSNR and SSIM of networks whose trained weights are at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from memsr_compiler import Takes, evaluate, load_model, load_teacher
from memsr_compiler.evaluation.image_sets import TestImage, read_test_images
from memsr_compiler.evaluation.scores import enlarge, evaluate_bicubic, mean
from memsr_compiler.images.files import sample_photographs
from memsr_compiler.models.catalogue import list_models
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.teacher import as_teacher
from paper import methods
from paper.kept import digest, keep
from paper.pairs import find_pair
from paper.rivals import WEIGHTS
from paper.runs import SETS, SHIPPED, Method, derive_student, load_start, load_student
from paper.settings import FIRST_SEED, Settings

SMOKE_SIDE = 48

DERIVED = {"as derived, the paper's way": methods.WHOLE[0], "as derived, ours": methods.OUR_WAY}
TRAINED = (methods.INITIALISED[0], *methods.WHOLE, methods.OUR_WAY)


def list_sets(settings: Settings, scale: int) -> dict[str, Path | None]:
    """The test sets that there are at a scale; the photographs that ship where there is none."""
    there = {}
    if settings.tests is not None:
        there = {name: settings.tests / name / f"x{scale}" for name in SETS}
    return {name: path for name, path in there.items() if path.is_dir()} or {SHIPPED: None}


def read_set(folder: Path | None, scale: int, settings: Settings) -> list[TestImage]:
    """The images of a test set; None: those that ship, small parts of two of them to see that all works."""
    if folder is None and settings.smoke:
        parts: list[NDArray[Any]] = [
            np.ascontiguousarray(image[100 : 100 + SMOKE_SIDE, 100 : 100 + SMOKE_SIDE])
            for image in sample_photographs()[:2]
        ]
        return read_test_images(parts, scale)
    return read_test_images(folder, scale)


def score_bicubic(folder: Path | None, scale: int, settings: Settings) -> Mapping[str, float]:
    """PSNR-Y in dB and SSIM-Y of bicubic interpolation, kept."""
    about = {"bicubic": scale, "images": digest(folder), "smoke": settings.smoke}

    def compute() -> dict[str, float]:
        score = mean(evaluate_bicubic(read_set(folder, scale, settings), scale=scale))
        return {"psnr": score.psnr, "ssim": score.ssim}

    return keep(settings.runs / "scores", about, compute)


def score_network(
    network: nn.Module, takes: Takes, key: str, folder: Path | None, settings: Settings
) -> Mapping[str, float]:
    """PSNR-Y in dB and SSIM-Y of a network, kept.

    key   of its weights
    """
    about = {"network": key, "images": digest(folder), "scale": takes.scale, "smoke": settings.smoke}

    def compute() -> dict[str, float]:
        images = read_set(folder, takes.scale, settings)
        score = mean(evaluate(network, takes, images, device=settings.device))
        return {"psnr": score.psnr, "ssim": score.ssim}

    return keep(settings.runs / "scores", about, compute)


def load_trained(name: str, scale: int, settings: Settings) -> tuple[nn.Module, Takes, str] | None:
    """A network of the tables with trained weights, what it takes, and the key of its weights; None: not at hand."""
    shipped = {model.name: model for model in list_models()}
    if name in shipped:
        net = load_model(name)
        return net, as_teacher(net, plain=True).takes, digest(shipped[name].path)
    file, input_range = WEIGHTS.get((name, scale), ("", (0.0, 1.0)))
    if not file or settings.models is None or not (settings.models / file).is_file():
        return None
    path = settings.models / file
    return load_teacher(path), Takes(scale, 3, input_range), digest(path)


def derive(settings: Settings, *options: str) -> tuple[PlainNet, str]:
    """A student of the pair's teacher by `memsrc shrink` with these options, kept, and the key of its weights."""
    teacher = find_pair(settings).teacher
    key = f"{digest(teacher)} {' '.join(options)}"
    path = settings.runs / "derived" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    derive_student(teacher, options, path, settings)
    return load_plain(path, require_certificate=False).float(), key


def list_students(settings: Settings) -> dict[str, tuple[nn.Module, str]]:
    """Students of the pair, and the keys of their weights: as derived, and those of Table 1 whose runs are done."""
    teacher = digest(find_pair(settings).teacher)
    students: dict[str, tuple[nn.Module, str]] = {}
    for words, method in DERIVED.items():
        students[words] = load_start(method, settings), f"{teacher} {method.shrink}"
    for method in TRAINED:
        net = load_student(method, FIRST_SEED, replace(settings, done=True, tests=None))
        if net is not None:
            students[f"{method.name}, {settings.steps:,} steps"] = net, f"{teacher} {_key(method, settings)}"
    return students


def _key(method: Method, settings: Settings) -> str:
    numbers = settings.steps, settings.batch, settings.patch, FIRST_SEED, digest(settings.data)
    return f"{method.folder} {numbers}"


def enlarge_all(network: nn.Module, takes: Takes, images: list[TestImage], device: str) -> list[NDArray[Any]]:
    """The test images as a network enlarges them, floating, 0..1."""
    module = network.float().to(device).eval()
    return [enlarge(lambda x: module(x.to(device)).cpu(), takes, image) for image in images]
