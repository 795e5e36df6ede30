"""Sizes that ONNX files fix, as torch's exporter does: what needs them, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from helpers.onnx_files import FREE, Shape, model, node, pieces, saved, whole

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.onnx.reader import load_onnx
from memsr_compiler.trace.onnx.sizes import fixed_sizes, free_sizes, what_needs_sizes
from memsr_compiler.trace.trace import trace

FIXED = (1, 3, 8, 8)
SAME: dict[str, Any] = {"pads": [1, 1, 1, 1]}


def network(*nodes: onnx.NodeProto, shape: Any = FIXED, **weights: Any) -> onnx.ModelProto:
    """A convolution, something, and a convolution."""
    first, last = node("Conv", "x w", "v", **SAME), node("Conv", "u w", "y", **SAME)
    return model([first, *nodes, last], {"w": whole(3, 3, 3, 3), **weights}, shape=shape)


ANYWHERE = {
    "shuffle": network(
        node("Concat", "v v v v", "c", axis=1), node("DepthToSpace", "c", "u", blocksize=2, mode="CRD")
    ),
    "skip": network(node("Relu", "v", "r"), node("Add", "r v", "u")),
    "scaled": network(node("Mul", "v k", "u"), k=whole(3, 1, 1, low=1)),
    "computed": network(
        node("Constant", "", "a", value_float=2.0), node("Sqrt", "a", "b"), node("Div", "v b", "u")
    ),
    "attention": network(
        node("GlobalAveragePool", "v", "p"), node("Sigmoid", "p", "s"), node("Mul", "v s", "u")
    ),
    "mean": network(node("ReduceMean", "v", "p", axes=[2, 3]), node("Add", "v p", "u")),
    "clip": network(node("Clip", "v low", "u"), low=np.array(0, np.float32)),
    "prelu": network(node("PRelu", "v slope", "u"), slope=whole(3, 1, 1)),
    "norm": network(node("BatchNormalization", "v g g g g", "u"), g=whole(3, low=1)),
    "resize": network(node("Resize", "v - k", "u", mode="linear"), k=np.array([1, 1, 2, 2], np.float32)),
    "pad": network(node("Pad", "v k", "u", mode="reflect"), k=np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "slice": network(
        node("Concat", "v v", "c", axis=1), node("Slice", "c from to axis", "u"),
        **{"from": np.array([1]), "to": np.array([4]), "axis": np.array([1])},
    ),
    "split": network(
        node("Concat", "v v", "c", axis=1), node("Split", "c k", "d u", axis=1), k=np.array([3, 3])
    ),
}  # fmt: skip
ONLY_THERE = {
    "Reshape": network(node("Reshape", "v k", "u"), k=np.array([1, 3, 8, 8])),
    "Add": network(node("Add", "v k", "u"), k=whole(1, 3, 8, 8)),  # positions
    "Mul": network(node("Mul", "v k", "u"), k=whole(8)),  # along the rows
    "Resize": network(node("Resize", "v - - k", "u"), k=np.array([1, 3, 16, 16])),
    "Concat": network(node("Concat", "v k", "u", axis=3), k=whole(1, 3, 8, 1)),
    "Pad": network(node("Pad", "v k", "u"), k=np.array([0, 0, 0, 0, 1, 0, 0, 0])),
    "Transpose": network(node("Transpose", "v", "u", perm=[0, 1, 3, 2])),
    "MaxPool": network(node("MaxPool", "v", "u", kernel_shape=[2, 2], strides=[2, 2])),
    "ReduceMean": network(node("ReduceMean", "v", "p", axes=[3]), node("Add", "p v", "u")),
    "Slice": network(
        node("Slice", "v from to axis", "u"), **{k: np.array([n]) for k, n in (("from", 1), ("to", 7), ("axis", 2))}
    ),
    "Softmax": network(node("Softmax", "v", "u", axis=-1)),
}


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    assert isinstance(y, np.ndarray)
    return y


@pytest.mark.parametrize("proto", ANYWHERE.values(), ids=ANYWHERE)
def test_what_is_the_same_network_at_any_size(proto: onnx.ModelProto, tmp_path: Path) -> None:
    assert what_needs_sizes(saved(proto, tmp_path)) == ""
    assert fixed_sizes(proto) == (1, 8, 8)
    x = whole(1, 3, 8, 8)
    before = run(proto, x)
    free_sizes(proto)
    onnx.checker.check_model(proto)
    assert fixed_sizes(proto) == (None, None, None)
    assert np.array_equal(run(proto, x), before)
    y = run(proto, whole(2, 3, 5, 11))
    assert y.shape[0] == 2 and y.shape[2] // 5 == y.shape[3] // 11 >= 1


@pytest.mark.parametrize("proto", ONLY_THERE.values(), ids=ONLY_THERE)
def test_what_is_another_function_at_another_size(proto: onnx.ModelProto, tmp_path: Path) -> None:
    (kind,) = [name for name, other in ONLY_THERE.items() if other is proto]
    assert what_needs_sizes(saved(proto, tmp_path)).endswith(f": {kind}")


def test_a_file_that_is_not_read_is_not_freed(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\0")
    assert what_needs_sizes(tmp_path / "x.onnx")
    operator = network(node("Relu", "v", "u"))
    operator.graph.node[1].domain = "somebody.s"
    operator.opset_import.add(domain="somebody.s", version=1)
    assert what_needs_sizes(saved(operator, tmp_path)).endswith(": Relu")


@pytest.mark.parametrize("shape", [(1, 3, "h", 8), (4, 3, 8, 8), ("n", 3, 1, 8), (2, 3, "size", "size")])
def test_teachers_with_odd_sizes_are_read_where_nothing_needs_them(shape: Shape, tmp_path: Path) -> None:
    steps = pieces(("Conv", "w"), ("Relu", ""), ("Conv", "w"))
    for step in (steps[0], steps[2]):
        step.attribute.append(onnx.helper.make_attribute("pads", [1, 1, 1, 1]))
    weights = {"w": whole(3, 3, 3, 3)}
    read = load_onnx(saved(model(steps, weights, shape=shape), tmp_path))
    expected = load_onnx(saved(model(steps, weights, shape=FREE), tmp_path))
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    assert torch.equal(read(x), expected(x))
    if shape[0] != "n" and shape[2:] != ("size", "size"):
        with pytest.raises(UnsupportedModel, match=r"the batch is fixed at|the image is (any|1|8)"):
            load_onnx(saved(network(node("Reshape", "v k", "u"), k=np.array([0, 3, 8, 8]), shape=shape), tmp_path))


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), ("n", "h", "w", 3), (1, 5, 8, 1)])
def test_channels_that_come_last_are_told(shape: Shape, tmp_path: Path) -> None:
    """As tf2onnx leaves them."""
    steps = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]), node("Conv", "a w", "b"),
        node("Transpose", "b", "y", perm=[0, 2, 3, 1]),
    ]  # fmt: skip
    path = saved(model(steps, {"w": whole(3, 1 if shape[3] == 1 else 3, 1, 1)}, shape=shape), tmp_path)
    with pytest.raises(UnsupportedModel, match=rf"x: its {shape[3]} channels come last.*--inputs-as-nchw x "):
        load_onnx(path)


@pytest.mark.parametrize(
    ("shape", "said"), [((1, 3, 8, 12), "exported for images of 8x12: read as for every size"), (FREE, "")]
)
def test_a_size_that_is_fixed_is_told(
    shape: Shape, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What pads to whole windows, say, was exported without the padding where none was needed."""
    read = load_onnx(saved(model([node("Conv", "x w", "y")], {"w": whole(3, 3, 1, 1)}, shape=shape), tmp_path))
    assert said in caplog.text and bool(said) == bool(caplog.text)
    assumed = ("it does the same at every size (it was exported for images of 8x12)",) if said else ()
    assert trace(read).assumed == assumed
