"""Which of several ways to read a network is the right one: each is run on a photograph.

A trained super-resolution network restores a photograph that was made smaller about as well as bicubic interpolation,
or better. Read in another range, or with another constant than it was trained with, it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import read_image, to_tensor
from memsr_compiler.images.metrics import luma
from memsr_compiler.images.resize import resize
from memsr_compiler.teachers.teacher import Range, measure_takes

NEAR = 5.0
"""Decibels that a network may stay behind bicubic interpolation and still be taken for one that is read rightly."""

CLEAR = 1.0
"""Decibels by which a reading has to be better than another, or than bicubic interpolation, to be believed for it."""

_PHOTOGRAPH = Path(__file__).with_name("photograph.png")  # a part of NASA's portrait of Eileen Collins: public domain
_SCALES = (1, 2, 3, 4, 6, 8)  # whole parts of its 96 pixels; 1: a network that works on the enlarged image
_NAMED = 3  # readings beside the chosen one that are named with their decibels
_WORST = -100.0  # decibels of what is no image
_ENLARGED = 2  # how small the photograph was before, for a network of scale 1

Network = Callable[[Tensor], object]


@dataclass(frozen=True)
class Reading:
    """A way to read a network.

    words       what is assumed: "res_scale 0.1, input values 0 to 255"
    departures  what of that is not the usual: {"res_scale"}
    """

    network: Network
    input_range: Range
    words: str
    departures: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choice:
    """The reading that the photograph speaks for.

    index    its place among those that were tried
    outcome  kept: it is the first, and nothing speaks against it; taken: it is another; none: no reading restores the
             photograph; several: more than one does, about as well, and not the first; untried: the network does not
             run on photographs
    words    decibels of each
    gain     those of the chosen one over bicubic interpolation
    """

    index: int
    outcome: Literal["kept", "taken", "none", "several", "untried"]
    words: str = ""
    gain: float = math.inf


def choose(readings: Iterable[Reading]) -> Choice:
    """Choose among the readings, of which the first is the usual one, by a photograph."""
    words: list[str] = []
    departures: list[frozenset[str]] = []
    scores: list[tuple[float, float]] = []
    for reading in readings:
        try:
            score = restore(reading.network, reading.input_range)
        except Exception:  # torch's, or of somebody's code
            if not scores:
                return Choice(0, "untried")
            score = (_WORST, 0.0)
        words.append(reading.words)
        departures.append(reading.departures)
        scores.append(score)
    gains = [score - bicubic for score, bicubic in scores]
    index, outcome = _decide(departures, gains)
    return Choice(index, outcome, _compare(words, scores, index), gains[index])


@torch.no_grad()
def restore(network: Network, input_range: Range) -> tuple[float, float]:
    """PSNR in dB of a photograph made smaller and enlarged again, by the network and by bicubic interpolation.

    Raises InvalidInput for a network that does not enlarge photographs by one of _SCALES.
    """
    takes = measure_takes(network, input_range, "the network")
    if takes.scale not in _SCALES:
        raise InvalidInput(f"the photograph cannot be enlarged by {takes.scale}")
    low, high = input_range
    scale = takes.scale if takes.scale > 1 else _ENLARGED
    original, small = _photograph(scale, takes.channels)
    enlarged = resize(small, scale, rounding=False)
    image = to_tensor((small if takes.scale > 1 else enlarged) / 255)
    output = network(image * (high - low) + low)
    assert isinstance(output, Tensor), "measure_takes has seen that it gives one"
    restored = ((output[0].double() - low) / (high - low)).permute(1, 2, 0).numpy()
    return _psnr(restored, original / 255, 2 * scale), _psnr(enlarged / 255, original / 255, 2 * scale)


@lru_cache(maxsize=8)
def _photograph(scale: int, channels: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The photograph and a smaller one, in 0..255: (H, W, channels)."""
    pixels = read_image(_PHOTOGRAPH)
    if channels == 1:
        y = luma(pixels)[..., None]
        return y, resize(y, 1 / scale, rounding=False)
    return pixels, resize(pixels, 1 / scale)


def _psnr(image: NDArray[Any], original: NDArray[Any], border: int) -> float:
    """PSNR in dB, border not counted, at most 100 and at least -100: a network may give NaN."""
    inner = np.s_[border:-border, border:-border]
    error = float(np.mean((np.clip(image[inner], 0, 1) - original[inner]) ** 2))
    return -10 * math.log10(max(error, 1e-10)) if math.isfinite(error) else _WORST


def _decide(
    departures: Sequence[frozenset[str]], gains: Sequence[float]
) -> tuple[int, Literal["kept", "taken", "none", "several"]]:
    """Place of the reading to take, and what speaks for it: see `Choice`.

    gains   decibels over bicubic interpolation

    Of those that do about as well as the best, the one that departs from the usual in nothing that the others do not.
    """
    best = max(gains)
    near = [gain >= -NEAR for gain in gains]
    if not any(near):
        return 0, "none"
    if near[0] and best < CLEAR:  # what shrinks a network's part in the image brings it nearer to bicubic
        return 0, "kept"
    alike = [i for i, gain in enumerate(gains) if near[i] and gain > best - CLEAR]
    plainest = [i for i in alike if all(departures[i] <= departures[j] for j in alike)]
    if not plainest:
        return 0, "several"
    return plainest[0], "taken" if plainest[0] else "kept"


def _compare(words: Sequence[str], scores: Sequence[tuple[float, float]], chosen: int) -> str:
    """'33.1 dB, against 9.2 dB with input values 0 to 1; bicubic interpolation has 27.7 dB'.  Three others at most."""
    best = sorted((i for i in range(len(scores)) if i != chosen), key=lambda i: -scores[i][0])
    others = [f"{scores[i][0]:.1f} dB with {words[i]}" for i in best[:_NAMED]]
    others += [f"less with {len(best) - _NAMED} others"] if len(best) > _NAMED else []
    against = f", against {' and '.join(others)}" if others else ""
    score, bicubic = scores[chosen]
    return f"{score:.1f} dB{against}; bicubic interpolation has {bicubic:.1f} dB"
