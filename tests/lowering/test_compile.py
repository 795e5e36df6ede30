"""compile_to_plain on the published families, its options and refusals, and what it costs in precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.bounds import rounding
from helpers.networks import SIZES, random_network
from helpers.teachers import write_teacher
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.analysis.rematerialize import plan
from memsr_compiler.errors import InvalidInput, PassError, UnsupportedModel
from memsr_compiler.lowering.canonical import canonical
from memsr_compiler.lowering.compile import Report, compile_to_plain
from memsr_compiler.lowering.inspection import inspect
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.registry import find_family
from memsr_compiler.teachers.teacher import Teacher
from memsr_compiler.trace.trace import trace

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("edsr", {"scale": 2, "blocks": 3, "channels": 4}),
    ("edsr", {"scale": 3, "blocks": 2, "channels": 4, "res_scale": 0.1}),
    ("edsr", {"scale": 4, "blocks": 2, "channels": 4, "mean": (0.4, 0.5, 0.6)}),
    ("edsr", {"scale": 2, "blocks": 2, "channels": 4, "tail": "conv", "mean": (0.4, 0.5, 0.6), "rgb_range": 255}),
    ("rdn", {"scale": 2, "blocks": 2, "layers": 2, "channels": 4, "growth": 3}),
    ("carn", {"scale": 2, "channels": 4}),
    ("carn", {"scale": 3, "channels": 4, "groups": 2, "efficient": True}),
    ("srresnet", {"scale": 2, "blocks": 2, "channels": 4}),
    ("rrdb", {"scale": 4, "blocks": 1, "channels": 4, "growth": 2}),
    ("fsrcnn", {"scale": 3, "blocks": 2, "channels": 6, "narrow": 3}),
    ("compact", {"scale": 2, "blocks": 2, "channels": 4}),
    ("dncnn", {"layers": 4, "channels": 4}),
    ("dncnn", {"layers": 4, "channels": 4, "batch_norm": True}),
    ("vdsr", {"blocks": 2, "channels": 4}),
    ("imdn-baseline", {"scale": 2, "blocks": 2, "channels": 8}),
    ("rrdb", {"scale": 2, "blocks": 1, "channels": 4, "growth": 2, "unshuffle": 1, "plus": True}),
    ("msrresnet0", {"scale": 2, "blocks": 2, "channels": 4}),
    ("ecbsr", {"scale": 2, "blocks": 2, "channels": 4}),
    ("etds", {"scale": 2, "blocks": 2, "channels": 4}),
    ("etds-plain", {"scale": 3, "blocks": 2, "channels": 4, "spare": 1}),
    ("abpn", {"scale": 2, "blocks": 2, "channels": 4}),
]


def build(name: str, **hyper: Any) -> nn.Module:
    """A family's network, random batch-norm statistics included, in eval mode."""
    torch.manual_seed(0)
    network = find_family(name).build(**hyper)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None and m.running_var is not None
            m.running_mean.uniform_(-1, 1)
            m.running_var.uniform_(0.5, 2)
    return network.eval()


def images(channels: int, high: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(2, channels, *size, generator=generator, dtype=torch.float64) * high for size in SIZES]


@torch.no_grad()
def require_equal(teacher: nn.Module, plain: nn.Module, graph: ir.Graph, high: float = 1.0) -> None:
    """In float64, the border included, up to rounding."""
    reference, plain = copy.deepcopy(teacher).double(), copy.deepcopy(plain).double()
    for x in images(graph.input.channels, high):
        expected, found = reference(x), plain(x)
        assert expected.shape == found.shape
        assert bool(((expected - found).abs() <= rounding(graph, plain, x)).all())  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "hyper"), FAMILIES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(FAMILIES)])
def test_families(name: str, hyper: dict[str, Any]) -> None:
    teacher = build(name, **hyper)
    high = float(hyper.get("rgb_range", 1))
    plain = compile_to_plain(teacher, input_range=(0.0, high))
    assert plain.scale == hyper.get("scale", 1) and plain.certificate is not None and not plain.certificate.shifts
    assert "exact" in plain.info.guarantee
    require_equal(teacher, plain, trace(teacher, input_range=(0.0, high)).graph, high)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_kept_tail_is_the_same_network(scale: int) -> None:
    teacher = build("edsr", scale=scale, blocks=2, channels=4)
    plain = compile_to_plain(teacher, tail="keep")
    assert [layer.shuffle for layer in plain if layer.shuffle > 1] == [2] * (scale // 2)
    require_equal(teacher, plain, trace(teacher).graph)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imdn", r"^IMDB1.cca: mean: every output pixel depends on the whole image.*channel attention"),
        ("rfdn", r"^B1.esa.conv2: conv2d: stride 2 lowers the resolution"),  # enhanced spatial attention
    ],
)
def test_attention_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        compile_to_plain(build(name, scale=2, blocks=1, channels=8))


def test_an_interpolated_image_stays_outside_on_request() -> None:
    teacher = build("idn", scale=2, blocks=1, channels=8, kept=2, groups=2)
    with pytest.raises(UnsupportedModel, match=r"bicubic interpolation.*--image-skip outside"):
        compile_to_plain(teacher)
    plain = compile_to_plain(teacher, image_skip="outside")
    assert plain.info.image_skip == "bicubic"
    plain, reference = plain.double(), copy.deepcopy(teacher).double()
    graph = trace(teacher).graph
    with torch.no_grad():
        for x in images(3):
            skip = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
            bound = rounding(graph, plain, x) + torch.finfo(torch.float64).eps * skip.abs()
            assert bool(((reference(x) - plain(x)).abs() <= bound).all())


# -- the paper's numbers ---------------------------------------------------------------------------------------------


def test_the_widths_of_the_paper() -> None:
    """The paper's are 64, (192, 128) x 16, 64, but that the first block shares x with the global skip.

    Where a layer is 1 wider, it holds the constant.
    """
    torch.manual_seed(0)
    teacher = EDSR(scale=2, blocks=16, channels=64, tail="conv")
    for p in teacher.parameters():
        p.requires_grad_(False)
    (stage,) = canonical(trace(teacher).graph, "fold")
    width = plan(stage.graph, "shift")[1].width
    assert list(width) == [3, 64, 128, 128, *[192, 128] * 15, 64]


def test_the_widths_of_the_paper_after_all_passes() -> None:
    """A quarter of the channels, that it takes no time; the channel of ones comes on top, where a shift needs it."""
    torch.manual_seed(0)
    teacher = EDSR(scale=2, blocks=16, channels=16, tail="conv")
    plain = compile_to_plain(teacher, carry="shift", constant=100.0, align=1)
    bare = [3, 16, 32, 32, *[48, 32] * 15, 16, 12]
    assert len(plain.widths) == len(bare)
    assert all(width - expected in (0, 1) for width, expected in zip(plain.widths, bare, strict=True))


# -- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [1.0, 255.0])
@pytest.mark.parametrize("name", ["edsr", "compact"])
def test_float32_is_as_good_as_the_teachers(name: str, high: float) -> None:
    """Both err by their own roundings, of which the plain one has more in a row, by the processor's order of summing.

    edsr, within three bits: it adds a skip term by term in the same dot product.  compact has an activation's two
    halves in the dot product of n terms that reads them: n partial sums are rounded where the teacher rounds one value,
    and independent roundings add to sqrt(n) of one.  (4.7 to 5.7 times on AVX512, 8.4 on SSE4.1; sqrt(n) is 14.7.)
    """
    teacher = build(name, scale=2, blocks=4, channels=8)
    plain = compile_to_plain(teacher, input_range=(0.0, high))
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * high
    with torch.no_grad():
        exact = copy.deepcopy(teacher).double()(x.double())
        own = (teacher(x).double() - exact).abs().square().mean().sqrt()
        found = (plain(x).double() - exact).abs().square().mean().sqrt()
    terms = max(layer.weight[0].numel() for layer in plain)
    assert found <= (8 if name == "edsr" else terms**0.5) * own


def test_too_large_a_shift_costs_precision_and_split_does_not() -> None:
    teacher = build("edsr", scale=2, blocks=4, channels=8)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = copy.deepcopy(teacher).double()(x.double())
        errors = {
            constant: float((compile_to_plain(teacher, carry="shift", constant=constant)(x) - exact).abs().max())
            for constant in (10.0, 1000.0)
        }
        split = float((compile_to_plain(teacher)(x) - exact).abs().max())
    assert split < errors[10.0] < errors[1000.0]


def test_double_gives_the_weights_that_were_computed_in_float64() -> None:
    teacher = build("edsr", scale=2, blocks=2, channels=4, mean=(0.4, 0.5, 0.6))
    wide, plain = compile_to_plain(copy.deepcopy(teacher).double()), compile_to_plain(teacher)
    assert plain[0].weight.dtype == torch.float32 and wide[0].weight.dtype == torch.float64
    plain = plain.double()
    assert all(
        torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias) for a, b in zip(plain, wide, strict=True)
    )


def test_double_keeps_weights_that_were_changed() -> None:
    plain = compile_to_plain(build("edsr", scale=2, blocks=2, channels=4))
    with torch.no_grad():
        plain[1].weight[0, 0, 0, 0] += 0.5
    changed = plain[1].weight.detach().clone()
    assert torch.equal(plain.double()[1].weight, changed.double())


def test_a_teacher_a_module_or_a_path(tmp_path: Path) -> None:
    """The same network, and the range that goes with it."""
    network = build("edsr", scale=2, blocks=1, channels=4, rgb_range=255)
    expected = compile_to_plain(network, input_range=(0.0, 255.0))
    write_teacher(network, tmp_path / "teacher.pt")
    for teacher in (Teacher(module=network, input_range=(0.0, 255.0)), tmp_path / "teacher.pt"):
        plain = compile_to_plain(teacher, input_range=None if isinstance(teacher, Teacher) else (0.0, 255.0))
        assert plain.info.input_range == (0.0, 255.0) and plain.sha256() == expected.sha256()
    assert compile_to_plain(network).info.input_range == (0.0, 1.0)
    assert inspect(str(tmp_path / "teacher.pt")).predictions == inspect(network).predictions
    for wrong in (None, 3, [network]):
        with pytest.raises(InvalidInput, match=r"a teacher is wanted: .* not (NoneType|int|list)"):
            compile_to_plain(wrong)  # type: ignore[arg-type]


def test_the_report_is_complete() -> None:
    heard: list[str] = []
    plain = compile_to_plain(build("edsr", scale=2, blocks=2, channels=4), on_pass=lambda r: heard.append(r.name))
    report = plain.report
    assert isinstance(report, Report)
    assert [p.name for p in report.passes] == heard
    assert report.rounding <= 1.01  # a stored weight is within half a unit in the last place of the exact one
    assert set(report.seconds) == {"trace", "passes", "validation", "build", "certificate"}
    assert report.cost.parameters == sum(p.numel() for p in plain.parameters())
    assert report.cost.widest == max(plain.widths)
    assert report.reader == "torch.fx.symbolic_trace"


def test_a_random_network_compiles_the_same_way_twice() -> None:
    for seed in range(10):
        first, second = (compile_to_plain(random_network(seed)) for _ in range(2))
        assert first.sha256() == second.sha256() and first.certificate == second.certificate


# -- options and refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"carry": "free"}, "carry 'free' is none of auto, shift, split"),
        ({"tail": "drop"}, "tail 'drop' is neither fold nor keep"),
        ({"carry": "shift"}, "carry 'shift' needs the constant C; give --constant, or measure it with --calibration"),
        ({"constant": 3.0}, "a constant is for carry 'shift'; carry is 'auto'"),
        ({"carry": "shift", "constant": -1.0}, "the constant -1.0 is not a positive number"),
        ({"carry": "shift", "constant": float("nan")}, "the constant nan is not a positive number"),
        ({"input_range": (1.0, 0.0)}, "input range 1.0 0.0 is empty or infinite"),
        ({"input_range": (0.0, float("inf"))}, "input range 0.0 inf is empty or infinite"),
        ({"input_range": (0, 1, 2)}, r"input_range=\(0, 1, 2\): want the lowest and the highest value"),
        ({"input_range": "01"}, "input_range='01': want the lowest and the highest value"),
        ({"carry": "shift", "constant": "5"}, "the constant '5' is a str, not a number"),
        ({"carry": "shift", "constant": {"body.0": "5"}}, "the constant '5' is a str, not a number"),
        ({"image_skip": "inside"}, "image_skip 'inside' is neither refuse nor outside"),
        ({"align": 0}, "widths cannot be aligned to 0; take 1 or more"),
        ({"align": "8"}, "widths cannot be aligned to 8; take 1 or more"),
        ({"align": 1.5}, r"widths cannot be aligned to 1\.5; take 1 or more"),
        ({"max_weights": "4GB"}, "max_weights '4GB': want a number of bytes above 0"),
        ({"max_weights": float("nan")}, "max_weights nan: want a number of bytes above 0"),
        ({"max_weights": None}, "max_weights None: want a number of bytes above 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compile_to_plain(nn.Conv2d(3, 3, 1), **options)


def test_a_range_may_be_a_list_or_of_whole_numbers() -> None:
    network = build("edsr", scale=2, blocks=1, channels=4)
    ranges: list[Any] = [[0, 1], (0, 1), (0.0, 1.0), None]
    assert len({compile_to_plain(network, input_range=given).info.teacher_sha256 for given in ranges}) == 1


def test_a_shift_without_a_constant_for_every_tensor_is_refused() -> None:
    with pytest.raises(PassError, match=r"head.0: a shift needs a constant C > 0 .*, not None"):
        compile_to_plain(build("edsr", scale=2, blocks=2, channels=4), carry="shift", constant={"body.0": 1.0})


class Loud(nn.Module):
    """Residual blocks, each of which makes what comes in some ten times larger."""

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
            for _ in range(blocks)
        )
        for parameter in self.body.parameters():
            parameter.data *= 10

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.body:
            x = x + block(x)
        y: Tensor = self.tail(x)
        return y


@pytest.mark.parametrize("constant", [1e7, 1e9])
def test_what_rounding_takes_from_a_constant_and_weights_enlarge_is_not_too_small_a_constant(constant: float) -> None:
    """Values of the output reach 50,000; a carry of the first level, of values below 2, is enlarged as much."""
    net = compile_to_plain(Loud().eval(), carry="shift", constant=constant)
    assert isinstance(net.report, Report)
    report = next(r for r in net.report.passes if r.name == "insert-relu")
    values = 5e4
    assert torch.finfo(torch.float64).eps * constant < report.deviation <= report.bound < values * constant * 1e-12


@pytest.mark.parametrize("constant", [1e-3, 1e3, 65536.0])
def test_too_small_a_constant_is_called_so_and_its_tensor_named(constant: float) -> None:
    tensor = {1e-3: "head", 1e3: r"add:3", 65536.0: r"add:4"}[constant]
    with pytest.raises(InvalidInput, match=rf"C is too small: .* a carried value, {tensor}, is larger .* became"):
        compile_to_plain(Loud().eval(), carry="shift", constant=constant)


def test_a_constant_that_only_a_long_image_is_too_much_for_is_too_small_too() -> None:
    """Sums of three pixels, one below the other: a high image has the larger ones."""
    sums = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(8)]
    for i, conv in enumerate(sums):
        conv.weight.data.zero_()[0, 0, :, 1] = -1.0 if i == 0 else 1.0
    network = nn.Sequential(*sums).eval()
    with pytest.raises(InvalidInput, match=r"C is too small: .* \(the passes together changed .* on probe 19x2"):
        compile_to_plain(network, carry="shift", constant=800.0)
    compile_to_plain(network, carry="shift", constant=3.0**7)


def test_a_plain_form_beyond_the_limit_is_refused_before_it_is_built() -> None:
    with pytest.raises(UnsupportedModel, match=r"channels wide and take .* GiB of weights.*--max-weights"):
        compile_to_plain(build("rdn", scale=2, blocks=2, layers=2, channels=4, growth=3), max_weights=1000)


def test_train_mode_is_refused_where_it_matters() -> None:
    with pytest.raises(InvalidInput, match=r"1: BatchNorm2d is in train mode; call model.eval\(\) first"):
        compile_to_plain(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    teacher = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    assert compile_to_plain(teacher).scale == 1 and teacher.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    teacher = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))
    with torch.no_grad():
        next(teacher.parameters())[1, 0, 2, 2] = value
    with pytest.raises(InvalidInput, match=r"0.weight: has NaN or infinite values"):
        compile_to_plain(teacher)


class Lambda(nn.Module):
    """One convolution, and a function of it and the input."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 3, 3, padding=1), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x), x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = self.conv(x) + y
        return result


def test_two_inputs_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="input 'y': the network takes more than one input"):
        compile_to_plain(TwoInputs())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y, x: (y, x), "the network returns 2 values, not one image"),
        (lambda y, x: y * x, "two feature maps are multiplied"),
        (lambda y, x: y * y.mean((2, 3), keepdim=True), "every output pixel depends on the whole image"),
        (lambda y, x: torch.sigmoid(y), "it is curved, and a plain network is piecewise linear"),
        (lambda y, x: F.gelu(y), "it is curved, and a plain network is piecewise linear"),
        (lambda y, x: F.max_pool2d(y, 2), "it lowers the resolution"),
        (lambda y, x: F.pad(y, (1, 1, 1, 1), mode="reflect"), "padding .* outside a convolution"),
        (lambda y, x: y[:, :, 1:], "it takes part of axis 2"),
        (
            lambda y, x: F.interpolate(y, scale_factor=2, mode="bilinear"),
            "bilinear enlargement of a feature map clamps",
        ),
        (lambda y, x: F.pixel_unshuffle(y, 2), "it works at 1/2 of the input's resolution"),
        (lambda y, x: torch.cat([y, x], dim=2), "it concatenates along axis 2"),
    ],
)
def test_what_cannot_be_plain_is_refused_with_the_reason(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        compile_to_plain(Lambda(function))


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Conv2d(3, 3, 3, stride=2, padding=1), "stride 2 lowers the resolution"),
        (nn.Conv2d(3, 3, 3), r"padding \(0, 0\) changes the size of the image"),
        (nn.Conv2d(3, 3, 4, padding="same"), "the kernel 4x4 is even and has no centre"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "padding"),
        (nn.ConvTranspose2d(3, 3, 4, stride=2), "do not enlarge by exactly 2"),
    ],
)
def test_convolutions_that_change_the_size_are_refused(conv: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        compile_to_plain(nn.Sequential(conv))


# -- corners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modules",
    [
        [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(3, 4, 3, padding=1), nn.Hardtanh(-0.25, 0.5)],
        [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2)],
        [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=3, mode="nearest"), nn.ReLU6()],
        [nn.ConvTranspose2d(3, 3, 3, padding=1), nn.PixelShuffle(1)],
    ],
    ids=lambda modules: "-".join(type(m).__name__ for m in modules),
)
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_network_may_end_with_a_relu(modules: list[nn.Module], low: float) -> None:
    """Its plain form ends with a convolution that copies it."""
    teacher = nn.Sequential(*modules)
    plain = compile_to_plain(teacher, input_range=(low, 1.0), align=1)
    assert plain.info.channels == 3 and not list(plain)[-1].relu
    require_equal(teacher, plain, trace(teacher, input_range=(low, 1.0)).graph)


@pytest.mark.parametrize("module", [nn.Identity(), nn.ReLU(), nn.PReLU(3), nn.Upsample(scale_factor=2)])
def test_a_network_without_convolution_is_refused(module: nn.Module) -> None:
    with pytest.raises(UnsupportedModel, match="the network has no convolution, so there is nothing to compile"):
        compile_to_plain(nn.Sequential(module))


def test_in_place_operations_change_every_name_of_the_tensor() -> None:
    """torch's ReLU(inplace=True) also changes the skip that was taken before it."""

    def function(y: Tensor, x: Tensor) -> Tensor:
        skip = y
        y = F.relu(y, inplace=True)
        y += 1
        return skip - 0.5 * y.clone()

    teacher = Lambda(function)
    require_equal(teacher, compile_to_plain(teacher), trace(teacher).graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda y, x: y.clone().relu_() + y,
        lambda y, x: (y * 1.0).relu_() + y,
        lambda y, x: (y + 0).relu_() - y,
        lambda y, x: torch.cat([y], 1).relu_() + y,
        lambda y, x: F.dropout(y, 0.5, training=False).relu_() + y,
    ],
)
def test_a_copy_is_not_the_tensor_and_an_alias_is(function: Callable[..., Any]) -> None:
    teacher = Lambda(function)
    require_equal(teacher, compile_to_plain(teacher), trace(teacher).graph)


def test_views_that_are_changed_in_place_are_read_by_export() -> None:
    def function(y: Tensor, x: Tensor) -> Tensor:
        y[:, :2].relu_()
        return y + x

    teacher = Lambda(function)
    plain = compile_to_plain(teacher)
    assert isinstance(plain.report, Report) and plain.report.reader == "torch.export"
    require_equal(teacher, plain, trace(teacher).graph)


@pytest.mark.parametrize("names", [("1", "2", "3"), ("0", "1", "sum"), ("minus", "more", "steps")])
def test_modules_may_be_called_what_the_passes_call_theirs(names: tuple[str, str, str]) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in names:
                self.add_module(name, nn.Conv2d(1, 1, 3, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            a, b, c = (self.get_submodule(name)(x) for name in names)
            y = 0.5 * a + 0.25 * b + 2 * torch.relu(c) + 1
            result: Tensor = torch.maximum(torch.relu(y) + a, b).clamp(-1, 3) + y
            return result

    torch.manual_seed(0)
    teacher = Named()
    require_equal(teacher, compile_to_plain(teacher), trace(teacher).graph)


def test_many_layers_take_no_recursion() -> None:
    """400 residual blocks: neither the reader nor the checker follows them one inside the other."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(400))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + F.relu(block(x))
            return x

    torch.manual_seed(0)
    teacher = Deep()
    with torch.no_grad():
        for p in teacher.parameters():
            p.mul_(0.01)
    plain = compile_to_plain(teacher, align=1)
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        expected, found = copy.deepcopy(teacher).double()(x), plain.double()(x)
    eps = torch.finfo(torch.float64).eps
    assert bool(((expected - found).abs() <= eps * 400 * 4 * expected.abs().max()).all())


# -- names ------------------------------------------------------------------------------------------------------------


class Named(nn.Module):
    """Two residual blocks whose modules have the names that the passes might give to ops of their own."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.add_module(name, nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1)))

    def forward(self, x: Tensor) -> Tensor:
        total = x - 0.5
        for name in self.names:
            total = torch.cat([total, getattr(self, name)(total)], 1)[:, 1:4] + total
        return total


@pytest.mark.parametrize("names", ["layer1 layer3", "1 2", "ones bare padded", "pixels sum input"])
def test_modules_may_have_any_name(names: str) -> None:
    torch.manual_seed(0)
    teacher = Named(names.split()).eval()
    require_equal(teacher, compile_to_plain(teacher), trace(teacher).graph)


def test_the_guarantee_says_when_the_image_must_not_be_negative() -> None:
    """What is carried as it is because the image and the weights are not negative depends on the image."""
    mixed = nn.Conv2d(3, 4, 1, bias=False)
    mixed.weight.data.abs_()
    chain = nn.Sequential(
        mixed, Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)))
    )
    assert compile_to_plain(chain).info.guarantee == "exact for every image without negative values"
    assert compile_to_plain(chain, input_range=(-1.0, 1.0)).info.guarantee == "exact for every image"


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def test_compiling_takes_one_thread_and_gives_the_others_back() -> None:
    threads, seen = torch.get_num_threads(), set()
    torch.set_num_threads(2)
    try:
        conv = nn.Conv2d(1, 1, 3, padding=1)
        compile_to_plain(conv, on_graph=lambda *_: seen.add(torch.get_num_threads()))
        with pytest.raises(UnsupportedModel):
            compile_to_plain(nn.Sequential(conv, nn.Softmax(dim=1)))
        assert seen == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_where_the_caller_infers_it_compiles_all_the_same() -> None:
    """The result is no tensor of inference, and may be trained."""
    with torch.inference_mode():
        made = EDSR(scale=2, blocks=1, channels=4).eval()
        net = compile_to_plain(made)
    assert not any(p.is_inference() for p in net.parameters())


def test_numbers_of_numpy_are_numbers() -> None:
    network = build("edsr", scale=2, blocks=1, channels=4)
    options: dict[str, Any] = {"align": np.int64(8), "max_weights": np.int64(10**9)}
    assert compile_to_plain(network, **options).sha256() == compile_to_plain(network, align=8).sha256()
