"""PSNR against cost: a picture that stands alone, drawn whatever the numbers are."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from memsr_compiler.reports.tradeoff import Point, draw_tradeoff


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
