"""Certificates: what every channel of a plain network means in the teacher.  Data only; `checker` checks it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memsr_compiler.errors import CertificateError, first_line
from memsr_compiler.ir import Meaning, Part
from memsr_compiler.ir.approximation import Replacement

FORMAT = "memsr certificate 1"
MOST_CLAIMS = 64  # about a channel of a level, on average: equal channels have become one, of which all meanings hold
_NO_CHANNELS = "a level has no channels; the certificate is damaged"


@dataclass(frozen=True)
class Stage:
    """One stack of layers at one resolution.

    base     that resolution, relative to the network's input; meanings count channels folded to it
    levels   what the stack's input holds, then what each of its layers makes; the last layer has no ReLU
    scaled   (level, channel, k): this channel holds 2^-k of what it means, so that it stays in a narrow dtype's range
    """

    base: int
    levels: tuple[tuple[Meaning, ...], ...]
    scaled: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Certificate:
    """A claim: which teacher, which plain network (by hash of what they compute), and the meanings that link them.

    input_range   the promise holds for images within it; it must be the teacher's own
    approximation what was replaced of a teacher that has no plain form; the claim, and teacher_sha256, are then of the
                  teacher with these numbers in those places, and not of the teacher
    """

    teacher_sha256: str
    plain_sha256: str
    input_range: tuple[float, float]
    stages: tuple[Stage, ...]
    approximation: tuple[Replacement, ...] = ()

    @property
    def shifts(self) -> dict[str, float]:
        """Constants C of carries that are right only while |t| <= C, by tensor; empty if there is no such condition."""
        constants: dict[str, float] = {}
        for m in (m for stage in self.stages for level in stage.levels for m in level):
            if m.kind == "shifted":
                constants[m.tensor] = min(m.constant, constants.get(m.tensor, m.constant))
        return constants

    def to_json(self) -> str:
        stages = [
            {"base": s.base, "levels": [[_pack(m) for m in level] for level in s.levels]}
            | ({"scaled": s.scaled} if s.scaled else {})
            for s in self.stages
        ]
        return json.dumps(
            {
                "format": FORMAT,
                "teacher_sha256": self.teacher_sha256,
                "plain_sha256": self.plain_sha256,
                "input_range": [str(v) for v in self.input_range],
                **({"approximation": [r.to_data() for r in self.approximation]} if self.approximation else {}),
                "stages": stages,
            },
            separators=(",", ":"),
        )

    @staticmethod
    def from_json(text: str, layers: Sequence[tuple[int, int]] | None = None) -> Certificate:
        """The certificate in a text of `to_json`, and in no other.

        layers  channels in and out of each layer that the certificate is to be about: what speaks of others is refused
                before it takes memory

        Raises CertificateError if the text is not a certificate of this format.
        """
        try:
            data = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
            if data["format"] != FORMAT:
                raise CertificateError(f"this is a '{data['format']}', and only '{FORMAT}' is read; convert again")
            if layers is not None:
                _require_widths(data["stages"], layers)
            stages = tuple(
                Stage(
                    int(s["base"]),
                    tuple(tuple(_unpack(m) for m in level) for level in s["levels"]),
                    tuple(_unpack_scaled(entry) for entry in s.get("scaled", ())),
                )
                for s in data["stages"]
            )
            low, high = (float(v) for v in data["input_range"])
            constants = (m.constant for stage in stages for level in stage.levels for m in level)
            if not all(map(math.isfinite, (low, high, *constants))):
                raise ValueError("a number is not finite")
            replaced = tuple(Replacement.from_data(r) for r in data.get("approximation", ()))
            hashes = str(data["teacher_sha256"]), str(data["plain_sha256"])
            certificate = Certificate(*hashes, (low, high), stages, replaced)
            if certificate.to_json() != text:
                raise CertificateError("is not as it was written; convert again")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CertificateError(
                f"not a certificate ({type(error).__name__}: {first_line(error)}); convert again"
            ) from None
        return certificate


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.  Raises ValueError where a key stands twice, of which each reader takes the one it likes."""
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice")
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _require_widths(stages: Sequence[Mapping[str, Any]], layers: Sequence[tuple[int, int]]) -> None:
    """Raises CertificateError unless the claims are about these layers, and few for what the layers have."""
    if sum(len(s["levels"]) - 1 for s in stages) != len(layers):
        raise CertificateError(f"it does not speak of the {len(layers)} layers that there are; convert again")
    at = 0
    for stage in stages:
        for depth, level in enumerate(stage["levels"]):
            width = layers[at][0] if depth == 0 else layers[at + depth - 1][1]
            _require_width(level, width)
        at += len(stage["levels"]) - 1


def _require_width(level: Sequence[Mapping[str, Any]], width: int) -> None:
    fields = [m[field] for m in level for field in ("at", "channels") if field in m]
    if any(length < 1 for field in fields for _, length in field):  # which would make room for others
        raise CertificateError(_NO_CHANNELS)
    count = sum(length for field in fields for _, length in field)
    runs_in_all = sum(map(len, fields))
    outside = any(start + length > width for m in level for start, length in m["at"])
    # The constants 1 and 0 are of no tensor, whose channels several claims could be about: of each channel once.
    outside = outside or any(sum(n for _, n in m["at"]) > width for m in level if "channels" not in m)
    if outside or count > MOST_CLAIMS * (width + runs_in_all):
        raise CertificateError(f"it speaks of {count:,} channels where a level has {width}; convert again")


def _pack(m: Meaning) -> dict[str, Any]:
    packed: dict[str, Any] = {"kind": m.kind, "at": runs(m.positions)}
    if m.tensor:
        packed |= {"tensor": m.tensor, "channels": runs(m.channels)}
    if m.kind == "shifted":
        packed["constant"] = m.constant
    if m.part is not None:
        packed |= {"sources": m.part.sources, "rest": m.part.rest}
    return packed


def _unpack(data: dict[str, Any]) -> Meaning:
    if data["kind"] not in ("value", "positive", "negative", "shifted", "one", "zero"):
        raise CertificateError(f"a channel means '{data['kind']}', which is unknown; convert again")
    if data["kind"] != "shifted" and "constant" in data:
        raise CertificateError(f"a channel means '{data['kind']}' and has a constant; convert again")
    tensor = str(data.get("tensor", ""))
    part = Part(tensor, _unpack_names(data["sources"]), _unpack_names(data["rest"])) if "sources" in data else None
    channels = numbers(data["channels"]) if tensor else ()
    return Meaning(data["kind"], numbers(data["at"]), tensor, channels, float(data.get("constant", 0.0)), part)


def _unpack_names(data: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(name, str) for name in data):
        raise CertificateError("a part is of what has no name; the certificate is damaged")
    return tuple(data)


def _unpack_scaled(entry: Sequence[Any]) -> tuple[int, int, int]:
    level, channel, k = entry
    if not all(type(number) is int for number in (level, channel, k)):
        raise CertificateError("a channel is scaled by what is no whole number; the certificate is damaged")
    return level, channel, k


def runs(values: Sequence[int]) -> list[list[int]]:
    """[3, 4, 5, 9] -> [[3, 3], [9, 1]]: where a run of consecutive numbers starts, and its length."""
    ranges: list[list[int]] = []
    for v in values:
        if ranges and v == sum(ranges[-1]):
            ranges[-1][1] += 1
        else:
            ranges.append([v, 1])
    return ranges


def numbers(ranges: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The inverse of runs."""
    if any(length < 1 for _, length in ranges):
        raise CertificateError(_NO_CHANNELS)
    return tuple(start + i for start, length in ranges for i in range(length))
