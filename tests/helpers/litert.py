"""TFLite files run by LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


class LiteRT:
    """A TFLite network as a function (1, C, H, W) -> (1, C', s H, s W) of real numbers."""

    def __init__(self, path: Path) -> None:
        interpreter = pytest.importorskip("ai_edge_litert.interpreter")
        self.interpreter = interpreter.Interpreter(str(path), num_threads=1)
        self.image: dict[str, Any] = self.interpreter.get_input_details()[0]
        self.upscaled: dict[str, Any] = self.interpreter.get_output_details()[0]
        self.ops: list[str] = [
            op["op_name"] for op in self.interpreter._get_ops_details() if op["op_name"] != "DELEGATE"
        ]

    def __call__(self, x: Tensor) -> Tensor:
        image = x.permute(0, 2, 3, 1).contiguous().float().numpy()
        if -1 in self.image["shape_signature"]:
            self.interpreter.resize_tensor_input(self.image["index"], image.shape, strict=True)
        self.interpreter.allocate_tensors()
        if self.image["dtype"] == np.int8:
            step, zero = self.image["quantization"]
            image = np.clip(np.round(image / step) + zero, -128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.image["index"], image)
        self.interpreter.invoke()
        result = self.interpreter.get_tensor(self.upscaled["index"])
        if result.dtype == np.int8:
            step, zero = self.upscaled["quantization"]
            result = (result.astype(np.float32) - zero) * np.float32(step)
        return torch.from_numpy(result).permute(0, 3, 1, 2)
