"""A plain network as an ONNX model: Conv, Relu and DepthToSpace; Resize and Add for an outside image skip.

The model is written node by node from the plain network, nothing is traced. Opset 17 by default: every
operator here has had its meaning since opset 13, so any runtime of the last years reads it, and newer opsets
would gain nothing.

`skeleton` gives the model without its weights. It depends on the manifest and the opset alone, which is what
lets `storage.load_plain` read a model: it rebuilds it from what the metadata say and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from memsr_compiler.atomic import atomic_write_together
from memsr_compiler.errors import ExportError
from memsr_compiler.manifest import DTYPES, Dtype, Manifest, Rounding, describe, named_tensors, raw, stored
from memsr_compiler.plain import PlainNet

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSETS = range(13, 24)
DIGEST_KEY = "file_sha256"
"""The last metadata entry. Its value, 64 characters, ends the file: the SHA-256 of all that comes before."""

NO_DIGEST = "0" * 64

_INLINE_BYTES = (2 << 30) - (64 << 20)  # a protobuf message ends at 2 GiB; the rest is for the graph and metadata
_CHUNK = 1 << 22
_IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    path, bytes, sha256   the .onnx file
    files                 all files: external weights and the certificate beside it, if any; the .onnx last
    dtype                 of the weights, of the input and of the output
    opset                 of the default ONNX domain
    plain_sha256          of what the network computes, with the weights as stored
    certificate           "beside", "inside", or "none" for a network that has none
    rounding              what storing in this dtype did to the weights
    """

    path: Path
    bytes: int
    sha256: str
    files: tuple[Path, ...]
    dtype: Dtype
    opset: int
    plain_sha256: str
    certificate: Literal["beside", "inside", "none"]
    rounding: Rounding


def certificate_path(path: str | Path) -> Path:
    """Where the certificate of an .onnx file is, if it is beside it: plain.onnx has plain.cert.json."""
    return Path(path).with_suffix(".cert.json")


def export_onnx(
    net: PlainNet,
    path: str | Path,
    *,
    dtype: Dtype = "float32",
    certificate: Literal["beside", "inside"] = "beside",
    opset: int = 17,
) -> ExportReport:
    """Write an ONNX model of a plain network.

    dtype        of the weights, of the input "image" (batch, C, height, width) and of the output "upscaled":
                 there is no Cast, so a float16 model takes and gives float16. float64 is for storage and for
                 reference evaluators; ONNX Runtime has no kernels for it on the CPU
    certificate  "beside": in <stem>.cert.json; "inside": in the model's metadata. It names the weights as
                 they are stored
    opset        one of OPSETS

    Weights beyond 2 GiB go to <stem>.onnx.data beside the model, layer by layer. All files appear, or none;
    what is written has passed ONNX's own checker with strict shape inference, and was read back. Raises
    ExportError where writing fails, and for weights that the dtype cannot hold or that the certificate is not
    about.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: an ONNX model needs the extension .onnx. Give it.")
    if dtype not in DTYPES:
        raise ExportError(f"dtype '{dtype}' is none of {', '.join(DTYPES)}.")
    if certificate not in ("beside", "inside"):
        raise ExportError(f"certificate '{certificate}' is neither beside nor inside.")
    if opset not in OPSETS:
        raise ExportError(
            f"opset {opset} is not within {OPSETS[0]} to {OPSETS[-1]}. Use 17 unless a runtime wants another."
        )
    manifest, proof, rounding = describe(net, dtype, certificate_inside=certificate == "inside")
    external = sum(manifest.sizes.values()) + len(manifest.certificate) > _INLINE_BYTES
    data, beside = path.with_name(path.name + ".data"), certificate_path(path)
    files = (*([data] if external else []), *([beside] if proof and certificate == "beside" else []), path)
    with atomic_write_together(files) as staged:
        model = skeleton(manifest, opset, data.name if external else "")
        if external:
            _write_weights(net, manifest, staged[0])
        else:
            for tensor, content in zip(model.graph.initializer, _contents(net, manifest), strict=False):
                tensor.raw_data = bytes(content)
        if beside in files:
            staged[files.index(beside)].write_bytes(proof.encode())
        sha256 = _write_model(model, staged[-1])
        del model
        _check(staged[-1], path)
        size = staged[-1].stat().st_size
    return ExportReport(
        path=path,
        bytes=size,
        sha256=sha256,
        files=files,
        dtype=dtype,
        opset=opset,
        plain_sha256=manifest.plain_sha256,
        certificate=certificate if proof else "none",
        rounding=rounding,
    )


def skeleton(manifest: Manifest, opset: int, location: str) -> ModelProto:
    """The model of the plain network with this manifest, without weights and with NO_DIGEST for a digest.

    location  name of the file that the weights are in; "": they belong into raw_data
    """
    from onnx import TensorProto, helper

    element = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}[
        manifest.dtype
    ]
    info, end = manifest.info, manifest.layers[-1]
    nodes = list(_nodes(manifest))
    nodes[-1].output[0] = "upscaled"
    initializers = list(_tensors(manifest, element, location))
    if info.image_skip:
        scales = [1.0, 1.0, float(info.scale), float(info.scale)]
        initializers.append(helper.make_tensor("image_skip.scales", TensorProto.FLOAT, [4], scales))
    low, high = info.input_range
    image = helper.make_tensor_value_info(
        "image",
        element,
        ["batch", info.channels, "height", "width"],
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
        helper.make_graph(nodes, "plain_network", [image], [upscaled], initializers),
        producer_name=tool,
        producer_version=version,
        ir_version=_IR_VERSIONS[opset],
        opset_imports=[helper.make_opsetid("", opset)],
    )
    for key, text in (*manifest.to_strings().items(), (DIGEST_KEY, NO_DIGEST)):
        model.metadata_props.add(key=key, value=text)
    return model


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _nodes(manifest: Manifest) -> Iterator[NodeProto]:
    """In order, each called after the value that it makes."""
    from onnx import helper

    value = "image"
    for i, layer in enumerate(manifest.layers):
        k = layer.weight[-1]
        inputs = [value, f"layers.{i}.weight", f"layers.{i}.bias"]
        value = f"layers.{i}.conv"
        yield helper.make_node("Conv", inputs, [value], value, kernel_shape=[k, k], pads=[k // 2] * 4)
        if layer.relu:
            inputs, value = [value], f"layers.{i}.relu"
            yield helper.make_node("Relu", inputs, [value], value)
        if layer.shuffle > 1:
            inputs, value = [value], f"layers.{i}.shuffle"
            yield helper.make_node("DepthToSpace", inputs, [value], value, blocksize=layer.shuffle, mode="CRD")
    if manifest.info.image_skip:
        yield _resize(manifest.info.image_skip)
        yield helper.make_node("Add", [value, "image_skip.enlarged"], ["image_skip.sum"], "image_skip.sum")


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


def _contents(net: PlainNet, manifest: Manifest) -> Iterator[memoryview]:
    """The weights' bytes, one tensor at a time, in the order of the manifest."""
    for name, given in named_tensors(net):
        yield raw(stored(name, given, manifest.dtype))


def _write_weights(net: PlainNet, manifest: Manifest, path: Path) -> None:
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for content in _contents(net, manifest):
            digest.update(content)
            file.write(content)
    _require_digest(path, digest.hexdigest())


def _write_model(model: ModelProto, path: Path) -> str:
    """Write it with its digest; the whole file's SHA-256."""
    content = model.SerializeToString(deterministic=True)
    body = memoryview(content)[: -len(NO_DIGEST)]
    assert content.endswith(NO_DIGEST.encode()), "the last metadata entry ends the file"
    digest = hashlib.sha256(body)
    end = digest.hexdigest().encode()
    digest.update(end)
    with open(path, "wb") as file:
        file.write(body)
        file.write(end)
    _require_digest(path, digest.hexdigest())
    return digest.hexdigest()


def _require_digest(path: Path, sha256: str) -> None:
    if file_digest(path) != sha256:
        raise ExportError(
            f"{path.name}: what was read back is not what was written. The disk is failing; write elsewhere."
        )


def _check(written: Path, path: Path) -> None:
    """ONNX's own opinion of the file, shapes inferred strictly."""
    import onnx

    try:
        onnx.checker.check_model(str(written), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{path}: ONNX's checker refuses the model ({reason}). Please report this.") from error
