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
from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.certificate import Certificate
from memsr_compiler.errors import CertificateError


@dataclass(frozen=True)
class Layer:
    """One layer of the plain network: weight (C_out, C_in, k, k) and bias (C_out,) as stored, ReLU or not, and the
    factor of the pixel shuffle after it (1: none)."""

    weight: Tensor
    bias: Tensor
    relu: bool
    shuffle: int


def check(teacher: ir.Graph, layers: Iterable[Layer], certificate: Certificate) -> float:
    """Raises CertificateError unless the plain network is the teacher, as the certificate claims.

    Returns the largest difference between a stored weight and the exact one, relative to it: rounding to the stored
    dtype, which is allowed half a unit in the last place and no more.
    """
    todo: Iterator[Layer] = iter(layers)
    base, worst = 1, 0.0
    inputs: list[tuple[str, int]] = [(teacher.input.name, teacher.type(teacher.input.name).channels)]
    for number, stage in enumerate(certificate.stages):
        last_stage = number == len(certificate.stages) - 1
        if stage.base != base:
            raise CertificateError(f"stage {number} is at resolution {stage.base}, where {base} is due")
        _require_inputs(stage.levels[0], inputs)
        below = _Level(teacher, base, stage.levels[0])
        for depth, meanings in enumerate(stage.levels[1:], start=1):
            layer = next(todo, None)
            if layer is None:
                raise CertificateError("the plain network has fewer layers than the certificate speaks of")
            ends = depth == len(stage.levels) - 1
            if layer.relu == ends or (layer.shuffle != 1 and not ends):
                raise CertificateError(f"stage {number}, layer {depth}: ReLU or pixel shuffle in the wrong place")
            worst = max(worst, _check_layer(below, layer, meanings, f"stage {number}, layer {depth}"))
            below = _Level(teacher, base, meanings)
        base *= layer.shuffle
        inputs = _require_outputs(teacher, stage.levels[-1], layer.shuffle, base, last_stage)
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
    """A stage ends with whole tensors; the pixel shuffle brings them to resolution `base`.  The last one: the output."""
    found, start = [], 0
    for m in meanings:
        t = teacher.type(m.tensor)
        fold = (t.scale * shuffle // base) ** 2
        whole = tuple(range(t.channels * fold))
        if m.kind != "value" or m.part is not None or t.scale != base or m.channels != whole:
            raise CertificateError(f"{m.tensor}: a stage must end with whole tensors at resolution {base}")
        if m.positions != tuple(range(start, start + len(whole))):
            raise CertificateError(f"{m.tensor}: is not where the next stage expects it")
        start += len(whole)
        found.append((m.tensor, t.channels))
    if last and [name for name, _ in found] != [teacher.output]:
        raise CertificateError("the last stage does not end with the teacher's output")
    return found


@dataclass(frozen=True)
class _Form:
    """A tensor in terms of a level's channels: kernel * z + bias.

    kernel (C, width, k, k)   bias (C,)   known (C,): False where the level no longer has what the channel needs
    """

    kernel: Tensor
    bias: Tensor
    known: Tensor

    def mixed(self, matrix: Tensor, bias: Tensor | float = 0.0) -> _Form:
        """matrix * self + bias."""
        kernel = (matrix @ self.kernel.flatten(1)).reshape(len(matrix), *self.kernel.shape[1:])
        return _Form(kernel, matrix @ self.bias + bias, ~((matrix != 0) & ~self.known).any(1))

    def picked(self, index: Sequence[int]) -> _Form:
        rows = list(index)
        return _Form(self.kernel[rows], self.bias[rows], self.known[rows])

    def scaled(self, scale: Tensor | float, shift: Tensor | float = 0.0) -> _Form:
        s = torch.broadcast_to(torch.as_tensor(scale, dtype=torch.float64), self.bias.shape)
        return _Form(self.kernel * s[:, None, None, None], self.bias * s + shift, self.known | (s == 0))

    def __add__(self, other: _Form) -> _Form:
        size = max(self.kernel.shape[-1], other.kernel.shape[-1])
        kernel = _padded(self.kernel, size) + _padded(other.kernel, size)
        return _Form(kernel, self.bias + other.bias, self.known & other.known)


Get = Callable[[str], _Form]


class _Level:
    """What a level holds, and how the teacher's tensors are written in terms of it."""

    def __init__(self, teacher: ir.Graph, base: int, meanings: Sequence[ir.Meaning]) -> None:
        self.teacher, self.base, self.meanings = teacher, base, meanings
        self.width = 1 + max(p for m in meanings for p in m.positions)
        self.one = next((m.positions[0] for m in meanings if m.kind == "one"), None)
        self.zeros = [p for m in meanings if m.kind == "zero" for p in m.positions]
        self.held: dict[tuple[str, ir.Part | None], list[ir.Meaning]] = {}
        for m in meanings:
            if m.tensor:
                self.held.setdefault((m.tensor, m.part), []).append(m)
        self.forms: dict[str, _Form] = {}

    def channels(self, name: str) -> int:
        """Folded channels of a tensor, or of an activation's ReLU."""
        t = self.teacher.type(name.split("#")[0])
        if t.scale % self.base:
            raise CertificateError(f"{name}: is at resolution {t.scale}, which {self.base} does not divide")
        return t.channels * (t.scale // self.base) ** 2

    def form(self, name: str) -> _Form:
        """A tensor in terms of this level: held, or in parts, or by definition."""
        if name not in self.forms:
            self.forms[name] = self._form(name)
        return self.forms[name]

    def _form(self, name: str) -> _Form:
        if (name, None) in self.held:
            return self.read(name, None)
        parts = [part for tensor, part in self.held if tensor == name and part is not None]
        if not parts:
            return self.define(name, self.form)
        part = max(parts, key=lambda p: len(p.sources))
        others = self._along(dict.fromkeys(part.sources, True) | dict.fromkeys(part.rest, False))
        return self.read(name, part) + self.define(name, others)

    def part(self, part: ir.Part) -> _Form:
        """The terms of part.tensor that come from part.sources, without constants."""
        if (part.tensor, part) in self.held:
            return self.read(part.tensor, part)
        leaves = set(part.sources) | set(part.rest)
        inner = [p for t, p in self.held if t == part.tensor and p is not None and set(p.sources) < set(part.sources)]
        inner = [p for p in inner if set(p.sources) | set(p.rest) == leaves]
        done = max(inner, key=lambda p: len(p.sources), default=None)
        zero = set(part.rest) | set(done.sources if done else ())
        wanted = self._along({leaf: leaf in zero for leaf in leaves})
        nothing = self._along(dict.fromkeys(leaves, True))
        rest = self.define(part.tensor, wanted) + self.define(part.tensor, nothing).scaled(-1.0)  # constants cancel
        return rest + self.read(part.tensor, done) if done else rest

    def _along(self, leaves: dict[str, bool]) -> Get:
        """Definitions followed down to the leaves; a leaf marked True counts as zero."""

        def get(name: str) -> _Form:
            if name not in leaves:
                return self.define(name, get)
            return self.nothing(name) if leaves[name] else self.form(name)

        return get

    def nothing(self, name: str) -> _Form:
        c = self.channels(name)
        return _Form(torch.zeros(c, self.width, 1, 1).double(), torch.zeros(c).double(), torch.ones(c, dtype=torch.bool))

    def read(self, name: str, part: ir.Part | None) -> _Form:
        """A tensor that the level holds: z, z_p - z_m, or z - C."""
        form = self.nothing(name)
        found = {kind: torch.zeros(len(form.bias), dtype=torch.bool) for kind in ("value", "positive", "negative", "shifted")}
        for m in self.held[name, part]:
            rows, columns = torch.tensor(m.channels), torch.tensor(m.positions)
            fresh = ~found[m.kind][rows] & ~(found["value"] | found["shifted"])[rows]
            found[m.kind][rows] = True
            stored = fresh & (columns >= 0)
            form.kernel[rows[stored], columns[stored], 0, 0] = -1.0 if m.kind == "negative" else 1.0
            if m.kind == "shifted":
                form.bias[rows] = -m.constant
        known = found["value"] | found["shifted"] | (found["positive"] & found["negative"])
        return _Form(form.kernel, form.bias, known)

    def define(self, name: str, get: Get) -> _Form:
        """A tensor by the teacher's definition of it, operands as `get` gives them."""
        if "#" in name:
            raise CertificateError(f"{name}: is needed and not held")
        op = self.teacher[name]
        operands = [i for i in op.inputs]
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
        raise CertificateError(f"{name}: {type(op).__name__} is needed in a layer that does not hold it")

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

    def before_relu(self, name: str) -> _Form | None:
        """What goes into ReLU `name` ("n#k", or a Relu of the teacher); None if the tensor is not a ReLU's."""
        op, k = self.teacher[name.split("#")[0]], name.partition("#")[2]
        x = op.inputs[0] if op.inputs else ""
        if isinstance(op, ir.Relu) and not k:
            return self.form(x)
        if isinstance(op, ir.PRelu) and k in ("0", "1"):
            return self.form(x).scaled(1.0 if k == "0" else -1.0)
        if isinstance(op, ir.Maximum) and k == "0":
            return self.form(op.inputs[1]) + self.form(x).scaled(-1.0)
        if isinstance(op, ir.Clamp) and k == "0" and math.isinf(op.low):
            return self.form(x).scaled(-1.0, op.high)
        if isinstance(op, ir.Clamp) and k in ("0", "1"):
            return self.form(x).scaled(1.0, -(op.low if k == "0" else op.high))
        return None

    def _convolved(
        self, op: ir.Op, weight: Tensor, bias: Tensor, groups: int, get: Get, *, dilation: int = 1, stride: int = 1, padding: int | None = None
    ) -> _Form:
        """A convolution (padding None: same) or, with `padding` given, a transposed one, pixels folded to the base.

        Output pixel D of a cell reads, through tap i, pixel v of the operand's grid, v counted from the same cell:
        v = D + i * dilation - reach, or for a transposed convolution stride * v = D + padding - i.
        """
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
                full[g * weight.shape[1] : (g + 1) * weight.shape[1], columns] = weight[columns].double().transpose(0, 1)
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
        return self._composed(op.name, kernel, bias.double().repeat_interleave(out * out), get(op.inputs[0]))

    def _composed(self, name: str, kernel: Tensor, bias: Tensor, inner: _Form) -> _Form:
        """kernel * inner + bias.  Only a pointwise form can go through a wider kernel, its constant as `one` only."""
        size = kernel.shape[-1]
        if size == 1:
            return inner.mixed(kernel[:, :, 0, 0], bias)
        if inner.kernel.shape[-1] != 1:
            raise CertificateError(f"{name}: two convolutions in a row, with nothing held between them")
        read = (kernel != 0).flatten(2).any(2)
        known = ~(read & ~inner.known).any(1)
        matrix = inner.kernel[:, :, 0, 0]
        if (inner.bias != 0).logical_and(read.any(0)).any():
            if self.one is None:
                raise CertificateError(f"{name}: reads a constant across the border, and the level has no channel of ones")
            matrix = matrix.clone()
            matrix[:, self.one] += inner.bias
        taps = kernel.permute(0, 2, 3, 1).reshape(-1, kernel.shape[1]) @ matrix
        return _Form(taps.reshape(len(kernel), size, size, -1).permute(0, 3, 1, 2), bias, known)

    def never_negative(self, name: str) -> bool:
        """Whether a tensor of the teacher is >= 0 for every image in the input range, by simple rules."""
        if "#" in name:
            return True
        op = self.teacher[name]
        operands = [self.never_negative(i) for i in op.inputs]
        if isinstance(op, ir.Relu):
            return True
        if isinstance(op, ir.Input):
            return op.low >= 0
        if isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
            return operands[0] and bool((op.weight >= 0).all() and (op.bias >= 0).all())
        if isinstance(op, ir.Affine):
            return operands[0] and bool((op.scale >= 0).all() and (op.shift >= 0).all())
        if isinstance(op, ir.PRelu):
            return bool((op.slope <= 0).all())
        if isinstance(op, ir.Clamp):
            return op.low >= 0
        if isinstance(op, ir.Maximum):
            return any(operands)
        return all(operands)


def _check_layer(below: _Level, layer: Layer, meanings: Sequence[ir.Meaning], where: str) -> float:
    """Every row of the layer against what its meaning asks for.  Returns the largest relative rounding."""
    rows = {p for m in meanings for p in m.positions if p >= 0}
    if rows != set(range(len(layer.weight))) or layer.weight.shape[1] != below.width:
        raise CertificateError(f"{where}: {len(layer.weight)} x {layer.weight.shape[1]} channels do not fit the certificate")
    worst = 0.0
    for m in meanings:
        expected = _expected(below, m, layer.relu, where)
        missing = ~expected.known
        if missing.any():
            channel = m.channels[int(missing.nonzero()[0])]
            raise CertificateError(f"{where}: {m.tensor}[{channel}] needs a channel that the level below does not hold")
        gone = torch.tensor([p < 0 for p in m.positions])
        if gone.any():
            left_out = _settled(below, expected.kernel[gone], expected.bias[gone])
            if left_out[0].any() or (left_out[1] > 0).any() or not layer.relu:
                raise CertificateError(f"{where}: {m.tensor}: a channel was left out that is not always zero")
        kept = (~gone).nonzero()[:, 0]
        at = [m.positions[i] for i in kept.tolist()]
        if at:
            worst = max(worst, _compare(below, layer, at, expected.picked(kept.tolist()), f"{where}: {m.kind} {m.tensor}"))
    return worst


def _expected(below: _Level, m: ir.Meaning, relu: bool, where: str) -> _Form:
    """The pre-activation that gives a channel its meaning."""
    if m.kind in ("one", "zero"):
        n = len(m.positions)
        constant = torch.full((n,), 1.0 if m.kind == "one" else 0.0, dtype=torch.float64)
        return _Form(torch.zeros(n, below.width, 1, 1).double(), constant, torch.ones(n, dtype=torch.bool))
    held = [h for h in below.held.get((m.tensor, m.part), []) if h.kind == m.kind and h.constant == m.constant]
    if relu and m.kind != "value" and held:
        return _copied(below, m, held)
    form = below.part(m.part) if m.part is not None else None
    if form is None and m.kind == "value" and relu and not held:
        form = below.before_relu(m.tensor)
    elif m.kind == "value" and relu and (m.part is not None or not below.never_negative(m.tensor)):
        raise CertificateError(f"{where}: {m.tensor}: goes through a ReLU as it is, though it may be negative")
    if form is None:
        form = below.form(m.tensor)
        if m.kind == "value" and relu and not held and not below.never_negative(m.tensor):
            raise CertificateError(f"{where}: {m.tensor}: goes through a ReLU as it is, though it may be negative")
    form = form.picked(m.channels)
    if m.kind == "negative":
        return form.scaled(-1.0)
    return form.scaled(1.0, m.constant) if m.kind == "shifted" else form


def _copied(below: _Level, m: ir.Meaning, held: Sequence[ir.Meaning]) -> _Form:
    """relu(t), relu(-t) and t + C are never negative: a level above may copy them as they are."""
    where = {c: p for h in held for c, p in zip(h.channels, h.positions, strict=True)}
    form = _Form(torch.zeros(len(m.channels), below.width, 1, 1).double(), torch.zeros(len(m.channels)).double(), torch.zeros(len(m.channels), dtype=torch.bool))
    for row, channel in enumerate(m.channels):
        if channel in where:
            form.known[row] = True
            if where[channel] >= 0:
                form.kernel[row, where[channel], 0, 0] = 1.0
    return form


def _settled(below: _Level, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel and bias without their two ambiguities: the centre tap on `one` is bias, taps on zeros are nothing."""
    kernel, mid = kernel.clone(), kernel.shape[-1] // 2
    if below.one is not None:
        bias = bias + kernel[:, below.one, mid, mid]
        kernel[:, below.one, mid, mid] = 0
    kernel[:, below.zeros] = 0
    return kernel, bias


def _compare(below: _Level, layer: Layer, at: Sequence[int], expected: _Form, where: str) -> float:
    size = max(layer.weight.shape[-1], expected.kernel.shape[-1])
    stored = _settled(below, _padded(layer.weight[list(at)].double(), size), layer.bias[list(at)].double())
    exact = _settled(below, _padded(expected.kernel, size), expected.bias)
    info = torch.finfo(layer.weight.dtype)
    worst = 0.0
    for have, want in zip(stored, exact, strict=True):
        # A stored number is the exact one, rounded; the exact one was computed in float64, with its own rounding.
        # A bias may be stored in two numbers (bias and the tap on `one`), each rounded.
        magnitude = want.abs() + have.abs()
        allowed = info.eps * magnitude + info.smallest_normal * info.eps + 1e-13 * float(want.abs().max() if want.numel() else 0)
        wrong = ((have - want).abs() > allowed) | ~torch.isfinite(have)
        if wrong.any():
            spot = tuple(wrong.nonzero()[0].tolist())
            row = at[spot[0]]
            what = f"weight {[row, *spot[1:]]}" if len(spot) > 1 else f"bias {row}"
            raise CertificateError(f"{where}: {what} is {float(have[spot]):.9g}, the teacher's is {float(want[spot]):.9g}")
        relative = (have - want).abs() / magnitude.clamp_min(1e-300)
        worst = max(worst, 2 * float(relative.max()) if relative.numel() else 0.0)
    return worst


def _padded(kernel: Tensor, size: int) -> Tensor:
    margin = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (margin,) * 4)


def _stacked(forms: Sequence[_Form]) -> _Form:
    size = max(f.kernel.shape[-1] for f in forms)
    return _Form(
        torch.cat([_padded(f.kernel, size) for f in forms]),
        torch.cat([f.bias for f in forms]),
        torch.cat([f.known for f in forms]),
    )
