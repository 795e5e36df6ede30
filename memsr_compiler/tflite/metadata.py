"""Facts about a network of ours in its TFLite file: an entry of the metadata, KEY=VALUE in lines."""

from __future__ import annotations

from collections.abc import Mapping

ENTRY = "memsr"
"""Name of the entry."""
TFLITE_KEY = "memsr_tflite"
"""What the facts of a float network begin with; those of one in 8 bits say so as its ONNX file does."""

DESCRIPTION = "ends with its SHA-256"
"""Words that end the description of a file of ours."""


def write_facts(facts: Mapping[str, str]) -> str:
    """Text of the entry."""
    return "".join(f"{key}={value}\n" for key, value in facts.items())


def read_facts(metadata: Mapping[str, bytes]) -> dict[str, str]:
    """Facts in the metadata of a file; none where it is not of ours."""
    lines = metadata.get(ENTRY, b"").decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
