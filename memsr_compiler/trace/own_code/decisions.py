"""Decisions in a model's code that hang on the size of the image: torch.export reads one way of each, at one size."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memsr_compiler.torch_helpers import InFloat64, copy_module, has_numbers, list_buffers
from memsr_compiler.trace.kept.held_values import leaving_values
from memsr_compiler.trace.own_code.numbers import Group, counts_to_look_at, sides_to_look_at
from memsr_compiler.trace.own_code.own_files import OURS, TORCH, is_foreign, lies_in
from memsr_compiler.trace.own_code.places import words_of
from memsr_compiler.trace.own_code.read_off import KnownNumbers, no_pixels, without_reports
from memsr_compiler.trace.own_code.statements import Line, only_raises
from memsr_compiler.trace.own_code.unheard import find_size_question
from memsr_compiler.trace.samples import SEVERAL, SIZES, Size
from memsr_compiler.trace.views import BATCH, HEIGHT, WIDTH

log = logging.getLogger(__name__)

OTHERS = ((2, 3), (4, 4), (64, 64), (48, 80), (33, 47), (720, 1280), (2160, 3840), (8192, 8192))
"""Sizes that are looked at too: whoever decides, mostly asks whether an image is small, or fits into memory."""
BATCHES = (4, 5, 6, 8, 9, 16, 17, 33, 65, 129)
"""Numbers of images beyond those of the samples."""
_MOST_BATCH = 1024
"""Images, of a few pixels each, that are computed at once at most."""
_WORK = 20_000
"""Operations that are run at most, without pixels, to look at sizes that stand in the code."""
HOW_MANY = "the number of images"


def say_decided(
    model: nn.Module,
    problem: Exception | None,
    channels: int,
    sizes: Sequence[Size] = ((HEIGHT, WIDTH), *SIZES),
    *,
    unheard: bool = False,
    numbers: Collection[Group] = (),
) -> None:
    """Warn of code that decides by the image's size, of which one way was read.

    problem   what stopped torch.fx, where it was another that read the network
    sizes     at which it is known to be what was read
    unheard   whether its code could ask what no tracer hears
    numbers   that its code has at hand
    """
    if problem is None and not unheard:
        return
    decided = decided_at(problem) if problem is not None else None
    here = "" if decided is None else words_of(decided)
    if here and HOW_MANY in str(problem):
        log.warning(
            "%s%s decides by %s: read as for %d, and compared where it runs other operations for %s "
            "or %d of them; for others it may differ",
            type(model).__name__,
            here,
            HOW_MANY,
            BATCH,
            ", ".join(map(str, BATCHES[:-1])),
            BATCHES[-1],
        )
        here = ""
    if not here and (place := find_size_question(model, channels)) is not None:
        here = words_of(place)
    other = None if here else find_other_size(model, channels, numbers)
    if not here and other is None:
        return
    does = "decides by the size of the image" if other is None else "runs other operations at {}x{}".format(*other)
    first, *others = (f"{height}x{width}" for height, width in sizes)
    log.warning(
        "%s%s %s: read as at %s, and the same at %s; at others it may differ",
        type(model).__name__,
        here,
        does,
        first,
        " and ".join(others),
    )


def decided_at(problem: Exception) -> traceback.FrameSummary | None:
    """The line of the user's code at which torch.fx was stopped, where that does one thing or another.

    A line that does nothing but raise is none: where it does not, the network is the same.
    """
    frames = [Line(frame, number) for frame, number in traceback.walk_tb(problem.__traceback__)]
    places = [f for f in reversed(frames) if not lies_in(f.filename, (OURS, os.path.join(TORCH, "fx")))]
    decides = isinstance(problem, fx.proxy.TraceError) and "inputs to control flow" in str(problem)
    if not decides or not places or not is_foreign(places[0].filename) or only_raises(places):
        return None  # torch's own code is known
    return places[0]


@leaving_values
def find_other_size(model: nn.Module, channels: int, numbers: Collection[Group] = ()) -> tuple[int, int] | None:
    """A size (H, W) at which the network runs other operations than at that of an export; None where none is found.

    numbers   that its code has at hand: sizes made of them are looked at too
    No pixel is computed, and of what is made without pixels nothing is kept (a kernel, in a `functools.lru_cache`).
    Sizes at which it does not run are passed over.
    """
    copied = copy_module(model, torch.float64)
    with _without_pixels():
        list_at = partial(_list_operations, copied, channels)
        list_at((HEIGHT, WIDTH))  # some keep what they make the first time
        exported = list_at((HEIGHT, WIDTH))
        same: tuple[list[tuple[str, ...]], ...] = ([], exported)
        stated = sides_to_look_at(numbers)[: _WORK // max(1, len(exported))]
        for size in dict.fromkeys((*OTHERS, *stated)) if exported else ():
            if list_at(size, exported) not in same:
                list_at(size, most=4 * len(exported))  # or for each size
                if list_at(size, exported) not in same:
                    return size
    return None


@leaving_values
def find_other_batches(model: nn.Module, channels: int, size: Size, numbers: Collection[Group] = ()) -> list[int]:
    """Numbers of images for which a network runs other operations than for fewer.

    numbers   that its code has at hand, which are looked at too
    No pixel is computed, as in `find_other_size`.  Numbers for which it does not run are passed over.
    """
    copied = copy_module(model, torch.float64)
    found = []
    with _without_pixels():
        list_at = partial(_list_operations, copied, channels, size)
        list_at()  # some keep what they make the first time
        exported = list_at(images=int(BATCH))
        known = [[], exported, list_at(images=SEVERAL)]
        stated = counts_to_look_at(numbers, _MOST_BATCH)[: _WORK // max(1, len(exported))]
        for images in sorted({*BATCHES, *stated}) if exported else ():
            if list_at(exported, images=images) not in known and (other := list_at(images=images)) not in known:
                known.append(other)
                found.append(images)
    return found


@contextmanager
def _without_pixels() -> Iterator[None]:

    with torch.no_grad(), InFloat64(), no_pixels(), KnownNumbers(), without_reports():
        yield


def _list_operations(
    model: nn.Module,
    channels: int,
    size: tuple[int, int],
    known: Sequence[tuple[str, ...]] | None = None,
    most: int = 20_000,
    images: int = 1,
) -> list[tuple[str, ...]]:
    """Operations that run on images of this size, in order, with what they are given; empty: it fails.

    known   others, after the first difference from which nothing more is run: tiles of a large image are many
    most    operations that are run

    At the end what the result's sides are of the image's: a crop to so many pixels is the same operation.
    """
    recorder = _Recorder(known, most, _Held((b.data_ptr(), b.shape) for b in list_buffers(model).values()))
    try:
        with recorder:
            y: Tensor = model(torch.empty(images, channels, *size, dtype=torch.float64))
        sides = [str(Fraction(large, small)) for large, small in zip(y.shape[2:], size, strict=True)]
    except _OtherOperation:
        return recorder.operations
    except Exception:  # whatever the model's own code raises
        return []
    return [*recorder.operations, ("", *sides)]


class _OtherOperation(BaseException):
    """Ends a run, also of code that catches every Exception."""


_Held = frozenset[tuple[int, torch.Size]]
"""Where buffers lie, and their shapes: they are told by these, since calls that are counted there differ by no size."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations and their operands, except whole numbers that may be sizes, or places in an image."""

    def __init__(self, known: Sequence[tuple[str, ...]] | None, most: int, held: _Held) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known, self.most, self.held = known, most, held
        self.operations: list[tuple[str, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.operations.append((str(func), *_list_operands(func, args, kwargs or {}, self.held)))
        here = len(self.operations)
        if here > self.most or (self.known is not None and self.operations[-1:] != self.known[here - 1 : here]):
            raise _OtherOperation
        return func(*args, **(kwargs or {}))


def _list_operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], held: _Held) -> Iterator[str]:
    """Numbers, and weights by where they lie."""
    of_channels = func in _PARTS and args[1:2] == (1,)
    of_weights = func in _PARTS and not _is_of_image(args[0])
    every = of_channels or of_weights or func in _OF_NO_SIZE
    kinds = {argument.name: argument.type.kind() for argument in func._schema.arguments}
    for value, kind in (*zip(args, kinds.values(), strict=False), *((v, kinds[name]) for name, v in kwargs.items())):
        number = kind in ("TensorType", "NumberType", "BoolType")
        yield from (str(v) for v in tree_leaves(value) if isinstance(v, int) and (number or every))
    for value in tree_leaves((args, kwargs)):
        if isinstance(value, float):
            yield str(value)
        elif isinstance(value, Tensor):
            yield _name_tensor(value, held)


def _name_tensor(value: Tensor, held: _Held) -> str:
    """A small constant by its numbers, others by where they lie; nothing of what hangs on the image."""
    from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

    constant = value.constant if isinstance(value, FakeTensor) else value
    if constant is None or not has_numbers(constant):
        return ""
    with unset_fake_temporarily():
        place = constant.data_ptr()
        small = constant.numel() <= _FEW and (place, constant.shape) not in held
        return str(constant.tolist() if small else place)


def _is_of_image(value: Any) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(value, FakeTensor) and value.constant is None


_FEW = 64
_ATEN = torch.ops.aten
_PARTS = (_ATEN.slice.Tensor, _ATEN.select.int, _ATEN.narrow.default, _ATEN.split_with_sizes.default)
_OF_NO_SIZE = (
    _ATEN.convolution.default, _ATEN.avg_pool2d.default, _ATEN.max_pool2d_with_indices.default, _ATEN.flip.default,
    _ATEN.triu.default, _ATEN.tril.default, _ATEN.permute.default, _ATEN.pixel_shuffle.default,
)  # fmt: skip
"""Operations whose whole numbers say what is done, at whatever size."""
