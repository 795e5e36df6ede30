"""Values inside an ONNX network, as ONNX Runtime computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Values = Sequence[NDArray[Any]]


class InnerValues:
    """Values of a model on some images.  What comes after the value last asked for may change between calls.

    The last value is kept, and the next one computed from it if it depends on nothing else; so that all layers of a
    chain take no longer than one run.
    """

    def __init__(self, model: ModelProto, images: Values) -> None:
        """Take a model and its only input, images (N, C, h, w) float32."""
        self._model = model
        self._images = self._held = images
        self._image = self._name = model.graph.input[0].name

    def of(self, name: str) -> Values:
        """The float32 tensor of that name, for each image."""
        if name == self._image:
            return self._images
        if name != self._name:
            nodes, reads = _before(self._model, name, {self._name, self._image})
            if reads == {self._name}:
                self._held = _run(self._model, nodes, self._name, name, self._held)
            else:
                nodes, _ = _before(self._model, name, {self._image})
                self._held = _run(self._model, nodes, self._image, name, self._images)
            self._name = name
        return self._held


def _before(model: ModelProto, wanted: str, known: set[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes, in order, that compute a tensor from given ones, and which of these they read."""
    needed, nodes = {wanted}, []
    reads = needed & known
    for node in reversed(model.graph.node):
        if (needed - known).intersection(node.output):
            nodes.append(node)
            reads |= known.intersection(node.input)
            needed.update(node.input)
    return nodes[::-1], reads


def _run(model: ModelProto, nodes: Sequence[NodeProto], start: str, end: str, values: Values) -> Values:
    import onnxruntime as ort
    from onnx import TensorProto, helper

    names = {name for node in nodes for name in node.input}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (start, end)]
    stored = [tensor for tensor in model.graph.initializer if tensor.name in names]
    part = helper.make_model(
        helper.make_graph(nodes, "part", ends[:1], ends[1:], stored),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.array(session.run([end], {start: value})[0]) for value in values]  # torch wants to write to it
