"""Freezing a teacher: any network -> the nearest one that has a plain form, and what that costs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from memsr_compiler.errors import CertificateError, InvalidGraph, InvalidInput, MemsrError, UnsupportedModel, first_line
from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.quantities import say_count
from memsr_compiler.torch_helpers import InFloat64, compiling_nothing, copy_module, list_parameters, one_thread
from memsr_compiler.trace.approximate.measure import measure, run_replaced
from memsr_compiler.trace.approximate.reader import ApproximateReader, Place
from memsr_compiler.trace.builder import Builder, Resized
from memsr_compiler.trace.fx.programs import without_guards
from memsr_compiler.trace.fx.reader import refuse_remembered
from memsr_compiler.trace.fx.tracers import trace_symbolically
from memsr_compiler.trace.kept.held_values import leaving_values
from memsr_compiler.trace.large_constants import require_small_constants
from memsr_compiler.trace.own_code.decisions import say_decided
from memsr_compiler.trace.own_code.places import place_of
from memsr_compiler.trace.samples import TOGETHER, Sample, differs_by, most_off, possible_channels, try_channels
from memsr_compiler.trace.subject import observe, require_steady, require_usual_tensors
from memsr_compiler.trace.trace import SYMBOLIC, GraphModule, ImageSkip, Traced, require_convolution
from memsr_compiler.trace.views import WrongChannels

READER = f"{SYMBOLIC}, approximated"
SIDE = 192  # pixels; of larger images the middle is taken
MOST = 24  # images; of more, so many are taken, at equal steps
SMALL = ((40, 40), (33, 47))  # sizes at which readings are compared with the network, whose gates may ask for some
ONE_BY_ONE = 5e11  # weights times pixels that may be spent on the costs of single places: some 20 s
_OTHERWISE = "let it do the same at every size of image, and draw no random numbers"


@dataclass(frozen=True)
class Frozen:
    """A teacher as the compiler takes it, and what was put in place of what it does not.

    traced         the frozen network
    replacements   in the order in which they are computed
    costs          PSNR in dB to the teacher, of the teacher with that one replacement, peak = width of the input range,
                   on the first `cost_images` of the images
    psnr           the same with all of them, on all images
    images         how many it was measured on
    teacher_sha256 of the teacher: what it computes as far as it was read, and all its weights
    """

    traced: Traced
    replacements: tuple[Replacement, ...]
    costs: tuple[float, ...]
    psnr: float
    images: int
    cost_images: int
    teacher_sha256: str

    @property
    def module(self) -> GraphModule:
        """The frozen network as a module, which compiles like any other."""
        return self.traced.module


@one_thread()
@compiling_nothing()
@torch.no_grad()
@leaving_values
def freeze(
    model: nn.Module,
    images: Sequence[Tensor],
    *,
    input_range: tuple[float, float] = (0.0, 1.0),
    on_step: Callable[[str], None] | None = None,
) -> Frozen:
    """Freeze gates at their means on images and bend activations where their inputs lie; the network is not changed.

    images   (N, C, H, W) in the input range

    Raises the UnsupportedModel of `trace` where that is not enough.
    """
    say = on_step or (lambda _: None)
    say("looking for gates and smooth activations")
    require_usual_tensors()
    channels = images[0].shape[1]
    subject = observe(model, input_range, SMALL)
    if not subject.samples:
        raise subject.refuse_to_run()
    if channels not in subject.samples:
        takes = " or ".join(map(str, subject.samples))
        raise InvalidInput(
            f"the images have {say_count(channels, 'channel')}, and the network takes {takes}; give others"
        )
    model = subject.model
    first, places = _read(model, channels, {}, input_range)
    if not places:
        raise UnsupportedModel("there is no gate and no smooth activation in it that could be replaced")
    followed = _follow(model, channels)
    sha256 = _hash_teacher(model, first, followed.code)
    _require_itself(followed, subject.samples[channels])
    del first, followed  # networks are large
    say_decided(model, None, channels, SMALL, unheard=bool(subject.unknown), numbers=subject.numbers)
    rounded = require_steady(subject, unheard=bool(subject.unknown))
    module = _follow(model, channels, torch.float32)
    chosen = [images[i * len(images) // MOST] for i in range(MOST)] if len(images) > MOST else images
    crops = [_middle(image.float()) for image in chosen]
    what = say_count(len(places), "gate or activation", "gates and activations")
    say(f"measuring {what} on {say_count(len(crops), 'image')}")
    numbers = measure(module, places, crops)
    traced, places = _read(model, channels, numbers, input_range)
    height, width = SMALL[0]
    corner = crops[0][:1, :, :height, :width].double()
    together = max(len(sample.image) for sample in subject.samples[channels])  # images that the network takes
    turned = torch.cat([corner, corner.flip(3), corner.flip(2)])[:together]
    _require_same(model, traced, places, numbers, turned)
    expected = [module(image.clone()) for image in crops]
    peak = input_range[1] - input_range[0]
    few = _affordable(model, crops, len(places))
    costs = []
    for number, place in enumerate(places, start=1):
        say(f"{place.name}: its cost, {number} of {len(places)}")
        costs.append(_psnr([run_replaced(module, [place], numbers, x) for x in few], expected, peak))
    whole = _psnr([run_replaced(module, places, numbers, x) for x in crops], expected, peak)
    replacements = tuple(numbers[place.name] for place in places)
    traced = replace(traced, assumed=(*subject.tell_assumed(), *rounded))
    return Frozen(traced, replacements, tuple(costs), whole, len(crops), len(few), sha256)


@one_thread()
@compiling_nothing()
@torch.no_grad()
def psnr_between(
    network: nn.Module, model: nn.Module, images: Sequence[Tensor], input_range: tuple[float, float]
) -> float:
    """PSNR in dB of a network's output to a model's, on the middles of images; peak = width of the input range."""
    exact = copy_module(model, torch.float32)
    crops = [_middle(image.float()) for image in images]
    outputs = [network(crop) for crop in crops]
    return _psnr(outputs, [exact(crop.clone()) for crop in crops], input_range[1] - input_range[0])


@compiling_nothing()
@leaving_values
def find_places(model: nn.Module, input_range: tuple[float, float] = (0.0, 1.0)) -> tuple[str, ...]:
    """Names of the gates and activations that `freeze` would replace; none where that is not enough."""
    try:
        model = without_guards(model)
        possible, _ = try_channels(model, copy_module(model, torch.float64), input_range, SMALL[0])
        return tuple(place.name for place in _read_any(model, possible, {}, input_range)[1])
    except Exception:  # whatever the model's own code, or the tracer, raises
        return ()


@one_thread()
@compiling_nothing()
@torch.no_grad()
@leaving_values
def rebuild(
    model: nn.Module, replacements: Sequence[Replacement], *, input_range: tuple[float, float] = (0.0, 1.0)
) -> Traced:
    """Read a teacher with replacements that are known already.

    Raises CertificateError unless they are for this teacher, all that it needs and no others.
    """
    require_usual_tensors()
    subject = observe(model, input_range, SMALL)
    model, possible = subject.model, list(subject.samples) or possible_channels(subject.model)
    numbers = {r.name: r for r in replacements}
    try:
        traced, places = _read_any(model, possible, numbers, input_range)
    except InvalidGraph as error:
        raise CertificateError(f"its approximation does not fit the teacher: {error}; convert this teacher") from None
    claimed = [(r.name, r.kind.removeprefix("spatial ")) for r in replacements]  # over pixels: a gate as others are
    if [(place.name, place.kind) for place in places] != claimed:
        raise CertificateError(
            f"its approximation replaces {_list_names(replacements)}, and of this teacher have to be replaced "
            f"{_list_names(places)}; convert this teacher"
        )
    return traced


def _read_any(
    model: nn.Module, possible: Sequence[int], numbers: Mapping[str, Replacement], input_range: tuple[float, float]
) -> tuple[Traced, list[Place]]:
    """Read a network for the first of these numbers of channels that it takes."""
    *others, last = possible
    for channels in others:
        with suppress(WrongChannels):
            return _read(model, channels, numbers, input_range)
    return _read(model, last, numbers, input_range)


def _read(
    model: nn.Module, channels: int, numbers: Mapping[str, Replacement], input_range: tuple[float, float]
) -> tuple[Traced, list[Place]]:
    """Read a network with these replacements; also the places where there have to be some.

    Raises UnsupportedModel where there is none, or more is needed.
    """
    builder = Builder(channels, *input_range)
    reader = ApproximateReader(_follow(model, channels), builder, numbers)
    result = reader.read()
    skip = None
    if isinstance(result, Resized):
        assert result.body is not None, "the reader has asked"
        skip, result = ImageSkip(result.mode, result.factor), result.body
    graph = builder.graph(result)
    require_small_constants(graph, outside=skip is not None)
    return require_convolution(Traced(graph, READER, skip)), [p for p in reader.places if p.name in graph]


def _follow(model: nn.Module, channels: int, dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    """The network as torch.fx sees it, for so many channels.  Raises UnsupportedModel where it cannot follow."""
    try:
        followed = trace_symbolically(model, channels, dtype)
        refuse_remembered(followed.graph)
        return followed
    except MemsrError:
        raise
    except Exception as error:  # whatever the model's own code, or the tracer, raises
        where = place_of(model, error) or type(model).__name__
        raise UnsupportedModel(
            f"{where}: torch.fx, by which gates are found, cannot follow it ({first_line(error)}); rewrite that line "
            "with plain operations of torch"
        ) from error


def _require_itself(module: nn.Module, samples: Sequence[Sample]) -> None:
    """The network as torch.fx sees it must be the network: code that asks what a tensor is has it go another way."""
    for image, expected in samples:
        with InFloat64():
            result = module(image.clone())
        _require_equal(result, expected, "as torch.fx sees it", f"{_OTHERWISE}, and not ask what a tensor is")


def _require_same(
    model: nn.Module, traced: Traced, places: Sequence[Place], numbers: Mapping[str, Replacement], images: Tensor
) -> None:
    """The graph must give what the network gives with the same numbers at the same places, in float64.

    images   of which the first is looked at alone, and then all of them at once
    """
    module, graph = _follow(model, images.shape[1]), traced.module
    for some, way_out in ((images[:1], differs_by(module, images[:1], _OTHERWISE)), (images, TOGETHER)):
        with InFloat64():
            expected = run_replaced(module, places, numbers, some.clone())
        _require_equal(graph(some), expected, "read", way_out)


def _require_equal(result: Tensor, expected: Tensor, how: str, way_out: str) -> None:
    if expected.shape != result.shape:
        raise UnsupportedModel(f"the network gives {tuple(expected.shape)}, and {how} {tuple(result.shape)}; {way_out}")
    difference = float((expected - result).abs().max())
    if not difference <= most_off(expected):
        raise UnsupportedModel(f"the network, {how}, differs from itself by {difference:.3g}; {way_out}")


def _hash_teacher(model: nn.Module, traced: Traced, code: str) -> str:
    """SHA-256 of what was read of a network, and of all its code and weights: what its gates compute is in no graph."""
    digest = hashlib.sha256(traced.graph.sha256().encode() + code.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode() + value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _middle(image: Tensor) -> Tensor:
    """The middle of an image, if it is large."""
    height, width = image.shape[2:]
    top, left = max(0, height - SIDE) // 2, max(0, width - SIDE) // 2
    return image[:, :, top : top + SIDE, left : left + SIDE]


def _affordable(model: nn.Module, crops: Sequence[Tensor], places: int) -> Sequence[Tensor]:
    """As many of the images, from the first, as the network can be run on once for each place in moderate time."""
    weights = sum(p.numel() for p in list_parameters(model).values())
    count, spent = 0, 0
    while count < len(crops) and (spent := spent + weights * places * crops[count][:, 0].numel()) <= ONE_BY_ONE:
        count += 1
    return crops[: max(1, count)]


def _psnr(outputs: Sequence[Tensor], expected: Sequence[Tensor], peak: float) -> float:
    """PSNR in dB of outputs to the first of what was expected, over all their numbers; -inf where one is no number."""
    pairs = list(zip(outputs, expected, strict=False))
    squares = sum(float((a - b).double().square().sum()) for a, b in pairs)
    error = squares / sum(a.numel() for a, _ in pairs)
    if not math.isfinite(error):
        return -math.inf
    return 10 * math.log10(peak**2 / error) if error else math.inf


def _list_names(places: Iterable[Place | Replacement]) -> str:
    return ", ".join(f"{place.name} ({place.kind})" for place in places) or "nothing"
