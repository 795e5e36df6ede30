"""Headers of FITS files, which say what their numbers mean: Pillow passes over all but how many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from memsr_compiler.errors import InvalidInput

_CARD, _BLOCK = 80, 2880  # bytes of an entry of a header; headers and data begin at multiples of the latter
_HALF = 32768.0  # added to numbers of 16 bits with a sign that stand for those without


def find_offset(path: str | os.PathLike[str]) -> int:
    """The number that makes levels of a file's numbers, added to them: 32768 of 16 bits, of which the format has those
    with a sign alone, and else 0.

    Raises InvalidInput where levels are made in another way, or nothing says which of them is black.
    """
    header: dict[bytes, bytes] = {}
    for keyword, value in _read_cards(path):
        header[keyword] = value
    bits = header.get(b"ZBITPIX", header.get(b"BITPIX"))
    planes = header.get(b"ZNAXIS3", header.get(b"NAXIS3", b"1"))
    zero, scale = (_read_number(header, name, usual) for name, usual in ((b"BZERO", 0.0), (b"BSCALE", 1.0)))
    if planes != b"1":
        raise InvalidInput(f"has {planes.decode('latin-1')} planes, of which Pillow reads one: save it as TIFF or PNG")
    if bits == b"16" and (zero, scale) == (_HALF, 1.0):
        return int(_HALF)
    if (zero, scale) != (0.0, 1.0):
        raise InvalidInput(
            f"its levels are its numbers times {scale:g} plus {zero:g} (FITS's BSCALE and BZERO), which is not "
            "handled: save it as TIFF or PNG"
        )
    if bits == b"16":
        raise InvalidInput(
            "its pixels are whole numbers of 16 bits with a sign, and nothing says which is black: save it without"
        )
    return 0


def _read_cards(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, bytes]]:
    """Keywords and values of the headers up to that of the image: those before it have no data."""
    with open(path, "rb") as file:
        axes, first = b"0", True
        while len(card := file.read(_CARD)) == _CARD:
            keyword, value = card[:8].strip(), card[10:].split(b"/")[0].strip()
            if first and keyword not in (b"SIMPLE", b"XTENSION"):
                return
            first = keyword == b"END"
            if keyword == b"NAXIS":
                axes = value
            if first:
                if axes != b"0":
                    return
                file.seek(-(-file.tell() // _BLOCK) * _BLOCK)
            yield keyword, value


def _read_number(header: Mapping[bytes, bytes], keyword: bytes, usual: float) -> float:
    """A number as Fortran writes it, 1.0D0 too; the usual one where it has no value.  Raises InvalidInput."""
    value = header.get(keyword, b"").decode("latin-1")
    try:
        return float(value.replace("D", "E")) if value else usual
    except ValueError:
        raise InvalidInput(
            f"its {keyword.decode()} is {value}, which is no number: is it damaged? Save it as TIFF or PNG"
        ) from None
