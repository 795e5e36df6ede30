"""ONNX files of networks with gates: run by torch as ONNX Runtime runs them, frozen as the networks they came from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from helpers.gated import POOLED, SPATIAL, Bend, Enhanced, Lattice, Squeeze, gated, images
from helpers.onnx_files import model, node, saved, whole
from torch import Tensor, nn

from memsr_compiler import read_teacher
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.trace.approximate.freeze import freeze
from memsr_compiler.trace.onnx.as_torch import OnnxModule
from memsr_compiler.trace.trace import trace


def export(network: nn.Module, path: Path, opset: int = 17, *, free: bool = True) -> Path:
    axes = {"x": {0: "n", 2: "h", 3: "w"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.rand(1, 3, 24, 30),)
        torch.onnx.export(
            network, example, path, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes=axes
        )
    return path


ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.GELU, nn.SiLU, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Mish, nn.ELU, nn.SELU, lambda: Bend(lambda x: x * x),
]  # fmt: skip


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("make", [*POOLED, *SPATIAL, Lattice])
def test_gates_are_those_of_the_network(make: Callable[[], nn.Module], opset: int, tmp_path: Path) -> None:
    require_same(gated(make), export(gated(make), tmp_path / "net.onnx", opset))


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_are_those_of_the_network(act: Callable[[], nn.Module], tmp_path: Path) -> None:
    network = gated(nn.Identity, act=act)
    require_same(network, export(network, tmp_path / "net.onnx"))


@pytest.mark.parametrize("kind", ["doubled", "repeated"])
def test_files_that_make_gigabytes_are_not_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no plain form is run to see whether it has one with frozen gates, three kilobytes or not."""

    def refuse(*_: object) -> None:
        raise AssertionError("it is run")

    monkeypatch.setattr("memsr_compiler.trace.approximate.freeze.find_places", refuse)
    names = ["x", *(f"c{i}" for i in range(40))]
    parts = {
        "doubled": [node("Concat", f"{a} {a}", b, axis=1) for a, b in pairwise(names)],
        "repeated": [node("Expand", "x shape", "c39")],
    }[kind]
    ends = [
        node("Slice", "c39 zero three one", "image"),
        node("Conv", "image w", "y", pads=[1, 1, 1, 1]),
    ]
    constants = {
        "shape": np.array([100, 1, 1, 1]),
        **{name: np.array([i]) for name, i in (("zero", 0), ("one", 1), ("three", 3))},
        "w": whole(3, 3, 3, 3),
    }
    path = saved(model([*parts, *ends], constants), tmp_path)
    with pytest.raises(UnsupportedModel, match=r"is more than 16384|it makes 100 images of each"):
        read_teacher(path)


def test_a_file_for_one_size(tmp_path: Path) -> None:
    path = export(gated(Squeeze), tmp_path / "net.onnx", free=False)
    with torch.no_grad():
        x = images(1)[0].float()
        torch.testing.assert_close(read_teacher(path, probe=False).module(x), gated(Squeeze)(x), rtol=0, atol=1e-5)


class Grouped(nn.Module):
    """A gate of sums over the pixels of groups of channels, whose sizes are asked for from the last axis on."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes, self.conv = axes, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.axes == 3:
            flat = x.flatten(2)
            mean = flat.sum(2) / flat.size(-1)
        else:
            groups = x.view(n, 2, c // 2, h, w)
            mean = groups.sum((3, 4)) / (groups.size(-1) * groups.size(-2))
        return x * torch.sigmoid(self.conv(mean.reshape(n, c, 1, 1)))


@pytest.mark.parametrize("axes", [3, 5])
def test_sizes_of_tensors_that_are_no_images(axes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever had a shape was taken for four axes: another gate than ONNX Runtime's, without a word."""
    network = gated(lambda: Grouped(axes))
    require_same(network, export(network, tmp_path / "net.onnx"))
    assert "runs other operations" not in caplog.text


class Standardised(nn.Module):
    """A gate of what a norm gives."""

    def __init__(self, norm: nn.Module, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.pooled = nn.Conv2d(8, 8, 1), norm, pooled

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if not self.pooled:
            return x * torch.sigmoid(self.norm(y).relu().mean((2, 3), keepdim=True))
        y = self.norm(y.mean((2, 3)))
        return x * torch.sigmoid(y[:, :, None, None])


NORMS: dict[str, Callable[[], nn.Module]] = {
    "instance": lambda: Standardised(nn.InstanceNorm2d(8, affine=True)),
    "group": lambda: Standardised(nn.GroupNorm(2, 8)),
    "layer": lambda: Standardised(nn.LayerNorm(8), pooled=True),
    "batch": lambda: Standardised(nn.BatchNorm1d(8), pooled=True),
    "flip": lambda: Standardised(Bend(lambda x: x.flip(3) * x)),
}


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
def test_gates_of_norms_and_mirror_images(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    path = export(gated(make, blocks=1), tmp_path / "net.onnx")
    require_same(gated(make, blocks=1), path)


def test_imdn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = IMDN(scale=2, blocks=2, channels=16).eval()
    require_same(network, export(network, tmp_path / "net.onnx"))


@torch.no_grad()
def require_same(network: nn.Module, path: Path) -> None:
    """The file's module gives what ONNX Runtime gives, is refused for its reason, and frozen at the same numbers."""
    module = read_teacher(path, probe=False).module
    assert isinstance(module, OnnxModule)
    session = ort.InferenceSession(path)
    for x in images(2):
        expected: Tensor = torch.from_numpy(np.asarray(session.run(None, {"x": x.float().numpy()})[0]))
        torch.testing.assert_close(module(x.float()), expected, rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedModel):
        trace(module)
    own, read = freeze(network, images()), freeze(module, images())
    assert len(own.replacements) == len(read.replacements)
    for x in images(1):
        torch.testing.assert_close(read.module(x), own.module(x), rtol=0, atol=1e-3)
    assert read.psnr == pytest.approx(own.psnr, abs=0.5)


def test_names_are_the_nodes(tmp_path: Path) -> None:
    path = export(gated(Enhanced, act=nn.Softplus, blocks=1), tmp_path / "net.onnx")
    frozen = freeze(read_teacher(path, probe=False).module, images())
    names = ["body.0.body.0.1.Softplus.softplus", "body.0.body.0.3.Mul.gate"]
    assert [r.name for r in frozen.replacements] == names


def test_what_is_no_gate_is_refused_as_ever(tmp_path: Path) -> None:
    path = export(gated(lambda: nn.MaxPool2d(3, 1, 1)), tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModel, match="MaxPool"):
        read_teacher(path)


def test_names_that_are_no_paths(tmp_path: Path) -> None:
    """Below a node's weight, and thousands of modules deep: what they compute is the same."""
    path = export(gated(Squeeze), tmp_path / "net.onnx")
    model = onnx.load(path)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    others = [node for node in model.graph.node if node.op_type == "Relu"]
    convolution.name, others[0].name, others[1].name = "a", "/a/operand1/b", "/c" * 3000
    onnx.save(model, path)
    x = images(1)[0].float()
    with torch.no_grad():
        torch.testing.assert_close(read_teacher(path, probe=False).module(x), gated(Squeeze)(x), rtol=0, atol=1e-5)


WEIGHTS = {
    "w": whole(4, 3, 3, 3) / 8,
    "wide": whole(8, 4, 1, 1) / 8, "back": whole(4, 2, 1, 1) / 8, "same": whole(4, 4, 3, 3) / 8,
    "one_channel": whole(1, 4, 1, 1) / 8,
    "gain2": np.array([1, -2], np.float32), "mean2": np.array([0.5, 1], np.float32),
    "gain1": np.ones(1, np.float32), "mean1": np.full(1, 0.5, np.float32),
    "per_channel": np.arange(4, dtype=np.int64), "int32": np.array(65537, np.int32),
    **{name: np.array(value, np.int64) for name, value in {
        "all": [2, 3], "two": 2, "three": 3, "minus3": [-3], "minus2": [-2], "minus1": [-1], "m2m1": [-2, -1],
        "zero": [0], "one": [1], "shape": [0, 4, 1, 1], "flat": [0, -1], "far_before": [-(2**63)], "far": [99],
        "groups": [0, 2, -1], "many": [2**24 + 1], "one_row": [1, 4, 1, 3], "one_column": [1, 4, 5, 1],
        "minus7": -7, "seven": 7, "large": 300, "table": [[1, 2], [3, 4]], "one_": 1, "two_": [2],
        "channels": [4, 1, 1], "nowhere": np.zeros(0),
    }.items()},
    **{name: np.array(value, np.float32) for name, value in {
        "slopes": [0.5, -1.0, 2.0, 0.25], "fine": [0.5003, -1.0003, 2.001, 0.2501], "tenth": 0.3, "big": 1.5 * 2**23,
        "cancelling": [1.3, 1.5 * 2**23, -1.5 * 2**23], "four_axes": [[[[0.25]]]], "most": 2**24,
        "half": 0.5, "real": 1.0, "mean": [0.5] * 4, "gain": [1.0] * 4, "twice": [1, 1, 2, 2], "none": [],
        "twelfth": [1, 1, 0.5, 1 / 4.5], "third": [0.25, 0.5, 1.0, -0.5],
    }.items()},
}  # fmt: skip


def gate_file(folder: Path, *nodes: onnx.NodeProto, opset: int = 17) -> Path:
    """A convolution times a gate `g`, which these nodes make of the convolution's result c."""
    taken = {name for n in nodes for name in n.input}
    weights: dict[str, np.ndarray] = {
        name: np.asarray(array) for name, array in WEIGHTS.items() if name in taken | {"w"}
    }
    whole_network = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), *nodes, node("Mul", "c g", "y")]
    return saved(model(whole_network, weights, opset=opset), folder)


MEAN, SIGMOID = node("GlobalAveragePool", "c", "p"), node("Sigmoid", "q", "g")
SIDES = (node("Shape", "c", "h", start=2, end=3), node("Shape", "c", "w_", start=3))
READ = {
    "sum over the number of pixels, by sizes": (
        *SIDES, node("Mul", "h w_", "n"), node("Cast", "n", "r", to=1),
        node("ReduceSum", "c all", "s"), node("Div", "s r", "q"), SIGMOID,
    ),
    "height over width, and back": (
        *SIDES, node("Cast", "h", "hr", to=1), node("Cast", "w_", "wr", to=1), node("Div", "hr wr", "q1"),
        MEAN, node("Mul", "p q1", "q2"), node("Div", "q2 q1", "q"), SIGMOID,
    ),
    "channels counted from the end": (
        MEAN, node("Slice", "p zero one minus3", "q"), SIGMOID,
    ),
    "axes from the end put in and taken out": (
        MEAN, node("Squeeze", "p m2m1", "f"), node("Unsqueeze", "f m2m1", "q"), SIGMOID,
    ),
    "slopes of the last axis, which is as long as that of channels": (
        MEAN, node("Transpose", "p", "t", perm=[0, 2, 3, 1]), node("Mul", "p t", "m"), node("PRelu", "m slopes", "s"),
        node("ReduceMean", "s", "q", axes=[3]), SIGMOID,
    ),
    "slopes where the channels are last": (
        MEAN, node("Transpose", "p", "t", perm=[0, 2, 3, 1]), node("PRelu", "t slopes", "s"),
        node("Transpose", "s", "q", perm=[0, 3, 1, 2]), SIGMOID,
    ),
    "places in a block before channels": (
        node("Conv", "c wide", "d"), node("DepthToSpace", "d", "e", blocksize=2),
        node("Conv", "e back", "f", strides=[2, 2]), node("GlobalAveragePool", "f", "q"), SIGMOID,
    ),
    "the larger of a map and a number": (
        node("Max", "real c", "d"), node("Min", "d half c", "e"), node("GlobalAveragePool", "e", "q"), SIGMOID,
    ),
    "no axes, and that means none": (
        MEAN, node("ReduceSum", "p nowhere", "q", noop_with_empty_axes=1), SIGMOID,
    ),
    "no axes, and that means all": (
        MEAN, node("ReduceSum", "p nowhere", "s"), node("Add", "p s", "q"), SIGMOID,
    ),
    "bounds that are none": (MEAN, node("Clip", "p", "q"), SIGMOID),
    "padding by itself": (
        node("Conv", "c same", "d", auto_pad="SAME_UPPER"), node("GlobalAveragePool", "d", "q"), SIGMOID,
    ),
    "a batch norm of one channel": (
        node("Conv", "c one_channel", "d"), node("BatchNormalization", "d gain1 mean1 mean1 gain1", "e"),
        node("GlobalAveragePool", "e", "q"), SIGMOID,
    ),
    "a number for each channel, made of whole ones": (
        node("Cast", "per_channel", "r", to=1), node("Reshape", "r channels", "t"), MEAN, node("Add", "p t", "q"),
        SIGMOID,
    ),
    "flipped": (
        node("Slice", "c minus1 far_before minus1 minus1", "f"), node("Conv", "f same", "q", pads=[1] * 4), SIGMOID,
    ),
    "every second from the end, to the second": (
        node("Slice", "c far zero minus1 minus2", "f"), node("Slice", "f minus2 far_before minus2 minus1", "e"),
        node("GlobalAveragePool", "e", "q"), SIGMOID,
    ),
    "an instance norm": (
        node("InstanceNormalization", "c gain third", "d", epsilon=0.125), node("Conv", "d same", "q", pads=[1] * 4),
        SIGMOID,
    ),
    "an instance norm of one channel and one pixel": (
        node("Conv", "c one_channel", "d"), node("GlobalAveragePool", "d", "p"),
        node("InstanceNormalization", "p gain1 mean1", "q"), SIGMOID,
    ),
    "a norm of groups of channels": (
        node("Reshape", "c groups", "d"), node("InstanceNormalization", "d gain2 mean2", "e"), node("Shape", "c", "s"),
        node("Reshape", "e s", "q"), SIGMOID,
    ),
    "a single number of four axes, which makes four of two": (
        MEAN, node("Squeeze", "p m2m1", "f"), node("Add", "f four_axes", "e"),
        node("Transpose", "e", "q", perm=[0, 3, 1, 2]), SIGMOID,
    ),
    "a layer norm": (
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]), node("LayerNormalization", "t slopes third", "l"),
        node("Transpose", "l", "q", perm=[0, 3, 1, 2]), SIGMOID,
    ),
    "a layer norm of two axes, without bias": (
        MEAN, node("Squeeze", "p m2m1", "f"), node("Unsqueeze", "f zero", "e"),
        node("LayerNormalization", "e slopes", "l", axis=-2, epsilon=0.5), node("Squeeze", "l zero", "d"),
        node("Unsqueeze", "d m2m1", "q"), SIGMOID,
    ),
    "a batch norm of numbers": (
        MEAN, node("Squeeze", "p m2m1", "f"), node("BatchNormalization", "f gain mean mean gain", "e"),
        node("Unsqueeze", "e m2m1", "q"), SIGMOID,
    ),
    **{
        f"{mode} by {where} to one pixel of a side: {sizes or scales}": (
            node("Resize", f"c none {scales} {sizes}", "d", mode=mode, coordinate_transformation_mode=where),
            node("GlobalAveragePool", "d", "q"), SIGMOID,
        )
        for where in ("half_pixel", "pytorch_half_pixel") for mode in ("linear", "cubic")
        for scales, sizes in (("none", "one_row"), ("none", "one_column"), ("twelfth", ""))
    },
    "a batch norm": (MEAN, node("BatchNormalization", "p gain mean mean gain", "q"), SIGMOID),
}  # fmt: skip


@pytest.mark.parametrize("nodes", READ.values(), ids=READ)
def test_attributes_mean_what_onnx_runtime_takes_them_for(nodes: tuple[onnx.NodeProto, ...], tmp_path: Path) -> None:
    path = gate_file(tmp_path, *nodes)
    module = read_teacher(path, probe=False).module
    session = ort.InferenceSession(path)
    for height, width in ((8, 12), (9, 5)):
        x = whole(1, 3, height, width)
        with torch.no_grad():
            result = module(torch.from_numpy(x))
        np.testing.assert_allclose(result, session.run(None, {"x": x})[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        (node("Div", "slopes tenth", "a"), node("Add", "a big", "b"), node("Sub", "b big", "k")),
        (node("Cast", "fine", "a", to=10), node("Cast", "a", "k", to=1)),
        (node("Clip", "fine tenth", "a"), node("Add", "a big", "b"), node("Sub", "b big", "k")),
    ],
)
def test_weights_that_the_file_rounds_are_rounded(nodes: tuple[onnx.NodeProto, ...], tmp_path: Path) -> None:
    """A network in float64 computed them in float64."""
    path = gate_file(tmp_path, *nodes, MEAN, node("Unsqueeze", "k m2m1", "l"), node("Mul", "p l", "q"), SIGMOID)
    module, x = read_teacher(path, probe=False).module.double(), whole(1, 3, 8, 9)
    with torch.no_grad():
        result = module(torch.from_numpy(x).double())
    np.testing.assert_allclose(result, ort.InferenceSession(path).run(None, {"x": x})[0], rtol=0, atol=1e-5)


def number(*nodes: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
    """A gate times a whole number `i`, which these nodes compute."""
    return (*nodes, node("Cast", "i", "k", to=1), MEAN, node("Sigmoid", "p", "q"), node("Mul", "q k", "g"))


WHOLE = {
    "divided": node("Div", "minus7 two", "i"),
    "cast to bool": node("Cast", "seven", "i", to=9),
    "cast to int8": node("Cast", "large", "i", to=3),
    "cast to uint8": node("Cast", "minus7", "i", to=2),
    "rounded by a cast": (node("Cast", "many", "r", to=1), node("Sub", "r most", "i")),
    "multiplied along an axis": (node("ReduceProd", "table", "t", axes=[0], keepdims=0), node("Gather", "t one", "i")),
    "a row of a table": (node("Gather", "table one_", "t"), node("Gather", "t one_", "i")),
    "a column of a table": (node("Slice", "table one two_ one", "t"), node("ReduceMax", "t", "i", keepdims=0)),
    "wrapped around": (node("Mul", "int32 int32", "i"),),
}


@pytest.mark.parametrize("nodes", WHOLE.values(), ids=WHOLE)
def test_whole_numbers_are_computed_in_their_own_types(
    nodes: onnx.NodeProto | tuple[onnx.NodeProto, ...], tmp_path: Path
) -> None:
    """They became Python's, whose division takes the whole number below, and which no cast changed."""
    path = gate_file(tmp_path, *number(*(nodes if isinstance(nodes, tuple) else (nodes,))))
    module, x = read_teacher(path, probe=False).module.double(), whole(1, 3, 8, 9)
    with torch.no_grad():
        result = module(torch.from_numpy(x).double())
    expected = ort.InferenceSession(path).run(None, {"x": x})[0]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


SIZED = {
    "cast to bool": node("Cast", "s", "i", to=9),
    "cast to int8": node("Cast", "s", "i", to=3),
    "cast to float16": node("Cast", "s", "i", to=10),
    "divided by a negative number": node("Div", "s minus7", "i"),
}


@pytest.mark.parametrize("step", SIZED.values(), ids=SIZED)
def test_sizes_that_are_cast_or_cut_are_refused_beside_gates(step: onnx.NodeProto, tmp_path: Path) -> None:
    nodes = number(node("Shape", "c", "t", start=1, end=2), node("Squeeze", "t zero", "s"), step)
    with pytest.raises(UnsupportedModel):
        read_teacher(gate_file(tmp_path, *nodes), probe=False)


def test_constants_that_nobody_knows_are_refused_beside_gates(tmp_path: Path) -> None:
    """They went to torch, which adds them up in an order of its own."""
    nodes = (node("ReduceSum", "cancelling", "k", keepdims=0), MEAN, node("Mul", "p k", "q"), SIGMOID)
    with pytest.raises(UnsupportedModel, match=r"^body\.ReduceSum: ReduceSum: its terms cancel"):
        read_teacher(gate_file(tmp_path, *nodes), probe=False)


def test_features_of_fewer_digits_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = (MEAN, node("Cast", "p", "h", to=10), node("Cast", "h", "q", to=1), SIGMOID)
    read_teacher(gate_file(tmp_path, *nodes), probe=False)
    assert "computes feature maps in float16: it is read as the network that rounds nothing" in caplog.text


def test_group_norms_are_read_in_gates(tmp_path: Path) -> None:
    gain = np.arange(1, 7, dtype=np.float32)
    weights = {"w": whole(6, 3, 3, 3), "gain": gain, "bias": gain / 4}
    group = node("GroupNormalization", "c gain bias", "d", num_groups=2, epsilon=0.125)
    gate = (node("Relu", "d", "e"), node("GlobalAveragePool", "e", "q"), SIGMOID, node("Mul", "c g", "y"))
    path = saved(model([node("Conv", "x w", "c", pads=[1, 1, 1, 1]), group, *gate], weights, opset=21), tmp_path)
    module, x = read_teacher(path, probe=False).module, whole(1, 3, 7, 9)
    with torch.no_grad():
        result = module(torch.from_numpy(x))
    np.testing.assert_allclose(result, ort.InferenceSession(path).run(None, {"x": x})[0], rtol=0, atol=1e-5)
    assert freeze(module, images(2)).replacements


REFUSED = {
    "rounded": (MEAN, node("Cast", "p", "i", to=7), node("Cast", "i", "q", to=1), SIGMOID),
    "another SELU": (MEAN, node("Selu", "p", "q", alpha=1.0), SIGMOID),
    "the nearest pixel, rounded": (
        node("AveragePool", "c", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", "p none twice", "q", mode="nearest", coordinate_transformation_mode="asymmetric"), SIGMOID,
    ),
    "pixels apart": (
        node("MaxPool", "c", "q", kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2]), SIGMOID,
    ),
    "gathered": (MEAN, node("Gather", "p zero", "q", axis=0), SIGMOID),
    "a batch norm in training": (
        MEAN, node("BatchNormalization", "p gain mean mean gain", "q q2 q3", training_mode=1), SIGMOID,
    ),
    "multiplied together": (node("ReduceProd", "c", "q", axes=[2, 3]), SIGMOID),
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"), [("- doubled", "by 2"), ("- - to_twelve", "to 12"), ("- - to_three", "to 3")]
)
def test_a_resize_of_channels_is_refused(given: str, words: str, tmp_path: Path) -> None:
    """torch enlarges height and width only: the channels were another number behind it, or the same by mistake."""
    numbers = {"doubled": np.array([1, 2, 1, 1], np.float32)}
    numbers |= {"to_twelve": np.array([1, 12, 8, 12]), "to_three": np.array([1, 3, 8, 12])}
    weights = {"w": whole(6, 3, 3, 3), **{name: numbers[name] for name in given.split() if name != "-"}}
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Resize", f"c {given}", "d", mode="linear"),
        node("ReduceMean", "d", "q", axes=[1, 2, 3]), SIGMOID, node("Mul", "c g", "y"),
    ]  # fmt: skip
    path = saved(model(nodes, weights), tmp_path)
    ort.InferenceSession(path).run(None, {"x": whole(1, 3, 8, 12)})  # it is a network all the same
    reason = (
        rf"^body\.Resize: Resize: it resizes the channels too, {words}, as if they were rows of an image; resize hei"
    )
    with pytest.raises(UnsupportedModel, match=reason):
        read_teacher(path, probe=False)


def test_a_resize_to_the_channels_of_the_image_is_none_of_channels(tmp_path: Path) -> None:
    """Channels that a file leaves free were taken for three, where the first convolution takes another number."""
    numbers = {name: np.array([i]) for name, i in (("zero", 0), ("one", 1), ("two", 2), ("four", 4))}
    nodes = [
        node("Shape", "x", "s"), node("Slice", "s zero one", "n"), node("Slice", "s two four", "hw"),
        node("Concat", "n one hw", "to", axis=0), node("Resize", "x - - to", "r", mode="linear"),
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("GlobalAveragePool", "c", "q"),
        SIGMOID, node("Mul", "c g", "d"), node("Add", "d r", "y"),
    ]  # fmt: skip
    file = model(nodes, {"w": whole(4, 1, 3, 3), **numbers}, shape=("n", "colours", "h", "w"))
    path, x = saved(file, tmp_path), whole(1, 1, 8, 12)
    with torch.no_grad():
        result = read_teacher(path, probe=False).module(torch.from_numpy(x))
    np.testing.assert_allclose(result, ort.InferenceSession(path).run(None, {"x": x})[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("nodes", REFUSED.values(), ids=REFUSED)
def test_what_would_be_misread_is_refused(nodes: tuple[onnx.NodeProto, ...], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel):
        read_teacher(gate_file(tmp_path, *nodes), probe=False)


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_old_files_is_refused(opset: int, tmp_path: Path) -> None:
    path = gate_file(tmp_path, MEAN, node("Softmax", "p", "g", axis=1), opset=opset)
    if opset == 11:  # where it is over all axes from that one on
        with pytest.raises(UnsupportedModel):
            read_teacher(path, probe=False)
    else:
        assert isinstance(read_teacher(path, probe=False).module, OnnxModule)
