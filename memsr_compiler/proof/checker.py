"""Checks a certificate: kernel algebra only, no image is computed, no pass is trusted or imported.

The claim.  Every channel z_p of a level of the plain network has a meaning in the teacher: a channel of a tensor t as
it is ("value"), relu(t), relu(-t), t + C, the constant 1, or 0.  If the meanings of one level are right, those of the
next are right too when each of its rows, a kernel on the z_p and a bias, is the one that the teacher's own
definitions give.  By induction from the input, whose meaning is itself, the output is the teacher's.  For every
image, up to the border, since "kernel on z" always means zero padding on both sides.

How a tensor is written in terms of a level: if the level holds it, it is read off; else by the teacher's definition
of it, from its operands, which are written so in turn.  That is `_Level.form`.  A position of -1 is a channel that is
always zero and was therefore left out; that too is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.proof.certificate import Certificate


@dataclass(frozen=True)
class Layer:
    """One layer of the plain network: weight (C_out, C_in, k, k) and bias (C_out,) as stored, ReLU or not, and the
    factor of the pixel shuffle after it (1: none)."""

    weight: Tensor
    bias: Tensor
    relu: bool
    shuffle: int


PIECE = 1 << 17  # numbers of a layer that are looked at together


def check(teacher: ir.Graph, layers: Iterable[Layer], certificate: Certificate) -> float:
    """Raises CertificateError unless the plain network is the teacher, as the certificate claims.

    Returns the largest difference between a stored number and the exact one, relative to it: rounding to the stored
    dtype.  Allowed is eps / 2, which is half a unit in the last place for a power of two and almost a whole one just
    below the next; of a bias beside a tap on `one`, eps / 2 of the two together; and 1e-13 of the largest number in
    the row, since the exact ones are computed in float64.
    """
    try:
        return _check(teacher, layers, certificate)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CertificateError(f"the certificate is malformed ({type(error).__name__}: {error})") from error


def _check(teacher: ir.Graph, layers: Iterable[Layer], certificate: Certificate) -> float:
    if not certificate.stages:
        raise CertificateError("the certificate has no stages")
    if certificate.input_range != (teacher.input.low, teacher.input.high):
        low, high = certificate.input_range
        raise CertificateError(
            f"the certificate is for images within {low:g} to {high:g}, "
            f"the teacher's are within {teacher.input.low:g} to {teacher.input.high:g}"
        )
    todo: Iterator[Layer] = iter(layers)
    base, shuffle, worst = 1, 1, 0.0
    known = _Known(teacher, never_negative(teacher))
    inputs: list[tuple[str, int]] = [(teacher.input.name, teacher.type(teacher.input.name).channels)]
    for number, stage in enumerate(certificate.stages):
        last_stage = number == len(certificate.stages) - 1
        if stage.base != base:
            raise CertificateError(f"stage {number} is at resolution {stage.base}, where {base} is due")
        if len(stage.levels) < 2:
            raise CertificateError(f"stage {number} has no layers")
        _require_inputs(stage.levels[0], inputs)
        below = _Level(known, base, stage.levels[0], nonnegative=number == 0 and teacher.input.low >= 0)
        for depth, meanings in enumerate(stage.levels[1:], start=1):
            layer = next(todo, None)
            if layer is None:
                raise CertificateError("the plain network has fewer layers than the certificate speaks of")
            ends = depth == len(stage.levels) - 1
            if layer.relu == ends or (layer.shuffle != 1 and not ends):
                raise CertificateError(f"stage {number}, layer {depth}: ReLU or pixel shuffle in the wrong place")
            _require_sound(teacher, base, meanings, f"stage {number}, layer {depth}")
            worst = max(worst, _check_layer(below, layer, meanings, f"stage {number}, layer {depth}"))
            below, shuffle = _Level(known, base, meanings, nonnegative=layer.relu), layer.shuffle
        base *= shuffle
        inputs = _require_outputs(teacher, stage.levels[-1], shuffle, base, last_stage)
    if next(todo, None) is not None:
        raise CertificateError("the plain network has more layers than the certificate speaks of")
    return worst


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
    found, start = [], 0
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
        found.append((m.tensor, t.channels))
    if last and [name for name, _ in found] != [teacher.output]:
        raise CertificateError("the last stage does not end with the teacher's output")
    return found


def _require_sound(teacher: ir.Graph, base: int, meanings: Sequence[ir.Meaning], where: str) -> None:
    """Every meaning speaks of channels that exist, of each once, under a condition that something can meet."""
    for m in meanings:
        bad = ""
        whole = {*map(type, m.positions), *map(type, m.channels)} == {int}
        if not whole or (m.tensor and len(m.channels) != len(m.positions)):
            bad = "does not say which channel is where"
        elif bool(m.tensor) != (m.kind in ("value", "positive", "negative", "shifted")):
            bad = f"means '{m.kind}'"
        elif m.tensor and m.tensor.split("#")[0] not in teacher:
            bad = "is not a tensor of the teacher"
        elif m.tensor and len(set(m.channels)) != len(m.channels):
            bad = "has a channel twice"
        elif m.kind != "shifted" and m.constant != 0:
            bad = f"means '{m.kind}' and has a constant, {m.constant}"
        elif m.kind == "shifted" and not 0 < m.constant < math.inf:
            bad = f"is shifted by {m.constant}, which no value allows"
        elif m.part is not None and (m.part.tensor != m.tensor or set(m.part.sources) & set(m.part.rest)):
            bad = "is a part of another tensor, or overlaps the rest of it"
        elif m.part is not None and not {s.split("#")[0] for s in (*m.part.sources, *m.part.rest)} <= set(
            teacher.structure
        ):
            bad = "is the part of something that is not a tensor of the teacher"
        elif m.tensor:
            t = teacher.type(m.tensor.split("#")[0])
            if t.scale % base or min(m.channels) < 0 or max(m.channels) >= t.channels * (t.scale // base) ** 2:
                bad = "has no such channel"
        if bad:
            raise CertificateError(f"{where}: {m.tensor or m.kind}: {bad}")


def never_negative(teacher: ir.Graph) -> frozenset[str]:
    """Tensors of the teacher that are >= 0 for every image in the input range, by simple rules."""
    found: set[str] = set()
    for op in teacher:
        operands = [i in found for i in op.inputs]
        if isinstance(op, ir.Input):
            holds = op.low >= 0
        elif isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
            holds = operands[0] and bool((op.weight >= 0).all() and (op.bias >= 0).all())
        elif isinstance(op, ir.Affine):
            holds = operands[0] and bool((op.scale >= 0).all() and (op.shift >= 0).all())
        elif isinstance(op, ir.PRelu):
            holds = bool((op.slope <= 0).all())
        elif isinstance(op, ir.Clamp):
            holds = op.low >= 0
        elif isinstance(op, ir.Maximum):
            holds = any(operands)
        elif isinstance(op, (ir.Sum, ir.Concat, ir.Select, ir.PixelShuffle, ir.PixelUnshuffle)):
            holds = all(operands)
        else:
            holds = isinstance(op, ir.Relu)
        if holds:
            found.add(op.name)
    return frozenset(found)


@dataclass(frozen=True)
class _Known:
    """The teacher, and which of its tensors are never negative."""

    teacher: ir.Graph
    never_negative: frozenset[str]


@dataclass(frozen=True)
class _Form:
    """A tensor in terms of a level's channels: kernel * z + bias.

    kernel (C, width + ..., k, k)   bias (C,).  Columns from `width` on are what the level does not hold; a form that
    needs none of them is known.  They may cancel: t - t is 0 where t is not held.
    """

    kernel: Tensor
    bias: Tensor

    def mixed(self, matrix: Tensor, bias: Tensor | float = 0.0) -> _Form:
        """matrix * self + bias."""
        kernel = (matrix @ self.kernel.flatten(1)).reshape(len(matrix), *self.kernel.shape[1:])
        return _Form(kernel, matrix @ self.bias + bias)

    def picked(self, index: Sequence[int]) -> _Form:
        rows = torch.tensor(index)
        return _Form(self.kernel.index_select(0, rows), self.bias[rows])

    def scaled(self, scale: Tensor | float, shift: Tensor | float = 0.0) -> _Form:
        s = torch.broadcast_to(torch.as_tensor(scale, dtype=torch.float64), self.bias.shape)
        return _Form(self.kernel * s[:, None, None, None], self.bias * s + shift)

    def __add__(self, other: _Form) -> _Form:
        size, columns = _common([self, other])
        return _Form(_padded(self.kernel, size, columns) + _padded(other.kernel, size, columns), self.bias + other.bias)


Get = Callable[[str], _Form]


def _leaves(part: ir.Part) -> frozenset[str]:
    return frozenset((*part.sources, *part.rest))


class _Level:
    """What a level holds, and how the teacher's tensors are written in terms of it.

    nonnegative   no channel of it is ever negative: it is behind a ReLU, or the image
    """

    def __init__(self, known: _Known, base: int, meanings: Sequence[ir.Meaning], *, nonnegative: bool) -> None:
        self.teacher, self.never_negative = known.teacher, known.never_negative
        self.base, self.nonnegative = base, nonnegative
        self.width = 1 + max(p for m in meanings for p in m.positions)
        self.one = next((p for m in meanings if m.kind == "one" for p in m.positions if p >= 0), None)
        self.zeros = [p for m in meanings if m.kind == "zero" for p in m.positions if p >= 0]
        self.held: dict[tuple[str, ir.Part | None], list[ir.Meaning]] = {}
        for m in meanings:
            if m.tensor:
                self.held.setdefault((m.tensor, m.part), []).append(m)
        self.forms: dict[str | ir.Part, _Form] = {}
        # the first column that stands for a tensor which is not held
        self.absent: dict[tuple[str, ir.Part | None], int] = {}
        self.columns = self.width

    def unknown(self, name: str, part: ir.Part | None = None) -> _Form:
        """A tensor that the level has no way to: columns of its own, beside the level's."""
        c = self.channels(name)
        if (name, part) not in self.absent:
            self.absent[name, part], self.columns = self.columns, self.columns + c
        start = self.absent[name, part]
        kernel = torch.zeros(c, start + c, 1, 1, dtype=torch.float64)
        kernel[:, start:, 0, 0] = torch.eye(c, dtype=torch.float64)
        return _Form(kernel, torch.zeros(c, dtype=torch.float64))

    def fresh(self, name: str) -> _Form:
        """Columns that nothing else shares, so that they never cancel: not the tensor itself but what some leaves,
        set to zero, leave of it.  No certificate can speak of this part: no tensor's name starts with "#"."""
        return self.unknown(name, ir.Part(name, (f"#{self.columns}",), ()))

    def missing(self, form: _Form) -> Tensor:
        """(C,): which rows need what the level does not hold."""
        return (form.kernel[:, self.width :] != 0).flatten(1).any(1)

    def lacking(self, form: _Form, row: int) -> str:
        """The first tensor that a row needs and the level does not hold."""
        column = self.width + int((form.kernel[row, self.width :] != 0).flatten(1).any(1).nonzero()[0])
        return next(name for (name, _), start in self.absent.items() if start <= column < start + self.channels(name))

    def at_least_zero(self, form: _Form) -> bool:
        """Whether a form is plainly >= 0: nothing negative in it, nor below it."""
        return self.nonnegative and bool((form.kernel >= 0).all() and (form.bias >= 0).all())

    def channels(self, name: str) -> int:
        """Folded channels of a tensor, or of an activation's ReLU."""
        t = self.teacher.type(name.split("#")[0])
        if t.scale % self.base:
            raise CertificateError(f"{name}: is at resolution {t.scale}, which {self.base} does not divide")
        return t.channels * (t.scale // self.base) ** 2

    def form(self, tensor: str | ir.Part) -> _Form:
        """A tensor, or a part of one, in terms of this level."""
        if tensor not in self.forms:
            self.forms[tensor] = self._part(tensor) if isinstance(tensor, ir.Part) else self._whole(tensor)
        return self.forms[tensor]

    def _whole(self, name: str) -> _Form:
        """Held, or in parts, or by definition."""
        if (name, None) in self.held:
            return self.read(name, None)
        leaves = next((_leaves(part) for tensor, part in self.held if tensor == name and part is not None), None)
        if leaves is None:
            return self.define(name, self.form)
        return self._from_parts(name, leaves, leaves)

    def _part(self, part: ir.Part) -> _Form:
        """The terms of part.tensor that come from part.sources, without constants."""
        if (part.tensor, part) in self.held:
            return self.read(part.tensor, part)
        form = self._from_parts(part.tensor, _leaves(part), frozenset(part.sources))
        nothing = self._along(dict.fromkeys(_leaves(part), True))
        return form + self.define(part.tensor, nothing).scaled(-1.0)  # constants cancel

    def _from_parts(self, name: str, leaves: frozenset[str], sources: frozenset[str]) -> _Form:
        """The terms of a tensor that come from `sources`, and its constants: of the parts that the level holds the
        larger first, none overlapping another, and by definition the rest."""
        parts = [p for t, p in self.held if t == name and p is not None and _leaves(p) == leaves]
        done: set[str] = set()
        held: list[_Form] = []
        for p in sorted(parts, key=lambda p: -len(p.sources)):
            if sources.issuperset(p.sources) and done.isdisjoint(p.sources):
                done.update(p.sources)
                held.append(self.read(name, p))
        form = self.define(name, self._along({leaf: leaf in done or leaf not in sources for leaf in leaves}))
        for other in held:
            form = form + other
        return form

    def _along(self, leaves: dict[str, bool]) -> Get:
        """Definitions followed down to the leaves; a leaf marked True counts as zero."""
        found: dict[str, _Form] = {}

        def get(name: str) -> _Form:
            if name not in found:
                if name not in leaves:
                    found[name] = self.define(name, get)
                else:
                    found[name] = self.nothing(self.channels(name)) if leaves[name] else self.form(name)
            return found[name]

        return get

    def nothing(self, channels: int) -> _Form:
        kernel = torch.zeros(channels, self.width, 1, 1, dtype=torch.float64)
        return _Form(kernel, torch.zeros(channels, dtype=torch.float64))

    def read(self, name: str, part: ir.Part | None) -> _Form:
        """A tensor that the level holds: z, z_p - z_m, or z - C, each channel in the first way that there is."""
        held: dict[str, dict[int, tuple[int, float]]] = {k: {} for k in ("value", "shifted", "positive", "negative")}
        for m in self.held[name, part]:
            for channel, position in zip(m.channels, m.positions, strict=True):
                held[m.kind].setdefault(channel, (position, m.constant))
        form, unknown = self.nothing(self.channels(name)), []
        kernel, bias = form.kernel.numpy(), form.bias.numpy()  # the same memory; single numbers are quicker to reach
        for row in range(len(form.bias)):
            if row in held["value"]:
                signs = [(1.0, *held["value"][row])]
            elif row in held["shifted"]:
                signs = [(1.0, *held["shifted"][row])]
            elif row in held["positive"] and row in held["negative"]:
                signs = [(1.0, *held["positive"][row]), (-1.0, *held["negative"][row])]
            else:
                unknown.append(row)
                continue
            for sign, position, constant in signs:
                bias[row] -= constant
                if position >= 0:
                    kernel[row, position, 0, 0] += sign
        if not unknown:
            return form
        instead = self.unknown(name, part)
        lost = torch.zeros(len(form.bias), dtype=torch.float64)
        lost[unknown] = 1.0
        return form + instead.scaled(lost)

    def define(self, name: str, get: Get) -> _Form:
        """A tensor by the teacher's definition of it, operands as `get` gives them."""
        if "#" in name:
            return self.unknown(name)
        op = self.teacher[name]
        operands = op.inputs
        if any(self.teacher.type(i).scale % self.base for i in operands):
            return self.unknown(name)
        if isinstance(op, ir.Conv2d):
            return self._convolved(op, op.weight, op.bias, op.groups, get, dilation=op.dilation)
        if isinstance(op, ir.ConvTranspose2d):
            return self._convolved(op, op.weight, op.bias, op.groups, get, stride=op.stride, padding=op.padding)
        if isinstance(op, ir.Affine):
            fold = self.channels(name) // len(op.scale)
            return get(operands[0]).scaled(op.scale.repeat_interleave(fold), op.shift.repeat_interleave(fold))
        if isinstance(op, ir.Sum):
            total = get(operands[0])
            for other in operands[1:]:
                total = total + get(other)
            return total
        if isinstance(op, ir.Concat):
            return _stacked([get(i) for i in operands])
        if isinstance(op, ir.Select):
            fold = self.channels(name) // len(op.index)
            return get(operands[0]).picked([i * fold + phase for i in op.index for phase in range(fold)])
        if isinstance(op, (ir.PixelShuffle, ir.PixelUnshuffle)):
            return get(operands[0]).picked(self._shuffled(op))
        if isinstance(op, (ir.PRelu, ir.Clamp, ir.Maximum)):
            return self._activated(op, get)
        return self.unknown(name)

    def _shuffled(self, op: ir.PixelShuffle | ir.PixelUnshuffle) -> list[int]:
        """Where channel i of the result is found: both sides are the same pixels of the same fine grid."""
        fine, coarse = (op.name, op.inputs[0]) if isinstance(op, ir.PixelShuffle) else (op.inputs[0], op.name)
        c, r, f = self.teacher.type(fine).channels, op.factor, self.teacher.type(coarse).scale // self.base
        to_coarse = []
        for channel in range(c):
            for y in range(f * r):
                for x in range(f * r):
                    to_coarse.append((((channel * r + y % r) * r + x % r) * f + y // r) * f + x // r)
        if isinstance(op, ir.PixelShuffle):
            return to_coarse
        return torch.tensor(to_coarse).argsort().tolist()

    def _activated(self, op: ir.Op, get: Get) -> _Form:
        """Activation n from its ReLUs n#0, n#1 (whose own definitions are in `before_relu`)."""
        if isinstance(op, ir.PRelu):
            fold = self.channels(op.name) // len(op.slope)
            return get(f"{op.name}#0") + get(f"{op.name}#1").scaled(-op.slope.repeat_interleave(fold))
        if isinstance(op, ir.Maximum):
            return get(op.inputs[0]) + get(f"{op.name}#0")
        assert isinstance(op, ir.Clamp)
        if math.isinf(op.low) and math.isinf(op.high):
            return get(op.inputs[0])
        if math.isinf(op.low):
            return get(f"{op.name}#0").scaled(-1.0, op.high)
        if math.isinf(op.high):
            return get(f"{op.name}#0").scaled(1.0, op.low)
        return get(f"{op.name}#0").scaled(1.0, op.low) + get(f"{op.name}#1").scaled(-1.0)

    def before_relu(self, name: str, channels: Sequence[int]) -> _Form | None:
        """What goes into channels of ReLU `name` ("n#k", or a Relu of the teacher); None if the tensor is not one's."""
        op, k = self.teacher[name.split("#")[0]], name.partition("#")[2]
        if not isinstance(op, (ir.Relu, ir.PRelu, ir.Clamp, ir.Maximum)):
            return None
        x = self.form(op.inputs[0]).picked(channels)
        if isinstance(op, ir.Relu) and not k:
            return x
        if isinstance(op, ir.PRelu) and k in ("0", "1"):
            return x.scaled(1.0 if k == "0" else -1.0)
        if isinstance(op, ir.Maximum) and k == "0":
            return self.form(op.inputs[1]).picked(channels) + x.scaled(-1.0)
        if isinstance(op, ir.Clamp) and k == "0" and math.isinf(op.low):
            return x.scaled(-1.0, op.high)
        if isinstance(op, ir.Clamp) and k in ("0", "1"):
            return x.scaled(1.0, -(op.low if k == "0" else op.high))
        return None

    def _convolved(
        self,
        op: ir.Op,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        get: Get,
        *,
        dilation: int = 1,
        stride: int = 1,
        padding: int | None = None,
    ) -> _Form:
        """A convolution (padding None: same) or, with `padding` given, a transposed one, pixels folded to the base.

        Output pixel D of a cell reads, through tap i, pixel v of the operand's grid, v counted from the same cell:
        v = D + i * dilation - reach, or for a transposed convolution stride * v = D + padding - i.
        """
        if not (_finite(weight) and _finite(bias)):
            raise CertificateError(f"{op.name}: the teacher's weights are NaN, infinite or too large")
        k = weight.shape[-1]
        fold = self.teacher.type(op.inputs[0]).scale // self.base
        if padding is None:
            full = torch.zeros(len(weight), weight.shape[1] * groups, k, k, dtype=torch.float64)
            for g, rows in enumerate(torch.arange(len(weight)).chunk(groups)):
                full[rows, g * weight.shape[1] : (g + 1) * weight.shape[1]] = weight[rows].double()
            taps = [(d, i, d + (i - k // 2) * dilation) for d in range(fold) for i in range(k)]
        else:
            full = torch.zeros(weight.shape[1] * groups, len(weight), k, k, dtype=torch.float64)
            for g, columns in enumerate(torch.arange(len(weight)).chunk(groups)):
                full[g * weight.shape[1] : (g + 1) * weight.shape[1], columns] = (
                    weight[columns].double().transpose(0, 1)
                )
            reads = [(d, i, d + padding - i) for d in range(fold * stride) for i in range(k)]
            taps = [(d, i, v // stride) for d, i, v in reads if v % stride == 0]
        cells = {v // fold for _, _, v in taps}
        radius = max(abs(c) for c in cells)
        out, size = fold * stride, 2 * radius + 1
        folded = torch.zeros(full.shape[0], out, out, full.shape[1], fold, fold, size, size, dtype=torch.float64)
        for dy, i, y in taps:
            for dx, j, x in taps:
                folded[:, dy, dx, :, y % fold, x % fold, radius + y // fold, radius + x // fold] += full[:, :, i, j]
        kernel = folded.reshape(full.shape[0] * out * out, -1, size, size)
        shift = bias.double().repeat_interleave(out * out)
        return self._composed(op.name, kernel, shift, get(op.inputs[0]), real=get == self.form)

    def _composed(self, name: str, kernel: Tensor, bias: Tensor, inner: _Form, *, real: bool) -> _Form:
        """kernel * inner + bias.  Only a pointwise form can go through a wider kernel; of its constant the centre tap
        reads all, the others what `one` holds, which is 0 beyond the border.  Real: `inner` is the operand as it is,
        no leaf set to zero, so that what cannot be composed is the tensor `name` itself."""
        size, mid = kernel.shape[-1], inner.kernel.shape[-1] // 2
        if size == 1:
            return inner.mixed(kernel[:, :, 0, 0], bias)
        matrix = inner.kernel[:, :, mid, mid]
        wide = inner.kernel.count_nonzero((1, 2, 3)) > matrix.count_nonzero(1)
        lost_rows = kernel[:, wide].flatten(1).any(1)
        composed = _through(kernel, matrix)
        constant = _through(kernel, inner.bias[:, None])[:, 0]
        centre = constant[:, size // 2, size // 2].clone()
        constant[:, size // 2, size // 2] = 0
        if self.one is not None:
            composed[:, self.one] += constant
        else:
            lost_rows |= constant.flatten(1).any(1)
        form = _Form(composed, bias + centre)
        if not lost_rows.any():
            return form
        gone = lost_rows.double()
        instead = self.unknown(name) if real else self.fresh(name)
        return form.scaled(1.0 - gone) + instead.scaled(gone)


def _check_layer(below: _Level, layer: Layer, meanings: Sequence[ir.Meaning], where: str) -> float:
    """Every row of the layer against what its meaning asks for.  Returns the largest relative rounding."""
    rows = {p for m in meanings for p in m.positions if p >= 0}
    k, k2 = layer.weight.shape[-2:]
    if layer.weight.dim() != 4 or k != k2 or k % 2 == 0 or layer.bias.shape != layer.weight.shape[:1]:
        raise CertificateError(f"{where}: kernel {k}x{k2} or bias is not what a plain layer has")
    if not (_finite(layer.weight) and _finite(layer.bias)):
        raise CertificateError(f"{where}: NaN or infinite weights")
    if rows != set(range(len(layer.weight))) or layer.weight.shape[1] != below.width:
        raise CertificateError(
            f"{where}: {len(layer.weight)} x {layer.weight.shape[1]} channels do not fit the certificate"
        )
    worst = 0.0
    for m in _pieces(meanings, 1 + PIECE // layer.weight[0].numel()):
        expected = _expected(below, m, layer.relu, where)
        missing = below.missing(expected)
        if missing.any():
            row = int(missing.nonzero()[0])
            lacking = below.lacking(expected, row)
            raise CertificateError(
                f"{where}: {m.tensor}[{m.channels[row]}] needs {lacking}, which the level below does not hold"
            )
        expected = _Form(expected.kernel[:, : below.width], expected.bias)
        if not (_finite(expected.kernel) and _finite(expected.bias)):
            raise CertificateError(f"{where}: {m.tensor}: the teacher's weights are NaN, infinite or too large")
        gone = torch.tensor([p < 0 for p in m.positions])
        if gone.any():
            left_out = _settled(below, expected.kernel[gone], expected.bias[gone])
            if left_out[0].any() or (left_out[1] > 0).any() or not layer.relu:
                raise CertificateError(f"{where}: {m.tensor}: a channel was left out that is not always zero")
        kept = (~gone).nonzero()[:, 0]
        at = [m.positions[i] for i in kept.tolist()]
        if at:
            worst = max(
                worst, _compare(below, layer, at, expected.picked(kept.tolist()), f"{where}: {m.kind} {m.tensor}")
            )
    return worst


def _pieces(meanings: Sequence[ir.Meaning], rows: int) -> Iterator[ir.Meaning]:
    """The same claims, about few channels each: what is computed on the way then fits into a processor's cache."""
    for m in meanings:
        for i in range(0, len(m.positions), rows):
            yield replace(m, positions=m.positions[i : i + rows], channels=m.channels[i : i + rows])


def _finite(numbers: Tensor) -> bool:
    return bool(torch.stack(numbers.aminmax()).isfinite().all())


def _expected(below: _Level, m: ir.Meaning, relu: bool, where: str) -> _Form:
    """The pre-activation that gives a channel its meaning."""
    if m.kind in ("one", "zero"):
        return below.nothing(len(m.positions)).scaled(1.0, float(m.kind == "one"))
    held = [h for h in below.held.get((m.tensor, m.part), []) if h.kind == m.kind and h.constant == m.constant]
    if relu and m.kind != "value" and held:
        return _copied(below, m, held)
    if relu and m.kind == "value" and m.part is None and not held:
        before = below.before_relu(m.tensor, m.channels)
        if before is not None:
            return before
    form = below.form(m.part or m.tensor).picked(m.channels)
    if relu and m.kind == "value":
        by_rule = m.part is None and ("#" in m.tensor or m.tensor in below.never_negative)
        if not by_rule and not below.missing(form).any() and not below.at_least_zero(form):
            raise CertificateError(f"{where}: {m.tensor}: goes through a ReLU as it is, though it may be negative")
    if m.kind == "negative":
        return form.scaled(-1.0)
    return form.scaled(1.0, m.constant) if m.kind == "shifted" else form


def _copied(below: _Level, m: ir.Meaning, held: Sequence[ir.Meaning]) -> _Form:
    """relu(t), relu(-t) and t + C are never negative: a level above may copy them as they are."""
    where = {c: p for h in held for c, p in zip(h.channels, h.positions, strict=True)}
    form = below.nothing(len(m.channels))
    kernel = form.kernel.numpy()  # the same memory
    for row, channel in enumerate(m.channels):
        if where.get(channel, -1) >= 0:
            kernel[row, where[channel], 0, 0] = 1.0
    lost = torch.tensor([channel not in where for channel in m.channels], dtype=torch.float64)
    return form + below.unknown(m.tensor).picked(m.channels).scaled(lost) if lost.any() else form


def _settled(below: _Level, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel and bias without their two ambiguities: the centre tap on `one` is bias, taps on zeros are nothing."""
    kernel, mid = kernel.clone(), kernel.shape[-1] // 2
    if below.one is not None:
        bias = bias + kernel[:, below.one, mid, mid]
        kernel[:, below.one, mid, mid] = 0
    kernel[:, below.zeros] = 0
    return kernel, bias


def _compare(below: _Level, layer: Layer, at: Sequence[int], expected: _Form, where: str) -> float:
    """Stored rows against exact ones.

    A stored number may be off by eps / 2 of the exact one, half a unit in its last place up to a whole one, and by what
    the exact one may be off itself, having been computed in float64 from numbers as large as `largest`.
    """
    size = max(layer.weight.shape[-1], expected.kernel.shape[-1])
    weight, bias = _padded(layer.weight[list(at)].double(), size), layer.bias[list(at)].double()
    stored = _settled(below, weight, bias)
    exact = _settled(below, _padded(expected.kernel, size), expected.bias)
    info = torch.finfo(layer.weight.dtype)
    taps = expected.kernel.flatten(1).abs()
    shifted = taps.sum(1) * max((m.constant for held in below.held.values() for m in held), default=0.0)
    in_row = taps.amax(1)[:, None, None, None].repeat(1, below.width, 1, 1)
    if below.one is not None:  # constants of shifts were added up, and largely cancelled, to give these
        in_row[:, below.one] += shifted[:, None, None]
    largest = in_row, torch.maximum(taps.amax(1), expected.bias.abs()) + shifted
    worst = 0.0
    for have, want, scale in zip(stored, exact, largest, strict=True):
        if torch.equal(have, want):
            continue
        magnitude = want.abs()
        if have is stored[1] and below.one is not None:  # a bias and the tap on `one`, each rounded for itself
            tap = expected.kernel[:, below.one]
            magnitude = expected.bias.abs() + tap[:, tap.shape[-2] // 2, tap.shape[-1] // 2].abs()
        rounding = info.eps / 2 * magnitude + info.smallest_normal * info.eps / 2
        difference = (have - want).abs()
        wrong = ~(difference <= rounding * (1 + info.eps) + 1e-13 * scale)
        if wrong.any():
            spot = tuple(wrong.nonzero()[0].tolist())
            what = f"weight {[at[spot[0]], *spot[1:]]}" if len(spot) > 1 else f"bias {at[spot[0]]}"
            raise CertificateError(
                f"{where}: {what} is {float(have[spot]):.9g}, the teacher's is {float(want[spot]):.9g}"
            )
        worst = max(worst, float((difference / magnitude.clamp_min(info.smallest_normal)).max()))
    return worst


def _through(kernel: Tensor, matrix: Tensor) -> Tensor:
    """kernel * matrix, for a matrix that picks channels, as  z_p - z_m  does, without multiplying by zeros."""
    used = matrix != 0
    if int(used.sum(0).max()) <= 1:
        row = used.to(torch.uint8).argmax(0)
        return kernel.index_select(1, row).mul_(matrix.gather(0, row[None])[:, :, None, None])
    taps = kernel.permute(0, 2, 3, 1).reshape(-1, kernel.shape[1]) @ matrix
    return taps.reshape(len(kernel), *kernel.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


def _padded(kernel: Tensor, size: int, columns: int = 0) -> Tensor:
    """The same kernel with zeros all round up to (size, size), and for further columns up to `columns`."""
    margin = (size - kernel.shape[-1]) // 2
    if not margin and columns <= kernel.shape[1]:
        return kernel
    return torch.nn.functional.pad(kernel, (*((margin,) * 4), 0, max(0, columns - kernel.shape[1])))


def _common(forms: Sequence[_Form]) -> tuple[int, int]:
    return max(f.kernel.shape[-1] for f in forms), max(f.kernel.shape[1] for f in forms)


def _stacked(forms: Sequence[_Form]) -> _Form:
    size, columns = _common(forms)
    return _Form(torch.cat([_padded(f.kernel, size, columns) for f in forms]), torch.cat([f.bias for f in forms]))
