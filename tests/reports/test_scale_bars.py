"""Where colours stand for numbers, a bar says for which."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from memsr_compiler.reports.matrix import draw_matrix
from memsr_compiler.reports.scale_bar import SCALE_HEIGHT, draw_scale_bar
from memsr_compiler.reports.spectra import Spectrum, draw_spectra

SVG = "{http://www.w3.org/2000/svg}"


def scale_bar(root: ElementTree.Element, space: str = "") -> ElementTree.Element:
    (bar,) = (g for g in root.iter(f"{space}g") if (g.get("aria-label") or "").startswith("colour scale: "))
    return bar


def test_a_bar_has_its_caption_colours_and_numbers_inside_its_height() -> None:
    ticks = [(0.0, "0"), (0.5, "<5>"), (1.0, "10")]
    bar = ElementTree.fromstring(
        draw_scale_bar((7, 3), 60, ['fill="red"', 'fill="blue"'], ticks, caption="bytes & <b>")
    )
    assert [(r.get("fill"), r.get("x"), r.get("width")) for r in bar.iter("rect")] == [
        ("red", "7", "30"),
        ("blue", "37", "30"),
    ]
    words = [(text.text, text.get("x")) for text in bar.iter("text")]
    assert words == [("bytes & <b>", "7"), ("0", "7"), ("<5>", "37"), ("10", "67")]
    assert all(3 < float(text.get("y", "")) < 3 + SCALE_HEIGHT for text in bar.iter("text"))


def test_the_matrix_has_a_bar_from_0_to_1_in_the_colours_of_its_cells() -> None:
    values = [[n / 10 for n in range(11)]]
    root = ElementTree.fromstring(draw_matrix(values, rows="a", columns="b", label="Linear CKA"))
    bar = scale_bar(root, SVG)
    caption, *numbers = bar.iter(f"{SVG}text")
    assert caption.text == "Linear CKA, a ratio without unit"
    assert [text.text for text in numbers] == ["0", "0.25", "0.5", "0.75", "1"]
    swatches = [(float(r.get("x", "")), colour(r)) for r in bar.iter(f"{SVG}rect")]
    assert all(a[1][0] >= b[1][0] for a, b in pairwise(swatches)), "darker from left to right"
    left, right = (float(numbers[i].get("x", "")) for i in (0, -1))
    assert swatches[0][0] == left
    cells = [r for r in root.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None]
    for value, cell in zip(values[0], cells, strict=True):
        at = left + (right - left) * value
        nearest = min(swatches, key=lambda swatch: abs(swatch[0] + (right - left) / len(swatches) / 2 - at))
        assert colour(cell) == pytest.approx(nearest[1], abs=8)  # two steps of 60: the square rises by 2 / 60 of 235


def colour(rect: ElementTree.Element) -> tuple[int, ...]:
    return tuple(int(n) for n in (rect.get("fill") or "")[4:-1].split(","))


@pytest.mark.parametrize("count", [1, 4, 6, 13, 120])
def test_spectra_have_a_bar_of_their_layers(count: int) -> None:
    spectra = [Spectrum(str(n), [4.0, 2.0, 1.0], 2) for n in range(1, count + 1)]
    drawing = draw_spectra(spectra, label="spectra")
    root = ElementTree.fromstring(drawing.svg())
    bar = scale_bar(root)
    shades = [rect.get("class") for rect in bar.iter("rect")]
    assert shades == sorted({line.get("class") for line in root.iter("polyline")}, key=str)
    caption, *names = [text.text or "" for text in bar.iter("text")]
    assert caption == "layer"
    ends = [name.split("–") for name in names]
    assert (ends[0][0], ends[-1][-1]) == ("1", str(count))
    assert sum(int(end[-1]) - int(end[0]) + 1 for end in ends) == count
    right = max(float(rect.get("x", "")) + float(rect.get("width", "")) for rect in bar.iter("rect"))
    assert right <= 350, "in view without scrolling at 400 px"
    highest = min(float(p.split(",")[1]) for line in root.iter("polyline") for p in (line.get("points") or "").split())
    assert max(float(text.get("y", "")) for text in bar.iter("text")) < highest, "above the plot"
