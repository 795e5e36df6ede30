"""The seal of an ONNX or TFLite file of ours: its last 64 characters are the SHA-256 of all that comes before.

They are the value of a metadata entry, so every reader of ONNX or TFLite takes the file.  A file of ours says what it
is in several places, and has to bear the seal if any of them is left: no damage makes it a file of somebody else's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import DIGEST_KEY, NO_DIGEST, open_file
from memsr_compiler.plain.manifest import (
    FORMAT,
    PLAIN_FORMAT_KEY,
    PRELU_FORMAT,
    QUANTIZED_FORMAT,
    QUANTIZED_KEY,
    REGAIN,
)
from memsr_compiler.tflite.metadata import DESCRIPTION, TFLITE_KEY

CHANGED = "was changed or damaged after it was written, its SHA-256 differs."

STILL = "ONNX Runtime may still run it; without its metadata it is read as anybody's."

UNSEALED = "an earlier version wrote it without a hash, so damage to it cannot be noticed; quantize again"

_ENTRY = b"\x72\x4f\x0a\x0b" + DIGEST_KEY.encode() + b"\x12\x40"  # of ModelProto.metadata_props, before its value
_OURS = b"memsr"
_IN_8_BITS = QUANTIZED_FORMAT.encode()
_SEALED = (PLAIN_FORMAT_KEY.encode(), FORMAT.encode(), PRELU_FORMAT.encode(), _IN_8_BITS)
_IN_TFLITE = (TFLITE_KEY.encode(), QUANTIZED_KEY.encode(), DESCRIPTION.encode())
_PIECE = 1 << 22


def seal(content: bytes) -> bytes:
    """A serialised model with the seal at its end."""
    content += _ENTRY
    return content + hashlib.sha256(content).hexdigest().encode()


def require_sealed_file(path: Path) -> None:
    """Raises InvalidInput for an ONNX file of ours that is not as it was written: see `require_seal`."""
    try:
        with open_file(path, "the network") as file:
            require_seal(file)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def require_seal(file: BinaryIO) -> None:
    """Raises InvalidInput, without the path, for an ONNX file of ours that is not as it was written.

    Files of others pass, and those in 8 bits of versions that sealed none.
    """
    found = _find(file, (*_SEALED, DIGEST_KEY.encode(), _OURS))
    claims = found.intersection(_SEALED) or {DIGEST_KEY.encode(), _OURS} <= found
    if claims and not is_sealed(file):
        again = "Get the file again where it came from, or quantize again." if _IN_8_BITS in found else REGAIN
        raise InvalidInput(f"{CHANGED} {again} ({STILL})")


def require_tflite_seal(data: bytes) -> None:
    """Raises InvalidInput, without the path, for a TFLite file of ours that is not as it was written; others pass."""
    claims = any(text in data for text in _IN_TFLITE) or (DIGEST_KEY.encode() in data and _OURS in data)
    if claims and not is_sealed(io.BytesIO(data)):
        raise InvalidInput(f"{CHANGED} Get the file again where it came from, or export or quantize again.")


def is_unsealed(metadata: Mapping[str, str]) -> bool:
    """Whether these are metadata of a network in 8 bits that an earlier version wrote, without a seal."""
    return QUANTIZED_KEY in metadata and DIGEST_KEY not in metadata


def is_sealed(file: BinaryIO) -> bool:
    """Whether a file ends with the SHA-256 of all that comes before."""
    left = max(file.seek(0, 2) - len(NO_DIGEST), 0)
    digest = hashlib.sha256()
    file.seek(0)
    while left and (piece := file.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    return file.read() == digest.hexdigest().encode()


def _find(file: BinaryIO, texts: tuple[bytes, ...]) -> set[bytes]:
    """The texts that a file holds, of those given."""
    return {text for piece in _overlapping(file, max(map(len, texts))) for text in texts if text in piece}


def _overlapping(file: BinaryIO, length: int) -> Iterator[bytes]:
    """A file's pieces, each with the end of the one before, so that a text of this length is whole in one of them."""
    file.seek(0)
    end = b""
    while piece := file.read(_PIECE):
        yield end + piece
        end = piece[-length:]
