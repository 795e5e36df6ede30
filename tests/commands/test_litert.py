"""Commands on TFLite files: eval and bench run them by LiteRT and say so, upscale does whole, quantize writes them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.bounds import PSNR_ROUNDING
from helpers.command_line import Run
from helpers.litert import LiteRT
from helpers.plain_nets import build, draw_image
from helpers.teachers import write_teacher
from PIL import Image

from memsr_compiler import Upscaler
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.teachers.families.edsr import EDSR

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite")

FEW = ("--samples", 4, "--calibration")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, image in enumerate(sample_photographs()[:2]):
        write_image(folder / f"{i}.png", image[100 : 196 + 20 * i, 100:220])
    return folder


@pytest.fixture
def net() -> PlainNet:
    """A student as they ship: near the repeated image."""
    net = build([8, 8], [3, 3, 3], image_skip="nearest")
    with torch.no_grad():
        net[len(net.layers) - 1].weight.mul_(0.02)
    return net


@pytest.fixture
def files(net: PlainNet, photographs: Path, run: Run, tmp_path: Path) -> dict[str, Path]:
    """One network in all files that are made of it."""
    paths = {name: tmp_path / name for name in ("a.onnx", "b.tflite", "half.tflite", "int8.tflite", "int8.onnx")}
    export_onnx(net, paths["a.onnx"])
    calibration = (*FEW, photographs)
    for name, dtype, more in (("b", "float32", ()), ("half", "float16", ()), ("int8", "int8", calibration)):
        out = paths[f"{name}.tflite"]
        assert run("export", paths["a.onnx"], "--out", out, "--dtype", dtype, *more)[0] == 0
    assert run("quantize", paths["a.onnx"], "--out", paths["int8.onnx"], *calibration)[0] == 0
    return paths


def test_eval_runs_them_by_litert_and_says_so(
    run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    status, out, err = run("eval", *files.values(), "--data", photographs, "--csv", table, "--threads", 1, "--json")
    assert status == 0, err
    models = {Path(name).name: model for name, model in json.loads(out)["models"].items()}
    assert {name: model["arithmetic"] for name, model in models.items()} == {
        "a.onnx": "float32, by ONNX Runtime on the CPU",
        "b.tflite": "float32, by LiteRT on the CPU",
        "half.tflite": "float32 (so it computes float16 files there), by LiteRT on the CPU",
        "int8.tflite": "8-bit integers, by LiteRT on the CPU",
        "int8.onnx": "8-bit integers, float32 between them, by ONNX Runtime on the CPU",
    }
    psnr = {name: model["average"]["psnr"] for name, model in models.items()}
    assert psnr["b.tflite"] == pytest.approx(psnr["a.onnx"], abs=PSNR_ROUNDING)
    assert psnr["half.tflite"] == pytest.approx(psnr["a.onnx"], abs=0.05)  # its weights have 11 digits
    assert psnr["int8.tflite"] == pytest.approx(psnr["int8.onnx"], abs=0.01)
    assert psnr["int8.tflite"] != psnr["a.onnx"]
    rows = list(csv.DictReader(table.open()))
    assert {row["arithmetic"] for row in rows if row["model"].endswith("b.tflite")} == {"float32, by LiteRT on the CPU"}
    _, out, _ = run("eval", files["b.tflite"], "--data", photographs)
    assert "computed in  float32, by LiteRT on the CPU" in out


def test_bench_measures_them(run: Run, files: dict[str, Path], photographs: Path) -> None:
    chosen = [files["a.onnx"], files["b.tflite"], files["int8.tflite"]]
    few = ("--size", "40x30", "--repeats", 1, "--threads", 1, "--data", photographs, "--json")
    status, out, err = run("bench", *chosen, *few)
    assert status == 0, err
    onnx, floats, integers = json.loads(out)["models"]
    assert [m["engine"] for m in (onnx, floats, integers)] == ["ONNX Runtime, cpu", "LiteRT, cpu", "LiteRT, cpu"]
    for same in ("parameters", "multiply_adds"):
        assert onnx[same] == floats[same] == integers[same] is not None
    assert onnx["feature_map_bytes"] == floats["feature_map_bytes"] == 4 * integers["feature_map_bytes"]
    assert floats["psnr_y_db"] == pytest.approx(onnx["psnr_y_db"], abs=PSNR_ROUNDING)
    assert floats["peak_memory_bytes"] > 0 and floats["median_ms"] > 0


def test_a_file_of_one_size_goes_in_pieces(run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed.tflite"
    assert run("export", files["a.onnx"], "--out", fixed, "--size", "24x24")[0] == 0
    status, out, err = run("eval", fixed, files["b.tflite"], "--data", photographs, "--json")
    assert status == 0 and "takes images of 24x24 only (its file says so)" in " ".join(err.split()), err
    one, other = (model["average"]["psnr"] for model in json.loads(out)["models"].values())
    assert one == pytest.approx(other, abs=PSNR_ROUNDING)


def test_quantize_writes_the_integers_of_its_onnx_file(
    run: Run, files: dict[str, Path], net: PlainNet, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "direct.tflite"
    status, printed, err = run("quantize", files["a.onnx"], "--out", out, *FEW, photographs, "--json")
    assert status == 0, err
    said = json.loads(printed)
    assert said["arithmetic"]["int8"] == "8-bit integers, by LiteRT on the CPU"
    assert said["bytes"]["int8"] == out.stat().st_size and said["written"] == str(out)
    x = draw_image(net, 20, 17)
    assert torch.equal(LiteRT(out)(x), LiteRT(files["int8.tflite"])(x))
    status, printed, err = run("eval", out, "--data", photographs, "--json")
    assert status == 0, err
    (evaluated,) = json.loads(printed)["models"].values()
    assert said["psnr"]["int8"] == pytest.approx(evaluated["average"]["psnr"], abs=PSNR_ROUNDING)


def test_upscale_runs_them_whole(run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    image, large = photographs / "0.png", tmp_path / "large.png"
    status, _, err = run("upscale", image, large, "--model", files["int8.tflite"])
    assert status == 2 and err.count("\n") == 1 and not large.exists()
    assert "int8.tflite: is a TFLite file, for LiteRT to run. Give the plain network" in err and "--tile off" in err
    assert run("upscale", image, large, "--model", files["b.tflite"], "--tile", "off")[0] == 0
    with Image.open(large) as picture:
        assert picture.size == (240, 192)
    with pytest.raises(InvalidInput, match=r"b\.tflite: is a TFLite file.*\.onnx or \.safetensors"):
        Upscaler(files["b.tflite"])


def test_refusals_write_nothing(
    run: Run, files: dict[str, Path], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = write_teacher(EDSR(scale=2, blocks=1, channels=4, tail="conv"), tmp_path / "t.pt")
    export_onnx(build([8], [3, 3], image_skip="bicubic"), tmp_path / "bicubic.onnx")
    save_plain(build([8], [3, 3]), tmp_path / "s.safetensors")
    out = tmp_path / "out.tflite"
    quantize = ("--out", out, *FEW, photographs)
    train = ("--data", photographs, "--steps", 1, "--out", out)
    before = sorted(tmp_path.iterdir())
    for command, words in (
        (("eval", files["b.tflite"], "--data", photographs, "--provider", "cuda"), "run by LiteRT, on the processor"),
        (("quantize", files["b.tflite"], "--out", out), "b.tflite: is not named .onnx; quantize reads ONNX files"),
        (("quantize", tmp_path / "bicubic.onnx", *quantize), "bicubic interpolation"),
        (("quantize", files["int8.onnx"], *quantize), "int8.onnx: is not plain"),
        (("quantize", tmp_path / "none.onnx", *quantize), "none.onnx: there is no such file"),
        (("distill", tmp_path / "s.safetensors", "--teacher", teacher, *train), "is named like a network's file"),
        (("train", "--arch", "edsr", "--scale", 2, *train), "memsrc export writes .tflite"),
    ):
        status, _, err = run(*command)
        assert status == 2 and words in err and err.count("\n") == 1, err
        assert sorted(tmp_path.iterdir()) == before
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    for without in (("eval", files["b.tflite"]), ("quantize", files["a.onnx"], *quantize)):
        status, _, err = run(*without)
        assert status == 2 and "pip install 'memsr_compiler[tflite]'" in err and err.count("\n") == 1, err
    assert sorted(tmp_path.iterdir()) == before
