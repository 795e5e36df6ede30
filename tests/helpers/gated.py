"""Small networks with gates and smooth activations, which no plain network can express, and constants for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 8


class Squeeze(nn.Module):
    """Squeeze-and-excitation with linear layers and reshapes (Hu et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 3), nn.Linear(3, WIDTH)

    def gate(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        return torch.sigmoid(self.second(F.relu(self.first(y)))).view(b, c, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).expand_as(x)


class ChannelAttention(nn.Module):
    """RCAN's: 1x1 convolutions of the mean, the gate first in the product (Zhang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.du = nn.Sequential(nn.Conv2d(WIDTH, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, WIDTH, 1), nn.Sigmoid())

    def gate(self, x: Tensor) -> Tensor:
        result: Tensor = self.du(self.pool(x))
        return result

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x


class Contrast(ChannelAttention):
    """IMDN's: of the standard deviation plus the mean, summed and divided by the number of pixels (Hui et al. 2019)."""

    def gate(self, x: Tensor) -> Tensor:
        pixels = x.size(2) * x.size(3)
        mean = x.sum(3, keepdim=True).sum(2, keepdim=True) / pixels
        variance = (x - mean).pow(2).sum(3, keepdim=True).sum(2, keepdim=True) / pixels
        result: Tensor = self.du(variance.pow(0.5) + self.pool(x))
        return result


class Divided(Contrast):
    """Divided by a pooled value, in place."""

    def gate(self, x: Tensor) -> Tensor:
        return 1 / (1 + x.std((2, 3), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        x /= 1 + x.std((2, 3), keepdim=True)
        return x


class Hard(ChannelAttention):
    """MobileNetV3's: a hard sigmoid of the pooled mean, multiplied in place."""

    def gate(self, x: Tensor) -> Tensor:
        return F.hardsigmoid(self.du[2](F.relu(self.du[0](x.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gate(x))


class Pixels(nn.Module):
    """A sigmoid of a convolution, another number at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class OneMap(Pixels):
    """CBAM's spatial attention: one map for all channels, of their mean and maximum (Woo et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def gate(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], dim=1)
        return torch.sigmoid(self.conv(seen))


class Enhanced(nn.Module):
    """RFDN's: strided, pooled, enlarged again (Liu et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.coarse, self.wide = nn.Conv2d(WIDTH, 3, 1), nn.Conv2d(3, 3, 3, 2), nn.Conv2d(3, WIDTH, 1)

    def gate(self, x: Tensor) -> Tensor:
        narrow = self.narrow(x)
        coarse = F.max_pool2d(self.coarse(narrow), kernel_size=3, stride=2)
        enlarged = F.interpolate(coarse, (x.size(2), x.size(3)), mode="bilinear", align_corners=False)
        return torch.sigmoid(self.wide(enlarged + narrow))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class HardPixels(Pixels):
    """A hard sigmoid of a convolution."""

    def gate(self, x: Tensor) -> Tensor:
        return F.hardsigmoid(self.conv(x))


class Signed(Pixels):
    """SPAN's: lies around zero (Wan et al. 2024)."""

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x)) - 0.5


class Efficient(nn.Module):
    """ECA's: a convolution along the channels (Wang et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return torch.sigmoid(self.conv(y)).transpose(-1, -2).unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Lattice(nn.Module):
    """LatticeNet's: two branches combined with coefficients from pooled mean and deviation (Luo et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.mean, self.deviation = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)

    def gate(self, x: Tensor) -> Tensor:
        pooled, spread = F.adaptive_avg_pool2d(x, (1, 1)), x.std(dim=[2, 3], keepdim=True)
        return (torch.sigmoid(self.mean(pooled)) + torch.sigmoid(self.deviation(spread))) / 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        return x + self.gate(y) * y


POOLED = (Squeeze, ChannelAttention, Contrast, Divided, Hard, Efficient)
SPATIAL = (Pixels, OneMap, Enhanced, HardPixels, Signed)


class Constant(nn.Module):
    """A gate that is a number, and a constant that is added."""

    def __init__(self, scale: Tensor, shift: Tensor | None = None) -> None:
        super().__init__()
        self.scale, self.shift = scale, torch.zeros_like(scale) if shift is None else shift

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[None, :, None, None] + self.shift[None, :, None, None]


class Bend(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gated(nn.Module):
    """(N, 3, H, W) -> (N, 3, 2 H, 2 W): two residual blocks, with whatever is put between convolution and sum."""

    def __init__(
        self, make: Callable[[], nn.Module], *, act: Callable[[], nn.Module] = nn.ReLU, blocks: int = 2
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), act(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), make())
            for _ in range(blocks)
        )
        self.tail = nn.Sequential(nn.Conv2d(WIDTH, 12, 3, padding=1), nn.PixelShuffle(2))

    @property
    def blocks(self) -> list[Any]:
        """The blocks, each a sequence: convolution, activation, convolution, what was put in."""
        return list(self.body)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.body:
            x = x + block(x)
        result: Tensor = self.tail(x)
        return result


def gated(make: Callable[[], nn.Module], *, act: Callable[[], nn.Module] = nn.ReLU, blocks: int = 2) -> Gated:
    """A network with such gates, its weights random but the same every time."""
    return Gated(make, act=act, blocks=blocks).eval()


def images(count: int = 3, channels: int = 3, size: int = 24) -> list[Tensor]:
    """Smooth random images in 0..1, (1, C, H, W) in float64, each of another size."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(size + 2 * i, size + 6 - i) for i in range(count)]
    coarse = [torch.rand(1, channels, 6, 7, generator=generator, dtype=torch.float64) for _ in sizes]
    return [F.interpolate(c, s, mode="bicubic").clamp(0, 1) for c, s in zip(coarse, sizes, strict=True)]
