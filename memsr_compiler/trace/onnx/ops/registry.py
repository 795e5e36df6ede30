"""Words by name: one for each ONNX operator, in terms of the words for torch where the two agree.

A word is a function (context, node, operands) -> value or values. An operand is a `View`, a `Resized`, a
NumPy array if it is known, or None if it is left out.  The other files of this folder hold the words, and put
them into `ONNX_WORDS` when they are imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.builder import Builder, Padded, Resized, Uncropped
from memsr_compiler.trace.onnx.frame import Frame
from memsr_compiler.trace.onnx.tensors import Array
from memsr_compiler.trace.views import Batch, View

Value = View | Resized | Padded | Uncropped | Array
Word = Callable[..., Any]
ONNX_WORDS: dict[str, Word] = {}

VIEWS = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Identity", "Cast", "Dropout",
    "GatherND", "ScatterND", "Split",
)  # fmt: skip
"""Operators that take a tensor as it lies, whatever its axes are."""

COMPOUND = (
    "Sub", "Sum", "Mean", "Max", "Min", "HardSigmoid", "Shrink", "DepthToSpace", "SpaceToDepth", "Resize",
    *VIEWS,
)  # fmt: skip
"""Operators that become several ops, none of which deserves the node's name alone."""


@dataclass(frozen=True)
class Context:
    builder: Builder
    frame: Frame
    opset: int

    def tensor(self, value: Value | None, what: str) -> Tensor:
        """A known operand in float64.  Refused if it depends on the image."""
        if not isinstance(value, np.ndarray):
            self.builder.refuse(f"its {what} depends on the image", "make it a constant")
        if value.dtype == object:
            of = "number of images" if any(isinstance(n, Batch) for n in value.flat) else "size of the image"
            self.builder.refuse(f"its {what} depends on the {of}", "make it a constant")
        if not bool(np.isfinite(value).all()):
            raise InvalidInput(
                f"{self.builder.where}: {self.builder.last}: its {what} has NaN or infinite values; "
                "the file is damaged or training diverged."
            )
        return torch.from_numpy(value.astype(np.float64))

    def integers(self, value: Value | None, what: str) -> list[int]:
        return [int(n) for n in self.tensor(value, what).reshape(-1).tolist()]

    def axis(self, x: View, axis: int) -> int:
        rank = len(x.axes)
        if not -rank <= axis < rank:
            self.builder.refuse(f"axis {axis} of a tensor with {rank}", "export it again")
        return axis % rank

    def channels(self, x: View, axis: int, verb: str) -> None:
        """Refuse to work along any axis but the channels."""
        if self.axis(x, axis) != 1 or len(x.axes) != 4:
            self.builder.refuse(f"it {verb} axis {axis} of {len(x.axes)}", "use the channels, axis 1 of 4")


def onnx_word(*names: str) -> Callable[[Word], Word]:
    def attach(function: Word) -> Word:
        ONNX_WORDS.update(dict.fromkeys(names, function))
        return function

    return attach


def read_operand(c: Context, value: Value | None) -> Any:
    return value if isinstance(value, (View, Resized)) else c.tensor(value, "constant")
