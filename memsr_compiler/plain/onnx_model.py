"""The ONNX model of a plain network without its weights.

It depends on the manifest and the opset alone, which is what lets `plain/read` read a model: it rebuilds it from what
the metadata say and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from memsr_compiler.files import DIGEST_KEY, NO_DIGEST
from memsr_compiler.plain.manifest import REPEATED, Manifest

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSETS = range(13, 24)
_IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}


def build_skeleton(manifest: Manifest, opset: int, location: str) -> ModelProto:
    """The model of the plain network with this manifest, without weights and with NO_DIGEST for a digest.

    location  name of the file that the weights are in; "": they belong into raw_data
    """
    from onnx import TensorProto, helper

    element = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}[
        manifest.dtype
    ]
    info, end = manifest.info, manifest.layers[-1]
    made = list(_nodes(manifest))
    nodes = [node for node, _, _ in made]
    values = [
        helper.make_tensor_value_info(node.output[0], element, _shape(channels, scale))
        for node, channels, scale in made[:-1]
    ]
    nodes[-1].output[0] = "upscaled"
    initializers = list(_tensors(manifest, element, location))
    if info.image_skip == REPEATED:
        repeat = np.repeat(np.eye(info.channels), info.scale**2, axis=0)[..., None, None]
        initializers.append(helper.make_tensor("image_skip.weight", element, repeat.shape, repeat.flatten()))
    elif info.image_skip:
        scales = [1.0, 1.0, float(info.scale), float(info.scale)]
        initializers.append(helper.make_tensor("image_skip.scales", TensorProto.FLOAT, [4], scales))
    low, high = info.input_range
    image = helper.make_tensor_value_info(
        "image",
        element,
        _shape(info.channels, 1),
        f"NCHW, {manifest.dtype}, values {low} to {high}",
    )
    upscaled = helper.make_tensor_value_info(
        "upscaled",
        element,
        ["batch", end.weight[0] // end.shuffle**2, f"height*{info.scale}", f"width*{info.scale}"],
        f"NCHW, {manifest.dtype}, in the range of the image and not clipped to it",
    )
    tool, _, version = info.tool.partition(" ")
    model: ModelProto = helper.make_model(
        helper.make_graph(nodes, "plain_network", [image], [upscaled], initializers, value_info=values),
        producer_name=tool,
        producer_version=version,
        ir_version=_IR_VERSIONS[opset],
        opset_imports=[helper.make_opsetid("", opset)],
    )
    for key, text in (*manifest.to_strings().items(), (DIGEST_KEY, NO_DIGEST)):
        model.metadata_props.add(key=key, value=text)
    return model


def _shape(channels: int, scale: int) -> list[str | int]:
    """Shape of images that are `scale` times as large as the input."""
    times = f"*{scale}" if scale > 1 else ""
    return ["batch", channels, f"height{times}", f"width{times}"]


def _nodes(manifest: Manifest) -> Iterator[tuple[NodeProto, int, int]]:
    """The nodes in order, each called after the value that it makes, with its channels and scale.

    ONNX Runtime cannot tell the sizes of what convolutions make of images of any size.  Where it is told them, it adds
    two values in the place of one, and in the last convolution: a student with the image outside takes up to a third
    less memory.
    """
    from onnx import helper

    value, scale = "image", 1
    for i, layer in enumerate(manifest.layers):
        channels, _, k, _ = layer.weight
        inputs = [value, f"layers.{i}.weight", f"layers.{i}.bias"]
        value = f"layers.{i}.conv"
        yield helper.make_node("Conv", inputs, [value], value, kernel_shape=[k, k], pads=[k // 2] * 4), channels, scale
        if layer.relu:
            inputs, value = [value], f"layers.{i}.relu"
            yield helper.make_node("Relu", inputs, [value], value), channels, scale
        if layer.prelu:
            inputs, value = [value, f"layers.{i}.slope"], f"layers.{i}.prelu"
            yield helper.make_node("PRelu", inputs, [value], value), channels, scale
        if manifest.info.image_skip == REPEATED and i == len(manifest.layers) - 1:
            name = "image_skip.repeated"
            node = helper.make_node("Conv", ["image", "image_skip.weight"], [name], name, kernel_shape=[1, 1])
            yield node, channels, scale
            # In this order: ONNX Runtime computes a sum's last operand first, and would hold this one all along.
            inputs, value = [name, value], "image_skip.sum"
            yield helper.make_node("Add", inputs, [value], value), channels, scale
        if layer.shuffle > 1:
            channels, scale = channels // layer.shuffle**2, scale * layer.shuffle
            inputs, value = [value], f"layers.{i}.shuffle"
            node = helper.make_node("DepthToSpace", inputs, [value], value, blocksize=layer.shuffle, mode="CRD")
            yield node, channels, scale
    if manifest.info.image_skip not in ("", REPEATED):
        yield _resize(manifest.info.image_skip), channels, scale
        inputs, value = [value, "image_skip.enlarged"], "image_skip.sum"
        yield helper.make_node("Add", inputs, [value], value), channels, scale


def _resize(mode: str) -> NodeProto:
    """torch's interpolate(image, scale_factor=s, mode=mode, align_corners=False) for an integer s.

    torch takes pixel x of the result from (x + 0.5) / s - 0.5 and repeats the border, for any size: that is
    half_pixel. pytorch_half_pixel differs only where the result is one pixel wide; then s is 1 and both take
    pixel 0.
    """
    from onnx import helper

    node = helper.make_node(
        "Resize",
        ["image", "", "image_skip.scales"],
        ["image_skip.enlarged"],
        "image_skip.enlarged",
        coordinate_transformation_mode="half_pixel",
        mode={"bicubic": "cubic", "bilinear": "linear"}[mode],
    )
    if mode == "bicubic":
        node.attribute.append(helper.make_attribute("cubic_coeff_a", -0.75))
    return node


def _tensors(manifest: Manifest, element: int, location: str) -> Iterator[TensorProto]:
    """The weights' names, shapes and, for weights in a file, where in it they are."""
    from onnx import TensorProto

    offset, sizes = 0, manifest.sizes
    for name, shape in manifest.shapes.items():
        tensor = TensorProto(name=name, data_type=element, dims=shape)
        if location:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", str(offset)), ("length", str(sizes[name]))):
                tensor.external_data.add(key=key, value=value)
            offset += sizes[name]
        yield tensor
