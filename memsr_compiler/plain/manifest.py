"""Manifests: what a file of ours says about the plain network in it, text, the same in every format.

A manifest comes from a network that is about to be written, or from a file's metadata. In both cases it has
been checked to be consistent in itself; whether the weights are those it names is checked as they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.files import numbers_sha256, stack_sha256
from memsr_compiler.plain.info import PlainInfo, require_range
from memsr_compiler.quantities import say_count

PLAIN_FORMAT_KEY = "memsr_format"
"""Metadata entry by which files of plain networks are known, .onnx and .safetensors."""

QUANTIZED_KEY = "memsr_quantized"
"""Metadata entry by which networks in 8-bit integers are known, .onnx."""

QUANTIZED_FORMAT = "memsr quantized network 2"
UNSEALED_FORMAT = "memsr quantized network 1"
"""Values of that entry.  Files of format 1 are the same but for the hash at the end, which they lack."""

FORMAT = "memsr plain network 1"
PRELU_FORMAT = "memsr plain network 2"
"""That of networks with PReLUs, or with layers inside that have no activation."""
Numbers = NDArray[Any]
Dtype = Literal["float32", "float16", "float64"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "float64")
IMAGE_SKIPS = ("nearest", "bilinear", "bicubic")
"""Ways to enlarge the image beside the network that every writer knows: torch's, with align_corners=False."""
REPEATED = "nearest"
"""That of them which repeats pixels, and so needs nothing but the network's own operators, and no other rows."""
REGAIN = "Get the file again where it came from, or convert the teacher again."

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
    "assumed",
    "levels",
)


@dataclass(frozen=True)
class LayerShape:
    """A layer without its numbers.

    weight               the shape (C_out, C_in, k, k)
    relu, shuffle, prelu what follows
    """

    weight: tuple[int, int, int, int]
    relu: bool
    shuffle: int
    prelu: bool = False

    def to_data(self) -> dict[str, object]:
        """The layer as JSON has it."""
        data: dict[str, object] = {"weight": self.weight, "relu": self.relu, "shuffle": self.shuffle}
        return data | ({"prelu": True} if self.prelu else {})


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
    layers: tuple[LayerShape, ...]
    hashes: Mapping[str, str] = field(default_factory=dict)
    plain_sha256: str = ""
    certificate_sha256: str = ""
    certificate: str = ""

    @cached_property  # asked for each tensor
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors by name, in the order in which they are stored."""
        shapes: dict[str, tuple[int, ...]] = {}
        for i, layer in enumerate(self.layers):
            shapes |= {f"layers.{i}.weight": layer.weight, f"layers.{i}.bias": layer.weight[:1]}
            if layer.prelu:
                shapes[f"layers.{i}.slope"] = (layer.weight[0], 1, 1)
        return shapes

    @property
    def format(self) -> str:
        """Name of the format that says all there is."""
        new = self.info.carry == "pass" or any(layer.prelu for layer in self.layers)
        return PRELU_FORMAT if new else FORMAT

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor."""
        return {name: math.prod(shape) * np.dtype(self.dtype).itemsize for name, shape in self.shapes.items()}

    @property
    def largest_certificate(self) -> int:
        """Bytes of the longest certificate that is read: more than enough to speak of every channel of every level."""
        channels = sum(layer.weight[0] for layer in self.layers)
        return (64 << 10) + len(self.layers) * (16 << 10) + channels * (1 << 10)

    def to_strings(self) -> dict[str, str]:
        """The manifest as text, for a file's metadata."""
        info = self.info.to_strings()
        layers = [layer.to_data() for layer in self.layers]
        text = {PLAIN_FORMAT_KEY: self.format} | {key: info[key] for key in _INFO if key in info}
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
        """The manifest in a file's metadata.  Raises InvalidInput unless they are exactly what to_strings writes."""
        stated = text.get(PLAIN_FORMAT_KEY)
        if stated is None:
            raise InvalidInput("is not a plain network of ours. Make one with memsrc convert.")
        if stated not in (FORMAT, PRELU_FORMAT):
            raise InvalidInput(
                f"is a '{stated}', and only '{FORMAT}' and '{PRELU_FORMAT}' are read here. Update memsr_compiler, or "
                "convert again."
            )
        try:
            dtype = text["dtype"]
            if dtype not in DTYPES:
                raise ValueError(f"dtype {dtype}")
            manifest = Manifest(
                info=PlainInfo.from_strings(text),
                dtype=dtype,
                layers=tuple(_parse_layer(layer) for layer in json.loads(text["layers"])),
                hashes={key.removeprefix(_HASH): value for key, value in text.items() if key.startswith(_HASH)},
                plain_sha256=text["plain_sha256"],
                certificate_sha256=text.get("certificate_sha256", ""),
                certificate=text.get("certificate", ""),
            )
            canonical = manifest.to_strings() == dict(text)
        except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise InvalidInput(
                f"its metadata are damaged ({type(error).__name__}: {first_line(error)}). {REGAIN}"
            ) from None
        if not canonical:
            raise InvalidInput(f"its metadata are not as they were written. {REGAIN}")
        manifest.check()
        return manifest

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
                raise InvalidInput(
                    f"layers.{i}: a pixel shuffle by {layer.shuffle} does not fit {say_count(rows, 'channel')}."
                )
            if layer.relu and layer.prelu:
                raise InvalidInput(f"layers.{i}: has a ReLU and a PReLU.")
        for i, (below, above) in enumerate(pairwise(self.layers), start=1):
            channels = below.weight[0] // below.shuffle**2
            if above.weight[1] != channels:
                raise InvalidInput(f"layers.{i}: takes {say_count(above.weight[1], 'channel')}, is given {channels}.")
        scale = math.prod(layer.shuffle for layer in self.layers)
        if scale != info.scale:
            raise InvalidInput(f"enlarges {scale} times, its info says {info.scale}.")
        if self.layers[0].weight[1] != info.channels:
            raise InvalidInput(
                f"takes {say_count(self.layers[0].weight[1], 'channel')}, its info says {info.channels}."
            )
        require_range(info.input_range)
        rising = all(below < above for below, above in pairwise((0, *info.levels)))
        if info.levels and not (rising and len(info.levels) == len(self.layers) - 1):
            named = ", ".join(map(str, info.levels))
            raise InvalidInput(
                f"has {say_count(len(self.layers), 'layer')}, which stand for levels {named} of its teacher."
            )
        if info.image_skip not in ("", *IMAGE_SKIPS):
            raise InvalidInput(f"image skip '{info.image_skip}' is none of {', '.join(IMAGE_SKIPS)}.")
        if info.image_skip and self.layers[-1].weight[0] != info.channels * self.layers[-1].shuffle ** 2:
            raise InvalidInput("adds an image with other channels than its output's.")
        if info.image_skip == REPEATED and self.layers[-1].shuffle != info.scale:
            raise InvalidInput("repeats the image's pixels, and enlarges before its last layer.")

    def numbers(self, name: str, content: bytes | bytearray) -> Numbers:
        """A tensor of these bytes, which it may go on using.

        Raises InvalidInput unless they are the numbers that were written, and finite.
        """
        if numbers_sha256(self.dtype, self.shapes[name], memoryview(content)) != self.hashes[name]:
            raise InvalidInput(f"{name}: is not as it was written, its SHA-256 differs. {REGAIN}")
        stored = np.frombuffer(content, dtype=np.dtype(self.dtype).newbyteorder("<")).reshape(self.shapes[name])
        tensor: Numbers = stored.astype(self.dtype, copy=False)
        if not np.isfinite(tensor).all():
            raise InvalidInput(f"{name}: holds NaN or infinite weights. {REGAIN}")
        return tensor

    def check_stack(self) -> None:
        """Raises InvalidInput unless the tensors named are together the network named."""
        layers = (
            (
                self.hashes[f"layers.{i}.weight"],
                self.hashes[f"layers.{i}.bias"],
                self.hashes[f"layers.{i}.slope"] if layer.prelu else layer.relu,
                layer.shuffle,
            )
            for i, layer in enumerate(self.layers)
        )
        if stack_sha256(layers) != self.plain_sha256:
            raise InvalidInput(f"its weights are not those its metadata name, the SHA-256 differs. {REGAIN}")


def certificate_path(path: str | PathLike[str]) -> Path:
    """Path of the certificate of an .onnx file, if it is beside it: plain.onnx has plain.cert.json."""
    return Path(path).with_suffix(".cert.json")


def _parse_layer(data: Mapping[str, object]) -> LayerShape:
    match data:
        case {"weight": [int(a), int(b), int(c), int(d)], "relu": bool(relu), "shuffle": int(shuffle)}:
            return LayerShape((a, b, c, d), relu, shuffle, bool(data.get("prelu", False)))
    raise ValueError(f"layer {str(data)[:60]}")
