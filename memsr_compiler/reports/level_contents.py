"""Contents of each level of a plain network, channel by channel, from its certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memsr_compiler.ir import Meaning
from memsr_compiler.proof.certificate import Certificate

HOLDS = (
    "image, or between stages",
    "ReLU output",
    "carried free",
    "carried split",
    "carried shifted",
    "constant 1",
    "padding",
)


@dataclass(frozen=True)
class Bar:
    """One level of a plain network: (what its channels hold, how many, of which tensors) from below."""

    label: str
    parts: tuple[tuple[str, int, str], ...]

    @property
    def width(self) -> int:
        return sum(channels for _, channels, _ in self.parts)


def list_bars(certificate: Certificate, slopes: Sequence[Tensor] = ()) -> list[Bar]:
    """The levels of a plain network as bars, stage after stage.

    slopes   of its layers' channels, in the PReLU form; none given: all are ReLUs
    """
    bars: list[Bar] = []
    layer = 0
    for stage in certificate.stages:
        below: frozenset[str] = frozenset()
        for i, level in enumerate(stage.levels):
            ends = i in (0, len(stage.levels) - 1)
            layer += i > 0
            label = f"after layer {layer}" if layer else "input"
            if not (ends and i == 0 and layer):
                here = slopes[layer - 1] if slopes and layer else None
                bars.append(Bar(label, _sum_parts(level, below, ends, here)))
            below = frozenset(m.tensor for m in level)
    return bars


def _sum_parts(
    level: Sequence[Meaning], below: frozenset[str], ends: bool, slopes: Tensor | None
) -> tuple[tuple[str, int, str], ...]:
    """The channels of a level by what they hold, in the order of HOLDS; `below` are the tensors in the level before."""
    counts: dict[str, Counter[str]] = {what: Counter() for what in HOLDS}
    for m in level:
        passes = slopes is not None and bool((slopes[[p for p in m.positions if p >= 0]] == 1).all())
        counts[_classify_meaning(m, passes or m.tensor in below, ends)][m.tensor] += len(m.positions)
    return tuple(
        (what, sum(tensors.values()), "\n".join(f"{name} ({n})" for name, n in tensors.items() if name))
        for what, tensors in counts.items()
        if tensors
    )


def _classify_meaning(m: Meaning, carried: bool, ends: bool) -> str:
    if m.kind == "value":
        return HOLDS[0] if ends else "carried free" if carried else "ReLU output"
    return {
        "positive": "carried split",
        "negative": "carried split",
        "shifted": "carried shifted",
        "one": "constant 1",
        "zero": "padding",
    }[m.kind]
