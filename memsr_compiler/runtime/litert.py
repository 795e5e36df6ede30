"""TFLite networks that run, in LiteRT on the processor: in float32, or in 8-bit integers.

LiteRT is given the bytes that our own reader has gone through, of files of ours as they were written: it checks less,
and the process ends where it finds nonsense late.  So files of others are run in another process first.
"""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.arithmetic import INTEGERS_ALONE, name_arithmetic
from memsr_compiler.errors import InvalidInput, MemsrError, UnsupportedModel, first_line, say_missing
from memsr_compiler.files import read_file
from memsr_compiler.plain.seal import is_sealed, require_tflite_seal
from memsr_compiler.runtime.ort import Provider
from memsr_compiler.tflite.metadata import read_facts
from memsr_compiler.trace.tflite.file import Network, read_network

_INTEGERS = {"INT8", "UINT8"}
_TAKEN = (np.float32, np.int8, np.uint8)
_AGAIN = "export the network again"


class LiteRTNetwork:
    """A TFLite file as a function (N, C, H, W) -> (N, C', s H, s W); tensors on the CPU of any float dtype in and out.

    A network that takes integers is given the nearest, and gives what its integers stand for.  Images go through one by
    one.  `metadata` is what a file of ours states; height and width in `sizes` are those that the file fixes.
    """

    precision = torch.float32
    engine = "LiteRT, cpu"
    needs_sizes = "its file says so"
    note = ""

    def __init__(self, path: str | Path, *, threads: int | None = None, provider: Provider = "cpu") -> None:
        """Load a file.

        threads   of the processor; None: LiteRT's choice

        Raises InvalidInput for a file that is damaged, is one of ours and not as it was written, or no network with one
        image in and one out, and for another provider than "cpu"; MemsrError where the packages that read and run
        TFLite are not installed.
        """
        if provider != "cpu":
            raise InvalidInput(
                f"{path}: TFLite files are run by LiteRT, on the processor; leave --provider {provider} out, or give "
                "the network's .onnx file"
            )
        litert = import_litert()
        data, network = _read(Path(path))
        if not is_sealed(io.BytesIO(data)):
            _try_apart(path, data)
        self.metadata = read_facts(network.metadata)
        with _explain_refusal(path):
            self._interpreter = litert.Interpreter(model_content=data, num_threads=threads)
            (self._image,) = self._interpreter.get_input_details()
            (self._result,) = self._interpreter.get_output_details()  # names may be no text
        _require_images(path, self._image, self._result)
        self.channels = int(self._image["shape"][3])
        height, width = (None if n < 0 else int(n) for n in self._image["shape_signature"][1:3])
        self.sizes = (1, height, width)
        self.fixed = (height, width)
        numbers = _name_numbers(network)
        self.arithmetic = name_arithmetic(numbers, "LiteRT")
        self.inner = torch.uint8 if numbers == INTEGERS_ALONE else torch.float32
        self._shape: tuple[int, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        with _explain_misfit(x):
            result = np.concatenate([self._run(image) for image in self._encode(x)])
            return torch.from_numpy(_decode(result, self._result)).permute(0, 3, 1, 2).to(x.dtype)

    def prepare(self, x: Tensor) -> Callable[[], object]:
        images = self._encode(x)

        def once() -> None:
            with _explain_misfit(x):
                for image in images:
                    self._invoke(image)

        return once

    def _encode(self, x: Tensor) -> list[NDArray[Any]]:
        """The images, channels last, each (1, H, W, C) in the type that the network takes."""
        pixels = x.detach().cpu().float().permute(0, 2, 3, 1).contiguous().numpy()
        kind = self._image["dtype"]
        if kind != np.float32:
            step, zero = self._image["quantization"]
            ends = np.iinfo(kind)
            pixels = np.clip(np.rint(pixels / np.float32(step)) + zero, ends.min, ends.max).astype(kind)
        return [pixels[i : i + 1] for i in range(len(pixels))]

    def _run(self, image: NDArray[Any]) -> NDArray[Any]:
        self._invoke(image)
        result: NDArray[Any] = self._interpreter.get_tensor(self._result["index"])
        return result

    def _invoke(self, image: NDArray[Any]) -> None:
        index = self._image["index"]
        if image.shape != self._shape:
            self._shape = ()  # where it does not fit
            self._interpreter.resize_tensor_input(index, image.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._shape = image.shape
        self._interpreter.set_tensor(index, image)
        self._interpreter.invoke()


def import_litert() -> ModuleType:
    """LiteRT's interpreter.  Raises MemsrError where it is not installed."""
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        raise MemsrError(say_missing("LiteRT (ai-edge-litert)", "runs TFLite files", "tflite")) from None
    litert: ModuleType = interpreter
    return litert


def read_metadata(path: Path) -> dict[str, str]:
    """Facts that a TFLite file of ours states; none of others.  Raises InvalidInput for a file that is damaged."""
    return read_facts(_read(path)[1].metadata)


def _read(path: Path) -> tuple[bytes, Network]:
    try:
        data = read_file(path, "the network")
        require_tflite_seal(data)
        return data, read_network(data)
    except (InvalidInput, UnsupportedModel) as error:
        raise InvalidInput(f"{path}: {error}") from error


def _try_apart(path: str | Path, data: bytes) -> None:
    """Raises InvalidInput for a file of others that does not run, or ends the process that runs it.

    Operands left out do so, and nobody knows all that LiteRT does not check.
    """
    trial = Path(__file__).with_name("litert_trial.py")
    ended = subprocess.run([sys.executable, str(trial)], input=data, capture_output=True, check=False)
    if ended.returncode < 0:
        cause = signal.Signals(-ended.returncode).name
        raise InvalidInput(
            f"{path}: LiteRT does not survive running it ({cause}): it is damaged, or an operator lacks an operand; "
            f"{_AGAIN}"
        )
    if ended.returncode:
        *_, reason = ended.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        raise InvalidInput(f"{path}: LiteRT cannot run it: {reason}; {_AGAIN}")


def _require_images(path: str | Path, image: dict[str, Any], result: dict[str, Any]) -> None:
    """Raises InvalidInput unless an image goes in, channels last, and all numbers are real ones or stand for such."""
    shape = tuple(int(n) for n in image["shape"])
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        raise InvalidInput(
            f"{path}: takes {shape}; (1, height, width, channels) is wanted, with 3 channels or 1; {_AGAIN}"
        )
    for what, details in (("takes", image), ("gives", result)):
        kind = details["dtype"]
        if kind not in _TAKEN or (kind != np.float32 and not details["quantization"][0]):
            raise InvalidInput(
                f"{path}: {what} {np.dtype(kind).name}; float32 is wanted, or int8 or uint8 with their step; {_AGAIN}"
            )


def _name_numbers(network: Network) -> str:
    """The numbers that it computes with: weights alone may be stored in integers, and made real ones first."""
    computed = {network.values[n].type for op in network.operators if op.code != "QUANTIZE" for n in op.outputs}
    if computed & _INTEGERS:
        return INTEGERS_ALONE
    return "float16" if any(value.type == "FLOAT16" for value in network.values) else "float32"


def _decode(result: NDArray[Any], details: dict[str, Any]) -> NDArray[Any]:
    """Real numbers that a result stands for."""
    if result.dtype == np.float32:
        return result
    step, zero = details["quantization"]
    numbers: NDArray[Any] = (result.astype(np.float32) - zero) * np.float32(step)
    return numbers


@contextlib.contextmanager
def _explain_refusal(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise InvalidInput(f"{path}: LiteRT cannot load it: {first_line(error)}") from None


@contextlib.contextmanager
def _explain_misfit(x: Tensor) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise InvalidInput(f"an image of {tuple(x.shape)} does not fit the network: {first_line(error)}") from None
