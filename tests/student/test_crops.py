"""Calibration images: photographs as networks are given them, cut into crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.levels import noise

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.crops import batches, count_pixels, network_inputs


def test_batches_do_not_depend_on_order_or_on_how_images_are_stacked() -> None:
    singles = [noise(1, 3, 30 + i, 40, seed=i) for i in range(4)]
    first = batches(singles, samples=9, crop=16)
    second = batches([singles[2], singles[0], singles[3], singles[1]], samples=9, crop=16)
    same = [noise(1, 3, 20, 20, seed=i) for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    stacked, apart = batches([torch.cat(same)], samples=6, crop=16), batches(same[::-1], samples=6, crop=16)
    assert all(torch.equal(a, b) for a, b in zip(stacked, apart, strict=True))
    assert all(max(x.shape[2:]) <= 16 for x in first)
    assert sum(len(x) for x in first) >= 4


def test_small_images_are_used_whole() -> None:
    assert [tuple(x.shape) for x in batches([noise(1, 1, 1, 1)], samples=5)] == [(1, 1, 1, 1)]
    assert count_pixels(batches([noise(1, 3, 2, 200)], samples=1, crop=96)) == 2 * 96


def test_what_batches_refuse() -> None:
    with pytest.raises(InvalidInput, match="no calibration images"):
        batches([], samples=1)
    with pytest.raises(InvalidInput, match="differ in channels"):
        batches([noise(1, 3, 4, 4), noise(1, 1, 4, 4)], samples=1)
    with pytest.raises(InvalidInput, match="NaN"):
        batches([noise(1, 3, 4, 4) * float("nan")], samples=1)


def test_photographs_as_networks_are_given_them() -> None:
    photograph = (noise(24, 36, 3).numpy() * 255).astype(np.uint8)
    (rgb,) = network_inputs(photograph, scale=2, channels=3, input_range=(0.0, 255.0))
    assert rgb.shape == (1, 3, 12, 18) and 1 < float(rgb.max()) <= 255
    enlarged = network_inputs(photograph, scale=1, channels=1, input_range=(0.0, 1.0))
    assert [tuple(x.shape) for x in enlarged] == [(1, 1, 24, 36)] * 3
    assert not torch.equal(enlarged[0], enlarged[2])
    (one,) = network_inputs(photograph, scale=1, channels=1, input_range=(0.0, 1.0), every_factor=False)
    assert any(torch.equal(one, x) for x in enlarged)
    with pytest.raises(InvalidInput, match="takes 5 channels"):
        network_inputs(photograph, scale=2, channels=5, input_range=(0.0, 1.0))
    with pytest.raises(InvalidInput, match="too small"):
        network_inputs(photograph[:1], scale=2, channels=3, input_range=(0.0, 1.0))
