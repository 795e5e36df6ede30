"""Operators that no plain network can express, with the reason and the way out."""

from __future__ import annotations

from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE

_QUANTISED = ("the network is quantised", "convert the floating-point network, and quantise the plain one")
_JUMPS = ("it jumps, and a plain network is continuous", "replace it by a piecewise linear one and retrain")
_DECIDES = (
    "it decides by the values of pixels, and a plain network does the same for every image",
    "remove the decision and retrain",
)
_CURVED, _GLOBAL = IMPOSSIBLE["gelu"], IMPOSSIBLE["mean"]
_TORCH_NAMES = {
    "Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "log_softmax", "HardSwish": "hardswish",
    "GlobalAveragePool": "adaptive_avg_pool2d", "GlobalMaxPool": "adaptive_max_pool2d", "Einsum": "einsum",
    "LayerNormalization": "layer_norm", "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm", "LpNormalization": "normalize",
    "MeanVarianceNormalization": "normalize", "MatMul": "matmul", "Gemm": "matmul",
    "MaxPool": "max_pool2d", "AveragePool": "avg_pool2d", "LpPool": "avg_pool2d", "GridSample": "grid_sample",
    "DeformConv": "deform_conv2d",
}  # fmt: skip
REFUSED: dict[str, tuple[str, str]] = {
    **{name: IMPOSSIBLE[word] for name, word in _TORCH_NAMES.items()},
    **dict.fromkeys(
        ("Gelu", "Tanh", "Softplus", "Softsign", "Mish", "Elu", "Selu", "Celu", "Exp", "Log"),
        _CURVED,
    ),
    **dict.fromkeys(("Sqrt", "Sin", "Cos", "Erf", "Pow", "Reciprocal", "LRN"), _CURVED),
    **dict.fromkeys(("Sign", "Round", "Floor", "Ceil", "ThresholdedRelu", "Shrink", "Mod"), _JUMPS),
    **dict.fromkeys(
        ("Where", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And"),
        _DECIDES,
    ),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "TopK", "NonZero", "GatherND", "GatherElements", "ScatterND"),
        _DECIDES,
    ),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd"),
        _GLOBAL,
    ),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSumExp", "CumSum"), _GLOBAL),
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
        _QUANTISED,
    ),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QLinearMatMul"), _QUANTISED),
}  # fmt: skip
