"""Texts beside an image, of who made it, when and with what: tags that TIFF and EXIF have in common, texts of a PNG.

libvips neither reads the tags in TIFF nor writes them there, but for a description; nor the EXIF that a TIFF has.  Of
a PNG's texts it keeps XMP alone, and of a JPEG none.
"""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from memsr_compiler.images import iptc
from memsr_compiler.images.other_parts import find_other_parts, name_other_tags, name_tag
from memsr_compiler.images.other_texts import find_other_texts
from memsr_compiler.images.png_texts import Chunk, Found, find_texts, fits_jpeg, unpack
from memsr_compiler.images.tiff_by_hand import read_directory
from memsr_compiler.images.tiff_tags import is_tiff

NAMES = {
    269: "DocumentName",
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    33432: "Copyright",
}
WINDOWS = {
    40091: "XPTitle",
    40092: "XPComment",
    40093: "XPAuthor",
    40094: "XPKeywords",
    40095: "XPSubject",
    18246: "Rating",
    18249: "RatingPercent",
}  # texts in UTF-16, and two numbers: what Windows' Explorer shows
_STARS = (18246, 18249)  # the numbers
BY_KEYWORD = {"title": 269, "description": 270, "software": 305, "author": 315, "copyright": 33432}  # of a PNG
_XMP, EXIF, GPS = 700, 34665, 34853  # XMP, and tags that say where further ones are
MOST_EXIF = 65_000  # bytes that libexif reads and a JPEG holds
_GROUPS = (EXIF, GPS, 40965)
NOT_IN_EXIF = 269  # of the tags: libvips has no name for it, though it keeps what EXIF has of it
LONGEST = 8_000  # bytes of a text in EXIF, of which there are eight
_BYTE, _ASCII, _SHORT, _LONG = 1, 2, 3, 4  # types of tags
_SIZES = {_BYTE: 1, _ASCII: 1, _SHORT: 2, _LONG: 4}  # bytes
_BIG = 43  # the version of a BigTIFF
_IN_ANY = frozenset((274, 282, 283, 296, 531, 40960, 40962, 40963))  # of EXIF: kept as the image's, or of its format
_SHOWN = 12  # texts that are named
TIFF, JPEG, PNG = (".tif", ".tiff"), (".jpg", ".jpeg"), (".png",)  # file name extensions


@dataclass(frozen=True)
class Texts:
    """Texts of an image, in bytes without the zero at their end, by the number of their tag.

    windows   tags of Windows', by their number: texts in its letters, and numbers
    further   whether the file has EXIF or GPS tags besides
    exif      all of them where libvips does not read them: those of a TIFF, and EXIF that a PNG has as a text
    exif_tags of EXIF for files other than TIFFs, each with the one that leads to its group, 0 for the first
    unread    whether it has EXIF that is damaged, or longer than a JPEG holds
    in_tiff   whether it is a TIFF
    found     texts of another kind
    iptc      captions and keywords of the press;   photoshop  whether there are other resources of Photoshop's
    """

    by_tag: Mapping[int, bytes] = field(default_factory=dict)
    windows: Mapping[int, bytes | int] = field(default_factory=dict)
    further: bool = False
    in_tiff: bool = False
    exif: bytes = b""
    unread: bool = False
    exif_tags: frozenset[tuple[int, int]] = frozenset()
    found: Found = field(default_factory=Found)
    iptc: bytes = b""
    photoshop: bool = False

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Texts:
        """Read them; none where there are none, or the tags are damaged."""
        tiff, found = is_tiff(path), find_other_texts(path) or find_texts(path)
        found = replace(found, others=(*found.others, *find_other_parts(path)))
        try:
            with open(path, "rb") as file:
                tags: Any = read_directory(file) if tiff else _read_exif(file, found.exif)
                texts = {number: tags[number] for number in NAMES if number in tags}
                windows = _read_windows(tags)
                known = frozenset((*(number for number in texts if isinstance(texts[number], str)), *windows))
                further = EXIF in tags or GPS in tags or (not tiff and bool({*tags} - known - _IN_ANY))
                told = {number: text for number, text in texts.items() if isinstance(text, str) and text.strip("\0 ")}
                by_tag = {number: text.encode("latin1", "replace") for number, text in told.items()}
                listed = frozenset() if tiff else _list_tags(tags)
                exif, unread = _pack(file, tags, by_tag, windows) if tiff else (found.exif, False)
                if tiff:
                    others = name_other_tags(tags, known)
                    found = replace(found, xmp=_read_xmp(tags), others=(*found.others, *others))
                press, photoshop = (iptc.find_in_tiff(tags), False) if tiff else iptc.find_in_jpeg(file)
        except Exception:  # of whatever is damaged: Pillow has no common base
            return Texts(in_tiff=tiff, unread=bool(found.exif), found=found)
        if len(exif) > MOST_EXIF:
            exif, unread = b"", True
        return Texts(
            by_tag,
            windows,
            further,
            tiff,
            exif,
            unread,
            list_exif(exif) if tiff else listed,
            found,
            press or iptc.find_in_png(found.chunks),
            photoshop,
        )

    def tags(self, suffix: str) -> dict[int, bytes]:
        """Texts by the number of their tag for a file of that kind, where there is no other place for them."""
        texts = {number: text for number, text in self.by_tag.items() if suffix in TIFF or self._has_room(text)}
        for keyword, text in map(unpack, self.found.chunks):
            number = BY_KEYWORD.get(keyword.lower())
            if suffix in PNG or number is None or not text:
                continue
            if suffix in TIFF or (number != NOT_IN_EXIF and len(text.encode()) <= LONGEST):
                texts.setdefault(number, text.encode())
        return texts

    def chunks(self) -> tuple[Chunk, ...]:
        """Texts as chunks of a PNG."""
        there = any(unpack(chunk)[0] == iptc.KEYWORD for chunk in self.found.chunks)
        return (*self.found.chunks, *([iptc.pack_for_png(self.iptc)] if self.iptc and not there else []))

    def _has_room(self, text: bytes) -> bool:
        """Whether EXIF has room for a text that stands in a tag: what is from EXIF goes as it is."""
        return not self.in_tiff or len(text) <= LONGEST

    def fields(self, suffix: str) -> dict[str, str]:
        """Fields of libvips that it writes as EXIF: behind a text stands what it drops."""
        texts = {NAMES[number]: _decode(text) for number, text in self.tags(suffix).items()}
        return {f"exif-ifd0-{name}": f"{text} (-, ASCII, 1 components, 1 bytes)" for name, text in texts.items()}

    def say_lost(self, suffix: str) -> tuple[str, ...]:
        """Words on what a file of that kind will lack."""
        told, tags = [], self.tags(suffix)
        if self.further and suffix in TIFF:
            told.append(f"its EXIF is not kept in {suffix}; write PNG to keep it")
        elif self.unread:
            told.append("its EXIF is damaged, or longer than other files hold, and is not kept")
        if suffix not in TIFF:
            other = _list(number for number, text in tags.items() if not text.isascii())
            long = _list(number for number in self.by_tag if number not in tags)
            if other:
                told.append(f"EXIF holds ASCII: in its {other} other letters are replaced; write TIFF to keep them")
            if long:
                told.append(f"EXIF has no room for its {long}, not kept; write TIFF to keep it")
        if self.iptc and suffix not in (*TIFF, *PNG, *JPEG):
            told.append(f"its IPTC is not kept in {suffix}; write PNG to keep it")
        if suffix in JPEG and len(self.iptc) > iptc.MOST_IN_JPEG:
            told.append(f"its IPTC is too long for {suffix} and not kept; write PNG to keep it")
        if self.photoshop and suffix not in JPEG:
            told.append(f"its block of Photoshop's settings is not kept in {suffix}")
        if lost := self._texts_lost(suffix, tags):
            them = "it" if len(lost) == 1 else "them"
            told.append(f"its {_say_texts(lost)} not kept in {suffix}; write PNG to keep {them}")
        if self.found.lost:
            told.append(f"its {_say_texts(self.found.lost)} too long, or no text, and not kept")
        if self.found.others:
            told.append(f"its {_say_some(self.found.others)} not kept")
        return tuple(told)

    def _texts_lost(self, suffix: str, tags: Mapping[int, bytes]) -> list[str]:
        """Keywords of what a file of that kind, with these tags, has no place for."""
        lost = []
        for keyword, text in map(unpack, self.found.chunks):
            if keyword.startswith("date:"):  # ImageMagick's, of the file, not of the picture
                continue
            if keyword == iptc.KEYWORD and self.iptc:
                continue
            kept = text is not None and tags.get(BY_KEYWORD.get(keyword.lower(), 0)) == text.encode()
            in_jpeg = suffix in JPEG and text is not None and fits_jpeg(keyword, text)
            if text != "" and not (kept or in_jpeg or suffix in PNG):
                lost.append(keyword)
        return list(dict.fromkeys(lost))


def _say_texts(keywords: Sequence[str]) -> str:
    return f"text{'s' if len(keywords) > 1 else ''} {_say_some(keywords)}"


def _say_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more} {'is' if len(names) == 1 else 'are'}"


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(NAMES[number] for number in numbers)


def _read_exif(file: BinaryIO, raw: bytes) -> Image.Exif:
    """The EXIF of a file, without a pixel: a PNG's own getexif decodes the image to look for some behind it.

    raw   what stands in a text of it, if anything does
    """
    if not raw:
        return Image.Image.getexif(Image.open(file))
    exif = Image.Exif()
    exif.load(raw)
    return exif


def list_exif(raw: bytes) -> frozenset[tuple[int, int]]:
    """The tags of EXIF as a file holds it, as `Texts` has them."""
    exif = Image.Exif()
    exif.load(raw)
    return _list_tags(exif)


def _list_tags(exif: Image.Exif) -> frozenset[tuple[int, int]]:
    """Tags without those that lead to others, or that are kept as the image's own; none of a group that is damaged."""
    found = {(0, number) for number in exif}
    for group in _GROUPS:
        with contextlib.suppress(Exception):  # whatever Pillow meets there
            found |= {(group, number) for number in exif.get_ifd(group)}
    return frozenset((group, number) for group, number in found if number not in _GROUPS and number not in _IN_ANY)


def say_tags_lost(tags: Iterable[tuple[int, int]]) -> str:
    names = [name_tag(number) for _, number in sorted(tags)]
    return f"its EXIF tag{'s' if len(names) > 1 else ''} {_say_some(names)} not kept"


def _read_windows(tags: Any) -> dict[int, bytes | int]:
    """The tags of Windows', where they are of the kinds that it writes."""
    there = {number: tags[number] for number in WINDOWS if number in tags}
    found = {number: value if number in _STARS else _as_bytes(value) for number, value in there.items()}
    return {
        number: value
        for number, value in found.items()
        if (isinstance(value, int) and 0 <= value < 1 << 16) or (isinstance(value, bytes) and number not in _STARS)
    }


def _as_bytes(value: object) -> bytes | None:
    """A tag's bytes, which may be told as numbers; None for what is no bytes."""
    if isinstance(value, tuple) and all(isinstance(each, int) and 0 <= each < 256 for each in value):
        return bytes(value)
    return value if isinstance(value, bytes) else None


def _read_xmp(tags: Any) -> bytes:
    """The XMP among the tags of a TIFF, which libvips gives too where it knows the pixels."""
    return _as_bytes(tags.get(_XMP)) or b""


def _pack(
    file: BinaryIO, tags: Any, texts: Mapping[int, bytes], windows: Mapping[int, bytes | int]
) -> tuple[bytes, bool]:
    """The texts of a TIFF with its EXIF and GPS, as other files hold them, and whether these had to be left out."""
    exif = Image.Exif()
    exif.update({number: _decode(text) for number, text in texts.items() if len(text) <= LONGEST})
    exif.update(windows)
    alone = exif.tobytes() if exif else b""
    groups = [number for number in (EXIF, GPS) if number in tags]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for number in groups:
                exif.get_ifd(number).update(read_directory(file, number))
            content = exif.tobytes() if groups else alone
    except Exception:
        return alone, True
    return (content, False) if len(content) <= MOST_EXIF else (alone, True)


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin1")


def add_tags(path: Path, texts: Texts, suffix: str) -> None:
    """Add what a TIFF holds in tags to the first page of a BigTIFF, in place of those that are there."""
    press = texts.iptc + bytes(-len(texts.iptc) % 4)  # as numbers of 32 bits, as most programs want it
    values = {number: (_ASCII, text + b"\0") for number, text in texts.tags(suffix).items()}
    with open(path, "r+b") as file:
        end = "<" if file.read(2) == b"II" else ">"
        for number, value in texts.windows.items():
            numbers = (_SHORT, struct.pack(end + "H", value & 0xFFFF)) if isinstance(value, int) else (_BYTE, value)
            values[number] = numbers
        if press:
            values[iptc.IN_TIFF] = _LONG, press
        if values:
            _add_entries(file, end, values)


def _add_entries(file: BinaryIO, end: str, values: Mapping[int, tuple[int, bytes]]) -> None:
    """Add tags, each of a type, in bytes."""
    (version,) = struct.unpack(end + "H", file.read(2))
    assert version == _BIG, "TIFFs are written as BigTIFF"
    file.seek(8)
    file.seek(struct.unpack(end + "Q", file.read(8))[0])
    (count,) = struct.unpack(end + "Q", file.read(8))
    entries = [file.read(20) for _ in range(count)]
    following = file.read(8)
    by_tag = {struct.unpack(end + "H", entry[:2])[0]: entry for entry in entries}
    for number, (kind, value) in values.items():
        at = file.seek(0, os.SEEK_END)
        place = value.ljust(8, b"\0") if len(value) <= 8 else struct.pack(end + "Q", at)
        by_tag[number] = struct.pack(end + "HHQ", number, kind, len(value) // _SIZES[kind]) + place
        if len(value) > 8:
            file.write(value)
    at = file.seek(0, os.SEEK_END)
    file.write(bytes(-at % 8))
    directory = file.tell()
    file.write(struct.pack(end + "Q", len(by_tag)) + b"".join(by_tag[tag] for tag in sorted(by_tag)) + following)
    file.seek(8)
    file.write(struct.pack(end + "Q", directory))
