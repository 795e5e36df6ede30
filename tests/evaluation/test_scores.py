"""evaluate and memsrc eval: scores are those of the metrics, published rows come out, wrong input is told."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from helpers.bounds import PSNR_ROUNDING
from helpers.command_line import Run
from helpers.image_pairs import write_pairs
from helpers.teachers import write_teacher
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, save_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import TestImage, read_test_images
from memsr_compiler.evaluation.scores import enlarge, evaluate, evaluate_bicubic, mean, mean_psnr
from memsr_compiler.images.files import read_image, sample_photographs, to_image, to_tensor, to_uint8, write_image
from memsr_compiler.images.metrics import luma, psnr, srcnn_input, ssim
from memsr_compiler.images.resize import resize
from memsr_compiler.plain.info import Takes
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import read_teacher

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT.parent / "shared" / "data" / "benchmarks"
needs_benchmarks = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs the benchmark images in ../shared")


def photograph(height: int = 60, width: int = 64) -> NDArray[np.uint8]:
    return sample_photographs()[0][:height, :width]


class Nearest(nn.Module):
    """Every pixel `scale` times in both directions, in units of `peak`."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def test_scores_are_those_of_the_metrics() -> None:
    image = TestImage.of("a", photograph(61, 65), 2)
    assert image.high.shape == (60, 64, 3) and image.low.shape == (30, 32, 3)
    (score,) = evaluate(Nearest(), Takes(2), [image], scale=2)
    output = to_image(Nearest()(to_tensor(image.low)))
    assert score.psnr == pytest.approx(psnr(output, image.high, scale=2), abs=1e-9)
    assert score.ssim == pytest.approx(ssim(output, image.high, scale=2), abs=1e-9)


def test_the_input_range_changes_nothing() -> None:
    images = [TestImage.of("a", photograph(), 2)]
    one, other = (evaluate(Nearest(), Takes(2, 3, r), images, scale=2)[0] for r in ((0.0, 1.0), (0.0, 255.0)))
    assert one == other  # the levels of the image, which float32 does not turn to others


def test_a_luma_network_gets_luma_by_either_protocol() -> None:
    image = TestImage.of("a", photograph(), 2)
    seen: list[Tensor] = []

    def remember(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    score = {p: evaluate(remember, Takes(1, 1), [image], scale=2, protocol=p)[0].psnr for p in ("edsr", "srcnn")}
    enlarged = resize(luma(image.low) / 255, 2), srcnn_input(image.high, 2)
    for x, expected in zip(seen, enlarged, strict=True):
        assert x.shape == (1, 1, 60, 64)
        np.testing.assert_allclose(x[0, 0].numpy(), expected, rtol=np.finfo(np.float32).eps)  # rounded once
    (bicubic,) = evaluate_bicubic([image], scale=2, protocol="srcnn")
    assert score["srcnn"] == pytest.approx(bicubic.psnr, abs=1e-3)  # the identity is bicubic here


def test_a_luma_network_of_its_own_scale() -> None:
    image = TestImage.of("a", photograph(), 3)
    for protocol in ("edsr", "srcnn"):
        (score,) = evaluate(Nearest(3), Takes(3, 1), [image], scale=3, protocol=protocol)
        assert 15 < score.psnr < 45


def test_grey_images_are_y_for_luma_networks_and_three_channels_for_others() -> None:
    grey = photograph()[..., :1]
    image = TestImage.of("a", grey, 2)
    (rgb,) = evaluate(Nearest(), Takes(2), [image], scale=2)
    (same,) = evaluate(Nearest(), Takes(2), [TestImage.of("a", np.repeat(grey, 3, 2), 2)], scale=2)
    assert rgb == same
    (bicubic,) = evaluate_bicubic([image], scale=2, protocol="srcnn")
    assert bicubic.psnr == pytest.approx(psnr(srcnn_input(grey, 2), grey, scale=2, protocol="srcnn"))


def test_what_does_not_fit() -> None:
    image = TestImage.of("a", photograph(), 2)
    with pytest.raises(InvalidInput, match="enlarges by 3"):
        evaluate(Nearest(3), Takes(3), [image], scale=2)
    with pytest.raises(InvalidInput, match="makes 96x90 of 32x30, and HR is 64x60"):
        evaluate(Nearest(3), Takes(2), [image], scale=2)
    with pytest.raises(InvalidInput, match="4 channels"):
        Takes(2, 4)
    with pytest.raises(InvalidInput, match="no image"):
        mean([])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_an_output_that_is_no_number_is_no_white_image(wrong: float) -> None:
    def network(x: Tensor) -> Tensor:
        return Nearest(2)(x) * wrong  # type: ignore[no-any-return]

    with pytest.raises(InvalidInput, match="a: the network's output is NaN or infinite for it"):
        evaluate(network, Takes(2), [TestImage.of("a", photograph(), 2)], scale=2)


def test_a_network_that_overflows_is_named_among_others(run: Run, models: Path, tmp_path: Path) -> None:
    overflowing = onnx.load(models / "plain.onnx")
    del overflowing.metadata_props[:]
    for weight in overflowing.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1e30, weight.name))
    onnx.save(overflowing, tmp_path / "big.onnx")
    status, _, err = run("eval", models / "plain.onnx", tmp_path / "big.onnx", "--input-range", 0, 1)
    assert status == 2 and re.search(r"memsrc: .*big\.onnx: photograph 1: the network's output is NaN", err), err


def small_edsr() -> EDSR:
    torch.manual_seed(1)
    return EDSR(scale=2, blocks=1, channels=8).eval()


def test_a_teacher_a_module_and_a_file_are_taken(tmp_path: Path) -> None:
    module = small_edsr()
    write_teacher(module, tmp_path / "teacher.pt")
    net = compile_to_plain(module)
    export_onnx(net, tmp_path / "plain.onnx")
    save_plain(net, tmp_path / "plain.safetensors")
    write_pairs(tmp_path / "data")
    with torch.no_grad():
        expected = evaluate(lambda x: module(x), Takes(2), read_test_images(tmp_path / "data", 2))
    teacher = read_teacher(tmp_path / "teacher.pt")
    for network in (module, teacher, tmp_path / "teacher.pt", str(tmp_path / "teacher.pt")):
        assert evaluate(network, tmp_path / "data") == evaluate(network, images=tmp_path / "data") == expected
    for plain in (net, tmp_path / "plain.onnx", tmp_path / "plain.safetensors"):
        for one, other in zip(evaluate(plain, tmp_path / "data"), expected, strict=True):
            assert one.psnr == pytest.approx(other.psnr, abs=PSNR_ROUNDING) and one.ssim == pytest.approx(
                other.ssim, abs=1e-5
            )
    assert len(evaluate(module)) == len(sample_photographs())
    assert not any(p.dtype == torch.float64 for p in module.parameters())


def test_a_module_is_scored_in_evaluation_mode_and_stays_as_it_was() -> None:
    class Noisy(Nearest):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (1.0 if self.training else 0.0)

    noisy = Noisy().double().train()
    image = TestImage.of("a", photograph(), 2)
    assert evaluate(noisy, image) == evaluate(Nearest(), Takes(2), [image], scale=2)
    assert noisy.training


def test_a_network_on_enlarged_images_is_scored_by_each_images_factor() -> None:
    images = read_test_images([photograph()] * 3, 1)
    scores = evaluate(nn.Identity(), images, takes=Takes(1))
    assert [score.psnr for score in scores] == sorted((score.psnr for score in scores), reverse=True)
    for score, factor in zip(scores, (2, 3, 4), strict=True):
        (alone,) = evaluate(nn.Identity(), [photograph()], takes=Takes(1), scale=factor)
        assert (alone.psnr, alone.ssim) == (score.psnr, score.ssim)


def test_one_way_to_a_psnr() -> None:
    image = TestImage.of("a", photograph(), 2)
    for protocol in ("edsr", "srcnn"):
        for takes in (Takes(2), Takes(2, 1), Takes(1), Takes(1, 1)):
            network = Nearest(takes.scale)
            (score,) = evaluate(network, takes, [image], protocol=protocol)
            output = enlarge(network, takes, image, protocol=protocol)
            assert mean_psnr([image], [output], protocol=protocol) == score.psnr
            assert mean_psnr([image], [to_uint8(output)], protocol=protocol) == score.psnr
    assert mean_psnr([], []) is None


def test_wrong_networks_images_and_devices() -> None:
    image = TestImage.of("a", photograph(), 2)
    cases: list[tuple[tuple[object, ...], dict[str, object], str]] = [
        ((3,), {}, "a network is wanted: .* not int"),
        ((lambda x: x, [image]), {}, r"takes=Takes\(scale\)"),
        ((lambda x: x,), {"takes": Takes(2), "images": [image], "device": "cuda"}, "cuda"),
        ((Nearest(), [image]), {"device": "tpu"}, "device 'tpu': want cpu or cuda"),
        ((Nearest(), [image]), {"protocol": "best"}, "protocol 'best': want edsr or srcnn"),
        ((Nearest(), "Set5", [image]), {}, "list: is one argument too many"),
        ((Nearest(), Takes(2), [image], Takes(2)), {}, "Takes: is one argument too many"),
        ((Nearest(), [image]), {"takes": 2}, "takes: a int"),
        ((Nearest(), [image]), {"scale": 3}, "enlarges by 2, the images are to be enlarged by 3"),
        ((Nearest(3), [image]), {}, "which is not x3"),
        (("absent.onnx", [image]), {}, "absent.onnx"),
        (("absent.pt", [image]), {}, "absent.pt"),
        ((Nearest(), "absent"), {}, "absent: is no folder"),
        ((Nearest(), torch.zeros(1, 3, 8, 8)), {}, "image 1 is a Tensor; want a folder"),
    ]
    for arguments, options, words in cases:
        with pytest.raises(InvalidInput, match=words):
            evaluate(*arguments, **options)  # type: ignore[call-overload]


@needs_benchmarks
def test_bicubic_on_set5_by_both_protocols(run: Run) -> None:
    """33.661 by the published tables' protocol, 33.679 by the one that rounds RGB: never one for the other unasked."""
    for protocol, decibels in (("srcnn", 33.661), ("edsr", 33.679)):
        status, out, err = run(
            "eval", "bicubic", "--data", BENCHMARKS / "Set5" / "x2", "--protocol", protocol, "--json"
        )
        assert status == 0, err
        found = json.loads(out)
        assert found["scale"] == 2 and found["protocol"] == protocol
        assert found["models"]["bicubic"]["average"]["psnr"] == pytest.approx(decibels, abs=0.002)


@needs_benchmarks
@pytest.mark.parametrize(
    ("data", "scale", "decibels", "similarity"),
    [
        ("Set5", 2, 33.661, 0.9299),
        ("Set5", 3, 30.392, 0.8682),
        ("Set5", 4, 28.421, 0.8104),
        ("Set14", 2, 30.232, None),
        ("Set14", 3, 27.541, None),
        ("Set14", 4, 26.000, None),
        ("B100", 4, 25.961, 0.6674),
    ],
)
def test_bicubic_rows_of_the_papers(data: str, scale: int, decibels: float, similarity: float | None) -> None:
    """VDSR's and EDSR's tables have them to two decimals; grey files are Y."""
    files = sorted((BENCHMARKS / data / f"x{scale}" / "HR").iterdir())
    images = [TestImage.of(f.name, read_image(f, keep_grey=True), scale) for f in files]
    average = mean(evaluate_bicubic(images, scale=scale, protocol="srcnn"))
    assert average.psnr == pytest.approx(decibels, abs=0.005)
    assert similarity is None or average.ssim == pytest.approx(similarity, abs=0.0002)


# -- the command


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small teacher, its plain network in both formats, and images: HR, LR."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    teacher = EDSR(scale=2, blocks=1, channels=8).eval()
    write_teacher(teacher, folder / "teacher.pt")
    net = compile_to_plain(teacher)
    export_onnx(net, folder / "plain.onnx")
    save_plain(net, folder / "plain.safetensors")
    write_pairs(folder / "data")
    return folder


def test_where_lr_comes_from_is_told(run: Run, models: Path) -> None:
    made = "made of HR by MATLAB's bicubic, antialiased"
    both = models / "data"
    cases: list[tuple[Path, str, list[str | Path], str]] = [
        (both, "edsr", ["bicubic"], "as given"),
        (both / "HR", "edsr", ["bicubic"], f"{made}, rounded to 8 bits"),
        (both, "srcnn", ["bicubic"], f"{made}, of Y, not rounded"),
        (both, "srcnn", ["bicubic", models / "teacher.pt"], f"{made}, of Y, not rounded; for networks of RGB as given"),
    ]
    for data, protocol, files, words in cases:
        options = ("eval", *files, "--scale", 2, "--data", data, "--protocol", protocol)
        assert json.loads(run(*options, "--json")[1])["lr"] == words
        assert f"protocol {protocol}; LR {words}" in " ".join(run(*options)[1].split())


def test_teacher_and_plain_side_by_side(run: Run, models: Path, tmp_path: Path) -> None:
    files = [models / name for name in ("teacher.pt", "plain.onnx", "plain.safetensors")]
    out_csv = tmp_path / "scores.csv"
    status, out, err = run("eval", "bicubic", *files, "--data", models / "data", "--csv", out_csv)
    assert status == 0, err
    assert "computed in  bicubic: float64, by NumPy on the CPU; teacher.pt: float32, by torch on the CPU; plain" in out
    assert all(word in out for word in ("x2", "2 images", "bicubic", "teacher.pt", "0.png", "average"))
    status, out, _ = run("eval", "bicubic", *files, "--data", models / "data", "--json")
    found = json.loads(out)
    assert status == 0 and found["scale"] == 2 and found["protocol"] == "edsr"
    averages = {name: told["average"] for name, told in found["models"].items()}
    first = averages[str(files[0])]
    for file in files[1:]:
        assert averages[str(file)]["psnr"] == pytest.approx(first["psnr"], abs=PSNR_ROUNDING)
        assert averages[str(file)]["ssim"] == pytest.approx(first["ssim"], abs=1e-5)
    words = ["float64, by NumPy on the CPU", "float32, by torch on the CPU", "float32, by ONNX Runtime on the CPU"]
    assert [told["arithmetic"] for told in found["models"].values()] == [*words, words[1]]
    rows = list(csv.DictReader(out_csv.open()))
    assert len(rows) == 4 * 2 and [row["arithmetic"] for row in rows[::2]] == [*words, words[1]]
    of_bicubic = [float(row["psnr_y_db"]) for row in rows if row["model"] == "bicubic"]
    assert np.mean(of_bicubic) == pytest.approx(averages["bicubic"]["psnr"], abs=1e-3)


def test_hr_alone_is_made_smaller_as_lr_was(run: Run, models: Path) -> None:
    scores = []
    for data in (models / "data", models / "data" / "HR"):
        status, out, _ = run("eval", models / "plain.onnx", "--data", data, "--json")
        assert status == 0
        scores.append(json.loads(out)["models"][str(models / "plain.onnx")]["average"])
    assert scores[0] == scores[1]


def test_without_data_the_photographs_that_ship(run: Run) -> None:
    status, out, err = run("eval", "bicubic", "--scale", "2")
    assert status == 0 and "the photographs" not in err and f"{len(sample_photographs())} images" in out


def test_the_scale_of_bicubic_is_that_of_hr_and_lr(run: Run, models: Path) -> None:
    told, shown = (
        run("eval", "bicubic", *more, "--data", models / "data", "--json") for more in (("--scale", "2"), ())
    )
    assert shown == told and shown[0] == 0
    status, _, err = run("eval", "bicubic", "--data", models / "data" / "HR")
    assert status == 2 and "--scale" in err


def test_images_too_small_to_be_made_smaller_are_named(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    status, _, err = run("eval", "bicubic", "--scale", "2", "--data", tmp_path)
    assert status == 2 and "dot.png" in err and "no image in it is large enough" in err
    Image.new("RGB", (24, 24), "red").save(tmp_path / "red.png")
    status, _, err = run("eval", "bicubic", "--scale", "2", "--data", tmp_path, "--json")
    assert status == 3 and "dot.png: is smaller than 16x16 pixels; passed over" in " ".join(err.split())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_image_that_ssim_can_judge_is_scored(run: Run, tmp_path: Path, scale: int) -> None:
    """11 pixels a side have to be left once `scale` of them are shaved off, of a multiple of the scale."""
    least = next(side for side in range(scale, 99, scale) if side - 2 * scale >= 11)
    write_image(tmp_path / "small.png", photograph(least - 1, 40))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InvalidInput, match=rf"no image in it is large enough \(small.png\); give images of {least} "):
        evaluate_bicubic(tmp_path, scale=scale)
    with pytest.raises(InvalidInput, match=rf"small.png: is smaller than {least}x{least} pixels; leave it out"):
        evaluate_bicubic(tmp_path / "small.png", scale=scale)
    write_image(tmp_path / "large.png", photograph(least, 40))
    status, out, err = run("eval", "bicubic", "--scale", scale, "--data", tmp_path, "--json")
    told = json.loads(out)
    assert status == 3 and list(told["models"]["bicubic"]["images"]) == ["large.png"]
    text, small = (text.partition(": ")[2] for text in told["passed_over"])
    assert text.startswith("not a readable image") and text.endswith("HEIC too; passed over")
    assert small == f"is smaller than {least}x{least} pixels; passed over"
    assert "2 files were passed over" in err
    assert all(text in " ".join(err.split()) for text in told["passed_over"])


def test_small_pairs_are_passed_over_like_small_images(run: Run, models: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    for part, image in (("HR", photograph(9, 9)[:8, :8]), ("LR", resize(photograph(8, 8), 1 / 2))):
        write_image(tmp_path / part / "tiny.png", image)
    status, out, err = run("eval", models / "plain.onnx", "--data", tmp_path)
    assert status == 3 and "2 images" in out and "HR/tiny.png: is smaller than 16x16" in err
    status, out, err = run("bench", models / "plain.onnx", "--data", tmp_path, "--size", "16x16", "--repeats", "1")
    assert status == 0 and "HR/tiny.png: is smaller than 16x16" in err


class HalfRight(nn.Module):
    """Right where a red image is made larger, and grey for every other."""

    def forward(self, x: Tensor) -> Tensor:
        right = bool((x[:, 0] == 1).all())
        return (x if right else torch.full_like(x, 0.5)).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_an_image_that_is_hr_itself_is_no_part_of_the_average(run: Run, tmp_path: Path) -> None:
    red = np.zeros((24, 24, 3), np.uint8)
    red[..., 0] = 255
    scores = evaluate(HalfRight(), Takes(2), [photograph(48, 48), red, photograph(40, 40)])
    assert [score.psnr == math.inf for score in scores] == [False, True, False]
    average = mean(scores)
    assert average.psnr == (scores[0].psnr + scores[2].psnr) / 2 and average.identical == 1
    assert average.ssim == pytest.approx((scores[0].ssim + 1 + scores[2].ssim) / 3)
    assert mean(scores[1:2]).psnr == math.inf
    write_image(tmp_path / "photograph.png", photograph(48, 48))
    write_image(tmp_path / "red.png", red)
    command = ("eval", "bicubic", "--scale", "2", "--data", tmp_path, "--csv", tmp_path / "scores.csv")
    status, out, _ = run(*command)
    assert status == 0 and "1 image is HR itself, PSNR infinite: not in the average of PSNR" in out
    rows = {row["image"]: row["psnr_y_db"] for row in csv.DictReader((tmp_path / "scores.csv").open())}
    assert rows["red.png"] == "inf"
    told = json.loads(run(*command, "--json")[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    told = told["models"]["bicubic"]
    assert told["images"]["red.png"] == {"psnr": None, "ssim": 1.0, "identical": 1}
    assert told["average"]["psnr"] == pytest.approx(float(rows["photograph.png"]), abs=1e-4)
    assert told["average"]["identical"] == 1


def test_outputs_are_averaged_alike_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    images = [TestImage.of("a", photograph(), 2), TestImage.of("b", photograph(48, 48), 2)]
    outputs = [images[0].high, np.zeros_like(images[1].high)]
    assert mean_psnr(images, outputs) == mean_psnr(images[1:], outputs[1:])
    assert "1 image is HR itself" in caplog.text
    assert mean_psnr(images[:1], outputs[:1]) == math.inf


def test_names_that_the_output_has_no_letters_for(models: Path, tmp_path: Path) -> None:
    """No UTF-8, control characters, what rich takes for markup; standard output in ASCII, strictly."""
    names = [b"caf\xe9.png", "写真.png".encode(), b"[bold] :cat: \x1b[31m\n.png"]
    place = os.fsencode(tmp_path / "photos")
    os.mkdir(place)
    for name in names:
        with open(os.path.join(place, name), "wb") as file:
            Image.fromarray(photograph(40, 40)).save(file, "PNG")
    command = [sys.executable, "-m", "memsr_compiler", "eval", "bicubic", "--scale", "2", "--data", "photos"]
    for encoding in ("ascii:strict", "utf-8"):
        done = subprocess.run(
            [*command, "--csv", "scores.csv"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert rb"caf\udce9.png" in done.stdout and rb"[bold] :cat: \x1b[31m\n.png" in done.stdout
        assert (rb"\u5199\u771f" in done.stdout) == (encoding != "utf-8")
        with open(tmp_path / "scores.csv", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == 3


def test_wrong_input_to_eval(run: Run, models: Path, tmp_path: Path) -> None:
    other = EDSR(scale=3, blocks=1, channels=8)
    write_teacher(other, tmp_path / "x3.pt")
    (tmp_path / "odd" / "HR").mkdir(parents=True)
    (tmp_path / "odd" / "LR").mkdir()
    write_image(tmp_path / "odd" / "HR" / "a.png", photograph(60, 60))
    write_image(tmp_path / "odd" / "LR" / "a.png", photograph(20, 20))
    (tmp_path / "text.onnx").write_text("no network")
    plain = models / "plain.onnx"
    for arguments, words in (
        ((plain, tmp_path / "x3.pt"), ("enlarge differently", "x3.pt x3")),
        ((plain, "--scale", "3"), ("--scale 3", "enlarges by 2")),
        (("bicubic",), ("--scale",)),
        ((plain, plain), ("twice",)),
        ((plain, "--protocol", "best"), ("--protocol best", "edsr, srcnn")),
        ((tmp_path / "absent.onnx",), ("absent.onnx", "no such file")),
        ((tmp_path / "text.onnx",), ("text.onnx",)),
        ((plain, "--data", tmp_path / "absent"), ("absent", "is no folder")),
        ((plain, "--data", tmp_path / "odd"), ("a.png", "60x60", "20x20", "not x2")),
        ((plain, "--csv", plain), ("plain.onnx",)),
    ):
        status, out, err = run("eval", *arguments)
        assert status == 2 and out == "" and err.count("\n") == 1, (arguments, err)
        assert all(word in err for word in words), err
