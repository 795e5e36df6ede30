"""Both reports in a real browser: they open without a complaint, their pictures are there, nothing sticks out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.chromium import Browser, browser, needs_chromium
from helpers.pages import Hostile, converted, page
from helpers.students import picture, student, student_page

from memsr_compiler.teachers.families.edsr import EDSR

pytestmark = needs_chromium
LONG = "a/very/long/path/without/any/place/to/break/" + "x" * 200 + ".pt"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def small() -> str:
    return page(*converted(EDSR(scale=2, blocks=2, channels=8, mean=(0.4, 0.4, 0.4), rgb_range=1)))


def long() -> str:
    """EDSR-baseline, narrower: the page depends on its ops, not on its channels."""
    return page(*converted(EDSR(scale=2, blocks=16, channels=8)))


def hostile() -> str:
    return page(*converted(Hostile()), name=LONG)


def deep() -> str:
    return student_page(student((3, *([64, 48, 56, 24, 40] * 14), 12)), name=LONG)


@pytest.mark.parametrize("made", [small, long, hostile, student_page, deep])
def test_it_opens_in_a_browser(made: object, tab: Browser, tmp_path: Path) -> None:
    assert callable(made)
    torch.manual_seed(0)
    text = made()
    path = tmp_path / "report.html"
    path.write_text(text, "utf-8")
    tab.errors.clear()
    for width in (400, 1400):
        brightness = []
        for dark in (False, True):
            tab.open(path, width, dark=dark)
            tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0, width
            assert tab.run(STICKING_OUT) == "", width
            assert tab.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            assert tab.run("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().width > 0)")
            pixels = np.asarray(tab.picture())
            assert pixels.shape[1] == width
            assert pixels.std() > 5
            brightness.append(np.median(pixels))
        assert brightness[0] > 200
        assert brightness[1] < 60
    assert tab.run("document.images.length") == text.count("<img ")
    assert tab.errors == []


# Elements that begin or end outside the window, those in a box that scrolls excepted.
STICKING_OUT = """
[...document.querySelectorAll('main *')]
  .filter(e => !e.closest('.scroll svg, .scroll table'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5)
  .map(e => e.outerHTML.slice(0, 80)).join('\\n')
"""


def test_a_picture_is_enlarged_without_new_colours(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(student_page(), "utf-8")
    tab.open(path, 1400)
    tab.run("document.querySelector('img.crop').scrollIntoView()")
    left, top = (round(tab.run(f"document.querySelector('img.crop').getBoundingClientRect().{s}")) for s in ("x", "y"))
    shown = np.asarray(tab.picture())[top + 2 : top + 166, left + 2 : left + 166]
    colours = {tuple(pixel) for pixel in picture().crops[0][1].reshape(-1, 3)}
    assert {tuple(pixel) for pixel in shown.reshape(-1, 3)} <= colours
    assert shown.std() > 5


def test_what_a_page_does_wrong_is_noticed(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text("<title>wrong</title><main><script>console.error('wrong')</script><p style='width:2000px'>x</p>")
    tab.errors.clear()
    tab.open(path, 400)
    assert any("wrong" in error for error in tab.errors)
    assert tab.run(STICKING_OUT).startswith("<p style")
    tab.errors.clear()
