"""The last pixel shuffle of an 8-bit network moves integers, and the result stays what it was."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from helpers.plain_nets import build, draw_image
from onnx import ModelProto

from memsr_compiler import export_onnx, quantize
from memsr_compiler.plain.info import Takes
from memsr_compiler.quantization.shuffle_integers import shuffle_integers


def write_integers(folder: Path, skip: str, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelProto, ModelProto]:
    """A network in 8 bits whose last shuffle moves numbers, and whose moves integers."""
    net = build([8, 8], [3, 3, 3], image_skip=skip)
    export_onnx(net, folder / "net.onnx")
    images, models = [draw_image(net, 20, 24, seed) for seed in range(2)], []
    for name, step in (("numbers", lambda model: None), ("integers", shuffle_integers)):
        monkeypatch.setattr("memsr_compiler.quantization.quantize.shuffle_integers", step)
        quantize(folder / "net.onnx", folder / f"{name}.onnx", images, takes=Takes(2, 3, (0.0, 1.0)))
        models.append(onnx.load(str(folder / f"{name}.onnx")))
    return models[0], models[1]


@pytest.mark.parametrize("skip", ["", "nearest"])
def test_the_engine_shuffles_integers_and_the_result_is_the_same(
    skip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_integers(tmp_path, skip, monkeypatch)
    image, results, types = torch.rand(1, 3, 9, 7).numpy(), [], []
    for name in ("numbers", "integers"):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"optimised-{name}.onnx")
        options.log_severity_level = 3  # it warns of a model for this processor only
        engine = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"), options, ["CPUExecutionProvider"])
        results.append(engine.run(None, {"image": image})[0])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        makers = {output: node.op_type for node in nodes for output in node.output}
        types.append([makers[node.input[0]] for node in nodes if node.op_type == "DepthToSpace"])
    assert (results[0] == results[1]).all()
    assert types[0] == ["DequantizeLinear"] and types[1] != ["DequantizeLinear"]


def test_the_steps_are_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = write_integers(tmp_path, "nearest", monkeypatch)
    *_, before, shuffle, quantize_, dequantize = model.graph.node
    assert [node.op_type for node in (before, shuffle, quantize_, dequantize)] == [
        "DequantizeLinear", "DepthToSpace", "QuantizeLinear", "DequantizeLinear",
    ]  # fmt: skip
    assert list(before.input[1:]) == list(quantize_.input[1:]) == list(dequantize.input[1:])
    assert dequantize.output[0] == model.graph.output[0].name
    onnx.checker.check_model(model, full_check=True)


def test_a_model_that_ends_otherwise_stays_as_it_is(tmp_path: Path) -> None:
    net = build([4], [3, 3], scale=1)
    export_onnx(net, tmp_path / "net.onnx")
    quantize(tmp_path / "net.onnx", tmp_path / "int8.onnx", [draw_image(net, 9, 9)], takes=Takes(1, 3, (0.0, 1.0)))
    model = onnx.load(str(tmp_path / "int8.onnx"))
    before = model.SerializeToString(deterministic=True)
    shuffle_integers(model)
    assert model.SerializeToString(deterministic=True) == before
