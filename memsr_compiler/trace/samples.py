"""Samples of a network: small images and what it gives for them, with which each reading of it is compared."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from memsr_compiler.errors import UnsupportedModel, first_line
from memsr_compiler.torch_helpers import (
    HALVES,
    InFloat64,
    copy_module,
    first_weight,
    leaving_transforms,
    list_weights,
    walk,
)
from memsr_compiler.trace.fx.rewritten import LARGEST, size_made_for
from memsr_compiler.trace.kept.held_values import putting_back
from memsr_compiler.trace.own_code.places import line_of
from memsr_compiler.trace.own_code.tensors_only import mark_image
from memsr_compiler.trace.views import BATCH

log = logging.getLogger(__name__)

Range: TypeAlias = tuple[float, float]
Size: TypeAlias = tuple[int, int]
SIZES = ((6, 10), (7, 5))  # of the images on which a graph is compared with its network
SEVERAL = int(BATCH) + 1  # images in a batch: code may take as many as readers have for the whole of it
_LONG = ((260, 7), (7, 260))  # heights and widths: few pixels, and longer than what most code takes for small
_SMOOTH = (17, 16)  # height and width of an image without noise, which means of pixels take all values of
_MANY = 10**6  # calls, by which code may decide that counts them
_FAR = 2.0**14  # times the range: values of one image, at which whatever is bounded anywhere meets its bounds


class Sample(NamedTuple):
    """An image (1, C, H, W) in float64, or several of them, and what the network gives for it."""

    image: Tensor
    result: Any


def possible_channels(model: nn.Module) -> list[int]:
    """Numbers of channels that the input may have, likeliest first: RGB, what convolutions take, RGBA, grey.

    A network that begins with a convolution runs for one of them alone.  What takes channels by slices, or their mean,
    runs for several, and photographs are RGB.  Grey last: what works on RGB works on grey by broadcasting, and a
    convolution of one channel may be a branch of the luma.  An exported program states its own.
    """
    if (stated := stated_channels(model)) is not None:
        return [stated]
    taken = [m.in_channels for _, m in walk(model) if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    return [c for c in dict.fromkeys([3, *taken, 4]) if c > 1] + [1]


def stated_channels(model: nn.Module) -> int | None:
    """Channels of the image that a program of torch.export was made for; None of other networks."""
    _, channels, *_ = _stated_shape(model)
    return channels if isinstance(channels, int) else None


def stated_size(model: nn.Module) -> Size | None:
    """Height and width of the images that a program of torch.export was made for alone; None of other networks."""
    *_, height, width = _stated_shape(model)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _stated_shape(model: nn.Module) -> Sequence[Any]:
    nodes = model.graph.nodes if isinstance(model, fx.GraphModule) else ()
    image = next((node.meta.get("val") for node in nodes if node.op == "placeholder"), None)
    shape = tuple(image.shape) if isinstance(image, Tensor) else ()
    return (None, *shape)[-4:] if len(shape) in (3, 4) else (None,) * 4


def take_samples(
    model: nn.Module, possible: Sequence[int], input_range: Range, sizes: Sequence[Size]
) -> tuple[dict[int, tuple[Sample, ...]], dict[int, str]]:
    """Samples for each of these numbers of channels that the network takes; for the others what it raises, and where.

    sizes   of their images, of which it has to take the first
    """
    samples: dict[int, tuple[Sample, ...]] = {}
    errors: dict[int, str] = {}
    for channels in possible:
        try:
            samples[channels] = tuple(_samples(model, channels, input_range, sizes))
        except Exception as error:  # whatever the model's own code raises
            errors[channels] = f"{first_line(error)}{line_of(model, error)}"
    return samples, errors


def try_channels(
    model: nn.Module, tried: nn.Module, input_range: Range, size: Size
) -> tuple[list[int], dict[int, str]]:
    """Numbers of channels that a network takes, likeliest first; for the others what it raises, and where.

    tried   a copy of it in float64, which is run, and another where code that ended midway left weights changed that
            it would have put back
    """
    low, high = _finite(input_range)
    taken: list[int] = []
    errors: dict[int, str] = {}
    with putting_back(tried):
        for channels in possible_channels(model):
            image = torch.linspace(low, high, channels * math.prod(size), dtype=torch.float64)
            try:
                take_sample(tried, image.view(1, channels, *size))
                taken.append(channels)
            except Exception as error:  # whatever the model's own code raises
                errors[channels] = f"{first_line(error)}{line_of(model, error)}"
                tried = copy_module(model, torch.float64) if has_changed(tried, model) else tried
    return taken, errors


def _finite(input_range: Range) -> Range:
    return input_range if all(map(math.isfinite, input_range)) else (0.0, 1.0)


def _samples(model: nn.Module, channels: int, input_range: Range, sizes: Sequence[Size]) -> Iterator[Sample]:
    low, high = _finite(input_range)
    draw = np.random.default_rng(0)  # NumPy's: a network that draws from a generator of torch's own is noticed by that
    for size in sizes:
        image = torch.from_numpy(draw.random((1, channels, *size))) * (high - low) + low
        try:
            yield take_sample(model, image)
        except Exception as error:
            if size == sizes[0]:
                raise
            log.info("the network itself does not take an image of %s: %s", size, error)
    try:
        yield take_sample(model, _draw_ramp(channels, low, high))
    except Exception as error:  # its code, or the program, may be for some sizes alone
        log.info("the network itself does not take an image of %s: %s", _SMOOTH, error)
    several = torch.from_numpy(draw.random((SEVERAL, channels, *sizes[0]))) * (high - low) + low
    try:
        yield take_sample(model, several)
    except Exception as error:  # its code may be for one image at a time
        log.info("the network itself does not take %d images at once: %s", SEVERAL, error)
    image = torch.from_numpy(draw.standard_normal((1, channels, *sizes[0]))) * (high - low) * _FAR
    try:
        far = take_sample(model, image)
    except Exception as error:  # it may look at the values of its image
        log.info("the network itself does not take values up to %g: %s", _FAR, error)
        return
    if isinstance(far.result, Tensor) and bool(torch.isfinite(far.result).all()):
        yield far


def _draw_ramp(channels: int, low: float, high: float) -> Tensor:
    """An image (1, C, *_SMOOTH) that goes from a plain of the least value, along rows, to one of the largest."""
    steps = torch.linspace(-0.5, 1.5, math.prod(_SMOOTH), dtype=torch.float64).clamp(0, 1)
    return (steps * (high - low) + low).view(1, 1, *_SMOOTH).repeat(1, channels, 1, 1)


def take_sample(model: nn.Module, image: Tensor) -> Sample:
    """Run a network of float64.  Raises whatever it raises."""
    with leaving_transforms(), InFloat64():
        return Sample(image, model(mark_image(image)))  # it may change its input in place


def is_same(sample: Sample, other: Tensor) -> bool:
    """Whether another network gives what this one gave, as far as float64 goes."""
    result = sample.result
    same = isinstance(result, Tensor) and result.shape == other.shape
    return same and bool((result - other).abs().max() <= most_off(result))


def is_steady(model: nn.Module, samples: Mapping[int, Sequence[Sample]], *, keeps: bool = False) -> bool:
    """Whether a network gives the same for the same image after it has seen another.

    keeps   whether it may keep something of it: it is shown dark, bright, coloured and larger ones too, which take long
    """
    image, first = next(iter(samples.values()))[0]
    if not isinstance(first, Tensor):
        return True  # which no reader takes
    others = [image.flip(3) / 2]
    if keeps:
        low, high = float(image.min()), float(image.max())
        others += [_draw_ramp(image.shape[1], low, high), *(torch.full_like(image, level) for level in (low, high))]
        others += draw_coloured(image, low, high)
        others += [image.mean().expand(*image.shape[:2], *size).clone() for size in _LONG]
    for other in others:
        try:
            with InFloat64():
                model(other)
        except Exception as error:  # whatever the model's own code raises
            log.info("the network itself does not take an image of %s: %s", tuple(other.shape), error)
        try:
            with InFloat64():
                again = model(image.clone())
        except Exception:
            return False
        if not bool((again - first).abs().max() <= most_off(first)):
            return False
    return True


def draw_coloured(image: Tensor, low: float, high: float) -> Iterator[Tensor]:
    """Images like this one of which the first channel, or the last, is bright, and the others dark."""
    for channel in (0, -1):
        coloured = torch.full_like(image, low)
        coloured[:, channel] = high
        yield coloured


def differs_by(model: nn.Module, image: Tensor, otherwise: str) -> str:
    """Words on why a reading of a network differs from it, and the way out; `otherwise` where it is not the batch.

    Networks are read with two images at once, and run with one.
    """
    try:
        with InFloat64():
            alone, both = model(image.clone()), model(torch.cat([image, image]))
            again = model(image.clone())
        if float((again - alone).abs().max()) > most_off(alone):
            return CHANGES
        counts = bool((both[: len(image)] - alone).abs().max() > most_off(alone))
    except Exception:  # whatever the model's own code raises
        return otherwise
    return ALONE if counts else otherwise


TOGETHER = (
    "it takes a part of the batch (x[:2]), or decides by how many there are, and a plain network treats each image "
    "alone; leave the batch axis whole"
)
CHANGES = (
    "it gives something else for the same image each time: it draws random numbers, or remembers; give a network that "
    "does neither"
)
ALONE = (
    "it computes with the number of images in a batch (x.shape[0], len(x)), and a plain network treats each image "
    "alone; write the number 1 in its place"
)


def types_of_weights(model: nn.Module) -> set[torch.dtype]:
    """The floating types of a network's parameters and buffers."""
    return {t.dtype for t in list_weights(model).values() if t.is_floating_point()}


def measure_in_float32(model: nn.Module, samples: Mapping[int, Sequence[Sample]]) -> float:
    """Largest difference from the samples in float32, of the largest value; 0 for less than half of one of 256 levels.

    Rounding takes less, unless large values cancel; code that asks for the type of the image may do anything.  Where it
    fails, or is infinite, nothing is said.  Weights of several types stay as they are: what the code makes of those in
    half precision is rounded to that, and read as in float64.
    """
    mixed = len(types_of_weights(model)) > 1
    model = copy_module(model, None if mixed else torch.float32)
    offs = [_off_in(torch.float32, model, *sample) for sample in next(iter(samples.values()))]
    return max((off for off in offs if 1 / 512 < off < math.inf), default=0.0)


def measure_as_it_is(model: nn.Module, exact: nn.Module, samples: Mapping[int, Sequence[Sample]]) -> float:
    """Largest difference of the network itself, no copy, from the samples, of the largest value; 0 for little.

    exact   its copy in float64, which gave them
    Little is what its own precision explains.  In half precision means of differences count, since by rounding a clamp
    makes a large one at some pixels: a 64th, or four times what rounding makes of the copy, which on a CPU is as much
    as the network is off; elsewhere sums may be rounded on the way.  NaN where the network fails.
    It is shown black, white and grey too: a copy whose code writes into the network itself goes on with what it was
    copied with, which noise may leave as it is.
    """
    known = next(iter(samples.values()))
    image, result = known[0]
    reach = _reach(first_weight(model).dtype, result) if isinstance(result, Tensor) else 0.0  # black makes but biases
    offs = [_off_as_it_is(model, exact, *sample) for sample in known]
    offs += [_off_as_it_is(model, exact, *sample, reach) for sample in _take_plain(exact, image)]
    if all(map(math.isnan, offs)):
        offs = [_off_as_it_is(model, exact, *sample) for sample in _take_stated(model, exact, image)]
    return max((off for off in offs if not math.isnan(off)), default=math.nan)


def _off_as_it_is(model: nn.Module, exact: nn.Module, image: Tensor, result: Any, least: float = 0.0) -> float:
    """The difference of a network itself from one sample, as `measure_as_it_is` has it.

    least   counts as what the result reaches, where that is less
    """
    kind = first_weight(model).dtype
    half = kind in HALVES
    off = _off_in(kind, model, image, result, torch.mean if half else torch.max, least)
    if math.isnan(off):
        return off
    large = (1 / 64 if half else 1 / 512) < off < math.inf
    return off if large and not (half and off <= 4 * _off_by_rounding(kind, exact, image, result)) else 0.0


def _reach(kind: torch.dtype, result: Tensor) -> float:
    return float((torch.mean if kind in HALVES else torch.max)(result.abs()))


def _take_plain(exact: nn.Module, image: Tensor) -> Iterator[Sample]:
    """Samples of images of one grey level each, of this size."""
    low, high = float(image.min()), float(image.max())
    for level in (low, high, (low + high) / 2):
        with suppress(Exception):  # whatever the model's own code raises
            yield take_sample(exact, torch.full_like(image, level))


def _take_stated(model: nn.Module, exact: nn.Module, image: Tensor) -> Iterator[Sample]:
    """A sample of the size for which a program in a network was made, where that is small: it may take no other.

    A program itself needs none: it does what its graph says.
    """
    within = () if isinstance(model, fx.GraphModule) else model.modules()
    stated = next((shape for program in within if None not in (shape := _stated_shape(program)[-2:])), ())
    size = [size_made_for(side) for side in stated]
    if size and math.prod(size) <= LARGEST:
        drawn = np.random.default_rng(0).random((*image.shape[:2], *size))
        low, high = float(image.min()), float(image.max())
        with suppress(Exception):  # whatever the model's own code raises
            yield take_sample(exact, torch.from_numpy(drawn) * (high - low) + low)


def _off_by_rounding(kind: torch.dtype, exact: nn.Module, image: Tensor, result: Any) -> float:
    """A network in float64: what it is off where all that it computes is rounded to a type of halves."""
    with InFloat64(), _Rounding(kind):
        return _off_in(torch.float64, exact, image.to(kind), result, torch.mean)


class _Rounding(TorchFunctionMode):
    """Rounds what is computed in float64, in its own memory, as code may write into it by another name."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self._kind = kind

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float64 and not result._is_view():
            result.detach().copy_(result.to(self._kind))
        return result


def _off_in(
    kind: torch.dtype,
    model: nn.Module,
    image: Tensor,
    exact: Any,
    mean_or_max: Callable[[Tensor], Tensor] = torch.max,
    least: float = 0.0,
) -> float:
    """Difference of a network's result from the exact one, of what that reaches, `least` at least; NaN for none."""
    try:
        result = model(image.to(first_weight(model).device, kind)).to("cpu", torch.float64)
        return float(mean_or_max((result - exact).abs()) / mean_or_max(exact.abs()).clamp_min(least))
    except Exception:  # whatever the model's own code raises
        return math.nan


def has_changed(ran: nn.Module, model: nn.Module) -> bool:
    """Whether running it changed a network's weights: some compute them anew from others in `forward` (SPAN's Conv3XC).

    No reader sees that where it writes past torch, into `.data`.
    """
    return bool(_list_changed(ran, model))


def _list_changed(ran: nn.Module, model: nn.Module) -> list[str]:
    before, after = list_weights(model), list_weights(ran)
    return [name for name, t in after.items() if name not in before or not torch.equal(t, before[name].to(t))]


def _list_moved(ran: nn.Module, other: nn.Module) -> list[str]:
    """The same of two that ran in float64, but for rounding: what is normalised again changes by that each time."""
    one, two = list_weights(ran), list_weights(other)
    return [
        name
        for name in _list_changed(ran, other)
        if name not in two
        or not two[name].is_floating_point()
        or one[name].shape != two[name].shape
        or not bool((one[name] - two[name]).abs().max() <= 1e-12 * two[name].abs().max())
    ]


def require_same_weights(ran: nn.Module, fresh: nn.Module, samples: Mapping[int, Sequence[Sample]]) -> None:
    """Raises UnsupportedModel where weights that a run changed hang on the image, as ActNorm's on the first.

    Not for those that make no difference to the result: a number of calls, a mean that is noted.
    """
    image, _ = next(iter(samples.values()))[0]
    with InFloat64():
        fresh(image.flip(3) / 2)
    moved = _list_moved(fresh, ran)
    if not moved or not _makes_a_difference(moved, ran, image):
        return
    name, later = type(fresh).__name__, copy_module(ran, None)
    with InFloat64():
        later(image.flip(3) / 2)
    if _list_moved(later, ran):
        raise UnsupportedModel(
            f"{name} changes weights by each image that it sees, and gives another result for the next; give a module "
            "that keeps them"
        )
    raise UnsupportedModel(f"{name} sets weights by the first image that it sees; run it on one, and save it then")


def _makes_a_difference(names: Sequence[str], ran: nn.Module, image: Tensor) -> bool:
    """Whether other values of these weights, few or many calls, change what the network gives."""
    other = copy_module(ran, None)
    held = list_weights(other)
    with InFloat64(), torch.no_grad():
        expected = ran(image.clone())
        for step in (1, _MANY):
            for name in names:
                held[name].logical_not_() if held[name].dtype == torch.bool else held[name].add_(step)
            try:
                result = other(image.clone())
            except Exception:  # a place in a table, say, that there is none of
                return True
            if not isinstance(expected, Tensor) or not is_same(Sample(image, expected), result):
                return True
    return False


def most_off(expected: Tensor) -> float:
    """Difference that the order of sums in float64 explains."""
    return 1e-9 * (float(expected.abs().max()) + 1.0)
