"""Tags of a TIFF that are whole numbers, and its pages, read by hand: of files too that Pillow does not know."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from memsr_compiler.errors import InvalidInput

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 273, 274, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_IFDS, EXTRA, SAMPLE_FORMAT = 322, 323, 324, 325, 330, 338, 339
PROFILE, DEPTH = 34675, 32997
SEPARATE, UNSPECIFIED, PACKBITS = 2, 0, 32773  # of PLANAR: each channel in strips of its own; of EXTRA, COMPRESSION
LOWEST_FIRST = 2  # of FILL_ORDER: bits within a byte
REDUCED = 1  # bit of NewSubfileType: a smaller picture of another one in the file

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two of BigTIFF
_BIG_ENDIAN_BIG = _STARTS[3]
_KINDS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of whole numbers, and of places, as struct calls them
_MOST = 1 << 16  # entries, numbers of one, and pages: a TIFF has no more


class _Tiff:
    """A TIFF, opened.  Raises struct.error where it ends too early."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.end = "<" if file.read(2) == b"II" else ">"
        (version,) = self.read("H")
        self.large = version == 43  # BigTIFF: as many bytes again, of which the first four say 8
        self.place = "Q" if self.large else "I"
        self.go_to(8 if self.large else 4)

    def read(self, pattern: str) -> tuple[int, ...]:
        return struct.unpack(self.end + pattern, self.file.read(struct.calcsize(self.end + pattern)))

    def go_to(self, at: int) -> None:
        try:
            self.file.seek(at)
        except (OSError, OverflowError, ValueError):
            raise struct.error("a place beyond any file") from None

    def follow(self) -> None:
        """Go where the next number says."""
        self.go_to(self.read(self.place)[0])

    def entries(self) -> int:
        """The number of entries of a page, at its beginning."""
        return self.read("Q" if self.large else "H")[0]


def is_tiff(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a TIFF does, raw files of many cameras among them."""
    with open(path, "rb") as file:
        return file.read(4) in _STARTS


def read_numbers(path: str | os.PathLike[str], wanted: int) -> tuple[int, ...]:
    """The numbers of a tag of the first page; () where it is not there.  Raises struct.error for a damaged file."""
    with open(path, "rb") as file:
        tiff = _Tiff(file)
        tiff.follow()
        for _ in range(min(tiff.entries(), _MOST)):
            number, kind, count = tiff.read("HHQ" if tiff.large else "HHI")
            if number == wanted and kind in _KINDS and count <= _MOST:
                numbers = f"{count}{_KINDS[kind]}"
                if struct.calcsize(tiff.end + numbers) > (8 if tiff.large else 4):
                    tiff.follow()
                return tiff.read(numbers)
            file.seek(8 if tiff.large else 4, os.SEEK_CUR)
    return ()


def count_pages(path: str | os.PathLike[str]) -> int:
    """The pages of a TIFF, of which no more is looked at than where the next one is: it may be of any kind.

    Raises InvalidInput where one lies beyond the file's end: it is cut off.
    """
    known: set[int] = set()
    with open(path, "rb") as file:
        try:
            tiff = _Tiff(file)
            while len(known) < _MOST:
                (at,) = tiff.read(tiff.place)
                if at == 0 or at in known:  # one that leads back is the last
                    break
                known.add(at)
                tiff.go_to(at)
                entries = tiff.entries()
                tiff.go_to(file.tell() + entries * (20 if tiff.large else 12))
        except struct.error:
            raise InvalidInput(
                f"{path}: is damaged (its page {len(known)} lies beyond its end); get it anew from where it comes from"
            ) from None
    return max(len(known), 1)


def require_whole_picture(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a TIFF whose first page is a small picture of another one, which stands further on."""
    try:
        reduced = is_tiff(path) and any(number & REDUCED for number in read_numbers(path, NEW_SUBFILE_TYPE))
        if reduced and (read_numbers(path, SUB_IFDS) or count_pages(path) > 1):
            raise InvalidInput(
                f"{path}: its first page is a small picture of another one that stands further on, as in raw files of "
                "cameras (DNG, NEF): develop it, or save the photograph itself as TIFF or PNG"
            )
    except struct.error:  # damage, which others tell of
        return


def require_known_order(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a BigTIFF of big-endian numbers, whose tags Pillow takes for those of a small TIFF."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start == _BIG_ENDIAN_BIG:
        raise InvalidInput(
            f"{path}: is a BigTIFF whose numbers have their highest byte first, which is not handled: save it as a "
            "TIFF of up to 4 GB, as a BigTIFF with the lowest byte first, or as PNG"
        )


def require_flat(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a TIFF whose first page is a body of several slices, not a picture."""
    try:
        slices = max(read_numbers(path, DEPTH), default=1) if is_tiff(path) else 1
    except struct.error:  # damage, which others tell of
        return
    if slices > 1:
        raise InvalidInput(
            f"{path}: its first page is a body of {slices} slices (ImageDepth), as of microscopes, not a picture: save "
            "each slice as a TIFF or PNG of its own"
        )


def require_known_predictor(path: str | os.PathLike[str]) -> None:
    """Raise InvalidInput for a TIFF in PackBits that tells of a predictor, which some apply and others do not."""
    try:
        packed = is_tiff(path) and read_numbers(path, COMPRESSION) == (PACKBITS,)
        if packed and read_numbers(path, PREDICTOR) not in ((), (1,)):
            raise InvalidInput(
                f"{path}: its pixels are compressed by PackBits and it tells of a predictor besides, which some "
                "programs undo and others pass over: save it with deflate or LZW, or without predictor"
            )
    except struct.error:  # damage, which others tell of
        return
