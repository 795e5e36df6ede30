"""Tags of a TIFF whose numbers have 16 or 32 bits, read by hand: of files too that Pillow does not know."""

from __future__ import annotations

import os
import struct

SAMPLES, PLANAR, TILE_WIDTH, EXTRA = 277, 284, 322, 338
SEPARATE, UNSPECIFIED = 2, 0

_KINDS = {3: "H", 4: "I"}  # types of such numbers, as struct calls them
_MOST = 1 << 16  # entries, and numbers of one: a TIFF has no more


def read_numbers(path: str | os.PathLike[str], wanted: int) -> tuple[int, ...]:
    """The numbers of a tag of the first page; () where it is not there.  Raises struct.error for a damaged file."""
    with open(path, "rb") as file:

        def read(pattern: str) -> tuple[int, ...]:
            return struct.unpack(end + pattern, file.read(struct.calcsize(end + pattern)))

        end = "<" if file.read(2) == b"II" else ">"
        (version,) = read("H")
        large = version == 43  # BigTIFF: as many bytes again, of which the first four say 8
        file.seek(8 if large else 4)
        file.seek(read("Q" if large else "I")[0])
        (entries,) = read("Q" if large else "H")
        for _ in range(min(entries, _MOST)):
            number, kind, count = read("HHQ" if large else "HHI")
            if number == wanted and kind in _KINDS and count <= _MOST:
                numbers = f"{count}{_KINDS[kind]}"
                if struct.calcsize(end + numbers) > (8 if large else 4):
                    file.seek(read("Q" if large else "I")[0])
                return read(numbers)
            file.seek(8 if large else 4, os.SEEK_CUR)
    return ()
