"""The two readers of modules: small networks in float64, at odd sizes down to 1x1; and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.ir.interpreter import run
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.lowering.equivalence import check_equivalence
from memsr_compiler.trace.builder import Builder
from memsr_compiler.trace.fx.reader import read
from memsr_compiler.trace.fx.tracers import export_module, trace_symbolically
from memsr_compiler.trace.trace import trace
from memsr_compiler.trace.views import Unreadable, View

BOUNDS = torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1)
WEIGHT = torch.arange(12.0).view(4, 3) / 8 - 0.5
Between = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """A network: what is tested, on the image, and then a convolution that takes whatever channels it gives."""

    mean: Tensor

    def __init__(self, between: Between, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.conv = nn.Conv2d(channels, 2, 3, padding=1)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.between(x))
        return y


class Stem(Net):
    """The same between two convolutions: feature maps of both signs."""

    def __init__(self, between: Between, channels: int = 3) -> None:
        super().__init__(between, channels)
        self.stem = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.between(self.stem(x)))
        return y


def by(reader: str, model: nn.Module) -> ir.Graph:
    """The graph one of the readers gives."""
    builder = Builder(3, 0.0, 1.0)
    if reader == "symbolic":
        view = read(trace_symbolically(model, 3), builder)
    else:
        module, constant = export_module(model, 3)
        view = read(module, builder, constant)
    assert isinstance(view, View)
    return builder.graph(view)


def same(model: nn.Module, *readers: str) -> None:
    """Each reader's graph, and the plain network, are the model."""
    model.eval()
    for reader in readers or ("symbolic", "exported"):
        graph = by(reader, model)
        check_equivalence(model, partial(run, graph), channels=3).require()
    plain = compile_to_plain(model.double())
    check_equivalence(model, plain, channels=3).require()


def inplace_sub(x: Tensor) -> Tensor:
    x -= 0.3
    return x * 2 + x


def write_channels(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 2 * F.relu(x[:, 1])
    y[:, 1, :, :] = x[:, 2]
    y[:, -1] = 0.5
    return y


def write_constants(x: Tensor) -> Tensor:
    y = torch.cat([x, x.relu(), x - 1], 1)
    y[:, 1:4] = BOUNDS
    y[:, 4] = BOUNDS[0, 1]
    y[:, -2:] = BOUNDS[:, :2].expand(-1, -1, *x.shape[2:])
    y[:, :1].copy_(BOUNDS[:, 2:].expand(len(x), 1, 1, 1))
    z = torch.cat([x, x], 1)
    z[:, 2:5] = x[:, 1:2]  # one channel into several
    return y[:, :3] + y[:, 3:6] - y[:, 6:] + z[:, :3] - 2 * z[:, 3:]


def twice(x: Tensor) -> Tensor:
    return torch.cat([x, 0.5 - x.flip(1)], 1)


def split(x: Tensor, *parts: int) -> Tensor:
    """The channels taken apart."""
    return x.view(x.shape[0], *parts, *x.shape[2:])


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def grey(x: Any) -> Any:
    """Names of arguments as NumPy has them, of which torch's stubs do not know."""
    return x.mean(axis=1, keepdims=True)


join: Any = torch.cat


def colours(x: Tensor) -> Tensor:
    """Luma and two chromas, as kornia writes them."""
    r, g, b = x[..., 0, :, :], x[:, 1], x.select(1, 2)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return torch.stack((y, (b - y) * 0.564 + 0.5, (r - y) * 0.713 + 0.5), -3)


def shuffled(x: Tensor) -> Tensor:
    """A pixel shuffle that is written out."""
    n, _, h, w = x.shape
    parts = torch.cat([x, x.relu(), -x, x.abs()], 1).view(n, 3, 2, 2, h, w)
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(n, 3, 2 * h, 2 * w)


SAME: dict[str, tuple[Between, int]] = {
    "x -= c": (inplace_sub, 3),
    "x.sub_(c)": (lambda x: x.sub_(0.3), 3),
    "x.sub_(c), x again": (lambda x: x.sub_(0.3) + x, 3),
    "x.mul_(c).relu_()": (lambda x: x.sub_(0.5).relu_() + x, 3),
    "mean of channels": (lambda x: x.mean(1, keepdim=True), 1),
    "mean, by keyword": (lambda x: torch.mean(x, dim=[-3], keepdim=True), 1),
    "mean without its axis": (lambda x: x.mean(1).unsqueeze(1), 1),
    "sum of channels": (lambda x: torch.sum(x, (1,), True), 1),
    "less the mean": (lambda x: F.relu(x - x.mean(1, keepdim=True)), 3),
    "area": (lambda x: F.interpolate(x, scale_factor=2, mode="area"), 3),
    "area x3": (lambda x: F.interpolate(x, scale_factor=3.0, mode="area"), 3),
    "x[:, list]": (lambda x: x[:, [2, 1, 0]], 3),
    "x[:, -1] of some": (lambda x: x[:, [-1, 0]], 2),
    "x[:, mask]": (lambda x: x[:, torch.tensor([True, False, True])], 2),
    "flip": (lambda x: x.flip(1), 3),
    "flip, a list": (lambda x: torch.flip(x, [-3]), 3),
    "stack": (lambda x: torch.stack([x[:, 2], x.select(1, 0), x[:, -1]], dim=1), 3),
    "unbind": (lambda x: torch.stack(x.unbind(1)[:2], 1), 2),
    "tile": (lambda x: x.tile(1, 2, 1, 1), 6),
    "tile, fewer": (lambda x: torch.tile(x, (2, 1, 1)), 6),
    "threshold": (lambda x: F.threshold(x, 0.25, 0.25), 3),
    "clamp, per channel": (lambda x: torch.clamp(x, BOUNDS), 3),
    "clamp, both": (lambda x: x.clamp(BOUNDS - 0.5, BOUNDS), 3),
    "clamp, crossed": (lambda x: x.clamp(BOUNDS, 1 - BOUNDS), 3),
    "maximum, per channel": (lambda x: torch.maximum(x, BOUNDS), 3),
    "maximum, constant first": (lambda x: torch.maximum(BOUNDS, x), 3),
    "minimum, per channel": (lambda x: torch.minimum(x, BOUNDS[0]), 3),
    "max, one number": (lambda x: torch.max(x, torch.tensor(0.5)), 3),
    "max of two": (lambda x: torch.max(x, other=x.flip(1)), 3),
    "min of two": (lambda x: x.min(x.flip(1)), 3),
    "maximum, one channel": (lambda x: torch.maximum(x, x[:, :1]), 3),
    "maximum, zeros_like": (lambda x: torch.maximum(torch.zeros_like(x), x), 3),
    "minimum, full_like": (lambda x: torch.min(x, torch.full_like(x, 0.25)), 3),
    "minimum, constants": (lambda x: torch.min(torch.ones_like(x) / 2, torch.full_like(x, 0.25)) + x, 3),
    "ones_like, written into": (lambda x: torch.cat([torch.ones_like(x), F.relu(x)], 1), 6),
    "new_full": (lambda x: torch.max(x, x.new_full((1, 3, 1, 1), 0.5)) + x.new_full(x.shape, 0.25), 3),
    "new_zeros": (lambda x: torch.max(x, x.new_zeros(1)) + x.new_ones(1, 3, 1, 1) * x.new_zeros(x.shape), 3),
    "expand_as": (lambda x: x - BOUNDS.expand_as(x) * 2, 3),
    "grey to colour": (lambda x: x.relu() - grey(x).expand(-1, 3, -1, -1), 3),
    "grey to colour, as large": (lambda x: x[:, 1:2].expand(x.shape[0], 3, x.shape[2], -1) - x, 3),
    "grey to colour, as another map": (lambda x: x.relu() - grey(x).expand_as(x), 3),
    "channels of groups": (lambda x: split(x, 3, 1).expand(-1, 3, 2, -1, -1).flatten(1, 2), 6),
    "broadcast_to": (lambda x: torch.broadcast_to(x[:, :1], (x.shape[0], 4, *x.shape[2:])), 4),
    "cat, NumPy's names": (
        lambda x: torch.hstack([join([x, -x], axis=1), x.swapaxes(axis0=2, axis1=3).swapaxes(3, 2)]),
        9,
    ),
    "fmax and fmin": (lambda x: torch.fmax(x, 0.5 * x.flip(1)) + torch.fmin(x, torch.zeros_like(x)), 3),
    "lerp": (lambda x: torch.lerp(x, F.relu(x), 0.3), 3),
    "lerp, per channel": (lambda x: torch.lerp(torch.lerp(x, F.relu(x), BOUNDS), BOUNDS - 1, 2 * BOUNDS), 3),
    "lerp of constants": (lambda x: torch.lerp(BOUNDS, 1 - BOUNDS, x), 3),
    "colours by slices": (colours, 3),
    "channels last, of two": (lambda x: (last(x).relu() - last(x) * 2).lerp(last(x), 0.5).permute(0, 3, 1, 2), 3),
    "maxima of groups": (lambda x: torch.maximum(split(twice(x), 3, 2), split(x.repeat(1, 2, 1, 1), 3, 2)).sum(2), 3),
    "full_like in float32": (lambda x: x + torch.full_like(x, 0.3, dtype=torch.float32), 3),
    "safety clamp": (lambda x: x.clamp(-3.5e38, torch.finfo(torch.float32).max) + x.clamp(-1e300, 0.5), 3),
    "safety clamp in seven digits": (lambda x: x.clamp(-3.402823e38, 1) + x.clamp(0, 3.402823e38), 3),
    "expand over the image": (lambda x: x - BOUNDS.expand(x.shape) + torch.broadcast_to(BOUNDS, x.size()) * 2, 3),
    "repeat over the image": (lambda x: x - BOUNDS.repeat(x.size(0), 1, x.shape[2], x.shape[3]), 3),
    "zeros of the image's size": (lambda x: torch.max(x, torch.zeros(x.shape)) + torch.full(x.shape, 0.5), 3),
    "new_full over images": (lambda x: x + x.new_full((x.shape[0], 3, 1, 1), 0.5), 3),
    "new_full of another number of channels": (
        lambda x: torch.cat([x, x.new_full((x.shape[0], 1, *x.shape[2:]), 0.25)], 1),
        4,
    ),
    "one channel times a constant": (lambda x: x[:, :1] * BOUNDS + x.mean(1, keepdim=True) / BOUNDS[0], 3),
    "one channel and a constant": (lambda x: torch.cat([BOUNDS - x[:, 1:2], x[:, :1] + BOUNDS[0]], 1), 6),
    "avg_pool2d, stride 1": (lambda x: x - F.avg_pool2d(x, 3, 1, 1), 3),
    "avg_pool2d of a pixel": (lambda x: F.avg_pool2d(x, 1), 3),
    "rrelu": (lambda x: F.rrelu(x, 0.1, 0.4), 3),
    "movedim": (lambda x: x.movedim(1, -1).movedim((3,), (1,)), 3),
    "instance norm of kept statistics": (
        lambda x: F.instance_norm(x, BOUNDS.flatten(), BOUNDS.flatten(), None, BOUNDS.flatten(), False),
        3,
    ),
    "select_scatter": (lambda x: torch.select_scatter(x, x[:, 0] + x[:, 1], 1, -1), 3),
    "maximum of channels": (lambda x: torch.max(x, 1, keepdim=True)[0], 1),
    "maximum of channels, by name": (lambda x: x.max(dim=1)[0].unsqueeze(1), 1),
    "minimum of channels": (lambda x: x.min(-3, True).values, 1),
    "amax and amin": (lambda x: x.amax(1, keepdim=True) - x.amin((1,), True), 1),
    "maxout": (lambda x: split(twice(x), 3, 2).max(2).values, 3),
    "maxout of groups, kept": (lambda x: split(twice(x), 3, 2).amax(1, True).flatten(1, 2), 2),
    "maxout of both": (lambda x: split(twice(x), 3, 2).amin((1, 2)).unsqueeze(1), 1),
    "groups": (lambda x: split(twice(x), 3, 2).mean(2) + split(twice(x), 2, 3).sum(1), 3),
    "a part of the channels": (lambda x: torch.cat([split(twice(x), 3, 2)[:, :, 1], twice(x)[:, 1:3]], 1), 5),
    "parts of the channels": (lambda x: split(twice(x), 3, 2)[:, 1:, [1, 0]].flatten(1, 2), 4),
    "parts of the channels, by name": (lambda x: split(twice(x), 3, 2).narrow(1, 0, 2).unbind(2)[-1], 2),
    "parts, split": (
        lambda x: torch.cat([split(twice(x), 2, 3).chunk(3, 2)[i].flatten(1, 2) for i in (2, 0, 1)], 1),
        6,
    ),
    "interleaved": (lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2), 6),
    "interleaved, flipped": (lambda x: torch.stack([x, x.relu()], dim=-3).flip(2, 1).flatten(1, 2), 6),
    "channels last": (lambda x: torch.cat([last(x)[..., 1:], last(x).flip(3)], -1).permute(0, 3, 1, 2), 5),
    "a part of a pixel shuffle": (lambda x: shuffled(x)[:, 1:].amax(1).unsqueeze(1), 1),
    "relu of channels taken apart": (lambda x: (split(twice(x), 3, 2) - 0.1).relu().mul(2).sum(2), 3),
    "relu of channels last": (lambda x: F.leaky_relu(last(x) / 2, 0.1).permute(0, 3, 1, 2), 3),
    "constants of channels last": (lambda x: (WEIGHT[0] - last(x) * WEIGHT[1]).permute(0, 3, 1, 2), 3),
    "constants of groups": (lambda x: (split(twice(x), 3, 2) * WEIGHT[:2, :3].T.reshape(1, 3, 2, 1, 1)).sum(2), 3),
    "linear, channels last": (lambda x: F.linear(last(x), WEIGHT, WEIGHT[:, 0]).permute(0, 3, 1, 2), 4),
    "linear, in groups": (
        lambda x: F.linear(split(twice(x), 2, 3).permute(0, 3, 1, 4, 2), WEIGHT).permute(0, 2, 4, 1, 3).flatten(1, 2),
        8,
    ),
    "softshrink": (lambda x: F.softshrink(x, 0.25), 3),
    "addcmul": (lambda x: torch.addcmul(F.relu(x), x, torch.tensor(0.3), value=2.0), 3),
}


ONCE = {  # what torch.export gives for another case already; an export takes most of a test's time
    "x.mul_(c).relu_()", "mean, by keyword", "area x3", "x[:, -1] of some", "flip, a list", "unbind", "tile, fewer",
    "clamp, per channel", "clamp, crossed", "maximum, constant first", "min of two", "x.sub_(c)",
    "minimum, full_like", "minimum, constants", "expand_as", "avg_pool2d of a pixel", "safety clamp",
    "expand over the image", "repeat over the image", "zeros of the image's size",
    "new_full over images", "maximum of channels, by name", "minimum of channels", "maxout of groups, kept",
    "maxout of both", "parts of the channels", "parts of the channels, by name", "parts, split",
    "relu of channels last", "linear, in groups", "softshrink", "constants of groups",
    "interleaved, flipped", "channels last",
    "cat, NumPy's names", "grey to colour, as large", "broadcast_to",
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same(name: str) -> None:
    between, channels = SAME[name]
    once = name in ONCE or (name == "x[:, mask]" and torch.__version__ < "2.13")  # which cannot export it
    same(Stem(between, channels), *(["symbolic"] if once else []))


@pytest.mark.parametrize("name", ["x -= c", "area"])
def test_same_on_the_image_itself(name: str) -> None:
    same(Net(*SAME[name]))


def test_only_one_reader() -> None:
    """Indexing with None is left to torch.export."""
    model = Net(lambda x: x[None][0])
    with pytest.raises(Unreadable, match="None adds an axis"):
        by("symbolic", model)
    same(model, "exported")


class MeanShift(Net):
    def forward(self, x: Tensor) -> Tensor:
        x -= self.mean
        y: Tensor = self.conv(x)
        return y


def test_input_changed_in_place() -> None:
    """A mean subtracted in place: by the model's own code, whose caller's image is not the compiler's to change."""
    same(MeanShift(lambda x: x))
    images = [torch.rand(1, 3, 5, 7, dtype=torch.float64)]
    before = images[0].clone()
    model = MeanShift(lambda x: x).double()
    assert check_equivalence(model, model, images=images)
    assert torch.equal(images[0], before)
    module, _ = export_module(model.float(), 3)
    returned = next(n for n in module.graph.nodes if n.op == "output")
    assert len(returned.args[0]) == 1


PIXELS = r"takes the {} over pixels: every output pixel depends on the whole image"
POOLING = r"every output pixel depends on the whole image.*; remove the pooling"
NORM = r"divides by how large values are, or how far apart, .*; use batch norm"
CURVED = r"it is curved, and a plain network is piecewise linear; remove the norm"
REFUSED: dict[str, tuple[Between, str]] = {
    "x.amin": (lambda x: x - x.amin((2, 3), keepdim=True), PIXELS.format("minimum")),
    "x.max(2)": (lambda x: x - x.max(2, keepdim=True)[0], PIXELS.format("maximum")),
    "x.max()": (lambda x: x - x.max(), PIXELS.format("maximum")),
    "x.mean()": (lambda x: x - x.mean(), POOLING),
    "x.mean((2, 3))": (lambda x: x - x.mean((2, 3), keepdim=True), POOLING),
    "x.sum((1, 2, 3))": (lambda x: x - x.sum((1, 2, 3), keepdim=True), POOLING),
    "pooling": (lambda x: x - F.adaptive_avg_pool2d(x, 1), POOLING),
    "normalize": (lambda x: F.normalize(x, dim=1), NORM),
    "layer_norm": (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2), NORM),
    "instance_norm": (F.instance_norm, NORM),
    "x.std(1)": (lambda x: x / x.std(1, keepdim=True), CURVED),
    "x.var(1)": (lambda x: x - x.var(1, keepdim=True), CURVED),
    "flip of images": (lambda x: x + x.flip(0), "it turns the order of the images round"),
    "x.amax(0)": (lambda x: x - x.amax(0, True), "takes the maximum over images; a plain network treats each image"),
    "x.mean(0)": (lambda x: x - x.mean(0, keepdim=True), "takes the mean over images; a plain network treats each"),
    "linear of rows": (lambda x: x + F.linear(x, torch.rand(3, 3)).sum(), "it takes rows of pixels, or weights that"),
    "sign": (torch.sign, "it jumps, and a plain network is continuous"),
    "columns of channels last": (
        lambda x: (last(x) * torch.rand(1, 1, 10, 1)).permute(0, 3, 1, 2),
        "mul: its axes are no longer|works on axes in another order|differs from pixel to pixel",
    ),
    "a row written": (
        lambda x: x.clone().copy_(torch.rand(10)),
        "copy: .*it writes a constant that differs from pixel to pixel",
    ),
    "flip of pixels": (lambda x: x.flip(3), "it mirrors the image"),
    "x[:, :, 0]": (lambda x: x[:, :, 0:1] + x, "it takes part of axis 2"),
}


def test_channels_may_be_written() -> None:
    """Assignments are left to torch.export."""
    same(Stem(write_channels), "exported")
    same(Stem(write_constants), "exported")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    between, why = REFUSED[name]
    model = Net(between)
    again = (
        "a row written",
        "columns of channels last",
        "linear of rows",
        "flip of images",
        "x.amax(0)",
        "x.mean(0)",
        "x.max(2)",
        "x.mean()",
        "x.sum((1, 2, 3))",
        "x[:, :, 0]",
    )
    for reader in ("symbolic",) if name in again else ("symbolic", "exported"):
        with pytest.raises(UnsupportedModel, match=why) as error:
            by(reader, model)
        assert not isinstance(error.value, Unreadable)


def test_instance_norm_with_statistics_of_its_own() -> None:
    """In evaluation it does what batch norm does."""
    norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    norm(torch.rand(4, 3, 8, 8) * 2 + 1)
    same(Stem(norm.eval()))
    with pytest.raises(UnsupportedModel, match=NORM):
        trace(Stem(nn.InstanceNorm2d(3)).eval())


UNREADABLE: dict[str, tuple[Between, str]] = {
    "in space": (lambda x: torch.maximum(x, torch.rand(1, 1, 1, 3)), r"bound of shape \(1, 1, 1, 3\) is not one"),
    "infinite": (lambda x: torch.clamp(x, BOUNDS.log() / 0.0), "a bound is infinite or NaN for some channels"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_real_cause(name: str) -> None:
    between, why = UNREADABLE[name]
    with pytest.raises(Unreadable, match=why):
        by("symbolic", Net(between, 3))


def test_the_reason_reaches_the_user() -> None:
    with pytest.raises(UnsupportedModel, match="over images"):
        trace(Net(lambda x: torch.max(x, 0, keepdim=True)[0] - x))
    with pytest.raises(UnsupportedModel, match="infinite or NaN"):
        trace(Net(lambda x: torch.clamp(x, BOUNDS.log() / 0.0)))


MEAN = (0.4488, 0.4371, 0.4040)


def gauss(x: Tensor) -> Tensor:
    places = torch.arange(5, dtype=x.dtype) - 2
    bell = torch.exp(-(places**2) / 2)
    kernel = bell[:, None] * bell[None] / bell.sum() ** 2
    return F.conv2d(x, kernel.expand(3, 1, 5, 5), padding=2, groups=3)


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x - x.new_tensor(MEAN).view(1, 3, 1, 1),
        lambda x: x - torch.tensor(MEAN, dtype=x.dtype, device=x.device).view(1, 3, 1, 1),
        lambda x: x * torch.linspace(0.1, 1, 3, dtype=x.dtype).view(1, 3, 1, 1),
        gauss,
    ],
)
def test_constants_in_the_images_dtype_are_those_of_float64(made: Between) -> None:
    """As the network is run to compare: with those of float32 it differed from itself by 1e-8, and was refused."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.pixel_shuffle(self.conv(made(x)), 2)

    model = First()
    check_equivalence(model, compile_to_plain(model), channels=3).require()


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.float() - 0.5,
        lambda x: F.relu(x - 0.25).to(torch.float32),
        lambda x: x.type("torch.FloatTensor") * 2,
        lambda x: x.type(torch.float) * 2,
        lambda x: x.type_as(torch.zeros(1)) * 2,
        lambda x: F.conv2d(x, torch.full((3, 1, 3, 3), 0.1), padding=1, groups=3),
        lambda x: F.prelu(x - 0.5, torch.tensor([0.1])),
    ],
)
def test_code_that_says_float32_is_run_in_float64_all_the_same(made: Between) -> None:
    """A cast ended in "expected scalar type Double", one at the end in "differs from itself by 1e-8"."""

    class Whole(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).float()

    same(Whole(made))


def test_a_parameter_of_one_number_is_a_number() -> None:
    class Scaled(Net):
        def __init__(self) -> None:
            super().__init__(lambda x: x)
            self.gain, self.times = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * float(self.gain)) * int(self.times)

    same(Scaled(), "symbolic")
    with pytest.raises(TypeError, match="a Proxy is no number"):
        trace_symbolically(Net(lambda x: x * float(x.mean())), 3)


@pytest.mark.parametrize(
    "cast",
    [
        lambda x: x.to(torch.int32).to(x.dtype),
        lambda x: x.to(torch.bool).to(x.dtype),
        lambda x: x.to(dtype=torch.float8_e4m3fn).to(torch.float64),
        lambda x: x.to(torch.zeros(1, dtype=torch.int64)) + x,
        lambda x: x.type("torch.HalfTensor").type(torch.float64),
        lambda x: x.int().to(x.dtype),
        lambda x: x.half().float(),
    ],
)
def test_a_cast_that_rounds_is_no_word_for_nothing(cast: Between) -> None:
    """Of a feature map that is nothing on the samples and the probes nobody saw it: 153 levels off."""
    for reader in ("symbolic", "exported"):
        with pytest.raises(UnsupportedModel, match=r"a cast to (int32|bool|float8_e4m3fn|int64|float16) rounds values"):
            by(reader, Net(cast, 3))


class Clipped(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(super().forward(x), -0.1, 0.1)


def test_a_batch_norm_with_a_forward_of_its_own_is_looked_into() -> None:
    same(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Clipped(8), nn.Conv2d(8, 12, 3, padding=1)), "exported")


def test_modules_may_be_given_their_input_by_name() -> None:
    """Also where the code asks for the shape of what comes out."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(input=self.conv(input=x))
            return F.pixel_shuffle(y[:, :4] if y.shape[1] == 8 else y, 2)

    same(Named(), "symbolic")


def test_a_hook_of_the_network_itself_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    network.register_forward_hook(lambda _module, _x, y: y.clamp(0, 1))
    with pytest.raises(InvalidInput, match="the network has a hook of its own, which no reader sees"):
        trace(network)


@pytest.mark.parametrize("edge_first", [True, False])
def test_a_branch_of_one_channel_makes_no_grey_network(edge_first: bool) -> None:
    """By broadcasting it works on grey images too, and is then another network."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            convolutions = {"edge": nn.Conv2d(1, 4, 3, padding=1), "head": nn.Conv2d(3, 4, 3, padding=1)}
            for name in ("edge", "head") if edge_first else ("head", "edge"):
                self.add_module(name, convolutions[name])
            self.tail = nn.Conv2d(4, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = x - torch.tensor([0.4, 0.3, 0.2], dtype=x.dtype).view(1, 3, 1, 1)
            edge, head = self.get_submodule("edge"), self.get_submodule("head")
            return F.pixel_shuffle(self.tail((head(x) + edge(x.mean(1, keepdim=True))).relu()), 2)

    assert trace(Branches().eval()).graph.input.channels == 3


class Renewed(nn.Module):
    """Two convolutions as one, whose weights are written past torch whenever it runs, as in SPAN (arXiv 2311.12770)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1, bias=False), nn.Conv2d(6, 12, 3, padding=1)
        self.both = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.first.weight.data[:, :, 0, 0], self.second.weight.data
        self.both.weight.data = torch.einsum("omyx,mi->oiyx", second, first)
        assert self.both.bias is not None and self.second.bias is not None, "made with one"
        self.both.bias.data = self.second.bias.data * 1.0
        return F.pixel_shuffle(self.both(x).relu(), 2)


def test_weights_that_a_network_computes_anew_are_those_that_it_runs_with() -> None:
    model = Renewed().eval()
    check_equivalence(model, compile_to_plain(model), channels=3).require()


@torch.fx.wrap
def relu(x: Tensor) -> Tensor:
    return torch.clamp(x, 0, 0.5)


def test_a_function_of_the_user_s_own_is_not_torch_s_of_that_name() -> None:
    same(Net(lambda x: relu(x * 2)), "exported")
    with pytest.raises(Unreadable, match=r"test_torch\.relu: the compiler has no word for this operation"):
        by("symbolic", Net(lambda x: relu(x * 2)))
    check_equivalence(Net(lambda x: relu(x * 2)), compile_to_plain(Net(lambda x: relu(x * 2))), channels=3).require()


def test_a_constant_for_every_image_is_one() -> None:
    """torch itself cannot follow it by symbols: the number of images is none for a method of a tensor."""
    same(Net(lambda x: x - BOUNDS.expand(x.shape[0], -1, -1, -1)), "exported")


def test_images_as_one_argument_of_many() -> None:
    class Many(Net):
        def forward(self, *images: Tensor) -> Tensor:
            return super().forward(images[0])

    same(Many(lambda x: x), "symbolic")


class Flagged(Net):
    """Arguments beside the image, as code has them that is trained with more than the image."""

    def forward(self, x: Tensor, mask: Tensor | None = None, *, features: bool = False, **more: object) -> Tensor:
        if mask is not None:
            x = x * mask
        y = super().forward(x)
        return y * 2 if features else y


def test_arguments_beside_the_image_have_their_defaults(caplog: pytest.LogCaptureFixture) -> None:
    same(Flagged(lambda x: x), "symbolic")
    plain = compile_to_plain(Flagged(lambda x: x))
    check_equivalence(Flagged(lambda x: x), plain, channels=3).require()
    assert "decides" not in caplog.text


class Weighted(Net):
    """Decides by its weights, and computes with numbers of them."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        scale = float(weight.mean()) + (weight * 2).sum().item()
        y = super().forward(x) * scale
        return y if weight.abs().sum() > 0 and int(weight.argmax()) >= 0 else y * 2


def test_numbers_of_weights_are_numbers(caplog: pytest.LogCaptureFixture) -> None:
    same(Weighted(lambda x: x), "symbolic")
    assert "decides" not in caplog.text


def test_weights_that_are_changed_are_no_numbers() -> None:
    class Changed(Net):
        def forward(self, x: Tensor) -> Tensor:
            scale = self.conv.weight.clone()
            scale.fill_(3.0)
            return super().forward(x) * float(scale.sum())

    with pytest.raises(TypeError, match="no number"):
        by("symbolic", Changed(lambda x: x))


def test_where_a_weight_lies_is_no_decision(caplog: pytest.LogCaptureFixture) -> None:
    """As BasicSR's ECBSR asks, before it makes one convolution of its branches."""

    class Merged(Net):
        def forward(self, x: Tensor) -> Tensor:
            device = self.conv.weight.get_device()
            where = None if device < 0 else device
            own = torch.eye(3, device=where)[:, :, None, None]
            kernel = torch.nn.functional.conv2d(input=self.conv.weight, weight=own)  # float32 beside float64
            y: Tensor = torch.nn.functional.conv2d(input=x, weight=kernel, bias=self.conv.bias, padding=1)
            return y

    compile_to_plain(Merged(lambda x: x))
    assert "decides" not in caplog.text


def test_parameters_that_forward_makes_are_read() -> None:
    """Torch's memory of how it came to them went into the graph, of which the certificate could make no numbers."""

    class Doubled(Net):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.nn.functional.conv2d(x, nn.Parameter(self.conv.weight * 2), padding=1)
            return y

    read_of = by("symbolic", Doubled(lambda x: x))
    assert not any(value.requires_grad for op in read_of for value in vars(op).values() if isinstance(value, Tensor))
