"""The networks that ship: what the catalogue says of them is true, and they enlarge photographs well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import memsr_compiler
from memsr_compiler import evaluate, load_model, load_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import sample_test_images
from memsr_compiler.evaluation.scores import evaluate_bicubic, mean
from memsr_compiler.models.catalogue import DEFAULT, ShippedModel, find_file, find_model, list_models
from memsr_compiler.plain.read import is_quantized
from memsr_compiler.quantization.tflite import export_integers

MODELS = list_models()
FLOAT = [model for model in MODELS if not model.int8]


def test_every_file_is_listed_once_and_there() -> None:
    folder = Path(memsr_compiler.__file__).parent / "models"
    assert sorted(model.path for model in MODELS) == sorted(folder.glob("*.onnx"))
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 4_000_000
    assert find_model(DEFAULT) in MODELS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_its_facts_are_those_of_its_file(model: ShippedModel) -> None:
    assert model.int8 == is_quantized(model.path)
    net = load_model(model.name.removesuffix("-int8"))
    assert (model.scale, model.layers, model.width) == (net.scale, len(net.layers), max(net.widths[1:-1]))
    assert model.parameters == sum(p.numel() for p in net.parameters())
    assert model.macs_per_pixel == sum(layer.weight.numel() for layer in net)
    assert model.name.startswith(f"x{model.scale}-")
    assert model.teacher and model.licence


@pytest.mark.parametrize("model", FLOAT, ids=lambda model: model.name)
def test_it_restores_photographs(model: ShippedModel) -> None:
    """What made them smaller, bicubic, is undone: two decibels over bicubic enlargement at least, at x4 one."""
    images = sample_test_images(model.scale)
    bicubic = mean(evaluate_bicubic(images, scale=model.scale, protocol="edsr")).psnr
    assert mean(evaluate(load_model(model.name), images)).psnr > bicubic + (2 if model.scale == 2 else 1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_its_tflite_file_is_listed_with_it(model: ShippedModel) -> None:
    assert set(model.psnr_tflite) == (set(model.psnr) if model.int8 else set())
    for test, psnr in model.psnr_tflite.items():
        assert psnr == pytest.approx(model.psnr[test], abs=0.02)
    assert set(model.ssim_tflite) == set(model.psnr_tflite)
    for test, ssim in model.ssim_tflite.items():
        assert ssim == pytest.approx(model.ssim[test], abs=0.0005)


@pytest.mark.parametrize("model", [model for model in MODELS if model.int8], ids=lambda model: model.name)
def test_litert_restores_what_onnx_runtime_does(model: ShippedModel, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("tflite")
    export_integers(model.path, tmp_path / "int8.tflite")
    images = sample_test_images(model.scale)[:2]
    by_ort, by_litert = (mean(evaluate(path, images)) for path in (model.path, tmp_path / "int8.tflite"))
    assert by_litert.psnr == pytest.approx(by_ort.psnr, abs=0.02)
    assert by_litert.ssim == pytest.approx(by_ort.ssim, abs=0.0005)


def test_a_wrong_name_is_refused_with_the_right_ones() -> None:
    with pytest.raises(InvalidInput, match=f"did you mean {DEFAULT}"):
        find_model(DEFAULT[:-1])
    with pytest.raises(InvalidInput, match=rf"x7-gigantic: no network of that name ships\. There are {MODELS[0].name}"):
        load_model("x7-gigantic")
    with pytest.raises(InvalidInput, match="x9: no network of that name"):
        find_file("x9")
    assert find_file("bicubic") == "bicubic" and find_file("x2.onnx") == "x2.onnx"


def test_integers_are_no_module() -> None:
    integers = [model for model in MODELS if model.int8]
    for model in integers:
        with pytest.raises(InvalidInput, match="8-bit integers"):
            load_model(model.name)


@pytest.mark.parametrize("name", [None, 1, b"x2-small"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidInput, match=r"no network of that name ships"):
        load_model(name)
    with pytest.raises(InvalidInput, match=r"the path of a plain network's file is wanted, not "):
        load_plain(name)
