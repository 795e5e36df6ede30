"""Commands on ONNX files that fix the size of images, as torch's exporter writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import Run
from helpers.one_size import MILD, by_convolutions, by_reshapes, look_everywhere
from helpers.onnx_files import FREE
from PIL import Image

from memsr_compiler.images.files import sample_photographs, write_image

SIDE = 48


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One network in three files: free, fixed where nothing needs it, fixed by a reshape."""
    return {
        "free": by_convolutions(tmp_path, FREE, MILD).rename(tmp_path / "free.onnx"),
        "declared": by_convolutions(tmp_path, (1, 3, SIDE, SIDE), MILD).rename(tmp_path / "declared.onnx"),
        "needed": by_reshapes(tmp_path, 1, SIDE, SIDE, MILD).rename(tmp_path / "needed.onnx"),
    }


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, image in enumerate(sample_photographs()[:2]):
        write_image(folder / f"{i}.png", image[100 : 220 + 20 * i, 100:250])
    return folder


def scores(run: Run, *command: object) -> dict[str, list[float]]:
    """PSNR of each image by the network's name; infinite where it is HR itself."""
    status, out, err = run(*command, "--json")
    assert status == 0, err
    return {
        Path(name).stem: [math.inf if image["psnr"] is None else image["psnr"] for image in model["images"].values()]
        for name, model in json.loads(out)["models"].items()
    }


@pytest.fixture
def own_images(run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path) -> Path:
    """HR and LR of which HR is what the free network makes of LR: whatever another network does shows."""
    pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    data = tmp_path / "data"
    data.mkdir()
    photographs.rename(data / "LR")
    status, _, err = run("upscale", data / "LR", data / "HR", "--model", files["free"], "--tile", "off")
    assert status == 0, err
    return data


def test_eval_scores_all_alike_and_says_what_is_fixed(run: Run, files: dict[str, Path], own_images: Path) -> None:
    found = scores(run, "eval", *files.values(), "--data", own_images)
    # A pixel or two lie between two levels, and `upscale`, which counts in levels all along, rounds them the other way.
    assert found["free"] == found["declared"] and min(found["free"]) > 100
    # Of values that are 1e-6 apart one in 2,000 turns to the next level: a squared difference of 5e-4, 81 dB.
    assert min(found["needed"]) > 75, "pieces are put together to the image itself"
    _, _, err = run("eval", *files.values(), "--data", own_images)
    told = " ".join(err.split())
    assert f"declared.onnx: says 1x3x{SIDE}x{SIDE}, and nothing in it needs that" in told
    assert f"needed.onnx: takes images of {SIDE}x{SIDE} only (/body/Reshape: Reshape)" in told
    assert "free.onnx: says" not in told and "free.onnx: takes" not in told


def test_bench_measures_them_on_the_same_image(run: Run, files: dict[str, Path], photographs: Path) -> None:
    few = ("--size", "70x60", "--repeats", 1, "--data", photographs, "--json")
    status, out, err = run("bench", *files.values(), *few)
    assert status == 0 and "takes images of" in err, err
    measured = json.loads(out)["models"]
    assert {(m["width"], m["height"]) for m in measured} == {(70, 60)}
    assert len({round(m["psnr_y_db"], 3) for m in measured}) == 1


@pytest.mark.parametrize("name", ["declared", "needed"])
def test_quantize_takes_them(run: Run, files: dict[str, Path], own_images: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "integers.onnx"
    few = ("--calibration", own_images / "LR", "--samples", 4, "--size", "32x24", "--json")
    status, told, err = run("quantize", files[name], "--out", out, *few)
    assert status == 0, err
    assert json.loads(told)["size"] == ([32, 24] if name == "declared" else [SIDE, SIDE])
    # Values have steps of 1/255 of their range and weights of 1/127, and are a step / sqrt(12) off; in three layers
    # that adds up to 0.44 % of the range, 47 dB.  Half as much again may come of ranges that are not all used.
    assert min(scores(run, "eval", out, "--data", own_images)["integers"]) > 43


def test_upscale_gives_the_same_image(run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    results = []
    for name, path in files.items():
        result = tmp_path / f"{name}.png"
        status, _, err = run("upscale", photographs / "0.png", result, "--model", path, "--tile", "off")
        assert status == 0, err
        with Image.open(result) as image:
            results.append(np.array(image).astype(int))
    assert results[0].std() > 5
    assert all(result.shape == (240, 300, 3) and np.abs(result - results[0]).max() <= 1 for result in results)


def test_they_are_teachers(run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    for name in ("declared", "needed"):
        plain, student = tmp_path / f"{name}.plain.onnx", tmp_path / f"{name}.student.onnx"
        assert run("inspect", files[name])[0] == 0
        assert run("convert", files[name], "--out", plain)[0] == 0
        assert run("verify", files[name], plain)[0] == 0
        quick = ("--calibration", photographs, "--samples", 4, "--refit", 0)
        assert run("shrink", files[name], "--width", 8, "--out", student, *quick)[0] == 0
        status, _, err = run("similarity", files[name], student, "--data", photographs)
        assert status == 0, err


def test_what_looks_too_far_is_told_exactly_that(run: Run, photographs: Path, tmp_path: Path) -> None:
    path = look_everywhere(tmp_path)
    for command in (
        ("eval", path, "--data", photographs),
        ("bench", path, "--size", "70x60", "--repeats", 1),
        ("quantize", path, "--out", tmp_path / "out.onnx", "--calibration", photographs, "--samples", 4),
    ):
        status, _, err = run(*command)
        assert status == 2 and "takes images of 24x24 only (/body/Reshape: Reshape)" in err.replace("\n", " "), err
        assert "Give images of that size, or export the network with dynamic height and width" in err
    assert not (tmp_path / "out.onnx").exists()
    (tmp_path / "small").mkdir()
    for image in photographs.iterdir():
        with Image.open(image) as whole:
            whole.crop((0, 0, SIDE, SIDE)).save(tmp_path / "small" / image.name)
    assert run("eval", path, "--data", tmp_path / "small")[0] == 0
    assert run("bench", path, "--size", "24x24", "--repeats", 1, "--data", tmp_path / "small")[0] == 0
