"""Boxes of ISO files: what an AVIF or HEIF says of its colours, by hand-made files and one that Pillow wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from memsr_compiler.images.decoding.boxes import find_box, find_boxes, read_colour_numbers
from memsr_compiler.images.encoding.png_colours import read_colour_chunks

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def nclx(primaries: int, transfer: int) -> bytes:
    return box(b"colr", b"nclx" + struct.pack(">3HB", primaries, transfer, 9, 0x80))


def heif(properties: list[bytes], owners: dict[int, list[int]], *, shown: int = 1, wide: bool = False) -> bytes:
    """Boxes of an image file: properties, and of each picture which are its own, numbered from 1."""
    number, each, bit = (">I", ">H", 0x8000) if wide else (">H", ">B", 0x80)
    owned = struct.pack(">B3sI", wide, bytes([0, 0, wide]), len(owners))
    for owner, places in owners.items():
        owned += struct.pack(number, owner) + bytes([len(places)])
        owned += b"".join(struct.pack(each, place | bit * (place % 2)) for place in places)
    held = box(b"iprp", box(b"ipco", b"".join(properties)) + box(b"ipma", owned))
    picture = box(b"pitm", struct.pack(">I", wide << 24) + struct.pack(number, shown))
    return box(b"ftyp", b"avif" + bytes(4)) + box(b"meta", bytes(4) + picture + held)


HDR, SRGB, SIZE, ICC = nclx(9, 16), nclx(1, 13), box(b"ispe", bytes(12)), box(b"colr", b"prof" + bytes(200))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("properties", "owners", "expected"),
    [
        ([SIZE, HDR], {1: [1, 2]}, (9, 16)),
        ([SIZE, nclx(12, 13)], {1: [2, 1]}, (12, 13)),
        ([SIZE, HDR, SRGB], {2: [1, 2], 1: [1, 3]}, None),  # of another picture
        ([SIZE, SRGB, HDR], {2: [1, 2], 1: [1, 3]}, (9, 16)),
        ([SIZE, HDR, ICC], {1: [1, 2, 3]}, None),
        ([SIZE, nclx(2, 2)], {1: [1, 2]}, None),
        ([SIZE, nclx(1, 2)], {1: [1, 2]}, None),
        ([SIZE, nclx(300, 16)], {1: [1, 2]}, None),
        ([SIZE, HDR], {1: [1]}, None),
        ([SIZE, HDR], {1: [1, 7, 0]}, None),
        ([HDR], {}, None),
    ],
)
def test_colours_of_the_picture_that_is_shown(
    tmp_path: Path,
    properties: list[bytes],
    owners: dict[int, list[int]],
    expected: tuple[int, int] | None,
    wide: bool,
) -> None:
    (tmp_path / "a.avif").write_bytes(heif(properties, owners, wide=wide))
    assert read_colour_numbers(tmp_path / "a.avif") == expected
    chunks = () if expected is None else ((b"cICP", bytes([*expected, 0, 1])),)
    assert read_colour_chunks(tmp_path / "a.avif") == chunks


def add_property(path: Path, new: bytes, *, required: bool) -> None:
    """Add a property of its picture to an AVIF as Pillow writes it: its pixels, behind the boxes, move."""
    content = path.read_bytes()
    everything = (0, len(content))

    def inside(*names: bytes) -> bytes:
        span = find_box(content, everything, *names)
        assert span is not None
        return content[slice(*span)]

    all_of_them = inside(b"meta", b"iprp", b"ipco")
    owned, places = bytearray(inside(b"meta", b"iprp", b"ipma")), bytearray(inside(b"meta", b"iloc"))
    number = len(list(find_boxes(all_of_them, (0, len(all_of_them))))) + 1
    owned.insert(11 + owned[10], number | 0x80 * required)  # behind those of the first picture
    owned[10] += 1
    at = 8
    for _ in range(struct.unpack_from(">H", places, 6)[0]):
        assert struct.unpack_from(">H", places, at + 4) == (1,), "each picture is in one piece"
        struct.pack_into(">I", places, at + 6, struct.unpack_from(">I", places, at + 6)[0] + len(new) + 1)
        at += 14
    changed = {b"iloc": bytes(places), b"iprp": box(b"ipco", all_of_them + new) + box(b"ipma", bytes(owned))}
    meta = inside(b"meta")
    parts = [box(name, changed.get(name, meta[slice(*span)])) for name, span in find_boxes(meta, (0, len(meta)))]
    path.write_bytes(
        b"".join(
            box(name, bytes(4) + b"".join(parts) if name == b"meta" else content[slice(*span)])
            for name, span in find_boxes(content, everything)
        )
    )


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")
def test_an_avif_that_shows_a_part_is_that_part(tmp_path: Path) -> None:
    """Pillow gives all pixels, libheif those that are shown."""
    pytest.importorskip("pyvips", reason="needs the extra [cpu]")
    from memsr_compiler.images.files import read_image
    from memsr_compiler.images.streams import RowFile

    path = tmp_path / "in.avif"
    Image.fromarray(PIXELS).save(path, quality=100, subsampling="4:4:4")
    every = read_image(path)
    assert every.shape == (12, 10, 3)
    add_property(path, box(b"clap", struct.pack(">8I", 6, 1, 8, 1, 0, 1, 0, 1)), required=True)  # in the middle
    image = RowFile.open(path)
    pixels = np.concatenate([*image.bands(5)])
    assert (image.width, image.height) == (6, 8) and np.array_equal(read_image(path), pixels)
    assert np.abs(pixels.astype(int) - every[2:10, 2:8]).max() <= 2


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")
def test_pixels_of_an_avif_that_are_not_square_are_told(tmp_path: Path) -> None:
    pytest.importorskip("pyvips", reason="needs the extra [cpu]")
    from memsr_compiler.images.streams import RowFile

    Image.fromarray(PIXELS).save(tmp_path / "in.avif")
    assert RowFile.open(tmp_path / "in.avif").notes == ()
    add_property(tmp_path / "in.avif", box(b"pasp", struct.pack(">2I", 4, 3)), required=False)
    (told,) = RowFile.open(tmp_path / "in.avif").notes
    assert told.startswith("has pixels of 4:3, not square")


def test_any_bytes_say_something_or_nothing(tmp_path: Path) -> None:
    path, random = tmp_path / "a.avif", np.random.default_rng(0)
    for wide in (False, True):
        content = heif([SIZE, HDR], {2: [1], 1: [1, 2]}, wide=wide)
        for length in range(len(content)):
            path.write_bytes(content[:length])
            assert read_colour_numbers(path) in (None, (9, 16))
        for _ in range(300):
            bad = bytearray(content)
            for at in random.integers(8, len(content), 2):
                bad[at] = random.integers(0, 3) if random.random() < 0.5 else random.integers(0, 256)
            path.write_bytes(bad)
            read_colour_numbers(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")
def test_an_avif_keeps_its_colours_in_png(tmp_path: Path) -> None:
    pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    from memsr_compiler.images.streams import RowFile

    path = tmp_path / "in.avif"
    Image.fromarray(PIXELS).save(path)
    usual = b"nclx" + struct.pack(">2H", 1, 13)
    image = RowFile.open(path)
    assert image.chunks == () and image.warnings(tmp_path / "out.jpg") == []
    path.write_bytes(path.read_bytes().replace(usual, b"nclx" + struct.pack(">2H", 9, 16)))
    image = RowFile.open(path)
    assert image.warnings(tmp_path / "out.png") == []
    assert image.warnings(tmp_path / "out.jpg") == [
        f"{path}: its colour space 9-16-0-1 (cICP) is not kept in .jpg; write PNG to keep it"
    ]
    image.save(tmp_path / "out.png", (band.repeat(2, axis=0).repeat(2, axis=1) for band in image.bands(5)), 2)
    assert read_colour_chunks(tmp_path / "out.png") == ((b"cICP", bytes([9, 16, 0, 1])),)
