"""Tables 4, 6, 7 and 11 and figures 1, 4, 5, 7 and 8 of the paper: all of --smoke, what is kept, what is wrong."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paper import smoke_settings
from paper import crops, figure1, figure5, figure7, quality, runs, speed
from paper.command import main
from paper.crops import PHOTOGRAPHS, System, make_crops
from paper.pairs import PAIRS, SHIPPED
from paper.quality import load_trained, read_set, score_network
from paper.rivals import PAPER, RIVALS, SMOKE
from paper.settings import ROOT
from paper.steps import draw_steps
from paper.table4 import make as make_table4
from PIL import Image
from torch import nn

from memsr_compiler import PlainNet, Takes, evaluate, load_model
from memsr_compiler.analysis.counted_run import count_published
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.scores import mean
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.runtime import room

NAMES = ("figure5", "table4", "table6", "table7", "table11", "figure1", "figure4", "figure7", "figure8")
"""Figure 5 first: the others have its students too, once they are trained."""

FILES = ("table4", "table6-small", "table7-small", "table11-cpu")
PICTURES = ("figure1-small", "figure4-small", "figure5-small", "figure7-small", "figure8")
WIDTH, HEIGHT = 1920, 1080

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="pages are named by the device, and there is a GPU")


def read_rows(path: Path) -> list[str]:
    """Names of a table's rows, each once."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(dict.fromkeys(row["row"] for row in csv.DictReader(file)))


@cpu_only
def test_all_of_it_works_and_a_second_call_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*NAMES, "--smoke", "--runs", str(tmp_path)]
    assert main(command) == 0, capsys.readouterr().err
    first = capsys.readouterr().out
    pages = tmp_path / "pages"
    assert {path.name for path in pages.glob("*.md")} == {f"{name}.md" for name in (*FILES, *PICTURES)}
    assert all((pages / f"{name}.md").read_text("utf-8") in first for name in (*FILES, *PICTURES))
    assert {path.stem for path in pages.glob("*.svg")} == set(PICTURES)
    assert read_rows(pages / "table11-cpu.csv") == [f"{name}, x2" for name in SMOKE]
    assert read_rows(pages / "table4.csv")[:3] == ["Bicubic, x2", *(f"{name}, x2" for name in SMOKE)]
    assert read_rows(pages / "figure5-small.csv") == list(figure5.STUDENTS)
    assert len(read_rows(pages / "figure7-small.csv")) == 1 + len(figure7.WAYS) * len(figure7.THETAS)
    lines = ET.parse(pages / "figure7-small.svg").getroot().findall(".//{*}path[@class='widths']")
    assert len(lines) == 5
    for name in ("table6-small", "table7-small"):
        page = (pages / f"{name}.md").read_text("utf-8")
        assert "What the paper's table of this number holds we do not know" in page
        assert "?" not in page  # it has said already that there is nothing to compare with
    for measured in ("_measure_on_cpu", "_measure_on_gpu"):
        monkeypatch.setattr(speed, measured, None)
    monkeypatch.setattr(quality, "evaluate", None)
    monkeypatch.setattr(runs, "memsrc", None)
    assert main(command) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(("name", "scale"), PAPER, ids=lambda value: str(value))
def test_multiply_adds_are_within_one_percent_of_the_papers(name: str, scale: int) -> None:
    rival = next(rival for rival in RIVALS if rival.name == name)
    net = rival.build(scale).eval()
    counted = count_published(net, (1, *rival.shape(scale, (WIDTH, HEIGHT)))) / 1e9
    assert counted == pytest.approx(float(PAPER[name, scale]), rel=0.01)


def test_parameters_are_within_one_percent_of_the_networks_own_papers() -> None:
    """Those that are not have their reason in a note of the table."""
    off = []
    for rival in (rival for rival in RIVALS if rival.published):
        for scale, thousands in zip((2, 3, 4), rival.published, strict=True):
            count = sum(p.numel() for p in rival.build(scale).parameters()) / 1000
            off += [rival.name] if abs(count / thousands - 1) > 0.01 else []
    assert dict.fromkeys(off) == dict.fromkeys(["IDN", "CARN", "SwinIR-S"])


@cpu_only
def test_too_little_memory_for_swinir_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "available_memory", lambda device="cpu": 2**30)
    monkeypatch.setattr(speed, "_measure_on_cpu", None)
    places = ["--runs", str(tmp_path), "--out", str(tmp_path)]
    assert main(["table11", "--row", "Plain-S", "--row", "SwinIR-S", *places]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"paper: SwinIR takes at least 2\.\d GiB of memory for an image of 960x540, and 1\.0 GiB are free; .*\n", err
    )


def test_a_kept_result_that_is_damaged_is_refused(tmp_path: Path) -> None:
    settings = smoke_settings(tmp_path, rows=("x2-tiny",))
    list(make_table4(settings))
    (kept,) = (settings.runs / "scores").iterdir()
    whole = kept.read_text("utf-8")
    for damage in (whole[:-2], "[]", whole.replace('"smoke": true', '"smoke": false')):
        kept.write_text(damage)
        with pytest.raises(InvalidInput, match=r"\.json: is damaged \(.*\); remove it, and it is made again"):
            list(make_table4(settings))


def test_trained_weights_are_scored_by_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a folder of models; other weights in the same file are scored anew."""
    monkeypatch.setattr(quality, "WEIGHTS", {("IMDN", 2): ("weights.pt", (0.0, 1.0))})
    settings = smoke_settings(tmp_path, models=tmp_path, rows=("IMDN",))
    assert load_trained("IMDN", 2, settings) is None
    state = torch.load(SHIPPED)
    scores = []
    for change in (0.0, 0.05):
        list(state.values())[-1].add_(change)  # a bias
        torch.save(state, tmp_path / "weights.pt")
        trained = load_trained("IMDN", 2, settings)
        assert trained is not None
        scores.append(score_network(*trained, None, settings)["psnr"])
        assert scores[-1] == mean(evaluate(trained[0], Takes(2), read_set(None, 2, settings))).psnr
    assert scores[0] > scores[1] + 1


def test_each_test_set_has_its_own_score(tmp_path: Path) -> None:
    """Though their folders hold nothing but HR and LR."""
    for name, image in zip(("Set5", "Set14"), sample_photographs(), strict=False):
        write_image(make_folder(tmp_path / "tests" / name / "x2" / "HR") / "1.png", image[100:148, 100:148])
        write_image(make_folder(tmp_path / "tests" / name / "x2" / "LR") / "1.png", image[100:148:2, 100:148:2])
    settings = smoke_settings(tmp_path, tests=tmp_path / "tests", rows=("x2-tiny",))
    *_, table = make_table4(settings)
    assert table.columns[-4:] == ("Set5, PSNR", "Set5, SSIM", "Set14, PSNR", "Set14, SSIM")
    first, _, second, _ = table.rows[0].cells[-4:]
    assert first != second


def test_a_pair_is_named_by_its_teacher_alone() -> None:
    """Rows are called "student of ..." by it."""
    assert not [pair.words for pair in PAIRS.values() if "Plain" in pair.words]


def test_students_of_figure_1_have_the_image_outside_as_their_names_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are those of table 7 where they are as wide: they are not derived a second time."""
    net = load_model("x2-tiny")
    asked: list[tuple[str, ...]] = []

    def derive(_: Path, *options: str) -> tuple[PlainNet, str]:
        asked.append(options)
        return net, "its key"

    monkeypatch.setattr(figure1, "derive", derive)
    monkeypatch.setattr(figure1, "compile_to_plain", lambda _: net)
    monkeypatch.setattr(figure1, "list_students", lambda _: {})
    entries = figure1._list_entries(smoke_settings(tmp_path, smoke=False, rows=("IMDN",)))
    widths = ("16", "24", "32")
    assert [name for name in entries if "outside" in name] == [f"student of {w}, the image outside" for w in widths]
    assert asked == [("--width", width, "--image-skip", "nearest") for width in widths]


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


class Nearest(nn.Module):
    """Each pixel as it is, twice as large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=2.0)


def test_crops_are_what_the_system_made(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "B100" / "x2"
    for part, side in (("HR", 120), ("LR", 60)):
        (folder / part).mkdir(parents=True)
        write_image(folder / part / "1.png", np.full((side, side, 3), 77, np.uint8))
    settings = smoke_settings(tmp_path, tests=tmp_path / "tests")
    (table,) = make_crops(4, 2, {"nearest": System(Nearest(), Takes(2))}, settings)
    assert table.caption[0].startswith("Photographs of B100")
    images = [image.get("href") or "" for image in ET.fromstring(table.picture).findall(".//{*}image")]
    assert len(images) == 4  # the photograph, and crops of the original, of bicubic's, and of the network's
    for image in images:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.removeprefix("data:image/png;base64,")))))
        assert (pixels == 77).all()


def test_no_photograph_of_b100_gets_into_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tests" / "B100" / "x2"
    for part, side in (("HR", 120), ("LR", 60)):
        (folder / part).mkdir(parents=True)
        write_image(folder / part / "1.png", np.full((side, side, 3), 77, np.uint8))
    settings = smoke_settings(tmp_path, tests=tmp_path / "tests", out=ROOT / "docs" / "results" / "paper")
    images, words = crops._choose_images(2, settings)
    assert words == "The photographs that ship"
    assert 0 < len(images) <= PHOTOGRAPHS
    assert not any((image.high == 77).all() for image in images)


def test_widths_are_drawn_as_high_as_they_are() -> None:
    drawing = ET.fromstring(draw_steps({"the <teacher>": (64, 128), "student": (32, 64)}, "Figure 7"))
    teacher, student = (path.get("d") or "" for path in drawing.findall(".//{*}path[@class='widths']"))
    floor, *_ = (float(number) for number in re.findall(r"M[\d.]+ ([\d.]+)", teacher))
    (low, high), (least, most) = ([float(y) for y in re.findall(r"V([\d.]+)H", d)] for d in (teacher, student))
    assert floor - high == pytest.approx(2 * (floor - low), abs=0.2)
    assert (floor - least, floor - most) == pytest.approx(((floor - low) / 2, floor - low), abs=0.2)
    assert {text.text for text in drawing.findall(".//{*}text")} >= {"the <teacher>", "student"}


@cpu_only
def test_a_run_of_another_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figure 5 takes runs of Table 1 that were trained with these settings, and no others."""
    arguments = ["figure5", "--smoke", "--runs", str(tmp_path)]
    assert main(arguments) == 0
    first, second = sorted(path for path in (tmp_path / "smoke").iterdir() if path.name.endswith("233"))[:2]
    shutil.rmtree(second)
    first.rename(second)
    capsys.readouterr()
    assert main(arguments) == 2
    assert re.match(r"paper: .*: is a run with \w+ .*, not .*; give what it began with", capsys.readouterr().err)
