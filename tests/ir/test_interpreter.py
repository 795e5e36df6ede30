"""Convolutions of very large kernels are computed in bounded memory, by bands of rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.ir import interpreter


@settings(max_examples=40)
@given(st.sampled_from([1, 3, 5, 7]), st.integers(1, 3), st.sampled_from([1, 2]), st.integers(1, 30), st.integers(1, 9))
def test_bands_are_the_whole(kernel: int, dilation: int, groups: int, height: int, width: int) -> None:
    x = torch.randn(2, 2, height, width, dtype=torch.float64)
    weight = torch.randn(4, 2 // groups, kernel, kernel, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(interpreter, "MOST_TAPS", 1)
        bands = interpreter.convolve_same(x, weight, groups, dilation)
    whole = F.conv2d(x, weight, padding=kernel // 2 * dilation, groups=groups, dilation=dilation)
    assert bands.shape == whole.shape and float((bands - whole).abs().max()) < 1e-12 * kernel**2


def test_a_kernel_of_127_fits() -> None:
    """All taps of this image would take 4 GiB."""
    x = torch.ones(1, 1, 180, 180, dtype=torch.float64)
    y = interpreter.convolve_same(x, torch.ones(1, 1, 127, 127, dtype=torch.float64))
    assert float(y[0, 0, 90, 90]) == pytest.approx(127**2)
