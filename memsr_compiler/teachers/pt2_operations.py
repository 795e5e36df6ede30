"""Operations that a .pt2 file may ask for: torch runs what it is told, and not all of it checks its operands.

Some write where an index says, beyond their memory too (`max_pool2d_with_indices_backward`), print, or set the seed.
So a file may ask for what networks of images, and the algebra of their weights, are made of, and for nothing else.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.fx.regions import list_nodes
from memsr_compiler.trace.torch_ops import activation, choices, constants, convolution, pointwise, resolution, shape
from memsr_compiler.trace.torch_ops.registry import WORDS
from memsr_compiler.trace.torch_ops.unsupported import IMPOSSIBLE

_KNOWING = (activation, choices, constants, convolution, pointwise, resolution, shape)
"""The modules that put their words into `WORDS`."""
_ATEN = re.compile(r"torch\.ops\.(?:aten|prims)\.(\w+)\.(\w+)")
_ALGEBRA = frozenset((
    "__and__", "__iand__", "__ilshift__", "__ior__", "__irshift__", "__ixor__", "__lshift__", "__or__",
    "__rshift__", "__xor__", "_assert_async", "_assert_scalar", "_assert_tensor_metadata", "_conj",
    "_local_scalar_dense", "_log_softmax", "_native_batch_norm_legit", "_prelu_kernel", "_safe_softmax",
    "_scaled_dot_product_attention_math", "_shape_as_tensor", "_softmax", "_upsample_nearest_exact1d",
    "_weight_norm", "_weight_norm_interface", "acos", "acosh", "adaptive_avg_pool1d", "adaptive_avg_pool3d",
    "adaptive_max_pool2d", "addbmm", "addcdiv", "addmm", "addmv", "addr", "adjoint", "affine_grid_generator",
    "alias_copy", "all", "aminmax", "angle", "any", "arange", "arccos", "arcsin", "arctan", "arctan2", "asin",
    "asinh", "atan", "atan2", "atanh", "atleast_1d", "atleast_2d", "atleast_3d", "avg_pool1d", "avg_pool3d",
    "bartlett_window", "bernoulli", "bilinear", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "blackman_window", "block_diag", "broadcast_in_dim", "broadcast_tensors",
    "cartesian_prod", "cdist", "celu", "chain_matmul", "col2im", "column_stack", "complex", "conv1d", "conv3d",
    "conv_transpose1d", "conv_transpose3d", "convert_element_type", "copysign", "cosh", "cosine_similarity",
    "count_nonzero", "cross", "cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "deg2rad", "diag",
    "diag_embed", "diagonal", "diagonal_scatter", "diff", "digamma", "dot", "dsplit", "dstack", "embedding",
    "empty", "empty_like", "empty_permuted", "eq", "equal", "erfc", "erfinv", "exp2", "expm1", "eye",
    "feature_alpha_dropout", "fft_fft", "fft_fft2", "fft_fftfreq", "fft_fftn", "fft_fftshift", "fft_ifft",
    "fft_ifft2", "fft_ifftn", "fft_ifftshift", "fft_irfft", "fft_irfft2", "fft_irfftn", "fft_rfft", "fft_rfft2",
    "fft_rfftfreq", "fft_rfftn", "fix", "fliplr", "flipud", "float_power", "floor_divide", "full", "gather", "gcd",
    "ger", "greater_equal", "grid_sampler", "grid_sampler_2d", "group_norm", "hamming_window", "hann_window",
    "hsplit", "huber_loss", "hypot", "im2col", "imag", "index_add", "index_copy", "index_fill", "index_put",
    "inner", "inverse", "iota", "is_floating_point", "is_nonzero", "isclose", "isfinite", "isin", "isinf", "isnan",
    "isneginf", "isposinf", "isreal", "item", "kaiser_window", "kron", "l1_loss", "lcm", "ldexp", "lgamma", "lift",
    "lift_fresh", "linalg_cholesky", "linalg_cross", "linalg_det", "linalg_diagonal", "linalg_eigh", "linalg_inv",
    "linalg_matmul", "linalg_matrix_exp", "linalg_matrix_norm", "linalg_matrix_power", "linalg_multi_dot",
    "linalg_norm", "linalg_pinv", "linalg_qr", "linalg_slogdet", "linalg_solve", "linalg_solve_triangular",
    "linalg_svd", "linspace", "log10", "log1p", "log2", "log_sigmoid", "logaddexp", "logaddexp2", "logcumsumexp",
    "logdet", "logical_and", "logical_not", "logical_or", "logical_xor", "logit", "logspace", "logsumexp", "mH",
    "mT", "masked_scatter", "masked_select", "matrix_H", "matrix_exp", "matrix_power", "max_pool1d",
    "max_pool2d_with_indices", "max_pool3d", "median", "meshgrid", "mm", "mode", "movedim", "mse_loss", "multi_dot",
    "multi_head_attention_forward", "mv", "nan_to_num", "nanmean", "nansum", "narrow_copy",
    "native_channel_shuffle", "ne", "new_empty", "new_empty_strided", "nextafter", "nonzero", "norm_except_dim",
    "normal", "not_equal", "numel", "one_hot", "ones", "outer", "pairwise_distance", "permute_copy", "pinverse",
    "pixel_shuffle", "polar", "positive", "pow", "prod", "quantile", "rad2deg", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm", "ravel", "real", "reciprocal", "reflection_pad1d",
    "reflection_pad3d", "renorm", "replication_pad1d", "replication_pad3d", "reshape_as", "resolve_conj",
    "resolve_neg", "rms_norm", "roll", "rot90", "row_stack", "rrelu_with_noise_functional", "rsqrt",
    "scalar_tensor", "scaled_dot_product_attention", "scatter", "scatter_add", "scatter_reduce", "select_copy",
    "signbit", "sinc", "sinh", "slice_copy", "smooth_l1_loss", "sort", "special_entr", "special_erf",
    "special_erfcx", "special_expit", "special_logit", "special_round", "special_softmax", "split_copy", "square",
    "squeeze_copy", "std", "sum_to_size", "swapaxes", "sym_constrain_range", "sym_constrain_range_for_size",
    "sym_is_contiguous", "sym_numel", "sym_storage_offset", "sym_stride", "t", "t_copy", "take_along_dim", "tan",
    "tensor_split", "tensordot", "topk", "trace", "transpose_copy", "trapezoid", "trapz", "tril", "tril_indices",
    "triu", "triu_indices", "unbind_copy", "unfold", "unfold_copy", "uniform", "unique_consecutive", "unsafe_chunk",
    "unsafe_split", "unsafe_split_with_sizes", "unsqueeze_copy", "upsample_bicubic2d", "upsample_linear1d",
    "upsample_nearest1d", "upsample_nearest3d", "upsample_trilinear3d", "vander", "vdot", "view_as",
    "view_as_complex", "view_as_real", "view_copy", "vsplit", "vstack", "xlogy", "zero", "zeros",
))  # fmt: skip
"""What words do not name: the algebra of weights and sizes, and what is refused in words of its own."""
_UNCHECKED = frozenset(("_batch_norm_with_update", "fused_moving_avg_obs_fake_quant"))
"""What words name, and torch lets write beyond its operands where these are too short.

So does `repeat_interleave` with a tensor of numbers of times, of which some are below 0.
"""


def is_checked(target: str) -> bool:
    """Whether a call, "torch.ops.aten.add.Tensor", is of an operation that looks at its operands before it writes."""
    found = _ATEN.fullmatch(target)
    if found is None:
        return False
    name, overload = found.groups()
    plain = name.removeprefix("_foreach_").removesuffix("_")  # of tensors one by one, or in place
    known = any(one in WORDS or one in IMPOSSIBLE or one in _ALGEBRA for one in (name, plain))
    return known and plain not in _UNCHECKED and _is_safe(name, overload)


def _is_safe(name: str, overload: str) -> bool:
    """Whether this form of an operation makes its result itself: torch lets some write beyond one that it is given."""
    packet = getattr(torch.ops.aten, name, None) or getattr(torch.ops.prims, name, None)
    operation = getattr(packet, overload, None)
    schema = getattr(operation, "_schema", None)
    gives = schema is not None and not any(argument.is_out for argument in schema.arguments)
    return gives and (name != "repeat_interleave" or overload == "self_int")


def require_norms_that_fit(program: torch.export.ExportedProgram) -> None:
    """Raises InvalidInput for weight norms whose two weights do not fit, which torch reads, and writes, beyond.

    program   whose stored weights have the shapes that it says
    """
    for graph, node in list_nodes(program.graph_module):
        if node.target not in _WEIGHT_NORMS:
            continue
        stored = graph is program.graph and all(one.op == "placeholder" for one in node.args[:2])
        direction, size = (one.meta.get("val") if stored else None for one in node.args[:2])
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        if not (isinstance(direction, Tensor) and isinstance(size, Tensor)):
            raise InvalidInput(
                f"{node.name}: its weight norm is not one of stored weights, or within torch.no_grad(); take it out of "
                "there, or fold it, by torch.nn.utils.remove_weight_norm, and export the network again"
            )
        wanted = 1 if axis == -1 else direction.shape[axis]
        if size.numel() != wanted or size.dtype != direction.dtype:
            raise InvalidInput(
                f"{node.name}: its weight norm has {size.numel()} sizes for {wanted} kernels; the file is damaged"
            )


_WEIGHT_NORMS = (torch.ops.aten._weight_norm.default, torch.ops.aten._weight_norm_interface.default)
