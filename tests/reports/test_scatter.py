"""Quality, time and memory in one picture."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from memsr_compiler.reports.scatter import Dot, draw_scatter_png, draw_scatter_svg

MIB = 2**20


def dots() -> list[Dot]:
    return [
        Dot("teacher <1>.pt", 0.4, 34.2, 400 * MIB),
        Dot("plain.onnx", 0.8, 34.2, 100 * MIB),
        Dot("unknown", 0.1, 33.0, None),
        Dot("nowhere", 0.1, float("nan"), 5),
    ]


def test_area_is_memory_and_place_is_time_and_quality() -> None:
    root = ElementTree.fromstring(draw_scatter_svg(dots(), "A & B"))
    space = "{http://www.w3.org/2000/svg}"
    circles = [{key: float(dot.get(key, "")) for key in ("cx", "cy", "r")} for dot in root.iter(f"{space}circle")]
    assert len(circles) == 3
    assert (circles[0]["r"] / circles[1]["r"]) ** 2 == pytest.approx(4, rel=0.01)
    assert circles[0]["cy"] == circles[1]["cy"] < circles[2]["cy"]
    left = circles[2]["cx"] - (circles[0]["cx"] - circles[2]["cx"]) / 3  # where time is 0
    assert circles[1]["cx"] - left == pytest.approx(2 * (circles[0]["cx"] - left), abs=0.5)
    words = [text.text for text in root.iter(f"{space}text")]
    assert {"A & B", "teacher <1>.pt, 400 MiB", "plain.onnx, 100 MiB", "unknown"} <= set(words)


def test_where_no_memory_is_known_no_area_is_said_to_be_some() -> None:
    assert "area: peak memory" in draw_scatter_svg(dots(), "")
    assert "area" not in draw_scatter_svg([Dot("unknown", 0.1, 33.0, None)], "")


def test_labels_do_not_cover_each_other() -> None:
    root = ElementTree.fromstring(draw_scatter_svg([Dot(f"network {i}", 0.1, 33.0, MIB) for i in range(3)], ""))
    space = "{http://www.w3.org/2000/svg}"
    heights = [float(t.get("y", "")) for t in root.iter(f"{space}text") if (t.text or "").startswith("network")]
    assert np.diff(sorted(heights)).min() >= 12


def test_labels_stand_in_the_order_of_their_dots() -> None:
    scores = {"low": 33.0, "high": 33.02, "middle": 33.01}
    root = ElementTree.fromstring(draw_scatter_svg([Dot(name, 0.1, psnr, MIB) for name, psnr in scores.items()], ""))
    heights = {t.text: float(t.get("y", "")) for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert heights["high, 1 MiB"] < heights["middle, 1 MiB"] < heights["low, 1 MiB"]


def test_a_label_that_had_to_move_is_tied_to_its_dot() -> None:
    """The first stands beside its dot and needs no line."""
    root = ElementTree.fromstring(draw_scatter_svg([Dot(f"network {i}", 0.1, 33.0, MIB) for i in range(4)], ""))
    space = "{http://www.w3.org/2000/svg}"
    dots = list(root.iter(f"{space}circle"))
    colours = {dot.get("fill") for dot in dots}
    lines = [line for line in root.iter(f"{space}path") if line.get("stroke") in colours]
    assert [line.get("stroke") for line in lines] == [dot.get("fill") for dot in dots[1:]]
    assert all((line.get("d") or "").startswith(f"M{dots[0].get('cx')} {dots[0].get('cy')}L") for line in lines)


def test_little_memory_is_not_none() -> None:
    assert "small, 0.3 MiB" in draw_scatter_svg([Dot("small", 0.1, 33.0, 300_000)], "")


def test_the_png_shows_the_same() -> None:
    image = Image.open(io.BytesIO(draw_scatter_png(dots(), "title"))).convert("RGB")
    assert image.size == (1280, 840)
    root = ElementTree.fromstring(draw_scatter_svg(dots(), "title"))
    for dot in root.iter("{http://www.w3.org/2000/svg}circle"):
        pixel = image.getpixel((round(2 * float(dot.get("cx", ""))), round(2 * float(dot.get("cy", "")))))
        assert isinstance(pixel, tuple)
        red, green, blue = pixel
        assert max(red, green, blue) - min(red, green, blue) > 30, "paper, grid and ink are grey"


@pytest.mark.parametrize("given", [[], [Dot("x", 0.0, 0.0, 0)], [Dot("x", 1e-7, float("inf"), 1)]])
def test_any_networks_can_be_drawn(given: list[Dot]) -> None:
    ElementTree.fromstring(draw_scatter_svg(given, ""))
    draw_scatter_png(given, "")


def test_times_far_apart_are_drawn_by_their_logarithms() -> None:
    """Of a network that takes twenty times as long, all others would stand at the left edge."""

    def places(*seconds: float) -> list[float]:
        root = ElementTree.fromstring(draw_scatter_svg([Dot(str(s), s, 33.0, MIB) for s in seconds], ""))
        return [float(circle.get("cx", "nan")) for circle in root.iter("{http://www.w3.org/2000/svg}circle")]

    first, second, third = places(0.1, 1.0, 10.0)
    assert second - first == pytest.approx(third - second, abs=0.2)
    first, second, third = places(0.1, 0.5, 0.9)
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_labels_cover_no_dot_where_there_is_room() -> None:
    """Four networks as good as each other, close together: labels stand above and below."""
    root = ElementTree.fromstring(draw_scatter_svg([Dot(f"net {i}", 0.5 + i / 20, 33.0, MIB) for i in range(4)], ""))
    space = "{http://www.w3.org/2000/svg}"
    circles = [{key: float(dot.get(key, "")) for key in ("cx", "cy", "r")} for dot in root.iter(f"{space}circle")]
    labels = [text for text in root.iter(f"{space}text") if (text.text or "").startswith("net")]
    assert len(circles) == len(labels) == 4
    for label in labels:
        x, y, half = float(label.get("x", "")), float(label.get("y", "")), 6 * len(label.text or "") / 2
        assert not any(
            abs(x - dot["cx"]) < half + dot["r"] and y - 12 < dot["cy"] + dot["r"] and dot["cy"] - dot["r"] < y + 14
            for dot in circles
        )


def test_no_tie_runs_through_a_label() -> None:
    """Eleven networks whose dots overlap, as public ones do; each label is tied to where it is nearest to its dot."""
    rng = np.random.default_rng(3)
    given = [Dot(f"network {i}, {i}", 0.01 + 0.03 * rng.random(), 37 + 0.4 * rng.random(), 8 * MIB) for i in range(11)]
    root = ElementTree.fromstring(draw_scatter_svg(given, ""))
    space = "{http://www.w3.org/2000/svg}"
    labels = [t for t in root.iter(f"{space}text") if (t.text or "").startswith("network")]
    colours = {circle.get("fill") for circle in root.iter(f"{space}circle")}
    ties = [line.get("d") or "" for line in root.iter(f"{space}path") if line.get("stroke") in colours]
    assert len(labels) == 11
    assert len(ties) >= 5
    for tie in ties:
        start, end = (np.array([float(number) for number in part.split()]) for part in tie[1:].split("L"))
        for point in np.linspace(start, end, 200)[:-1]:
            for label in labels:
                x, y, half = float(label.get("x", "")), float(label.get("y", "")), 6 * len(label.text or "") / 2
                assert abs(point[0] - x) > half - 1 or abs(point[1] - y - 2) > 13, (tie, label.text)
