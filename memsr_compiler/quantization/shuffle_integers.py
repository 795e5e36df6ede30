"""The pixel shuffle at the end of an 8-bit network, of integers in place of the numbers that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto


def shuffle_integers(model: ModelProto) -> None:
    """Quantise behind the last pixel shuffle of a QDQ model what was quantised before it, in the same steps.

    That changes no number, and lets ONNX Runtime shuffle the integers: the enlarged image, the largest of a network's
    tensors, is there once in floating point and not twice.  A model that does not end so stays as it is.
    """
    nodes, result = model.graph.node, model.graph.output[0].name
    makers = {node.output[0]: node for node in nodes}
    shuffle = makers.get(result)
    if shuffle is None or shuffle.op_type != "DepthToSpace":
        return
    before = makers.get(shuffle.input[0])
    if before is None or before.op_type != "DequantizeLinear":
        return
    taken = {node.name for node in nodes} | {name for node in nodes for name in (*node.input, *node.output)}
    shuffled, integers, back = (_choose_free(f"{result}.{word}", taken) for word in ("shuffled", "integers", "back"))
    steps = before.input[1:]
    shuffle.output[0] = shuffled
    nodes.add(op_type="QuantizeLinear", name=integers, input=[shuffled, *steps], output=[integers])
    nodes.add(op_type="DequantizeLinear", name=back, input=[integers, *steps], output=[result])


def _choose_free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
