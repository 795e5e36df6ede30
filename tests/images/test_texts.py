"""Texts of who made an image, when and with what, come along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngImageFile

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.images.streams import RowFile
from memsr_compiler.images.texts import NAMES, Texts

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
TEXTS = {
    270: "A harbour (at dusk), seen from the pier (2)",
    271: "Maker",
    272: "M",
    305: "Program 1.0",
    306: "2020:01:02 03:04:05",
    315: "Somebody",
    33432: "(c) Somebody (all rights reserved)",
}


def write_tiff(path: Path, texts: dict[int, str], *, mode: str = "RGB") -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, text in texts.items():
        tags[number] = text.encode()
        tags.tagtype[number] = 2
    Image.fromarray(PIXELS).convert(mode).save(path, tiffinfo=tags)


def save(path: Path, target: Path) -> RowFile:
    image = RowFile.open(path)
    image.save(target, image.bands(5), 1)
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("mode", ["RGB", "P"])  # which libvips decodes, and Pillow
def test_texts_of_a_tiff_are_kept(tmp_path: Path, suffix: str, mode: str) -> None:
    write_tiff(tmp_path / "in.tif", TEXTS, mode=mode)
    image = save(tmp_path / "in.tif", tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert {number: written.getexif().get(number) for number in NAMES} == {**dict.fromkeys(NAMES), **TEXTS}
        assert written.size == (10, 12)
        if suffix in (".png", ".tif"):
            assert np.array_equal(np.asarray(written.convert("RGB")), np.concatenate([*image.bands(5)]))
    assert image.warnings(tmp_path / f"out{suffix}") == []


def test_texts_of_exif_are_kept_in_tiff_and_the_rest_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[315] = "Somebody"
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    assert save(tmp_path / "in.jpg", tmp_path / "out.tif").warnings(tmp_path / "out.tif") == []
    assert Texts.read(tmp_path / "out.tif").by_tag == {315: b"Somebody"}
    exif.get_ifd(34665)[33434] = 0.5
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    (told,) = save(tmp_path / "in.jpg", tmp_path / "out.tif").warnings(tmp_path / "out.tif")
    assert told == f"{tmp_path / 'in.jpg'}: its EXIF is not kept in .tif; write PNG to keep it"


def test_letters_that_exif_has_not_are_told(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in.tif", {315: "Björn", 33432: "Somebody"})
    image = save(tmp_path / "in.tif", tmp_path / "out.tif")
    assert Texts.read(tmp_path / "out.tif").by_tag == {315: "Björn".encode(), 33432: b"Somebody"}
    assert image.warnings(tmp_path / "out.tif") == []
    (told,) = image.warnings(tmp_path / "out.png")
    assert "in its Artist other letters are replaced; write TIFF to keep them" in told


def test_damaged_tags_are_no_texts(tmp_path: Path) -> None:
    (tmp_path / "in.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")
    assert Texts.read(tmp_path / "in.tif").by_tag == {}


def test_no_pixel_of_a_png_is_decoded_for_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(path)
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("the image was decoded"))
    assert Texts.read(path) == Texts()
