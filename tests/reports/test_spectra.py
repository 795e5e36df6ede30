"""Singular values as lines: drawn whatever the numbers are."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from memsr_compiler.reports.spectra import Spectrum, draw_spectra, name_shades


def test_spectra_fall_from_one_and_their_dot_is_the_width() -> None:
    values = [10.0, 1.0, 0.1, 0.01]
    root = ElementTree.fromstring(draw_spectra([Spectrum("1", values, 2)], label="spectra").svg())
    (line,) = root.iter("polyline")
    places = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    drops = [b[1] - a[1] for a, b in pairwise(places)]
    assert drops == pytest.approx([drops[0]] * 3, abs=0.2)  # a decade each; drawn to a tenth of a pixel
    (dot,) = root.iter("circle")
    assert (float(dot.get("cx", "")), float(dot.get("cy", ""))) == places[1]


@pytest.mark.parametrize(
    "values",
    [[], [0.0], [0.0, 0.0], [1.0], [1.0, 0.0], [5.0] * 3, [1.0, 1e-30], [math.nan, math.nan], [1.0, math.nan]],
)
def test_any_spectrum_can_be_drawn(values: list[float]) -> None:
    root = ElementTree.fromstring(draw_spectra([Spectrum("1", values, 8)], label="").svg())
    assert "nan" not in ElementTree.tostring(root, "unicode")


def test_layers_share_six_shades() -> None:
    spectra = [Spectrum(str(n), [1.0], 1) for n in range(1, 14)]
    assert name_shades(spectra)[0] == "1–3"
    assert name_shades(spectra)[-1] == "12–13"
    assert [name for name in name_shades(spectra[:2]) if name] == ["1", "2"]
