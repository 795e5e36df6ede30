"""The teacher's tensors written in terms of a level of the plain network: kernel * z + bias.

If the level holds a tensor, it is read off (`HeldLevel.read`); else it is written by the teacher's definition of it,
from its operands, which are written so in turn (`define`).  `HeldLevel.form` chooses.  What the level has no way to
gets columns of its own, so that two of them may cancel, and a form that needs one is no proof.

Nothing here is shared with the passes, their kernel algebra or their names: see `checker`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import CertificateError

# Definitions that the claims about a level may ask for, beyond two for each op of the teacher.
SPARE_DEFINITIONS = 32

# Numbers that a kernel, folded to the level's resolution, may have: so many for each of the layer that is checked, and
# beyond these.  A layer which holds what it claims has them itself, in its rows.
NUMBERS_EACH, SPARE_NUMBERS = 64, 1 << 25

# Roundings that are allowed beyond those counted: of the sums of terms themselves, and of the compiler.
SPARE_STEPS = 16


def tensor_of(name: str) -> str:
    """Activation n of "n#k", its k-th ReLU; any other name is a tensor's already.

    The proof reads the mark by itself, though `ir.names` could: it shares nothing with what writes certificates.
    """
    return name.split("#")[0]


def is_relu(name: str) -> bool:
    """Whether a name is "n#k", a ReLU in the ReLU form of an activation."""
    return "#" in name


def never_negative(teacher: ir.Graph) -> frozenset[str]:
    """Tensors of the teacher that are >= 0 for every image in the input range, by simple rules."""
    never_below: set[str] = set()
    for op in teacher:
        operands = [i in never_below for i in op.inputs]
        if isinstance(op, ir.Input):
            holds = op.low >= 0
        elif isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
            holds = operands[0] and bool((op.weight >= 0).all() and (op.bias >= 0).all())
        elif isinstance(op, ir.Affine):
            holds = operands[0] and bool((op.scale >= 0).all() and (op.shift >= 0).all())
        elif isinstance(op, ir.PRelu):
            holds = operands[0] or bool((op.slope <= 0).all())
        elif isinstance(op, ir.Clamp):
            holds = op.low >= 0
        elif isinstance(op, ir.Maximum):
            holds = any(operands)
        elif isinstance(op, (ir.Sum, ir.Concat, ir.Select, ir.PixelShuffle, ir.PixelUnshuffle)):
            holds = all(operands)
        else:
            holds = isinstance(op, ir.Relu)
        if holds:
            never_below.add(op.name)
    return frozenset(never_below)


def shift_of(teacher: ir.Graph, m: ir.Meaning) -> float:
    """Constant that a channel holds beside its tensor: C of a shift, or the bound of a clamp, as relu(x - low) does."""
    op = teacher[tensor_of(m.tensor)] if m.tensor.endswith("#0") else None
    if not isinstance(op, ir.Clamp) or m.kind == "negative":
        return m.constant
    bound = op.high if math.isinf(op.low) else -op.low
    return m.constant + (bound if 0 < bound < math.inf else 0.0)


Reach = Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Known:
    """A teacher, and which of its tensors are never negative.

    reach   measures the magnitude of each channel of its tensors on some images; None: nobody does
    """

    teacher: ir.Graph
    never_negative: frozenset[str]
    reach: Reach | None = None


@dataclass(frozen=True)
class LinearForm:
    """A tensor in terms of a level's channels: kernel * z + bias, and the arithmetic by which they were computed.

    kernel (C, width + ..., k, k)   bias (C,).  Columns from `width` on are what the level does not hold; a form that
    needs none of them is known.  They may cancel: t - t is 0 where t is not held.

    Each number is a sum of products of the teacher's numbers and of constants, computed in float64.  `bias_terms` is
    the same sum of their absolute values, and `kernel_terms` too; None: no number of the kernel is a sum of several.
    `steps` is at least the number of roundings that one term went through.  So each number is within
    steps * 2**-53 of its terms, in first order (`slack`).
    """

    kernel: Tensor
    bias: Tensor
    bias_terms: Tensor
    kernel_terms: Tensor | None = None
    steps: int = 0

    @property
    def terms(self) -> Tensor:
        """The sum of the absolute values of the terms of each number of the kernel."""
        return self.kernel.abs() if self.kernel_terms is None else self.kernel_terms

    @property
    def slack(self) -> float:
        """Distance of two ways of computing the same number in float64, relative to its terms.

        One of the two is this form's own, the other the compiler's, in an order of its own.
        """
        return (2 * self.steps + SPARE_STEPS) * 2.0**-53

    def mix(self, matrix: Tensor, bias: Tensor | float = 0.0) -> LinearForm:
        """matrix * self + bias."""
        added = 1 + _most(matrix, 1)
        absolute = matrix.abs()
        return LinearForm(
            _times(matrix, self.kernel),
            matrix @ self.bias + bias,
            absolute @ self.bias_terms + torch.as_tensor(bias, dtype=torch.float64).abs(),
            None if self.kernel_terms is None and added <= 2 else _times(absolute, self.terms),
            self.steps + added,
        )

    def pick(self, index: Sequence[int]) -> LinearForm:
        """These rows, in this order."""
        if len(index) == len(self.bias) and all(row == i for i, row in enumerate(index)):
            return self
        rows = torch.tensor(index, dtype=torch.int64)
        terms = None if self.kernel_terms is None else self.kernel_terms.index_select(0, rows)
        return LinearForm(self.kernel.index_select(0, rows), self.bias[rows], self.bias_terms[rows], terms, self.steps)

    def take(self, columns: int) -> LinearForm:
        """The first columns, all others being 0."""
        terms = None if self.kernel_terms is None else self.kernel_terms[:, :columns]
        return LinearForm(self.kernel[:, :columns], self.bias, self.bias_terms, terms, self.steps)

    def pad(self, size: int) -> LinearForm:
        """The same with a kernel of at least this size."""
        size = max(size, self.kernel.shape[-1])
        terms = None if self.kernel_terms is None else pad(self.kernel_terms, size)
        return LinearForm(pad(self.kernel, size), self.bias, self.bias_terms, terms, self.steps)

    def scale(self, scale: Tensor | float, shift: Tensor | float = 0.0) -> LinearForm:
        """scale * self + shift."""
        s = torch.broadcast_to(torch.as_tensor(scale, dtype=torch.float64), self.bias.shape)
        each = s[:, None, None, None]
        return LinearForm(
            self.kernel * each,
            self.bias * s + shift,
            self.bias_terms * s.abs() + torch.as_tensor(shift, dtype=torch.float64).abs(),
            None if self.kernel_terms is None else self.kernel_terms * each.abs(),
            self.steps + 2,
        )

    def __add__(self, other: LinearForm) -> LinearForm:
        size, columns = _common([self, other])
        kernel = pad(self.kernel, size, columns) + pad(other.kernel, size, columns)
        terms = pad(self.terms, size, columns) + pad(other.terms, size, columns)
        several = (
            self.kernel_terms is not None or other.kernel_terms is not None or not torch.equal(terms, kernel.abs())
        )
        return LinearForm(
            kernel,
            self.bias + other.bias,
            self.bias_terms + other.bias_terms,
            terms if several else None,
            max(self.steps, other.steps) + 1,
        )


Get = Callable[[str], LinearForm]


class HeldLevel:
    """A level by what it holds, with the teacher's tensors written in terms of it.

    nonnegative   which channels (width,) are never negative: they are behind a ReLU, or the image
    constants     large ones (width,) that its channels are found to hold; None: there are none
    """

    def __init__(
        self,
        known: Known,
        base: int,
        meanings: Sequence[ir.Meaning],
        *,
        nonnegative: bool | Tensor,
        constants: Tensor | None = None,
    ) -> None:
        self.known, self.teacher, self.never_negative = known, known.teacher, known.never_negative
        self.meanings = meanings
        self.base = base
        self.width = 1 + max(p for m in meanings for p in m.positions)
        self.nonnegative = torch.as_tensor(nonnegative).expand(self.width)
        self.one = next((p for m in meanings if m.kind == "one" for p in m.positions if p >= 0), None)
        self.zeros = sorted({p for m in meanings if m.kind == "zero" for p in m.positions if p >= 0})
        self.held: dict[tuple[str, ir.Part | None], list[ir.Meaning]] = {}
        self.shifts = torch.zeros(self.width, dtype=torch.float64)  # constant that each channel holds beside its tensor
        for m in meanings:
            if m.tensor:
                self.held.setdefault((m.tensor, m.part), []).append(m)
            if (shift := shift_of(known.teacher, m)) > 0:
                at = [p for p in m.positions if p >= 0]
                self.shifts[at] = self.shifts[at].clamp_min(shift)
        self.constants = self.shifts if constants is None else torch.maximum(self.shifts, constants)
        self.forms: dict[str | ir.Part, LinearForm] = {}
        # the first column that stands for a tensor which is not held
        self.absent: dict[tuple[str, ir.Part | str | None], int] = {}
        self.definitions = 0
        self.columns = self.width
        self.numbers = 0  # that the layer has which is made of this level

    def reach(self) -> Tensor:
        """Magnitude (width,) of each channel, without the constant of a shift; 0 where nobody measures."""
        reach = torch.zeros(self.width, dtype=torch.float64)
        if self.known.reach is None:
            return reach
        measured = self.known.reach()
        for m in self.meanings:
            positions = torch.tensor(m.positions)
            there = positions >= 0
            if m.tensor:
                each = measured[tensor_of(m.tensor)]
                folded = torch.tensor(m.channels) // (self.channels(m.tensor) // len(each))
                reach[positions[there]] = each[folded[there]]
            elif m.kind == "one":
                reach[positions[there]] = 1.0
        return reach

    def count_definition(self) -> None:
        """Raises CertificateError where a level's claims ask for definitions far more often than a teacher has them."""
        self.definitions += 1
        if self.definitions > SPARE_DEFINITIONS + 2 * len(self.teacher.ops):
            raise CertificateError("the claims about a level take more work than there are tensors; convert again")

    def require_room(self, name: str, numbers: int) -> None:
        """Raises CertificateError where a tensor takes far more numbers to write down than the layer has."""
        if numbers > SPARE_NUMBERS + NUMBERS_EACH * self.numbers:
            raise CertificateError(
                f"{name}: takes {numbers:,} numbers to write in terms of a level of {self.width} channels, far more "
                "than its layer has; convert again"
            )

    def unknown(self, name: str, part: ir.Part | str | None = None) -> LinearForm:
        """A tensor that the level has no way to: columns of its own, beside the level's."""
        c = self.channels(name)
        if (name, part) not in self.absent:
            self.absent[name, part], self.columns = self.columns, self.columns + c
        start = self.absent[name, part]
        kernel = torch.zeros(c, start + c, 1, 1, dtype=torch.float64)
        kernel[:, start:, 0, 0] = torch.eye(c, dtype=torch.float64)
        return LinearForm(kernel, *torch.zeros(2, c, dtype=torch.float64))

    def fresh(self, name: str) -> LinearForm:
        """Columns that nothing else shares, so that they never cancel.

        They stand not for the tensor itself but for what some leaves, set to zero, leave of it.  No certificate can
        speak of this: what it speaks of is a `Part` or a whole tensor.
        """
        return self.unknown(name, f"column {self.columns}")

    def missing(self, form: LinearForm) -> Tensor:
        """(C,): the rows that need what the level does not hold."""
        return (form.kernel[:, self.width :] != 0).flatten(1).any(1)

    def lacking(self, form: LinearForm, row: int) -> str:
        """The first tensor that a row needs and the level does not hold."""
        column = self.width + int((form.kernel[row, self.width :] != 0).flatten(1).any(1).nonzero()[0])
        return next(name for (name, _), start in self.absent.items() if start <= column < start + self.channels(name))

    def at_least_zero(self, form: LinearForm) -> bool:
        """Whether a form is plainly >= 0: nothing negative in it, whatever rounding did, nor below it."""
        numbers = (form.kernel, form.terms), (form.bias, form.bias_terms)
        return not bool(form.take(self.width).terms[:, ~self.nonnegative].any()) and all(
            bool(((number >= form.slack * terms) | (number == terms)).all()) for number, terms in numbers
        )

    def channels(self, name: str) -> int:
        """Folded channels of a tensor, or of an activation's ReLU."""
        t = self.teacher.type(tensor_of(name))
        if t.scale % self.base:
            raise CertificateError(f"{name}: is at resolution {t.scale}, which {self.base} does not divide")
        return t.channels * (t.scale // self.base) ** 2

    def form(self, tensor: str | ir.Part) -> LinearForm:
        """A tensor, or a part of one, in terms of this level."""
        if tensor not in self.forms:
            self.forms[tensor] = self._part(tensor) if isinstance(tensor, ir.Part) else self._whole(tensor)
        return self.forms[tensor]

    def _whole(self, name: str) -> LinearForm:
        """Held, or in parts, or by definition."""
        if (name, None) in self.held:
            return self.read(name, None)
        leaves = next((_leaves(part) for tensor, part in self.held if tensor == name and part is not None), None)
        if leaves is None:
            return define(self, name, self.form)
        return self._from_parts(name, leaves, leaves)

    def _part(self, part: ir.Part) -> LinearForm:
        """The terms of part.tensor that come from part.sources, without constants."""
        if (part.tensor, part) in self.held:
            return self.read(part.tensor, part)
        form = self._from_parts(part.tensor, _leaves(part), frozenset(part.sources))
        nothing = self._along(dict.fromkeys(_leaves(part), True))
        return form + define(self, part.tensor, nothing).scale(-1.0)  # constants cancel

    def _from_parts(self, name: str, leaves: frozenset[str], sources: frozenset[str]) -> LinearForm:
        """The terms of a tensor that come from `sources`, and its constants.

        Of the parts that the level holds the larger first, none overlapping another, and by definition the rest.
        """
        parts = [p for t, p in self.held if t == name and p is not None and _leaves(p) == leaves]
        done: set[str] = set()
        held: list[LinearForm] = []
        for p in sorted(parts, key=lambda p: -len(p.sources)):
            if sources.issuperset(p.sources) and done.isdisjoint(p.sources):
                done.update(p.sources)
                held.append(self.read(name, p))
        form = define(self, name, self._along({leaf: leaf in done or leaf not in sources for leaf in leaves}))
        for other in held:
            form = form + other
        return form

    def _along(self, leaves: dict[str, bool]) -> Get:
        """Definitions followed down to the leaves; a leaf marked True counts as zero."""
        forms: dict[str, LinearForm] = {}

        def get(name: str) -> LinearForm:
            if name not in forms:
                if name not in leaves:
                    forms[name] = define(self, name, get)
                else:
                    forms[name] = self.nothing(self.channels(name)) if leaves[name] else self.form(name)
            return forms[name]

        return get

    def nothing(self, channels: int) -> LinearForm:
        """A form of zeros."""
        kernel = torch.zeros(channels, self.width, 1, 1, dtype=torch.float64)
        return LinearForm(kernel, *torch.zeros(2, channels, dtype=torch.float64))

    def read(self, name: str, part: ir.Part | None) -> LinearForm:
        """A tensor that the level holds: z, z_p - z_m, or z - C, each channel in the first way that there is."""
        held: dict[str, dict[int, tuple[int, float]]] = {k: {} for k in ("value", "shifted", "positive", "negative")}
        for m in self.held[name, part]:
            for channel, position in zip(m.channels, m.positions, strict=True):
                held[m.kind].setdefault(channel, (position, m.constant))
        form, unknown = self.nothing(self.channels(name)), []
        kernel, bias = form.kernel.numpy(), form.bias.numpy()  # the same memory; single numbers are quicker to reach
        terms = form.bias_terms.numpy()
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
                terms[row] += constant
                if position >= 0:
                    kernel[row, position, 0, 0] += sign
        if not unknown:
            return form
        instead = self.unknown(name, part)
        lost = torch.zeros(len(form.bias), dtype=torch.float64)
        lost[unknown] = 1.0
        return form + instead.scale(lost)


def define(level: HeldLevel, name: str, get: Get) -> LinearForm:
    """A tensor by the teacher's definition of it, operands as `get` gives them."""
    level.count_definition()
    if is_relu(name):
        return level.unknown(name)
    op = level.teacher[name]
    operands = op.inputs
    if any(level.teacher.type(i).scale % level.base for i in operands):
        return level.unknown(name)
    if isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
        return _convolve(level, op, get)
    if isinstance(op, ir.Affine):
        fold = level.channels(name) // len(op.scale)
        return get(operands[0]).scale(op.scale.repeat_interleave(fold), op.shift.repeat_interleave(fold))
    if isinstance(op, ir.Sum):
        total = get(operands[0])
        for other in operands[1:]:
            total = total + get(other)
        return total
    if isinstance(op, ir.Concat):
        return stack([get(i) for i in operands])
    if isinstance(op, ir.Select):
        fold = level.channels(name) // len(op.index)
        return get(operands[0]).pick([i * fold + phase for i in op.index for phase in range(fold)])
    if isinstance(op, (ir.PixelShuffle, ir.PixelUnshuffle)):
        return get(operands[0]).pick(_shuffle_index(level, op))
    if isinstance(op, (ir.PRelu, ir.Clamp, ir.Maximum)):
        return _activate(level, op, get)
    return level.unknown(name)


def _shuffle_index(level: HeldLevel, op: ir.PixelShuffle | ir.PixelUnshuffle) -> list[int]:
    """Where channel i of the result is found: both sides are the same pixels of the same fine grid."""
    fine, coarse = (op.name, op.inputs[0]) if isinstance(op, ir.PixelShuffle) else (op.inputs[0], op.name)
    c, r, f = level.teacher.type(fine).channels, op.factor, level.teacher.type(coarse).scale // level.base
    to_coarse = []
    for channel in range(c):
        for y in range(f * r):
            for x in range(f * r):
                to_coarse.append((((channel * r + y % r) * r + x % r) * f + y // r) * f + x // r)
    if isinstance(op, ir.PixelShuffle):
        return to_coarse
    return torch.tensor(to_coarse).argsort().tolist()


def _activate(level: HeldLevel, op: ir.Op, get: Get) -> LinearForm:
    """Activation n from its ReLUs n#0, n#1 (whose own definitions are in `before_activation`)."""
    if isinstance(op, ir.PRelu):
        fold = level.channels(op.name) // len(op.slope)
        return get(f"{op.name}#0") + get(f"{op.name}#1").scale(-op.slope.repeat_interleave(fold))
    if isinstance(op, ir.Maximum):
        return get(op.inputs[0]) + get(f"{op.name}#0")
    assert isinstance(op, ir.Clamp)
    if math.isinf(op.low) and math.isinf(op.high):
        return get(op.inputs[0])
    if math.isinf(op.low):
        return get(f"{op.name}#0").scale(-1.0, op.high)
    if math.isinf(op.high):
        return get(f"{op.name}#0").scale(1.0, op.low)
    return get(f"{op.name}#0").scale(1.0, op.low) + get(f"{op.name}#1").scale(-1.0)


def before_activation(level: HeldLevel, name: str, channels: Sequence[int]) -> tuple[LinearForm, Tensor] | None:
    """The operand of channels of an activation, and the slope (C,) of each; None if the tensor is not one's.

    Activations are the teacher's Relus and PRelus, and the ReLUs "n#k" of others.
    """
    op = level.teacher[name] if not is_relu(name) else None
    if isinstance(op, ir.PRelu):
        fold = level.channels(name) // len(op.slope)
        return level.form(op.inputs[0]).pick(channels), op.slope.double().repeat_interleave(fold)[list(channels)]
    form = _before_relu(level, name, channels)
    return None if form is None else (form, torch.zeros(len(channels), dtype=torch.float64))


def _before_relu(level: HeldLevel, name: str, channels: Sequence[int]) -> LinearForm | None:
    """The operand of channels of ReLU `name` ("n#k", or a Relu of the teacher); None if the tensor is not one's."""
    op, k = level.teacher[tensor_of(name)], name.partition("#")[2]
    if not isinstance(op, (ir.Relu, ir.PRelu, ir.Clamp, ir.Maximum)):
        return None
    x = level.form(op.inputs[0]).pick(channels)
    if isinstance(op, ir.Relu) and not k:
        return x
    if isinstance(op, ir.PRelu) and k in ("0", "1"):
        return x.scale(1.0 if k == "0" else -1.0)
    if isinstance(op, ir.Maximum) and k == "0":
        return level.form(op.inputs[1]).pick(channels) + x.scale(-1.0)
    if isinstance(op, ir.Clamp) and k == "0" and math.isinf(op.low):
        return x.scale(-1.0, op.high)
    if isinstance(op, ir.Clamp) and k in ("0", "1"):
        return x.scale(1.0, -(op.low if k == "0" else op.high))
    return None


def _convolve(level: HeldLevel, op: ir.Conv2d | ir.ConvTranspose2d, get: Get) -> LinearForm:
    """A convolution of its operand, pixels folded to the level's resolution."""
    if not (is_finite(op.weight) and is_finite(op.bias)):
        raise CertificateError(f"{op.name}: the teacher's weights are NaN, infinite or too large")
    full = _without_groups(op)
    fold = level.teacher.type(op.inputs[0]).scale // level.base
    taps, out = _taps(op, fold), fold * (op.stride if isinstance(op, ir.ConvTranspose2d) else 1)
    radius = max(abs(v // fold) for _, _, v in taps)
    size = 2 * radius + 1
    level.require_room(op.name, full.shape[0] * out * out * full.shape[1] * fold * fold * size * size)
    # tap i reads pixel i - radius of one grid: nothing is folded
    kernel = full if taps == [(0, i, i - radius) for i in range(size)] else _fold(full, taps, fold, out, radius)
    shift = op.bias.double().repeat_interleave(out * out)
    return _compose(level, op.name, kernel, shift, get(op.inputs[0]), real=get == level.form)


def _fold(full: Tensor, taps: Sequence[tuple[int, int, int]], fold: int, out: int, radius: int) -> Tensor:
    """A kernel between cells of `fold` x `fold` pixels and of `out` x `out`."""
    size = 2 * radius + 1
    folded = torch.zeros(full.shape[0], out, out, full.shape[1], fold, fold, size, size, dtype=torch.float64)
    for dy, i, y in taps:
        for dx, j, x in taps:
            folded[:, dy, dx, :, y % fold, x % fold, radius + y // fold, radius + x // fold] += full[:, :, i, j]
    return folded.reshape(full.shape[0] * out * out, -1, size, size)


def _without_groups(op: ir.Conv2d | ir.ConvTranspose2d) -> Tensor:
    """The kernel (C_out, C_in, k, k) with the zeros that groups leave out."""
    weight, k = op.weight, op.weight.shape[-1]
    each = weight.shape[1]
    if op.groups == 1:
        full = weight.double()
        return full if isinstance(op, ir.Conv2d) else full.transpose(0, 1)
    groups = torch.arange(len(weight)).chunk(op.groups)
    if isinstance(op, ir.Conv2d):
        full = torch.zeros(len(weight), each * op.groups, k, k, dtype=torch.float64)
        for g, rows in enumerate(groups):
            full[rows, g * each : (g + 1) * each] = weight[rows].double()
        return full
    full = torch.zeros(each * op.groups, len(weight), k, k, dtype=torch.float64)
    for g, columns in enumerate(groups):
        full[g * each : (g + 1) * each, columns] = weight[columns].double().transpose(0, 1)
    return full


def _taps(op: ir.Conv2d | ir.ConvTranspose2d, fold: int) -> list[tuple[int, int, int]]:
    """(D, i, v) in one direction: pixel D of a cell reads, through tap i, pixel v of the operand's grid.

    v counts from the same cell, of `fold` pixels: v = D + i * dilation - reach, or for a transposed convolution
    stride * v = D + padding - i.
    """
    k = op.weight.shape[-1]
    if isinstance(op, ir.Conv2d):
        return [(d, i, d + (i - k // 2) * op.dilation) for d in range(fold) for i in range(k)]
    reads = [(d, i, d + op.padding - i) for d in range(fold * op.stride) for i in range(k)]
    return [(d, i, v // op.stride) for d, i, v in reads if v % op.stride == 0]


def _compose(level: HeldLevel, name: str, kernel: Tensor, bias: Tensor, inner: LinearForm, *, real: bool) -> LinearForm:
    """kernel * inner + bias.

    Only a pointwise form can go through a wider kernel; of its constant the centre tap reads all, the others what
    `one` holds, which is 0 beyond the border.  Real: `inner` is the operand as it is, no leaf set to zero, so that
    what cannot be composed is the tensor `name` itself.
    """
    size, mid = kernel.shape[-1], inner.kernel.shape[-1] // 2
    if size == 1:
        return inner.mix(kernel[:, :, 0, 0], bias)
    matrix = inner.kernel[:, :, mid, mid]
    lost_rows = torch.zeros(len(kernel), dtype=torch.bool)
    if mid:
        wide = inner.kernel.count_nonzero((1, 2, 3)) > matrix.count_nonzero(1)
        lost_rows = kernel[:, wide].flatten(1).any(1)
    each = _most(matrix, 0)
    composed = _push_through(kernel, matrix)
    composed_terms = None
    if inner.kernel_terms is not None or each > 1:
        composed_terms = _push_through(kernel.abs(), inner.terms[:, :, mid, mid])
    bias_terms = bias.abs()
    if inner.bias_terms.any():  # else there is no constant to push through
        constant, centre = _without_centre(_push_through(kernel, inner.bias[:, None])[:, 0])
        constant_terms, centre_terms = _without_centre(_push_through(kernel.abs(), inner.bias_terms[:, None])[:, 0])
        if level.one is None:
            lost_rows |= constant.flatten(1).any(1)
        elif constant_terms.any():
            composed_terms = composed.abs() if composed_terms is None else composed_terms
            composed_terms[:, level.one] += constant_terms
            composed[:, level.one] += constant
        bias, bias_terms = bias + centre, bias_terms + centre_terms
    steps = inner.steps + 2 + max(each, len(matrix))
    form = LinearForm(composed, bias, bias_terms, composed_terms, steps)
    if not lost_rows.any():
        return form
    gone = lost_rows.double()
    instead = level.unknown(name) if real else level.fresh(name)
    return form.scale(1.0 - gone) + instead.scale(gone)


def _without_centre(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Taps (C, k, k) with the centre one set to 0, and the centre ones (C,)."""
    others, mid = taps.clone(), taps.shape[-1] // 2
    others[:, mid, mid] = 0
    return others, taps[:, mid, mid]


def _most(matrix: Tensor, dim: int) -> int:
    """The most numbers other than 0 that one row (dim 1) or one column (dim 0) of a matrix has."""
    return int((matrix != 0).sum(dim).max())


def _times(matrix: Tensor, kernel: Tensor) -> Tensor:
    return (matrix @ kernel.flatten(1)).reshape(len(matrix), *kernel.shape[1:])


def _leaves(part: ir.Part) -> frozenset[str]:
    return frozenset((*part.sources, *part.rest))


def _push_through(kernel: Tensor, matrix: Tensor) -> Tensor:
    """kernel * matrix; for a matrix that picks channels, as  z_p - z_m  does, without multiplying by zeros."""
    used = matrix != 0
    if int(used.sum(0).max()) <= 1:
        row = used.to(torch.uint8).argmax(0)
        return kernel.index_select(1, row).mul_(matrix.gather(0, row[None])[:, :, None, None])
    taps = kernel.permute(0, 2, 3, 1).reshape(-1, kernel.shape[1]) @ matrix
    return taps.reshape(len(kernel), *kernel.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


def pad(kernel: Tensor, size: int, columns: int = 0) -> Tensor:
    """The same kernel with zeros all round up to (size, size), and for further columns up to `columns`."""
    margin = (size - kernel.shape[-1]) // 2
    if not margin and columns <= kernel.shape[1]:
        return kernel
    return torch.nn.functional.pad(kernel, (*((margin,) * 4), 0, max(0, columns - kernel.shape[1])))


def _common(forms: Sequence[LinearForm]) -> tuple[int, int]:
    return max(f.kernel.shape[-1] for f in forms), max(f.kernel.shape[1] for f in forms)


def stack(forms: Sequence[LinearForm]) -> LinearForm:
    """The rows of several forms, one below the other."""
    size, columns = _common(forms)
    several = any(f.kernel_terms is not None for f in forms)
    return LinearForm(
        torch.cat([pad(f.kernel, size, columns) for f in forms]),
        torch.cat([f.bias for f in forms]),
        torch.cat([f.bias_terms for f in forms]),
        torch.cat([pad(f.terms, size, columns) for f in forms]) if several else None,
        max(f.steps for f in forms),
    )


def is_finite(numbers: Tensor) -> bool:
    least, most = numbers.aminmax()  # of NaN both are
    return math.isfinite(least) and math.isfinite(most)
