"""The closed list of formats: what is on it is read, everything else is refused by its name, and nothing is written."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.rare_formats import BY_HAND
from PIL import Image, features

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images import formats
from memsr_compiler.images.files import read_image, write_image
from memsr_compiler.images.texts.kept import Texts

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.images import streams
from memsr_compiler.images.libvips import find_loader, is_installed, libvips, open_with_libvips
from memsr_compiler.images.streams import RowFile

Image.init()
READERS = (read_image, RowFile.open)
# A picture of sixteen colours, so that palettes have them all, in areas, so that lossy formats come near it.
PIXELS = np.kron(np.random.default_rng(0).permutation(48).reshape(4, 4, 3), np.ones((16, 16, 1))).astype(np.uint8) * 5
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
NAMES = {  # of those that Pillow writes and that are not read, where they are others than Pillow's
    "SUN": "Sun raster",
    "EPS": "(EPS)",
    "PDF": "(PDF)",
    "SPIDER": "SPIDER",
    "IM": "IM (IFUNC)",
    "PALM": "PALM (by its name)",
}
NO_WRITERS = ("BUFR", "GRIB", "HDF5", "WMF")  # until somebody brings some; made by hand
MODES = ("RGB", "P", "L", "1", "F")


def save(path: Path, kind: str) -> Image.Image:
    """Write the picture in the first mode that the format takes, and give it."""
    for mode in MODES:
        image = Image.fromarray(PIXELS).convert(mode)
        try:
            image.save(path, kind)
        except (OSError, ValueError, KeyError):
            continue
        return image
    raise AssertionError(f"{kind} takes no image")


@pytest.mark.filterwarnings("ignore:IM image format is deprecated")  # by Pillow, which still writes it
@pytest.mark.parametrize("kind", sorted(set(Image.SAVE) - set(NO_WRITERS)))
def test_whatever_pillow_writes_is_read_or_refused_by_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under any name: the content decides."""
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))  # where SPIDER enters any name it is saved under
    suffix = next((ending for ending, other in Image.EXTENSION.items() if other == kind), ".png")
    for name in {f"x{suffix}", "x.png" if kind != "PALM" else "x.palm"}:
        image = save(tmp_path / name, kind)
        for read in READERS:
            if kind in (*formats.BY_PILLOW, "MPO"):
                read(tmp_path / name)
                continue
            with pytest.raises(InvalidInput) as caught:
                read(tmp_path / name)
            assert str(caught.value).startswith(f"{tmp_path / name}: is "), caught.value
            assert NAMES.get(kind, kind) in str(caught.value) and "\n" not in str(caught.value)
        if kind in (*formats.BY_PILLOW, "MPO"):
            off = np.abs(read_image(tmp_path / name).astype(int) - np.asarray(image.convert("RGB")))
            assert off.max() == 0 or (kind in LOSSY and np.median(off) <= 4)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", BY_HAND)
def test_others_are_refused_by_their_names(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    words, content = BY_HAND[name]
    for called in {name, name if "by its name" in words else "photo.png", f"{name[:1]} [1]{name[1:]}"}:
        (tmp_path / called).write_bytes(content)
        with pytest.raises(InvalidInput) as caught:
            read(tmp_path / called)
        told = str(caught.value)
        assert told.startswith(f"{tmp_path / called}: is ") and words in told and "\n" not in told
        assert told.endswith(("save it as PNG or TIFF", "draw it as a PNG of the size that you mean"))


@pytest.mark.parametrize("name", BY_HAND)
def test_without_libvips_too(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, content = BY_HAND[name]
    (tmp_path / name).write_bytes(content)
    for module in ("opening", "decode"):
        monkeypatch.setattr(f"memsr_compiler.images.decoding.{module}.is_installed", lambda: False)
    with pytest.raises(InvalidInput) as caught:
        read_image(tmp_path / name)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", BY_HAND)
def test_no_decoder_sees_others(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Pillow's, of which many are not for hostile files, nor libvips's."""
    (tmp_path / name).write_bytes(BY_HAND[name][1])
    opened: list[str] = []
    for kind, (factory, accept) in list(Image.OPEN.items()):
        if kind not in formats.BY_PILLOW:
            spy = (lambda *_, kind=kind, **__: opened.append(kind), accept)
            monkeypatch.setitem(Image.OPEN, kind, spy)
            assert factory is not None
    with pytest.raises(InvalidInput):
        read_image(tmp_path / name)
    Texts.read(tmp_path / name)
    with pytest.raises(libvips().Error):
        open_with_libvips(tmp_path / name, strict=False)
    assert opened == []


@pytest.mark.parametrize(
    ("name", "words"), [("a.csv", "CSV"), ("a.mat", "MATRIX"), ("a.v", "VIPS"), ("a.svgz", "(SVG)")]
)
def test_what_libvips_alone_knows_is_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    if name == "a.v":
        libvips().Image.black(16, 16).write_to_file(str(tmp_path / name))
    elif name == "a.svgz":
        import gzip

        (tmp_path / name).write_bytes(gzip.compress(BY_HAND["a.svg"][1]))
    else:
        (tmp_path / name).write_text("3 2\n1 2 3\n4 5 6\n")
    for read in READERS:
        with pytest.raises(InvalidInput, match=rf"{name}: ") as caught:
            read(tmp_path / name)
        assert words in str(caught.value)


def test_libvips_has_no_reader_that_is_not_judged() -> None:
    """A new one of its, that knows PNG or TIFF before others, would be passed by: it is to be looked at."""
    assert is_installed()
    known = {
        "csv",
        "matrix",
        "raw",
        "vips",
        "svg",
        "gif",
        "ppm",
        "rad",
        "pdf",
        "magick",
        "openslide",
        "openexr",
        "fits",
    }
    known |= {"nifti", "analyze", "mat", "dcraw"} | {name.removesuffix("load") for name in formats.BY_LIBVIPS}
    assert {name.removesuffix("load") for name in _readers_of_libvips()} <= known


def _readers_of_libvips() -> set[str]:
    vips, found = libvips(), set()

    def look(kind: int, *_: object) -> object:
        found.add(vips.nickname_find(kind))
        vips.type_map(kind, look)
        return vips.ffi.NULL

    vips.type_map(vips.type_from_name("VipsForeignLoad"), look)
    return {name for name in found if name.endswith("load")}


def test_images_are_opened_in_one_place() -> None:
    """Where nobody names the formats, Pillow and libvips try all."""
    sources = Path(formats.__file__).parents[1].rglob("*.py")
    found = {path.name for path in sources if re.search(r"Image\.(open|new_from_(file|source))\(", path.read_text())}
    assert found == {"formats.py", "libvips.py"}


# -- what begins nearly as something else


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 10])
def test_a_tga_is_no_icon_and_no_paintbrush(tmp_path: Path, kind: int, length: int) -> None:
    """Its first bytes are a length, whether it has a palette, and its kind: 0, 0 and 2, as those of a cursor."""
    levels = np.arange(48 if kind == 2 else 16, dtype=np.uint8)
    palette = bytes(range(48)) if kind == 1 else b""
    mapped = (1, 1, 0, 16, 24) if kind == 1 else (0, kind, 0, 0, 0)
    head = struct.pack("<BBBHHBHHHHBB", length, *mapped, 0, 0, 4, 4, 24 if kind == 2 else 8, 0x20)
    (tmp_path / "x.tga").write_bytes(head + bytes(length) + palette + levels.tobytes())
    found = read_image(tmp_path / "x.tga")
    expected = levels.reshape(4, 4, -1) if kind != 1 else np.frombuffer(palette, np.uint8).reshape(4, 4, 3)
    assert np.array_equal(found, np.broadcast_to(expected[..., ::-1], (4, 4, 3)))


@pytest.mark.parametrize("junk", [bytes([0, 0, 0, 9, 24]), bytes([0, 32, 41, 220, 0]), bytes([7, 0, 255, 255, 16])])
def test_a_tga_without_a_palette_may_tell_of_one(tmp_path: Path, junk: bytes) -> None:
    """The header has room for it all the same, and some programs leave there what was there."""
    levels = np.arange(48, dtype=np.uint8)
    head = b"\0\0\2" + junk + struct.pack("<4H2B", 0, 0, 4, 4, 24, 0x20)
    (tmp_path / "x.tga").write_bytes(head + levels.tobytes())
    assert np.array_equal(read_image(tmp_path / "x.tga"), levels.reshape(4, 4, 3)[..., ::-1])


@pytest.mark.parametrize("bits", [1, 8, 24, 32])
def test_large_icons_and_cursors_are_no_tga(tmp_path: Path, bits: int) -> None:
    """Where a TGA tells its bits a pixel they tell how long they are: one of 65,536 bytes would have one bit."""
    for kind in (1, 2):
        entry = struct.pack("<4B2H2I", 0, 0, 0, 0, 4, 4, bits << 16, 22)
        (tmp_path / "x").write_bytes(struct.pack("<3H", 0, kind, 1) + entry + bytes(100_000))
        with pytest.raises(InvalidInput, match=r"is in the format (ICO|CUR)"):
            read_image(tmp_path / "x")


def test_texts_that_only_begin_so_are_no_images_as_before(tmp_path: Path) -> None:
    for content in (b"/* C */\nint main;\n", b"#define LIMIT 9\n", b"SIMPLE words", b"", b"BM", b"P", b"<html></html>"):
        (tmp_path / "x").write_bytes(content)
        for read in READERS:
            with pytest.raises(InvalidInput, match=r"x: not a readable image \(.*\)\. Give PNG, JPEG, TIFF"):
                read(tmp_path / "x")


# -- what is read, and by whom


def test_jpegs_with_a_map_for_bright_displays_are_read(tmp_path: Path) -> None:
    """As phones write them; libvips has a reader of its own for them, which makes the same of their pixels."""
    if not hasattr(libvips().Image, "uhdrsave") or "uhdrload" not in _readers_of_libvips():
        pytest.skip("this libvips lacks the format")
    bright = libvips().Image.new_from_array(PIXELS).copy(interpretation="srgb").colourspace("scrgb") * 1.5
    bright.uhdrsave(str(tmp_path / "x.jpg"))
    assert find_loader(tmp_path / "x.jpg") == "uhdrload"
    made = np.concatenate(list(RowFile.open(tmp_path / "x.jpg").bands(8)))
    assert np.array_equal(made, read_image(tmp_path / "x.jpg"))


def test_grey_pfm_is_read_upright(tmp_path: Path) -> None:
    levels = np.linspace(0, 1, 12, dtype="<f4").reshape(3, 4)
    (tmp_path / "x.pfm").write_bytes(b"Pf\n4 3\n-1.0\n" + levels[::-1].tobytes())
    assert np.array_equal(read_image(tmp_path / "x.pfm", keep_grey=True)[..., 0], np.rint(levels * 255))


# -- what is written


@pytest.mark.parametrize("suffix", formats.WRITTEN)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    if suffix == ".webp" and not features.check("webp"):
        pytest.skip("this Pillow lacks WebP")
    write_image(tmp_path / f"x{suffix}", PIXELS)
    off = np.abs(read_image(tmp_path / f"x{suffix}").astype(int) - PIXELS)
    assert off.max() == 0 or (formats.WRITTEN[suffix] in LOSSY and np.median(off) <= 4)
    assert formats.WRITTEN[suffix] in formats.BY_PILLOW


@pytest.mark.parametrize("suffix", sorted({*Image.EXTENSION, ".unknown", ""} - set(formats.WRITTEN)))
def test_others_are_not_written(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InvalidInput, match=rf"x{suffix}: files of this kind are not written; end it in \.png, .*\.tga"):
        write_image(tmp_path / f"x{suffix}", PIXELS)
    assert not list(tmp_path.iterdir())


def test_what_is_enlarged_is_written_in_formats_of_the_list() -> None:
    assert set(streams.WRITTEN) <= set(formats.WRITTEN)
