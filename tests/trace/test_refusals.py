"""Networks that cannot be read: what is said, and that it does not take long."""

from __future__ import annotations

import logging
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.export
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.ir.interpreter import run
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.fx.reader import refuse_impossible
from memsr_compiler.trace.fx.tracers import export_module, trace_symbolically
from memsr_compiler.trace.trace import trace
from memsr_compiler.trace.views import Unreadable, WrongChannels


class Between(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 3) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)
        self.mix = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.function(self.first(x)))
        return y


def decide(y: Tensor) -> Tensor:
    return -y if y.mean() > 0.5 else y


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of each export, from now on."""
    calls: list[Any] = []
    export = torch.export.export

    def count(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return export(*args, **options)

    monkeypatch.setattr(torch.export, "export", count)
    return calls


def test_what_no_reader_reads_is_exported_once(exports: list[Any]) -> None:
    with pytest.raises(UnsupportedModel, match=r"^the network \(.*: a decision depends on the image, its values") as e:
        trace(Between(decide))
    assert len(exports) == 1
    assert "test_refusals.py:" in str(e.value) and "return -y if" in str(e.value)
    assert "rewrite that line" in str(e.value)


class Padding(nn.Module):
    """Pads to a multiple of 4, and crops what that added."""

    def __init__(self, mode: str, ceil: Callable[[float], int] | None = None) -> None:
        super().__init__()
        self.mode, self.ceil, self.conv = mode, ceil, nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if self.ceil is None:
            more = [(4 - side % 4) % 4 for side in (width, height)]
        else:
            more = [int(self.ceil(side / 4) * 4 - side) for side in (width, height)]
        x = F.pad(x, (0, more[0], 0, more[1]), self.mode)
        return F.pixel_shuffle(self.conv(x), 2)[:, :, : 2 * height, : 2 * width]


class Square(torch.autograd.Function):
    """x * x, as an operation of one's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x


class Inner(nn.Module):
    """A part of a network, for its path."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def inner(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A network with the function in a module of its own, `function`."""
    return Between(Inner(function))


def first(**how: Any) -> nn.Module:
    """Interpolation before the first convolution, and a sum at the end."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Between(F.relu)

        def forward(self, x: Tensor) -> Tensor:
            x = F.interpolate(x, **({"scale_factor": 2} | how))
            y: Tensor = x + self.net(x)
            return y

    return First()


def attention(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    pixels = x.reshape(n, c, h * w)
    weights = torch.einsum("ncp,ncq->npq", pixels, pixels)
    return torch.einsum("npq,ncq->ncp", weights, pixels).reshape(n, c, h, w)


def windows(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)


class Halves(Between):
    """Runs what follows the first convolution in half precision."""

    def __init__(self) -> None:
        super().__init__(F.relu)
        self.last.half()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x).half()).float()
        return y


OTHER_SIZES = "outside the network"
WORDS = "the compiler has no word for this operation; write it with convolutions"
REASONS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "bicubic first": (
        lambda: first(mode="bicubic", align_corners=False),
        ("net.first: conv2d: it takes the image enlarged by bicubic interpolation", "enlarge the image before"),
    ),
    "bilinear first": (
        lambda: first(mode="bilinear"),
        ("net.first: conv2d: it takes the image enlarged by bilinear interpolation", "enlarge the image before"),
    ),
    "antialias": (lambda: first(mode="bicubic", antialias=True), ("interpolate: align_corners and antialias",)),
    "a fixed size": (
        lambda: first(mode="bilinear", scale_factor=None, size=(20, 20)),
        ("interpolate: it resizes to a fixed size; give interpolate a scale factor",),
    ),
    "reflecting to a multiple": (lambda: Padding("reflect"), ("the network: mod: it computes with the h", OTHER_SIZES)),
    "zeros to a multiple": (lambda: Padding("constant"), ("the network: mod: it computes with the h", OTHER_SIZES)),
    "repeating up to a multiple": (
        lambda: Padding("replicate", math.ceil),
        ("the network: pad: padding (replicate) of one side more than of the other", "crop behind it"),
    ),
    "a constant matrix of the image's type": (
        lambda: inner(lambda x: torch.einsum("nchw,dc->ndhw", x, torch.eye(8).to(x))),
        ("function: einsum: products of matrices are not read", "1x1 convolution"),
    ),
    "half a size": (lambda: inner(windows), ("function: floordiv: half of a size", OTHER_SIZES)),
    "pixels counted": (
        lambda: inner(lambda x: x / (x.shape[2] * x.shape[3])),
        ("function: mul: the network computes with products of sizes", OTHER_SIZES),
    ),
    "root of a size": (
        lambda: inner(lambda x: x * x.shape[3] ** -0.5),
        ("function: pow: it computes with the height or width of the image", OTHER_SIZES),
    ),
    "numbers of its size": (
        lambda: inner(lambda x: x + torch.arange(x.shape[3])),
        ("arange: it computes with the height or width of the image", OTHER_SIZES),
    ),
    "values decide": (
        lambda: inner(decide),
        ("function (", "test_refusals.py:", "a decision depends on the image", "rewrite that line"),
    ),
    "a Python number": (
        lambda: inner(lambda x: x * float(x.mean())),
        ("function (", "test_refusals.py:", "depends on the image", "rewrite that line"),
    ),
    "NumPy": (
        lambda: inner(lambda x: torch.from_numpy(x.detach().numpy())),
        ("function (", "the image leaves torch", "rewrite that line with operations of torch"),
    ),
    "Fourier": (lambda: inner(lambda x: torch.fft.rfft2(x).real), ("function: fft_rfft2: ", WORDS)),
    "attention": (lambda: inner(attention), ("function: einsum: ", "remove attention")),
    "unfold": (lambda: inner(lambda x: F.unfold(x, 1).view(x.shape)), ("function: unfold: ", WORDS)),
    "roll": (lambda: inner(lambda x: x.roll(1, 2)), ("function: roll: ", WORDS)),
    "halves": (Halves, ("the network: half: a cast to float16 rounds values", "call float() on modules whose weights")),
    "a function of one's own": (
        lambda: inner(lambda x: Square.apply(x)),  # type: ignore[no-untyped-call]
        ("function: mul: two feature maps are multiplied", "remove the gate"),
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_names_module_operation_and_way_out(name: str) -> None:
    make, words = REASONS[name]
    with pytest.raises(UnsupportedModel) as e:
        trace(make().eval())
    for part in words:
        assert part in str(e.value)
    for foreign in ("object has no attribute", "unhinted", "Proxy", "aten::", "unsupported operand", "\n"):
        assert foreign not in str(e.value)
    assert "; " in str(e.value)


def test_only_images_that_the_network_takes_are_tried(exports: list[Any]) -> None:
    """The first convolution that is found takes one channel; the network takes three."""

    class Unused(Between):
        def modules(self, remove_duplicate: bool = True) -> Iterator[nn.Module]:
            yield nn.Conv2d(1, 1, 1)
            yield from super().modules(remove_duplicate)

    network = Unused(decide)
    with pytest.raises(UnsupportedModel):
        trace(network)
    assert [arguments[1][0].shape[1] for arguments in exports] == [3]


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x + torch.rand_like(x),
        lambda x: x * (torch.rand(()) > 0.2),
        lambda x: F.dropout(x, training=True),
    ],
)
def test_a_network_that_draws_random_numbers_is_in_the_wrong_mode(between: Callable[[Tensor], Tensor]) -> None:
    """Also one that drops a path now and then, which two runs may not show."""
    with pytest.raises(InvalidInput, match=r"Between draws random numbers as it runs; call model\.eval\(\) first"):
        trace(Between(between))
    with pytest.raises(InvalidInput, match="Between draws random numbers as it runs; take out what draws them"):
        trace(Between(between).eval())


def test_random_numbers_of_a_generator_that_nobody_sees_are_no_number_of_images() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(UnsupportedModel, match="something else for the same image each time: it draws random numbers"):
        trace(Between(lambda x: x * draw.random()).eval())


def test_a_layer_that_forward_makes_may_draw_numbers_that_do_not_count() -> None:
    def edges(y: Tensor) -> Tensor:
        conv = nn.Conv2d(y.shape[1], y.shape[1], 3, padding=1, bias=False)
        return F.conv2d(y, torch.ones_like(conv.weight), padding=1)

    trace(Between(edges))


class MadeAtFirst(Between):
    """What it makes when it runs first is used from then on."""

    def __init__(self, make: Callable[[Tensor], nn.Module | Tensor]) -> None:
        super().__init__(lambda x: x)
        self.make = make
        self.made: nn.Module | Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.made is None:
            self.made = self.make(x)
        return super().forward(self.made(x) if isinstance(self.made, nn.Module) else x * self.made)


@pytest.mark.parametrize("make", [lambda x: nn.Conv2d(x.shape[1], 3, 1), lambda x: torch.rand(1, 3, 1, 1)])
def test_what_is_made_of_random_numbers_in_the_first_run_is_told(make: Callable[[Tensor], nn.Module | Tensor]) -> None:
    """It was said to keep something of its first image."""
    network = MadeAtFirst(make).eval()
    with pytest.raises(InvalidInput, match="MadeAtFirst makes something of random numbers when it runs first"):
        trace(network)
    with torch.no_grad():
        network(torch.rand(1, 3, 4, 5))
    trace(network.eval())


def test_a_network_that_fails_itself_says_so(exports: list[Any]) -> None:
    def fail(y: Tensor) -> Tensor:
        raise RuntimeError(f"no weights were downloaded{chr(10)}for {len(y)} images")

    with pytest.raises(UnsupportedModel) as e:
        trace(Between(fail))
    assert str(e.value).startswith(
        "Between itself fails on a float64 image (1, 3, 6, 10): no weights were downloaded (at "
    )
    assert "for 1 images" not in str(e.value) and "whatever its height and width" in str(e.value)
    assert not exports


def test_a_network_that_fails_without_a_word() -> None:
    def fail(y: Tensor) -> Tensor:
        raise RuntimeError

    with pytest.raises(UnsupportedModel, match=r"itself fails .*: RuntimeError"):
        trace(Between(fail))


def test_attention_is_refused_before_the_rest_is_understood(exports: list[Any]) -> None:
    """Padding to a multiple of the window comes first, and is nothing that torch.fx's reader understands."""

    def attend(y: Tensor) -> Tensor:
        y = F.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4))
        return y * torch.softmax(y, dim=1)

    with pytest.raises(UnsupportedModel, match=r"^the network: softmax: it is curved"):
        trace(Between(attend))
    assert not exports


def refuse(model: nn.Module) -> None:
    graph = trace_symbolically(model, 3).graph
    refuse_impossible(graph, frozenset(node.name for node in graph.nodes if node.op == "placeholder"))


def test_only_what_the_image_goes_through_is_refused() -> None:
    model = Between(torch.sigmoid)
    with pytest.raises(UnsupportedModel, match="sigmoid"):
        refuse(model)
    model.function = lambda y: y * torch.softmax(model.mix, 0)[:, None, None]  # weights
    refuse(model)
    model.function = lambda y: (torch.sigmoid(y), y)[1]  # not part of the result
    refuse(model)
    model.function = lambda y: y * torch.exp(model.mix[0] * y.shape[1])  # of a size
    refuse(model)
    model.function = lambda y: y.mean(1, keepdim=True) + y  # for which there is a word
    refuse(model)


def test_an_export_is_refused_before_it_is_taken_apart() -> None:
    with pytest.raises(UnsupportedModel, match="gelu: it is curved"):
        export_module(Between(F.gelu), 3)


def test_a_wrong_number_of_channels_has_a_type_of_its_own() -> None:
    builder = Builder(3, 0.0, 1.0)
    weight, bias = torch.zeros(2, 4, 3, 3).double(), torch.zeros(2).double()
    with pytest.raises(WrongChannels, match="takes 4 channels, is given 3"):
        builder.add(ir.Conv2d(name="a", inputs=(builder.input.op,), weight=weight, bias=bias))
    with pytest.raises(WrongChannels):
        builder.add(
            ir.ConvTranspose2d(name="b", inputs=(builder.input.op,), weight=weight, bias=bias, stride=1, padding=1)
        )
    with pytest.raises(UnsupportedModel) as e:
        builder.add(ir.PixelShuffle(name="c", inputs=(builder.input.op,), factor=2))
    assert not isinstance(e.value, WrongChannels)


def test_an_error_knows_whether_it_is_located() -> None:
    assert not Unreadable("a reshape loses elements").located
    with pytest.raises(Unreadable) as e:
        Builder(3, 0.0, 1.0).give_up("not read")
    assert e.value.located


class Recurrent(nn.Module):
    """Takes the features of the frame before along, as networks for films do."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.before: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        now = self.head(x).relu()
        before = now if self.before is None or self.before.shape != now.shape else self.before
        self.before = now.detach()
        return F.pixel_shuffle(self.tail(torch.cat([now, before], 1)), 2)


def test_a_network_that_remembers_is_refused() -> None:
    """Run once on images of a size, it is plain."""
    with pytest.raises(UnsupportedModel, match="Recurrent gives another result for the same image after it has seen"):
        trace(Recurrent().eval())


def test_a_network_that_asks_for_the_type_of_the_image_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It is read as for float64: in float32 it is another."""

    class Typed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.pixel_shuffle(self.conv(x / {torch.float64: 1.0}.get(x.dtype, 255.0)), 2)

    *_, assumed = trace(Typed().eval()).assumed
    assert "Typed gives something else in float32 than in float64, by " in caplog.text
    assert re.fullmatch(
        r"Typed is meant as it is in float64 \(in float32 it is off by .* of its largest value\)", assumed
    )


@pytest.mark.parametrize(("dtype", "told"), [(torch.float16, True), (torch.float32, False)])
def test_weights_that_forward_makes_in_half_precision_are_told(
    dtype: torch.dtype, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """They are rounded to that, and read as in float64."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail = nn.Conv2d(3, 12, 3, padding=1)
            weight = torch.rand(3, 3, 3, 3, generator=torch.Generator().manual_seed(0)) - 0.5
            self.register_buffer("packed", weight.to(dtype))

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.packed, Tensor)
            weight = (self.packed + 2048 - 2048).float()
            return F.pixel_shuffle(self.tail(F.conv2d(x, weight, padding=1).relu()), 2)

    trace(Packed().eval())
    assert ("Packed gives something else in float32 than in float64, by " in caplog.text) == told


def twice(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = torch.cat([x, x], dim=1)
    return x[:, :3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: twice(x, 13), r"cat: a number of channels, at the input's resolution, of 32768 is more than 16384"),
        (lambda x: F.interpolate(x, scale_factor=64), "interpolate: an enlargement of 64 is more than 16"),
    ],
)
def test_little_code_that_takes_all_memory_is_refused(change: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        trace(Between(change).eval())


def test_a_tuple_of_one_image_is_named() -> None:
    class Tuple(Between):
        def forward(self, x: Tensor) -> Any:
            return (super().forward(x),)

    with pytest.raises(UnsupportedModel, match="output: it returns tuple, not one image; wrap it in a module"):
        trace(Tuple(lambda x: x).eval())


class ActNorm(Between):
    """Sets its scale by the first image (Glow, arXiv 1807.03039)."""

    started: Tensor

    def __init__(self) -> None:
        super().__init__(lambda x: x)
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if not self.started:
            self.mix.data.copy_(1 / x.std(dim=(0, 2, 3)).repeat(2)[:4])
            self.started.fill_(True)
        y: Tensor = self.last(self.first(x) * self.mix.view(1, 4, 1, 1))
        return y


def test_weights_set_by_the_first_image_are_refused() -> None:
    """Until there was one: those of our own noise would be in the file."""
    model = ActNorm().eval()
    with pytest.raises(UnsupportedModel, match="ActNorm sets weights by the first image that it sees; run it on one"):
        trace(model)
    model(torch.rand(1, 3, 8, 8))
    trace(model)


class Noting(Between):
    """Adds to what it has noted for each image, and gives `decides` of that and the result."""

    noted: Tensor

    def __init__(self, noted: Tensor, decides: Callable[[Tensor, Tensor], Tensor] = lambda noted, y: y) -> None:
        super().__init__(lambda x: x)
        self.register_buffer("noted", noted)
        self.decides = decides

    def forward(self, x: Tensor) -> Tensor:
        self.noted += 1
        return self.decides(self.noted, super().forward(x))


@pytest.mark.parametrize("noted", [torch.zeros(()), torch.tensor(0)])
def test_what_is_noted_and_never_read_sets_no_weights(noted: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    """A float was refused, and that the count differs from run to run was told as a decision by size."""
    trace(Noting(noted).eval())
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["Noting: assumed: Noting.forward does the same to every image"]
    for decides in (lambda calls, y: y / calls, lambda calls, y: y * 2 if calls > 1000 else y):
        with pytest.raises(UnsupportedModel, match="changes weights by each image that it sees, and gives another"):
            trace(Noting(noted.clone(), decides).eval())


def unit(w: Tensor) -> Tensor:
    return F.normalize(w, dim=1)


def bounded(w: Tensor) -> Tensor:
    size = w.norm(2, dim=(1, 2, 3), keepdim=True)
    bounded: Tensor = w * size.clamp(max=0.3) / size
    return bounded


@pytest.mark.parametrize("change", [unit, bounded])
def test_weights_that_are_normalised_at_each_run_are_read(change: Callable[[Tensor], Tensor]) -> None:
    """By which their last bits alone change: "gives another result for the next", and "by the first image"."""

    class Normalising(Between):
        def forward(self, x: Tensor) -> Tensor:
            self.last.weight.data = change(self.last.weight.data)
            return super().forward(x)

    network = Normalising(F.relu).eval()
    x = torch.rand(1, 3, 7, 5, dtype=torch.float64)
    y = run(trace(network).graph, x)
    assert torch.allclose(y, network.double()(x), rtol=0, atol=1e-12)


def test_weights_that_shrink_at_each_run_are_refused() -> None:
    class Shrinking(Between):
        def forward(self, x: Tensor) -> Tensor:
            self.last.weight.data = self.last.weight.data * 0.999
            return super().forward(x)

    with pytest.raises(UnsupportedModel, match="changes weights by each image that it sees, and gives another"):
        trace(Shrinking(F.relu).eval())


def test_a_count_that_is_a_place_in_a_table_is_refused_in_words() -> None:
    """At a place that there is none of, the network's own error came out."""

    class Places(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            self.last = ([0.0] * 9)[int(self.calls)]
            self.calls.add_(1)
            return self.conv(x)  # type: ignore[no-any-return]

    with pytest.raises(UnsupportedModel, match="changes weights by each image"):
        trace(Places().eval())


def test_the_failure_is_that_of_the_right_number_of_channels() -> None:
    """The first convolution that is registered need not be the first that runs, as in OmniSR."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(8, 12, 3, padding=1)
            self.head = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            windows = self.head(x).unfold(2, 16, 16)
            return self.body(windows.flatten(3))  # type: ignore[no-any-return]

    with pytest.raises(UnsupportedModel, match=r"itself fails on a float64 image \(1, 3, 6, 10\): .*maximum size"):
        trace(Large())


@pytest.mark.parametrize("count", [lambda y: y / y.shape[0], lambda y: y * len(y), lambda y: y.relu() - y.size(0)])
def test_who_computes_with_the_number_of_images_is_told_so(count: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedModel, match=r"it computes with the number of images in a batch .* the number 1"):
        trace(Between(count))


@pytest.mark.parametrize(
    "change",
    [
        lambda y: torch.tensor(y.tolist(), dtype=y.dtype),
        lambda y: torch.stack([torch.stack([torch.stack(list(rows)) for rows in image]) for image in y]),
        lambda y: torch.stack([pixel.relu() for pixel in y.flatten()]).view_as(y),
        lambda y: torch.stack([column * 2 for column in y.unbind(3)], 3),
        lambda y: y + sum(v.item() for v in y.flatten()[:5000]),
        lambda y: y + sum(v.item() for v in y.flatten()[:500]),
    ],
)
def test_feature_maps_that_are_taken_apart_are_refused_at_once(change: Callable[[Tensor], Tensor]) -> None:
    """torch.export has a tensor for each row or pixel of its example, or a symbol for each number: minutes."""
    started = time.process_time()
    with pytest.raises(UnsupportedModel, match=r"test_refusals.py:.*the image leaves torch: .*of torch on the whole"):
        trace(Between(change))
    assert time.process_time() - started < 10


class Masked(nn.Module):
    """An image and a mask for it; `mask` makes it of features."""

    def __init__(self, mask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.mask = mask

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.first(x)
        mask = self.mask(features)
        return self.last(F.relu(features)), mask


class Alone(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "mask",
    [
        torch.sigmoid,
        lambda y: y * y,
        lambda y: F.max_pool2d(y, 2),
        lambda y: (y * 1.0).mul_(y).sigmoid_(),
        lambda y: F.hardswish(y[:, 1:], inplace=False) + y.norm(),
    ],
)
def test_what_the_result_does_not_need_is_not_refused(mask: Callable[[Tensor], Tensor], exports: list[Any]) -> None:
    with pytest.raises(UnsupportedModel, match="wrap it in a module that returns the image only"):
        trace(Masked(mask))
    exports.clear()
    trace(Alone(Masked(mask)))
    assert not exports


@pytest.mark.parametrize(
    "mask", [lambda y: y.mul_(y), lambda y: y[:, 1:].sigmoid_(), lambda y: y.unfold(3, 2, 1).squeeze(0).exp_()]
)
def test_what_is_written_into_the_result_is_needed(mask: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedModel):
        trace(Alone(Masked(mask)))


class OfTwoModes(nn.Module):
    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 3, 3, padding=1), end

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.end(y) if self.training else y.clamp(-9, 9)


@pytest.mark.parametrize("end", [lambda y: y, lambda y: (y, y), lambda y: y[:, :1]])
def test_train_mode_is_told_where_it_counts(end: Callable[[Tensor], Any]) -> None:
    """A bound that the first images do not meet is seen too."""
    with pytest.raises(InvalidInput, match=r"^OfTwoModes is in train mode, .* something else .*; call model.eval\(\)"):
        trace(OfTwoModes(end))
    trace(OfTwoModes(end).eval())
    trace(OfTwoModes(lambda y: y.clamp(-9, 9)))


class Forgetful(OfTwoModes):
    """As many are written: what `train` and `eval` return is not looked at."""

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return y if self.training else (y, x)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)


def test_modes_of_a_module_that_does_not_return_itself() -> None:
    with pytest.raises(InvalidInput, match=r"^Forgetful is in train mode"):
        trace(Forgetful(lambda y: y))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda y: y[:2], r"gives \(3, 3, 6, 10\) for 3 images at once, and itself \(2, .* a part of the batch"),
        (lambda y: y[:1], "getitem: it takes a part of the batch; leave the batch whole"),
        (lambda y: y[-1:], "getitem: it takes a part of the batch; leave the batch whole"),
        (
            lambda y: torch.cat([y * 2 for y in y.split(1)]),
            "split: it takes a part of the batch; leave the batch whole",
        ),
        (lambda y: torch.stack([image * 2 for image in y]), "unbind: it takes a part of the batch; leave the batch"),
    ],
)
def test_a_part_of_the_batch_is_refused(part: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        trace(Between(part))
    trace(Between(lambda y: y[: y.shape[0]][:]))


@pytest.mark.parametrize(
    ("whole", "exported"),
    [
        (lambda y: y.flatten(2).view(y.shape[0], 4, *y.shape[2:]), 0),
        (lambda y: y.flatten(2).unflatten(2, (y.shape[2], y.shape[3])), 0),
        (lambda y: y.flatten(2).unflatten(-1, y.shape[2:]), 0),
        (lambda y: y.flatten(2).view(*y.shape), 0),
        (lambda y: y.flatten(2).view_as(y), 1),
    ],
)
def test_pixels_in_a_row_become_an_image_again(
    whole: Callable[[Tensor], Tensor], exported: int, exports: list[Any]
) -> None:
    trace(Between(whole))
    assert len(exports) == exported


def tiled(size: int) -> Callable[[Tensor], Tensor]:
    def run_tiles(y: Tensor) -> Tensor:
        result = y.new_zeros(y.shape[0], 4, y.shape[2] * 2, y.shape[3] * 2)
        for top in range(0, y.shape[2], size):
            for left in range(0, y.shape[3], size):
                tile = F.interpolate(y[:, :, top : top + size, left : left + size], scale_factor=2)
                result[:, :, 2 * top : 2 * (top + size), 2 * left : 2 * (left + size)] = tile
        return result

    return run_tiles


@pytest.mark.parametrize(
    ("size", "words"),
    [(16, "it cuts the image into tiles, as many as its size makes, .* run on each tile"), (400, "tile by tile")],
)
def test_code_that_goes_from_tile_to_tile_is_refused_before_all_of_them(size: int, words: str) -> None:
    """It took minutes, and the reason was said to be new_zeros."""
    began = time.process_time()
    with pytest.raises(UnsupportedModel, match=words):
        trace(Between(tiled(size)).eval())
    assert time.process_time() - began < 30


class Given(nn.Module):
    """A convolution of what is taken out of what the network is given."""

    def __init__(self, take: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.take, self.conv = take, nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, given: Any) -> Tensor:
        y: Tensor = self.conv(self.take(given))
        return y


@pytest.mark.parametrize(
    ("take", "reason"),
    [
        (lambda batch: batch["lq"], "it looks up 'lq' in what it is given: the network takes a dictionary, not one im"),
        (lambda batch: batch.lq, "has no attribute 'lq' .*; one that takes a dictionary, a list or several tensors is"),
        (lambda images: images[0], "or one of several tensors in a list; .* wrap a network that takes a list"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # of torch, for a text
def test_a_network_that_takes_no_image_is_told_to_be_wrapped(take: Callable[[Any], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        trace(Given(take))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda y: y.max(1, keepdim=True).indices + y, "add: it computes with the places of a maximum .* which jump"),
        (lambda y: y * torch.min(y, 1, True)[1].double(), "double: it computes with the places of a minimum"),
        (lambda y: torch.cat([y.max(1, True)[1], y[:, 1:]], 1), "cat: it computes with the places of a maximum"),
        (lambda y: y + y.argmax(1, keepdim=True), "argmax: places jump from one channel or pixel to another"),
    ],
)
def test_places_are_told_to_jump(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"^the network: {reason}"):
        trace(Between(function))


class Uncopyable(nn.Conv2d):
    def __deepcopy__(self, _: Any) -> Any:
        raise KeyError("a handle")


def test_what_cannot_be_copied_or_is_torchscript_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"Sequential cannot be copied .*a function of TorchScript"):
        trace(nn.Sequential(Uncopyable(3, 3, 1)).eval())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = torch.jit.script(nn.Conv2d(3, 3, 1).eval())
        frozen = torch.jit.freeze(part)
    for script in (part, frozen):
        with pytest.raises(InvalidInput, match=r"1: TorchScript is not read; put the nn.Module"):
            trace(nn.Sequential(nn.Conv2d(3, 3, 1), script).eval())


def test_a_cut_of_more_than_is_too_many_is_refused() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 3, (4, 2), 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.up(x)[:, :, 1:-1, 1:]
            return y

    with pytest.raises(UnsupportedModel, match="up"):
        trace(Cut().eval())
