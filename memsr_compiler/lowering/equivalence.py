"""Two networks run side by side: the measured half of equivalence (the proved half is `verify`).

Two limits are put on a difference.  `rounding_bound` is what rounding explains: it grows with everything that is
rounded, the constants of shifts included, and for a constant of 1e8 it explains whatever there is.  `most_accepted` is
what a person accepts, in grey levels, whatever explains it.  Networks are equivalent within both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from os import PathLike
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from memsr_compiler.arithmetic import HALVES, name_arithmetic
from memsr_compiler.errors import InvalidInput, NotEquivalent
from memsr_compiler.images.tensors import Images, image_tensors
from memsr_compiler.plain.halves import run_in_halves
from memsr_compiler.plain.info import require_range
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.probes import probe_images as probe_images
from memsr_compiler.teachers.teacher import Range, Teacher, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import InFloat64, copy_module, first_weight, put, torch_device
from memsr_compiler.trace.samples import SIZES, possible_channels, stated_channels

_MOST_CHANNELS = 4096  # of an image

Function: TypeAlias = Callable[[Tensor], Tensor]
Network: TypeAlias = "TeacherLike | Function"

LEVELS = {torch.float16: 2.0, torch.bfloat16: 2.0}
"""Grey levels of 255 that rounding in a dtype may cost at most; half a level in the others."""


@dataclass(frozen=True)
class Equivalence:
    """The distance of two networks on the inputs that were tried.

    deviation   largest absolute difference, in the networks' own units
    bound       what rounding can explain (see `rounding_bound`) and a person accept (see `most_accepted`), or the
                tolerance that was asked for
    peak        largest magnitude of the first network's output
    input       name of the worst input;  at  (image, channel, y, x) there;  expected, found  the two values
    arithmetic  engine and precision in which it was measured, in words; "" for functions, which have their own
    beyond      the condition that the worst input does not meet: a carried value is larger than its shift; else ""
    """

    deviation: float
    bound: float
    peak: float
    input: str
    at: tuple[int, int, int, int]
    expected: float
    found: float
    arithmetic: str = ""
    beyond: str = ""

    @property
    def equivalent(self) -> bool:
        return self.deviation <= self.bound and self.deviation < math.inf

    def __bool__(self) -> bool:
        return self.equivalent

    def __str__(self) -> str:
        image, channel, y, x = self.at
        return (
            f"worst deviation {self.deviation:.3g} (bound {self.bound:.3g}, peak {self.peak:.3g}) on {self.input}, "
            f"image {image}, channel {channel}, pixel ({y}, {x}): {self.expected:.9g} and {self.found:.9g}"
            + (f"; {self.arithmetic}" if self.arithmetic else "")
            + (f"; {self.beyond}" if self.beyond else "")
        )

    def require(self) -> Equivalence:
        """Return this result; raise NotEquivalent with the worst place if it says no."""
        if not self.equivalent:
            raise NotEquivalent(
                str(self),
                deviation=self.deviation,
                bound=self.bound,
                probe=self.input,
                at=self.at,
                expected=self.expected,
                found=self.found,
            )
        return self


def check_equivalence(
    a: Network,
    b: Network,
    *,
    images: Mapping[str, Tensor] | Images | None = None,
    channels: int | None = None,
    input_range: Range | None = None,
    dtype: torch.dtype | None = None,
    tolerance: float | None = None,
    device: str = "cpu",
) -> Equivalence:
    """Run both networks on the same inputs, whole output, borders included.

    a, b         teachers, plain networks, modules (copied and taken to `dtype`), their files, or functions
                 (N, C, H, W) -> (N, C', s H, s W)
    images       tensors by name, or one or several: (N, C, H, W), pixels (H, W, C), files, a folder; default: noise,
                 constants and impulses from 1x1 up
    channels     of the input, where no image says it; default: what the first convolution of a or b takes
    input_range  of the inputs; default: the plain network's, if one of the two is one, else the teacher's, else 0 to 1
    dtype        of inputs and modules; default: float64.  Plain networks in float16, stored so or taken to it, run as
                 that is computed: layer by layer, each layer's output rounded to halves
    tolerance    absolute, in the networks' units; default: what rounding explains, the shift constants of plain
                 networks and the dtype they are stored in included, and no more than a person accepts
    device       where modules run, "cpu" or "cuda"; functions are given tensors on the CPU, and halves run there

    The result is true if and only if they agree; `.require()` raises NotEquivalent.  Raises InvalidInput if the
    outputs differ in shape, for what is no network or no image, and for a device that is not to be had.
    """
    _check_options(channels, input_range, dtype, tolerance)
    left, right = _network(a), _network(b)
    values = input_range or _common_range(left, right)
    width = channels or input_channels(left) or input_channels(right)
    if images is None:
        inputs: Mapping[str, Tensor] = probe_images(width or 3, values)
    elif isinstance(images, Mapping):
        inputs = images
    else:
        # More channels need not be the image's: a network may begin with a pixel unshuffle.
        tensors = image_tensors(images, channels=width if width in (1, 3) else None, input_range=values)
        inputs = {f"image {i}": x for i, x in enumerate(tensors)}
    if not inputs:
        raise InvalidInput("there is no input to compare the networks on")
    where = torch_device(device)
    halves = [_is_in_halves(network, dtype) for network in (left, right)]
    wide = dtype or torch.float64
    rounded = torch.float16 if any(halves) else wide
    first, second = (_runnable(n, wide, where, half) for n, half in zip((left, right), halves, strict=True))
    words = _name_arithmetic((left, right), halves, wide, where)
    results = []
    for name, x in inputs.items():
        _require_tensor(f"the image {name}", x)
        with torch.no_grad():
            expected, output = first(x.to(wide, copy=True)), second(x.to(wide, copy=True))  # either may change it
        for y in (expected, output):
            _require_tensor(f"what a network gives for {name}", y)
        if expected.shape != output.shape:
            raise InvalidInput(f"on {name} one gives {tuple(expected.shape)} and the other {tuple(output.shape)}")
        result = _compare(name, expected.double().cpu(), output.double().cpu())
        bound = allowed_deviation(result.peak, rounded, values, left, right) if tolerance is None else tolerance
        results.append(replace(result, bound=bound, arithmetic=words))
    worst = max(results, key=badness)
    if worst.equivalent:
        return worst
    return replace(worst, beyond=find_broken_shift(inputs[worst.input], left, right))


def _check_options(channels: object, input_range: object, dtype: object, tolerance: object) -> None:
    """Raises InvalidInput for what cannot be meant."""
    if channels is not None and not (isinstance(channels, Integral) and 0 < int(channels) <= _MOST_CHANNELS):
        raise InvalidInput(f"channels {channels!r}: want a whole number from 1 to {_MOST_CHANNELS}")
    if input_range is not None:
        require_range(input_range)
    if dtype not in (None, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise InvalidInput(f"dtype {dtype!r}: want torch.float16, torch.bfloat16, torch.float32 or torch.float64")
    if tolerance is not None and not (isinstance(tolerance, Real) and float(tolerance) >= 0):
        raise InvalidInput(f"tolerance {tolerance!r}: want a number from 0 on")


def allowed_deviation(
    peak: float, dtype: torch.dtype, input_range: Range, *networks: Teacher | nn.Module | Function
) -> float:
    """Largest deviation of networks that are called equivalent: rounding explains it, and a person accepts it."""
    return min(rounding_bound(peak, dtype, *networks), most_accepted(peak, dtype, input_range))


def most_accepted(peak: float, dtype: torch.dtype, input_range: Range) -> float:
    """Largest deviation that a person accepts, whatever explains it: half a grey level of 255, two in float16.

    After half a level an 8-bit output moves by one at most.  float16 has 11 digits where 8-bit images have 8: what
    trained networks lose in it, teachers and plain networks alike, is about one level (docs/results/exactness.md).  The
    255 levels are those of the input range; of half the largest output where that goes beyond twice the range.
    """
    low, high = input_range
    return LEVELS.get(dtype, 0.5) / 255 * max(high - low, peak / 2)


def rounding_bound(peak: float, dtype: torch.dtype, *networks: Teacher | nn.Module | Function) -> float:
    """Largest deviation that rounding explains: 4 * eps * magnitude * sqrt(roundings in a row).

    Roundings are independent enough to add like a random walk over all terms of the deeper network's dot products;
    the factor 4 leaves room for values on the way that are larger than the output.  A plain network says which are much
    larger: what a shift, or a bias (of a clamp that ends at 1e4, say), adds and takes off again is as large as what is
    rounded beside it.  One whose weights are stored rounded, and not to be had more exactly, has the eps of that.
    """
    modules = [module for module in map(_module, networks) if module is not None]
    plain = [module for module in modules if isinstance(module, PlainNet)]
    terms = max(map(_terms, modules), default=10_000)
    magnitude = max([peak, 1.0, *(net.largest_shift or _largest_bias(net) for net in plain)])
    eps = max([torch.finfo(dtype).eps, *(net.stored_eps for net in plain)])
    return float(4 * eps * magnitude * max(terms, 100) ** 0.5)


def _largest_bias(net: PlainNet) -> float:
    return max(float(layer.bias.detach().abs().max()) for layer in net)


def find_broken_shift(images: Tensor, *networks: Teacher | nn.Module | Function) -> str:
    """Words on a carried value that is larger than its shift on these images; "" where there is none.

    x + C behind a ReLU is 0 where x <= -C: what a plain network with shifts promises nothing for.
    """
    for net in map(_module, networks):
        if not isinstance(net, PlainNet) or net.certificate is None or not net.certificate.shifts:
            continue
        levels = [level for stage in net.certificate.stages for level in stage.levels[1:]]
        exact = copy_module(net, torch.float64)
        assert isinstance(exact, PlainNet), "a copy is what it is a copy of"
        y = images.double()
        with torch.no_grad():
            for layer, level in zip(exact, levels, strict=True):
                y = layer(y)
                for m in (m for m in level if m.kind == "shifted"):
                    if bool((y[:, [p for p in m.positions if p >= 0]] == 0).any()):
                        return (
                            f"there a carried value, of {m.tensor}, is beyond the shift's C = {m.constant:g}, and the "
                            "network promises nothing"
                        )
    return ""


def input_channels(network: Teacher | nn.Module | Function) -> int | None:
    """Channels that a network takes: those of its first convolution, unless it makes more of the image's before, or
    that it states.

    None if that cannot be seen.
    """
    module = _module(network)
    if module is not None and (stated := stated_channels(module)) is not None:
        return stated
    first = None if module is None else next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if module is None or first is None:
        return None
    tried = copy_module(module, None)
    possible = (c for c in possible_channels(module) if _takes(tried, c))
    return next(possible, first.in_channels)


@torch.no_grad()
def _takes(module: nn.Module, channels: int) -> bool:
    try:
        module(torch.zeros(1, channels, *SIZES[0], dtype=first_weight(module).dtype))
    except Exception:  # whatever the network's own code raises
        return False
    return True


def _network(network: Network) -> Teacher | Function:
    if isinstance(network, (Teacher, nn.Module, str, PathLike)):
        return as_teacher(network, plain=True)
    if not callable(network):
        raise InvalidInput(
            "a network is wanted, or a function of tensors: what read_teacher gives, a torch.nn.Module, a file's "
            f"path; not {type(network).__name__}"
        )
    return network


def _common_range(*networks: Teacher | Function) -> Range:
    """The range that both are to agree on: a plain network promises nothing outside its own."""
    teachers = [network for network in networks if isinstance(network, Teacher)]
    stated = [
        *(teacher.input_range for teacher in teachers if isinstance(teacher.module, PlainNet)),
        *(teacher.input_range for teacher in teachers if not teacher.range_is_assumed),
        *(teacher.input_range for teacher in teachers if teacher.path is not None),  # which was probed
    ]
    return stated[0] if stated else (0.0, 1.0)


def _module(network: Teacher | nn.Module | Function) -> nn.Module | None:
    if isinstance(network, Teacher):
        return network.module
    return network if isinstance(network, nn.Module) else None


def _terms(module: nn.Module) -> int:
    """Terms of the dot products one after the other, as far as modules tell."""
    return sum(p[0].numel() for p in module.parameters() if p.dim() == 4)


def _is_in_halves(network: Teacher | Function, dtype: torch.dtype | None) -> bool:
    """Whether a network is to run as float16 is computed: a plain one, stored in it or taken to it."""
    module = _module(network)
    return isinstance(module, PlainNet) and (dtype or module[0].weight.dtype) == torch.float16


def _runnable(network: Teacher | Function, dtype: torch.dtype, device: torch.device, in_halves: bool) -> Function:
    if not isinstance(network, Teacher):
        return network
    module = network.module
    if in_halves and isinstance(module, PlainNet):
        return partial(run_in_halves, module)
    copied = put(copy_module(module, dtype), device)

    def run_copy(x: Tensor) -> Tensor:
        with InFloat64() if dtype == torch.float64 else nullcontext():
            y: Tensor = copied(x.to(device))
        return y

    return run_copy


def _name_arithmetic(
    networks: Sequence[Teacher | Function], halves: Sequence[bool], dtype: torch.dtype, device: torch.device
) -> str:
    if any(halves):
        return name_arithmetic(HALVES, "torch")
    if not any(isinstance(network, Teacher) for network in networks):
        return ""
    return name_arithmetic(str(dtype).removeprefix("torch."), "torch", device.type)


def badness(result: Equivalence) -> tuple[bool, float, float]:
    """Whether it says no; deviation in units of its bound, then by itself, for where there is no bound.

    A network that gives NaN has no bound, and a deviation in units of that compares as less than nothing.
    """
    return not result.equivalent, result.deviation / max(result.bound, 1e-300), result.deviation


def _require_tensor(what: str, x: object) -> None:
    """Raises InvalidInput for what is no image (N, C, H, W) of real numbers."""
    if not isinstance(x, Tensor):
        raise InvalidInput(f"{what} is no tensor but {type(x).__name__}; want (N, C, H, W)")
    if x.dim() != 4 or x.numel() == 0 or x.is_complex():
        kind = "complex numbers" if x.is_complex() else f"shape {tuple(x.shape)}"
        raise InvalidInput(f"{what} has {kind}; want real numbers (N, C, H, W), none of them 0")


def _compare(name: str, expected: Tensor, output: Tensor) -> Equivalence:
    difference = torch.nan_to_num((expected - output).abs(), nan=math.inf, posinf=math.inf)
    at = np.unravel_index(int(difference.argmax()), difference.shape)  # torch's takes sympy, and half a second for that
    where = (int(at[0]), int(at[1]), int(at[2]), int(at[3]))
    peak = float(expected.abs().max())
    return Equivalence(float(difference[where]), 0.0, peak, name, where, float(expected[where]), float(output[where]))
