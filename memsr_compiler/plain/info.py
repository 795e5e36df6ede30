"""Facts about networks: images in and out, and what a plain network's file says about it besides its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, cast

from memsr_compiler.checks import require_whole
from memsr_compiler.errors import InvalidInput
from memsr_compiler.quantities import say_count

_BETWEEN = "; "  # assumptions in a line of text
_FARTHEST, _NARROWEST = 1e12, 1e-12  # of a range: float32 squares and adds up what lies within, images of 65,535 anyway


def require_range(value: object) -> None:
    """Raises InvalidInput for what is no pair of numbers, an empty range, and one beyond what float32 computes with."""
    pair = value if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in pair):
        raise InvalidInput(f"input_range={value!r}: want the lowest and the highest value, (0, 1) or (0, 255)")
    low, high = pair
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInput(f"input range {low} {high} is empty or infinite; most networks take 0 1 or 0 255")
    if max(abs(low), abs(high)) > _FARTHEST or high - low < _NARROWEST:
        raise InvalidInput(
            f"input range {low} {high} is beyond what float32 computes with; most networks take 0 1 or 0 255"
        )


@dataclass(frozen=True)
class Takes:
    """The images that a network is given and gives back.

    scale        1: it works on an image that bicubic interpolation has enlarged already (SRCNN, VDSR)
    channels     3: RGB; 1: Y of ITU-R BT.601, studio range
    input_range  of its values, input and output alike
    """

    scale: int
    channels: int = 3
    input_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises InvalidInput for a network that does not work on photographs."""
        require_whole("scale", self.scale, 1, f"scale={self.scale}: want 2, 3 or 4, say, or 1 for an enlarged image")
        given = cast(object, self.channels)  # in Python it may be anything
        whole = isinstance(given, Integral) and not isinstance(given, bool)
        if not whole or self.channels not in (1, 3):
            raise InvalidInput(f"the network takes {self.channels} channels; photographs have 3, or 1 for Y")
        require_range(self.input_range)
        object.__setattr__(self, "scale", int(self.scale))  # NumPy's numbers compare alike, but are written otherwise
        object.__setattr__(self, "channels", int(self.channels))
        low, high = map(float, self.input_range)
        object.__setattr__(self, "input_range", (low, high))


@dataclass(frozen=True)
class PlainInfo:
    """Facts that a plain network's file states about it.

    scale            output size / input size
    channels         of the input: 3 for RGB, 1 for Y
    input_range      of the input's (and so the output's) values
    carry, guarantee how values pass the ReLUs, and for which inputs that is exact, in words
    teacher_sha256   of what the teacher computes (ops and weights)
    receptive_field  how many input pixels away from an output pixel may still change it
    image_skip       "" or, say, "nearest": the enlarged image that has to be added to the output
    tool             the version that made it
    assumed          what its teacher's file did not say, in words: see `Teacher.assumed`
    levels           of its teacher's plain form that its layers but the last stand for, from 1 and rising, where some
                     were left out
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
    assumed: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()

    @property
    def largest_shift(self) -> float:
        """The largest constant C of carries by a shift, as the guarantee states it; 0 where there is none."""
        stated = re.fullmatch(
            r"(?:an approximation: .*; of that, )?"
            r"exact while every carried value has a magnitude of at most (?:.* to )?(\S+)",
            self.guarantee,
        )
        return float(stated[1]) if stated else 0.0

    def to_strings(self) -> dict[str, str]:
        """The info as text, which is all that file metadata hold."""
        low, high = self.input_range
        text = {k: str(v) for k, v in asdict(self).items()} | {"input_range": f"{low} {high}"}
        text |= {"assumed": _BETWEEN.join(self.assumed), "levels": " ".join(map(str, self.levels))}
        return {k: v for k, v in text.items() if v or k not in ("assumed", "levels")}

    @staticmethod
    def from_strings(text: Mapping[str, str]) -> PlainInfo:
        """The info in text of `to_strings`.  Raises KeyError or ValueError."""
        low, high = text["input_range"].split()
        values: dict[str, Any] = {k: int(text[k]) for k in ("scale", "channels", "receptive_field")}
        values |= {k: text[k] for k in ("carry", "guarantee", "teacher_sha256", "image_skip", "tool")}
        assumed = tuple(text["assumed"].split(_BETWEEN)) if "assumed" in text else ()
        levels = tuple(map(int, text["levels"].split())) if "levels" in text else ()
        return PlainInfo(input_range=(float(low), float(high)), assumed=assumed, levels=levels, **values)


def takes_images(info: PlainInfo, width: int, shuffle: int, name: str) -> Takes:
    """The images that a plain network of that name takes, whose last layer has that many channels before its shuffle.

    Raises InvalidInput for one that gives another kind of image than it takes: it is equivalent to its teacher, and
    nothing that is done with photographs knows what to make of it.
    """
    given = width // shuffle**2
    if given != info.channels:
        raise InvalidInput(
            f"{name}: takes {say_count(info.channels, 'channel')} and gives {given}; for photographs a "
            "network is wanted that gives as many as it takes"
        )
    try:
        return Takes(info.scale, info.channels, info.input_range)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from None
