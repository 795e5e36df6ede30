"""The cost of running a network: parameters, multiply-adds, feature-map memory.  From shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from memsr_compiler import ir
from memsr_compiler.analysis.rematerialize import plan
from memsr_compiler.analysis.schedule import Carrying, Schedule, body_output
from memsr_compiler.torch_helpers import list_parameters


@dataclass(frozen=True)
class Cost:
    """Cost of a network, for any size of image.

    parameters          weights and biases
    macs_per_pixel      multiply-adds of all convolutions for one pixel of the input
    floats_per_pixel    numbers that must be held at once, for one pixel of the input, at the worst moment
    widest              channels of the widest feature map, folded to the input's resolution
    """

    parameters: int
    macs_per_pixel: int
    floats_per_pixel: int
    widest: int

    def memory(self, height: int, width: int, bytes_per_value: int = 4) -> int:
        """Peak of all live feature maps in bytes, for an input of height x width pixels."""
        return self.floats_per_pixel * height * width * bytes_per_value


def cost_of_layers(layers: Sequence[tuple[Sequence[int], int]]) -> Cost:
    """Cost of a straight stack: (kernel shape (C_out, C_in, k, k), pixel shuffle factor after it) for each layer."""
    parameters = macs = peak = widest = 0
    area = 1
    for (c_out, c_in, k, k2), shuffle in layers:
        parameters += c_out * c_in * k * k2 + c_out
        macs += c_out * c_in * k * k2 * area
        peak = max(peak, (c_in + c_out) * area)
        widest = max(widest, c_in * area, c_out * area)
        area *= shuffle**2
        if shuffle > 1:
            peak = max(peak, 2 * c_out * area // shuffle**2)
    return Cost(parameters, macs, peak, widest)


def cost_of_graph(graph: ir.Graph) -> Cost:
    """Cost of a teacher run op by op in its own order, every value dropped after its last use; ReLUs in place."""
    parameters = macs = peak = widest = 0
    unread = {op.name: len(graph.users(op.name)) for op in graph}
    held: dict[str, int] = {}
    for op in graph:
        t = graph.type(op.name)
        size = t.channels * t.scale**2
        widest = max(widest, size)
        if isinstance(op, ir.Conv2d):
            parameters += op.weight.numel() + op.bias.numel()
            macs += op.weight.numel() * t.scale**2
        elif isinstance(op, ir.ConvTranspose2d):
            parameters += op.weight.numel() + op.bias.numel()
            macs += op.weight.numel() * (t.scale // op.stride) ** 2
        elif isinstance(op, ir.Affine):
            parameters += 2 * t.channels
        in_place = isinstance(op, (ir.Relu, ir.PRelu, ir.Clamp)) and unread[op.inputs[0]] == 1
        peak = max(peak, sum(held.values()) + (0 if in_place else size))
        held[op.name] = size
        for name in set(op.inputs):
            unread[name] -= 1
            if not unread[name]:
                held.pop(name, None)
    return Cost(parameters, macs, peak, widest)


def cost_of_teacher(graph: ir.Graph, module: nn.Module) -> Cost:
    """The cost of a network as it was read, with its own parameters where it has any.

    A graph has biases of zeros, and slopes that are no parameters.
    """
    cost, own = cost_of_graph(graph), sum(parameter.numel() for parameter in list_parameters(module).values())
    return replace(cost, parameters=own) if own else cost


def published_macs(graph: ir.Graph) -> int:
    """FLOPs as MemSR's Table 4 counts them, for one pixel of the input; the multiply-adds there are: `cost_of_graph`.

    For every number that a convolution gives, all weights of its kernel and one for the bias.  A transposed convolution
    is counted so too, stride^2 times what it computes.  One for every number that a leaky ReLU gives; none for a ReLU.
    """
    total = 0
    for op in graph:
        t = graph.type(op.name)
        if isinstance(op, (ir.Conv2d, ir.ConvTranspose2d)):
            total += (op.weight.numel() + op.bias.numel()) * t.scale**2
        elif isinstance(op, ir.PRelu):
            total += t.channels * t.scale**2
    return total


def default_align(carry: Carrying) -> int:
    """Multiple that widths are padded to unless told: what engines' blocks of 8 or 16 make of widths is theirs to do.

    The ReLU form keeps to 8.  In the PReLU form a few carried channels more would be a fifth of a narrow network.
    """
    return 4 if carry == "pass" else 8


def predicted_widths(graph: ir.Graph, carry: Carrying, align: int) -> tuple[list[int], list[int]]:
    """Widths of the plain network before it is built, and the kernel sizes between them.

    graph   as the canonical passes leave it.  An upper bound: where a channel of ones may be needed it is counted,
            and equal or dead channels found later make it narrower.
    """
    return planned_widths(*plan(graph, carry), carry, align)


def planned_widths(graph: ir.Graph, scheduled: Schedule, carry: Carrying, align: int) -> tuple[list[int], list[int]]:
    """Widths and kernel sizes, as `predicted_widths` gives them, of a graph that `plan` has scheduled."""
    end = graph.type(body_output(graph)).channels
    ones = int(carry == "shift" or _constant_before_a_border(graph))
    inner = [w + ones + (-(w + ones) % align) for w in scheduled.width[1:]]
    return [scheduled.width[0], *inner, end], list(scheduled.kernel)


def _constant_before_a_border(graph: ir.Graph) -> bool:
    """Whether a convolution with k > 1 may read a pointwise value with a constant in it."""
    constant: dict[str, bool] = {}
    for op in graph:
        inherited = any(constant[i] for i in op.inputs)
        wide = isinstance(op, ir.Conv2d) and not op.pointwise
        if wide and inherited:
            return True
        bias = isinstance(op, ir.Conv2d) and op.pointwise and bool(op.bias.any())
        constant[op.name] = not isinstance(op, (*ir.ACTIVATIONS, ir.Input)) and not wide and (bias or inherited)
    return False
