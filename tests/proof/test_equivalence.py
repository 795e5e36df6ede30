"""check_equivalence: what it measured is in its result, and in the error that it becomes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memsr_compiler import check_equivalence
from memsr_compiler.errors import NotEquivalent


def test_the_error_carries_what_was_measured() -> None:
    network = nn.Conv2d(1, 2, 3, padding=1).double()
    images = {"black": torch.zeros(1, 1, 4, 5).double(), "white": torch.ones(1, 1, 4, 5).double()}
    result = check_equivalence(network, lambda x: network(x) + 0.25 * x, images=images)
    assert not result and result.input == "white" and result.deviation == pytest.approx(0.25)
    with pytest.raises(NotEquivalent) as caught:
        result.require()
    error = caught.value
    assert (error.deviation, error.bound, error.probe, error.at) == (
        result.deviation, result.bound, result.input, result.at,
    )  # fmt: skip
    assert (error.expected, error.found, error.pass_name) == (result.expected, result.found, "")
    assert check_equivalence(network, network, images=images).require()
