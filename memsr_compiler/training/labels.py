"""The teacher's outputs for photographs that were made smaller, computed once and kept beside them: labels.

A student is to give what its teacher gives; so the teacher's output teaches it as well as the photograph does, and what
no network can restore is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memsr_compiler.plain.info import Takes
from memsr_compiler.training.patches import RawPhotograph, write_raw

LABEL = np.float16
"""Labels are kept in it, in levels of 0 to 255: rounded by 1/16 at most."""

_ROWS = 256  # of a small image that the teacher is given at once
_HALO = 32  # rows above and below them: what lies further changes no level


@dataclass(frozen=True)
class Labeller:
    """A teacher that labels photographs.

    teacher   (N, 3, h, w) -> (N, 3, s h, s w) in `takes.input_range`
    name      of what it computes: its SHA-256
    labels    what a student is to give: the teacher's output, or the photograph as well
    """

    teacher: nn.Module
    takes: Takes
    name: str
    labels: Literal["teacher", "both"]

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
            path = photograph.low.with_name(f"{photograph.low.stem}-{self.name[:16]}.raw")
            whole = 3 * photograph.size[0] * photograph.size[1] * np.dtype(LABEL).itemsize
            if not path.exists() or path.stat().st_size != whole:
                low, _ = photograph.open(self.takes.scale)
                write_raw(path, np.ascontiguousarray(_enlarge(low, self.teacher, self.takes)).data.cast("B"))
            labelled.append(replace(photograph, label=path))
        return labelled


@torch.no_grad()
def _enlarge(low: NDArray[np.uint8], teacher: nn.Module, takes: Takes) -> NDArray[np.float16]:
    """The teacher's output (H, W, 3) in levels, by bands of rows."""
    bottom, span = takes.input_range[0], takes.input_range[1] - takes.input_range[0]
    scale, height = takes.scale, len(low)
    result = np.empty((height * scale, low.shape[1] * scale, 3), LABEL)
    weight = next(teacher.parameters())
    for top in range(0, height, _ROWS):
        start, end = max(top - _HALO, 0), min(top + _ROWS, height)
        band = torch.from_numpy(low[start : min(end + _HALO, height)].transpose(2, 0, 1).copy())[None]
        output: Tensor = teacher(band.to(weight) * (span / 255) + bottom)
        levels = ((output[0] - bottom) * (255 / span)).permute(1, 2, 0).cpu().numpy()
        result[top * scale : end * scale] = levels[(top - start) * scale :][: (end - top) * scale]
    return result
