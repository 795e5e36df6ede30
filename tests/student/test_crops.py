"""Crops in batches: the same whatever the order of images."""

from __future__ import annotations

import pytest
import torch
from helpers.levels import noise

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.crops import batches, count_pixels, find_range


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


def test_the_range_of_every_channel() -> None:
    images = noise(3, 5, 7, 4).contiguous(memory_format=torch.channels_last)
    least, most = find_range(images)
    assert torch.equal(least, images.amin((0, 2, 3))) and torch.equal(most, images.amax((0, 2, 3)))
