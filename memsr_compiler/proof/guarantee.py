"""Inputs for which a plain network is its teacher: read off the certificate, so that nobody has to be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.ir import names
from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.proof.forms import never_negative


@dataclass(frozen=True)
class Carried:
    """A tensor taken past ReLUs: so many channels of it, in one form, past so many layers.

    form       "free": it is never negative; "split": its two signs; "shift": with a constant; "pass": by slopes of 1

    constant   C of a shift, the smallest of them; 0 for the other forms
    image      it is free only because images have no negative values
    """

    tensor: str
    channels: int
    form: str
    layers: int
    constant: float = 0.0
    image: bool = False

    @property
    def guarantee(self) -> str:
        """Inputs for which the form is exact, in words."""
        if self.form in ("split", "pass"):
            return "exact for every value"
        if self.form == "shift":
            return f"exact while its magnitude is at most {self.constant:g}"
        return "exact for images that are never negative" if self.image else "exact: it is never negative"


APPROXIMATION = "an approximation: the teacher with "
"""Beginning of the guarantee of a plain network that is not its teacher."""

_FORMS = {"value": "free", "positive": "split", "shifted": "shift"}


def list_carried(certificate: Certificate, teacher: ir.Graph, slopes: Sequence[Tensor]) -> list[Carried]:
    """Values that cross more ReLUs than the one that made them, or cross one without being a ReLU's.

    slopes  of the plain network's layers, (C_out,) each: 0 in a ReLU, 1 where a value passes as it is
    """
    always = never_negative(_for_any_image(teacher))
    tensors: dict[tuple[str, str], Carried] = {}
    for base, level, slope in _list_inner_levels(certificate, slopes):
        for m in level:
            if m.kind not in _FORMS:
                continue
            name = m.tensor if m.part is None else f"part of {m.tensor}"
            width = sum(p >= 0 for p in m.positions)
            terms = (m.tensor,) if m.part is None else (m.tensor, *m.part.sources)  # max(x, relu(y)), and x of it
            form, image = _FORMS[m.kind], False
            if m.kind == "value" and not all(names.is_relu(t) or t in always for t in terms):
                here = slope[[p for p in m.positions if p >= 0]]
                if _is_made(m, here, teacher, base):
                    continue
                image = bool((here != 1).any())
                form = form if image else "pass"
            before = tensors.get((name, form), Carried(name, width, form, 0, m.constant, image))
            tensors[name, form] = replace(
                before,
                channels=max(width, before.channels),
                layers=before.layers + 1,
                constant=min(m.constant, before.constant),
            )
    return [c for (name, _), c in tensors.items() if c.form != "free" or c.layers > 1 or not _is_relu(teacher, name)]


def _list_inner_levels(
    certificate: Certificate, slopes: Sequence[Tensor]
) -> Iterator[tuple[int, tuple[ir.Meaning, ...], Tensor]]:
    """Levels that end with an activation, their resolution, and the slopes of that."""
    above = iter(slopes)
    for stage in certificate.stages:
        for i, (level, slope) in enumerate(zip(stage.levels[1:], above), start=2):  # noqa: B905
            if i < len(stage.levels):
                yield stage.base, level, slope


def _is_made(m: ir.Meaning, slopes: Tensor, teacher: ir.Graph, base: int) -> bool:
    """Whether these are the slopes of the teacher's own PReLU, which is then what makes the tensor."""
    op = teacher[m.tensor] if m.part is None and m.tensor in teacher else None
    if not isinstance(op, ir.PRelu):
        return False
    own = op.slope.repeat_interleave((teacher.type(m.tensor).scale // base) ** 2)
    there = [c for c, p in zip(m.channels, m.positions, strict=True) if p >= 0]
    return bool((slopes == own[there].to(slopes.dtype)).all() and (own != 1).any())


def state_guarantee(tensors: Sequence[Carried], approximation: Sequence[Replacement] = ()) -> str:
    """The inputs for which the plain network is the teacher, or the frozen one that stands for it, in one sentence."""
    if approximation:
        return f"{APPROXIMATION}{count_replacements(approximation)} replaced; of that, {state_guarantee(tensors)}"
    constants = sorted({t.constant for t in tensors if t.form == "shift"})
    if constants:
        each = f"{constants[0]:g}" if len(constants) == 1 else f"its own C, {constants[0]:.3g} to {constants[-1]:.3g}"
        return f"exact while every carried value has a magnitude of at most {each}"
    if any(t.image for t in tensors):
        return "exact for every image without negative values"
    return "exact for every image"


def count_replacements(approximation: Sequence[Replacement]) -> str:
    """'6 gates, 2 gelu', in the order of the first of each kind."""
    kinds = Counter(r.kind for r in approximation)
    plural = {kind: "s" if count > 1 and kind.endswith(("gate", "curve")) else "" for kind, count in kinds.items()}
    return ", ".join(f"{count} {kind}{plural[kind]}" for kind, count in kinds.items())


def _is_relu(teacher: ir.Graph, name: str) -> bool:
    return names.is_relu(name) or (name in teacher and isinstance(teacher[name], ir.Relu))


def _for_any_image(teacher: ir.Graph) -> ir.Graph:
    ops = tuple(replace(op, low=float("-inf")) if isinstance(op, ir.Input) else op for op in teacher)
    return ir.Graph(ops, teacher.output)
