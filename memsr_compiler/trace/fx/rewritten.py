"""Programs of torch.export as they were made, run beside what they are rewritten into for any image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.quantities import say_count
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.trace.fx.bounded import Bounded, TooMany

_SMALL = ((1, 1), (7, 10))
"""Heights and widths of images on which programs are run that take them: of one pixel other reshapes are views."""
_LARGE = 300.0  # times the values of 0 and 1, for a second run of those: casts round what is large otherwise
LARGEST = 1 << 16  # pixels of the image for which a program was made, on which it is run where it takes no small ones
_MOST = 1 << 22  # numbers of a small image, of all that it was made for at once
_FREE = 2  # images, and rows and columns, where a program does not say for how many it was made
_ROUNDING = {torch.float16: 100.0, torch.bfloat16: 500.0}
"""By how much more a program rounds that takes such images, where float32 is 1."""


def run_as_made(program: fx.GraphModule) -> list[tuple[Tensor, list[Tensor]]]:
    """Images, (N, C, H, W) or (C, H, W), and the tensors that a program makes of each; none for several inputs.

    Raises InvalidInput for one that makes gigabytes of a small image, or takes that many.
    """
    inputs = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    image = inputs[0] if len(inputs) == 1 else None
    if not isinstance(image, FakeTensor) or image.dim() not in (3, 4):
        _run_small(program, torch.rand(1, 3, *_SMALL[-1]))  # for its size alone: readers run it on such
        return []
    *first, height, width = map(size_made_for, image.shape)
    if math.prod(first) * math.prod(_SMALL[-1]) > _MOST:
        many = " of ".join(say_count(n, word) for n, word in zip(first[::-1], ("channel", "image"), strict=False))
        raise InvalidInput(f"it was exported for {many}, and no network takes so many at once; export it for fewer")
    drawn = [_draw([*first, *sides], image) for sides in _SMALL]
    drawn += [_LARGE * drawn[-1]] if image.dtype.is_floating_point else []
    runs = [(x, made) for x in drawn if (made := _run_small(program, x)) is not None]
    if runs or height * width > LARGEST:
        return runs
    x = _draw([*first, height, width], image)
    with suppress(TooMany):
        made = _run(program, x, None, within=Bounded())
        runs += [] if made is None else [(x, made)]
    return runs


def require_same(program: fx.GraphModule, runs: Sequence[tuple[Tensor, list[Tensor]]]) -> None:
    """Raises an error where a program makes something else of an image than it did, one image as a batch of one.

    InvalidInput for one that was made for single images: axes that it counts from the front, `flip(1)` say, are others
    in a batch.  UnsupportedModel for one that was made for batches: what this compiler did to it was wrong.  One that
    does not run any more in float64, as where it casts to halves, no reader runs: it is refused in their words.
    """
    for x, expected in runs:
        single, rounding = x.dim() == 3, _ROUNDING.get(x.dtype, 1.0)
        given = x[None] if single else x
        results = _run(program, given.double(), torch.float64)  # without its casts float64 stays beside float32
        if results is None and not single:
            continue
        if results is not None and _are_all_close(results, expected, rounding, single):
            continue
        results = _run(program, given, None) if rounding > 1 else None  # halves overflow where float64 does not
        if results is not None and _are_all_close(results, expected, rounding, single):
            continue
        if single:
            raise InvalidInput(
                "it was exported for single images (C, H, W), and does something else to a batch of one; export it for "
                "batches, torch.rand(1, 3, 64, 64) say, or count its axes from the end"
            )
        raise UnsupportedModel(
            "the network: its program gives something else once casts, and the number and size of the images that it "
            "was exported for, are taken out of it; export it without casts and without writes in place, or give the "
            "nn.Module that it was exported from"
        )


def forget_shape(program: fx.GraphModule) -> None:
    """Let a program for single images take a batch: torch.export asks its shape no more, which has three axes."""
    for number, hook in list(program._forward_pre_hooks.items()):
        if hook.__module__.startswith("torch.export."):
            del program._forward_pre_hooks[number]


def _run_small(program: fx.GraphModule, x: Tensor) -> list[Tensor] | None:
    try:
        return _run(program, x, None, within=Bounded())
    except TooMany as found:
        raise InvalidInput(
            f"its operation {found.name} takes {say_count(found.numbers, 'number')}, where an image of {x.shape[-2]}x"
            f"{x.shape[-1]} is all that it is given; it is damaged, or no network of images"
        ) from None


def _run(
    program: fx.GraphModule, x: Tensor, dtype: torch.dtype | None, *, within: Bounded | None = None
) -> list[Tensor] | None:
    """The tensors that a copy of a program in `dtype` makes of an image of any shape; None where it does not run."""
    copied: Any = copy_module(program, dtype)  # what it remembers of an image stays out of the program
    with torch.no_grad(), torch.random.fork_rng(devices=[]), within or nullcontext():
        torch.manual_seed(0)
        try:
            made = copied.forward(x.clone())
        except (InvalidInput, TooMany):
            raise
        except Exception:  # whatever torch raises where shapes do not fit
            return None
    return [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]


def _are_all_close(results: Sequence[Tensor], expected: Sequence[Tensor], rounding: float, single: bool) -> bool:
    results = [result[0] if single and result.dim() else result for result in results]
    pairs = zip(results, expected, strict=False)
    return len(results) == len(expected) and all(_are_close(one, other, rounding) for one, other in pairs)


def _are_close(result: Tensor, expected: Tensor, rounding: float) -> bool:
    """Whether a tensor in float64 is one of float32, but for the rounding of that, or of what rounds so much more."""
    if result.shape != expected.shape:
        return False
    result, expected = result.double(), expected.double()
    finite = expected[expected.isfinite()].abs()
    most = float(finite.max()) if len(finite) else 0.0
    return torch.allclose(result, expected, rtol=1e-3 * rounding, atol=1e-4 * rounding * most, equal_nan=True)


def _draw(shape: Sequence[int], image: Tensor) -> Tensor:
    """A random image, of values that reach beyond 0 and 1 unless they are integers."""
    drawn = torch.rand(tuple(shape), generator=torch.Generator().manual_seed(0))
    drawn = 2 * drawn - 0.5 if image.dtype.is_floating_point else 255 * drawn
    return drawn.to(image.device, image.dtype)


def size_made_for(side: Any) -> int:
    """The size for which a program was made, or one."""
    hint = side if isinstance(side, int) else getattr(side.node, "hint", None)
    return hint if isinstance(hint, int) else _FREE
