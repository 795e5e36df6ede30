"""Both reports in a real browser: they open without a complaint, their pictures are there, nothing sticks out."""

from __future__ import annotations

import json
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
  .filter(e => !e.closest('.scroll > *'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5)
  .map(e => e.outerHTML.slice(0, 80)).join('\\n')
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of a conversion and one of a student of many layers."""
    torch.manual_seed(0)
    texts = {"conversion": small(), "student": student_page(student((3, *([64, 24] * 20), 12)))}
    folder = tmp_path_factory.mktemp("reports")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in texts}


DRAWINGS = """
[...document.querySelectorAll('.drawing')].filter(d => d.checkVisibility()).map(d => {
  const box = d.querySelector('.scroll'), svg = d.querySelector('svg[role=img]');
  return {
    hidden: box.scrollWidth - box.clientWidth, bar: box.offsetHeight - box.clientHeight - 2,
    hint: d.querySelector('.hint').getBoundingClientRect().height, says: d.querySelector('.hint').textContent,
    shrunk: svg.getAttribute('width') - svg.getBoundingClientRect().width,
    reached: box.tabIndex == 0 && box.getAttribute('role') == 'region' && box.getAttribute('aria-label') != '',
    letters: Math.min(...[...d.querySelectorAll('svg text')].map(t => parseFloat(getComputedStyle(t).fontSize))),
  }
})
"""


@pytest.mark.parametrize("name", ["conversion", "student"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_drawing_wider_than_the_window_keeps_its_size_and_shows_that_it_scrolls(
    name: str, dark: bool, reports: dict[str, Path], tab: Browser
) -> None:
    tab.open(reports[name], 400, dark=dark)
    drawings = json.loads(tab.run(f"JSON.stringify({DRAWINGS})"))
    assert len(drawings) >= 2
    for drawing in drawings:
        assert drawing["hidden"] > 0
        assert drawing["bar"] == 12  # of the style sheet; a bar of the system may hide
        assert drawing["hint"] > 15
        assert "scrolls sideways" in drawing["says"]
        assert drawing["shrunk"] == 0
        assert drawing["reached"]
        assert drawing["letters"] >= 11
    assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_drawing_that_fits_does_not_say_that_it_scrolls(reports: dict[str, Path], tab: Browser) -> None:
    tab.open(reports["conversion"], 1400)
    for drawing in json.loads(tab.run(f"JSON.stringify({DRAWINGS})")):
        assert drawing["hidden"] == drawing["bar"] == drawing["hint"] == 0


def test_the_side_where_there_is_more_lies_in_a_shadow(reports: dict[str, Path], tab: Browser) -> None:
    for dark in (False, True):
        tab.open(reports["conversion"], 400, dark=dark)
        tab.run("drawn = document.querySelector('.pass .scroll'); drawn.scrollIntoView()")

        def edges(to: str) -> tuple[float, float]:
            """Brightness at both ends of the box, just under its upper edge."""
            tab.run(f"drawn.scrollLeft = {to}")
            left, top, right = (round(tab.run(f"drawn.getBoundingClientRect().{s}")) for s in ("left", "top", "right"))
            row = np.asarray(tab.picture().convert("L"), dtype=float)[top + 4]
            return row[left + 2 : left + 6].mean(), row[right - 6 : right - 2].mean()

        start, middle, end = edges("0"), edges("100"), edges("drawn.scrollWidth")
        assert start[0] > start[1] + 3
        assert end[1] > end[0] + 3
        assert middle == pytest.approx((end[0], start[1]), abs=2)


def test_the_keyboard_scrolls_a_drawing_and_its_numbers_stay(reports: dict[str, Path], tab: Browser) -> None:
    tab.open(reports["student"], 400)
    tab.run("box = document.querySelector('.drawing .scroll'); box.scrollIntoView(); box.focus()")
    assert tab.run("document.activeElement == box")
    for _ in range(5):
        tab.press("ArrowRight", 39)
    tab.wait("box.scrollLeft >= 100")
    lefts = "[box.querySelector('.axis').getBoundingClientRect().left - box.getBoundingClientRect().left - 1"
    assert json.loads(tab.run(f"JSON.stringify({lefts}, box.scrollLeft > 0])")) == [0, True]
    assert tab.run("box.querySelector('.axis').textContent.length") > 0


def test_the_keyboard_unfolds_the_numbers_of_a_drawing(reports: dict[str, Path], tab: Browser) -> None:
    tab.open(reports["student"], 400)
    tab.run("fold = document.querySelector('.numbers'); fold.querySelector('summary').focus()")
    assert not tab.run("fold.querySelector('table').checkVisibility()")
    tab.press("Enter", 13, "\r")
    assert tab.run("fold.open && fold.querySelector('table').checkVisibility()")
    assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0


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
