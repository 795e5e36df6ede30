"""Checks a certificate: kernel algebra only, no image is computed, no pass is trusted or imported.

The claim.  Every channel z_p of a level of the plain network has a meaning in the teacher: a channel of a tensor t as
it is ("value"), relu(t), relu(-t), t + C, the constant 1, or 0.  If the meanings of one level are right, those of the
next are right too when each of its rows, a kernel on the z_p and a bias, is the one that the teacher's own
definitions give.  By induction from the input, whose meaning is itself, the output is the teacher's.  For every
image, up to the border, since "kernel on z" always means zero padding on both sides.

How a tensor is written in terms of a level is in `forms`; here is what is required of each row.  A position of -1 is
a channel that is always zero and was therefore left out; that too is checked.

A channel behind a ReLU may hold 2^-k of what it means, since relu(2^-k x) = 2^-k relu(x): its row is then 2^-k of the
exact one, and its column in the next layer 2^k.  In binary numbers that changes no digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import CertificateError, UnsupportedModel, first_line, tells_of_memory
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.proof.forms import (
    SPARE_DEFINITIONS,
    HeldLevel,
    Known,
    LinearForm,
    Reach,
    before_activation,
    is_finite,
    is_relu,
    never_negative,
    tensor_of,
)
from memsr_compiler.proof.rows import Expected, LayerScale, Rows
from memsr_compiler.proof.rows import Layer as Layer

PIECE = 1 << 17  # numbers of a layer that are looked at together
MOST_SCALED = 64  # largest k of a channel that holds 2^-k of what it means; no float16 or float32 needs more
WIDEST = 8  # channels of a level for each pixel-folded channel of the teacher: both signs, and partial sums
SPARE_WIDTH = 4096  # channels of padding
MOST_DEFINITIONS = 16  # of each op of the teacher, by all levels together; some networks need 3


@dataclass(frozen=True)
class Checked:
    """Findings about a plain network whose certificate holds.

    rounding  the largest difference between a stored number and the exact one, in half units in its last place (of a
              number just above a power of two): 1 at most, float64's own rounding aside
    constants  whether constants of shifts, of clamps, or large ones of the teacher enter
    losses    what is taken from each tensor by rounding these, and where float64 cannot tell (`Rows.lost`), in its own
              units: the most of each layer, and all layers together, since nothing says that they take turns
    by_channel the same of each channel, with what it loses in numbers too small for their dtype (`Rows.lost_digits`)

    Of tensors that lose nothing there are no entries.
    """

    rounding: float
    constants: bool
    losses: Mapping[str, float]
    by_channel: Mapping[str, Tensor]


def check(teacher: ir.Graph, layers: Iterable[Layer], certificate: Certificate, reach: Reach | None = None) -> Checked:
    """Raises CertificateError unless the plain network is the teacher, as the certificate claims.

    UnsupportedModel for a teacher that is too deep to tell; where there is not enough memory to, torch's error.

    reach   measures the magnitude of each channel of the teacher's tensors; it is called where numbers lose more than
            common rounding takes.  None: only constants are looked at
    """
    try:
        return _check(teacher, layers, certificate, reach)
    except RecursionError:
        raise UnsupportedModel(
            "the teacher has more sums and scalings one after another, without an activation between, than the proof "
            "follows; fold them"
        ) from None
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        if tells_of_memory(error):
            raise
        raise CertificateError(f"the certificate is malformed ({type(error).__name__}: {first_line(error)})") from error


def _check(teacher: ir.Graph, layers: Iterable[Layer], certificate: Certificate, reach: Reach | None) -> Checked:
    if not certificate.stages:
        raise CertificateError("the certificate has no stages")
    if certificate.input_range != (teacher.input.low, teacher.input.high):
        low, high = certificate.input_range
        raise CertificateError(
            f"the certificate is for images within {low:g} to {high:g}, "
            f"the teacher's are within {teacher.input.low:g} to {teacher.input.high:g}"
        )
    marked = next((op.name for op in teacher if not op.name or is_relu(op.name)), None)
    if marked is not None:
        raise CertificateError(f"the teacher has a tensor '{marked}', a name that only an activation's ReLU may have")
    _require_one_constant(certificate)
    todo: Iterator[Layer] = iter(layers)
    base, shuffle, rounding, constants, definitions = 1, 1, 0.0, False, 0
    losses: dict[str, float] = {}
    by_channel: dict[str, Tensor] = {}
    known = Known(teacher, never_negative(teacher), reach)
    widest = WIDEST * sum(t.channels * t.scale**2 for t in (teacher.type(op.name) for op in teacher))
    inputs: list[tuple[str, int]] = [(teacher.input.name, teacher.type(teacher.input.name).channels)]
    for number, stage in enumerate(certificate.stages):
        last_stage = number == len(certificate.stages) - 1
        if stage.base != base:
            raise CertificateError(f"stage {number} is at resolution {stage.base}, where {base} is due")
        if len(stage.levels) < 2:
            raise CertificateError(f"stage {number} has no layers")
        _require_inputs(stage.levels[0], inputs)
        below = HeldLevel(known, base, stage.levels[0], nonnegative=number == 0 and teacher.input.low >= 0)
        scaled = _sort_scaled(stage, f"stage {number}")
        powers = _read_powers(stage, scaled, 0, below.width, f"stage {number}, layer 0")
        for depth, meanings in enumerate(stage.levels[1:], start=1):
            layer = next(todo, None)
            if layer is None:
                raise CertificateError("the plain network has fewer layers than the certificate speaks of")
            ends = depth == len(stage.levels) - 1
            if (ends and (layer.relu or layer.slope is not None)) or (layer.shuffle != 1 and not ends):
                raise CertificateError(f"stage {number}, layer {depth}: ReLU or pixel shuffle in the wrong place")
            where = f"stage {number}, layer {depth}"
            if len(layer.weight) > widest + SPARE_WIDTH:
                raise CertificateError(f"{where}: is wider than all that the teacher computes, {len(layer.weight):,}")
            _require_sound(teacher, base, len(layer.weight), meanings, where)
            columns, powers = powers, _read_powers(stage, scaled, depth, len(layer.weight), where)
            checked, large = _check_layer(below, layer, meanings, LayerScale(powers, columns), where)
            rounding, constants = max(rounding, checked.rounding), constants or checked.constants
            definitions += below.definitions
            if definitions > SPARE_DEFINITIONS + MOST_DEFINITIONS * len(teacher.ops):
                raise CertificateError(f"{where}: the claims up to here take far more work than there are tensors")
            losses |= _add(losses, checked.losses)
            by_channel |= {t: lost + by_channel.get(t, 0.0) for t, lost in checked.by_channel.items()}
            signs = _never_negative(known, layer, meanings)
            below = HeldLevel(known, base, meanings, nonnegative=signs, constants=large)
            shuffle = layer.shuffle
        base *= shuffle
        inputs = _require_outputs(teacher, stage.levels[-1], shuffle, base, last_stage)
    if next(todo, None) is not None:
        raise CertificateError("the plain network has more layers than the certificate speaks of")
    return Checked(rounding, constants, losses, by_channel)


def _add(losses: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    return {tensor: loss + losses.get(tensor, 0.0) for tensor, loss in others.items()}


def _require_one_constant(certificate: Certificate) -> None:
    """A tensor is shifted by the same everywhere, so that a carry past many layers is a copy, which loses nothing."""
    constants: dict[str, float] = {}
    for m in (m for stage in certificate.stages for level in stage.levels for m in level if m.kind == "shifted"):
        if constants.setdefault(m.tensor, m.constant) != m.constant:
            raise CertificateError(f"{m.tensor}: is shifted by {constants[m.tensor]:.9g} and by {m.constant:.9g}")


def _sort_scaled(stage: Stage, where: str) -> dict[int, dict[int, int]]:
    """The powers that a stage's channels are scaled by, by level and channel."""
    scaled: dict[int, dict[int, int]] = {}
    for at, channel, k in stage.scaled:
        if not 0 <= at < len(stage.levels):
            raise CertificateError(f"{where}: speaks of level {at}, which there is not")
        if channel in scaled.setdefault(at, {}):
            raise CertificateError(f"{where}: scales channel {channel} of level {at} twice")
        scaled[at][channel] = k
    return scaled


def _read_powers(stage: Stage, scaled: Mapping[int, Mapping[int, int]], depth: int, width: int, where: str) -> Tensor:
    """Powers of two (width,) of a level's channels.

    What enters and leaves a stage is never scaled, nor the constant 1, nor what is shifted: their constants are found
    in biases as they are.
    """
    powers = torch.ones(width, dtype=torch.float64)
    ends = depth in (0, len(stage.levels) - 1)
    level = () if ends else stage.levels[depth]
    scalable = {p for m in level if m.kind not in ("one", "shifted") for p in m.positions if p >= 0}
    for channel, k in scaled.get(depth, {}).items():
        if channel not in scalable or not 0 < abs(k) <= MOST_SCALED:
            raise CertificateError(f"{where}: channel {channel} cannot be scaled by 2^{-k}")
        powers[channel] = 2.0**-k
    return powers


def _require_inputs(meanings: Sequence[ir.Meaning], inputs: list[tuple[str, int]]) -> None:
    """A stage starts from whole tensors, as they are, side by side."""
    start = 0
    expected = []
    for name, channels in inputs:
        expected.append(ir.Meaning("value", tuple(range(start, start + channels)), name, tuple(range(channels))))
        start += channels
    if list(meanings) != expected:
        raise CertificateError("a stage does not start from what the one before it made, or from the input")


def _require_outputs(
    teacher: ir.Graph, meanings: Sequence[ir.Meaning], shuffle: int, base: int, last: bool
) -> list[tuple[str, int]]:
    """A stage ends with whole tensors; the pixel shuffle brings them to resolution `base`.  Last: the output."""
    ends, start = [], 0
    for m in meanings:
        if m.kind != "value" or m.part is not None or m.tensor not in teacher:
            raise CertificateError(f"{m.tensor or m.kind}: a stage must end with whole tensors")
        t = teacher.type(m.tensor)
        fold = (t.scale * shuffle // base) ** 2
        whole = tuple(range(t.channels * fold))
        if t.scale != base or m.channels != whole:
            raise CertificateError(f"{m.tensor}: a stage must end with whole tensors at resolution {base}")
        if m.positions != tuple(range(start, start + len(whole))):
            raise CertificateError(f"{m.tensor}: is not where the next stage expects it")
        start += len(whole)
        ends.append((m.tensor, t.channels))
    if last and [name for name, _ in ends] != [teacher.output]:
        raise CertificateError("the last stage does not end with the teacher's output")
    return ends


def _require_sound(teacher: ir.Graph, base: int, rows: int, meanings: Sequence[ir.Meaning], where: str) -> None:
    """Every meaning speaks of channels that exist, of each once, under a condition that something can meet."""
    if len(meanings) > 2 * (rows + len(teacher.ops)):
        raise CertificateError(f"{where}: makes {len(meanings)} claims about {rows} channels")
    for m in meanings:
        bad = ""
        whole = {*map(type, m.positions), *map(type, m.channels)} == {int}
        if not whole or (m.tensor and len(m.channels) != len(m.positions)):
            bad = "does not say which channel is where"
        elif min(m.positions) < -1:
            bad = f"has position {min(m.positions)}"
        elif bool(m.tensor) != (m.kind in ("value", "positive", "negative", "shifted")):
            bad = f"means '{m.kind}'"
        elif m.tensor and tensor_of(m.tensor) not in teacher:
            bad = "is not a tensor of the teacher"
        elif len(set(m.channels or m.positions)) != len(m.positions):  # of zeros and ones, which have no others
            bad = "has a channel twice"
        elif m.kind != "shifted" and m.constant != 0:
            bad = f"means '{m.kind}' and has a constant, {m.constant}"
        elif m.kind == "shifted" and not 0 < m.constant < math.inf:
            bad = f"is shifted by {m.constant}, which no value allows"
        elif m.part is not None and (m.part.tensor != m.tensor or _has_twins((*m.part.sources, *m.part.rest))):
            bad = "is a part of another tensor, or overlaps the rest of it"
        elif m.part is not None and not {tensor_of(s) for s in (*m.part.sources, *m.part.rest)} <= set(
            teacher.structure
        ):
            bad = "is the part of something that is not a tensor of the teacher"
        elif m.tensor:
            t = teacher.type(tensor_of(m.tensor))
            if t.scale % base or min(m.channels) < 0 or max(m.channels) >= t.channels * (t.scale // base) ** 2:
                bad = "has no such channel"
        if bad:
            raise CertificateError(f"{where}: {m.tensor or m.kind}: {bad}")
    _require_once(meanings, where)


def _require_once(meanings: Sequence[ir.Meaning], where: str) -> None:
    """No channel means the same twice: that says nothing more, and each time it would be proved anew."""
    said: dict[object, set[tuple[int, int]]] = {}
    for m in meanings:
        here = said.setdefault((m.kind, m.tensor, m.part, m.constant), set())
        claims = set(zip(m.channels or m.positions, m.positions, strict=False))
        if not here.isdisjoint(claims):
            raise CertificateError(f"{where}: {m.tensor or m.kind}: is claimed twice of one channel")
        here |= claims


def _has_twins(names: Sequence[str]) -> bool:
    return len(set(names)) != len(names)


def _check_layer(
    below: HeldLevel, layer: Layer, meanings: Sequence[ir.Meaning], scale: LayerScale, where: str
) -> tuple[Checked, Tensor]:
    """Every row of the layer against what its meaning asks for; and the large constants that its channels hold."""
    told = {p for m in meanings for p in m.positions if p >= 0}
    k, k2 = layer.weight.shape[-2:]
    if layer.weight.dim() != 4 or k != k2 or k % 2 == 0 or layer.bias.shape != layer.weight.shape[:1]:
        raise CertificateError(f"{where}: kernel {k}x{k2} or bias is not what a plain layer has")
    if layer.slope is not None and (layer.relu or layer.slope.shape != (len(layer.weight), 1, 1)):
        raise CertificateError(f"{where}: has slopes that are not one for each channel, or beside a ReLU")
    if not (is_finite(layer.weight) and is_finite(layer.bias) and is_finite(layer.slopes)):
        raise CertificateError(f"{where}: NaN or infinite weights")
    if told != set(range(len(layer.weight))) or layer.weight.shape[1] != below.width:
        raise CertificateError(
            f"{where}: {len(layer.weight)} x {layer.weight.shape[1]} channels do not fit the certificate"
        )
    below.numbers = layer.weight.numel()
    rounding, constants, losses = 0.0, False, dict[tuple[str, ir.Part | None], float]()
    by_channel: dict[tuple[str, ir.Part | None], Tensor] = {}
    large = torch.zeros(len(layer.weight), dtype=torch.float64)
    # A layer of zeros (of x - x, say) has no scale of its own, and is held to that of images and common weights.
    largest = max(abs(float(v)) for v in layer.weight.aminmax()) or 1.0
    for m in _pieces(meanings, 1 + PIECE // layer.weight[0].numel()):
        at = torch.tensor(m.positions)
        expected = _expect(below, m, layer.slopes[at[at >= 0]], where)
        missing = below.missing(expected.form)
        if missing.any():
            row = int(missing.nonzero()[0])
            lacking = below.lacking(expected.form, row)
            raise CertificateError(
                f"{where}: {m.tensor}[{m.channels[row]}] needs {lacking}, which the level below does not hold"
            )
        form = expected.form.take(below.width).pad(layer.weight.shape[-1])
        if not all(is_finite(v) for v in (form.kernel, form.kernel_terms, form.bias_terms) if v is not None):
            raise CertificateError(f"{where}: {m.tensor}: the teacher's weights are NaN, infinite or too large")
        rows = Rows(below, layer, m, replace(expected, form=form), scale, f"{where}: {m.kind} {m.tensor}")
        rounding = max(rounding, rows.check(largest))
        constants |= rows.shifted
        lost = rows.lost()
        if lost.any():
            losses[m.tensor, m.part] = max(float(lost.max()), losses.get((m.tensor, m.part), 0.0))
        if below.known.reach is not None:
            lost += rows.lost_digits()
            if (shares := rows.lost_slopes()).any():
                lost += shares * _reach_of(below, m)
        if m.tensor and lost.any():
            count = below.teacher.type(tensor_of(m.tensor)).channels
            of_part = by_channel.setdefault((m.tensor, m.part), torch.zeros(count, dtype=torch.float64))
            index = torch.tensor(m.channels) // (below.channels(m.tensor) // count)  # of a channel's pixels all
            of_part.scatter_reduce_(0, index, lost, "amax")
        large[rows.at] = torch.maximum(large[rows.at], rows.large)
    together: dict[str, float] = {}
    for (tensor, _), most in losses.items():
        together[tensor] = together.get(tensor, 0.0) + most
    each: dict[str, Tensor] = {}
    for (tensor, _), channels in by_channel.items():
        each[tensor] = channels + each.get(tensor, 0.0)
    return Checked(rounding, constants, together, each), large


def _pieces(meanings: Sequence[ir.Meaning], rows: int) -> Iterator[ir.Meaning]:
    """The same claims, about few channels each: what is computed on the way then fits into a processor's cache."""
    for m in meanings:
        for i in range(0, len(m.positions), rows):
            yield replace(m, positions=m.positions[i : i + rows], channels=m.channels[i : i + rows])


def _expect(below: HeldLevel, m: ir.Meaning, slopes: Tensor, where: str) -> Expected:
    """The pre-activation and the slopes that give channels their meaning.

    slopes  that those of them which are there have
    """
    if m.kind in ("one", "zero"):
        constant = below.nothing(len(m.positions)).scale(1.0, float(m.kind == "one"))
        return Expected.behind(constant, 0.0, either=True)
    held = [h for h in below.held.get((m.tensor, m.part), []) if h.kind == m.kind and h.constant == m.constant]
    if m.kind != "value" and held:
        return Expected.behind(_copy(below, m, held), 0.0, either=True)
    if m.kind == "value":
        return _expect_value(below, m, bool(held), slopes, where)
    form = below.form(m.part or m.tensor).pick(m.channels)
    if m.kind == "negative":
        return Expected.behind(form.scale(-1.0), 0.0)
    return Expected.behind(form.scale(1.0, m.constant) if m.kind == "shifted" else form, 0.0)


def _expect_value(below: HeldLevel, m: ir.Meaning, held: bool, slopes: Tensor, where: str) -> Expected:
    """A tensor as it is: what its activation makes of its operand, or what passes this level's.

    Anything passes a slope of 1; what is never negative any, of which 0 and 1 are allowed.
    """
    form = None
    if m.part is None and not held:
        if not is_relu(m.tensor) and isinstance(below.teacher[m.tensor], ir.PRelu):
            form = below.form(m.tensor).pick(m.channels)  # from its two ReLUs, where the level has these
        activation = before_activation(below, m.tensor, m.channels)
        if activation is not None and (form is None or below.missing(form).any()):
            return Expected.behind(*activation)
    form = form or below.form(m.part or m.tensor).pick(m.channels)
    if bool((slopes == 1).all()) or below.missing(form).any():
        return Expected.behind(form, 1.0)
    by_rule = m.part is None and (is_relu(m.tensor) or m.tensor in below.never_negative)
    if not by_rule and not below.at_least_zero(form):
        raise CertificateError(f"{where}: {m.tensor}: goes through a ReLU as it is, though it may be negative")
    return Expected.behind(form, 0.0, either=True)


def _never_negative(known: Known, layer: Layer, meanings: Sequence[ir.Meaning]) -> Tensor:
    """Which of a layer's channels (C_out,) are never negative: behind a ReLU, or by what they mean."""
    signs = layer.slopes <= 0
    for m in meanings:
        if m.kind != "value" or (m.part is None and (is_relu(m.tensor) or m.tensor in known.never_negative)):
            signs[[p for p in m.positions if p >= 0]] = True
    return signs


def _reach_of(level: HeldLevel, m: ir.Meaning) -> Tensor:
    """Magnitude (C,) of what goes into the activations of some channels."""
    assert level.known.reach is not None, "somebody measures"
    measured = level.known.reach()[tensor_of(m.tensor)]
    return measured[torch.tensor(m.channels) // (level.channels(m.tensor) // len(measured))]


def _copy(below: HeldLevel, m: ir.Meaning, held: Sequence[ir.Meaning]) -> LinearForm:
    """relu(t), relu(-t) and t + C are never negative: a level above may copy them as they are."""
    where = {c: p for h in held for c, p in zip(h.channels, h.positions, strict=True)}
    form = below.nothing(len(m.channels))
    kernel = form.kernel.numpy()  # the same memory
    for row, channel in enumerate(m.channels):
        if where.get(channel, -1) >= 0:
            kernel[row, where[channel], 0, 0] = 1.0
    lost = torch.tensor([channel not in where for channel in m.channels], dtype=torch.float64)
    return form + below.unknown(m.tensor).pick(m.channels).scale(lost) if lost.any() else form
