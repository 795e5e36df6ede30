"""Layers with branches while they are trained, one convolution afterwards: RepVGG, Ding et al. 2021 (arXiv 2101.03697).

y = ReLU(3x3 + 1x1 + x), each of the three with a batch norm of its own; or without any, the ablation of MemSR.  Batch
norm stands behind its convolution, so a folded layer is the same at the border too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.torch_helpers import enlarge
from memsr_compiler.training.losses import Objective, pixel_loss
from memsr_compiler.training.starts import NewWeights, draw_kernel

Affine = tuple[Tensor, Tensor]
"""Scale and shift of channels, (C,) each."""


def fold_branches(kernels: Sequence[Tensor], affine: Sequence[Affine]) -> tuple[Tensor, Tensor]:
    """Kernel and bias of one convolution for the sum of all branches (figure 4 of Ding et al.).

    kernels   (C_out, C_in, k, k), odd k, of no bias
    affine    what comes behind each, of its output

    The result has the largest kernel.
    """
    side = max(kernel.shape[-1] for kernel in kernels)
    padded = (F.pad(kernel, [(side - kernel.shape[-1]) // 2] * 4) for kernel in kernels)
    scaled = [kernel * scale[:, None, None, None] for kernel, (scale, _) in zip(padded, affine, strict=True)]
    return torch.stack(scaled).sum(0), torch.stack([shift for _, shift in affine]).sum(0)


class BranchedLayer(nn.Module):
    """A convolution, a 1x1 convolution and, where it can be, the identity, before a layer's ReLU.

    normalised   batch norm behind each of them; else a bias for all
    """

    identity: Tensor | None

    def __init__(self, layer: PlainLayer, one: Tensor, *, normalised: bool) -> None:
        super().__init__()
        c_out, c_in = one.shape[:2]
        self.kernel = nn.Parameter(layer.weight.detach().clone())
        self.one = nn.Parameter(one)
        identity = torch.eye(c_out)[:, :, None, None] if c_in == c_out else None
        self.register_buffer("identity", identity, persistent=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_out) for _ in (self._kernels() if normalised else ()))
        self.bias = None if normalised else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            kernel, bias = self.fold()
            return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)
        outputs = [F.conv2d(x, kernel, padding=kernel.shape[-1] // 2) for kernel in self._kernels()]
        return torch.stack([norm(y) for norm, y in zip(self.norms, outputs, strict=True)]).sum(0)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the one convolution that all branches are; batch norms as in use, not in training."""
        kernels = self._kernels()
        if self.bias is not None:
            none = torch.zeros_like(self.bias)
            affine = [(torch.ones_like(self.bias), bias) for bias in (self.bias, *[none] * (len(kernels) - 1))]
        else:
            affine = [_affine_of(norm) for norm in self.norms]
        return fold_branches(kernels, affine)

    def _kernels(self) -> list[Tensor]:
        return [self.kernel, self.one, *([] if self.identity is None else [self.identity])]


class Branched(Objective):
    """A plain network with branches beside every layer that ends in a ReLU: L1 to the photograph.

    network      as it is when all branches are folded: written by `settle`, not trained
    normalised   RepVGG; else without batch norm
    start        of the 1x1 kernels; the others are the network's
    """

    network: PlainNet

    def __init__(self, network: PlainNet, *, normalised: bool, start: NewWeights, seed: int) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed + 1)  # other numbers than those of the 3x3 kernels
        self.branches = nn.ModuleList()
        for layer in list(network)[:-1]:
            one = torch.empty(layer.out_channels, layer.in_channels, 1, 1)
            draw_kernel(one, start, generator)
            self.branches.append(BranchedLayer(layer, one, normalised=normalised))
        self.kernel, self.bias = (nn.Parameter(x.detach().clone()) for x in (network[-1].weight, network[-1].bias))

    def forward(self, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        pixels = pixel_loss(self.enlarge(low), high)
        return pixels, pixels, torch.zeros_like(pixels)

    def enlarge(self, low: Tensor) -> Tensor:
        """The output by the branches as they are."""
        value = low
        for branched in self.branches:
            value = branched(value).relu()
        value = F.conv2d(value, self.kernel, self.bias, padding=self.kernel.shape[-1] // 2)
        value = F.pixel_shuffle(value, self.network.scale)
        skip = self.network.info.image_skip
        return value + enlarge(low, self.network.scale, skip) if skip else value

    def settle(self) -> PlainNet:
        """Fold all branches into the network, and return it."""
        with torch.no_grad():
            folded = [*(branched.fold() for branched in self.branches), (self.kernel, self.bias)]  # type: ignore[operator]
            for layer, (kernel, bias) in zip(self.network, folded, strict=True):
                layer.weight.copy_(kernel)
                layer.bias.copy_(bias)
        return self.network


def _affine_of(norm: nn.Module) -> Affine:
    """Scale and shift that a batch norm is in use."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
