"""Operations that no plain network can express, with the reason and the way out.

A name that has a word too has it for the cases that can be plain (a mean over channels), and the reason is for the
others.
"""

from __future__ import annotations

GATE = "its result multiplies or reweights pixels by other pixels, and a plain network is piecewise linear"
SMOOTH = "it is curved, and a plain network is piecewise linear"
GLOBAL = "every output pixel depends on the whole image, and a plain network is local"
RETRAIN = "replace it by a piecewise linear one and retrain"
NORM = (
    "it divides by how large values are, or how far apart, and a plain network is piecewise linear",
    "use batch norm, which becomes constant, and retrain",
)
JUMPS = ("it jumps, and a plain network is continuous", "replace it by a piecewise linear one and retrain")
POOLING = (GLOBAL, "remove the pooling (channel attention?) and retrain")
MATRIX_PRODUCTS = ("matmul", "bmm", "einsum", "baddbmm", "scaled_dot_product_attention")
ATTENTION = (
    "it is a product of two feature maps, as in attention between pixels, and a plain network is piecewise linear",
    "remove attention and retrain; eval, bench and upscale --tile off run the network as it is",
)
IMPOSSIBLE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("sigmoid", "softmax", "_softmax", "log_softmax", "hardswish", "glu"),
        (SMOOTH, "remove the gate (attention) it belongs to and retrain, or convert the parts around it"),
    ),
    **dict.fromkeys(
        ("gelu", "silu", "tanh", "softplus", "mish", "elu", "selu", "exp", "log", "sqrt", "sin", "cos", "erf"),
        (SMOOTH, RETRAIN),
    ),
    **dict.fromkeys(
        ("sign", "sgn", "round", "floor", "ceil", "trunc", "frac", "heaviside", "fmod", "remainder", "hardshrink"),
        JUMPS,
    ),
    **dict.fromkeys(
        ("cond", "while_loop"),
        (
            "a decision depends on the image, its values or its size, and a plain network does the same to every image",
            "take out torch.cond, or torch.while_loop, and export the branch that is meant",
        ),
    ),
    **dict.fromkeys(
        ("argmax", "argmin", "argsort"),
        ("places jump from one channel or pixel to another, and a plain network is continuous", "use values instead"),
    ),
    **dict.fromkeys(
        (
            "adaptive_avg_pool2d",
            "_adaptive_avg_pool2d",
            "adaptive_max_pool2d",
            "mean",
            "sum",
            "amax",
            "amin",
        ),
        POOLING,
    ),
    **dict.fromkeys(
        ("std", "var", "std_mean", "var_mean"),
        (SMOOTH, "remove the norm or the attention that it belongs to and retrain; batch norm becomes constant"),
    ),
    **dict.fromkeys(
        (
            "layer_norm",
            "native_layer_norm",
            "group_norm",
            "native_group_norm",
            "instance_norm",
            "normalize",
            "linalg_vector_norm",
            "norm",
        ),
        NORM,
    ),
    **dict.fromkeys(
        MATRIX_PRODUCTS[:-1],
        (
            "products of matrices are not read, be they of two feature maps (attention) or with constant weights",
            "write one with constant weights as a 1x1 convolution; remove attention and retrain",
        ),
    ),
    "scaled_dot_product_attention": (GATE, "remove the attention and retrain"),
    **dict.fromkeys(
        ("max_pool2d", "avg_pool2d", "max_pool2d_with_indices"),
        ("it lowers the resolution or takes maxima over pixels", "remove the pooling and retrain"),
    ),
    **dict.fromkeys(
        ("reflection_pad2d", "replication_pad2d", "circular_pad2d"),
        (
            "its border is not zero padding, so no plain network is equal at the border",
            "use padding_mode='zeros' and retrain",
        ),
    ),
    **dict.fromkeys(
        (
            "fake_quantize_per_tensor_affine",
            "fake_quantize_per_channel_affine",
            "fused_moving_avg_obs_fake_quant",
            "quantize_per_tensor",
            "quantize_per_channel",
            "dequantize",
        ),
        (
            "it rounds values to 8 bits, and a plain network is piecewise linear",
            "convert the network without it, and memsrc quantize makes 8 bits of what comes out",
        ),
    ),
    **dict.fromkeys(("grid_sample", "affine_grid", "deform_conv2d"), (GATE, "remove it and retrain")),
}
