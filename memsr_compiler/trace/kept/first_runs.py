"""Networks that keep something of the first image that they see, and compute all others with it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.torch_helpers import InFloat64, copy_module, first_weight
from memsr_compiler.trace.kept.held_values import putting_back
from memsr_compiler.trace.kept.noted import Change
from memsr_compiler.trace.own_code.tensors_only import mark_image
from memsr_compiler.trace.samples import Range, Sample, Size, draw_coloured, is_same, possible_channels

log = logging.getLogger(__name__)


def run_as_it_is(model: nn.Module, input_range: Range, size: Size) -> None:
    """Run a copy of a network with weights of its own types, before others.

    What code keeps outside of it (in a global, or in a class) after its first run is then what it keeps itself.
    """
    low, high = input_range if all(map(math.isfinite, input_range)) else (0.0, 1.0)
    kind = first_weight(model).dtype
    for channels in possible_channels(model):
        image = torch.linspace(low, high, channels * math.prod(size), dtype=kind).view(1, channels, *size)
        try:
            copy_module(model, None)(mark_image(image))
        except Exception as error:  # whatever the model's own code raises
            log.info("the network itself does not take %d channels of %s: %s", channels, kind, error)
        else:
            return


class _Session(NamedTuple):
    """A run of a copy on some images: what it gave for the last of them, and what it has changed."""

    result: Tensor
    changes: Sequence[Change] = ()


def require_nothing_of_the_first(model: nn.Module, input_range: Range, size: Size) -> None:
    """Raises UnsupportedModel for a network that computes later images with something of its first.

    One image is shown to copies of it, to one after a dark image, to another after a bright one; where something is
    kept, after other images, too.  What they leave outside of them is put back: each begins with what there is now.
    """
    low, high = input_range if all(map(math.isfinite, input_range)) else (0.0, 1.0)
    for channels in possible_channels(model):
        image = torch.linspace(low, high, channels * math.prod(size), dtype=torch.float64).view(1, channels, *size)
        dark, *others = (torch.full_like(image, level) for level in (low, high, (low + high) / 2))
        usual = _show(model, dark, image)
        if usual is None:
            continue
        for first in [*others, image.flip(3), *draw_coloured(image, low, high)] if usual.changes else others[:1]:
            other = _show(model, first, image)
            if other is None or is_same(Sample(image, usual.result), other.result):
                continue
            if all(_stays(model, session, begin, image) for session, begin in ((usual, dark), (other, first))):
                place = _find_kept(usual.changes, other.changes)
                raise UnsupportedModel(
                    f"{type(model).__name__} keeps something of the first image that it sees"
                    f"{f', in {place}' if place else ''}, and computes all others with it; give it that beforehand, as "
                    "a buffer say"
                )
        return


def _show(model: nn.Module, *images: Tensor) -> _Session | None:
    """Show images to a copy of a network; None where it does not take them, or gives no image."""
    copied = copy_module(model, torch.float64)
    with putting_back(copied) as held, suppress(Exception), InFloat64():  # whatever the model's own code raises
        *_, result = (copied(image.clone()) for image in images)
        if isinstance(result, Tensor):
            return _Session(result.detach().clone(), held.list_changes())
    return None


def _stays(model: nn.Module, session: _Session, first: Tensor, image: Tensor) -> bool:
    """Whether it gives the same for the image once more.  What a film's network remembers goes on to the next."""
    later = _show(model, first, image, image)
    return later is not None and is_same(Sample(image, session.result), later.result)


def _find_kept(one: Sequence[Change], other: Sequence[Change]) -> str:
    """The place where something else is kept after one image than after another; "" for none that is known."""
    here, there = ({str(change.place): change.now for change in changes} for changes in (one, other))
    return next((place for place in {**here, **there} if _differ(here.get(place), there.get(place))), "")


def _differ(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape != other.shape or not torch.equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) != len(other) or any(map(_differ, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() != other.keys() or any(_differ(value, other[key]) for key, value in one.items())
    numbers = isinstance(one, (int, float)) and isinstance(other, (int, float)) and one != other
    return numbers or isinstance(one, Tensor) != isinstance(other, Tensor)
