"""Files of plain networks, written: .safetensors, or an ONNX model.

The ONNX model is written node by node from the plain network, nothing is traced: Conv, Relu (PRelu) and DepthToSpace;
Add for an outside image skip, with Resize unless that repeats pixels. Opset 17 by default: every operator here has had
its meaning since opset 13, so any runtime of the last years reads it, and newer opsets would gain nothing. The graph is
`onnx_model.build_skeleton`'s, the weights are put in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from memsr_compiler.errors import ExportError, first_line
from memsr_compiler.files import NO_DIGEST, atomic_write, atomic_write_together, file_digest, path_or_content
from memsr_compiler.plain.halves import LayerPeak, fit_to_half
from memsr_compiler.plain.manifest import DTYPES, Dtype, Manifest, certificate_path
from memsr_compiler.plain.network import PlainNet, require_plain
from memsr_compiler.plain.onnx_model import OPSETS, build_skeleton
from memsr_compiler.plain.probes import probe_images, sample_middles
from memsr_compiler.plain.read import build_header
from memsr_compiler.plain.stored import TORCH, Rounding, describe, named_tensors, raw_bytes, round_to

if TYPE_CHECKING:
    from onnx import ModelProto

_INLINE_BYTES = (2 << 30) - (64 << 20)  # a protobuf message ends at 2 GiB; the rest is for the graph and metadata


@dataclass(frozen=True)
class ExportReport:
    """Account of what was written.

    path, bytes, sha256   the .onnx file
    files                 all files: external weights and the certificate beside it, if any; the .onnx last
    dtype                 of the weights, of the input and of the output
    opset                 of the default ONNX domain
    plain_sha256          of what the network computes, with the weights as stored
    certificate           "beside", "inside", or "none" for a network that has none
    rounding              what storing in this dtype did to the weights
    peaks                 of each layer, for float16: largest value on probes and on the photographs that ship
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
    peaks: tuple[LayerPeak, ...] = ()


Judge: TypeAlias = "Callable[[Path | None, PlainNet, tuple[LayerPeak, ...]], None]"
"""What is asked before a file takes its name: given the ONNX model where it lies until then, the network whose weights,
rounded to the file's dtype, are in it, and for float16 the largest values of its layers.  If it raises, nothing is
written."""


def save_plain(net: PlainNet, path: str | PathLike[str], *, judge: Judge | None = None) -> None:
    """Write a plain network, its info and its certificate to a .safetensors file, in the weights' own dtype.

    judge   may refuse the network before it is written: see `Judge`

    The file appears whole or not at all. float16 weights are scaled as by `export_onnx`. Raises ExportError where
    it cannot be written, for weights that are not finite or not in float16, float32 or float64, for values that
    float16 cannot hold, and for a certificate of other weights.
    """
    require_plain(net)
    path = Path(path)
    own = net[0].weight.dtype
    dtype = next((name for name, known in TORCH.items() if known == own), None)
    if dtype is None:
        raise ExportError(f"{path}: weights of {own} are not stored, only {', '.join(TORCH)}. Use net.float().")
    net, peaks = fit(net, dtype)
    if judge is not None:
        judge(None, net, peaks)
    manifest, _, _ = describe(net, dtype, certificate_inside=True)
    start = build_header(manifest)
    digest = hashlib.sha256(start)
    with atomic_write(path) as file:
        file.write(start)
        for name, tensor in named_tensors(net):
            content = raw_bytes(round_to(name, tensor, dtype))
            digest.update(content)
            file.write(content)
        file.flush()
        if file_digest(Path(file.name)) != digest.hexdigest():
            raise ExportError(
                f"{path}: what was read back is not what was written. The disk is failing; write elsewhere."
            )


def export_onnx(
    net: PlainNet,
    path: str | PathLike[str],
    *,
    dtype: Dtype = "float32",
    certificate: Literal["beside", "inside"] = "beside",
    opset: int = 17,
    judge: Judge | None = None,
) -> ExportReport:
    """Write an ONNX model of a plain network.

    dtype        of the weights, of the input "image" (batch, C, height, width) and of the output "upscaled":
                 there is no Cast, so a float16 model takes and gives float16. float64 is for storage and for
                 reference evaluators; ONNX Runtime has no kernels for it on the CPU
    certificate  "beside": in <stem>.cert.json; "inside": in the model's metadata. It names the weights as
                 they are stored
    opset        one of OPSETS
    judge        may refuse the model before it takes its name: see `Judge`

    For float16 the largest value of every channel is measured, on probes and on the photographs that ship. Channels
    that come near its end, 65,504, are scaled by powers of two, which changes no digit; the certificate says which.

    Weights beyond 2 GiB go to <stem>.onnx.data beside the model, layer by layer. All files appear, or none;
    what is written has passed ONNX's own checker with strict shape inference, and was read back. Raises
    ExportError where writing fails, for weights and values that the dtype cannot hold, and for weights that the
    certificate is not about.
    """
    require_plain(net)
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
    net, peaks = fit(net, dtype)
    manifest, proof, rounding = describe(net, dtype, certificate_inside=certificate == "inside")
    external = sum(manifest.sizes.values()) + len(manifest.certificate) > _INLINE_BYTES
    data, beside = path.with_name(path.name + ".data"), certificate_path(path)
    files = (*([data] if external else []), *([beside] if proof and certificate == "beside" else []), path)
    with atomic_write_together(files) as staged:
        model = build_skeleton(manifest, opset, data.name if external else "")
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
        if judge is not None:
            judge(staged[-1], net, peaks)
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
        peaks=peaks,
    )


def fit(net: PlainNet, dtype: Dtype) -> tuple[PlainNet, tuple[LayerPeak, ...]]:
    """The network as it is to be stored in a dtype, and for float16 the largest value of each layer."""
    if dtype != "float16":
        return net, ()
    channels, input_range = net.info.channels, net.info.input_range
    return fit_to_half(net, probe_images(channels, input_range) | sample_middles(channels, input_range))


def _contents(net: PlainNet, manifest: Manifest) -> Iterator[memoryview]:
    """The weights' bytes, one tensor at a time, in the order of the manifest."""
    for name, tensor in named_tensors(net):
        yield raw_bytes(round_to(name, tensor, manifest.dtype))


def _write_weights(net: PlainNet, manifest: Manifest, path: Path) -> None:
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for content in _contents(net, manifest):
            digest.update(content)
            file.write(content)
    _require_digest(path, digest.hexdigest())


def _write_model(model: ModelProto, path: Path) -> str:
    """Write the model with its digest, and return the whole file's SHA-256."""
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
        onnx.checker.check_model(path_or_content(written), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = first_line(error)
        raise ExportError(f"{path}: ONNX's checker refuses the model ({reason}). Please report this.") from error
