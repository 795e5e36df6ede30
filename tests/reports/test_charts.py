"""Charts: well-formed, as high as their numbers, and drawn whatever the numbers are."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from memsr_compiler.reports.charts import (
    Pair,
    Point,
    Spectrum,
    draw_errors,
    draw_pairs,
    draw_spectra,
    draw_tradeoff,
    name_shades,
    step,
    tick,
)


def test_grid_lines_are_round_and_about_five() -> None:
    for highest in (0.0021, 0.4, 1.0, 7.3, 99.0, 12345.0):
        each = step(highest)
        assert 1 <= highest / each <= 5
        assert float(f"{each:.0e}") == pytest.approx(each, rel=1e-12)
    assert [tick(n) for n in (1, 3, 4, 7, 99, 250)] == [1, 1, 1, 2, 20, 50]


def test_the_student_stands_in_front_of_the_teacher() -> None:
    root = ElementTree.fromstring(draw_pairs([Pair("1", 96, 12, 20), Pair("2", 48, 0, 40)], label="<widths>").svg())
    assert root.get("aria-label") == "<widths>"
    bars = [(rect.get("class"), float(rect.get("height", ""))) for rect in root.iter("rect")]
    assert [kind for kind, _ in bars] == ["w0", "w1", "w2", "w0", "w2"]
    unit = bars[0][1] / 96
    assert [round(height / unit) for _, height in bars] == [96, 12, 20, 48, 40]
    assert {"96", "32", "48", "40"} <= {text.text for text in root.iter("text")}
    titles = [title.text for title in root.iter("title")]
    assert titles[0] == "layer 1: 32 of 96 channels\n12 ReLUs of the teacher, 20 linear directions"


def test_spectra_fall_from_one_and_their_dot_is_the_width() -> None:
    values = [10.0, 1.0, 0.1, 0.01]
    root = ElementTree.fromstring(draw_spectra([Spectrum("1", values, 2)], label="spectra").svg())
    (line,) = root.iter("polyline")
    places = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    drops = [b[1] - a[1] for a, b in pairwise(places)]
    assert drops == pytest.approx([drops[0]] * 3, abs=0.2)  # a decade each; drawn to a tenth of a pixel
    (dot,) = root.iter("circle")
    assert (float(dot.get("cx", "")), float(dot.get("cy", ""))) == places[1]


@pytest.mark.parametrize(
    "values",
    [[], [0.0], [0.0, 0.0], [1.0], [1.0, 0.0], [5.0] * 3, [1.0, 1e-30], [math.nan, math.nan], [1.0, math.nan]],
)
def test_any_spectrum_can_be_drawn(values: list[float]) -> None:
    root = ElementTree.fromstring(draw_spectra([Spectrum("1", values, 8)], label="").svg())
    assert "nan" not in ElementTree.tostring(root, "unicode")


def test_layers_share_six_shades() -> None:
    spectra = [Spectrum(str(n), [1.0], 1) for n in range(1, 14)]
    assert name_shades(spectra)[0] == "1–3"
    assert name_shades(spectra)[-1] == "12–13"
    assert [name for name in name_shades(spectra[:2]) if name] == ["1", "2"]


@pytest.mark.parametrize("rows", [[("1", 0.0, 0.0)], [("1", math.nan, math.inf)], [("1", 1e-9, 2e-9), ("2", 0.9, 1.0)]])
def test_any_errors_can_be_drawn(rows: list[tuple[str, float, float]]) -> None:
    root = ElementTree.fromstring(draw_errors(rows, label="").svg())
    known = sum(math.isfinite(value) for _, *values in rows for value in values)
    assert len(list(root.iter("circle"))) == known
    assert all(0 <= float(dot.get("cy", "")) <= 200 for dot in root.iter("circle"))


def test_a_trade_off_stands_alone_and_says_who_is_who() -> None:
    students = [
        Point("width 16", 2e9, 2e7, 33.1),
        Point("width 24", 4e9, 3e7, math.nan),
        Point("width 8", 2e9, 1e7, 31),
    ]
    text = draw_tradeoff(students, [Point("teacher <x>", 9e9, 9e7, 34.0)], [("bicubic", 30.5)], label="PSNR & cost")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("width 16") == words.count("teacher <x>") == words.count("bicubic") == 2
    assert "width 24" not in words
    assert "PSNR & cost" in words
    assert "class=" not in text and "nan" not in text


@pytest.mark.parametrize("score", [math.nan, math.inf, 8.0])
def test_any_trade_off_can_be_drawn(score: float) -> None:
    point = Point("x", 0.0, 0.0, score)
    ElementTree.fromstring(draw_tradeoff([point], [point], [("bicubic", score)], label=""))
