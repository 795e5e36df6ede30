"""Programs of torch.export for single images (C, H, W), which are read as for batches of one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

from memsr_compiler.errors import InvalidInput

_SIDE = 12  # where a program does not say for which size it was exported


def run_on_single(program: fx.GraphModule) -> tuple[Tensor, Any] | None:
    """An image (C, H, W), and what a program makes of it; None of programs for batches, or for several inputs."""
    inputs = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    image = inputs[0] if len(inputs) == 1 else None
    if not isinstance(image, FakeTensor) or image.dim() != 3:
        return None
    drawn = torch.rand([_size(side) for side in image.shape], generator=torch.Generator().manual_seed(0))
    x = (drawn if image.dtype.is_floating_point else drawn * 255).to(image.device, image.dtype)
    with torch.no_grad():
        return x, program(x.clone())


def require_same_of_batch(program: fx.GraphModule, x: Tensor, expected: Any) -> None:
    """Raises InvalidInput where a program does something else to a batch of one image than to the image.

    Axes that it counts from the front, `flip(1)` say, are others then.  What torch.export asks of the image's shape
    before it runs, three axes, is asked no more.
    """
    for number, hook in list(program._forward_pre_hooks.items()):
        if hook.__module__.startswith("torch.export."):
            del program._forward_pre_hooks[number]
    try:
        with torch.no_grad():
            result = program(x[None] if x.dtype.is_floating_point else x[None].float())
        same = torch.allclose(result[0], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    except (RuntimeError, IndexError, TypeError, AttributeError):  # what torch raises where shapes no longer fit
        same = False
    if not same:
        raise InvalidInput(
            "it was exported for single images (C, H, W), and does something else to a batch of one; export it for "
            "batches, torch.rand(1, 3, 64, 64) say, or count its axes from the end"
        )


def _size(side: Any) -> int:
    """The size for which it was exported, or one."""
    hint = side if isinstance(side, int) else getattr(side.node, "hint", None)
    return hint if isinstance(hint, int) else _SIDE
