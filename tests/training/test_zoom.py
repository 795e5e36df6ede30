"""Photographs zoomed out of are like any others; of those zoomed into, only the teacher knows larger pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import new_teacher
from numpy.typing import NDArray

from memsr_compiler.images.files import crop_to_multiple, read_image, write_image
from memsr_compiler.images.resize import resize
from memsr_compiler.plain.info import Takes
from memsr_compiler.training.labels import Labeller
from memsr_compiler.training.patches import Patches, RawPhotograph, prepare_photographs
from memsr_compiler.training.zoom import Zoom, zoom_photographs


@pytest.fixture(params=[2, 3])
def scale(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def prepared(photographs: Path, tmp_path: Path, scale: int) -> list[RawPhotograph]:
    return prepare_photographs(photographs, tmp_path / "cache", scale=scale, patch=4)


def whole(photographs: Path, photograph: RawPhotograph, scale: int) -> NDArray[np.uint8]:
    return crop_to_multiple(read_image(photographs / photograph.name.split(" (")[0]), scale)


def test_out_of_a_photograph_is_one_made_smaller_by_two(
    photographs: Path, prepared: list[RawPhotograph], scale: int
) -> None:
    made = zoom_photographs(prepared, "out", scale=scale, patch=4)[len(prepared) :]
    assert len(made) == len(prepared)
    for photograph in made:
        expected = crop_to_multiple(resize(whole(photographs, photograph, scale), 1 / 2), scale)
        assert np.array_equal(photograph.open_high(), expected)
        assert np.array_equal(photograph.open_low(scale), resize(expected, 1 / scale))


def test_into_a_photograph_is_the_middle_of_its_own_pixels(
    photographs: Path, prepared: list[RawPhotograph], scale: int
) -> None:
    made = zoom_photographs(prepared, "in", scale=scale, patch=4)[len(prepared) :]
    assert len(made) == len(prepared)
    for photograph in made:
        pixels, low = whole(photographs, photograph, scale), photograph.open_low(scale)
        top, left = ((a - b) // 2 for a, b in zip(pixels.shape, low.shape[:2], strict=False))
        assert photograph.high is None and low.shape[0] == pixels.shape[0] // scale
        assert np.array_equal(low, pixels[top : top + low.shape[0], left : left + low.shape[1]])


@pytest.mark.parametrize("zoom", ["none", "out", "in", "both"])
def test_what_is_in_the_cache_is_taken(prepared: list[RawPhotograph], scale: int, zoom: Zoom) -> None:
    """Names tell what is what, so photographs are never taken for what was made of them."""
    first = zoom_photographs(prepared, zoom, scale=scale, patch=4)
    assert [p.name for p in first[: len(prepared)]] == [p.name for p in prepared]
    assert len({p.name for p in first}) == len({p.low for p in first}) == len(first)
    times = {p.low: p.low.stat().st_mtime_ns for p in first}
    assert zoom_photographs(prepared, zoom, scale=scale, patch=4) == first
    assert times == {p.low: p.low.stat().st_mtime_ns for p in first}
    damaged = first[-1].low
    content = bytearray(damaged.read_bytes())
    content[0] ^= 1
    damaged.write_bytes(content)
    if zoom != "none":
        again = zoom_photographs(prepared, zoom, scale=scale, patch=4)
        assert again == first and all(p.is_whole(scale) for p in again)


@pytest.mark.parametrize(("size", "held"), [((8, 9), False), ((14, 40), False), ((16, 17), True), ((17, 33), True)])
def test_what_holds_no_patch_is_left_out(tmp_path: Path, size: tuple[int, int], held: bool) -> None:
    (tmp_path / "high").mkdir()
    write_image(tmp_path / "high" / "one.png", np.zeros((*size, 3), np.uint8))
    photographs = prepare_photographs(tmp_path / "high", tmp_path / "cache", scale=2, patch=4)
    heard: list[str] = []
    made = zoom_photographs(photographs, "both", scale=2, patch=4, on_image=heard.append)
    assert heard == ["one.png"] * (held + 1)
    assert [p.name for p in made[1:]] == ["one.png (zoomed out)"] * held + ["one.png (zoomed in)"]
    assert all(min(p.open_low(2).shape[:2]) >= 4 for p in made)


@pytest.mark.parametrize("scale", [2], indirect=True)
def test_where_there_is_no_photograph_the_teacher_stands_for_it(prepared: list[RawPhotograph]) -> None:
    teacher = new_teacher()
    made = Labeller(teacher, Takes(2), "a" * 64, "both").label(zoom_photographs(prepared, "in", scale=2, patch=4))
    patches = Patches(made[len(prepared) :], scale=2, patch=4, seed=0, labels="both")
    alone = Patches(made[len(prepared) :], scale=2, patch=4, seed=0, labels="teacher")
    for i in range(8):
        low, wanted, name = patches[i]
        assert name.endswith("(zoomed in)") and low.shape == (3, 4, 4) and wanted.shape == (2, 3, 8, 8)
        assert torch.equal(wanted[0], wanted[1]) and torch.equal(wanted[:1], alone[i][1])
