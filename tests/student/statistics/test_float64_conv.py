"""Convolutions in float64 against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from memsr_compiler.student.statistics.float64_conv import convolve


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 1030), (40, 33)])
@pytest.mark.parametrize("channels", [(4, 5), (17, 16)])  # from 16 on by minimal filtering
@pytest.mark.parametrize("k", [1, 3, 5])
def test_convolutions_in_float64_are_torchs(k: int, channels: tuple[int, int], size: tuple[int, int]) -> None:
    c, out = channels
    for n in (1, 3):
        x, weight = torch.randn(n, c, *size, dtype=torch.float64), torch.randn(out, c, k, k, dtype=torch.float64)
        got, want = convolve(x, weight), F.conv2d(x, weight, padding=k // 2)
        # float64, sums of at most 425 numbers of about 1 in another order, after some additions more where minimal
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
