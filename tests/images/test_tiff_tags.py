"""Tags of a TIFF, read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.raw_images import write_tiff
from PIL import Image

from memsr_compiler.images.tiff_tags import EXTRA, PLANAR, SAMPLES, read_numbers


@pytest.mark.parametrize("big_endian", [False, True])
def test_what_is_inside_an_entry_and_what_is_elsewhere(big_endian: bool, tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 6), np.uint8)
    write_tiff(tmp_path / "a.tif", pixels, photometric=2, extra=[2, 0, 0], planes=True, big_endian=big_endian)
    assert [read_numbers(tmp_path / "a.tif", tag) for tag in (SAMPLES, PLANAR, EXTRA)] == [(6,), (2,), (2, 0, 0)]
    assert read_numbers(tmp_path / "a.tif", 274) == ()


def test_bigtiff(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4, 4), np.uint8)).save(tmp_path / "a.tif", big_tiff=True)
    assert (tmp_path / "a.tif").read_bytes()[2] == 43
    assert [read_numbers(tmp_path / "a.tif", tag) for tag in (SAMPLES, EXTRA)] == [(4,), (2,)]
