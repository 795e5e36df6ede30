"""ONNX files made by hand, and what the reader must make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

from memsr_compiler.errors import MemsrError, UnsupportedModel
from memsr_compiler.trace.onnx.reader import load_onnx
from memsr_compiler.trace.trace import GraphModule

SIZES = ((1, 1), (1, 3), (2, 2), (5, 4), (7, 9))
FREE = ("n", 3, "h", "w")
Shape = Sequence[int | str | None]
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(*shape: int, low: int = -2, high: int = 2, seed: int = 0) -> np.ndarray:
    """Small whole numbers in float32."""
    return np.random.default_rng(seed + sum(shape)).integers(low, high + 1, shape).astype(np.float32)


def node(op: str, inputs: str, outputs: str, *, name: str | None = None, **attributes: Any) -> onnx.NodeProto:
    """Operands separated by spaces; '-' is one left out."""
    names = ["" if i == "-" else i for i in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=name or f"/body/{op}", **attributes)


def model(
    nodes: Iterable[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    shape: Shape = FREE,
    opset: int = 17,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    seen: dict[str, int] = {}
    for n in (nodes := list(nodes)):  # ONNX Runtime wants different names
        seen[n.name] = seen.get(n.name, 0) + 1
        n.name += f"_{seen[n.name]}" if n.name and seen[n.name] > 1 else ""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(i, kind, shape) for i in inputs],
        [helper.make_tensor_value_info(o, kind, [None] * 4) for o in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def agrees(
    path: Path,
    *,
    sizes: Iterable[tuple[int, int]] = SIZES,
    channels: int = 3,
    batch: int = 2,
    tolerance: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> GraphModule:
    """The module that is read, after comparing it with ONNX Runtime."""
    read = load_onnx(path)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    for size in sizes:
        x = whole(batch, channels, *size, low=-3, high=3)
        (expected,) = session.run(None, {session.get_inputs()[0].name: x})
        found = read(torch.from_numpy(x).to(dtype))
        assert found.shape == expected.shape, size
        difference = float((found.double() - torch.from_numpy(expected).double()).abs().max())
        assert difference <= tolerance, (size, difference)
    return read


def refuses(path: Path, *parts: str, error: type[MemsrError] = UnsupportedModel) -> str:
    with pytest.raises(error) as caught:
        load_onnx(path)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "\n" not in message
    return message


def pieces(*steps: tuple[str, str], **weights: np.ndarray) -> list[onnx.NodeProto]:
    """Nodes one after another: (op, further operands)."""
    nodes, last = [], "x"
    for i, (op, further) in enumerate(steps):
        result = "y" if i == len(steps) - 1 else f"v{i}"
        nodes.append(node(op, f"{last} {further}", result, name=f"/body/body.{i}/{op}"))
        last = result
    return nodes


ONE = np.array([1.5], np.float32)


def small() -> onnx.ModelProto:
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")]
    return model(nodes, {"w": whole(2, 3, 3, 3), "b": whole(2)})
