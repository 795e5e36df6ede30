"""The ONNX models that export writes: what they compute, what they hold, what is left when writing fails."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.bounds import likely_rounding, resize_rounding
from helpers.plain_files import reseal, tiny
from helpers.plain_nets import build, plain_nets
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain import write as export
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.manifest import certificate_path
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.onnx_model import OPSETS
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.proof import checker
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.idn import IDN
from memsr_compiler.trace.trace import trace

SIZES = [(1, 1, 1), (2, 1, 4), (1, 5, 1), (2, 7, 9)]


def edsr() -> EDSR:
    torch.manual_seed(3)
    return EDSR(scale=2, blocks=1, channels=8).eval()


@pytest.fixture(scope="module")
def plain() -> PlainNet:
    return compile_to_plain(edsr())


@pytest.fixture(scope="module")
def kept() -> PlainNet:
    torch.manual_seed(4)
    return compile_to_plain(EDSR(scale=4, blocks=1, channels=4).eval(), tail="keep")


@pytest.fixture(scope="module")
def skipping() -> PlainNet:
    torch.manual_seed(5)
    teacher = IDN(scale=3, blocks=1, channels=8, kept=2, groups=1).eval()
    return compile_to_plain(teacher, image_skip="outside")


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, image: Tensor) -> Tensor:
    (result,) = session(path).run(None, {"image": image.numpy()})
    return torch.from_numpy(result)


def deviation(path: Path, net: PlainNet, channels: int, teacher: nn.Module | None = None) -> float:
    """Largest difference, over all SIZES, between ONNX Runtime in float32 and the plain network, or the teacher that
    it was made of, in float64; as a share of what rounding may do."""
    exact, worst = copy.deepcopy(teacher or net).double(), 0.0
    opened = session(path)
    for batch, height, width in SIZES:
        image = torch.rand(batch, channels, height, width)
        with torch.no_grad():
            want = exact(image.double())
        (result,) = opened.run(None, {"image": image.numpy()})
        assert result.shape == want.shape and result.dtype == np.float32
        bound = likely_rounding(net, image, torch.float32)
        worst = max(worst, float(((torch.from_numpy(result).double() - want).abs() / bound).max()))
    return worst


def deviation_of_half(path: Path, net: PlainNet, channels: int) -> float:
    """The same for a float16 model, each of whose layers rounds what it reads, makes and weighs by to float16.

    Within a layer ONNX Runtime adds up in float32 or better: on a processor it casts around each convolution.
    """
    worst = 0.0
    opened = session(path)
    exact = copy.deepcopy(net).double()
    for batch, height, width in SIZES:
        image = torch.rand(batch, channels, height, width).half()
        with torch.no_grad():
            want = exact(image.double())
        (result,) = opened.run(None, {"image": image.numpy()})
        assert result.shape == want.shape and result.dtype == np.float16
        bound = likely_rounding(net, image, torch.float16, once=True)
        worst = max(worst, float(((torch.from_numpy(result).double() - want).abs() / bound).max()))
    return worst


@pytest.mark.parametrize("certificate", ["beside", "inside"])
@pytest.mark.parametrize("name", ["plain", "kept", "skipping"])
def test_onnx_runtime_computes_the_plain_network(
    name: str, certificate: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    net: PlainNet = request.getfixturevalue(name)
    export_onnx(net, tmp_path / "net.onnx", certificate=certificate)
    assert deviation(tmp_path / "net.onnx", net, 3) <= 1


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_repeated_image_takes_the_operators_that_are_there(scale: int, tmp_path: Path) -> None:
    net = tiny("nearest", scale)
    export_onnx(net, tmp_path / "net.onnx")
    shuffle = ["DepthToSpace"] if scale > 1 else []
    operators = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert operators == ["Conv", "Relu", "Conv", "Conv", "Add", *shuffle]
    assert deviation(tmp_path / "net.onnx", net, 1) <= 1
    assert load_plain(tmp_path / "net.onnx").info.image_skip == "nearest"
    export_onnx(net, tmp_path / "half.onnx", dtype="float16")
    assert deviation_of_half(tmp_path / "half.onnx", load_plain(tmp_path / "half.onnx"), 1) <= 1


def test_the_model_is_the_teacher(plain: PlainNet, tmp_path: Path) -> None:
    export_onnx(plain, tmp_path / "net.onnx")
    assert deviation(tmp_path / "net.onnx", plain, 3, edsr()) <= 1


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_gives_the_same(opset: int, tmp_path: Path) -> None:
    net = tiny("bicubic")
    report = export_onnx(net, tmp_path / "net.onnx", opset=opset)
    model = onnx.load(tmp_path / "net.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert report.opset == opset
    assert deviation(tmp_path / "net.onnx", net, 1) <= 1
    assert load_plain(tmp_path / "net.onnx").sha256() == net.sha256()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_resize_is_torchs(mode: str, scale: int, tmp_path: Path) -> None:
    net = tiny(mode, scale)
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.zero_()
    export_onnx(net, tmp_path / "net.onnx")
    opened = session(tmp_path / "net.onnx")
    for height, width in [(1, 1), (1, 2), (2, 1), (3, 2), (1, 9), (6, 5)]:
        image = torch.randint(2, (2, 1, height, width)).float()
        want = nn.functional.interpolate(image, scale_factor=scale, mode=mode, align_corners=False)
        (got,) = opened.run(None, {"image": image.numpy()})
        # Between pixels that are 0 or 1 a power of two rounds nothing: weights are multiples of 2^-11, their products
        # of 2^-22.
        bound = 0 if scale != 3 else resize_rounding(image, float(np.finfo(np.float32).eps))
        assert np.abs(got - want.numpy()).max() <= bound


def test_only_what_every_runtime_has(plain: PlainNet, kept: PlainNet, skipping: PlainNet, tmp_path: Path) -> None:
    for net, allowed in (
        (plain, {"Conv", "Relu", "DepthToSpace"}),
        (kept, {"Conv", "Relu", "DepthToSpace"}),
        (skipping, {"Conv", "Relu", "DepthToSpace", "Resize", "Add"}),
    ):
        export_onnx(net, tmp_path / "net.onnx")
        graph = onnx.load(tmp_path / "net.onnx").graph
        assert {node.op_type for node in graph.node} == allowed
        assert sum(node.op_type == "DepthToSpace" for node in graph.node) == sum(x.shuffle > 1 for x in net)


def test_names_and_shapes(kept: PlainNet, tmp_path: Path) -> None:
    export_onnx(kept, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    (image,), (upscaled,) = graph.input, graph.output
    assert (image.name, upscaled.name) == ("image", "upscaled")
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, upscaled)]
    assert dims == [["batch", 3, "height", "width"], ["batch", 3, "height*4", "width*4"]]
    assert [n.name for n in graph.node][:3] == ["layers.0.conv", "layers.0.relu", "layers.1.conv"]
    assert [t.name for t in graph.initializer][:2] == ["layers.0.weight", "layers.0.bias"]


@settings(max_examples=25, deadline=None)
@given(net=plain_nets(prelu=True), size=st.tuples(*[st.integers(1, 3)] * 3))
def test_the_sizes_of_all_values_are_told_and_true(net: PlainNet, size: tuple[int, int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(net, Path(folder, "plain.onnx"))
        model = onnx.load(str(Path(folder, "plain.onnx")))
    told = [*model.graph.value_info, *model.graph.output]
    assert [value.name for value in told] == [name for node in model.graph.node for name in node.output]
    model.graph.output.extend(model.graph.value_info)
    del model.graph.value_info[:]
    batch, height, width = size
    inner = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = torch.rand(batch, net.info.channels, height, width).numpy()
    names = {"batch": batch, "height": height, "width": width}
    for value in told:
        (found,) = inner.run([value.name], {"image": image})
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        assert list(found.shape) == [eval(str(dim), {}, dict(names)) for dim in dims]


def test_a_repeated_image_is_added_in_the_last_convolution(tmp_path: Path) -> None:
    """The sum in a tensor of its own was a third of the memory that a small student takes."""
    export_onnx(build([16, 16], [3, 3, 3], image_skip="nearest"), tmp_path / "plain.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns of a model for this processor only
    onnxruntime.InferenceSession(str(tmp_path / "plain.onnx"), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    if not any(node.domain == "com.microsoft.nchwc" for node in nodes):
        pytest.skip("ONNX Runtime blocks no channels on this processor")
    assert "Add" not in [node.op_type for node in nodes]


def test_files_that_do_not_tell_them_are_read_and_others_are_not(plain: PlainNet, tmp_path: Path) -> None:
    """Files were written without them before; sizes that are not true would let engines mix values up."""
    export_onnx(plain, tmp_path / "plain.onnx", certificate="inside")
    model = onnx.load(str(tmp_path / "plain.onnx"))
    del model.graph.value_info[1:]
    (tmp_path / "some.onnx").write_bytes(reseal(model.SerializeToString(deterministic=True)))
    with pytest.raises(InvalidInput, match="its graph is not the one that its metadata describe"):
        load_plain(tmp_path / "some.onnx")
    del model.graph.value_info[:]
    (tmp_path / "before.onnx").write_bytes(reseal(model.SerializeToString(deterministic=True)))
    assert load_plain(tmp_path / "before.onnx").sha256() == plain.sha256()


def test_metadata_say_what_it_is(plain: PlainNet, tmp_path: Path) -> None:
    report = export_onnx(plain, tmp_path / "net.onnx")
    metadata = session(tmp_path / "net.onnx").get_modelmeta().custom_metadata_map
    assert metadata["memsr_format"] == "memsr plain network 1"
    assert PlainInfo.from_strings(metadata) == plain.info
    assert metadata["plain_sha256"] == plain.sha256() == report.plain_sha256
    content = (tmp_path / "net.onnx").read_bytes()
    assert metadata["file_sha256"] == hashlib.sha256(content[:-64]).hexdigest() == content[-64:].decode()
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert report.bytes == len(content)
    assert {f"sha256.layers.{i}.{kind}" for i in range(6) for kind in ("weight", "bias")} <= set(metadata)


def test_certificate_beside_or_inside(plain: PlainNet, tmp_path: Path) -> None:
    beside = export_onnx(plain, tmp_path / "beside.onnx")
    text = (tmp_path / "beside.cert.json").read_text()
    assert beside.files == (tmp_path / "beside.cert.json", tmp_path / "beside.onnx")
    assert certificate_path(tmp_path / "beside.onnx") == tmp_path / "beside.cert.json"
    inside = export_onnx(plain, tmp_path / "inside.onnx", certificate="inside")
    assert inside.files == (tmp_path / "inside.onnx",)
    assert inside.certificate == "inside"
    metadata = session(tmp_path / "inside.onnx").get_modelmeta().custom_metadata_map
    assert metadata["certificate"] == text
    assert Certificate.from_json(text) == plain.certificate
    alone = export_onnx(tiny(), tmp_path / "alone.onnx")
    assert alone.certificate == "none"
    assert alone.files == (tmp_path / "alone.onnx",)


# -- dtypes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "skipping"])
def test_float16(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    net: PlainNet = request.getfixturevalue(name)
    report = export_onnx(net, tmp_path / "half.onnx", dtype="float16")
    assert 0 < report.rounding.relative < 2**-11
    assert report.rounding.absolute < 1e-3
    assert report.rounding.flushed <= 2  # of thousands
    assert 0 < deviation_of_half(tmp_path / "half.onnx", net, 3) <= 1
    read = load_plain(tmp_path / "half.onnx")
    for here, there in zip(read, net, strict=True):
        assert torch.equal(here.weight, there.weight.half())
    assert deviation_of_half(tmp_path / "half.onnx", read, 3) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_certificate_names_the_weights_as_stored_and_holds(dtype: Any, plain: PlainNet, tmp_path: Path) -> None:
    export_onnx(plain, tmp_path / "net.onnx", dtype=dtype)
    certificate = Certificate.from_json((tmp_path / "net.cert.json").read_text())
    read = load_plain(tmp_path / "net.onnx")
    assert certificate == read.certificate
    assert certificate.plain_sha256 == read.sha256()
    checker.check(trace(edsr()).graph, read.checkable(), certificate)


def test_float64_is_stored_in_full(tmp_path: Path) -> None:
    net = compile_to_plain(edsr().double())
    report = export_onnx(net, tmp_path / "net.onnx", dtype="float64")
    read = load_plain(tmp_path / "net.onnx")
    assert report.rounding.absolute == 0
    assert read.sha256() == net.sha256()
    assert read.certificate == net.certificate


def test_a_double_network_is_exported_narrower(plain: PlainNet, tmp_path: Path) -> None:
    net = copy.deepcopy(plain).double()
    assert export_onnx(net, tmp_path / "net.onnx").plain_sha256 == plain.sha256()
    with pytest.raises(ExportError, match="proves the float32 weights"):
        export_onnx(net, tmp_path / "net.onnx", dtype="float64")


def test_weights_beyond_the_dtype_are_refused(tmp_path: Path) -> None:
    net = tiny()
    with torch.no_grad():
        net[1].bias[2] = 7e4
    with pytest.raises(ExportError, match=r"layers\.1\.bias: 70000 is beyond float16.*65504"):
        export_onnx(net, tmp_path / "net.onnx", dtype="float16")
    assert list(tmp_path.iterdir()) == []
    export_onnx(net, tmp_path / "net.onnx")


def test_vanishing_weights_are_counted(tmp_path: Path) -> None:
    net = tiny()
    with torch.no_grad():
        net[0].bias[:3] = 1e-9
    assert export_onnx(net, tmp_path / "net.onnx", dtype="float16").rounding.flushed == 3


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    net = tiny()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"layers\.0\.weight: holds NaN"):
        export_onnx(net, tmp_path / "net.onnx")


def test_a_certificate_of_other_weights_is_refused(plain: PlainNet, tmp_path: Path) -> None:
    net = copy.deepcopy(plain)
    with torch.no_grad():
        net[2].weight[0, 0, 1, 1] += 1
    with pytest.raises(ExportError, match="not of these weights"):
        export_onnx(net, tmp_path / "net.onnx")
    net.certificate = None
    export_onnx(net, tmp_path / "net.onnx")


def test_layers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    net = tiny()
    for wrong, message in (
        (replace(net.info, scale=3), "enlarges 2 times"),
        (replace(net.info, channels=3), "takes 1 channel"),
        (replace(net.info, image_skip="area"), "image skip"),
        (replace(net.info, input_range=(0.0, float("inf"))), "input range"),
    ):
        net.info = wrong
        with pytest.raises(ExportError, match=message):
            export_onnx(net, tmp_path / "net.onnx")


def test_options_are_checked(tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("net.onnx", {"opset": 12}, "opset 12"),
        ("net.onnx", {"dtype": "int8"}, "dtype 'int8'"),
        ("net.onnx", {"certificate": "elsewhere"}, "neither beside nor inside"),
        ("net.bin", {}, "extension"),
    ]
    for name, options, message in wrong:
        with pytest.raises(ExportError, match=message):
            export_onnx(tiny(), tmp_path / name, **options)


# -- weights in a file of their own --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_external_weights(dtype: Any, plain: PlainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_INLINE_BYTES", 1000)
    report = export_onnx(plain, tmp_path / "net.onnx", dtype=dtype)
    names = ["net.onnx.data", "net.cert.json", "net.onnx"]
    assert [p.name for p in report.files] == names
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    width = 4 if dtype == "float32" else 2
    weights = sum(p.numel() for p in plain.parameters())
    assert (tmp_path / "net.onnx.data").stat().st_size == width * weights
    assert report.bytes < 10_000
    assert (deviation if dtype == "float32" else deviation_of_half)(tmp_path / "net.onnx", plain, 3) <= 1
    read = load_plain(tmp_path / "net.onnx")
    assert read.info == plain.info
    assert read.sha256() == report.plain_sha256


def test_external_weights_that_are_missing_or_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_INLINE_BYTES", 0)
    (tmp_path / "models").mkdir()
    path, data = tmp_path / "models" / "net.onnx", tmp_path / "models" / "net.onnx.data"
    export_onnx(tiny(), path)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="missing beside it"):
        load_plain(path)
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="not in a file beside it"):
        load_plain(path)


def test_external_weights_whose_name_no_folder_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_INLINE_BYTES", 0)
    export_onnx(tiny(), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "n" * 5000
    (tmp_path / "net.onnx").write_bytes(reseal(model.SerializeToString(deterministic=True)))
    with pytest.raises(InvalidInput, match="not in a file beside it"):
        load_plain(tmp_path / "net.onnx")


def test_files_have_ordinary_permissions(plain: PlainNet, tmp_path: Path) -> None:
    export_onnx(plain, tmp_path / "net.onnx")
    (tmp_path / "ordinary").touch()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert len(modes) == 1


def test_exporting_twice_gives_the_same_bytes(plain: PlainNet, tmp_path: Path) -> None:
    assert export_onnx(plain, tmp_path / "a.onnx").sha256 == export_onnx(plain, tmp_path / "b.onnx").sha256
    assert json.loads((tmp_path / "a.cert.json").read_text())["plain_sha256"] == plain.sha256()


def test_onnx_is_imported_when_it_is_needed() -> None:
    code = "import sys, memsr_compiler.plain.write, memsr_compiler.plain.load; sys.exit('onnx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_slopes_of_another_shape_are_not_written(ending: str, tmp_path: Path) -> None:
    """A file that says (C, 1, 1) and holds something else is read by nobody."""
    net = build([4], [3, 3], activations=["prelu"])
    slope = net[0].slope
    assert slope is not None
    net[0].slope = slope.flatten()
    write: Callable[[PlainNet, Path], object] = export_onnx if ending == "onnx" else export.save_plain
    with pytest.raises(ExportError, match=r"slope: has the shape \(4,\), where \(4, 1, 1\) is due"):
        write(net, tmp_path / f"net.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [save_plain, export_onnx])
def test_what_is_no_plain_network_is_not_written(write: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a plain network is wanted, or its file, not Conv2d; make one"):
        write(nn.Conv2d(3, 3, 3), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
