"""Weights that training code kept in parts, weight norm, spectral norm and pruning, computed from their parts.

In evaluation all are constants: weight norm is g v / |v| (Salimans and Kingma 2016), spectral norm W / (u' W v) with
the vectors as training left them (Miyato et al. 2018), a pruned weight W times its mask.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.wrappers import StateDict

_PARTS = {
    ("{}_g", "{}_v"): "weight norm",
    ("parametrizations.{}.original0", "parametrizations.{}.original1"): "weight norm",
    ("{}_orig", "{}_u", "{}_v"): "spectral norm",
    ("parametrizations.{}.original", "parametrizations.{}.0._u", "parametrizations.{}.0._v"): "spectral norm",
    ("{}_orig", "{}_mask"): "pruning",
}
"""Names of the parts of a module's weight, {}, in both ways in which torch has them."""


def compute_weights(state: StateDict) -> StateDict:
    """The state dict with each weight that is there in parts as one, under its own name, where the first part stood.

    Raises InvalidInput where parts do not fit each other.
    """
    parts = {}
    for key in state:
        for (patterns, kind), own in product(_PARTS.items(), ("weight", "bias")):
            first = patterns[0].format(own)
            if key == first or key.endswith(f".{first}"):
                prefix = key.removesuffix(first)
                names = [prefix + pattern.format(own) for pattern in patterns]
                if all(name in state for name in names):
                    parts[key] = (prefix + own, kind, names)
    used = {name for _, _, names in parts.values() for name in names}
    for weight, kind, names in parts.values():
        if weight in state:
            raise InvalidInput(
                f"{weight}: is there as it is and in the parts of {kind} ({names[0]}), and either could be meant. Save "
                "it once more, without one of them."
            )
    result: StateDict = {}
    for key, tensor in state.items():
        if key in parts:
            weight, kind, names = parts[key]
            result[weight] = _compute(weight, kind, [state[name] for name in names])
        elif key not in used:
            result[key] = tensor
    return result


def _compute(name: str, kind: str, parts: list[Tensor]) -> Tensor:
    weights, masks = (parts[:1], parts[1:]) if kind == "pruning" else (parts, [])
    odd = [part.dtype for part in weights if not part.is_floating_point()]
    odd += [mask.dtype for mask in masks if mask.is_complex()]  # it may be of whole numbers, or of yes and no
    if odd:
        raise InvalidInput(f"{name}: a part of {kind} is {odd[0]}, no floating-point numbers. Save it again.")
    try:
        weight = _FROM_PARTS[kind](*parts)
    except RuntimeError:
        shapes = " and ".join(str(tuple(part.shape)) for part in parts)
        raise InvalidInput(
            f"{name}: parts of {shapes} do not fit each other as those of {kind}. Save it again."
        ) from None
    if not torch.isfinite(weight).all():
        raise InvalidInput(f"{name}: {kind} of a kernel of zeros is no number. Take an earlier checkpoint.")
    return weight


def _prune(weight: Tensor, mask: Tensor) -> Tensor:
    """W times its mask.  Raises RuntimeError where it has another shape."""
    if weight.shape != mask.shape:
        raise RuntimeError("a mask has the shape of what it is of")
    return weight * mask.to(weight.dtype)


def _normalise_weight(size: Tensor, direction: Tensor) -> Tensor:
    """g v / |v|, the norm over all dimensions that g has not.  Raises RuntimeError where g is no norm of v."""
    if size.dim() and size.dim() != direction.dim():
        raise RuntimeError("a norm has as many dimensions as what it is of, or none")
    if any(n not in (1, m) for n, m in zip(size.shape, direction.shape, strict=False)):  # two rows make a matrix
        raise RuntimeError("a norm is no larger than what it is of")
    over = [d for d, n in enumerate(size.shape) if n == 1] or None
    exact = direction.double()
    norm = torch.linalg.vector_norm(exact, dim=over, keepdim=True)
    weight: Tensor = size.double() * exact / norm
    return weight.to(direction.dtype)


def _normalise_spectrum(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """W / (u' W v), W as a matrix with a row for each output channel; those of a transposed convolution come second.

    Where as many come in as go out, the vectors tell: no others give a larger product than the right ones. Raises
    RuntimeError where they fit neither way.
    """
    exact = weight.double()
    matrices = [exact.flatten(1), exact.transpose(0, 1).flatten(1)]
    products = [
        left.double() @ matrix @ right.double() for matrix in matrices if matrix.shape == (*left.shape, *right.shape)
    ]
    if not products:
        raise RuntimeError("the vectors are not those of the weight")
    return (exact / max(products, key=lambda product: float(product.abs()))).to(weight.dtype)


_FROM_PARTS: dict[str, Callable[..., Tensor]] = {
    "weight norm": _normalise_weight,
    "spectral norm": _normalise_spectrum,
    "pruning": _prune,
}
