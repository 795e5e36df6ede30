"""Copies of a user's module: what we do to a network, we do to a copy."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput


def copied(model: nn.Module, dtype: torch.dtype) -> nn.Module:
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
    return copy.deepcopy(model, computed).to(dtype).cpu()
