"""Texts beside an image, of who made it, when and with what: tags that TIFF and EXIF have in common, texts of a PNG.

libvips neither reads the tags in TIFF nor writes them there, but for a description; nor the EXIF that a TIFF has.  Of
a PNG's texts it keeps XMP alone, and of a JPEG none.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from memsr_compiler.images.png_texts import Found, find_texts, fits_jpeg, unpack
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
BY_KEYWORD = {"title": 269, "description": 270, "software": 305, "author": 315, "copyright": 33432}  # of a PNG
EXIF, GPS = 34665, 34853  # tags that say where further ones are
MOST_EXIF = 65_000  # bytes that libexif reads and a JPEG holds
NOT_IN_EXIF = 269  # of the tags: libvips has no name for it, though it keeps what EXIF has of it
LONGEST = 8_000  # bytes of a text in EXIF, of which there are eight
_ASCII, _BIG = 2, 43  # the type of such tags; the version of a BigTIFF
_SHOWN = 12  # texts that are named
TIFF, JPEG, PNG = (".tif", ".tiff"), (".jpg", ".jpeg"), (".png",)  # file name extensions


@dataclass(frozen=True)
class Texts:
    """Texts of an image, in bytes without the zero at their end, by the number of their tag.

    further   whether the file has EXIF or GPS tags besides
    exif      all of them where libvips does not read them: those of a TIFF, and EXIF that a PNG has as a text
    unread    whether it has EXIF that is damaged, or longer than a JPEG holds
    in_tiff   whether it is a TIFF
    found     texts of another kind
    """

    by_tag: Mapping[int, bytes] = field(default_factory=dict)
    further: bool = False
    in_tiff: bool = False
    exif: bytes = b""
    unread: bool = False
    found: Found = field(default_factory=Found)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Texts:
        """Read them; none where there are none, or the tags are damaged."""
        tiff, found = is_tiff(path), find_texts(path)
        try:
            with open(path, "rb") as file:
                tags: Any = read_directory(file) if tiff else _read_exif(file, found.exif)
                texts = {number: tags[number] for number in NAMES if number in tags}
                further = EXIF in tags or GPS in tags
                told = {number: text for number, text in texts.items() if isinstance(text, str) and text.strip("\0 ")}
                by_tag = {number: text.encode("latin1", "replace") for number, text in told.items()}
                exif, unread = _pack(file, tags, by_tag) if tiff else (found.exif, False)
        except Exception:  # of whatever is damaged: Pillow has no common base
            return Texts(in_tiff=tiff, unread=bool(found.exif), found=found)
        if len(exif) > MOST_EXIF:
            exif, unread = b"", True
        return Texts(by_tag, further, tiff, exif, unread, found)

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
        if lost := self._texts_lost(suffix, tags):
            them = "it" if len(lost) == 1 else "them"
            told.append(f"its {_say_texts(lost)} not kept in {suffix}; write PNG to keep {them}")
        if self.found.lost:
            told.append(f"its {_say_texts(self.found.lost)} too long, or no text, and not kept")
        return tuple(told)

    def _texts_lost(self, suffix: str, tags: Mapping[int, bytes]) -> list[str]:
        """Keywords of what a file of that kind, with these tags, has no place for."""
        lost = []
        for keyword, text in map(unpack, self.found.chunks):
            if keyword.startswith("date:"):  # ImageMagick's, of the file, not of the picture
                continue
            kept = text is not None and tags.get(BY_KEYWORD.get(keyword.lower(), 0)) == text.encode()
            in_jpeg = suffix in JPEG and text is not None and fits_jpeg(keyword, text)
            if text != "" and not (kept or in_jpeg or suffix in PNG):
                lost.append(keyword)
        return list(dict.fromkeys(lost))


def _say_texts(keywords: Sequence[str]) -> str:
    if len(keywords) == 1:
        return f"text {keywords[0]} is"
    more = f" and {len(keywords) - _SHOWN:,} more" if len(keywords) > _SHOWN else ""
    return f"texts {', '.join(keywords[:_SHOWN])}{more} are"


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


def _pack(file: BinaryIO, tags: Any, texts: Mapping[int, bytes]) -> tuple[bytes, bool]:
    """The texts of a TIFF with its EXIF and GPS, as other files hold them, and whether these had to be left out."""
    exif = Image.Exif()
    exif.update({number: _decode(text) for number, text in texts.items() if len(text) <= LONGEST})
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


def add_texts(path: Path, texts: Mapping[int, bytes]) -> None:
    """Add texts to the first page of a BigTIFF, in place of those that are there."""
    with open(path, "r+b") as file:
        end = "<" if file.read(2) == b"II" else ">"
        (version,) = struct.unpack(end + "H", file.read(2))
        assert version == _BIG, "TIFFs are written as BigTIFF"
        file.seek(8)
        file.seek(struct.unpack(end + "Q", file.read(8))[0])
        (count,) = struct.unpack(end + "Q", file.read(8))
        entries = [file.read(20) for _ in range(count)]
        following = file.read(8)
        by_tag = {struct.unpack(end + "H", entry[:2])[0]: entry for entry in entries}
        for number, text in texts.items():
            value = text + b"\0"
            at = file.seek(0, os.SEEK_END)
            place = value.ljust(8, b"\0") if len(value) <= 8 else struct.pack(end + "Q", at)
            by_tag[number] = struct.pack(end + "HHQ", number, _ASCII, len(value)) + place
            if len(value) > 8:
                file.write(value)
        at = file.seek(0, os.SEEK_END)
        file.write(bytes(-at % 8))
        directory = file.tell()
        file.write(struct.pack(end + "Q", len(by_tag)) + b"".join(by_tag[tag] for tag in sorted(by_tag)) + following)
        file.seek(8)
        file.write(struct.pack(end + "Q", directory))
