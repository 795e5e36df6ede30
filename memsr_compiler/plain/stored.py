"""A network as it goes into a file: its numbers in a dtype, and the manifest that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.manifest import Dtype, LayerShape, Manifest
from memsr_compiler.plain.network import PlainNet, layers_sha256, tensor_sha256
from memsr_compiler.proof.checker import Layer

TORCH: dict[Dtype, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True)
class Rounding:
    """Change of the weights by storing them in another dtype.

    relative  largest |stored - own| of a weight or bias, relative to the largest magnitude in its tensor
    absolute  the same, not divided
    flushed   how many became 0 that were not
    coarse    how many are below the dtype's normal numbers and have lost digits to that, those that became 0 included
    """

    relative: float = 0.0
    absolute: float = 0.0
    flushed: int = 0
    coarse: int = 0


def describe(net: PlainNet, dtype: Dtype, *, certificate_inside: bool) -> tuple[Manifest, str, Rounding]:
    """The manifest of a network to be stored in a dtype, its certificate's text ("": none), and the rounding.

    The certificate names the weights as stored. Raises ExportError for weights that are not finite or not
    within range of the dtype, for layers that do not fit each other, and for a certificate of other weights.
    """
    layers = tuple(LayerShape(_four(layer.weight), layer.relu, layer.shuffle, layer.slope is not None) for layer in net)
    manifest = Manifest(PlainInfo.from_strings(net.info.to_strings()), dtype, layers)
    try:
        manifest.check()
    except InvalidInput as error:
        raise ExportError(f"the network cannot be stored: {error}") from None
    hashes, rounding = {}, Rounding()
    for name, tensor in named_tensors(net):
        kept = round_to(name, tensor, dtype)
        if kept.shape != manifest.shapes[name]:
            raise ExportError(f"{name}: has the shape {tuple(kept.shape)}, where {manifest.shapes[name]} is due.")
        hashes[name] = tensor_sha256(kept)
        rounding = _worse(rounding, tensor, kept)
    manifest = replace(manifest, hashes=hashes, plain_sha256=sha256_in(net, TORCH[dtype]))
    text = _certificate_for(net, manifest)
    digest = hashlib.sha256(text.encode()).hexdigest() if text else ""
    manifest = replace(manifest, certificate_sha256=digest, certificate=text if certificate_inside else "")
    return manifest, text, rounding


def named_tensors(net: PlainNet) -> Iterator[tuple[str, Tensor]]:
    """Weights, biases and slopes as they are, on the CPU, in the order of Manifest.shapes."""
    for i, layer in enumerate(net.checkable()):
        yield f"layers.{i}.weight", layer.weight
        yield f"layers.{i}.bias", layer.bias
        if layer.slope is not None:
            yield f"layers.{i}.slope", layer.slope


def round_to(name: str, tensor: Tensor, dtype: Dtype) -> Tensor:
    """Round a tensor to the nearest numbers of a dtype.  Raises ExportError if not finite or out of range."""
    require_finite(name, tensor)
    limit = torch.finfo(TORCH[dtype]).max
    peak = float(tensor.abs().max())
    if peak > limit:
        raise ExportError(
            f"{name}: {peak:.6g} is beyond {dtype}, whose largest value is {limit:.6g}. Use a wider dtype."
        )
    return tensor.to(TORCH[dtype]).contiguous()


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise ExportError for weights that are NaN or infinite."""
    if not torch.isfinite(tensor).all():
        raise ExportError(f"{name}: holds NaN or infinite weights. Train again from an earlier checkpoint.")


def raw_bytes(tensor: Tensor) -> memoryview:
    """A CPU tensor's bytes, little-endian, in C order; no copy where that is how they are in memory."""
    numbers = tensor.contiguous().numpy()
    little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8).data


def sha256_in(net: PlainNet, dtype: torch.dtype) -> str:
    """Hash of what the network computes, its weights rounded to a dtype."""
    return layers_sha256(
        Layer(x.weight.to(dtype), x.bias.to(dtype), x.relu, x.shuffle, None if x.slope is None else x.slope.to(dtype))
        for x in net.checkable()
    )


def _certificate_for(net: PlainNet, manifest: Manifest) -> str:
    """The network's certificate, naming the weights as stored, as text.

    The certificate is about weights rounded to one dtype, `proved`: the network's own or, after `.double()`,
    a narrower one. Rounded further it stays true; of a wider dtype the checker wants weights closer to the
    teacher's than these are.
    """
    if net.certificate is None:
        return ""
    want, proved = TORCH[manifest.dtype], find_proved_dtype(net)
    if proved is None:
        raise ExportError(
            "the certificate is not of these weights, which were changed since. "
            "Set net.certificate = None to store them without one, or convert again."
        )
    if torch.finfo(want).eps < torch.finfo(proved).eps:
        was = str(proved).removeprefix("torch.")
        raise ExportError(
            f"the certificate proves the {was} weights, and {manifest.dtype} would promise more. Store them "
            f"in {was}, convert the teacher in {manifest.dtype}, or set net.certificate = None."
        )
    return replace(net.certificate, plain_sha256=manifest.plain_sha256).to_json()


def find_proved_dtype(net: PlainNet) -> torch.dtype | None:
    """The dtype in which the certificate is about these weights: their own, or a narrower one after `.double()`.

    None where there is no certificate, or it is of other weights.
    """
    if net.certificate is None:
        return None
    have = net[0].weight.dtype
    narrower = (d for d in (torch.float32, torch.float16) if torch.finfo(d).eps > torch.finfo(have).eps)
    return next((d for d in (have, *narrower) if sha256_in(net, d) == net.certificate.plain_sha256), None)


def _worse(so_far: Rounding, tensor: Tensor, kept: Tensor) -> Rounding:
    if tensor.dtype == kept.dtype:
        return so_far
    difference = float((kept.double() - tensor.double()).abs().max())
    peak = float(tensor.abs().max())
    small = tensor.abs() < torch.finfo(kept.dtype).smallest_normal
    return Rounding(
        max(so_far.relative, difference / peak if peak else 0.0),
        max(so_far.absolute, difference),
        so_far.flushed + int(((kept == 0) & (tensor != 0)).sum()),
        so_far.coarse + int((small & (kept.double() != tensor.double())).sum()),
    )


def _four(weight: Tensor) -> tuple[int, int, int, int]:
    a, b, c, d = weight.shape
    return a, b, c, d
