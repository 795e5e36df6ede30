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
from typing import Any, BinaryIO

from PIL import Image

from memsr_compiler.images.formats import open_read
from memsr_compiler.images.texts import iptc
from memsr_compiler.images.texts.other_parts import TIFF_PIXELS, find_other_parts, name_other_tags, name_tag
from memsr_compiler.images.texts.other_texts import find_other_texts
from memsr_compiler.images.texts.png_texts import Chunk, Found, find_texts, fits_jpeg, unpack
from memsr_compiler.images.tiff.by_hand import read_directory
from memsr_compiler.images.tiff.entries import (
    ASCII,
    BYTE,
    EXIF,
    GPS,
    INTEROP,
    LONG,
    SHORT,
    Entry,
    add_to_exif,
    is_whole,
    read_entries,
)
from memsr_compiler.images.tiff.tags import is_tiff

NAMES = {
    269: "DocumentName",
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
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
_XMP = 700
MOST_EXIF = 65_000  # bytes that libexif reads and a JPEG holds
_GROUPS = (EXIF, GPS, INTEROP)
NOT_IN_EXIF = (269, 316)  # of the tags: libvips has no name for them
LONGEST = 8_000  # bytes of a text in EXIF, of which there are eight
_OF_ORIGINAL = (256, 257, 59932, 59933)  # of EXIF: its sides; room for more, and what Windows notes of that
_IN_ANY = frozenset((*_OF_ORIGINAL, 274, 282, 283, 296, 531, 40960, 40962, 40963))  # or kept, or of the format
_NOTE = 37500  # of a camera's maker
# Its beginnings where places are counted from itself, so that it may stand anywhere: ExifTool's MakerNotes.pm.
_MOVABLE = (b"Apple iOS\0", b"Nikon\0\2", b"OLYMPUS\0", b"OM SYSTEM\0", b"FUJIFILM", b"PENTAX \0")
_SHOWN = 12  # texts that are named
TIFF, JPEG, PNG = (".tif", ".tiff"), (".jpg", ".jpeg"), (".png",)  # file name extensions


@dataclass(frozen=True)
class Texts:
    """Texts of an image, in bytes without the zero at their end, by the number of their tag.

    windows   tags of Windows', by their number: texts in its letters, and numbers
    exif      tags of EXIF and GPS, and these, where libvips does not read them: of a TIFF, and in a text of a PNG
    raw       EXIF of any file, as it has it
    exif_tags of EXIF for files other than TIFFs, each with the one that leads to its group, 0 for the first
    unread    whether it has EXIF that is damaged;   torn  in part, of which the rest is read
    in_tiff   whether it is a TIFF
    found     texts of another kind
    iptc      captions and keywords of the press;   photoshop  whether there are other resources of Photoshop's
    """

    by_tag: Mapping[int, bytes] = field(default_factory=dict)
    windows: Mapping[int, bytes | int] = field(default_factory=dict)
    in_tiff: bool = False
    exif: bytes = b""
    raw: bytes = b""
    unread: bool = False
    exif_tags: frozenset[tuple[int, int]] = frozenset()
    found: Found = field(default_factory=Found)
    iptc: bytes = b""
    photoshop: bool = False
    torn: bool = False

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Texts:
        """Read them; none where there are none, or the tags are damaged."""
        tiff, found, raw = is_tiff(path), find_other_texts(path) or find_texts(path), b""
        found = replace(found, others=(*found.others, *find_other_parts(path)))
        try:
            with open(path, "rb") as file:
                if not tiff and not found.exif:
                    raw = open_read(file).info.get("exif", b"")
                raw = found.exif or raw
                tags = read_directory(file) if tiff else _load_exif(raw)
                texts = {number: tags[number] for number in NAMES if number in tags}
                windows = _read_windows(tags)
                known = frozenset((*(number for number in texts if isinstance(texts[number], str)), *windows))
                told = {number: text for number, text in texts.items() if isinstance(text, str) and text.strip("\0 ")}
                by_tag = {number: text.encode("latin1", "replace") for number, text in told.items()}
                listed = frozenset[tuple[int, int]]() if tiff else _list_tags(tags)
                exif, raw, unread = _pack(file, tags, by_tag, windows) if tiff else (found.exif, raw, False)
                if tiff:
                    listed = list_exif(raw)
                    others = name_other_tags(tags, known)
                    found = replace(found, xmp=_read_xmp(tags), others=(*found.others, *others))
                press, photoshop = (iptc.find_in_tiff(tags), False) if tiff else iptc.find_in_jpeg(file)
        except Exception:  # of whatever is damaged: Pillow has no common base
            return Texts(in_tiff=tiff, unread=bool(raw) and not is_whole(raw), found=found)
        if len(exif) > MOST_EXIF:  # libvips reads none of it; what has room is added then
            exif, unread = b"", not listed
        return Texts(
            by_tag,
            windows,
            tiff,
            exif,
            raw,
            unread,
            listed,
            found,
            press or iptc.find_in_png(found.chunks),
            photoshop,
            torn=bool(raw) and not tiff and not is_whole(raw),
        )

    def tags(self, suffix: str) -> dict[int, bytes]:
        """Texts by the number of their tag for a file of that kind, where there is no other place for them."""
        texts = {number: text for number, text in self.by_tag.items() if suffix in TIFF or self._has_room(text)}
        for keyword, text in map(unpack, self.found.chunks):
            number = BY_KEYWORD.get(keyword.lower())
            if suffix in PNG or number is None or not text:
                continue
            if suffix in TIFF or (number not in NOT_IN_EXIF and len(text.encode()) <= LONGEST):
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

    def entries(self, suffix: str) -> dict[int, dict[int, Entry]]:
        """Tags that libvips may not write into a file of that kind, as they stand.

        Of a TIFF's first directory, which tells of its pixels, none of those that may; of a maker's note, which leads
        to places in its file, none but of makers that count these from the note itself, and of what is too long.
        """
        has_room = suffix in TIFF or len(self.raw) <= MOST_EXIF
        in_pixels = TIFF_PIXELS if suffix in TIFF else frozenset[int]()
        groups = {
            group: {
                number: entry
                for number, entry in entries.items()
                if number not in _IN_ANY and number not in _GROUPS and not (group == 0 and number in in_pixels)
                if number != _NOTE or (entry.content.startswith(_MOVABLE) and has_room)
            }
            for group, entries in read_entries(self.raw).items()
        }
        first = groups.setdefault(0, {})
        # In whatever letters they are: most programs take them for UTF-8, and libvips replaces what is not ASCII.
        first |= {number: Entry(ASCII, text + b"\0") for number, text in self.tags(suffix).items()}
        if suffix in TIFF:
            first |= self._entries_of_tiff()
        return groups

    def _entries_of_tiff(self) -> dict[int, Entry]:
        entries = {}
        for number, value in self.windows.items():
            numbers = Entry(SHORT, struct.pack("<H", value & 0xFFFF)) if isinstance(value, int) else Entry(BYTE, value)
            entries[number] = numbers
        if self.iptc:  # as numbers of 32 bits, as most programs want it
            entries[iptc.IN_TIFF] = Entry(LONG, self.iptc + bytes(-len(self.iptc) % 4))
        return entries

    def add_to_exif(self, exif: bytes, suffix: str) -> bytes:
        """EXIF that libvips wrote for such a file, with what it left out, and without the sides of the original."""
        return add_to_exif(exif, self.entries(suffix), MOST_EXIF, _OF_ORIGINAL)

    def say_lost(self, suffix: str) -> tuple[str, ...]:
        """Words on what a file of that kind will lack."""
        told, tags = [], self.tags(suffix)
        if self.unread:
            told.append("its EXIF is damaged and not kept")
        elif self.torn:
            told.append("its EXIF is damaged in part, or of kinds that are not known; what can be read of it is kept")
        if suffix not in TIFF:
            long = _list(number for number in self.by_tag if number not in tags)
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


def say_replaced(numbers: Iterable[int]) -> str:
    return f"in its {_list(numbers)} letters are replaced, as its EXIF is full; write TIFF to keep them"


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(NAMES[number] for number in numbers)


def _load_exif(raw: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(raw)
    return exif


def list_exif(raw: bytes) -> frozenset[tuple[int, int]]:
    """The tags of EXIF as a file holds it, as `Texts` has them."""
    return _list_tags(_load_exif(raw))


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
) -> tuple[bytes, bytes, bool]:
    """The texts of a TIFF with its EXIF and GPS, without these where they are too long for other files, and with them;
    and whether they are damaged.
    """
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
        return alone, alone, True
    return content if len(content) <= MOST_EXIF else alone, content, False


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin1")
