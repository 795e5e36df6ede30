"""ICC profiles: those of JPEG 2000, BMP and GIF, which Pillow does not give, and whether pixels can be given one."""

from __future__ import annotations

import mmap
import os
import struct

from memsr_compiler.images.decoding.boxes import find_box

FORMATS = ("JPEG2000", "BMP", "GIF")  # as Pillow calls them
ICC = "icc-profile-data"  # what libvips calls it
MOST = 1 << 24  # bytes of a profile: tables of a printer have some millions
_HEAD = 132  # bytes of a profile before its contents, of which there may be none
_SPACES = {True: b"GRAY", False: b"RGB "}  # colours that a profile is for, by whether pixels are grey
_V5, _EMBEDDED, _LINKED = 124, b"DEBM", b"KNIL"  # length of a BMP's header, and what it calls such colours
_V4, _CALIBRATED = 108, 0  # and of one with primaries
_SRGB, _CLOSE = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), 0.01  # x and y of red, green, blue; nobody sees that
_GIF = b"ICCRGBG1012"


def read_profile(path: str | os.PathLike[str], kind: str | None, *, grey: bool) -> tuple[bytes | None, str]:
    """The ICC profile of a file, and a note where there is one that its pixels cannot be given.

    kind   the file's format, in Pillow's words
    grey   its pixels are grey
    """
    if kind not in FORMATS:
        return None, ""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            if kind == "BMP" and _has_own_primaries(data):
                return None, "says which red, green and blue it means, other than sRGB's, which is not kept"
            found = {"JPEG2000": _of_jpeg_2000, "BMP": _of_bmp, "GIF": _of_gif}[kind](data)
        except (struct.error, IndexError):  # damage, and none of the pixels'
            found = None
    return judge_profile(found, grey=grey)


def judge_profile(found: bytes | None, *, grey: bool) -> tuple[bytes | None, str]:
    """The ICC profile, if pixels, grey or RGB, can be given it, and a note where they cannot.

    Encoders drop what does not fit without a word, or refuse it in words that do not name it.
    """
    if found is None:
        return None, ""
    stated = int.from_bytes(found[:4], "big")
    if not (_HEAD <= stated <= min(len(found), MOST) and found[36:40] == b"acsp"):
        return None, "has an ICC profile that is damaged, or in another file, and is not kept"
    if found[16:20] != _SPACES[grey]:
        return None, f"has an ICC profile of other colours, {found[16:20].decode('latin1').strip()}, which is not kept"
    return found[:stated], ""


def _of_jpeg_2000(data: mmap.mmap) -> bytes | None:
    """By the first box `colr`, the only one that readers heed: ISO/IEC 15444-1, Annex I.5.3.3."""
    colours = find_box(data, (0, len(data)), b"jp2h", b"colr")
    if colours is None or data[colours[0]] not in (2, 3):  # methods: a plain profile, any
        return None
    return data[colours[0] + 3 : min(colours[1], colours[0] + 3 + MOST)]


def _of_bmp(data: mmap.mmap) -> bytes | None:
    if struct.unpack_from("<I", data, 14)[0] != _V5 or data[70:74] not in (_EMBEDDED, _LINKED):
        return None
    if data[70:74] == _LINKED:
        return b""
    begin, length = struct.unpack_from("<2I", data, 126)
    return data[14 + begin : 14 + begin + min(length, MOST)]


def _has_own_primaries(data: mmap.mmap) -> bool:
    """Whether a BMP has primaries other than those of sRGB: programs write them as XYZ, or as shares of it."""
    if struct.unpack_from("<I", data, 14)[0] < _V4 or struct.unpack_from("<I", data, 70)[0] != _CALIBRATED:
        return False
    numbers: tuple[int, ...] = struct.unpack_from("<9i", data, 74)
    colours = [numbers[at : at + 3] for at in (0, 3, 6)]
    if not all(sum(colour) > 0 for colour in colours):  # left empty
        return False
    shares = [part / sum(colour) for colour in colours for part in colour[:2]]
    return any(abs(a - b) > _CLOSE for a, b in zip(shares, _SRGB, strict=True))


def _of_gif(data: mmap.mmap) -> bytes | None:
    """By the application extension of International Color Consortium, before the first frame."""
    at = 13 + (3 * (2 << (data[10] & 7)) if data[10] & 0x80 else 0)
    while data[at] == 0x21:  # an extension
        wanted = data[at + 1] == 0xFF and data[at + 3 : at + 3 + len(_GIF)] == _GIF
        at += 2
        pieces, size = [], 0
        while length := data[at]:
            pieces += [data[at + 1 : at + 1 + length]] if wanted and size < MOST else []
            size += length
            at += 1 + length
        at += 1
        if wanted:
            return b"".join(pieces[1:])  # after the name
    return None
