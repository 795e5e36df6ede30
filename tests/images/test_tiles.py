"""Pieces of one size: they cover every image, and what is near a cut is never taken."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memsr_compiler.images.tiles import Span, cut_batches, place_spans


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 19))
def test_spans_cover_the_image_once_and_keep_away_from_cuts(extent: int, side: int, margin: int) -> None:
    if extent > side and side <= 2 * margin:
        with pytest.raises(ValueError, match=f"margins of {margin}"):
            place_spans(extent, side, margin)
        return
    spans = place_spans(extent, side, margin)
    assert [i for span in spans for i in range(span.first, span.last)] == list(range(extent))
    for span in spans:
        assert span.start >= 0 and span.last <= span.start + side
        assert extent <= side or span.start + side <= extent
        assert span.first == 0 or span.first - span.start >= margin
        assert span.last == extent or span.start + side - span.last >= margin


def test_a_shorter_image_is_one_piece() -> None:
    assert place_spans(5, 8, 3) == [Span(0, 0, 5)]


def test_batches_of_the_size_that_is_wanted() -> None:
    images = [torch.arange(2.0 * 3 * 5 * 7).reshape(2, 3, 5, 7), torch.rand(1, 3, 2, 9)]
    assert cut_batches(images, (None, None, None)) == images
    batches = cut_batches(images, (4, 4, 4))
    assert {tuple(batch.shape) for batch in batches} == {(4, 3, 4, 4)}
    assert torch.equal(batches[0][0], images[0][0, :, :4, :4]) and torch.equal(batches[0][1], images[0][0, :, :4, 3:])
    last = images[1][0]  # two rows, continued by the second
    assert torch.equal(batches[-1][0, :, :2], last[..., :4]) and torch.equal(batches[-1][0, :, 3], last[:, 1, :4])
    assert torch.equal(batches[-1][3], batches[-1][2])  # filled up
    assert [tuple(b.shape) for b in cut_batches(images, (1, None, None))] == [(1, 3, 5, 7)] * 2 + [(1, 3, 2, 9)]
