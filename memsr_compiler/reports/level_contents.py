"""Contents of each level of a plain network, channel by channel, from its certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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


def list_bars(certificate: Certificate) -> list[Bar]:
    """The levels of a plain network as bars, stage after stage."""
    bars: list[Bar] = []
    layer = 0
    for stage in certificate.stages:
        below: frozenset[str] = frozenset()
        for i, level in enumerate(stage.levels):
            ends = i in (0, len(stage.levels) - 1)
            layer += i > 0
            label = f"after layer {layer}" if layer else "input"
            if not (ends and i == 0 and layer):
                bars.append(Bar(label, _sum_parts(level, below, ends)))
            below = frozenset(m.tensor for m in level)
    return bars


def _sum_parts(level: Sequence[Meaning], below: frozenset[str], ends: bool) -> tuple[tuple[str, int, str], ...]:
    """The channels of a level by what they hold, in the order of HOLDS; `below` are the tensors in the level before."""
    counts: dict[str, Counter[str]] = {what: Counter() for what in HOLDS}
    for m in level:
        counts[_classify_meaning(m, below, ends)][m.tensor] += len(m.positions)
    return tuple(
        (what, sum(tensors.values()), "\n".join(f"{name} ({n})" for name, n in tensors.items() if name))
        for what, tensors in counts.items()
        if tensors
    )


def _classify_meaning(m: Meaning, below: frozenset[str], ends: bool) -> str:
    if m.kind == "value":
        return HOLDS[0] if ends else "carried free" if m.tensor in below else "ReLU output"
    return {
        "positive": "carried split",
        "negative": "carried split",
        "shifted": "carried shifted",
        "one": "constant 1",
        "zero": "padding",
    }[m.kind]
