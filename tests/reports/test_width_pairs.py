"""Widths of a student in front of the teacher's."""

from __future__ import annotations

from xml.etree import ElementTree

from memsr_compiler.reports.width_pairs import Pair, draw_pairs


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
