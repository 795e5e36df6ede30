"""Paper mode: the student that MemSR (Wu, Lee, Ma, ICML 2022) starts from.  See docs/paper_mode.md.

Algorithm 1 keeps the largest principal components of the teacher's features and shifts them so that a ReLU rarely
clips them; Eq. 11 is the kernel that computes them from the components below; Eq. 15 is what their number costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.ir.kernels import bias_from_ones, mix_inputs
from memsr_compiler.student.crops import count_pixels
from memsr_compiler.student.levels import Level, LeveledTeacher
from memsr_compiler.student.paper.features import advance, columns, measure_moments
from memsr_compiler.student.paper.level_kernels import level_kernel
from memsr_compiler.student.report import Derived, Kernel, LayerShrunk
from memsr_compiler.student.statistics.distributed import min_over_processes, share, sum_moments, sum_over_processes
from memsr_compiler.student.statistics.moments import Moments
from memsr_compiler.student.statistics.spill import Spool

MARGIN = 3.0  # how far beyond what was measured a shift must reach; DESIGN section 2
FOLLOWED = 8  # images on which the student itself is looked at; the statistics are of all
NOTHING = 1e-12  # of the largest variance: less is rounding, not a direction


@dataclass(frozen=True)
class PaperOptions:
    """Where the paper's text and its authors' code part, or the text leaves a choice.  docs/paper_mode.md has reasons.

    relative_to    Eq. 15 as a share of the features with ("uncentred": the text) or without their mean ("centred":
                   the code, whose features contain the constant of the skips; ours never do)
    shift_over     the mean shift averages a channel's negative entries ("negative": the text), or those and zeros for
                   all other entries ("all": the code)
    constant       the student reads the features' mean from a channel of ones ("channel": one_pad, exact up to the
                   border), or has it in the bias ("bias": one direction more, wrong within a kernel's reach of it; a
                   layer of a single channel always has)
    linear_levels  where no channel of the teacher's level has a ReLU, the student has one all the same ("relu": the
                   text's plain network), or is shifted out of its reach ("free": the code has none there)
    kept           so many levels below the output keep the teacher's channels as they are, whatever widths say: with
                   the tail above them copied.  0: they are shrunk like all others; 1: the code, for a tail of one
                   convolution
    """

    relative_to: Literal["centred", "uncentred"] = "centred"
    shift_over: Literal["negative", "all"] = "negative"
    constant: Literal["channel", "bias"] = "channel"
    linear_levels: Literal["relu", "free"] = "relu"
    kept: int = 0


PAPER = PaperOptions()
AUTHORS = PaperOptions("centred", "all", "channel", "free", kept=1)
CHOICES = {name: get_args(kind) for name, kind in get_type_hints(PaperOptions).items() if get_args(kind)}


def paper_options(words: Sequence[str]) -> PaperOptions:
    """PaperOptions from "text", "code" and "field=value", the later ones changing what the earlier ones said.

    Raises InvalidInput for an unknown word, field or value.
    """
    options = PAPER
    for word in words:
        name, equals, value = word.partition("=")
        whole = {"text": PAPER, "code": AUTHORS}.get(word)
        if whole is not None:
            options = whole
        elif equals and name == "kept" and value.isdigit():
            options = replace(options, kept=int(value))
        elif equals and value in CHOICES.get(name, ()):
            options = replace(options, **{name: value})  # type: ignore[arg-type]
        else:
            known = ", ".join(f"{field}={'|'.join(values)}" for field, values in CHOICES.items())
            raise InvalidInput(f"paper option '{word}': want text, code, {known} or kept=N")
    return options


@torch.no_grad()
def derive_memsr(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    *,
    widths: Sequence[int] | None = None,
    theta: float | None = None,
    align: int = 8,
    mean_shift: float = 3.0,
    options: PaperOptions = PAPER,
    on_step: Callable[[str], None] | None = None,
) -> Derived:
    """Algorithm 1 and Eq. 11, level by level, from the teacher's features on batches (N, C, H, W).

    widths      the student's, one for each level but the last; or
    theta       each level's width is the smallest with a relative error (Eq. 15) below it, rounded up to `align`
    mean_shift  beta of Algorithm 1

    Statistics are float64.  Between two levels only the features of one are held, on disk where they are many.
    Raises InvalidInput for widths that leave no room, or fewer pixels than channels.
    """
    inner = teacher.levels[:-1]
    _check(teacher, inputs, widths, theta, options)
    kernels: list[Kernel] = []
    layers: list[LayerShrunk] = []
    lifted = torch.eye(teacher.input.channels + 1, dtype=torch.float64)
    ones = False
    own = Moments.none(teacher.input.channels)
    with Spool() as batches, Spool() as looked_at:
        for batch, followed in share(list(zip(inputs, _sample(inputs), strict=True))):
            batches.append(dict(teacher.start(batch.double())))
            looked_at.append({"student": batch[followed].float(), "followed": followed})
        for i, level in enumerate(inner):
            if on_step is not None:
                on_step(f"level {i + 1} of {len(inner)}")
            read = ones
            narrow = widths is not None and widths[i] == 1
            ones = options.constant == "channel" and teacher.levels[i + 1].kernel > 1 and not narrow
            for k, values in enumerate(batches):
                batches[k] = dict(advance(teacher, level, values))
            own = measure_moments(teacher, level, batches, own)
            spectrum = _Spectrum.of(sum_moments(own), options)
            if i >= len(inner) - options.kept:
                basis = _kept(level, ones, align if theta is not None else 1)
            else:
                width = widths[i] if widths is not None else spectrum.width(theta or 0.0, ones, align)
                basis = spectrum.basis(width, ones)
            basis = basis.shifted(_shift(basis, level, batches, mean_shift, options))
            kernels.append(basis.student(level_kernel(teacher, level), lifted, read))
            own_error = _follow(kernels[-1], level, basis.map, spectrum.mean, batches, looked_at)
            lifted = basis.lifted
            layers.append(
                LayerShrunk(
                    number=level.number,
                    holds=level.held,
                    teacher_width=level.channels,
                    width=basis.width,
                    relus=int(level.relu.sum()) if i >= len(inner) - options.kept else 0,
                    singular_values=spectrum.values.sqrt(),
                    lost=spectrum.lost(basis.directions.shape[1]),
                    own_error=own_error,
                    map=basis.map,
                )
            )
    last = teacher.levels[-1]
    kernels.append(_split(mix_inputs(level_kernel(teacher, last), lifted), ones))
    return Derived(tuple(kernels), tuple(layers))


@dataclass(frozen=True)
class _Basis:
    """What the student holds of a level: F ~ directions * (F^S - shift) + mean.

    Its channels: the constant 1, if `ones`; one for each direction; zeros up to `width`.
    mean (C,)    directions (C, r), orthonormal columns    shift (r,): gamma of Algorithm 1
    """

    mean: Tensor
    directions: Tensor
    shift: Tensor
    width: int
    ones: bool

    def shifted(self, shift: Tensor) -> _Basis:
        return _Basis(self.mean, self.directions, shift, self.width, self.ones)

    @property
    def map(self) -> Tensor:
        """M (C, width + 1), the constant's column last.  Algorithm 1's corrected bias: mean - M gamma, once."""
        out = torch.zeros(len(self.mean), self.width + 1, dtype=torch.float64)
        out[:, self.ones : self.ones + self.directions.shape[1]] = self.directions
        out[:, -1] = self.mean - self.directions @ self.shift
        return out

    @property
    def lifted(self) -> Tensor:
        """(1 + C, 1 + width): [1; F] from [1; F^S]."""
        out = torch.zeros(len(self.mean) + 1, self.width + 1, dtype=torch.float64)
        out[0, 0] = 1
        out[1:, 0], out[1:, 1:] = self.map[:, -1], self.map[:, :-1]
        return out

    def components(self, samples: Tensor) -> Tensor:
        """(C, N) -> (r, N)"""
        return self.directions.T @ samples - (self.directions.T @ self.mean)[:, None]

    def student(self, kernel: Tensor, lifted: Tensor, ones: bool) -> Kernel:
        """Eq. 11: for each tap the K^S with  M K^S ~ K M_below  by least squares, which is M^T K M_below, as M has
        orthonormal columns; the constant channel stays the constant.  `ones`: the level below has a channel of ones.
        """
        composed = mix_inputs(kernel, lifted)
        weight, bias = _split(torch.einsum("cr,cijk->rijk", self.directions, composed), ones)
        bias = bias - self.directions.T @ self.mean + self.shift
        above, below = int(self.ones), self.width - self.ones - len(bias)
        weight = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, 0, above, below))
        bias = torch.nn.functional.pad(bias, (above, below))
        bias[:above] = 1
        return weight, bias


def _split(kernel: Tensor, ones: bool) -> Kernel:
    """A kernel on [1; x] as one on x: the constant's centre tap is a bias (Eq. 4).  Its other taps go to
    channel 0 of x, if that holds ones; else they are bias too, which is right inside the image only."""
    weight, bias = bias_from_ones(kernel)
    constant, weight = weight[:, 0], weight[:, 1:].clone()
    if ones:
        weight[:, 0] += constant
        return weight, bias
    return weight, bias + constant.sum((1, 2))


@dataclass(frozen=True)
class _Spectrum:
    """Principal components of a level, largest first.

    mean (C,)    values (C,): the variances along vectors (C, C)    against: the energy that Eq. 15 divides by
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor
    against: float

    @staticmethod
    def of(moments: Moments, options: PaperOptions) -> _Spectrum:
        """The singular vectors of the centred features are the eigenvectors of their covariance.  Of a vector and its
        opposite, which the decomposition leaves open and the ReLU does not, the one whose largest entry is positive."""
        values, vectors = torch.linalg.eigh(moments.covariance)
        values, vectors = values.flip(0), vectors.flip(1)
        values = values.where(values > max(NOTHING * float(values[0]), 1e-14 * float(moments.mean.square().sum())), 0)
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        against = float(values.sum())
        if options.relative_to == "uncentred":
            against += float(moments.mean.square().sum())
        return _Spectrum(moments.mean, values, vectors * largest.sign(), against)

    def lost(self, directions: int) -> float:
        """Eq. 15 for the first directions."""
        return math.sqrt(float(self.values[directions:].sum()) / max(self.against, 1e-300))

    @property
    def rank(self) -> int:
        return int((self.values > 0).sum())

    def width(self, theta: float, ones: bool, align: int) -> int:
        """All errors are known at once: no search, and nothing that a search could spoil."""
        fits = [r for r in range(1, len(self.values)) if self.lost(r) < theta]
        least = min(fits, default=len(self.values))
        return -(-(least + ones) // align) * align

    def basis(self, width: int, ones: bool) -> _Basis:
        r = min(width - ones, self.rank)
        return _Basis(self.mean, self.vectors[:, :r], torch.zeros(r, dtype=torch.float64), width, ones)


def _kept(level: Level, ones: bool, align: int) -> _Basis:
    """All channels of the teacher as they are."""
    c = level.channels
    zeros = torch.zeros(c, dtype=torch.float64)
    return _Basis(zeros, torch.eye(c, dtype=torch.float64), zeros, -(-(c + ones) // align) * align, ones)


def _shift(basis: _Basis, level: Level, batches: Spool, mean_shift: float, options: PaperOptions) -> Tensor:
    """gamma = -beta * mean of the negative entries, for each direction (Algorithm 1)."""
    r = basis.directions.shape[1]
    total, count, lowest = (torch.zeros(r, dtype=torch.float64) for _ in range(3))
    samples = 0
    for values in batches:
        for part in columns(level, values):
            components = basis.components(part)
            count += (components < 0).sum(1)
            negative = components.clamp_max_(0)
            total += negative.sum(1)
            lowest = torch.minimum(lowest, negative.amin(1))
            samples += part.shape[1]
    if options.linear_levels == "free" and not level.relu.any():
        return min_over_processes(lowest).mul(-MARGIN)
    below = sum_over_processes(count).clamp_min(1)
    averaged = below if options.shift_over == "negative" else sum_over_processes(count.new_tensor(samples))
    return sum_over_processes(total).mul(-mean_shift).div(averaged)


def _sample(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Which images of each batch the student is run on: FOLLOWED of all, evenly from dark to bright."""
    places = [(float(image.mean()), i, j) for i, batch in enumerate(inputs) for j, image in enumerate(batch)]
    step = max(len(places) / FOLLOWED, 1.0)
    ordered = sorted(places)
    chosen = [ordered[int((k + 0.5) * step)] for k in range(min(FOLLOWED, len(places)))]
    return [torch.tensor(sorted(j for _, at, j in chosen if at == i), dtype=torch.long) for i in range(len(inputs))]


def _follow(kernel: Kernel, level: Level, mapping: Tensor, mean: Tensor, batches: Spool, looked_at: Spool) -> float:
    """The student goes on by one layer; the relative error of M * (what it computes), centred as in Eq. 15.

    In float32, as this is looked at and nothing is computed from it.
    """
    weight, bias = (part.float() for part in kernel)
    matrix, constant = mapping[:, :-1].float(), (mapping[:, -1:] - mean[:, None]).float()
    error = energy = 0.0
    for i, (values, record) in enumerate(zip(batches, looked_at, strict=True)):
        made = []
        for below, image in zip(record["student"], record["followed"], strict=True):  # one by one fits in the cache
            true = torch.cat([values[name][image] for name in level.held]).flatten(1).sub_(mean[:, None]).float()
            made.append(torch.nn.functional.conv2d(below, weight, bias, padding=weight.shape[-1] // 2).relu_())
            guess = torch.addmm(constant, matrix, made[-1].flatten(1))
            error += float(torch.linalg.vector_norm(guess.sub_(true))) ** 2
            energy += float(torch.linalg.vector_norm(true)) ** 2
        if made:
            looked_at[i] = {**record, "student": torch.stack(made)}
    error, energy = sum_over_processes(torch.tensor([error, energy], dtype=torch.float64)).tolist()
    return math.sqrt(error / energy) if energy > 0 else 0.0


def _check(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    widths: Sequence[int] | None,
    theta: float | None,
    options: PaperOptions,
) -> None:
    if (widths is None) == (theta is None):
        raise InvalidInput("paper mode takes widths or theta, one of the two")
    if theta is not None and not 0 < theta < 1:
        raise InvalidInput(f"theta={theta}: a relative error (Eq. 15), between 0 and 1; the paper's are 0.05 and 0.14")
    inner = len(teacher.levels) - 1
    if widths is not None and len(widths) != inner:
        raise InvalidInput(
            f"{len(widths)} widths for a student of {inner + 1} layers; give {inner}, all but the last's"
        )
    if min(widths or (1,)) < 1:
        raise InvalidInput("a width of 0 is no layer; give 1 or more")
    if not 0 <= options.kept <= inner:
        raise InvalidInput(f"kept={options.kept}: of {inner} levels below the output; give 0 to {inner}")
    have, most = count_pixels(inputs), max((level.channels for level in teacher.levels[:-1]), default=0)
    if have <= most:
        raise InvalidInput(
            f"{have} pixels say too little about {most} channels; give at least {most + 1 - have} more, larger images"
        )
