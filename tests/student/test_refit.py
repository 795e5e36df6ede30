"""The joint refit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from helpers.levels import smooth_images
from torch import Tensor

from memsr_compiler.student.refit import refit
from memsr_compiler.student.statistics.spill import Spool


def test_refit_goes_back_to_where_the_teacher_is() -> None:
    """A student of the teacher's own architecture, its weights disturbed: most of the damage is undone."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 3), (8, 8), (4, 8)]
    true = [
        (
            0.3 * torch.randn(o, i, 3, 3, generator=generator).double(),
            0.1 * torch.randn(o, generator=generator).double(),
        )
        for o, i in shapes
    ]

    def run(kernels: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        for k, (w, b) in enumerate(kernels):
            x = F.conv2d(x, w.to(x.dtype), b.to(x.dtype), padding=1)
            x = x.relu() if k < len(kernels) - 1 else x
        return x

    disturbed = [(w * (1 + 0.1 * torch.randn(w.shape, generator=generator).double()), b) for w, b in true]
    with Spool() as batches:
        for x in smooth_images(3):
            batches.append({"image": x.float(), "output": run(true, x.float())})
        found = refit(disturbed, batches, 120)
    assert found.losses[-1] < found.losses[0] / 50
