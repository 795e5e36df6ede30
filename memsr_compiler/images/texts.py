"""Texts beside an image, of who made it, when and with what: tags that TIFF and EXIF have in common.

libvips neither reads them in TIFF nor writes them there, but for a description.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

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
EXIF, GPS = 34665, 34853  # tags that say where further ones are
_ASCII, _BIG = 2, 43  # the type of such tags; the version of a BigTIFF


@dataclass(frozen=True)
class Texts:
    """Texts of an image, in bytes without the zero at their end, by the number of their tag.

    further   whether the file has EXIF or GPS tags besides
    in_tiff   whether it is a TIFF, of which libvips reads none of them
    """

    by_tag: Mapping[int, bytes] = field(default_factory=dict)
    further: bool = False
    in_tiff: bool = False

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Texts:
        """Read them; none where there are none, or the tags are damaged."""
        tiff = is_tiff(path)
        try:
            with open(path, "rb") as file:
                tags: Any = read_directory(file) if tiff else _read_exif(file)
                texts = {number: tags[number] for number in NAMES if number in tags}
                further = EXIF in tags or GPS in tags
        except Exception:  # of whatever is damaged: Pillow has no common base
            return Texts(in_tiff=tiff)
        told = {number: text for number, text in texts.items() if isinstance(text, str) and text.strip("\0 ")}
        return Texts({number: text.encode("latin1", "replace") for number, text in told.items()}, further, tiff)

    def fields(self) -> dict[str, str]:
        """Fields of libvips that it writes as EXIF: behind a text stands what it drops."""
        texts = {NAMES[number]: _decode(text) for number, text in self.by_tag.items()}
        return {f"exif-ifd0-{name}": f"{text} (-, ASCII, 1 components, 1 bytes)" for name, text in texts.items()}

    def say_lost(self, suffix: str) -> str:
        """Words on what a file of that kind will lack; "" for nothing."""
        if suffix in (".tif", ".tiff"):
            return (
                f"its EXIF is not kept in {suffix}; write PNG to keep it" if self.further and not self.in_tiff else ""
            )
        lost = ", ".join(NAMES[number] for number, text in self.by_tag.items() if not text.isascii())
        return f"EXIF holds ASCII: in its {lost} other letters are replaced; write TIFF to keep them" if lost else ""


def _read_exif(file: BinaryIO) -> Image.Exif:
    """The EXIF of a file, without a pixel: a PNG's own getexif decodes the image to look for some behind it."""
    return Image.Image.getexif(Image.open(file))


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
