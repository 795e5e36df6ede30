"""The list of networks that ship.  `catalogue.json` is written by `benchmarks/shipped.py`, which measures them."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memsr_compiler.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memsr_compiler.plain.network import PlainNet

DEFAULT = "x2-small"
"""The network that `memsrc upscale` takes where none is named."""

SCORES = ("psnr", "ssim", "psnr_tflite", "ssim_tflite")
"""The entries that have a number for each test set."""

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"x\d+(-[a-z0-9-]+)?")  # x2-small, x4-medium-int8; x9 is meant as one


@dataclass(frozen=True)
class ShippedModel:
    """A network that ships.

    name          x2-small: by how much it enlarges, how large it is; x2-small-int8: the same in 8-bit integers
    path          of its .onnx file
    scale         output size / input size
    layers, width, parameters   of the plain stack
    macs_per_pixel              multiply-adds for each pixel of the input
    psnr, ssim    on Y (dB, 2 to 4 pixels shaved as the protocol `edsr` has it) by test set
    psnr_tflite, ssim_tflite    the same of the TFLite file with these integers, by LiteRT; empty for networks in
                                floating point
    teacher       whose student it is, and under which licence those weights are
    licence       of the file
    """

    name: str
    path: Path
    scale: int
    layers: int
    width: int
    parameters: int
    macs_per_pixel: int
    psnr: Mapping[str, float]
    ssim: Mapping[str, float]
    psnr_tflite: Mapping[str, float]
    ssim_tflite: Mapping[str, float]
    teacher: str
    licence: str

    @property
    def int8(self) -> bool:
        return self.name.endswith("-int8")


@cache
def list_models() -> tuple[ShippedModel, ...]:
    """The networks that ship, smallest first at each scale."""
    entries = json.loads((_FOLDER / "catalogue.json").read_text("utf-8"))
    return tuple(_read(entry) for entry in entries)


def _read(entry: dict[str, Any]) -> ShippedModel:
    read_only = {kind: MappingProxyType(entry[kind]) for kind in SCORES}
    return ShippedModel(**{**entry, **read_only, "path": _FOLDER / f"{entry['name']}.onnx"})


def find_model(name: str) -> ShippedModel:
    """The network of this name.  Raises InvalidInput, with the names that there are, for another."""
    models = {model.name: model for model in list_models()}
    if name not in models:
        near = difflib.get_close_matches(str(name), models, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise InvalidInput(f"{name}: no network of that name ships{meant} There are {', '.join(models)}.")
    return models[name]


def find_file(path: str) -> str:
    """The file of a network that ships, for its name; all else as it is, and files before names.

    Raises InvalidInput for what is like a name and none.
    """
    return str(find_model(path).path) if _NAME.fullmatch(path) and not Path(path).exists() else path


def load_model(name: str) -> PlainNet:
    """The network of this name, (N, 3, H, W) -> (N, 3, scale * H, scale * W) in `info.input_range`, in float32.

    Raises InvalidInput for a name that is none, and for one in 8 bits, which is no module: run its file.
    """
    model = find_model(name)
    if model.int8:
        raise InvalidInput(f"{name}: is in 8-bit integers, which torch does not run; give its file to ONNX Runtime")
    from memsr_compiler.plain.load import load_plain  # with torch, which names are looked up without

    return load_plain(model.path)
