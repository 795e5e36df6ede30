"""Texts of who made an image, when and with what, come along."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.raw_images import GREY, write_png
from PIL import Image, IptcImagePlugin, TiffImagePlugin, features
from PIL.PngImagePlugin import PngImageFile, PngInfo

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.images import streams
from memsr_compiler.images.streams import RowFile
from memsr_compiler.images.texts import other_texts, png_texts
from memsr_compiler.images.texts.kept import NAMES, Texts
from memsr_compiler.images.texts.other_parts import find_other_parts
from memsr_compiler.images.texts.other_texts import find_other_texts
from memsr_compiler.images.texts.png_texts import find_texts
from memsr_compiler.images.tiff.entries import is_whole, read_entries

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
TEXTS = {
    269: "A document",
    270: "A harbour (at dusk), seen from the pier (2)",
    271: "Maker",
    272: "M",
    305: "Program 1.0",
    306: "2020:01:02 03:04:05",
    315: "Somebody",
    316: "a machine",
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


def test_texts_of_exif_are_kept_in_tiff(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[315] = "Somebody"
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    assert save(tmp_path / "in.jpg", tmp_path / "out.tif").warnings(tmp_path / "out.tif") == []
    assert Texts.read(tmp_path / "out.tif").by_tag == {315: b"Somebody"}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
@pytest.mark.parametrize("name", ["in.tif", "in.jpg"])
@pytest.mark.parametrize("artist", ["Bj\u00f6rn \u4e2d".encode(), b"Bj\xf6rn"])
def test_letters_stay_as_they_are(tmp_path: Path, name: str, suffix: str, artist: bytes) -> None:
    """They were replaced where a TIFF had them, and told to be where a JPEG had."""
    exif = Image.Exif()
    exif[315], exif[33432] = artist, "Somebody"
    Image.fromarray(PIXELS).save(tmp_path / name, exif=exif)
    target = tmp_path / f"out{suffix}"
    assert save(tmp_path / name, target).warnings(target) == []
    assert Texts.read(target).by_tag == {315: artist, 33432: b"Somebody"}


def test_letters_for_which_there_is_no_room_are_told(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in.tif", dict.fromkeys((269, 270, 271, 272, 305, 315, 33432), "\u00f6" * 3900))
    (told,) = save(tmp_path / "in.tif", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert "letters are replaced, as its EXIF is full; write TIFF to keep them" in told


def test_damaged_tags_are_no_texts(tmp_path: Path) -> None:
    (tmp_path / "in.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")
    assert Texts.read(tmp_path / "in.tif").by_tag == {}


def test_no_pixel_of_a_png_is_decoded_for_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(path)
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("the image was decoded"))
    assert Texts.read(path) == Texts()


# -- texts of a PNG, comments of a JPEG

ADOBE = "<x:xmpmeta xmlns:x='adobe:ns:meta/'>a</x:xmpmeta>"
LATER = "behind the pixels"


def write_texts(path: Path) -> None:
    """A PNG with texts of each kind, one of them behind the pixels."""
    texts = PngInfo()
    texts.add_text("Title", "A harbour")
    texts.add_text("Comment", "Seen from the pier", zip=True)
    texts.add_itxt("Author", "Bj\u00f6rn \u4e2d", lang="sv", tkey="F\u00f6rfattare")
    texts.add_itxt("Copyright", "(c) 2020", zip=True)
    texts.add(b"tEXt", b"Description\0" + LATER.encode(), after_idat=True)
    Image.fromarray(PIXELS).save(path, pnginfo=texts)


def test_texts_of_a_png_stay_in_png(tmp_path: Path) -> None:
    write_texts(tmp_path / "in.png")
    image = save(tmp_path / "in.png", tmp_path / "out.png")
    assert image.warnings(tmp_path / "out.png") == []
    assert find_texts(tmp_path / "out.png") == find_texts(tmp_path / "in.png")
    assert len(find_texts(tmp_path / "in.png").chunks) == 5
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), PIXELS)


def test_texts_of_a_png_stay_where_a_format_has_a_place(tmp_path: Path) -> None:
    write_texts(tmp_path / "in.png")
    author = "Bj\u00f6rn \u4e2d".encode()
    expected = {269: b"A harbour", 270: LATER.encode(), 315: author, 33432: b"(c) 2020"}
    (told,) = save(tmp_path / "in.png", tmp_path / "out.tif").warnings(tmp_path / "out.tif")
    assert told == f"{tmp_path / 'in.png'}: its text Comment is not kept in .tif; write PNG to keep it"
    assert Texts.read(tmp_path / "out.tif").by_tag == expected
    (title,) = save(tmp_path / "in.png", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert "its text Title is not kept in .jpg" in title  # EXIF has no such tag
    written = Texts.read(tmp_path / "out.jpg")
    assert {269: b"A harbour", **written.by_tag} == expected
    with Image.open(tmp_path / "out.jpg") as file:
        file.load()
        assert file.info["comment"] == b"Seen from the pier"


@pytest.mark.parametrize("comment", [b"by hand", "Bj\u00f6rn \u4e2d".encode(), b"Bj\xf6rn"])
def test_comments_of_a_jpeg_stay(tmp_path: Path, comment: bytes) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", comment=comment)
    for name in ("out.png", "out.jpg"):
        assert save(tmp_path / "in.jpg", tmp_path / name).warnings(tmp_path / name) == []
    assert save(tmp_path / "out.png", tmp_path / "back.jpg").warnings(tmp_path / "back.jpg") == []
    with Image.open(tmp_path / "out.jpg") as file, Image.open(tmp_path / "back.jpg") as back:
        assert file.info["comment"] == back.info["comment"] == comment
    with Image.open(tmp_path / "out.png") as file:
        assert file.info["Comment"].encode("latin1" if b"\xf6" in comment else "utf-8") == comment
    (told,) = RowFile.open(tmp_path / "in.jpg").warnings(tmp_path / "out.webp")
    assert told == f"{tmp_path / 'in.jpg'}: its text Comment is not kept in .webp; write PNG to keep it"


def raw_profile(kind: str, content: bytes) -> tuple[bytes, bytes]:
    """As ImageMagick writes it."""
    text = f"\n{kind}\n{len(content):8}\n{content.hex()}\n"
    return b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text.encode())


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(ADOBE.encode())),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + ADOBE.encode()),
        raw_profile("xmp", ADOBE.encode()),
        raw_profile("APP1", b"http://ns.adobe.com/xap/1.0/\0" + ADOBE.encode()),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_xmp_is_kept_however_a_png_has_it(tmp_path: Path, chunk: tuple[bytes, bytes], suffix: str) -> None:
    write_png(tmp_path / "in.png", PIXELS[..., 0], bits=8, colour=GREY, before=[chunk])
    target = tmp_path / f"out{suffix}"
    assert save(tmp_path / "in.png", target).warnings(target) == []
    with Image.open(target) as file:
        written = file.info.get("xmp", find_texts(target).xmp)
    assert written.rstrip(b"\0") == ADOBE.encode()


@pytest.mark.parametrize(("more", "kept"), [(60_000, True), (60_001, False)])
@pytest.mark.parametrize("name", ["in.png", "in.webp"])
def test_xmp_that_is_too_long_for_a_jpeg_is_told(tmp_path: Path, name: str, more: int, kept: bool) -> None:
    xmp = ADOBE.replace(">a<", f">{'a' * (more + 1 - len(ADOBE))}<")
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    options = {"pnginfo": texts} if name == "in.png" else {"xmp": xmp.encode()}
    Image.fromarray(PIXELS).save(tmp_path / name, **options)
    told = save(tmp_path / name, tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert told == [f"{tmp_path / name}: its XMP is too long for .jpg and not kept; write PNG to keep it"][kept:]
    with Image.open(tmp_path / "out.jpg") as file:
        assert ("xmp" in file.info) == kept


def test_exif_in_a_text_is_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[315], exif[274] = "Somebody", 6
    exif.get_ifd(34665)[36867] = "2020:01:02 03:04:05"
    chunk = raw_profile("exif", exif.tobytes())
    write_png(tmp_path / "in.png", PIXELS[..., 0], bits=8, colour=GREY, before=[chunk])
    for name in ("out.png", "out.jpg"):
        assert save(tmp_path / "in.png", tmp_path / name).warnings(tmp_path / name) == []
        with Image.open(tmp_path / name) as file:
            assert (file.getexif()[315], file.getexif()[274], file.size) == ("Somebody", 6, (10, 12))
            assert file.getexif().get_ifd(34665)[36867] == "2020:01:02 03:04:05"


@pytest.mark.parametrize(
    ("chunk", "word"),
    [
        ((b"tEXt", b"Warning\0bright"), "Warning"),
        ((b"zTXt", b"Author\0\0" + zlib.compress(b"Somebody")[:-5]), "Author"),  # damaged
        ((b"tEXt", b"Author\0" + b"a" * 9000), "Author"),  # which makes EXIF too long
        (raw_profile("iptc", b"8BIM"), "Raw profile type iptc"),
    ],
)
def test_texts_without_a_place_are_told(tmp_path: Path, chunk: tuple[bytes, bytes], word: str) -> None:
    write_png(tmp_path / "in.png", PIXELS[..., 0], bits=8, colour=GREY, before=[chunk])
    (told,) = save(tmp_path / "in.png", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert told == f"{tmp_path / 'in.png'}: its text {word} is not kept in .jpg; write PNG to keep it"
    assert save(tmp_path / "in.png", tmp_path / "out.png").warnings(tmp_path / "out.png") == []
    assert find_texts(tmp_path / "out.png").chunks == (chunk,)


def test_dates_of_a_file_are_no_texts_of_its_picture(tmp_path: Path) -> None:
    """ImageMagick writes them into each PNG."""
    texts = PngInfo()
    texts.add_text("date:create", "2020-01-01T00:00:00+00:00")
    Image.fromarray(PIXELS).save(tmp_path / "in.png", pnginfo=texts)
    assert save(tmp_path / "in.png", tmp_path / "out.webp").warnings(tmp_path / "out.webp") == []


def test_texts_are_no_way_to_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_texts, "MOST", 1000)
    packed = (b"zTXt", b"Author\0\0" + zlib.compress(bytes(2000)))
    chunks = [(b"tEXt", b"Comment\0" + b"a" * 900), packed, (b"tEXt", b"Title\0" + b"a" * 100)]
    write_png(tmp_path / "in.png", PIXELS[..., 0], bits=8, colour=GREY, before=chunks)
    told = RowFile.open(tmp_path / "in.png").warnings(tmp_path / "out.png")
    assert told == [f"{tmp_path / 'in.png'}: its text Title is too long, or no text, and not kept"]
    assert [
        keyword for keyword, text in map(png_texts.unpack, find_texts(tmp_path / "in.png").chunks) if text is None
    ] == ["Author"]


def test_more_texts_than_anybody_writes_are_not_read(tmp_path: Path) -> None:
    """A file of a gigabyte could hold eighty million."""
    texts = [(b"tEXt", b"k%d\0b" % i) for i in range(20_000)]
    write_png(tmp_path / "in.png", np.zeros((1, 1), np.uint8), bits=8, colour=GREY, before=texts)
    found = find_texts(tmp_path / "in.png")
    assert len(found.chunks) == png_texts.MOST_TEXTS and found.lost == (f"k{png_texts.MOST_TEXTS}",)
    (told,) = Texts.read(tmp_path / "in.png").say_lost(".tif")[:1]
    assert told.startswith("its texts k0, k1, ") and " and 9,988 more are not kept in .tif" in told
    comments = b"\xff\xfe\0\x03a" * 20_000
    (tmp_path / "in.jpg").write_bytes(b"\xff\xd8" + comments + b"\xff\xda")
    found = find_texts(tmp_path / "in.jpg")
    assert len(found.chunks) == png_texts.MOST_TEXTS and found.lost == ("Comment",)


def test_comments_of_a_gif_are_no_way_to_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_texts, "MOST", 1000)
    Image.fromarray(PIXELS).quantize(8).save(tmp_path / "in.gif", comment=b"a" * 600)
    content = (tmp_path / "in.gif").read_bytes()
    more = b"!\xfe" + (b"\xff" + b"b" * 255) * 2 + b"\0"
    (tmp_path / "in.gif").write_bytes(content[:-1] + more + b";")
    found = find_other_texts(tmp_path / "in.gif")
    assert found is not None and len(found.chunks) == 1 and found.lost == ("Comment",)


def test_a_part_behind_many_is_told(tmp_path: Path) -> None:
    chunks = [(b"sBIT", b"\7")] * 20_000 + [(b"prVt", b"")]
    write_png(tmp_path / "in.png", np.zeros((1, 1), np.uint8), bits=8, colour=GREY, before=chunks)
    assert find_other_parts(tmp_path / "in.png") == ("chunk prVt",)


def test_what_compressed_texts_hold_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen megabytes of a file could be unpacked to as many gigabytes."""
    monkeypatch.setattr(png_texts, "MOST", 1000)
    texts = [(b"zTXt", b"k%d\0\0" % i + zlib.compress(b"x" * 400)) for i in range(5)]
    write_png(tmp_path / "in.png", np.zeros((1, 1), np.uint8), bits=8, colour=GREY, before=texts)
    found = find_texts(tmp_path / "in.png")
    assert (len(found.chunks), found.lost) == (3, ("k3", "k4"))


def test_a_keyword_is_no_longer_than_a_png_has_it(tmp_path: Path) -> None:
    chunk = (b"tEXt", b"k" * 100_000)
    write_png(tmp_path / "in.png", np.zeros((1, 1), np.uint8), bits=8, colour=GREY, before=[chunk])
    assert find_texts(tmp_path / "in.png").lost == ("k" * 80,)


def test_texts_of_exif_are_no_others(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({269: "A document", 270: "a" * 20_000})
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    assert save(tmp_path / "in.jpg", tmp_path / "out.png").warnings(tmp_path / "out.png") == []
    assert Texts.read(tmp_path / "out.png").by_tag == {269: b"A document", 270: b"a" * 20_000}


@pytest.mark.parametrize("exif", [b"Exif\0\0nothing", b"Exif\0\0MM\0*\0\0\0\x08" + bytes(70_000)])
def test_exif_in_a_text_that_cannot_be_kept_is_told(tmp_path: Path, exif: bytes) -> None:
    write_png(tmp_path / "in.png", PIXELS[..., 0], bits=8, colour=GREY, before=[raw_profile("exif", exif)])
    (told,) = save(tmp_path / "in.png", tmp_path / "out.png").warnings(tmp_path / "out.png")
    assert told == f"{tmp_path / 'in.png'}: its EXIF is damaged and not kept"


def test_several_texts_are_told_at_once(tmp_path: Path) -> None:
    write_texts(tmp_path / "in.png")
    told = RowFile.open(tmp_path / "in.png").warnings(tmp_path / "out.webp")
    assert told == [f"{tmp_path / 'in.png'}: its texts Title, Comment are not kept in .webp; write PNG to keep them"]


# -- comments and XMP of GIF and JPEG 2000


def check_comment(tmp_path: Path, name: str, comment: bytes) -> None:
    """That it comes along to where it can, as Pillow reads it, and is told elsewhere."""
    for suffix in (".png", ".jpg"):
        target = tmp_path / f"out{suffix}"
        assert save(tmp_path / name, target).warnings(target) == []
        with Image.open(target) as file:
            file.load()
            written = file.info.get("comment", file.info.get("Comment"))
        assert (written if isinstance(written, bytes) else written.encode()) == comment
    (told,) = save(tmp_path / name, tmp_path / "out.webp").warnings(tmp_path / "out.webp")
    assert told == f"{tmp_path / name}: its text Comment is not kept in .webp; write PNG to keep it"


@pytest.mark.parametrize("comment", [b"by hand", "Bj\u00f6rn".encode(), b"long " * 1000])
def test_comments_of_a_gif_stay(tmp_path: Path, comment: bytes) -> None:
    Image.fromarray(PIXELS).quantize(8).save(tmp_path / "in.gif", comment=comment)
    check_comment(tmp_path, "in.gif", comment)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow lacks JPEG 2000")
@pytest.mark.parametrize("name", ["in.jp2", "in.j2k"])
def test_comments_of_a_jpeg_2000_stay(tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name, comment="by hand")
    check_comment(tmp_path, name, b"by hand")
    Image.fromarray(PIXELS).save(tmp_path / name)  # with one that names the encoder
    assert RowFile.open(tmp_path / name).warnings(tmp_path / "out.webp") == []


def test_xmp_of_a_gif_stays(tmp_path: Path) -> None:
    """Behind it stand bytes by which readers who take it for blocks find its end."""
    Image.fromarray(PIXELS).quantize(8).save(tmp_path / "in.gif")
    content, end = (tmp_path / "in.gif").read_bytes(), b"\1" + bytes(range(255, -1, -1)) + b"\0"
    other = b"!\xff\x0bMGKIPTC0000\x04abcd\0"
    (tmp_path / "in.gif").write_bytes(content[:-1] + b"!\xff\x0bXMP DataXMP" + ADOBE.encode() + end + other + b";")
    (told,) = save(tmp_path / "in.gif", tmp_path / "out.png").warnings(tmp_path / "out.png")
    assert told == f"{tmp_path / 'in.gif'}: its extension MGKIPTC0000 is not kept"
    with Image.open(tmp_path / "out.png") as file:
        assert file.info["XML:com.adobe.xmp"] == ADOBE


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow lacks JPEG 2000")
def test_boxes_of_a_jpeg_2000_stay_or_are_told(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "in.jp2")
    exif = Image.Exif()
    exif[315] = "Somebody"
    content = {
        b"uuid": bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + ADOBE.encode(),
        b"uui2": b"JpgTiffExif->JP2" + exif.tobytes(),
        b"xml ": b"<words/>",
    }
    boxes = [struct.pack(">I4s", 8 + len(each), name.replace(b"2", b"d")) + each for name, each in content.items()]
    (tmp_path / "in.jp2").write_bytes((tmp_path / "in.jp2").read_bytes() + b"".join(boxes))
    (told,) = save(tmp_path / "in.jp2", tmp_path / "out.png").warnings(tmp_path / "out.png")
    assert told == f"{tmp_path / 'in.jp2'}: its box xml is not kept"
    with Image.open(tmp_path / "out.png") as file:
        assert file.info["XML:com.adobe.xmp"] == ADOBE and file.getexif()[315] == "Somebody"
    exif[274] = 6
    box = struct.pack(">I4s", 24 + len(exif.tobytes()), b"uuid") + b"JpgTiffExif->JP2" + exif.tobytes()
    Image.fromarray(PIXELS).save(tmp_path / "in.jp2")
    (tmp_path / "in.jp2").write_bytes((tmp_path / "in.jp2").read_bytes() + box)
    (told,) = save(tmp_path / "in.jp2", tmp_path / "out.png").warnings(tmp_path / "out.png")
    assert "its orientation (in EXIF, which most programs pass over) is not kept" in told


@pytest.mark.parametrize("name", ["in.gif", "in.jp2"])
def test_files_that_end_anywhere_have_texts_or_none(tmp_path: Path, name: str) -> None:
    if name == "in.jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow lacks JPEG 2000")
    image = Image.fromarray(PIXELS)
    (image if name == "in.jp2" else image.quantize(8)).save(tmp_path / name, comment="by hand")
    content, random = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    for length in range(12, len(content), 5):
        (tmp_path / name).write_bytes(content[:length])
        find_other_texts(tmp_path / name)
    for _ in range(100):
        bad = bytearray(content)
        for at in random.integers(12, len(content), 3):
            bad[at] = random.integers(0, 256)
        (tmp_path / name).write_bytes(bad)
        find_other_texts(tmp_path / name)


# -- what Windows' Explorer shows


def windows_exif() -> Image.Exif:
    exif = Image.Exif()
    for number in range(40091, 40096):
        exif[number] = f"F\u00fcr {number}".encode("utf-16le") + b"\0\0"
    exif[18246] = 4
    return exif


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
@pytest.mark.parametrize("name", ["in.tif", "in.jpg"])
def test_texts_and_stars_of_windows_are_kept(tmp_path: Path, name: str, suffix: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name, exif=windows_exif())
    target = tmp_path / f"out{suffix}"
    told = save(tmp_path / name, target).warnings(target)
    with Image.open(target) as file:
        exif = file.getexif()
    assert {number: exif[number] for number in windows_exif()} == dict(windows_exif())
    assert told == []


def test_tags_of_windows_of_other_kinds_are_told(tmp_path: Path) -> None:
    """And do not keep others from being read."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, kind, value in ((40091, 3, (1, 700)), (40092, 4, 1 << 30), (18246, 2, "many"), (271, 3, 7)):
        tags[number], tags.tagtype[number] = value, kind
    tags[315] = "Somebody"
    Image.fromarray(PIXELS).save(tmp_path / "in.tif", tiffinfo=tags)
    told = save(tmp_path / "in.tif", tmp_path / "out.tif").warnings(tmp_path / "out.tif")
    assert told == [f"{tmp_path / 'in.tif'}: its tag Make, tag Rating, tag XPTitle, tag XPComment are not kept"]
    assert Texts.read(tmp_path / "out.tif").by_tag == {315: b"Somebody"}


def test_other_tags_are_told_by_name(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in.tif", {285: "Page", 316: "a machine"})
    (told,) = RowFile.open(tmp_path / "in.tif").warnings(tmp_path / "out.tif")
    assert told == f"{tmp_path / 'in.tif'}: its tag PageName is not kept"


@pytest.mark.parametrize(("white", "words"), [(0.3127, []), (0.3457, ["its tag WhitePoint is not kept"])])
def test_colours_that_everybody_assumes_are_not_told(tmp_path: Path, white: float, words: list[str]) -> None:
    """ImageMagick says in every TIFF that its colours are those of sRGB."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[318], tags[319] = (white, 0.329), (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    Image.fromarray(PIXELS).save(tmp_path / "in.tif", tiffinfo=tags)
    told = RowFile.open(tmp_path / "in.tif").warnings(tmp_path / "out.png")
    assert told == [f"{tmp_path / 'in.tif'}: {each}" for each in words]


def phone_exif() -> Image.Exif:
    """What libvips has no names for: HostComputer, as of every iPhone, ProcessingSoftware, as of darktable, stars."""
    exif = Image.Exif()
    exif.update({11: "darktable", 271: "Apple", 316: "iPhone", 18246: 4, 256: 10, 257: 12, 59932: bytes(9), 59933: 4})
    exif.get_ifd(34665).update(
        {36867: "2020:01:02 03:04:05", 33434: 0.5, 42034: (2.0, 9.0, 1.75, 2.8), 37121: b"\1\2\3\0"}
    )
    exif.get_ifd(34853).update({1: "N", 2: (1.0, 2.0, 3.5)})
    return exif


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
@pytest.mark.parametrize(("name", "endian"), [("in.jpg", "<"), ("in.jpg", ">"), ("in.png", "<"), ("in.webp", "<")])
def test_exif_is_kept_whole(tmp_path: Path, name: str, endian: str, suffix: str) -> None:
    """A TIFF had none of it, and others lacked what libvips has no name for; sides are those of another image."""
    exif = phone_exif()
    exif.endian = endian
    Image.fromarray(PIXELS).save(tmp_path / name, exif=exif.tobytes())
    target = tmp_path / f"out{suffix}"
    assert save(tmp_path / name, target).warnings(target) == []
    with Image.open(target) as file:
        found = file.getexif()
        file.load()
    assert {number: found.get(number) for number in (11, 271, 316, 18246)} == {
        11: "darktable",
        271: "Apple",
        316: "iPhone",
        18246: 4,
    }
    for group in (34665, 34853):
        there = found.get_ifd(group)
        assert {number: there.get(number) for number in exif.get_ifd(group)} == exif.get_ifd(group)
    assert suffix == ".tif" or (256 not in found and 59932 not in found)


@pytest.mark.parametrize(("note", "kept"), [(b"Apple iOS\0\0\1MM", True), (b"\x2f\0\1\0\3\0", False)])
def test_a_makers_note_that_leads_to_places_in_its_file_is_not_in_tiff(tmp_path: Path, note: bytes, kept: bool) -> None:
    exif = Image.Exif()
    exif.get_ifd(34665)[37500] = note
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    told = save(tmp_path / "in.jpg", tmp_path / "out.tif").warnings(tmp_path / "out.tif")
    assert told == ([] if kept else [f"{tmp_path / 'in.jpg'}: its EXIF tag MakerNote is not kept"])
    with Image.open(tmp_path / "out.tif") as file:
        assert file.getexif().get_ifd(34665).get(37500) == (note if kept else None)


def test_exif_that_is_full_stays_as_it_is(tmp_path: Path) -> None:
    exif = phone_exif()
    exif.get_ifd(34665)[37510] = bytes(64_500)
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    (told,) = save(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert told == f"{tmp_path / 'in.jpg'}: its EXIF tags ProcessingSoftware, HostComputer, Rating are not kept"
    assert save(tmp_path / "in.jpg", tmp_path / "out.tif").warnings(tmp_path / "out.tif") == []


def test_of_exif_that_is_cut_off_what_is_there_is_read() -> None:
    entries = b"".join(struct.pack("<HHII", number, 4, 1, number) for number in (256, 257))
    found = read_entries(b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + b"\1\1\4")
    assert [*found[0]] == [256, 257]


def test_a_directory_that_leads_to_itself_is_looked_at_once() -> None:
    assert is_whole(b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 34665, 4, 1, 8) + bytes(4))


def test_entries_that_stand_for_one_another_are_no_way_to_fill_memory() -> None:
    many, size = 500, 1 << 12
    entries = b"".join(struct.pack("<HHII", number, 7, size, 8) for number in range(many))
    found = read_entries(b"II*\0\x08\0\0\0" + struct.pack("<H", many) + entries + bytes(4 + size))
    assert len(found[0]) == 2  # as many as the bytes that there are would hold


@pytest.mark.parametrize("at", range(10, 100, 6))
def test_exif_that_is_damaged_anywhere_is_no_obstacle(tmp_path: Path, at: int) -> None:
    exif = Image.Exif()
    exif[315] = "Somebody"
    exif.get_ifd(34665)[33434] = 0.5
    exif.get_ifd(34853)[1] = "N"
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    content = bytearray((tmp_path / "in.jpg").read_bytes())
    begin, end = content.index(b"Exif\0\0"), content.index(b"\xff\xdb")
    content[begin + at : end] = (b"\xff\xff\xff\xf0" + content[begin + at + 4 : end])[: end - begin - at]
    (tmp_path / "in.jpg").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")


@pytest.mark.parametrize(
    ("at", "content", "word"),
    [
        (0, b"XX", "damaged and not kept"),  # the mark by which numbers are told
        (4, b"\xff\xff\xff\xf0", "damaged in part"),  # where the first directory is
        (8, b"\x7f\xff", "damaged in part"),  # how many tags it has
        (12, b"\xff\xff", "damaged in part"),  # the kind of one
        (14, b"\xff\xff\xff\xf0", "damaged in part"),  # how long it is
        (18, b"\0\xff\xff\xff", "damaged in part"),  # where it stands
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])  # which libvips decodes, and Pillow
def test_exif_that_is_damaged_is_told(tmp_path: Path, at: int, content: bytes, word: str, mode: str) -> None:
    """A JPEG whose EXIF led beyond its end was refused, and of others it was not told what is lost."""
    exif = phone_exif()
    exif.endian = ">"
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "in.jpg", exif=exif.tobytes())
    whole = (tmp_path / "in.jpg").read_bytes()
    at += whole.index(b"MM\0*")
    (tmp_path / "in.jpg").write_bytes(whole[:at] + content + whole[at + len(content) :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = save(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert any(f"its EXIF is {word}" in each for each in told)
    with Image.open(tmp_path / "out.jpg") as written:
        assert is_whole(written.info.get("exif", b"MM\0*\0\0\0\x08\0\0"))


# -- IPTC

PRESS = b"\x1c\x02\x00\x00\x02\x00\x02\x1c\x02\x50\x00\x06Makers"
RESOURCE = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(PRESS)) + PRESS


def write_with_iptc(path: Path, number: int = 33723, more: bytes = b"") -> None:
    image = Image.fromarray(PIXELS)
    if path.suffix == ".tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[number] = PRESS if number == 33723 else RESOURCE
        tags.tagtype[number] = 7
        image.save(path, tiffinfo=tags)
        return
    if path.suffix == ".png":
        write_png(path, PIXELS[..., 0], bits=8, colour=GREY, before=[raw_profile("iptc", RESOURCE)])
        return
    image.save(path)
    content, segment = path.read_bytes(), b"Photoshop 3.0\0" + RESOURCE + more
    path.write_bytes(content[:20] + b"\xff\xed" + struct.pack(">H", 2 + len(segment)) + segment + content[20:])


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
@pytest.mark.parametrize("name", ["in.jpg", "in.tif", "in.png"])
def test_iptc_is_kept(tmp_path: Path, name: str, suffix: str) -> None:
    """libvips wrote a JPEG's, with its head, into a TIFF, and four bytes of a TIFF's."""
    write_with_iptc(tmp_path / name)
    target = tmp_path / f"out{suffix}"
    assert save(tmp_path / name, target).warnings(target) == []
    if suffix == ".png":
        (text,) = (text for keyword, text in map(png_texts.unpack, find_texts(target).chunks) if "iptc" in keyword)
        assert text is not None and bytes.fromhex("".join(text.split("\n")[3:])) == RESOURCE
    else:
        with Image.open(target) as file:
            written = IptcImagePlugin.getiptcinfo(file)
        assert written is not None and written[2, 80] == b"Makers"
    assert save(target, tmp_path / "back.jpg").warnings(tmp_path / "back.jpg") == []
    with Image.open(tmp_path / "back.jpg") as file:
        assert IptcImagePlugin.getiptcinfo(file) == {(2, 0): b"\0\2", (2, 80): b"Makers"}


def test_iptc_among_photoshops_resources_is_kept_in_tiff(tmp_path: Path) -> None:
    write_with_iptc(tmp_path / "in.tif", 34377)
    (told,) = save(tmp_path / "in.tif", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert told == f"{tmp_path / 'in.tif'}: its block of Photoshop's settings is not kept"
    assert Texts.read(tmp_path / "out.jpg").iptc == PRESS


def test_what_is_lost_beside_iptc_is_told(tmp_path: Path) -> None:
    write_with_iptc(tmp_path / "in.jpg", more=b"8BIM\x04\x0a\0\0\0\0\0\1\1\0")
    image = save(tmp_path / "in.jpg", tmp_path / "out.webp")
    assert image.warnings(tmp_path / "out.webp") == [
        f"{tmp_path / 'in.jpg'}: its IPTC is not kept in .webp; write PNG to keep it",
        f"{tmp_path / 'in.jpg'}: its block of Photoshop's settings is not kept in .webp",
    ]
    assert save(tmp_path / "in.jpg", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg") == []
    with Image.open(tmp_path / "out.jpg") as file:
        assert file.info["photoshop"][0x040A] == b"\1" and file.info["photoshop"][0x0404] == PRESS


# -- parts that nobody reads


def test_parts_that_are_not_kept_are_told(tmp_path: Path) -> None:
    chunks = [(b"caBX", b"abc"), (b"prVt", b"d"), (b"sBIT", b"\7")]
    write_png(tmp_path / "in.png", PIXELS[..., 0], bits=8, colour=GREY, before=chunks)
    (told,) = RowFile.open(tmp_path / "in.png").warnings(tmp_path / "out.png")
    assert told == f"{tmp_path / 'in.png'}: its Content Credentials (C2PA), chunk prVt are not kept"
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=windows_exif(), icc_profile=b"")
    content = (tmp_path / "in.jpg").read_bytes()
    parts = ((0xE1, b"http://ns.adobe.com/xmp/extension/\0a"), (0xEB, b"JP\0\1"), (0xE5, b"Mine\0b"), (0xEC, b"Ducky"))
    more = b"".join(b"\xff" + bytes([n]) + struct.pack(">H", 2 + len(part)) + part for n, part in parts)
    (tmp_path / "in.jpg").write_bytes(content[:2] + more + content[2:])
    (told,) = RowFile.open(tmp_path / "in.jpg").warnings(tmp_path / "out.png")
    assert told.endswith("its second part of its XMP, Content Credentials (C2PA), segment APP5 (Mine) are not kept")
    Image.fromarray(PIXELS).save(tmp_path / "in.webp", exif=windows_exif())
    content = (tmp_path / "in.webp").read_bytes() + b"ABCD\2\0\0\0xy"
    (tmp_path / "in.webp").write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    (told,) = RowFile.open(tmp_path / "in.webp").warnings(tmp_path / "out.png")
    assert told == f"{tmp_path / 'in.webp'}: its chunk ABCD is not kept"


@pytest.mark.parametrize(
    ("name", "behind", "words"),
    [
        ("in.jpg", b"\0\0\0\x18ftypmp42" + bytes(90), "its film behind the picture (motion photo) is not kept"),
        ("in.jpg", bytes(90), ""),
        ("in.png", b"Samsung's trailer", ""),
        ("in.webp", b"Samsung's trailer", ""),
    ],
)
def test_what_phones_write_behind_a_picture_is_no_part_of_it(
    tmp_path: Path, name: str, behind: bytes, words: str
) -> None:
    """A film was left out without a word, and "chunk ung" told of."""
    Image.fromarray(PIXELS).save(tmp_path / name)
    with open(tmp_path / name, "ab") as file:
        file.write(behind)
    told = RowFile.open(tmp_path / name).warnings(tmp_path / "out.png")
    assert told == ([f"{tmp_path / name}: {words}"] if words else [])


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_exif_behind_the_pixels_of_a_png_is_kept(tmp_path: Path, suffix: str) -> None:
    """ExifTool wrote it there for years; it was lost without a word, and the picture was not turned."""
    exif = phone_exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / "in.png", exif=exif)
    content = (tmp_path / "in.png").read_bytes()
    at = content.index(b"eXIf") - 4
    end = at + 12 + struct.unpack_from(">I", content, at)[0]
    (tmp_path / "in.png").write_bytes(content[:at] + content[end:-12] + content[at:end] + content[-12:])
    target = tmp_path / f"out{suffix}"
    assert save(tmp_path / "in.png", target).warnings(target) == []
    with Image.open(target) as file:
        found = file.getexif()
        assert (found[316], found[18246], found[274]) == ("iPhone", 4, 6)
        assert found.get_ifd(34853)[2] == (1.0, 2.0, 3.5) and found.get_ifd(34665)[33434] == 0.5


# -- EXIF in a TIFF


def write_exif_tiff(path: Path, *, note: bytes = bytes(20), big: bool = False) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[315] = "Somebody"
    tags[34665] = {36867: "2020:01:02 03:04:05", 33434: 0.5, 37500: note}
    tags[34853] = {1: "N", 2: (1.0, 2.0, 3.5)}
    Image.fromarray(PIXELS).save(path, tiffinfo=tags, big_tiff=big)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("big", [False, True])
def test_exif_of_a_tiff_is_kept(tmp_path: Path, suffix: str, big: bool) -> None:
    write_exif_tiff(tmp_path / "in.tif", big=big)
    target = tmp_path / f"out{suffix}"
    assert save(tmp_path / "in.tif", target).warnings(target) == []
    with Image.open(target) as file:
        exif = file.getexif()
    assert exif[315] == "Somebody" and exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    assert exif.get_ifd(34665)[33434] == 0.5 and exif.get_ifd(34853)[2] == (1.0, 2.0, 3.5)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_exif_of_a_tiff_is_kept_in_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, big: bool, large: bool
) -> None:
    """Files that are no larger than a TIFF may be are no BigTIFF, which many programs do not open."""
    monkeypatch.setattr(streams, "MOST_IN_TIFF", 300 if large else 1000)
    write_exif_tiff(tmp_path / "in.tif", big=big)
    (told,) = save(tmp_path / "in.tif", tmp_path / "out.tif").warnings(tmp_path / "out.tif")
    assert told == f"{tmp_path / 'in.tif'}: its EXIF tag MakerNote is not kept"
    assert (tmp_path / "out.tif").read_bytes()[2] == (43 if large else 42)
    with Image.open(tmp_path / "out.tif") as file:
        exif = file.getexif()
        assert np.array_equal(np.asarray(file), PIXELS)
    assert exif[315] == "Somebody" and exif.get_ifd(34665) == {36867: "2020:01:02 03:04:05", 33434: 0.5}
    assert exif.get_ifd(34853) == {1: "N", 2: (1.0, 2.0, 3.5)}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
@pytest.mark.parametrize(("start", "kept"), [(b"Nikon\0\2", (".tif",)), (b"", ())])
def test_a_makers_note_that_is_too_long_costs_nothing_else(
    tmp_path: Path, start: bytes, kept: tuple[str, ...], suffix: str
) -> None:
    """All of EXIF was lost with it."""
    write_exif_tiff(tmp_path / "in.tif", note=start + bytes(70_000))
    target = tmp_path / f"out{suffix}"
    told = save(tmp_path / "in.tif", target).warnings(target)
    with Image.open(target) as file:
        exif = file.getexif()
        found, place = exif.get_ifd(34665), exif.get_ifd(34853)
    assert (37500 in found) == (suffix in kept)
    assert exif[315] == "Somebody" and found[36867] == "2020:01:02 03:04:05" and place[1] == "N"
    assert told == ([] if suffix in kept else [f"{tmp_path / 'in.tif'}: its EXIF tag MakerNote is not kept"])


def test_texts_that_exif_has_no_room_for_are_told(tmp_path: Path) -> None:
    write_tiff(tmp_path / "in.tif", {270: "a" * 70_000, 315: "Somebody"})
    (told,) = save(tmp_path / "in.tif", tmp_path / "out.jpg").warnings(tmp_path / "out.jpg")
    assert "EXIF has no room for its ImageDescription, not kept; write TIFF to keep it" in told
    assert Texts.read(tmp_path / "out.jpg").by_tag == {315: b"Somebody"}
