"""The window that an ONNX convolution reads for each pixel of its result, whatever stride, dilation and padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from memsr_compiler.student.statistics.moments import Regression

if TYPE_CHECKING:
    from onnx import NodeProto

SAMPLES = 100  # ten times as many gain less than 0.1 dB, at three times the time
_PIXELS = 1 << 15  # at once: 3x3 windows of 64 channels are 75 MB then, in float32


@dataclass(frozen=True)
class Window:
    """A convolution's window, by (height, width): kernel, strides, dilations.

    pads        above, left, below, right; None: as many as give an output pixel for each stride of the image
    odd_below   of an odd number of these, one more goes below and right, not above and left
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int] | None
    odd_below: bool = True

    @staticmethod
    def of(node: NodeProto, kernel: Sequence[int]) -> Window:
        """The window of a Conv node whose kernel has that size."""
        from onnx import helper

        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        same = attributes.get("auto_pad", b"NOTSET").decode()
        pads = None if same.startswith("SAME") else tuple(attributes.get("pads", (0, 0, 0, 0)))
        pair = (1, 1)
        return Window(
            (kernel[0], kernel[1]),
            tuple(attributes.get("strides", pair)),
            tuple(attributes.get("dilations", pair)),
            pads,
            same != "SAME_LOWER",
        )

    def columns(self, image: Tensor) -> Iterator[Tensor]:
        """The pixels that windows read: (N, C, H, W) -> parts of (C * kh * kw, N * h * w).

        Pixels are in order, image by image and row by row.
        """
        size = [self._extent(i) for i in (0, 1)]
        above, left, below, right = self.pads or self._same(image.shape[2:])
        for padded in torch.split(torch.nn.functional.pad(image, (left, right, above, below)), 1):
            height = (padded.shape[2] - size[0]) // self.strides[0] + 1
            width = (padded.shape[3] - size[1]) // self.strides[1] + 1
            step = max(_PIXELS // width, 1)
            for row in range(0, height, step):
                rows = min(step, height - row)
                first = row * self.strides[0]
                part = padded[:, :, first : first + (rows - 1) * self.strides[0] + size[0]]
                yield torch.nn.functional.unfold(part, self.kernel, self.dilations, 0, self.strides)[0]

    def measure_loss(self, weight: Tensor, bias: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Regression:
        """Regression of what weights (O, C * kh * kw) and biases (O,) miss, over pairs (image read, image wanted).

        At pixels drawn by a fixed seed, `SAMPLES` for each weight of a row, or all if there are not so many.
        """
        pixels = sum(wanted[:, 0].numel() for _, wanted in pairs)
        part = min(SAMPLES * weight.shape[1] / pixels, 1.0)
        generator = torch.Generator().manual_seed(0)
        sums = Regression.none(weight.shape[1] + 1, len(weight))
        for image, wanted in pairs:
            targets = wanted.transpose(0, 1).flatten(1)
            for columns in self.columns(image):
                here, targets = targets[:, : columns.shape[1]], targets[:, columns.shape[1] :]
                drawn = torch.rand(columns.shape[1], generator=generator) < part
                x = torch.cat([columns, columns.new_ones(1, columns.shape[1])])[:, drawn].double()
                sums += Regression.of(x, here[:, drawn].double() - weight @ x[:-1] - bias[:, None])
        return sums

    def _extent(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def _same(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        totals = [
            max((-(-shape[i] // self.strides[i]) - 1) * self.strides[i] + self._extent(i) - shape[i], 0) for i in (0, 1)
        ]
        before = [total // 2 if self.odd_below else total - total // 2 for total in totals]
        return before[0], before[1], totals[0] - before[0], totals[1] - before[1]
