"""TFLite files run by LiteRT: ours say what they take, others are probed, and what it cannot run is refused by name."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers.image_pairs import write_pairs
from helpers.litert import LiteRT
from helpers.plain_nets import build, draw_image

from memsr_compiler import evaluate
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.quantization.quantize import quantize
from memsr_compiler.quantization.tflite import Ends, export_integers
from memsr_compiler.runtime.litert import LiteRTNetwork, _name_numbers, read_metadata
from memsr_compiler.runtime.one_size import OneSize, open_tflite
from memsr_compiler.runtime.open import NetworkFile, count_cost, open_model, open_runner
from memsr_compiler.trace.tflite.file import Network, Operator, Value

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite")

NET = build([8, 8], [3, 3, 3], image_skip="nearest", input_range=(0.0, 255.0))


def write_integers(net: PlainNet, folder: Path, ends: Ends = "int8") -> Path:
    """The network in 8 bits as .tflite, and as int8.onnx beside it."""
    info = net.info
    export_onnx(net, folder / "float.onnx")
    takes = Takes(info.scale, info.channels, info.input_range)
    cost = count_cost(NetworkFile(folder / "float.onnx"))[1]
    quantize(folder / "float.onnx", folder / "int8.onnx", [draw_image(net, 24, 24)], takes=takes, cost=cost)
    export_integers(folder / "int8.onnx", folder / "int8.tflite", ends=ends)
    return folder / "int8.tflite"


def write_foreign(path: Path, *, looks_everywhere: bool = False, size: tuple[int, int] | None = None) -> Path:
    """A network as somebody's converter writes it: repeated pixels, and a convolution that adds nothing to them.

    looks_everywhere   it also adds a part of the image's mean
    """
    from helpers.tflite_files import TfliteGraph

    height, width = size or (5, 7)
    graph = TfliteGraph(shape=(1, height, width, 3), free=size is None)
    none = np.zeros((12, 3, 3, 3), np.float32)
    repeat = np.tile(np.eye(3, dtype=np.float32), (4, 1))[:, None, None]
    repeated = graph.conv(0, repeat, np.zeros(12, np.float32))
    value = graph.op("ADD", graph.conv(0, none, none[:, 0, 0, 0]), repeated, table="AddOptions")
    if looks_everywhere:
        mean = graph.op(
            "MEAN", value, graph.constant(np.array([1, 2], np.int32)), table="ReducerOptions", KeepDims=True
        )
        value = graph.op("ADD", value, mean, table="AddOptions")
    graph.op("DEPTH_TO_SPACE", value, table="DepthToSpaceOptions", BlockSize=2)
    return graph.write(path)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float32", "float32, by LiteRT on the CPU"),
        ("float16", "float32 (so it computes float16 files there), by LiteRT on the CPU"),
    ],
)
def test_files_of_ours_say_what_they_take_and_cost(
    dtype: Literal["float32", "float16"], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.tflite"
    export_tflite(NET, path, dtype=dtype)
    export_onnx(NET, tmp_path / "net.onnx")
    model = open_model(NetworkFile(path), threads=1)
    assert model.takes == Takes(2, 3, (0.0, 255.0)) and model.assumed == ()
    assert model.network.arithmetic == words and model.network.engine == "LiteRT, cpu"
    x = torch.cat([draw_image(NET, 9, 14, seed) for seed in range(2)])
    allowed = 1e-5 if dtype == "float32" else 2e-3
    assert torch.allclose(model.network(x), NET(x), rtol=0, atol=255 * allowed)
    assert torch.equal(model.network(x[1:]), model.network(x)[1:])
    assert model.network(x.double()).dtype == torch.float64
    model.network.prepare(x)()
    assert count_cost(NetworkFile(path)) == count_cost(NetworkFile(tmp_path / "net.onnx"))
    with pytest.raises(InvalidInput, match="leave --input-range out"):
        open_model(NetworkFile(path, input_range=(0.0, 1.0)))


@pytest.mark.parametrize("ends", ["int8", "float32"])
def test_integers_are_rounded_once(ends: Ends, tmp_path: Path) -> None:
    path = write_integers(NET, tmp_path, ends)
    model = open_model(NetworkFile(path), threads=1)
    assert model.takes == Takes(2, 3, (0.0, 255.0))
    assert model.network.arithmetic == "8-bit integers, by LiteRT on the CPU"
    x = draw_image(NET, 11, 8)
    assert torch.equal(model.network(x), LiteRT(path)(x))
    difference = (model.network(x) - open_runner(NetworkFile(tmp_path / "int8.onnx"), threads=1)(x)).abs()
    assert float(difference.mean()) < 0.05, "of steps of a level: ONNX Runtime's integers are these"
    assert count_cost(NetworkFile(path)) == count_cost(NetworkFile(tmp_path / "float.onnx"))
    assert read_metadata(path)["source_sha256"]


def test_networks_of_others_are_run_as_they_are(tmp_path: Path) -> None:
    """By LiteRT, not by what torch makes of them; the range that they take is found on a photograph."""
    path = write_foreign(tmp_path / "theirs.tflite")
    model = open_model(NetworkFile(path))
    assert model.takes.scale == 2 and isinstance(model.network, LiteRTNetwork) and model.assumed
    told = open_model(NetworkFile(path, input_range=(0.0, 255.0)))
    assert told.takes.input_range == (0.0, 255.0) and not told.assumed
    x = torch.rand(1, 3, 9, 8)
    assert torch.equal(model.network(x), torch.nn.functional.interpolate(x, scale_factor=2))
    parameters, cost = count_cost(NetworkFile(path))
    assert cost is not None and parameters == 12 * 3 * 9 + 12 + 12 * 3 + 12


def test_a_file_of_one_size_takes_others_in_pieces(tmp_path: Path) -> None:
    export_tflite(NET, tmp_path / "fixed.tflite", size=(24, 20))
    network = open_tflite(tmp_path / "fixed.tflite", threads=1)
    assert isinstance(network, OneSize) and network.fixed == (24, 20)
    assert "fixed.tflite: takes images of 20x24 only (its file says so); others go through in pieces" in network.note
    for size in ((24, 20), (53, 41), (24, 33)):
        x = draw_image(NET, *size)
        assert torch.allclose(network(x), NET(x), rtol=0, atol=255e-5)


def test_pieces_are_refused_where_pixels_reach_too_far(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "mean.tflite", looks_everywhere=True, size=(24, 24))
    network = open_tflite(path, threads=1)
    assert network(torch.rand(1, 3, 24, 24)).shape == (1, 3, 48, 48)
    with pytest.raises(InvalidInput, match=r"mean\.tflite: takes images of 24x24 only .*Give images of that size"):
        network(torch.rand(1, 3, 24, 25))


def test_evaluate_runs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path / "data")
    path = write_foreign(tmp_path / "theirs.tflite")
    calls: list[tuple[int, ...]] = []
    real = LiteRTNetwork.__call__

    def spy(network: LiteRTNetwork, x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return real(network, x)

    monkeypatch.setattr(LiteRTNetwork, "__call__", spy)
    scores = evaluate(path, tmp_path / "data", takes=Takes(2))
    assert len(calls) >= len(scores) > 0
    assert all(0.5 < score.ssim < 1 and score.psnr > 15 for score in scores)
    with pytest.raises(InvalidInput, match="run by LiteRT, on the processor; leave --provider cuda out"):
        open_model(NetworkFile(path), provider="cuda")


def write_odd(path: Path, **options: Any) -> Path:
    from helpers.tflite_files import TfliteGraph

    graph = TfliteGraph(**options)
    channels = graph.shape[-1]
    y = graph.conv(0, np.zeros((12, 1, 1, channels), np.float32), np.zeros(12, np.float32))
    graph.op("DEPTH_TO_SPACE", y, table="DepthToSpaceOptions", BlockSize=2)
    return graph.write(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (1, 3, 8, 8), "free": False}, r"takes \(1, 3, 8, 8\); \(1, height, width, channels\) is wanted"),
        ({"shape": (2, 8, 8, 3), "free": False}, r"takes \(2, 8, 8, 3\)"),
    ],
)
def test_what_takes_no_image_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=rf"odd\.tflite: {words}"):
        LiteRTNetwork(write_odd(tmp_path / "odd.tflite", **options))


def test_damaged_files_are_told_as_such(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.tflite")
    content = path.read_bytes()
    for part in (content[: len(content) // 2], b"\0" * 8, content[:4] + b"TFL2" + content[8:]):
        path.write_bytes(part)
        with pytest.raises(InvalidInput, match=r"a\.tflite: .*(damaged|no TFLite file)"):
            open_runner(NetworkFile(path))
    path.write_bytes(content.replace(b"image", b"imag\xff"))
    with pytest.raises(InvalidInput, match=r"a\.tflite: LiteRT cannot run it: 'utf-8'"):
        open_runner(NetworkFile(path))


@pytest.mark.parametrize(
    ("operands", "words"),
    [
        ((0, -1, 1), r"does not survive running it \(SIG(SEGV|ABRT|BUS)\)|cannot run it: "),
        ((0, 2), r"cannot run it: .*has_bias .*CONV_2D.*; export the network again"),
    ],
)
def test_operands_left_out_end_no_process_of_ours(operands: tuple[int, ...], words: str, tmp_path: Path) -> None:
    """LiteRT reads where none is, and the process that runs it ends."""
    from helpers.tflite_files import TfliteGraph

    graph = TfliteGraph()
    graph.constant(np.zeros(12, np.float32))
    graph.constant(np.zeros((12, 1, 1, 3), np.float32))
    conv = graph.op("CONV_2D", *operands, table="Conv2DOptions", Padding=0, StrideW=1, StrideH=1)
    graph.op("DEPTH_TO_SPACE", conv, table="DepthToSpaceOptions", BlockSize=2)
    with pytest.raises(InvalidInput, match=rf"a\.tflite: LiteRT ({words})"):
        open_runner(NetworkFile(graph.write(tmp_path / "a.tflite")))


@pytest.mark.parametrize(("ends", "named"), [("FLOAT32", "float32"), ("INT8", "8-bit integers")])
def test_weights_stored_in_integers_are_no_sums_of_integers(ends: str, named: str) -> None:
    kinds = ("FLOAT32", "INT8", "FLOAT32", ends, "FLOAT32")
    values = tuple(Value(str(i), kind, (1, 8, 8, 3), None) for i, kind in enumerate(kinds))
    codes = [("DEQUANTIZE", (1,), 2), ("CONV_2D", (0, 2), 3), ("DEQUANTIZE", (3,), 4)]
    operators = tuple(Operator(code, code, inputs, (output,), {}) for code, inputs, output in codes)
    assert named in _name_numbers(Network(values, operators, 0, 4, {}))


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("ai_edge_litert"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    path = write_foreign(tmp_path / "a.tflite")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MemsrError, match=r"LiteRT .* is not installed.*pip install 'memsr_compiler\[tflite\]'"):
        open_runner(NetworkFile(path))
