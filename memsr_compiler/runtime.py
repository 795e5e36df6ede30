"""Running an ONNX file in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput, MemsrError


class OrtNetwork:
    """An ONNX file as a function (N, C, H, W) -> (N, C', s H, s W) on the CPU; tensors of any float dtype in and out.

    The file's own precision decides what is computed; `precision` says which, `metadata` what else the file says.
    Raises InvalidInput if the file is not a network with one image in and one out, MemsrError if no ONNX Runtime is
    installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise MemsrError(
                "ONNX Runtime is not installed; pip install 'memsr_compiler[cpu]' (or [gpu], never both)"
            ) from None
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # with it, the second size takes twice the memory
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own types, one for each status code
            raise InvalidInput(f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise InvalidInput(
                f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; one image in, one out is wanted"
            )
        self._name = inputs[0].name
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        known = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}
        if inputs[0].type not in known:
            raise InvalidInput(f"{path}: takes {inputs[0].type}, not floating-point images")
        self.precision = known[inputs[0].type]

    def __call__(self, x: Tensor) -> Tensor:
        image = x.detach().cpu().to(self.precision).numpy()
        try:
            (result,) = self._session.run(None, {self._name: image})
        except Exception as error:  # the same
            raise InvalidInput(
                f"an image of {tuple(x.shape)} does not fit the network: {str(error).splitlines()[0]}"
            ) from None
        return torch.from_numpy(result).to(x.dtype)
