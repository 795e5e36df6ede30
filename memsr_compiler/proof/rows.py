"""Rows of a layer compared with what they must be: each stored number is the exact one, rounded to its dtype.

The exact one is a sum of the teacher's numbers, their products and constants of shifts, computed in float64.  It is
known up to its slack, what float64 may have lost of its own terms (`forms.LinearForm`).  Where the rounded numbers
differ, both ends of that interval are rounded, and the stored number must lie between; rounding is monotonic, so it is
the rounding of some number within the slack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NoReturn

import torch
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.proof.forms import HeldLevel, LinearForm, pad, shift_of

LARGE = 64.0  # times the image and all weights of its row: such a constant is watched as those of shifts are
TOO_COARSE = 2.0**-24  # of the largest number of a layer; where float64 loses more, nothing can be decided


@dataclass(frozen=True)
class Layer:
    """One layer of the plain network: weight (C_out, C_in, k, k) and bias (C_out,) as stored, ReLU or not, and the
    factor of the pixel shuffle after it (1: none).

    slope  (C_out, 1, 1) of the PReLU that it ends with instead of a ReLU; None: it ends with none
    """

    weight: Tensor
    bias: Tensor
    relu: bool
    shuffle: int
    slope: Tensor | None = None

    @property
    def slopes(self) -> Tensor:
        """Slope of each channel (C_out,) below zero, as stored: 0 in a ReLU, 1 where there is no activation."""
        if self.slope is not None:
            return self.slope.flatten()
        return torch.full_like(self.bias, float(not self.relu))


@dataclass(frozen=True)
class LayerScale:
    """Powers of two by which the channels that a layer makes, and those that it reads, are less than what they mean."""

    rows: Tensor
    columns: Tensor

    @property
    def is_one(self) -> bool:
        """Whether all channels hold what they mean."""
        return bool((self.rows == 1).all() and (self.columns == 1).all())

    def pick(self, rows: Tensor) -> LayerScale:
        """The same of some rows."""
        return LayerScale(self.rows[rows], self.columns)

    @property
    def of_kernel(self) -> Tensor:
        """(C_out, C_in, 1, 1): a stored weight over the one that it stands for."""
        return (self.rows[:, None] / self.columns)[:, :, None, None]

    def scale(self, form: LinearForm) -> LinearForm:
        """A form as it is stored."""
        if self.is_one:
            return form
        terms = None if form.kernel_terms is None else form.kernel_terms * self.of_kernel
        kernel, bias, bias_terms = form.kernel * self.of_kernel, form.bias * self.rows, form.bias_terms * self.rows
        return LinearForm(kernel, bias, bias_terms, terms, form.steps)


@dataclass(frozen=True)
class Expected:
    """Rows as they must be.

    form    before the activation
    slopes  (C,) of the activation: 0 of a ReLU, 1 where a value passes as it is
    either  bool (C,): whether the slope may be 0 or 1, since what goes into the activation is never negative
    """

    form: LinearForm
    slopes: Tensor
    either: Tensor

    @staticmethod
    def behind(form: LinearForm, slope: float | Tensor, *, either: bool = False) -> Expected:
        """The rows of a form behind an activation with one slope for all, or one each."""
        rows = len(form.bias)
        slopes = torch.broadcast_to(torch.as_tensor(slope, dtype=torch.float64), (rows,))
        return Expected(form, slopes, torch.full((rows,), either))


class Rows:
    """Some rows of a layer, with one meaning, and what they must be."""

    def __init__(
        self, below: HeldLevel, layer: Layer, m: ir.Meaning, expected: Expected, scale: LayerScale, where: str
    ) -> None:
        self.below, self.meaning, self.where = below, m, where
        at = torch.tensor(m.positions)
        self.there = at >= 0
        self.at = at[self.there]
        self.slopes, self.expected = layer.slopes[self.at], expected
        self.weight = pad(layer.weight[self.at], expected.form.kernel.shape[-1])
        self.bias = layer.bias[self.at]
        self.scale = scale.pick(self.at)
        self.exact = self._as_split(expected.form.pick([i for i, p in enumerate(m.positions) if p >= 0]))
        self.gone = expected.form.pick([i for i, p in enumerate(m.positions) if p < 0])

    @cached_property
    def shifted(self) -> bool:
        """Whether constants enter: of shifts, of clamps, or large ones of the teacher."""
        constants = bool(self.below.constants.any() or self.large.any())
        return shift_of(self.below.teacher, self.meaning) > 0 or constants

    def check(self, largest: float) -> float:
        """The largest rounding, in half units in the last place.  Raises CertificateError for a row that is wrong.

        largest  of the layer's stored weights
        """
        if len(self.gone.bias):
            self._check_gone()
        if not len(self.at):
            return 0.0
        self._check_slopes()
        exact, constants = self.scale.scale(self.exact), largest * (1 + float(self.below.shifts.max()))
        rounding = max(
            self._compare(self.weight, exact.kernel, exact.kernel_terms, largest),
            self._compare(self.bias, exact.bias, exact.bias_terms, constants),
        )
        if not self.scale.is_one:
            self._check_scale()
        return rounding

    def lost(self) -> Tensor:
        """The most that whoever makes a network can take from each row: by constants, and where float64 cannot tell.

        A channel that holds t + C is read by taps a little off: t by as little, C by so much times C.  The bias, which
        takes C away again, and what is read of the constant 1 are rounded as well.  At the border fewer taps read.
        And t + C itself is rounded when the network runs, where it is not copied: t has no digits below those of C.
        Where terms cancel, a number may be anything within its slack, and a network's maker chooses it.
        """
        return self._lost() * self.expected.slopes.abs().clamp_min(1)

    def _lost(self) -> Tensor:
        rows, each = (self.exact, self.gone), torch.zeros(len(self.there), dtype=torch.float64)
        if not self.shifted and self.exact.kernel_terms is None and self.exact.slack <= self._common:
            bias = torch.relu(self.exact.slack * self.exact.bias_terms - self._common * self.exact.bias.abs())
            each[self.there] = bias  # of the kernel each number is a term of its own: within common rounding
            return each
        slack = [(r.slack * r.terms, r.slack * r.bias_terms) for r in rows]
        each[self.there] = self._beyond_common(slack[0][0], 0 * slack[0][1] if self.shifted else slack[0][1])
        if not self.shifted:
            return each
        copied = self.expected.either[self.there] & (self.meaning.kind != "value")
        beside = torch.where(copied, 0.0, self.large.clamp_min(self.meaning.constant))  # each value as it is rounded
        each[self.there] += torch.finfo(self.weight.dtype).eps / 2 * beside
        constants = self.below.constants.clone()
        if self.below.one is not None:
            constants[self.below.one] = 1.0
        unsure, unsure_of_gone = (taps.sum((2, 3)) @ constants + bias for taps, bias in slack)
        off, bias = self._off()
        each[self.there] += _most_of_any_cut(torch.einsum("ocij,c->oij", off, constants), bias) + unsure
        each[~self.there] = unsure_of_gone
        return each

    def lost_digits(self) -> Tensor:
        """The most that each row loses in numbers below its dtype's smallest normal one.

        Such numbers have fewer digits, at last none.  Nobody chooses how they are rounded.
        """
        each, (kernel, bias) = torch.zeros(len(self.there), dtype=torch.float64), self._off()
        each[self.there] = self._beyond_common(kernel.abs_(), bias.abs_())
        return each * self.expected.slopes.abs().clamp_min(1)

    def lost_slopes(self) -> Tensor:
        """The most that each row loses in a slope so small, as a share of what goes into its activation."""
        each, exact = torch.zeros(len(self.there), dtype=torch.float64), self.expected.slopes[self.there]
        off, common = (self.slopes.double() - exact).abs(), torch.finfo(self.slopes.dtype).eps
        each[self.there] = torch.where(self.expected.either[self.there], 0.0, torch.relu(off - common * exact.abs()))
        return each

    @property
    def _common(self) -> float:
        """Rounding of a number of this dtype, of its own size."""
        return torch.finfo(self.weight.dtype).eps

    def _beyond_common(self, kernel: Tensor, bias: Tensor) -> Tensor:
        """Sum (rows,) of what numbers are off beyond common rounding, taps times what the channels they read reach."""
        taps = torch.relu(kernel - self._common * self.exact.kernel.abs())
        lost = torch.relu(bias - self._common * self.exact.bias.abs())
        return lost + taps.sum((2, 3)) @ self.below.reach() if taps.any() else lost

    @cached_property
    def large(self) -> Tensor:
        """Constants (rows,) that rows hold beside what varies, where these are large; else 0.

        Shifts and bounds of clamps are such, and what a teacher adds itself, as max(1e6, x) does, or relu(x + 1e6).
        """
        if self.meaning.kind == "one":
            return torch.zeros_like(self.exact.bias)
        beside, held = self.below.constants, self.exact.bias
        if self.below.one is not None:
            beside = beside.clone()
            beside[self.below.one] = 1.0
        if len(there := beside.nonzero()[:, 0]):
            held = held + self.exact.kernel[:, there].sum((2, 3)) @ beside[there]
        held = held.clamp_min(0) + self.slopes.double().abs() * (-held).clamp_min(0)
        image = self.below.teacher.input
        bright = torch.tensor(max(abs(image.low), abs(image.high), 1.0))
        if not (held > LARGE * bright).any():
            return torch.zeros_like(held)
        reach = self.exact.kernel.abs().sum((2, 3))
        if self.below.one is not None:
            reach[:, self.below.one] = 0.0
        least = LARGE * torch.maximum(reach.sum(1), bright)
        return torch.where(held > least, held, 0.0)

    def _off(self) -> tuple[Tensor, Tensor]:
        """Stored weights and biases less the exact ones, all as if nothing were scaled."""
        weight = self.weight.double() / self.scale.of_kernel
        return weight - self.exact.kernel, self.bias.double() / self.scale.rows - self.exact.bias

    def _as_split(self, rows: LinearForm) -> LinearForm:
        """The exact rows, where there is a choice as the stored ones have it.

        A constant is all in the bias, all on the centre tap of `one`, or on both as the teacher's definitions have it.
        What is read of a channel of zeros may be left away.
        """
        kernel, one, mid = rows.kernel, self.below.one, rows.kernel.shape[-1] // 2
        if self.below.zeros:
            kernel = kernel.clone()
            kernel[:, self.below.zeros] *= self.weight[:, self.below.zeros] != 0
        if one is None:
            return replace(rows, kernel=kernel)
        tap, bias = kernel[:, one, mid, mid], rows.bias
        to_bias = (self.weight[:, one, mid, mid] == 0) & (tap != 0)
        to_tap = (self.bias == 0) & (bias != 0) & ~to_bias
        if not (to_bias | to_tap).any():
            return replace(rows, kernel=kernel)
        kernel, kernel_terms, total = kernel.clone(), rows.terms.clone(), tap + bias
        total_terms = kernel_terms[:, one, mid, mid] + rows.bias_terms
        kernel_terms[:, one, mid, mid] = total_terms
        kernel[:, one, mid, mid] = torch.where(to_bias, 0.0, torch.where(to_tap, total, tap))
        bias = torch.where(to_tap, 0.0, torch.where(to_bias, total, bias))
        return LinearForm(kernel, bias, total_terms, kernel_terms, rows.steps + 1)

    def _compare(self, stored: Tensor, exact: Tensor, terms: Tensor | None, largest: float) -> float:
        """The largest rounding.  `largest` is the scale below which float64's own losses must stay."""
        difference, unit, slack = (stored.double() - exact).abs_(), exact.abs(), self.exact.slack
        if terms is not None and (slack * terms > TOO_COARSE * unit.clamp_min(largest)).any():
            raise CertificateError(
                f"{self.where}: such large terms cancel that float64 cannot tell what is left of them, and with it "
                "what the numbers must be"
            )
        differ = (stored != exact.to(stored.dtype)).nonzero(as_tuple=True)
        if len(differ[0]):
            lost = slack * (unit if terms is None else terms)[differ]
            have, want = stored[differ], exact[differ]
            wrong = ~(((want - lost).to(stored.dtype) <= have) & (have <= (want + lost).to(stored.dtype)))
            if wrong.any():
                self._refuse(stored, exact, [int(i[wrong.nonzero()[0, 0]]) for i in differ])
            difference[differ] = (difference[differ] - lost).clamp_min(0)
            unit[differ] += lost
        info = torch.finfo(stored.dtype)
        return float(difference.div_(unit.clamp_min_(info.smallest_normal)).max()) / (info.eps / 2)

    def _refuse(self, stored: Tensor, exact: Tensor, spot: Sequence[int]) -> NoReturn:
        row, *rest = spot
        number = int(self.at[row])
        what = f"weight {[number, *rest]}" if rest else f"bias {number}"
        have, want = float(stored[tuple(spot)]), float(exact[tuple(spot)])
        raise CertificateError(f"{self.where}: {what} is {have:.9g}, the teacher's is {want:.9g}")

    def _check_scale(self) -> None:
        """Powers of two change no digit only as long as no number becomes so small that the dtype has fewer digits.

        What such numbers lose must be no more than rounding takes from the largest weight of their row.
        """
        weight, bias = (off.abs() for off in self._off())
        info, rows = torch.finfo(self.weight.dtype), self.exact
        most = rows.kernel.flatten(1).abs().amax(1)
        for off, exact, terms, large in (
            (weight, rows.kernel, rows.terms, most[:, None, None, None]),
            (bias, rows.bias, rows.bias_terms, most),
        ):
            unit = torch.maximum(exact.abs(), large).clamp_min(info.smallest_normal)
            if (off > info.eps / 2 * unit + rows.slack * terms).any():
                raise CertificateError(f"{self.where}: is scaled so far down that its numbers lose their digits")

    def _check_slopes(self) -> None:
        """Slopes are the teacher's, rounded; 0 and 1 are themselves, and what is never negative may have either."""
        exact, either = self.expected.slopes[self.there], self.expected.either[self.there]
        wrong = (self.slopes != exact.to(self.slopes.dtype)) & ~(either & (self.slopes == 1))
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise CertificateError(
                f"{self.where}: the slope of channel {int(self.at[row])} is {float(self.slopes[row]):.9g}, what it "
                f"means asks for {float(exact[row]):.9g}"
            )

    def _check_gone(self) -> None:
        """Channels that are not there must be always zero: a constant of 0, or in front of a ReLU not above it."""
        kernel, bias, one, mid = self.gone.kernel.clone(), self.gone.bias, self.below.one, self.weight.shape[-1] // 2
        kernel_lost, bias_lost = self.gone.slack * self.gone.terms, self.gone.slack * self.gone.bias_terms
        if one is not None:
            bias = bias + kernel[:, one, mid, mid]
            bias_lost = bias_lost + kernel_lost[:, one, mid, mid]
            kernel[:, one, mid, mid] = 0
        kernel[:, self.below.zeros] = 0
        constant = torch.where(self.expected.slopes[~self.there] == 0, bias, bias.abs())
        if (kernel.abs() > kernel_lost).any() or (constant > bias_lost).any():
            raise CertificateError(f"{self.where}: a channel was left out that is not always zero")


def _most_of_any_cut(taps: Tensor, bias: Tensor) -> Tensor:
    """Largest magnitude (C,) of bias + sum of taps (C, k, k), over all ways in which borders can cut the kernel.

    A cut leaves a rectangle with the centre in it.  Rings of zeros around the others cost no time.
    """
    mid = taps.shape[-1] // 2
    used = (taps != 0).any(0).nonzero()
    radius = int((used - mid).abs().max()) if len(used) else 0
    taps = taps[:, mid - radius : mid + radius + 1, mid - radius : mid + radius + 1]
    sums = torch.nn.functional.pad(taps.cumsum(1).cumsum(2), (1, 0, 1, 0))
    most = torch.zeros_like(bias)
    for top in range(radius + 1):
        rows = sums[:, radius + 1 :] - sums[:, top : top + 1]
        left, right = rows[:, :, : radius + 1].aminmax(dim=2), rows[:, :, radius + 1 :].aminmax(dim=2)
        cuts = torch.stack([right.max - left.min, right.min - left.max])  # of all rectangles the two ends
        most = torch.maximum(most, (cuts + bias[:, None]).abs().amax((0, 2)))
    return most
