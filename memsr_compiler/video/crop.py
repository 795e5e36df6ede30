"""The crop that a film's container tells players: rows and columns of the pictures that they do not show.

PyAV gives no access to it.  Copied to a header of Matroska, which is kept in memory, it stands there in plain numbers,
whether the film is Matroska (PixelCrop) or MP4 (clap).
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
from av.error import FFmpegError
from av.video.stream import VideoStream

MASTERS = (0x18538067, 0x1654AE6B, 0xAE, 0xE0)  # elements that lead there: Segment, Tracks, TrackEntry, Video
CROPS = {
    0x54BB: "rows at the top",
    0x54AA: "rows at the bottom",
    0x54CC: "columns on the left",
    0x54DD: "columns on the right",
}


def name_crop(stream: VideoStream) -> str:
    """Words on a stream's crop: "8 rows at the top, 8 rows at the bottom"; "" where it has none."""
    found = [(number, CROPS[name]) for name, number in _find_crops(_write_header(stream)) if number]
    return ", ".join(f"{number} {where if number > 1 else where.replace('s ', ' ', 1)}" for number, where in found)


def _write_header(stream: VideoStream) -> bytes:
    """The header of a Matroska file with the stream; b"" where Matroska has no place for it, nor has MP4 a crop."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="matroska") as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
    except (FFmpegError, ValueError):
        return b""
    return file.getvalue()


def _find_crops(content: bytes) -> Iterator[tuple[int, int]]:
    """The crops among elements of Matroska: which, and how much."""
    at = 0
    while at < len(content):
        name, at = _read_number(content, at, keep_marker=True)
        size, at = _read_number(content, at, keep_marker=False)
        inner = content[at : at + size]  # of what has no end yet, a number larger than all
        if name in MASTERS:
            yield from _find_crops(inner)
        elif name in CROPS:
            yield name, int.from_bytes(inner, "big")
        at += size


def _read_number(content: bytes, at: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length, whose first bit that is set tells how many bytes it has; and where it ends."""
    length = 9 - content[at].bit_length()
    number = int.from_bytes(content[at : at + length], "big")
    return number if keep_marker else number & ((1 << 7 * length) - 1), at + length
