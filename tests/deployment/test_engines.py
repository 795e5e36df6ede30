"""A student in ncnn, MNN and OpenVINO gives what it gives in ONNX Runtime, in half precision too."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from engine import PRECISIONS, Image, Network, convert, open_network
from engines import Pairs, middles, run_on_arm, score

from memsr_compiler import export_onnx, shrink
from memsr_compiler.evaluation.image_sets import TestImage
from memsr_compiler.images.files import sample_photographs, to_tensor
from memsr_compiler.images.resize import resize

ROOT = Path(__file__).parents[2]
ARM = ROOT / "build" / "arm"
NEEDS = {"ncnn": ("ncnn", "pnnx"), "mnn": ("MNN",), "openvino": ("openvino",)}


def is_installed(engine: str) -> bool:
    return all(importlib.util.find_spec(name) for name in NEEDS[engine])


ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not there: make engines"))
    for name in NEEDS
]
needs_arm = pytest.mark.skipif(not (ARM / "python").exists(), reason="needs build/arm: make arm")


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """The photographs that ship, and these made smaller as a network takes them."""
    result = {}
    for i, photograph in enumerate(sample_photographs()):
        image = TestImage.of(str(i), photograph, 2)
        result[image.name] = to_tensor(image.low).numpy(), image.high
    return middles(result)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few layers, the image outside: quickly derived from the teacher that ships."""
    crops = [to_tensor(resize(image, 0.5)[50:114, 50:114]) for image in sample_photographs()]
    net = shrink(
        ROOT / "examples" / "edsr_8x32_x2.pt",
        width=16,
        layers=4,
        image_skip="nearest",
        calibration=crops,
        samples=len(crops),
        refit=0,
    )
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    export_onnx(net, path)
    return path


def run_all(network: Network, pairs: Pairs) -> dict[str, Image]:
    return {name: network(low) for name, (low, _) in pairs.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_it_computes_what_onnx_runtime_does(engine: str, student: Path, tmp_path: Path) -> None:
    """At any size, one after the other.  The bound: a hundredth of a grey level, hundreds of units of rounding."""
    theirs = open_network(engine, convert(engine, student, tmp_path))
    ours = open_network("onnxruntime", student)
    for height, width in ((64, 64), (33, 47), (5, 90), (1, 1)):
        image = np.random.default_rng(height).random((1, 3, height, width), dtype=np.float32)
        assert theirs(image).shape == (1, 3, 2 * height, 2 * width)
        assert np.abs(theirs(image) - ours(image)).max() < 0.01 / 255


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_in_half_cost_less_than_a_twentieth_of_a_decibel(
    engine: str, student: Path, pairs: Pairs, tmp_path: Path
) -> None:
    exact = score(run_all(open_network("onnxruntime", student), pairs), pairs, 1.0)
    file = convert(engine, student, tmp_path, half_weights=True)
    weights = file.with_suffix(".bin") if engine == "ncnn" else file
    if engine != "openvino":  # which stores nothing of its own here
        assert weights.stat().st_size < 0.75 * student.stat().st_size
    assert score(run_all(open_network(engine, file), pairs), pairs, 1.0) > exact - 0.05


@needs_arm
@pytest.mark.parametrize("engine", ENGINES)
def test_half_precision_on_a_phones_processor_costs_less_than_a_twentieth_of_a_decibel(
    engine: str, student: Path, pairs: Pairs, tmp_path: Path
) -> None:
    exact = run_all(open_network("onnxruntime", student), pairs)
    file = convert(engine, student, tmp_path)
    run = partial(run_on_arm, ARM, engine, file, pairs=pairs)
    full, half = run("float"), run("half")
    assert all(np.abs(full[name] - exact[name]).max() < 0.01 / 255 for name in pairs)
    assert any(np.abs(half[name] - exact[name]).max() > 0.05 / 255 for name in pairs), "it did not compute in half"
    assert score(half, pairs, 1.0) > score(exact, pairs, 1.0) - 0.05


@pytest.mark.parametrize("engine", ENGINES)
def test_every_precision_of_the_table_is_one_of_the_engine(engine: str, student: Path, tmp_path: Path) -> None:
    file = convert(engine, student, tmp_path)
    image = np.full((1, 3, 8, 8), 0.5, dtype=np.float32)
    for precision in PRECISIONS[engine]:
        assert np.isfinite(open_network(engine, file, precision)(image)).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_page_says_works_as_it_stands(
    engine: str, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands in a shell, then its Python; half weights are within a grey level."""
    page = (ROOT / "docs" / "how-to" / f"deploy-{engine}.md").read_text("utf-8")
    shutil.copy(student, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    if engine == "ncnn":
        (tmp_path / "bin" / "pnnx").symlink_to(importlib.import_module("pnnx").EXEC_PATH)
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for command in re.findall(r"^    ((?:pnnx|python) .*)$", page, re.MULTILINE):
        subprocess.run(command, shell=True, check=True, capture_output=True)
    image = np.random.default_rng(0).random((1, 3, 21, 34), dtype=np.float32)
    names: dict[str, object] = {"image": image}
    exec(compile(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0], engine, "exec"), names)
    expected = open_network("onnxruntime", student)(image)
    assert np.abs(np.asarray(names["large"]).reshape(expected.shape) - expected).max() < 1 / 255


def test_a_network_is_told_apart_from_another(student: Path, pairs: Pairs) -> None:
    """The scores above are no constants: two grey levels brighter, a result scores less."""
    exact = run_all(open_network("onnxruntime", student), pairs)
    assert score({n: x + np.float32(2 / 255) for n, x in exact.items()}, pairs, 1.0) < score(exact, pairs, 1.0) - 0.05
