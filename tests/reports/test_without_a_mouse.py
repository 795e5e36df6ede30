"""The words of tooltips can be read without them: in a table under the drawing, or beside what they belong to."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers.pages import Hostile, converted, page
from helpers.students import student, student_page

from memsr_compiler.reports.matrix import draw_matrix
from memsr_compiler.reports.scatter import Dot, draw_scatter_svg
from memsr_compiler.reports.tradeoff import Point, draw_tradeoff
from memsr_compiler.teachers.families.edsr import EDSR

SVG = "{http://www.w3.org/2000/svg}"


def tokens(markup: str) -> set[str]:
    """Words and numbers of a piece of HTML, its tags left out."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", markup))
    return {token.strip(".,;:()") for token in text.split()} - {""}


def drawings(text: str) -> Iterator[tuple[list[str], str, list[str]]]:
    """(tooltips, head of the table, its rows) of every drawing of a page."""
    for part in text.split('<div class="drawing"')[1:]:
        picture, _, rest = part.partition('<details class="numbers">')
        table = rest.partition("</details>")[0]
        head, _, body = table.partition("</thead>")
        yield re.findall(r"<title>(.*?)</title>", picture, re.DOTALL), head, body.split("</tr>")


def small() -> str:
    return page(*converted(EDSR(scale=2, blocks=2, channels=8, mean=(0.4, 0.4, 0.4), rgb_range=1)))


def hostile() -> str:
    return page(*converted(Hostile()))


def deep() -> str:
    return student_page(student((3, *([64, 48, 56, 24, 40] * 14), 12)), pictures=0)


@pytest.mark.parametrize("write", [small, hostile, student_page, deep])
def test_every_tooltip_of_a_page_is_a_row_of_the_table_under_it(write: object) -> None:
    assert callable(write)
    torch.manual_seed(0)
    found = list(drawings(write()))
    assert len(found) >= 3
    for tooltips, head, rows in found:
        assert tooltips
        lines = [tokens(row) for row in rows]
        for tooltip in set(tooltips):
            assert any(tokens(tooltip) <= line | tokens(head) for line in lines), tooltip


def test_every_cell_of_a_small_matrix_holds_its_number() -> None:
    values = np.random.default_rng(0).random((20, 7))
    root = ElementTree.fromstring(draw_matrix(values.tolist(), rows="a", columns="b", label="Linear CKA"))
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {f"{value:.4f}" for value in values.flat} <= words


def test_a_large_matrix_says_where_its_numbers_are() -> None:
    root = ElementTree.fromstring(draw_matrix([[0.5] * 21], rows="a", columns="b", label="Linear CKA"))
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert "0.5000" not in words
    assert "The number of every cell: memsrc similarity --csv FILE" in words


def test_a_trade_off_has_its_numbers_under_it() -> None:
    students = [Point("width 16", 2e9, 2**24, 33.125), Point("width <b>", 4e9, 2**25, 33.5)]
    text = draw_tradeoff(students, [Point("teacher", 9.5e9, 2**27, 34.0)], [("bicubic", 30.5)], label="")
    root = ElementTree.fromstring(text)
    rows = [[cell.text for cell in line] for line in root.iter(f"{SVG}text") if line.findall(f"{SVG}tspan")]
    assert rows == [
        ["PSNR, dB", "multiply-adds, 10⁹", "feature maps, MiB"],
        ["width 16", "33.12", "2.00", "16.0"],
        ["width <b>", "33.50", "4.00", "32.0"],
        ["teacher", "34.00", "9.50", "128.0"],
        ["bicubic", "30.50"],
    ]
    foot = max(float(line.get("y", "")) for line in root.iter(f"{SVG}text"))
    assert foot < float(root.get("height", "")) - 4


def test_dots_of_the_scatter_are_labelled_with_what_their_tooltips_say() -> None:
    root = ElementTree.fromstring(
        draw_scatter_svg([Dot("net <1>", 0.4, 34.2, 5 << 20), Dot("other", 1.25, 33.0, None)], "")
    )
    words = [text.text for text in root.iter(f"{SVG}text")]
    for circle in root.iter(f"{SVG}circle"):
        name, measured = (circle[0].text or "").split(": ")
        assert words[words.index(name) + 1] == measured
