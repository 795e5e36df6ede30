"""The teacher's outputs for photographs that were made smaller, computed once and kept beside them: labels.

A student is to give what its teacher gives; so the teacher's output teaches it as well as the photograph does, and what
no network can restore is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memsr_compiler.plain.info import Takes
from memsr_compiler.torch_helpers import first_weight
from memsr_compiler.training.patches import WAYS, RawPhotograph, is_as_written, turn, turn_back, write_raw

LABEL = np.float16
"""Labels are kept in it, in levels of 0 to 255: rounded by 1/16 at most."""

_ROWS = 256  # of a small image that the teacher is given at once, where it does not see the whole of it
_GRID = 16  # bands begin on rows that this divides: where windows of attention begin, too
_FURTHEST = 8 * _GRID  # rows that it is measured on; who sees further is given whole images
_WIDTH = 32  # of the image that it is measured on
_EXACT = 1 / 64  # of a level: less than labels are rounded by


@dataclass(frozen=True)
class Labeller:
    """A teacher that labels photographs.

    teacher   (N, 3, h, w) -> (N, 3, s h, s w) in `takes.input_range`
    name      of what it computes: its SHA-256
    labels    what a student is to give: the teacher's output, or the photograph as well
    ensemble  label by the mean of what the teacher makes of the eight ways to turn and mirror an image, turned back
              (geometric self-ensemble; Timofte et al. 2016), so that labels turn as images do
    """

    teacher: nn.Module
    takes: Takes
    name: str
    labels: Literal["teacher", "both"]
    ensemble: bool = False

    @cached_property
    def reach(self) -> int | None:
        """Rows of a small image that the teacher sees above and below a row; None where that is all of them."""
        return measure_reach(self.teacher, self.takes)

    def label(
        self, photographs: Sequence[RawPhotograph], on_image: Callable[[str], None] | None = None
    ) -> list[RawPhotograph]:
        """The photographs with what the teacher makes of their small versions, kept in the cache that these are in.

        Raises ExportError where the cache cannot be written.
        """
        labelled = []
        for photograph in photographs:
            if on_image is not None:
                on_image(photograph.name)
            kind = "-ensemble" if self.ensemble else ""
            path = photograph.low.with_name(f"{photograph.low.stem}-{self.name[:16]}{kind}.raw")
            whole = 3 * photograph.size[0] * photograph.size[1] * np.dtype(LABEL).itemsize
            if not is_as_written(path, whole):
                label = self._average if self.ensemble else self._enlarge
                write_raw(path, np.ascontiguousarray(label(photograph.open_low(self.takes.scale))).data.cast("B"))
            labelled.append(replace(photograph, label=path))
        return labelled

    def _average(self, low: NDArray[np.uint8]) -> NDArray[np.float16]:
        """The mean (H, W, 3) of the teacher's outputs for all ways to turn the image, turned back."""
        total = sum(turn_back(self._enlarge(turn(low, way)).astype(np.float32), way) for way in range(WAYS))
        return np.asarray(total / WAYS, LABEL)

    def _enlarge(self, low: NDArray[np.uint8]) -> NDArray[np.float16]:
        """The teacher's output (H, W, 3) in levels, by bands of rows that hold all that it sees of them."""
        scale, height = self.takes.scale, len(low)
        halo = height if height <= _ROWS or self.reach is None else -(-self.reach // _GRID) * _GRID
        rows = height if halo == height else _ROWS
        result = np.empty((height * scale, low.shape[1] * scale, 3), LABEL)
        for top in range(0, height, rows):
            start, end = max(top - halo, 0), min(top + rows, height)
            levels = self._levels(low[start : min(end + halo, height)])
            result[top * scale : end * scale] = levels[(top - start) * scale :][: (end - top) * scale]
        return result

    @torch.no_grad()
    def _levels(self, low: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The teacher's output (H, W, 3) in levels, for an image at once."""
        bottom, span = self.takes.input_range[0], self.takes.input_range[1] - self.takes.input_range[0]
        images = torch.from_numpy(low.transpose(2, 0, 1).copy())[None].to(first_weight(self.teacher))
        output: Tensor = self.teacher(images * (span / 255) + bottom)
        levels: NDArray[np.float32] = ((output[0] - bottom) * (255 / span)).permute(1, 2, 0).cpu().numpy()
        return levels


@torch.no_grad()
def measure_reach(teacher: nn.Module, takes: Takes) -> int | None:
    """Measure how many rows of a small image the teacher sees above and below a row; None where it needs them all.

    A strip in the middle of a noisy image is turned from dark to bright: a row that changes by a bit sees as far.  So
    values that are pooled over the image are met too; what float32 rounds away is not.  Without the first rows nothing
    further than that may change: where it does, pixels are told apart by their places (strides, images made smaller).
    """
    low, span = takes.input_range[0], takes.input_range[1] - takes.input_range[0]
    strip = slice(_FURTHEST, _FURTHEST + _GRID)
    image = torch.rand((1, 3, 2 * _FURTHEST + _GRID, _WIDTH), generator=torch.Generator().manual_seed(0))
    image[:, :, strip] /= 2
    bright = image.clone()
    bright[:, :, strip] += 0.5
    weight = first_weight(teacher)
    before, after, cut = (teacher(x.to(weight) * span + low) for x in (image, bright, image[:, :, _GRID:]))
    rows = (before != after).any(dim=3).any(dim=1)[0].nonzero()[:, 0] // takes.scale
    reach = max([0, *(max(strip.start - row, row + 1 - strip.stop) for row in rows.tolist())])
    below = slice((_GRID + reach) * takes.scale, None)
    moved = (cut[:, :, reach * takes.scale :] - before[:, :, below]).abs().max()
    return reach if reach < _FURTHEST and moved <= span / 255 * _EXACT else None
