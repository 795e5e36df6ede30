"""Running two networks side by side: the measured half of equivalence (the proved half is the certificate)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, NotEquivalent
from memsr_compiler.torch_helpers import copied

Network = nn.Module | Callable[[Tensor], Tensor]


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
        """Itself, or NotEquivalent with the worst place."""
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
    images: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    channels: int | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    dtype: torch.dtype = torch.float64,
    tolerance: float | None = None,
) -> Equivalence:
    """Run both networks on the same inputs, whole output, borders included.

    a, b        modules (copied and taken to `dtype`) or functions, (N, C, H, W) -> (N, C', s H, s W)
    images      inputs (N, C, H, W), by name or in order; default: noise, constants and impulses from 1x1 up
    channels    of the input, where no image says it; default: what the first convolution of a or b takes
    tolerance   absolute, in the networks' units; default: what rounding in `dtype` explains

    The result is true if and only if they agree; `.require()` raises NotEquivalent.  Raises InvalidInput if the
    outputs differ in shape.
    """
    if images is None:
        inputs = probe_images(channels or input_channels(a) or input_channels(b) or 3, input_range)
    else:
        inputs = dict(images) if isinstance(images, Mapping) else {f"image {i}": x for i, x in enumerate(images)}
    left, right = _runnable(a, dtype), _runnable(b, dtype)
    worst: Equivalence | None = None
    for name, x in inputs.items():
        with torch.no_grad():
            expected, found = left(x.to(dtype, copy=True)), right(x.to(dtype, copy=True))  # either may change it
        if expected.shape != found.shape:
            raise InvalidInput(f"on {name} one gives {tuple(expected.shape)} and the other {tuple(found.shape)}")
        result = _compare(name, expected.double().cpu(), found.double().cpu())
        bound = rounding_bound(result.peak, dtype, a, b) if tolerance is None else tolerance
        result = Equivalence(**{**result.__dict__, "bound": bound})
        if worst is None or _badness(result) > _badness(worst):
            worst = result
    if worst is None:
        raise InvalidInput("there is no input to compare the networks on")
    return worst


def _badness(result: Equivalence) -> tuple[float, float]:
    """Deviation in units of its bound, then by itself, for where there is no bound."""
    return result.deviation / max(result.bound, 1e-300), result.deviation


def probe_images(channels: int, input_range: tuple[float, float] = (0.0, 1.0)) -> dict[str, Tensor]:
    """Inputs that find border and size mistakes: noise, both ends of the range, impulses; always the same ones."""
    low, high = input_range
    found = {}
    for height, width in ((1, 1), (1, 7), (3, 2), (5, 5), (24, 31)):
        generator = torch.Generator().manual_seed(height * 7919 + width)
        noise = torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64)
        impulse = torch.full((1, channels, height, width), low, dtype=torch.float64)
        impulse[..., 0, 0] = impulse[..., -1, -1] = high
        ends = [torch.full_like(impulse, low), torch.full_like(impulse, high)]
        found[f"a {height}x{width} probe"] = torch.cat([noise * (high - low) + low, impulse, *ends])
    return found


def rounding_bound(peak: float, dtype: torch.dtype, *networks: Network) -> float:
    """Largest deviation that rounding explains: 4 * eps * magnitude * sqrt(roundings in a row).

    Roundings are independent enough to add like a random walk over all terms of the deeper network's dot products;
    the factor 4 leaves room for values on the way that are larger than the output.
    """
    terms = max((_terms(n) for n in networks if isinstance(n, nn.Module)), default=10_000)
    return float(4 * torch.finfo(dtype).eps * max(peak, 1.0) * max(terms, 100) ** 0.5)


def _terms(network: nn.Module) -> int:
    """Terms of the dot products one after the other, as far as modules tell."""
    return sum(p[0].numel() for p in network.parameters() if p.dim() == 4)


def input_channels(network: Network) -> int | None:
    """Channels that the first convolution of a module takes; None if that cannot be seen."""
    if not isinstance(network, nn.Module):
        return None
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first is not None else None


def _runnable(network: Network, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    if isinstance(network, nn.Module):
        return copied(network, dtype)
    if not callable(network):
        raise InvalidInput(
            f"a network or a function is wanted, not {type(network).__name__}; files are read by load_teacher"
        )
    return network


def _compare(name: str, expected: Tensor, found: Tensor) -> Equivalence:
    difference = torch.nan_to_num((expected - found).abs(), nan=float("inf"))
    at = torch.unravel_index(difference.argmax(), difference.shape)
    where = (int(at[0]), int(at[1]), int(at[2]), int(at[3]))
    peak = float(expected.abs().max())
    return Equivalence(float(difference[where]), 0.0, peak, name, where, float(expected[where]), float(found[where]))
