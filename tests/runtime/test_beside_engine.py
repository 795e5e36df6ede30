"""Teachers from ONNX and TFLite files beside their engines: whatever is read wrong of a file is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from helpers.teachers import write_teacher
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, read_teacher
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.runtime import beside_engine
from memsr_compiler.runtime.beside_engine import require_as_in_engine
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.teacher import Teacher

NOT = "was not compared with ONNX Runtime: "


def write(
    path: Path, *, size: tuple[str | int, str | int] = ("h", "w"), channels: str | int = 3, batch: str | int = "n"
) -> Path:
    """A network of two convolutions and a pixel shuffle."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (8, 3, 3, 3), "b": (12, 8, 3, 3)}
    weights = {name: torch.randn(shape, generator=generator) / 5 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["d"], ["y"], blocksize=2, mode="CRD"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight.numpy(), name) for name, weight in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Off(nn.Module):
    """A network whose results are off, in one pixel or everywhere."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y + self.by * y.abs().max()


def misread(path: Path, by: float) -> Teacher:
    teacher = read_teacher(path, probe=False)
    return replace(teacher, module=Off(teacher.module, by))


@pytest.mark.parametrize("size", [("h", "w"), (16, 20), (7, "w"), (1, 1)])
@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_what_is_read_right_is_the_same_there(
    tmp_path: Path, size: tuple[str | int, str | int], batch: str | int
) -> None:
    path = write(tmp_path / "teacher.onnx", size=size, batch=batch)
    assert require_as_in_engine(read_teacher(path, probe=False)) == ""
    for by in (0.02, -0.02):
        with pytest.raises(InvalidInput, match=r"teacher\.onnx: is read as another network than ONNX Runtime makes"):
            require_as_in_engine(misread(path, by))


def test_files_of_half_precision_are_the_same_there(tmp_path: Path) -> None:
    net = compile_to_plain(read_teacher(write(tmp_path / "teacher.onnx"), probe=False))
    export_onnx(net, tmp_path / "half.onnx", dtype="float16")
    assert require_as_in_engine(read_teacher(tmp_path / "half.onnx", probe=False)) == ""
    with pytest.raises(InvalidInput, match="another network"):
        require_as_in_engine(misread(tmp_path / "half.onnx", 0.1))


def test_a_result_of_another_size_is_another_network(tmp_path: Path) -> None:
    path = write(tmp_path / "teacher.onnx")
    teacher = read_teacher(path, probe=False)
    larger = replace(teacher, module=nn.Sequential(teacher.module, nn.Upsample(scale_factor=2)))
    with pytest.raises(InvalidInput, match=r"it gives \(1, 3, 96, 124\), and there \(1, 3, 48, 62\)"):
        require_as_in_engine(larger)


def test_what_is_not_compared_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = read_teacher(write(tmp_path / "teacher.onnx"), probe=False)
    with monkeypatch.context() as patched:
        patched.setattr(beside_engine, "_MOST", 1)
        assert require_as_in_engine(teacher) == f"{NOT}an image of 24x31, the smallest that is tried, takes long"

    def refuse(*_: object, **__: object) -> None:
        raise MemsrError("ONNX Runtime is not installed; it runs networks")

    monkeypatch.setattr(beside_engine, "OrtNetwork", refuse)
    assert require_as_in_engine(teacher) == f"{NOT}ONNX Runtime is not installed; it runs networks"


@pytest.mark.parametrize("name", ["teacher.bin", "teacher", "teacher.pth"])
@pytest.mark.parametrize("channels", [3, "c"])
def test_files_are_compared_whatever_their_names_and_channels(tmp_path: Path, name: str, channels: str | int) -> None:
    """What decides how a file is read is its content; a number of channels that is free, the first convolution has."""
    path = write(tmp_path / "written.onnx", channels=channels).rename(tmp_path / name)
    assert require_as_in_engine(read_teacher(path, probe=False)) == ""
    with pytest.raises(InvalidInput, match="is read as another network than ONNX Runtime makes of it"):
        require_as_in_engine(misread(path, 0.02))


def test_a_file_that_has_vanished_is_not_compared(tmp_path: Path) -> None:
    teacher = read_teacher(write(tmp_path / "teacher.onnx"), probe=False)
    (tmp_path / "teacher.onnx").unlink()
    assert require_as_in_engine(teacher).startswith(NOT)


def test_other_files_are_not_compared(tmp_path: Path) -> None:
    write_teacher(EDSR(scale=2, blocks=1, channels=8), tmp_path / "teacher.pt")
    assert require_as_in_engine(read_teacher(tmp_path / "teacher.pt", probe=False)) == ""


@pytest.mark.parametrize(
    ("name", "free"), [("teacher.tflite", True), ("teacher.tflite", False), ("teacher.lite", True)]
)
def test_tflite_files_are_compared_with_litert(tmp_path: Path, name: str, free: bool) -> None:
    pytest.importorskip("ai_edge_litert")
    from helpers.tflite_files import TfliteGraph

    torch.manual_seed(0)
    graph = TfliteGraph(free=free)
    features = graph.conv(0, torch.randn(8, 3, 3, 3).numpy() / 5, torch.randn(8).numpy(), FusedActivationFunction=1)
    wide = graph.conv(features, torch.randn(12, 3, 3, 8).numpy() / 5, torch.randn(12).numpy())
    graph.op("DEPTH_TO_SPACE", wide, table="DepthToSpaceOptions", BlockSize=2)
    path = graph.write(tmp_path / name)
    assert require_as_in_engine(read_teacher(path, probe=False)) == ""
    for by in (0.02, -0.02):
        with pytest.raises(
            InvalidInput, match=r"teacher\.t?f?lite: is read as another network than LiteRT makes of it"
        ):
            require_as_in_engine(misread(path, by))


def test_without_litert_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = replace(read_teacher(write(tmp_path / "teacher.onnx"), probe=False), path=tmp_path / "teacher.tflite")

    def refuse(*_: object, **__: object) -> None:
        raise MemsrError("LiteRT is not installed")

    monkeypatch.setattr(beside_engine, "LiteRTNetwork", refuse)
    assert require_as_in_engine(teacher) == "was not compared with LiteRT: LiteRT is not installed"
