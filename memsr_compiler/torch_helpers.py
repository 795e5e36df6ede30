"""Copies of a user's module (what we do to a network, we do to a copy), and how many of torch's threads work."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput


def copy_module(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU, its weights in `dtype`.  Raises InvalidInput for what is no module, or has no weights yet."""
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"a torch.nn.Module is wanted, not {type(model).__name__}; files are read by load_teacher")
    for name, parameter in model.named_parameters():
        if parameter.is_meta or nn.parameter.is_lazy(parameter):
            raise InvalidInput(f"{name}: has no values yet; load the weights first")
    # Weights that another parametrisation computes (torch.nn.utils.weight_norm) cannot be copied as they are.
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(model, computed)
    # Not `to(dtype)`, which makes complex weights real without a word.
    copied._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)  # type: ignore[no-untyped-call]
    return copied.cpu()


def first_weight(model: nn.Module) -> Tensor:
    """A weight of a network, which tells where all are and in what dtype.

    One without numbers, float32 on the CPU, where it has none: a network read from ONNX or TFLite holds constants, and
    takes images as they come.
    """
    weights = (t for tensors in (model.parameters(), model.buffers()) for t in tensors)
    return next((t for t in weights if t.is_floating_point()), torch.empty(0))


@contextmanager
def some_threads(count: int | None) -> Iterator[None]:
    """Let so many of torch's threads work while it lasts; None: as many as do now."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let one of torch's threads work while it lasts, or while what it decorates runs.

    Reading, compiling and checking are very many operations on few numbers each.  More threads gain nothing there,
    and where the processor has other work too, each operation waits until the last of them has had its turn: minutes
    instead of seconds.
    """
    with some_threads(1):
        yield


def enlarge(x: Tensor, factor: int, mode: str) -> Tensor:
    """Images (N, C, H, W) `factor` times as large.

    mode   "nearest": every pixel is repeated; or torch's "bilinear" and "bicubic", without aligned corners
    """
    align = {} if mode == "nearest" else {"align_corners": False}
    return nn.functional.interpolate(x, scale_factor=factor, mode=mode, **align)


def torch_device(name: str) -> torch.device:
    """The device of this name, "cpu" or "cuda", "cuda:1".  Raises InvalidInput where it is not to be had."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInput(f"device {name!r}: want cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"device {name!r}: want cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(
            f"device {name}: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices; check "
            "nvidia-smi, or install a build of torch with CUDA"
        )
    return device


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """While it lasts cuDNN computes float32 as such, not in TF32's 10 bits, and the same way every time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
