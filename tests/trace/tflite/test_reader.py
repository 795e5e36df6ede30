"""TFLite files as teachers: what is read gives what LiteRT gives, what is not is refused by name, place and way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import Run, must_refuse
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.ir import Conv2d
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.tflite.model import Model, Steps
from memsr_compiler.tflite.model import Tensor as Value
from memsr_compiler.tflite.write import to_bytes
from memsr_compiler.trace.tflite.file import read_network
from memsr_compiler.trace.trace import GraphModule

pytest.importorskip("tflite")

from helpers.tflite_files import TfliteGraph

SIZES = ((5, 7), (1, 1), (8, 3))
NONE, RELU, RELU_N1_TO_1, RELU6 = range(4)


def numbers(*shape: int, seed: int = 0, spread: float = 0.4) -> NDArray[np.float32]:
    return np.random.default_rng((seed, *shape)).normal(0, spread, shape).astype(np.float32)


def run_litert(content: bytes, image: Tensor, *, resize: bool = True) -> Tensor:
    """LiteRT's own kernels, without those that it takes for speed."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    place = interpreter.get_input_details()[0]["index"]
    nhwc = image.permute(0, 2, 3, 1).contiguous().numpy()
    if resize:
        interpreter.resize_tensor_input(place, nhwc.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, nhwc)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return torch.from_numpy(np.array(result)).permute(0, 3, 1, 2)


def read(graph: TfliteGraph, folder: Path) -> GraphModule:
    module = read_teacher(graph.write(folder / "t.tflite"), probe=False).module
    assert isinstance(module, GraphModule)
    return module


def check(graph: TfliteGraph, folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> None:
    """Require that the file is read as what LiteRT computes."""
    module, content = read(graph, folder), graph.to_bytes()
    torch.manual_seed(0)
    for height, width in sizes:
        image = torch.randn(1, graph.shape[3], height, width) * 3
        want = run_litert(content, image, resize=graph.free)
        have = module(image.double())
        assert have.shape == want.shape
        peak = float(want.abs().max()) + 1
        assert float((have - want).abs().max()) < 1e-5 * peak  # float32 sums of some hundred products


def start(activation: int = RELU, channels: int = 8, **settings: Any) -> tuple[TfliteGraph, int]:
    graph = TfliteGraph(**settings)
    kernel = numbers(channels, 3, 3, graph.shape[3])
    return graph, graph.conv(0, kernel, numbers(channels), FusedActivationFunction=activation)


def finish(graph: TfliteGraph, x: int, channels: int = 8, factor: int = 2) -> TfliteGraph:
    """A convolution to an enlarged image."""
    y = graph.conv(x, numbers(3 * factor**2, 3, 3, channels), numbers(3 * factor**2))
    graph.op("DEPTH_TO_SPACE", y, table="DepthToSpaceOptions", BlockSize=factor)
    return graph


@pytest.mark.parametrize("activation", [NONE, RELU, RELU_N1_TO_1, RELU6])
@pytest.mark.parametrize("factor", [2, 3])
def test_convolutions_activations_and_depth_to_space(activation: int, factor: int, tmp_path: Path) -> None:
    graph, x = start(activation)
    check(finish(graph, x, factor=factor), tmp_path)


def test_a_residual_network_as_mlperf_has_it(tmp_path: Path) -> None:
    graph, x = start(NONE)
    skip = x
    for i in range(2):
        y = graph.conv(x, numbers(8, 3, 3, 8, seed=i), numbers(8), FusedActivationFunction=RELU)
        y = graph.conv(y, numbers(8, 3, 3, 8, seed=i + 9), numbers(8))
        scaled = graph.op("MUL", y, graph.constant(np.float32(0.1)), table="MulOptions")
        x = graph.op("ADD", scaled, x, table="AddOptions")
    x = graph.op("ADD", x, skip, table="AddOptions", FusedActivationFunction=RELU)
    check(finish(graph, x), tmp_path)


def test_the_repeated_image_that_is_concatenated_and_added(tmp_path: Path) -> None:
    """As ABPN has it: the image's channels four times, added before DEPTH_TO_SPACE, and clipped."""
    graph, x = start()
    body = graph.conv(x, numbers(12, 3, 3, 8), numbers(12))
    image = graph.op("CONCATENATION", 0, 0, 0, 0, table="ConcatenationOptions", Axis=3)
    total = graph.op("ADD", body, image, table="AddOptions")
    wide = graph.op("DEPTH_TO_SPACE", total, table="DepthToSpaceOptions", BlockSize=2)
    low = graph.op("MAXIMUM", wide, graph.constant(np.float32(-1.5)), table="MaximumMinimumOptions")
    graph.op("MINIMUM", low, graph.constant(np.float32(2.5)), table="MaximumMinimumOptions")
    check(graph, tmp_path)


@pytest.mark.parametrize(
    ("code", "table", "options", "operand"),
    [
        ("RELU", "", {}, None),
        ("RELU6", "", {}, None),
        ("RELU_N1_TO_1", "", {}, None),
        ("ABS", "AbsOptions", {}, None),
        ("NEG", "NegOptions", {}, None),
        ("LEAKY_RELU", "LeakyReluOptions", {"Alpha": 0.2}, None),
        ("PRELU", "", {}, numbers(1, 1, 8)),
        ("PRELU", "", {}, numbers(1, 1, 1)),
        ("ADD", "AddOptions", {"FusedActivationFunction": RELU}, numbers(8)),
        ("SUB", "SubOptions", {}, numbers(1, 1, 1, 8)),
        ("MUL", "MulOptions", {"FusedActivationFunction": RELU6}, numbers(1, 1, 8)),
        ("DIV", "DivOptions", {}, numbers(8) + 3),
        ("MAXIMUM", "MaximumMinimumOptions", {}, numbers(8)),
    ],
)
def test_one_operator_of_each_kind(
    code: str, table: str, options: dict[str, Any], operand: NDArray[np.float32] | None, tmp_path: Path
) -> None:
    graph, x = start(NONE)
    constants = [] if operand is None else [graph.constant(operand)]
    check(finish(graph, graph.op(code, x, *constants, table=table, **options)), tmp_path)


def test_padding_before_a_convolution(tmp_path: Path) -> None:
    sizes = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)

    def pad(graph: TfliteGraph, x: int) -> int:
        return graph.op("PAD", x, graph.constant(sizes), table="PadOptions")

    graph, x = start()
    x = graph.conv(pad(graph, x), numbers(8, 3, 3, 8), numbers(8), Padding=1)
    kernel, bias = graph.constant(numbers(1, 3, 3, 8)), graph.constant(numbers(8))
    settings = {"Padding": 1, "StrideW": 1, "StrideH": 1, "DepthMultiplier": 1}
    x = graph.op("DEPTHWISE_CONV_2D", pad(graph, x), kernel, bias, table="DepthwiseConv2DOptions", **settings)
    check(finish(graph, x), tmp_path)
    graph, x = start()
    with pytest.raises(UnsupportedModel, match="RELU: zeros are put around what it takes"):
        read(finish(graph, graph.op("RELU", pad(graph, x))), tmp_path)


def test_a_constant_comes_first(tmp_path: Path) -> None:
    graph, x = start(NONE)
    x = graph.op("SUB", graph.constant(numbers(8)), x, table="SubOptions")
    check(finish(graph, x), tmp_path)


@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_grouped_and_dilated_convolutions(dilation: int, tmp_path: Path) -> None:
    graph, x = start()
    dilations = {"DilationWFactor": dilation, "DilationHFactor": dilation}
    kernel, bias = graph.constant(numbers(1, 3, 3, 8)), graph.constant(numbers(8))
    settings: dict[str, Any] = {"Padding": 0, "StrideW": 1, "StrideH": 1, "DepthMultiplier": 1, **dilations}
    x = graph.op("DEPTHWISE_CONV_2D", x, kernel, bias, table="DepthwiseConv2DOptions", **settings)
    x = graph.conv(x, numbers(8, 3, 3, 8), numbers(8), **dilations)
    x = graph.conv(x, numbers(8, 3, 3, 4), numbers(8))
    check(finish(graph, x), tmp_path)


def test_weights_in_half_precision(tmp_path: Path) -> None:
    graph = TfliteGraph()
    kernel = graph.constant(numbers(12, 3, 3, 3).astype(np.float16))
    wide = graph.op("DEQUANTIZE", kernel, table="DequantizeOptions")
    bias = graph.constant(numbers(12))
    x = graph.op("CONV_2D", 0, wide, bias, table="Conv2DOptions", Padding=0, StrideW=1, StrideH=1)
    graph.op("DEPTH_TO_SPACE", x, table="DepthToSpaceOptions", BlockSize=2)
    module = read(graph, tmp_path)
    (conv,) = [op for op in module.graph if isinstance(op, Conv2d)]
    want = torch.from_numpy(numbers(12, 3, 3, 3).astype(np.float16)).double()
    assert torch.equal(conv.weight, want.permute(0, 3, 1, 2))


def test_a_file_of_one_size_is_read_as_the_network_for_all(tmp_path: Path) -> None:
    graph, x = start(free=False)
    size = graph.constant(np.array([10, 14], np.int32))
    body = graph.conv(x, numbers(12, 3, 3, 8), numbers(12))
    wide = graph.op("DEPTH_TO_SPACE", body, table="DepthToSpaceOptions", BlockSize=2)
    image = graph.op("RESIZE_NEAREST_NEIGHBOR", 0, size, table="ResizeNearestNeighborOptions")
    graph.op("ADD", wide, image, table="AddOptions")
    check(graph, tmp_path, sizes=((5, 7),))
    assert read(graph, tmp_path)(torch.rand(1, 3, 4, 9).double()).shape == (1, 3, 8, 18)


def test_the_range_of_a_file_of_ours_is_read(tmp_path: Path) -> None:
    graph, x = start()
    finish(graph, x)
    graph.metadata["memsr"] = b"scale=2\nchannels=3\ninput_range=0.0 255.0\n"
    teacher = read_teacher(graph.write(tmp_path / "t.tflite"), probe=False)
    assert teacher.input_range == (0.0, 255.0) and not teacher.assumed
    for wrong in (b"input_range=5 1", b"input_range=a b", b"\xff\xfe", b"input_range=nan 1", b"input_range="):
        graph.metadata["memsr"] = wrong
        teacher = read_teacher(graph.write(tmp_path / "t.tflite"), probe=False)
        assert teacher.assumed == ("input values 0 to 1",)


def test_operators_that_no_output_needs_are_not_read(tmp_path: Path) -> None:
    graph, x = start()
    mask = graph.op("LOGISTIC", x)
    graph.op("MUL", mask, x, table="MulOptions")
    check(finish(graph, x), tmp_path)


def test_what_is_not_read_is_refused_by_operator_place_and_way_out(tmp_path: Path) -> None:
    def refuse(graph: TfliteGraph, *words: str) -> None:
        with pytest.raises(UnsupportedModel) as error:
            read(graph, tmp_path)
        for word in words:
            assert word in str(error.value), str(error.value)

    graph, x = start()
    refuse(finish(graph, graph.op("LOGISTIC", x)), "layer.logistic_1: LOGISTIC", "not read", "export the network")
    graph, x = start()
    refuse(finish(graph, graph.op("CUSTOM Mish", x)), "CUSTOM Mish")
    graph, x = start()
    refuse(finish(graph, graph.conv(x, numbers(8, 3, 3, 8), numbers(8), Padding=1)), "CONV_2D", "padding")
    graph, x = start()
    refuse(finish(graph, graph.conv(x, numbers(8, 3, 3, 8), numbers(8), StrideW=2, StrideH=2)), "stride 2")
    graph, x = start()
    refuse(finish(graph, graph.conv(x, numbers(8, 2, 2, 8), numbers(8))), "even")
    graph, x = start()
    refuse(finish(graph, graph.op("MUL", x, x, table="MulOptions")), "MUL", "feature maps are multiplied")
    graph, x = start()
    refuse(
        finish(graph, graph.op("CONCATENATION", x, x, table="ConcatenationOptions", Axis=1)),
        "concatenates along axis 1",
    )
    graph, x = start()
    fused = graph.op("CONCATENATION", x, x, table="ConcatenationOptions", Axis=3, FusedActivationFunction=RELU)
    refuse(finish(graph, fused, 16), "CONCATENATION", "activation is part of it", "operator of its own")
    graph, x = start()
    half = numbers(8, 3, 3, 8).astype(np.float16)
    refuse(finish(graph, graph.conv(x, half, numbers(8))), "CONV_2D", "float16 beside float32", "DEQUANTIZE")
    graph, x = start(activation=4)
    refuse(finish(graph, x), "activation 4")
    graph, x = start()
    refuse(
        finish(
            graph,
            graph.op("RESIZE_NEAREST_NEIGHBOR", x, graph.constant(np.array([10, 14], np.int32))),
        ),
        "fixed size",
    )
    refuse(finish(TfliteGraph(dtype="int8"), 0, 3), "quantised", "float32")
    refuse(finish(TfliteGraph(shape=(1, 5, 7), free=False), 0, 3), "four axes")
    graph, x = start()
    graph = finish(graph, x)
    graph.outputs = (x, x)
    refuse(graph, "2 outputs")
    graph, x = start()
    graph = finish(graph, x)
    graph.inputs = (0, 1)
    refuse(graph, "2 inputs")
    graph, x = start()
    graph = finish(graph, x)
    graph.outputs = (1,)
    refuse(graph, "output", "nothing that it computes")


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"])
@pytest.mark.parametrize(
    ("shape", "reason"), [((1, 1, 1, 1, 8), "a constant of 5 axes"), ((2, 1, 1, 8), "it makes 2 images of each")]
)
def test_constants_that_give_the_result_other_axes_are_refused(
    op: str, shape: tuple[int, ...], reason: str, tmp_path: Path
) -> None:
    graph, x = start()
    y = graph.op(op, x, graph.constant(np.ones(shape, np.float32)))
    with pytest.raises(UnsupportedModel, match=reason):
        read(finish(graph, y), tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    graph = TfliteGraph()
    kernel = numbers(12, 3, 3, 3)
    kernel[0, 0, 0, 0] = np.nan
    graph.conv(0, kernel, numbers(12))
    with pytest.raises(InvalidInput, match="NaN"):
        read(graph, tmp_path)


def test_weights_that_are_stored_without_zeros_are_refused(tmp_path: Path) -> None:
    """Where all are there, they may still stand in another order."""
    graph, x = start()
    graph.sparse = (1,)
    with pytest.raises(UnsupportedModel, match="constant_1: is stored without its zeros"):
        read(finish(graph, x), tmp_path)


def test_options_in_the_table_of_another_operator_are_refused(tmp_path: Path) -> None:
    """LiteRT looks at an operator's own table only: it multiplies, and there is no ReLU."""
    graph, x = start()
    x = graph.op("MUL", x, graph.constant(numbers(8)), table="AddOptions", FusedActivationFunction=RELU)
    with pytest.raises(InvalidInput, match="MUL has AddOptions, where MulOptions are due"):
        read(finish(graph, x), tmp_path)


def test_a_convolution_without_strides_and_padding_is_refused(tmp_path: Path) -> None:
    graph = TfliteGraph()
    x = graph.op("CONV_2D", 0, graph.constant(numbers(12, 3, 3, 3)), graph.constant(numbers(12)))
    with pytest.raises(InvalidInput, match="CONV_2D has no options"):
        read(finish(graph, x, 12), tmp_path)


@pytest.mark.parametrize("place", ["image", "constant", "result"])
def test_an_operator_that_writes_over_what_is_there_is_refused(place: str, tmp_path: Path) -> None:
    graph, x = start()
    y = graph.op("RELU", x)
    graph.operators[-1][2][0] = {"image": 0, "constant": 1, "result": x}[place]
    with pytest.raises(InvalidInput, match="RELU writes over what is there already"):
        read(finish(graph, y), tmp_path)


@pytest.mark.parametrize("step", [0.0, -0.5, float("nan"), float("inf"), 1e-42])
def test_steps_with_which_litert_ends_the_process_are_refused(step: float, tmp_path: Path) -> None:
    image = Value("image", "int8", (1, -1, -1, 3), steps=Steps([step], [0]))
    model = Model([image])
    model.upscaled = model.compute("DEPTH_TO_SPACE", [0], Value("y", "int8", (1, -1, -1, 3)), block_size=1)
    with pytest.raises(InvalidInput, match="image: a step of its integers is"):
        read_network(to_bytes(model, "no network of ours"))


@pytest.mark.parametrize("step", [-0.5, float("nan"), float("inf")])
def test_steps_of_weights_that_are_none_are_refused(step: float) -> None:
    """LiteRT computes something with them."""
    model = Model([Value("image", "int8", (1, -1, -1, 3), steps=Steps([0.1], [0]))])
    model.store("kernel", np.ones((3, 1, 1, 3), np.int8), Steps([0.1, step, 0.1], [0, 0, 0]))
    with pytest.raises(InvalidInput, match="kernel: a step of its integers is"):
        read_network(to_bytes(model, "no network of ours"))


@pytest.mark.parametrize("zero", [-129, 128, 2**40])
def test_a_zero_that_is_none_of_the_integers_is_refused(zero: int) -> None:
    model = Model([Value("image", "int8", (1, -1, -1, 3), steps=Steps([0.1], [zero]))])
    with pytest.raises(InvalidInput, match=f"image: zero is said to be {zero}, which is no INT8"):
        read_network(to_bytes(model, "no network of ours"))


def test_commands_read_it(run: Run, tmp_path: Path) -> None:
    graph, x = start()
    finish(graph, x).write(tmp_path / "t.tflite")
    status, out, err = run("inspect", tmp_path / "t.tflite", "--no-probe")
    assert status == 0 and "input values 0 to 1" in out, err
    status, _, err = run("convert", tmp_path / "t.tflite", "--out", tmp_path / "p.onnx", "--no-probe")
    assert status == 0 and (tmp_path / "p.onnx").exists(), err
    (tmp_path / "b.tflite").write_bytes(b"no network at all")
    must_refuse(run, tmp_path, ("inspect", tmp_path / "b.tflite"), "b.tflite", "is no TFLite file")
    (tmp_path / "c.tflite").write_bytes((tmp_path / "t.tflite").read_bytes()[:200])
    must_refuse(run, tmp_path, ("inspect", tmp_path / "c.tflite"), "c.tflite", "damaged")
    must_refuse(run, tmp_path, ("inspect", tmp_path / "t.tflite", "--arch", "edsr"), "is tflite", "Leave --arch out")


@pytest.mark.parametrize(
    ("stated", "message"),
    [((1, 16, 16, 3), r"image: has the shape \[1, 5, 7, 3\], and \[1, 16, 16, 3\] as well"), ((1, -1, -1, 3), "")],
)
def test_a_size_that_is_told_twice_and_differently_is_refused(
    stated: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    """LiteRT runs the one, and whoever read the other would have another enlargement."""
    graph = TfliteGraph(stated=stated)
    graph.conv(0, numbers(3, 3, 3, 3), numbers(3))
    if not message:
        read(graph, tmp_path)
        return
    with pytest.raises(InvalidInput, match=message):
        read(graph, tmp_path)
