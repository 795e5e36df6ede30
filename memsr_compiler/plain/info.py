"""What a plain network's file says about it, besides its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PlainInfo:
    """What a plain network's file says about it.

    scale            output size / input size
    channels         of the input: 3 for RGB, 1 for Y
    input_range      of the input's (and so the output's) values
    carry, guarantee how values pass the ReLUs, and for which inputs that is exact, in words
    teacher_sha256   of what the teacher computes (ops and weights)
    receptive_field  how many input pixels away from an output pixel may still change it
    image_skip       "" or, say, "bicubic": the enlarged image that has to be added to the output
    tool             the version that made it
    """

    scale: int
    channels: int
    input_range: tuple[float, float]
    carry: str
    guarantee: str
    teacher_sha256: str
    receptive_field: int
    image_skip: str
    tool: str

    def to_strings(self) -> dict[str, str]:
        """For file metadata, which holds text only."""
        low, high = self.input_range
        return {k: f"{low} {high}" if k == "input_range" else str(v) for k, v in asdict(self).items()}

    @staticmethod
    def from_strings(text: Mapping[str, str]) -> PlainInfo:
        """The inverse.  Raises KeyError or ValueError."""
        low, high = text["input_range"].split()
        values: dict[str, Any] = {k: int(text[k]) for k in ("scale", "channels", "receptive_field")}
        values |= {k: text[k] for k in ("carry", "guarantee", "teacher_sha256", "image_skip", "tool")}
        return PlainInfo(input_range=(float(low), float(high)), **values)
