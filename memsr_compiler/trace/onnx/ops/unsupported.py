"""Operators that no plain network can express, with the reason and the way out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memsr_compiler.trace.onnx.file import Node
from memsr_compiler.trace.onnx.folds.registry import read_axes
from memsr_compiler.trace.onnx.ops.registry import Value
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE, JUMPS
from memsr_compiler.trace.views import View

_QUANTISED = ("the network is quantised", "convert the floating-point network, and quantise the plain one")
DECIDES = (
    "it decides by the values of pixels, and a plain network does the same for every image",
    "remove the decision and retrain",
)
APART = "write y[:, :k] = z as torch.cat([z, y[:, k:]], 1) and export again; or give the module, or a .pt2 of it"
WRITES = (
    "it writes into a part of a feature map in a way that is not read",
    "write y[:, :k] = z as torch.cat([z, y[:, k:]], 1) and export again, or export with dynamo=True; or give the "
    "module, or a .pt2 of it",
)
_CURVED, _GLOBAL = IMPOSSIBLE["gelu"], IMPOSSIBLE["mean"]
_TORCH_NAMES = {
    "Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "log_softmax", "HardSwish": "hardswish",
    "GlobalAveragePool": "adaptive_avg_pool2d", "GlobalMaxPool": "adaptive_max_pool2d", "Einsum": "einsum",
    "LayerNormalization": "layer_norm", "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm", "LpNormalization": "normalize",
    "MeanVarianceNormalization": "normalize", "MatMul": "matmul", "Gemm": "matmul",
    "MaxPool": "max_pool2d", "LpPool": "avg_pool2d", "GridSample": "grid_sample",
    "DeformConv": "deform_conv2d",
}  # fmt: skip
_OVER_CHANNELS = (
    "it makes one channel of all, which is not read",
    "write a sum or mean over channels as a 1x1 convolution with constant weights",
)
REFUSED: dict[str, tuple[str, str]] = {
    **{name: IMPOSSIBLE[word] for name, word in _TORCH_NAMES.items()},
    **dict.fromkeys(
        ("Gelu", "Tanh", "Softplus", "Softsign", "Mish", "Elu", "Selu", "Celu", "Exp", "Log"),
        _CURVED,
    ),
    **dict.fromkeys(("Sqrt", "Sin", "Cos", "Erf", "Pow", "Reciprocal", "LRN"), _CURVED),
    **dict.fromkeys(("Sign", "Round", "Floor", "Ceil", "Mod"), JUMPS),
    **dict.fromkeys(
        ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And"),
        DECIDES,
    ),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "TopK", "NonZero", "GatherElements"),
        DECIDES,
    ),
    "ScatterElements": WRITES,
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd"),
        _GLOBAL,
    ),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSumExp"), _GLOBAL),
    "CumSum": ("it adds up along an axis, which is not read", "write a sum over channels as a 1x1 convolution"),
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
        _QUANTISED,
    ),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QLinearMatMul"), _QUANTISED),
}  # fmt: skip


def find_refusal(node: Node, operands: Sequence[Value | None]) -> tuple[str, str] | None:
    """Reason and way out for a node that no plain network can express; None if one may."""
    x = operands[0] if operands else None
    if node.op.startswith("Reduce") and isinstance(x, View):
        given = operands[1] if len(operands) > 1 else None
        axes = read_axes(node, given if isinstance(given, np.ndarray) else None, len(x.axes))
        if axes and all(f.axis == "c" for axis in axes for f in x.axes[axis]):
            return _OVER_CHANNELS
    return REFUSED.get(node.op)
