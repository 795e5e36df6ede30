"""A TFLite network as plain Python and NumPy: tensors by number, operators in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Type = Literal["float32", "float16", "int32", "int8"]
FREE = -1
"""The size of an axis that is free."""
TFLITE = ".tflite"
"""The extension of files."""
IDENTIFIER = b"TFL3"
"""The bytes 4 to 8 of a file."""
LEAST_STEP = float(np.finfo(np.float32).tiny)
"""The least step of integers: engines divide by it, and LiteRT ends the process where that is no number."""


@dataclass(frozen=True)
class Steps:
    """Real numbers that the integers of a tensor stand for: step * (integer - zero).

    One step for the whole tensor, or one for each entry of an axis.
    """

    step: Sequence[float]
    zero: Sequence[int]
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of a network, (batch, height, width, channels) where it is an image.

    shape   FREE where an image may have any size
    data    None: it is computed
    steps   None: its numbers are what they are
    """

    name: str
    type: Type
    shape: tuple[int, ...]
    data: NDArray[Any] | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class Operator:
    """An operator with the tensors that it reads and the one that it makes, by number.

    options   as TFLite's schema calls them, of those that `write` knows
    """

    op: str
    inputs: tuple[int, ...]
    output: int
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Model:
    """A network with one image in and one out, while it is being built.

    metadata   named texts, which no interpreter looks at
    """

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    metadata: Mapping[str, str] = field(default_factory=dict)
    image: int = 0
    upscaled: int = 0

    def add(self, tensor: Tensor) -> int:
        """Add a tensor, and return its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def store(self, name: str, numbers: NDArray[Any], steps: Steps | None = None) -> int:
        """Add a constant in its own type, and return its number."""
        kind: Any = numbers.dtype.name
        return self.add(Tensor(name, kind, numbers.shape, np.ascontiguousarray(numbers), steps))

    def compute(self, op: str, inputs: Sequence[int], result: Tensor, **options: int) -> int:
        """Add an operator and the tensor that it makes, and return the number of that."""
        number = self.add(result)
        self.operators.append(Operator(op, tuple(inputs), number, options))
        return number
