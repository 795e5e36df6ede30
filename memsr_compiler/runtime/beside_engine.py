"""A teacher beside what an engine, ONNX Runtime or LiteRT, makes of its file: two readers that share nothing."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, MemsrError, first_line
from memsr_compiler.runtime.litert import LiteRTNetwork
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.teachers.load import find_graph_kind
from memsr_compiler.teachers.teacher import Teacher
from memsr_compiler.torch_helpers import InFloat64, copy_module

_SIZE = 24, 31  # height and width of the image
_LEAST = 5  # a side, of what is large
_WORK = 4e9  # multiply-adds, about: a second or two
_MOST = 16 * _WORK  # for the one size that a file takes
_ENGINES = {
    "onnx": ("ONNX Runtime", "export it anew, without what it computes of its weights alone, and with another opset"),
    "tflite": ("LiteRT", "export it anew, or give the network that it was made from"),
}
"""The engine of files of this kind, and what helps where it makes another network of one."""
ACCEPTED = 1 / 128  # of the largest value: two grey levels
ACCEPTED_HALF = 1 / 32  # where values have the digits of float16, or fewer


def require_as_in_engine(teacher: Teacher) -> str:
    """Compare a teacher from an ONNX or TFLite file with that in its engine; words on why it was not, "" if it was.

    One image of noise shows it: what is read wrong of a graph, a constant say, is wrong on every image.  Raises
    InvalidInput where the two are two networks.
    """
    path = teacher.path
    kind = None if path is None else find_graph_kind(path)
    if path is None or kind is None:
        return ""
    name, way_out = _ENGINES[kind]
    try:
        engine = OrtNetwork(path, threads=1) if kind == "onnx" else LiteRTNetwork(path, threads=1)
        image = _draw(engine, teacher, path)
        found = engine(image).double()
    except MemsrError as error:
        return f"was not compared with {name}: {first_line(error).removeprefix(f'{path}: ')}"
    try:
        results = [_run(teacher.module, image, dtype) for dtype in (torch.float32, torch.float64)]
    except RuntimeError as error:
        why = f"as it is read it takes no image of {tuple(image.shape)} ({first_line(error)})"
        return f"was not compared with {name}: {why}"
    accepted = ACCEPTED if engine.inner == torch.float32 else ACCEPTED_HALF
    if any(_is_same(result, found, accepted) for result in results):  # of one that rounds in float32 alone
        return ""
    raise InvalidInput(
        f"{path}: is read as another network than {name} makes of it: {_say_difference(results[0], found)}; "
        f"either reads something in the file wrong, or it hangs on how numbers are rounded; {way_out}"
    )


def _run(module: nn.Module, image: Tensor, dtype: torch.dtype) -> Tensor:
    network = copy_module(module, dtype)
    with torch.no_grad(), InFloat64() if dtype == torch.float64 else nullcontext():
        result: Tensor = network(image.to(dtype))
    return result.double()


def _draw(engine: OrtNetwork | LiteRTNetwork, teacher: Teacher, path: Path) -> Tensor:
    """Noise (N, C, H, W) of a size that the file takes; where it leaves channels free, as many as it was read for.

    Raises InvalidInput where that would take long, or it was read for no number of them.
    """
    channels = engine.channels if isinstance(engine.channels, int) else teacher.takes.channels
    batch, *fixed = engine.sizes
    numbers = path.stat().st_size / 4
    side = max(_LEAST, math.isqrt(int(_WORK / max(numbers, 1))))
    height, width = (own or min(usual, side) for own, usual in zip(fixed, _SIZE, strict=True))
    if (batch or 1) * height * width * numbers > _MOST:
        raise InvalidInput(f"an image of {height}x{width}, the smallest that is tried, takes long")
    low, high = teacher.input_range
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch or 1, channels, height, width, generator=generator) * (high - low) + low


def _is_same(result: Tensor, found: Tensor, accepted: float) -> bool:
    """Whether two results are one but for rounding; values beyond float16 are told of elsewhere."""
    if result.shape != found.shape:
        return False
    difference, peak = float((result - found).abs().max()), float(result.abs().max())
    return difference <= accepted * peak or not bool(found.isfinite().all())


def _say_difference(result: Tensor, found: Tensor) -> str:
    if result.shape != found.shape:
        return f"it gives {tuple(result.shape)}, and there {tuple(found.shape)}"
    difference, peak = float((result - found).abs().max()), float(result.abs().max())
    return f"their results differ by {difference:.3g}, of values up to {peak:.3g}"
