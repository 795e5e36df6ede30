"""quantize and its command: close to the float32 network, honest about what the file is, silent, all or nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.command_line import Run
from helpers.image_pairs import write_pairs
from helpers.teachers import write_teacher
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from memsr_compiler import compile_to_plain, export_onnx, quantize
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.read import is_plain
from memsr_compiler.quantization import quantize as quantization
from memsr_compiler.runtime.open import NetworkFile, count_cost
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.teachers.families.edsr import EDSR

SIZES = ((2, 24, 24), (1, 20, 28))  # N, h, w


def images(top: float = 1.0, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n, channels, h, w, generator=generator) * top for n, h, w in SIZES]


def plain(top: float = 1.0) -> PlainNet:
    torch.manual_seed(1)
    return compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval(), input_range=(0.0, top))


def foreign(path: Path, *, groups: int = 1, opset: int = 17, offset: float = 0.0, bias: bool = True) -> Path:
    """Four nameless convolutions, from 4 channels on, `offset` above zero, and a pixel shuffle; not a file of ours."""
    generator = np.random.default_rng(0)
    shapes = [(8, 1, 1, 1), (8, 8 // groups, 3, 3), (8, 8, 3, 3), (4, 8, 3, 3)]
    weights = [generator.normal(0, 0.3, shape).astype(np.float32) for shape in shapes]
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    nodes, value = [], "image"
    for i, weight in enumerate(weights):
        inputs = [value, f"w{i}"]
        if bias:
            level = offset * (1 - (weight.sum((1, 2, 3)) if i > 0 else np.zeros(len(weight))))
            tensors.append(numpy_helper.from_array(level.astype(np.float32), f"b{i}"))
            inputs.append(f"b{i}")
        k = weight.shape[-1]
        nodes.append(helper.make_node("Conv", inputs, [f"c{i}"], pads=[k // 2] * 4, group=groups if i == 1 else 1))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        value = f"r{i}" if i < 3 else f"c{i}"
    nodes[-1] = helper.make_node("DepthToSpace", [value], ["y"], blocksize=2, mode="CRD")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, f"{name}h", f"{name}w"])
        for name in ("image", "y")
    ]
    graph = helper.make_graph(nodes, "foreign", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), str(path))
    return path


def deviation(one: Path, other: Path, inputs: list[Tensor]) -> float:
    """Root mean square, in parts of the output's range."""
    pairs = [(OrtNetwork(one)(x), OrtNetwork(other)(x)) for x in inputs]
    error = torch.cat([(a - b).square().flatten() for a, b in pairs]).mean().sqrt()
    return float(error / torch.cat([(a.max() - a.min())[None] for a, _ in pairs]).max())


def shift(one: Path, other: Path, inputs: list[Tensor]) -> float:
    """By how much the averages of the last convolution's channels differ, away from borders: root mean square."""
    differences = [(OrtNetwork(one)(x) - OrtNetwork(other)(x))[..., 8:-8, 8:-8] for x in inputs]
    channels = [torch.nn.functional.pixel_unshuffle(d, 2).mean((0, 2, 3)) for d in differences]
    return float(torch.stack(channels).mean(0).square().mean().sqrt())


def content(path: Path) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def test_a_plain_network_in_8_bits(tmp_path: Path) -> None:
    source, out = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    net = plain()
    export_onnx(net, source)
    report = quantize(source, out, images(), takes=Takes(2))
    assert report.convolutions == len(net.widths) - 1  # all layers
    assert (report.bytes, report.source_bytes) == (out.stat().st_size, source.stat().st_size)
    assert 0 < deviation(source, out, images()) < 0.02
    dtypes = {name: str(array.dtype) for name, array in content(out).items() if name.startswith("layers.")}
    assert dtypes["layers.0.weight_quantized"] == dtypes["layers.1.weight_quantized"] == "int8"
    assert np.abs(content(out)["layers.1.weight_quantized"].astype(int)).max() <= 64  # 7 bits


def test_any_size_goes_in(tmp_path: Path) -> None:
    export_onnx(plain(), tmp_path / "plain.onnx")
    quantize(tmp_path / "plain.onnx", tmp_path / "int8.onnx", images(), takes=Takes(2))
    assert OrtNetwork(tmp_path / "int8.onnx")(torch.rand(3, 3, 5, 40)).shape == (3, 3, 10, 80)


@pytest.mark.parametrize("groups", [1, 2])
def test_layers_rounded_again_give_back_what_rounding_shifts(
    groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = foreign(tmp_path / "net.onnx", groups=groups, offset=8.0)
    inputs = images(channels=1)
    quantize(source, tmp_path / "with.onnx", inputs, takes=Takes(2, 1))
    monkeypatch.setattr(quantization, "round_convolutions", lambda *_: 0)
    quantize(source, tmp_path / "without.onnx", inputs, takes=Takes(2, 1))
    shifts = [shift(source, tmp_path / name, inputs) for name in ("with.onnx", "without.onnx")]
    assert shifts[0] < shifts[1] / 5, shifts
    deviations = [deviation(source, tmp_path / name, inputs) for name in ("with.onnx", "without.onnx")]
    assert deviations[0] < deviations[1] / 2, deviations


def test_what_convolutions_share_stays_as_it_was_rounded(tmp_path: Path) -> None:
    model = onnx.load(str(foreign(tmp_path / "net.onnx")))
    model.graph.node[4].input[1] = "w1"  # the third convolution reads the weights of the second
    onnx.save(model, str(tmp_path / "shared.onnx"))
    quantize(tmp_path / "shared.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert 0 < deviation(tmp_path / "shared.onnx", tmp_path / "int8.onnx", images(channels=1)) < 0.05


def test_constants_that_are_inputs_before_the_image(tmp_path: Path) -> None:
    model = onnx.load(str(foreign(tmp_path / "net.onnx")))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w0")
    model.graph.input.insert(0, helper.make_tensor_value_info("w0", TensorProto.FLOAT, weight.dims))
    onnx.save(model, str(tmp_path / "inputs.onnx"))
    quantized = quantize(tmp_path / "inputs.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert quantized.convolutions == 4


@pytest.mark.parametrize("kind", ["Identity", "Constant"])
def test_constants_that_are_nodes_are_constants(kind: str, tmp_path: Path) -> None:
    """torch's exporter stores equal biases once, and the others as an Identity of that one."""
    model = onnx.load(str(foreign(tmp_path / "net.onnx", offset=0.1)))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in ("b1", "b2"):
        value = stored["b0"] if name == "b2" else stored[name]
        node = helper.make_node("Constant", [], [name], value=value)
        if kind == "Identity" and name == "b2":
            node = helper.make_node("Identity", ["b0"], [name])
        model.graph.initializer.remove(stored[name])
        model.graph.node.insert(0, node)
    onnx.save(model, str(tmp_path / "nodes.onnx"))
    quantized = quantize(tmp_path / "nodes.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert quantized.convolutions == 4
    assert 0 < deviation(tmp_path / "nodes.onnx", tmp_path / "int8.onnx", images(channels=1)) < 0.05


def test_an_output_whose_shape_engines_infer(tmp_path: Path) -> None:
    model = onnx.load(str(foreign(tmp_path / "net.onnx")))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(tmp_path / "unshaped.onnx"))
    quantized = quantize(tmp_path / "unshaped.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert quantized.convolutions == 4


@pytest.mark.parametrize(("opset", "bias"), [(11, True), (17, False)])
def test_old_files_and_convolutions_without_bias(opset: int, bias: bool, tmp_path: Path) -> None:
    source = foreign(tmp_path / "net.onnx", opset=opset, bias=bias)
    assert quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1)).convolutions == 4
    assert 0 < deviation(source, tmp_path / "int8.onnx", images(channels=1)) < 0.03


def test_names_that_others_have_already(tmp_path: Path) -> None:
    model = onnx.load(str(foreign(tmp_path / "net.onnx", bias=False)))
    nodes = model.graph.node
    nodes[0].name = f"node_{len(nodes) - 1}"  # as the last one, which has none, would be called by its place
    model.graph.initializer[0].name = nodes[0].input[1] = "node_2.zero_bias"
    onnx.save(model, str(tmp_path / "named.onnx"))
    quantized = quantize(tmp_path / "named.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert quantized.convolutions == 4
    assert 0 < deviation(tmp_path / "net.onnx", tmp_path / "int8.onnx", images(channels=1)) < 0.05


def test_weights_in_a_file_beside_are_among_the_bytes(tmp_path: Path) -> None:
    model = onnx.load(str(foreign(tmp_path / "net.onnx")))
    path, weights = tmp_path / "beside.onnx", tmp_path / "weights.data"
    onnx.save(model, str(path), save_as_external_data=True, location=weights.name, size_threshold=0)
    quantized = quantize(path, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert quantized.source_bytes == path.stat().st_size + weights.stat().st_size


def test_the_file_says_what_it_takes_and_no_more_that_it_is_plain(tmp_path: Path) -> None:
    source, out = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    report = export_onnx(plain(255.0), source)
    takes = Takes(2, 3, (0.0, 255.0))
    quantize(source, out, images(255.0), takes=takes)
    metadata = OrtNetwork(out).metadata
    assert quantization.takes_of(metadata) == takes
    assert metadata["source_sha256"] == report.sha256
    assert is_plain(source) and not is_plain(out)
    assert quantization.takes_of(OrtNetwork(source).metadata) is None
    with pytest.raises(InvalidInput, match="metadata are damaged"):
        quantization.takes_of({**metadata, "input_range": "0"})
    with pytest.raises(InvalidInput, match="is a memsr quantized network 3, which this version does not know"):
        quantization.takes_of({**metadata, "memsr_quantized": "memsr quantized network 3"})


def test_the_same_file_each_time(tmp_path: Path) -> None:
    export_onnx(plain(), tmp_path / "plain.onnx")
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        quantize(tmp_path / "plain.onnx", file, images(), takes=Takes(2))
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("takes", "message"),
    [
        (
            Takes(2, 3, (0.0, 255.0)),
            r"says itself .*, not takes=Takes\(2, 3, \(0, 255\)\); give takes=Takes\(2, 3, \(0, 1\)\)",
        ),
        (Takes(3), r"not takes=Takes\(3, 3, \(0, 1\)\); give takes=Takes\(2, 3"),
        ((2, 3), "takes: a tuple; want memsr_compiler.Takes"),
    ],
)
def test_takes_that_a_plain_file_contradicts(takes: Takes, message: str, tmp_path: Path) -> None:
    export_onnx(plain(), tmp_path / "plain.onnx")
    with pytest.raises(InvalidInput, match=message):
        quantize(tmp_path / "plain.onnx", tmp_path / "int8.onnx", images(), takes=takes)
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    ("takes", "message"),
    [
        (Takes(2, 3), r"takes 1 channel, and takes=Takes\(2, 3, \(0, 1\)\) says 3"),
        (Takes(3, 1), r"makes 1x48x48 of 1x24x24, which is not takes=Takes\(3, 1"),
    ],
)
def test_takes_that_a_run_contradicts(takes: Takes, message: str, tmp_path: Path) -> None:
    source = foreign(tmp_path / "net.onnx")
    with pytest.raises(InvalidInput, match=message):
        quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=takes)


def test_images_of_another_range_than_takes(tmp_path: Path) -> None:
    source = foreign(tmp_path / "net.onnx")
    with pytest.raises(InvalidInput, match=r"image 0: values from .* the network takes 0 to 1"):
        quantize(source, tmp_path / "int8.onnx", images(255.0, channels=1), takes=Takes(2, 1))


def test_nothing_is_said_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source = foreign(tmp_path / "net.onnx")
    before = source.read_bytes()
    with caplog.at_level(logging.WARNING):
        quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.onnx", "net.onnx"]
    assert source.read_bytes() == before
    (tmp_path / "int8.onnx").unlink()
    with pytest.raises(InvalidInput, match="cannot quantise it"):
        quantize(source, tmp_path / "int8.onnx", images(channels=3), takes=Takes(2, 1))  # the network takes one
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"No space left on device\)\. Free some space"),
        (errno.EDQUOT, r"quota exceeded\)\. Free some space"),
        (errno.EFBIG, r"File too large\)\. Write to a file system"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fail)
    source = foreign(tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=words):
        quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def half(path: Path) -> None:
    export_onnx(plain(), path, dtype="float16")


def text(path: Path) -> None:
    path.write_text("no network")


def without_convolution(path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def eight_bits(path: Path) -> None:
    source = foreign(path.with_name("float32.onnx"))
    quantize(source, path, images(channels=1), takes=Takes(2, 1))


def branches(path: Path) -> None:
    """A network of which one of two branches takes a value that equalising scales for the convolutions alone."""
    foreign(path)
    file = onnx.load(str(path))
    inner = file.graph.node[-1].input[0]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("then", "other")]
    taken = [helper.make_node("Identity", [name], [end.name]) for name, end in zip((inner, inner), ends, strict=True)]
    graphs = [helper.make_graph([n], n.output[0], [], [end]) for n, end in zip(taken, ends, strict=True)]
    file.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branch = helper.make_node("If", ["yes"], ["chosen"], name="choice", then_branch=graphs[0], else_branch=graphs[1])
    file.graph.node.insert(len(file.graph.node) - 1, branch)
    file.graph.node[-1].input[0] = "chosen"
    onnx.save(file, str(path))


def over_rows(path: Path) -> None:
    """A network with a convolution over one axis, the places of an image in a row: it crashed."""
    foreign(path)
    file = onnx.load(str(path))
    last = file.graph.node[-1]
    sizes, weight = np.array([0, 0, -1]), np.ones((4, 4, 3), np.float32)
    file.graph.initializer.extend([numpy_helper.from_array(sizes, "row"), numpy_helper.from_array(weight, "w")])
    inner = [
        helper.make_node("Shape", [last.input[0]], ["shape"]),
        helper.make_node("Reshape", [last.input[0], "row"], ["flat"]),
        helper.make_node("Conv", ["flat", "w"], ["mixed"], name="mix", pads=[1, 1]),
        helper.make_node("Reshape", ["mixed", "shape"], ["folded"]),
    ]
    del file.graph.node[-1]
    file.graph.node.extend([*inner, helper.make_node("DepthToSpace", ["folded"], ["y"], blocksize=2, mode="CRD")])
    onnx.save(file, str(path))


def computed(path: Path, which: str, *, bias: bool = True) -> Path:
    """A network of which a constant, say "w2", is computed anew at each run, of the image: it is what it was."""
    foreign(path, bias=bias)
    file = onnx.load(str(path))
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", [which, "nothing"], ["anew"]),
    ]
    for node in file.graph.node:
        node.input[:] = ["anew" if name == which else name for name in node.input]
    file.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    for node in reversed(nodes):
        file.graph.node.insert(0, node)
    onnx.save(file, str(path))
    return path


@pytest.mark.parametrize("bias", [False, True])
def test_weights_that_are_computed_stay_so(bias: bool, tmp_path: Path) -> None:
    """Beside them a convolution may have no bias, whose integers would go with narrowed steps."""
    source = computed(tmp_path / "net.onnx", "w2", bias=bias)
    quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert deviation(source, tmp_path / "int8.onnx", images(channels=1)) < 0.1


NAMES = (
    "quarter", "v_scale", "v_zero_point", "w1_scale", "image_scale", "b1_quantized", "b1_quantized_scale",
    "image_QuantizeLinear_Output", "v_DequantizeLinear_Output", "w1_quantized", "v_ReduceMin",
)  # fmt: skip


def test_names_that_onnx_runtime_gives_to_its_own(tmp_path: Path) -> None:
    """A constant of such a name became one with a scale: the network was 57 levels off, or did not load."""
    results = []
    for name in NAMES:
        file = onnx.load(str(foreign(tmp_path / "named.onnx")))
        first, second = (n for n in file.graph.node if n.op_type == "Conv" and n.input[1] in ("w1", "w2"))
        file.graph.initializer.append(numpy_helper.from_array(np.float32(0.25), name))
        file.graph.node.insert(
            list(file.graph.node).index(second), helper.make_node("Mul", [second.input[0], name], ["v"])
        )
        second.input[0] = "v"
        assert first.input[2] == "b1"
        onnx.save(file, str(tmp_path / "named.onnx"))
        quantize(tmp_path / "named.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
        results.append(OrtNetwork(tmp_path / "int8.onnx")(images(channels=1)[0]))
    for name, result in zip(NAMES, results, strict=True):
        assert torch.equal(result, results[0]), name


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (branches, "choice: If: control flow is not quantised"),
        (over_rows, "mix: a convolution over 1 axis of its input"),
        (lambda path: computed(path, "b2"), "node_[0-9]+: the bias of this convolution is computed"),
        (half, "is float16"),
        (text, "is no ONNX model"),
        (without_convolution, "no convolution"),
        (eight_bits, "quantised already"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_what_cannot_be_quantised(write: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    write(tmp_path / "net.onnx")
    with pytest.raises(InvalidInput, match=rf"net\.onnx.*{words}"):
        quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", images(), takes=Takes(2))
    assert not (tmp_path / "int8.onnx").exists()


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"extension \.onnx"):
        quantize(tmp_path / "net.onnx", tmp_path / "int8.pt", images(), takes=Takes(2))
    with pytest.raises(InvalidInput, match="no calibration images"):
        quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", [], takes=Takes(2))


def test_the_network_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    foreign(path)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match=r"net\.onnx: is the network that is quantised; choose another name"):
        quantize(path, tmp_path / "." / "net.onnx", images(), takes=Takes(2))
    assert path.read_bytes() == before


# -- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain network of values 0 to 255, its teacher, and images: HR, LR."""
    folder = tmp_path_factory.mktemp("quantize")
    torch.manual_seed(1)
    write_teacher(EDSR(scale=2, blocks=1, channels=8), folder / "teacher.pt")
    export_onnx(plain(255.0), folder / "plain.onnx")
    write_pairs(folder / "data")
    return folder


def test_quantize_tells_what_it_costs(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    images = folder / "data" / "HR"
    command = ("quantize", folder / "plain.onnx", "--out", out, "--calibration", images, "--size", "32x24")
    status, told, err = run(*command, "--samples", "4", "--seed", "1", "--data", folder / "data")
    assert (status, err) == (0, "")
    assert all(word in told for word in ("float32", "int8", "PSNR on 2 images", "32x24", " kB", "written"))
    assert "computed in  float32: float32, by ONNX Runtime on the CPU; int8: 8-bit integers" in told
    status, told, err = run(*command, "--json")
    found = json.loads(told)
    assert (status, err) == (0, "") and found["psnr_on"] == "the calibration photographs"
    assert found["bytes"] == {"float32": (folder / "plain.onnx").stat().st_size, "int8": out.stat().st_size}
    integers = "8-bit integers, float32 between them, by ONNX Runtime on the CPU"
    assert found["arithmetic"] == {"float32": "float32, by ONNX Runtime on the CPU", "int8": integers}
    assert found["time_ratio"] > 0 and found["size"] == [32, 24]
    assert run(*command, "--quiet") == (0, "", "")


def test_a_quantised_network_costs_what_it_was_made_of_costs(run: Run, folder: Path, tmp_path: Path) -> None:
    status, _, err = run("quantize", folder / "plain.onnx", "--out", tmp_path / "int8.onnx", "--size", "16x16")
    assert status == 0, err
    assert count_cost(NetworkFile(tmp_path / "int8.onnx")) == count_cost(NetworkFile(folder / "plain.onnx"))
    quantize(folder / "plain.onnx", tmp_path / "bare.onnx", images(), takes=Takes(2, 3, (0.0, 255.0)))
    assert count_cost(NetworkFile(tmp_path / "bare.onnx")) == (None, None)


def test_eval_of_a_quantised_network_knows_its_range(run: Run, folder: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "int8.onnx", folder / "plain.onnx"
    assert run("quantize", source, "--out", out, "--calibration", folder / "data" / "HR", "-q")[0] == 0
    status, told, err = run("eval", source, out, "--data", folder / "data", "--json")
    assert status == 0, err
    exact, integer = (json.loads(told)["models"][str(file)]["average"]["psnr"] for file in (source, out))
    assert exact == pytest.approx(integer, abs=0.2) and exact != integer


def test_without_calibration_the_photographs_that_ship(run: Run, folder: Path, tmp_path: Path) -> None:
    command = ("quantize", folder / "plain.onnx", "--out", tmp_path / "int8.onnx", "--size", "16x16", "--json")
    status, told, err = run(*command, "--data", folder / "data")
    assert status == 0 and json.loads(told)["convolutions_in_8_bits"] >= 1, err


def test_wrong_input_to_quantize(run: Run, folder: Path, tmp_path: Path) -> None:
    source, out, data = folder / "plain.onnx", tmp_path / "out.onnx", folder / "data"
    int8 = tmp_path / "int8.onnx"
    quantize(source, int8, images(255.0), takes=Takes(2, 3, (0.0, 255.0)))
    half(tmp_path / "half.onnx")
    text(tmp_path / "text.onnx")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (("quantize", int8, "--out", out), ("int8.onnx", "quantised already")),
        (("quantize", tmp_path / "half.onnx", "--out", out, "--calibration", data / "HR"), ("is float16",)),
        (("quantize", tmp_path / "text.onnx", "--out", out), ("text.onnx", "cannot load it")),
        (("quantize", tmp_path / "absent.onnx", "--out", out), ("absent.onnx", "no such file")),
        (("quantize", folder / "teacher.pt", "--out", out), ("teacher.pt", "not named .onnx")),
        (("quantize", source, "--out", tmp_path / "out.pt"), ("out.pt", "not named .onnx")),
        (("quantize", source, "--out", source), ("is the network that is read",)),
        (("quantize", source, "--out", out, "--calibration", tmp_path / "empty"), ("empty", "no readable image")),
        (("quantize", source, "--out", out, "--data", tmp_path / "empty"), ("empty", "no readable image")),
        (("quantize", source, "--out", out, "--size", "big"), ("--size big",)),
        (("verify", folder / "teacher.pt", int8), ("int8.onnx", "in 8 bits", "no certificate")),
        (("convert", int8, "--out", out), ("quantised",)),
    ):
        status, told, err = run(*arguments)
        assert status == 2 and told == "" and err.count("\n") == 1, (arguments, told, err)
        assert all(word in err for word in words), err
        assert not out.exists()


def test_a_last_node_that_is_called_as_what_it_gives(tmp_path: Path) -> None:
    """A node was added by that name, and no engine loaded the file."""
    model = onnx.load(str(foreign(tmp_path / "net.onnx")))
    model.graph.node[-1].name = model.graph.output[0].name
    model.graph.node[0].name = f"{model.graph.output[0].name}.back"
    onnx.save(model, str(tmp_path / "named.onnx"))
    quantize(tmp_path / "named.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert 0 < deviation(tmp_path / "net.onnx", tmp_path / "int8.onnx", images(channels=1)) < 0.05


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_features_that_are_constant(level: float, tmp_path: Path) -> None:
    """They ended in an error of linear algebra."""
    model = onnx.load(str(foreign(tmp_path / "net.onnx")))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in ("w0", "b0"):
            ramp = np.linspace(0.1, 0.7, len(values), dtype=np.float32)
            new = values * 0 if tensor.name == "w0" else ramp * np.float32(level)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
        elif tensor.name == "w1":  # 1x1, or borders would be other than the inside
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[:, :, 1:2, 1:2]), tensor.name))
    pads = next(attribute for attribute in model.graph.node[2].attribute if attribute.name == "pads")
    pads.CopyFrom(helper.make_attribute("pads", [0] * 4))
    onnx.save(model, str(tmp_path / "constant.onnx"))
    quantize(tmp_path / "constant.onnx", tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    exact, found = (OrtNetwork(tmp_path / name)(images(channels=1)[0]) for name in ("constant.onnx", "int8.onnx"))
    assert (found - exact).abs().max() < 0.05


def enlarging(path: Path, opset: int, mode: str, *, fixed: bool = False) -> Path:
    """A network before opset 11 whose image is enlarged beside it, by an Upsample or Resize."""
    generator = np.random.default_rng(0)
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    weight = numpy_helper.from_array(generator.normal(0, 0.05, (4, 1, 3, 3)).astype(np.float32), "w")
    by_opset: dict[int, tuple[str, list[str], dict[str, Any]]] = {
        7: ("Upsample", ["image"], {"scales": [1.0, 1.0, 2.0, 2.0]}),
        9: ("Upsample", ["image", "scales"], {}),
        10: ("Resize", ["image", "scales"], {}),
    }
    operator, inputs, stated = by_opset[opset]
    nodes = [
        helper.make_node(operator, inputs, ["large"], mode=mode, **stated),
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c"], ["d"], blocksize=2),
        helper.make_node("Add", ["large", "d"], ["y"]),
    ]
    sizes: list[list[str | int | None]] = (
        [[1, 1, 10, 14], [1, 1, 20, 28]] if fixed else [["n", 1, "h", "w"], ["n", 1, "large h", "large w"]]
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in zip(("image", "y"), sizes, strict=True)
    ]
    stored = [weight, scales] if opset > 7 else [weight]
    graph = helper.make_graph(nodes, "enlarging", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6), str(path))
    return path


@pytest.mark.parametrize("opset", [7, 9, 10])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_conversion_that_makes_another_network_is_refused(opset: int, fixed: bool, tmp_path: Path) -> None:
    """onnx's converter took linear Upsamples, which are asymmetric, for those by half pixels: up to 36 grey levels."""
    source = enlarging(tmp_path / "net.onnx", opset, "linear", fixed=fixed)
    with pytest.raises(
        InvalidInput, match=r"net\.onnx: onnx\.version_converter .* opset 17 as another network, .* half pix"
    ):
        quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_a_conversion_that_keeps_the_network_is_taken(opset: int, tmp_path: Path) -> None:
    source = enlarging(tmp_path / "net.onnx", opset, "nearest")
    quantize(source, tmp_path / "int8.onnx", images(channels=1), takes=Takes(2, 1))
    assert 0 < deviation(source, tmp_path / "int8.onnx", images(channels=1)) < 0.03
