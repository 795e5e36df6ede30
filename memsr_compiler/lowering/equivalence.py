"""Two networks run side by side: the measured half of equivalence (the proved half is `verify`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TypeAlias

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, NotEquivalent
from memsr_compiler.images.tensors import Images, image_tensors
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.teacher import Range, Teacher, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import copy_module, torch_device

Function: TypeAlias = Callable[[Tensor], Tensor]
Network: TypeAlias = "TeacherLike | Function"


@dataclass(frozen=True)
class Equivalence:
    """The distance of two networks on the inputs that were tried.

    deviation   largest absolute difference, in the networks' own units
    bound       what rounding can explain (see `rounding_bound`), or the tolerance that was asked for
    peak        largest magnitude of the first network's output
    input       name of the worst input;  at  (image, channel, y, x) there;  expected, found  the two values
    """

    deviation: float
    bound: float
    peak: float
    input: str
    at: tuple[int, int, int, int]
    expected: float
    found: float

    @property
    def equivalent(self) -> bool:
        return self.deviation <= self.bound

    def __bool__(self) -> bool:
        return self.equivalent

    def __str__(self) -> str:
        image, channel, y, x = self.at
        return (
            f"worst deviation {self.deviation:.3g} (bound {self.bound:.3g}, peak {self.peak:.3g}) on {self.input}, "
            f"image {image}, channel {channel}, pixel ({y}, {x}): {self.expected:.9g} and {self.found:.9g}"
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
    dtype: torch.dtype = torch.float64,
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
    tolerance    absolute, in the networks' units; default: what rounding in `dtype` explains
    device       where modules run, "cpu" or "cuda"; functions are given tensors on the CPU

    The result is true if and only if they agree; `.require()` raises NotEquivalent.  Raises InvalidInput if the
    outputs differ in shape, for what is no network or no image, and for a device that is not to be had.
    """
    left, right = _network(a), _network(b)
    values = input_range or _common_range(left, right)
    width = channels or input_channels(left) or input_channels(right)
    if images is None:
        inputs: Mapping[str, Tensor] = probe_images(width or 3, values)
    elif isinstance(images, Mapping):
        inputs = images
    else:
        # More channels need not be the image's: a network may begin with a pixel unshuffle.
        tensors = image_tensors(images, channels=1 if width == 1 else None, input_range=values)
        inputs = {f"image {i}": x for i, x in enumerate(tensors)}
    if not inputs:
        raise InvalidInput("there is no input to compare the networks on")
    where = torch_device(device)
    first, second = _runnable(left, dtype, where), _runnable(right, dtype, where)
    results = []
    for name, x in inputs.items():
        with torch.no_grad():
            expected, output = first(x.to(dtype, copy=True)), second(x.to(dtype, copy=True))  # either may change it
        if expected.shape != output.shape:
            raise InvalidInput(f"on {name} one gives {tuple(expected.shape)} and the other {tuple(output.shape)}")
        result = _compare(name, expected.double().cpu(), output.double().cpu())
        bound = rounding_bound(result.peak, dtype, left, right) if tolerance is None else tolerance
        results.append(replace(result, bound=bound))
    return max(results, key=_badness)


def probe_images(channels: int, input_range: Range = (0.0, 1.0)) -> dict[str, Tensor]:
    """Inputs that find border and size mistakes: noise, both ends of the range, impulses; always the same ones."""
    low, high = input_range
    probes = {}
    for height, width in ((1, 1), (1, 7), (3, 2), (5, 5), (24, 31)):
        generator = torch.Generator().manual_seed(height * 7919 + width)
        noise = torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64)
        impulse = torch.full((1, channels, height, width), low, dtype=torch.float64)
        impulse[..., 0, 0] = impulse[..., -1, -1] = high
        ends = [torch.full_like(impulse, low), torch.full_like(impulse, high)]
        probes[f"a {height}x{width} probe"] = torch.cat([noise * (high - low) + low, impulse, *ends])
    return probes


def rounding_bound(peak: float, dtype: torch.dtype, *networks: Teacher | nn.Module | Function) -> float:
    """Largest deviation that rounding explains: 4 * eps * magnitude * sqrt(roundings in a row).

    Roundings are independent enough to add like a random walk over all terms of the deeper network's dot products;
    the factor 4 leaves room for values on the way that are larger than the output.
    """
    modules = [module for module in map(_module, networks) if module is not None]
    terms = max(map(_terms, modules), default=10_000)
    return float(4 * torch.finfo(dtype).eps * max(peak, 1.0) * max(terms, 100) ** 0.5)


def input_channels(network: Teacher | nn.Module | Function) -> int | None:
    """Channels that the first convolution of a network takes; None if that cannot be seen."""
    module = _module(network)
    if module is None:
        return None
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None else None


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
    ]
    return stated[0] if stated else (0.0, 1.0)


def _module(network: Teacher | nn.Module | Function) -> nn.Module | None:
    if isinstance(network, Teacher):
        return network.module
    return network if isinstance(network, nn.Module) else None


def _terms(module: nn.Module) -> int:
    """Terms of the dot products one after the other, as far as modules tell."""
    return sum(p[0].numel() for p in module.parameters() if p.dim() == 4)


def _runnable(network: Teacher | Function, dtype: torch.dtype, device: torch.device) -> Function:
    if not isinstance(network, Teacher):
        return network
    module = copy_module(network.module, dtype).to(device)
    return lambda x: module(x.to(device))


def _badness(result: Equivalence) -> tuple[float, float]:
    """Deviation in units of its bound, then by itself, for where there is no bound."""
    return result.deviation / max(result.bound, 1e-300), result.deviation


def _compare(name: str, expected: Tensor, output: Tensor) -> Equivalence:
    difference = torch.nan_to_num((expected - output).abs(), nan=float("inf"))
    at = torch.unravel_index(difference.argmax(), difference.shape)
    where = (int(at[0]), int(at[1]), int(at[2]), int(at[3]))
    peak = float(expected.abs().max())
    return Equivalence(float(difference[where]), 0.0, peak, name, where, float(expected[where]), float(output[where]))
