"""Multiply-adds of any network, counted while it runs on tensors without values; networks with attention have them too.

Where a network can be plain, `cost` counts the same from its graph, for every size of image at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from memsr_compiler.torch_helpers import copy_module, prepare


def count_multiply_adds(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of all convolutions, linear layers and products of matrices in a run.

    shape   of the image: (N, C, H, W)

    Of attention the products of queries with keys, and of weights with values, count like any others; softmax,
    normalisation, interpolation and activations do not.  Where the network pads, what it pads is counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _without_values(module)(torch.empty(shape, device="meta"))
    return int(counter.get_total_flops()) // 2


def count_published(module: nn.Module, shape: tuple[int, ...]) -> int:
    """FLOPs as MemSR's Table 4 counts them, of any network: what `cost.published_macs` counts of a graph.

    It is the rule of thop, the counter that the authors' code requires, which sees modules alone. For every number
    that a convolution gives, also a transposed one: all weights of its kernel and one for the bias; that a linear
    layer gives: its inputs; that a leaky ReLU or a PReLU gives: one. Products within attention, and whatever else a
    network's own code computes, are not seen.
    """
    total = 0

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            height, width = layer.kernel_size
            each = layer.in_channels // layer.groups * height * width + (layer.bias is not None)
        elif isinstance(layer, nn.Linear):
            each = layer.in_features
        else:
            each = 1
        total += each * output.numel()

    counted = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.LeakyReLU, nn.PReLU)
    network = _without_values(module)
    for layer in network.modules():
        if isinstance(layer, counted):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(shape, device="meta"))
    return total


def _without_values(module: nn.Module) -> nn.Module:
    return prepare(copy_module(module, torch.float32), "meta")
