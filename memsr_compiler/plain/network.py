"""The result: a plain network, a straight stack of convolution + ReLU (or PReLU) with pixel shuffle at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import numbers_sha256, stack_sha256
from memsr_compiler.ir import BlockConv2d
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.proof.checker import Layer
from memsr_compiler.torch_helpers import enlarge

if TYPE_CHECKING:
    from memsr_compiler.lowering.compile import Report
    from memsr_compiler.student.report import ShrinkReport


class PlainLayer(nn.Conv2d):
    """Convolution (zero padding, stride 1), then perhaps ReLU or PReLU, then perhaps a pixel shuffle.

    slope  (C_out, 1, 1) of the PReLU; None: there is none
    """

    bias: nn.Parameter  # there always is one
    slope: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor, *, relu: bool, shuffle: int = 1, slope: Tensor | None = None
    ) -> None:
        c_out, c_in, k, _ = weight.shape
        super().__init__(c_in, c_out, k, padding=k // 2, device="meta")
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.relu = relu
        self.shuffle = shuffle
        self.register_buffer("slope", slope)  # what passes and what is a ReLU is no matter of training

    def forward(self, x: Tensor) -> Tensor:
        y = self.activate(self.before_activation(x))
        return nn.functional.pixel_shuffle(y, self.shuffle) if self.shuffle > 1 else y

    def before_activation(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        return super().forward(x)

    @property
    def is_plain(self) -> bool:
        """Whether it still is the convolution that it was made as."""
        half = self.kernel_size[0] // 2
        ways = (self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return ways == ((1, 1), (half, half), (1, 1), 1, "zeros")

    def for_checker(self) -> Layer:
        """The layer as the certificate's checker wants it."""
        slope = None if self.slope is None else self.slope.cpu()
        return Layer(self.weight.detach().cpu(), self.bias.detach().cpu(), self.relu, self.shuffle, slope)

    def numbers(self) -> list[Tensor]:
        """Weight, bias, and the slopes where there are any."""
        return [self.weight, self.bias, *([] if self.slope is None else [self.slope])]

    def activate(self, y: Tensor) -> Tensor:
        """The convolution's result after the activation; without gradients it may be written over."""
        if self.slope is not None:
            return nn.functional.prelu(y, self.slope.to(y).flatten())
        if not self.relu:
            return y
        return y.relu_() if not torch.is_grad_enabled() else y.relu()

    def extra_repr(self) -> str:
        conv = str(super().extra_repr())  # type: ignore[no-untyped-call]
        bend = ", prelu" if self.slope is not None else ", relu" if self.relu else ""
        return conv + bend + (f", shuffle={self.shuffle}" if self.shuffle > 1 else "")


@dataclass(frozen=True)
class ExactLayer:
    """The numbers of which a layer's are rounded, in float64; slope (C_out, 1, 1) of a PReLU, or None."""

    conv: BlockConv2d
    slope: Tensor | None

    def numbers(self) -> list[Tensor]:
        """Weight, bias and slopes, in the order of `PlainLayer.numbers`."""
        return [self.conv.dense(), self.conv.bias, *([] if self.slope is None else [self.slope])]


class PlainNet(nn.Module):
    """A plain network, (N, C, H, W) -> (N, C', scale * H, scale * W), H and W from 1 up, values in `info.input_range`.

    layers        `PlainLayer`s, each with .weight (C_out, C_in, k, k), .bias (C_out,) and perhaps .slope (C_out, 1, 1)
    info          PlainInfo;   scale   the same as info.scale
    certificate   what every channel means in the teacher, for these weights (it names them by hash), or None
    report        what the compiler did, pass by pass, or for a student what `shrink` did; None if read from a file

    `.double()` gives the weights that the compiler computed in float64, as long as they have not been changed since.
    """

    def __init__(
        self,
        layers: Sequence[PlainLayer],
        info: PlainInfo,
        certificate: Certificate | None = None,
        report: Report | ShrinkReport | None = None,
        exact: Sequence[ExactLayer] = (),
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.info = info
        self.certificate = certificate
        self.report = report
        self._exact = tuple(exact)

    @property
    def scale(self) -> int:
        return self.info.scale

    @property
    def widths(self) -> list[int]:
        """Channels between the layers, the input's and the last convolution's included."""
        first = self[0]
        return [first.in_channels, *(layer.out_channels for layer in self)]

    @property
    def largest_shift(self) -> float:
        """The largest constant C that a carry by a shift adds and takes off again; 0 where there is none.

        Certificate and info say the same; a file may be read without its certificate.
        """
        if self.certificate is not None:
            return max(self.certificate.shifts.values(), default=0.0)
        return self.info.largest_shift

    @property
    def stored_eps(self) -> float:
        """The eps of the dtype that the weights were rounded to; 0 where `.double()` gives the exact ones."""
        return 0.0 if self._exact else float(torch.finfo(self[0].weight.dtype).eps)

    def __iter__(self) -> Iterator[PlainLayer]:
        for layer in self.layers:
            assert isinstance(layer, PlainLayer)
            yield layer

    def __getitem__(self, i: int) -> PlainLayer:
        layer = self.layers[i]
        assert isinstance(layer, PlainLayer)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        if self.info.image_skip:
            y = y + enlarge(x, self.scale, self.info.image_skip)
        return y

    def checkable(self) -> Iterator[Layer]:
        """The layers as the certificate's checker wants them, one at a time."""
        for layer in self:
            yield layer.for_checker()

    def sha256(self) -> str:
        """Hash of what the network computes: every weight and slope as stored, ReLUs and shuffles."""
        return layers_sha256(self.checkable())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PlainNet:
        """torch's hook behind .to, .double, .cuda: float64 takes the exact weights, if these are still them."""
        narrow = self[0].weight.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self[0].weight.dtype == torch.float64 and narrow != torch.float64 and not self[0].weight.is_meta:
            with torch.no_grad():
                for layer, exact in zip(self, self._exact, strict=False):
                    for have, want in zip(layer.numbers(), exact.numbers(), strict=True):
                        if torch.equal(have.cpu(), want.to(narrow).double()):  # not changed since it was compiled
                            have.copy_(want)
        return self


def tensor_sha256(tensor: Tensor) -> str:
    """Hash of a tensor's dtype, shape and bytes."""
    raw = tensor.detach().cpu().contiguous()
    if raw.numel() == 1:  # is contiguous whatever its strides are, but not for view
        raw = raw.clone(memory_format=torch.contiguous_format)
    name = str(raw.dtype).removeprefix("torch.")
    return numbers_sha256(name, tuple(raw.shape), raw.reshape(-1).view(torch.uint8).numpy().data)


def layers_sha256(layers: Iterable[Layer]) -> str:
    """Hash of what a stack of layers computes."""
    return stack_sha256(
        (
            tensor_sha256(x.weight),
            tensor_sha256(x.bias),
            x.relu if x.slope is None else tensor_sha256(x.slope),
            x.shuffle,
        )
        for x in layers
    )


def require_plain(net: object) -> None:
    """Raises InvalidInput for what is no plain network, any other module say."""
    if not isinstance(net, PlainNet):
        raise InvalidInput(
            f"a plain network is wanted, or its file, not {type(net).__name__}; make one with compile_to_plain or "
            "shrink"
        )
