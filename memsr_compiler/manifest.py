"""What a file of ours says about the plain network in it: text, the same in every format.

A manifest comes from a network that is about to be written, or from a file's metadata. In both cases it has
been checked to be consistent in itself; whether the weights are those it names is checked as they are read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from memsr_compiler.certificate import Certificate
from memsr_compiler.checker import Layer
from memsr_compiler.errors import CertificateError, ExportError, InvalidInput
from memsr_compiler.loading import PLAIN_FORMAT_KEY
from memsr_compiler.plain import PlainInfo, PlainLayer, PlainNet, layers_sha256, tensor_sha256

FORMAT = "memsr plain network 1"
Dtype = Literal["float32", "float16", "float64"]
DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "float64": torch.float64,
}
IMAGE_SKIPS = ("bilinear", "bicubic")
"""Ways to enlarge the image beside the network that every writer knows: torch's, with align_corners=False."""


_HASH = "sha256."  # prefix of the keys that hold a tensor's hash
_INFO = (
    "tool",
    "scale",
    "input_range",
    "channels",
    "carry",
    "guarantee",
    "teacher_sha256",
    "receptive_field",
    "image_skip",
)


@dataclass(frozen=True)
class Outline:
    """A layer without its numbers.  weight: the shape (C_out, C_in, k, k);  relu, shuffle: what follows."""

    weight: tuple[int, int, int, int]
    relu: bool
    shuffle: int


@dataclass(frozen=True)
class Manifest:
    """Everything a file holds but the numbers, and their hashes.

    dtype               in which the weights are stored
    hashes              SHA-256 of each tensor (dtype, shape, bytes), by its name
    plain_sha256        PlainNet.sha256() of the weights as stored
    certificate_sha256  of the certificate's text, wherever it is; "" if there is none
    certificate         that text, if it is inside the file; else ""
    """

    info: PlainInfo
    dtype: Dtype
    layers: tuple[Outline, ...]
    hashes: Mapping[str, str] = field(default_factory=dict)
    plain_sha256: str = ""
    certificate_sha256: str = ""
    certificate: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors by name, in the order in which they are stored."""
        found: dict[str, tuple[int, ...]] = {}
        for i, layer in enumerate(self.layers):
            found |= {f"layers.{i}.weight": layer.weight, f"layers.{i}.bias": layer.weight[:1]}
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor."""
        return {name: math.prod(shape) * DTYPES[self.dtype].itemsize for name, shape in self.shapes.items()}

    def to_strings(self) -> dict[str, str]:
        """For a file's metadata."""
        info = self.info.to_strings()
        layers = [{"weight": layer.weight, "relu": layer.relu, "shuffle": layer.shuffle} for layer in self.layers]
        text = {PLAIN_FORMAT_KEY: FORMAT} | {key: info[key] for key in _INFO}
        text |= {
            "dtype": self.dtype,
            "layers": json.dumps(layers, separators=(",", ":")),
            "plain_sha256": self.plain_sha256,
        }
        text |= {_HASH + name: self.hashes[name] for name in self.shapes}
        if self.certificate_sha256:
            text["certificate_sha256"] = self.certificate_sha256
        return text | ({"certificate": self.certificate} if self.certificate else {})

    @staticmethod
    def from_strings(text: Mapping[str, str]) -> Manifest:
        """The inverse.  Raises InvalidInput unless this is exactly what to_strings writes of a network."""
        stated = text.get(PLAIN_FORMAT_KEY)
        if stated is None:
            raise InvalidInput("is not a plain network of ours. Make one with memsrc convert.")
        if stated != FORMAT:
            raise InvalidInput(
                f"is a '{stated}', and only '{FORMAT}' is read here. Update memsr_compiler, or convert again."
            )
        try:
            dtype = text["dtype"]
            if dtype not in DTYPES:
                raise ValueError(f"dtype {dtype}")
            found = Manifest(
                info=PlainInfo.from_strings(text),
                dtype=dtype,
                layers=tuple(_outline(layer) for layer in json.loads(text["layers"])),
                hashes={key.removeprefix(_HASH): value for key, value in text.items() if key.startswith(_HASH)},
                plain_sha256=text["plain_sha256"],
                certificate_sha256=text.get("certificate_sha256", ""),
                certificate=text.get("certificate", ""),
            )
            canonical = found.to_strings() == dict(text)
        except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise InvalidInput(f"its metadata are damaged ({type(error).__name__}: {error}). {REGAIN}") from None
        if not canonical:
            raise InvalidInput(f"its metadata are not as they were written. {REGAIN}")
        found.check()
        return found

    def check(self) -> None:
        """Raises InvalidInput unless the layers fit each other and the info."""
        info = self.info
        if not self.layers:
            raise InvalidInput("has no layers.")
        for i, layer in enumerate(self.layers):
            rows, columns, k, k2 = layer.weight
            if min(layer.weight) < 1 or k != k2 or k % 2 == 0:
                raise InvalidInput(f"layers.{i}: the kernel {rows}x{columns}x{k}x{k2} is not odd and square.")
            if layer.shuffle < 1 or rows % layer.shuffle**2:
                raise InvalidInput(f"layers.{i}: a pixel shuffle by {layer.shuffle} does not fit {rows} channels.")
        for i, (below, above) in enumerate(pairwise(self.layers), start=1):
            made = below.weight[0] // below.shuffle**2
            if above.weight[1] != made:
                raise InvalidInput(f"layers.{i}: takes {above.weight[1]} channels, is given {made}.")
        scale = math.prod(layer.shuffle for layer in self.layers)
        if scale != info.scale:
            raise InvalidInput(f"enlarges {scale} times, its info says {info.scale}.")
        if self.layers[0].weight[1] != info.channels:
            raise InvalidInput(f"takes {self.layers[0].weight[1]} channels, its info says {info.channels}.")
        if not (all(map(math.isfinite, info.input_range)) and info.input_range[0] < info.input_range[1]):
            raise InvalidInput(f"input range {info.input_range} is empty or infinite.")
        if info.image_skip not in ("", *IMAGE_SKIPS):
            raise InvalidInput(f"image skip '{info.image_skip}' is none of {', '.join(IMAGE_SKIPS)}.")
        if info.image_skip and self.layers[-1].weight[0] != info.channels * self.layers[-1].shuffle ** 2:
            raise InvalidInput("adds an image with other channels than its output's.")

    def check_tensor(self, name: str, tensor: Tensor) -> None:
        """Raises InvalidInput unless these are the numbers that were written, and finite."""
        if tensor_sha256(tensor) != self.hashes[name]:
            raise InvalidInput(f"{name}: is not as it was written, its SHA-256 differs. {REGAIN}")
        if not torch.isfinite(tensor).all():
            raise InvalidInput(f"{name}: holds NaN or infinite weights. {REGAIN}")

    def network(self, tensors: Mapping[str, Tensor], certificate: Certificate | None) -> PlainNet:
        """The network of these tensors, each checked before.  Raises InvalidInput if together they differ."""
        layers = [
            PlainLayer(
                tensors[f"layers.{i}.weight"],
                tensors[f"layers.{i}.bias"],
                relu=layer.relu,
                shuffle=layer.shuffle,
            )
            for i, layer in enumerate(self.layers)
        ]
        net = PlainNet(layers, self.info, certificate).eval()
        if net.sha256() != self.plain_sha256:
            raise InvalidInput(f"its weights are not those its metadata name, the SHA-256 differs. {REGAIN}")
        return net

    def certified(self, text: str) -> Certificate:
        """The certificate in its text.  Raises CertificateError unless it is this network's."""
        if hashlib.sha256(text.encode()).hexdigest() != self.certificate_sha256:
            raise CertificateError(f"its certificate was changed or damaged, its SHA-256 differs. {REGAIN}")
        try:
            certificate = Certificate.from_json(text)
        except (RecursionError, OverflowError) as error:
            raise CertificateError(f"not a certificate ({type(error).__name__}). {REGAIN}") from None
        if (certificate.plain_sha256, certificate.teacher_sha256) != (
            self.plain_sha256,
            self.info.teacher_sha256,
        ):
            raise CertificateError(f"its certificate belongs to another network. {REGAIN}")
        return certificate


REGAIN = "Get the file again where it came from, or convert the teacher again."


@dataclass(frozen=True)
class Rounding:
    """What storing the weights in another dtype did to them.

    relative  largest |stored - given| of a weight or bias, relative to the largest magnitude in its tensor
    absolute  the same, not divided
    flushed   how many became 0 that were not
    """

    relative: float = 0.0
    absolute: float = 0.0
    flushed: int = 0


def describe(net: PlainNet, dtype: Dtype, *, certificate_inside: bool) -> tuple[Manifest, str, Rounding]:
    """The manifest of a network to be stored in a dtype, its certificate's text ("": none), and the rounding.

    The certificate names the weights as stored. Raises ExportError for weights that are not finite or not
    within range of the dtype, for layers that do not fit each other, and for a certificate of other weights.
    """
    layers = tuple(Outline(_four(layer.weight), layer.relu, layer.shuffle) for layer in net)
    manifest = Manifest(PlainInfo.from_strings(net.info.to_strings()), dtype, layers)
    try:
        manifest.check()
    except InvalidInput as error:
        raise ExportError(f"the network cannot be stored: {error}") from None
    hashes, rounding = {}, Rounding()
    for name, given in named_tensors(net):
        kept = stored(name, given, dtype)
        hashes[name] = tensor_sha256(kept)
        rounding = _worse(rounding, given, kept)
    manifest = replace(manifest, hashes=hashes, plain_sha256=_sha256_in(net, DTYPES[dtype]))
    text = _certificate_for(net, manifest)
    digest = hashlib.sha256(text.encode()).hexdigest() if text else ""
    manifest = replace(manifest, certificate_sha256=digest, certificate=text if certificate_inside else "")
    return manifest, text, rounding


def named_tensors(net: PlainNet) -> Iterator[tuple[str, Tensor]]:
    """Weights and biases as they are, on the CPU, in the order of Manifest.shapes."""
    for i, layer in enumerate(net.checkable()):
        yield f"layers.{i}.weight", layer.weight
        yield f"layers.{i}.bias", layer.bias


def stored(name: str, given: Tensor, dtype: Dtype) -> Tensor:
    """The tensor in the dtype, rounded to nearest.  Raises ExportError if not finite or out of range."""
    if not torch.isfinite(given).all():
        raise ExportError(f"{name}: holds NaN or infinite weights. Train again from an earlier checkpoint.")
    limit = torch.finfo(DTYPES[dtype]).max
    peak = float(given.abs().max())
    if peak > limit:
        raise ExportError(
            f"{name}: {peak:.6g} is beyond {dtype}, whose largest value is {limit:.6g}. Use a wider dtype."
        )
    return given.to(DTYPES[dtype]).contiguous()


def raw(tensor: Tensor) -> memoryview:
    """A CPU tensor's bytes, little-endian, in C order; no copy where that is how they are in memory."""
    numbers = tensor.contiguous().numpy()
    little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8).data


def from_raw(data: bytearray, dtype: Dtype, shape: Sequence[int]) -> Tensor:
    """The tensor with these bytes, which it keeps using.  The inverse of raw."""
    numbers = np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<")).reshape(tuple(shape))
    return torch.from_numpy(numbers.astype(dtype, copy=False))


def _sha256_in(net: PlainNet, dtype: torch.dtype) -> str:
    layers = (Layer(x.weight.to(dtype), x.bias.to(dtype), x.relu, x.shuffle) for x in net.checkable())
    return layers_sha256(layers)


def _certificate_for(net: PlainNet, manifest: Manifest) -> str:
    """The network's certificate, naming the weights as stored, as text.

    The certificate is about weights rounded to one dtype, `proved`: the network's own or, after `.double()`,
    a narrower one. Rounded further it stays true; of a wider dtype the checker wants weights closer to the
    teacher's than these are.
    """
    if net.certificate is None:
        return ""
    have, want = net[0].weight.dtype, DTYPES[manifest.dtype]
    candidates = [
        have,
        *(d for d in (torch.float32, torch.float16) if torch.finfo(d).eps > torch.finfo(have).eps),
    ]
    claimed = net.certificate.plain_sha256
    proved = next((d for d in candidates if _sha256_in(net, d) == claimed), None)
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


def _worse(so_far: Rounding, given: Tensor, kept: Tensor) -> Rounding:
    if given.dtype == kept.dtype:
        return so_far
    difference = float((kept.double() - given.double()).abs().max())
    peak = float(given.abs().max())
    return Rounding(
        max(so_far.relative, difference / peak if peak else 0.0),
        max(so_far.absolute, difference),
        so_far.flushed + int(((kept == 0) & (given != 0)).sum()),
    )


def _four(weight: Tensor) -> tuple[int, int, int, int]:
    a, b, c, d = weight.shape
    return a, b, c, d


def _outline(data: Mapping[str, object]) -> Outline:
    match data:
        case {"weight": [int(a), int(b), int(c), int(d)], "relu": bool(relu), "shuffle": int(shuffle)}:
            return Outline((a, b, c, d), relu, shuffle)
    raise ValueError(f"layer {str(data)[:60]}")
