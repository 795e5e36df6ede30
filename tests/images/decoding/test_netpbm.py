"""Files of several images of which one is read, and levels that no image can have."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.decoding.netpbm import count_images
from memsr_compiler.images.files import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.uint8)
HEADS = {
    "x.pbm": b"P4\n# a comment\n10 6\n" + bytes(12),
    "x.pgm": b"P5 10 6 255\n" + bytes(60),
    "y.pgm": b"P5 10 6 1000\n" + bytes(120),
    "x.ppm": b"P6 10 6 # white:\n255\n" + bytes(180),
}


@pytest.mark.parametrize("name", HEADS)
def test_images_behind_the_first_are_told(tmp_path: Path, name: str) -> None:
    notes: list[str] = []
    (tmp_path / name).write_bytes(HEADS[name])
    read_image(tmp_path / name, warn=notes.append)
    assert notes == []
    (tmp_path / name).write_bytes(HEADS[name] * 3)
    assert read_image(tmp_path / name, warn=notes.append).shape == (6, 10, 3)
    assert notes == [f"{tmp_path / name}: has 3 pages or frames; the first is read"]


def test_upscale_tells_of_images_behind_the_first(tmp_path: Path) -> None:
    pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    from memsr_compiler.images import streams

    (tmp_path / "x.ppm").write_bytes(HEADS["x.ppm"] * 2)
    told = streams.RowFile.open(tmp_path / "x.ppm").warnings(tmp_path / "out.png")
    assert told == [f"{tmp_path / 'x.ppm'}: has 2 pages or frames; the first is enlarged"]


@pytest.mark.parametrize(
    ("content", "level", "white"),
    [
        (b"P5 2 2 100\n" + bytes([0, 50, 100, 200]), "200", "100"),
        (b"P5 2 2 1000\n" + np.array([0, 500, 1000, 2000], ">u2").tobytes(), "2,000", "1,000"),
        (b"P6 1 1 15\n" + bytes([0, 15, 16]), "16", "15"),
        (b"P2 2 2 100\n0 50 100 200\n", "200", "its maxval"),
        (b"P3 1 1 100\n0 50 101\n", "101", "its maxval"),
    ],
)
def test_levels_above_white_are_damage(tmp_path: Path, content: bytes, level: str, white: str) -> None:
    (tmp_path / "x.pnm").write_bytes(content)
    with pytest.raises(
        InvalidInput, match=rf"x\.pnm: is damaged \(it has a level of {level}, .*{white}.*\); get it anew"
    ):
        read_image(tmp_path / "x.pnm")


def test_levels_up_to_white_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 3 1 100\n" + bytes([0, 50, 100]) + b"P5 1 1 100\n\xff")
    assert read_image(tmp_path / "x.pgm", keep_grey=True, warn=lambda _: None).ravel().tolist() == [0, 128, 255]


def test_a_long_header_takes_no_memory(tmp_path: Path) -> None:
    """A repeated group of a pattern takes hundreds of bytes for each time: five million spaces took a gigabyte."""
    (tmp_path / "a.pgm").write_bytes(b"P5" + b" " * 100_000 + b"1 1 255\n\0P5" + b"#\n" * 100_000 + b"1 1 255\n\0")
    tracemalloc.start()
    try:
        assert count_images(tmp_path / "a.pgm") == 1
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
