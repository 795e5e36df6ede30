"""SHA-256 of files, of numbers, and of what a stack of layers computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK = 1 << 22


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def numbers_sha256(dtype: str, shape: tuple[int, ...], content: bytes | memoryview) -> str:
    """Hash of numbers, little-endian and in C order, and of what they are: "float32", (C_out, C_in, k, k)."""
    digest = hashlib.sha256(f"torch.{dtype}{shape}".encode())  # as torch prints the two: files are older than this
    digest.update(content)
    return digest.hexdigest()


def stack_sha256(layers: Iterable[tuple[str, str, bool, int]]) -> str:
    """Hash of what layers compute: of each the hashes of weight and bias, ReLU or not, the pixel shuffle's factor."""
    digest = hashlib.sha256()
    for weight, bias, relu, shuffle in layers:
        digest.update(f"{weight} {bias} {relu} {shuffle};".encode())
    return digest.hexdigest()
