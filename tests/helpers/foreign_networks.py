"""Networks as others wrote them, with their key names: what the families' dialects are compared with.

Written from the descriptions of the networks, with nothing of the families' code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


class Shortcut(nn.Module):
    """x + sub(x)"""

    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.sub(x)
        return result


# -- ESRGAN -------------------------------------------------------------------------------------------------------


class EsrganDense(nn.Module):
    """Five convolutions, each reading all before it; plus: the skips of ESRGAN+."""

    def __init__(self, width: int, growth: int, *, sequences: bool, plus: bool) -> None:
        super().__init__()
        self.sequences = sequences
        if plus:
            self.conv1x1 = conv(width, growth, 1, bias=False)
        for i in range(5):
            layer: nn.Module = conv(width + i * growth, growth if i < 4 else width)
            if sequences:
                layer = nn.Sequential(layer, nn.LeakyReLU(0.2)) if i < 4 else nn.Sequential(layer)
            self.add_module(f"conv{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for i in range(5):
            y = self.get_submodule(f"conv{i + 1}")(torch.cat(features, 1))
            if i < 4 and not self.sequences:
                y = F.leaky_relu(y, 0.2)
            if hasattr(self, "conv1x1") and i == 1:
                y = y + self.conv1x1(x)
            if hasattr(self, "conv1x1") and i == 3:
                y = y + features[2]
            features.append(y)
        return features[5] * 0.2 + x


class EsrganBlock(nn.Module):
    """Three of them."""

    def __init__(self, width: int, growth: int, *, sequences: bool, plus: bool, name: str = "RDB") -> None:
        super().__init__()
        for i in range(1, 4):
            self.add_module(f"{name}{i}", EsrganDense(width, growth, sequences=sequences, plus=plus))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for dense in self.children():
            y = dense(y)
        return y * 0.2 + x


class FirstEsrgan(nn.Module):
    """As ESRGAN's first code has it: everything in one sequence `model`.  factors: of the enlargements."""

    def __init__(
        self, factors: Sequence[int], *, blocks: int = 2, width: int = 6, growth: int = 4, plus: bool = False
    ) -> None:
        super().__init__()
        body = [EsrganBlock(width, growth, sequences=True, plus=plus) for _ in range(blocks)]
        tail: list[nn.Module] = []
        for factor in factors:
            tail += [nn.Upsample(scale_factor=factor, mode="nearest"), conv(width, width), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(
            conv(3, width),
            Shortcut(nn.Sequential(*body, conv(width, width))),
            *tail,
            conv(width, width),
            nn.LeakyReLU(0.2),
            conv(width, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


class SecondEsrgan(nn.Module):
    """As ESRGAN's second code and KAIR have it.  doublings: 1 or 2"""

    def __init__(self, doublings: int, *, blocks: int = 2, width: int = 6, growth: int = 4) -> None:
        super().__init__()
        self.doublings = doublings
        self.conv_first = conv(3, width)
        self.RRDB_trunk = nn.Sequential(
            *(EsrganBlock(width, growth, sequences=False, plus=False) for _ in range(blocks))
        )
        self.trunk_conv = conv(width, width)
        for i in range(doublings):
            self.add_module(f"upconv{i + 1}", conv(width, width))
        self.HRconv = conv(width, width)
        self.conv_last = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_first(x)
        y = y + self.trunk_conv(self.RRDB_trunk(y))
        for i in range(self.doublings):
            y = F.leaky_relu(self.get_submodule(f"upconv{i + 1}")(F.interpolate(y, scale_factor=2)), 0.2)
        result: Tensor = self.conv_last(F.leaky_relu(self.HRconv(y), 0.2))
        return result


class RealEsrgan(nn.Module):
    """As BasicSR has it: for scales 2 and 1 four times as much is enlarged of an image folded by 2 or 4."""

    def __init__(self, scale: int, *, blocks: int = 2, width: int = 6, growth: int = 4) -> None:
        super().__init__()
        self.fold = 4 // scale
        self.conv_first = conv(3 * self.fold**2, width)
        blocks_ = (EsrganBlock(width, growth, sequences=False, plus=False, name="rdb") for _ in range(blocks))
        self.body = nn.Sequential(*blocks_)
        self.conv_body, self.conv_up1, self.conv_up2 = conv(width, width), conv(width, width), conv(width, width)
        self.conv_hr, self.conv_last = conv(width, width), conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        k = self.fold
        x = x.reshape(n, c, h // k, k, w // k, k).permute(0, 1, 3, 5, 2, 4).reshape(n, c * k * k, h // k, w // k)
        y = self.conv_first(x)
        y = y + self.conv_body(self.body(y))
        y = F.leaky_relu(self.conv_up1(F.interpolate(y, scale_factor=2)), 0.2)
        y = F.leaky_relu(self.conv_up2(F.interpolate(y, scale_factor=2)), 0.2)
        result: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.2))
        return result


# -- BasicSR's EDSR and MSRResNet, KAIR's ---------------------------------------------------------------------------


class TwoConvs(nn.Module):
    """x + factor * conv(relu(conv(x)))"""

    def __init__(self, width: int, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.conv1, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv2(torch.relu(self.conv1(x))) * self.factor
        return result


class BasicsrEdsr(nn.Module):
    """BasicSR's EDSR: its mean and range are in its code and in no state dict."""

    def __init__(self, scale: int, *, factor: float = 1.0, top: float = 255.0, blocks: int = 2, width: int = 6) -> None:
        super().__init__()
        self.top = top
        self.mean = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
        self.conv_first = conv(3, width)
        self.body = nn.Sequential(*(TwoConvs(width, factor) for _ in range(blocks)))
        self.conv_after_body = conv(width, width)
        up: list[nn.Module] = []
        for step in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
            up += [conv(width, width * step**2), nn.PixelShuffle(step)]
        self.upsample = nn.Sequential(*up)
        self.conv_last = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_first((x - self.mean) * self.top)
        y = self.upsample(self.conv_after_body(self.body(y)) + y)
        result: Tensor = self.conv_last(y) / self.top + self.mean
        return result


class MmagicEdsr(BasicsrEdsr):
    """mmagic's: values of 0..1 inside, and a module for each step of the enlargement."""

    def __init__(self, scale: int) -> None:
        super().__init__(scale, top=1.0)
        layers = list(self.upsample)
        steps = zip(layers[::2], layers[1::2], strict=True)
        self.upsample = nn.Sequential(*(nn.Sequential(OrderedDict(upsample_conv=c, shuffle=s)) for c, s in steps))


class BasicsrResnet(nn.Module):
    """BasicSR's MSRResNet; kair: the same with KAIR's names."""

    def __init__(self, scale: int, *, kair: bool = False, blocks: int = 2, width: int = 6, colours: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.conv_first = conv(colours, width)
        self.trunk, self.hr = ("recon_trunk", "HRconv") if kair else ("body", "conv_hr")
        self.add_module(self.trunk, nn.Sequential(*(TwoConvs(width) for _ in range(blocks))))
        self.steps = [2, 2] if scale == 4 else [scale]
        for i, step in enumerate(self.steps):
            self.add_module(f"upconv{i + 1}", conv(width, width * step**2))
        self.add_module(self.hr, conv(width, width))
        self.conv_last = conv(width, colours)

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule(self.trunk)(F.leaky_relu(self.conv_first(x), 0.1))
        for i, step in enumerate(self.steps):
            y = F.leaky_relu(F.pixel_shuffle(self.get_submodule(f"upconv{i + 1}")(y), step), 0.1)
        y = self.conv_last(F.leaky_relu(self.get_submodule(self.hr)(y), 0.1))
        result: Tensor = y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return result


class MmagicResnet(BasicsrResnet):
    """mmagic's: no activation behind its pixel shuffles."""

    def __init__(self, scale: int, *, colours: int = 3) -> None:
        super().__init__(scale, colours=colours)
        self.add_module("trunk_net", self.get_submodule("body"))
        delattr(self, "body")
        for i in range(len(self.steps)):
            pack = nn.Sequential(OrderedDict(upsample_conv=self.get_submodule(f"upconv{i + 1}")))
            self.add_module(f"upsample{i + 1}", pack)
            delattr(self, f"upconv{i + 1}")

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule("trunk_net")(F.leaky_relu(self.conv_first(x), 0.1))
        for i, step in enumerate(self.steps):
            y = F.pixel_shuffle(self.get_submodule(f"upsample{i + 1}")(y), step)
        y = self.conv_last(F.leaky_relu(self.get_submodule("conv_hr")(y), 0.1))
        result: Tensor = y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return result


class SequenceBlock(nn.Module):
    """x + res(x)"""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.res = nn.Sequential(conv(width, width), nn.LeakyReLU(slope), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.res(x)
        return result


class SequenceResnet(nn.Module):
    """KAIR's MSRResNet0.  factors: of the enlargements;  shuffle: by pixel shuffles"""

    def __init__(
        self, factors: Sequence[int], *, slope: float = 0.0, shuffle: bool = False, last_bias: bool = False
    ) -> None:
        super().__init__()
        tail: list[nn.Module] = []
        for factor in factors:
            if shuffle:
                tail += [conv(6, 6 * factor**2), nn.PixelShuffle(factor), nn.LeakyReLU(slope)]
            else:
                tail += [nn.Upsample(scale_factor=factor, mode="nearest"), conv(6, 6), nn.LeakyReLU(slope)]
        body = Shortcut(nn.Sequential(*(SequenceBlock(6, slope) for _ in range(2)), conv(6, 6)))
        self.model = nn.Sequential(conv(3, 6), body, *tail, conv(6, 6), nn.LeakyReLU(slope), conv(6, 3, bias=last_bias))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


# -- VDSR in colour -------------------------------------------------------------------------------------------------


class ColourVdsr(nn.Module):
    """torchSR's VDSR; scale 1 and top 255: that of EDSR's authors."""

    def __init__(self, scale: int, *, top: float = 1.0, layers: int = 4, width: int = 6) -> None:
        super().__init__()
        self.scale = scale
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            shift = conv(3, 3, 1)
            assert shift.bias is not None
            shift.requires_grad_(False)
            shift.weight.data = torch.eye(3)[:, :, None, None]
            shift.bias.data = sign * top * torch.tensor([0.4488, 0.4371, 0.4040])
            self.add_module(name, shift)
        body: list[nn.Module] = [conv(3, width), nn.ReLU()]
        for _ in range(layers - 2):
            body += [conv(width, width), nn.ReLU()]
        self.body = nn.Sequential(*body, conv(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)
        x = self.get_submodule("sub_mean")(x)
        result: Tensor = self.get_submodule("add_mean")(self.body(x) + x)
        return result


# -- ECBSR, ABPN, ETDS ----------------------------------------------------------------------------------------------

SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
LAPLACE = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


class Branch(nn.Module):
    """A 1x1 convolution, then a 3x3 one, or a scaled filter; what lies between is padded with the first one's bias."""

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None) -> None:
        super().__init__()
        middle = 2 * outputs if mask is None else outputs
        self.k0, self.b0 = nn.Parameter(torch.randn(middle, inputs, 1, 1)), nn.Parameter(torch.randn(middle))
        if mask is None:
            self.k1 = nn.Parameter(torch.randn(outputs, middle, 3, 3) / 9)
            self.b1 = nn.Parameter(torch.randn(outputs))
        else:
            self.scale, self.bias = nn.Parameter(torch.randn(outputs, 1, 1, 1)), nn.Parameter(torch.randn(outputs))
            self.mask = nn.Parameter(mask.repeat(outputs, 1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = self.b0[:, None, None].expand(len(x), -1, height + 2, width + 2).clone()
        padded[:, :, 1:-1, 1:-1] = F.conv2d(x, self.k0, self.b0)
        if hasattr(self, "k1"):
            return F.conv2d(padded, self.k1, self.b1)
        return F.conv2d(padded, self.scale * self.mask, self.bias, groups=len(self.mask))


class EdgeBlock(nn.Module):
    """All branches of ECBSR, as in training.  identity: the input is added too"""

    def __init__(self, inputs: int, outputs: int, activation: str, *, identity: bool) -> None:
        super().__init__()
        self.identity = identity and inputs == outputs
        self.conv3x3 = conv(inputs, outputs)
        self.conv1x1_3x3 = Branch(inputs, outputs, None)
        self.conv1x1_sbx = Branch(inputs, outputs, SOBEL)
        self.conv1x1_sby = Branch(inputs, outputs, SOBEL.T)
        self.conv1x1_lpl = Branch(inputs, outputs, LAPLACE)
        self.act = {"prelu": nn.PReLU(outputs), "relu": nn.ReLU(), "softplus": nn.Softplus(), "": nn.Identity()}[
            activation
        ]

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3x3(x) + self.conv1x1_3x3(x) + self.conv1x1_sbx(x) + self.conv1x1_sby(x) + self.conv1x1_lpl(x)
        result: Tensor = self.act(y + x if self.identity else y)
        return result


class PlainBlock(nn.Module):
    """The one convolution that is left of a block on devices."""

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.conv3x3 = conv(inputs, outputs)
        self.act = nn.PReLU(outputs) if activation == "prelu" else nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.conv3x3(x))
        return result


class Ecbsr(nn.Module):
    """ECBSR.  form: training, device, or etds (sequences)"""

    def __init__(
        self, scale: int, form: str, *, activation: str = "prelu", identity: bool = False, colours: int = 3
    ) -> None:
        super().__init__()
        self.scale = scale

        def block(inputs: int, outputs: int, activation: str) -> nn.Module:
            if form == "training":
                return EdgeBlock(inputs, outputs, activation, identity=identity)
            if form == "device":
                return PlainBlock(inputs, outputs, activation)
            return nn.Sequential(*PlainBlock(inputs, outputs, activation).children())

        inner = (block(5, 5, activation) for _ in range(2))
        self.backbone = nn.Sequential(block(colours, 5, activation), *inner, block(5, colours * scale**2, ""))

    def forward(self, x: Tensor) -> Tensor:
        repeated = torch.repeat_interleave(x, self.scale**2, dim=1)
        return F.pixel_shuffle(self.backbone(x) + repeated, self.scale)


class Abpn(nn.Module):
    """ABPN, as the authors of ETDS have it."""

    def __init__(self, scale: int, *, blocks: int = 2, width: int = 6) -> None:
        super().__init__()
        self.scale = scale
        outputs = 3 * scale**2
        inner = (nn.Sequential(conv(width, width), nn.ReLU()) for _ in range(blocks))
        self.backbone = nn.Sequential(
            conv(3, width), nn.ReLU(), *inner, conv(width, outputs), nn.ReLU(), conv(outputs, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.backbone(x) + torch.repeat_interleave(x, self.scale**2, dim=1), self.scale)


class Etds(nn.Module):
    """ETDS as it is trained."""

    def __init__(self, scale: int, *, blocks: int = 2, width: int = 5, image: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.conv_first, self.conv_residual_first = conv(3, width), conv(3, image)
        self.backbone_convs = nn.ModuleList(conv(width, width) for _ in range(blocks))
        self.residual_convs = nn.ModuleList(conv(image, image) for _ in range(blocks))
        self.add_residual_convs = nn.ModuleList(conv(image, width) for _ in range(blocks))
        self.conv_last, self.conv_residual_last = conv(width, 3 * scale**2), conv(image, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        y, z = torch.relu(self.conv_first(x)), torch.relu(self.conv_residual_first(x))
        for i, layer in enumerate(self.backbone_convs):
            y, z = torch.relu(layer(y) + self.add_residual_convs[i](z)), torch.relu(self.residual_convs[i](z))
        return F.pixel_shuffle(self.conv_last(y), self.scale) + F.pixel_shuffle(self.conv_residual_last(z), self.scale)


class PlainEtds(nn.Module):
    """ETDS on devices: at scale 3 with a channel too many."""

    def __init__(self, scale: int, *, blocks: int = 2, width: int = 8) -> None:
        super().__init__()
        self.scale = scale
        outputs = 3 * scale**2 + (scale == 3)
        self.conv_first = conv(3, width)
        self.backbone_convs = nn.ModuleList(conv(width, width) for _ in range(blocks))
        self.conv_last, self.conv_clip = conv(width, outputs), conv(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv_first(x))
        for layer in self.backbone_convs:
            y = torch.relu(layer(y))
        y = torch.relu(self.conv_clip(torch.relu(self.conv_last(y))))
        return F.pixel_shuffle(y[:, :-1] if self.scale == 3 else y, self.scale)


# -- SRCNN, LatticeNet, SwinIR --------------------------------------------------------------------------------------


class NamedSrcnn(nn.Module):
    """SRCNN 9-1-5 with a name for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 9, 1, 4), nn.ReLU(True))
        self.map = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(True))
        self.reconstruction = nn.Conv2d(4, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.reconstruction(self.map(self.features(x)))
        return result


class LatticeGate(nn.Module):
    """LatticeNet's combination coefficients."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for part in ("conv_mean", "conv_std"):
            layers = (conv(width, 2, 1), nn.ReLU(inplace=True), conv(2, width, 1), nn.Sigmoid())
            self.add_module(part, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        mean, deviation = F.adaptive_avg_pool2d(x, 1), x.view(n, c, -1).std(dim=2).view(n, c, 1, 1)
        both: Tensor = self.get_submodule("conv_mean")(mean) + self.get_submodule("conv_std")(deviation)
        return both / 2.0


class LatticePair(nn.Module):
    """LatticeNet's block."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        for i in (0, 1):
            widths = (width, inner, inner, width)
            layers = [m for a, b in pairwise(widths) for m in (conv(a, b), nn.LeakyReLU(0.05))]
            self.add_module(f"conv_block{i}", nn.Sequential(*layers))
        for name in ("fea_ca1", "x_ca1", "fea_ca2", "x_ca2"):
            self.add_module(name, LatticeGate(width))
        self.compress = conv(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = dict(self.named_children())
        short = parts["conv_block0"](x)
        p, q = x + parts["fea_ca1"](short) * short, short + parts["x_ca1"](x) * x
        long = parts["conv_block1"](p)
        p, q = long + parts["fea_ca2"](q) * q, q + parts["x_ca2"](long) * long
        result: Tensor = self.compress(torch.cat((p, q), 1))
        return result


class Lattice(nn.Module):
    """LatticeNet with four blocks."""

    def __init__(self, scale: int, *, width: int = 8, inner: int = 6) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = conv(3, 3, 1), conv(3, 3, 1)
        for shift, sign in ((self.sub_mean, -1), (self.add_mean, 1)):
            assert shift.bias is not None
            shift.weight.data = torch.eye(3)[:, :, None, None]
            shift.bias.data = sign * 255 * torch.tensor([0.4488, 0.4371, 0.4040])
            shift.requires_grad_(False)
        self.conv1, self.conv2 = conv(3, width), conv(width, width)
        self.body_unit1, self.body_unit2 = LatticePair(width, inner), LatticePair(width, inner)
        self.body_unit3, self.body_unit4 = LatticePair(width, inner), LatticePair(width, inner)
        for i in (1, 2, 3):
            for side in "TL":
                self.add_module(f"{side}_tdm{i}", nn.Sequential(conv(width, width // 2, 1), nn.ReLU()))
        self.tail = nn.Sequential(conv(width, width), conv(width, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(self.sub_mean(x)))
        one = self.body_unit1(x)
        two = self.body_unit2(one)
        three = self.body_unit3(two)
        y = self.body_unit4(three)
        for i, earlier in ((1, three), (2, two), (3, one)):
            y = torch.cat((self.get_submodule(f"T_tdm{i}")(y), self.get_submodule(f"L_tdm{i}")(earlier)), 1)
        result: Tensor = self.add_mean(self.tail(y + x))
        return result


class WindowByWindow(nn.Module):
    """SwinIR's attention, one window after the other, each pair of pixels by itself."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        pixels = [(i, j) for i in range(window) for j in range(window)]
        index = [[(a - c + window - 1) * (2 * window - 1) + b - d + window - 1 for c, d in pixels] for a, b in pixels]
        self.register_buffer("relative_position_index", torch.tensor(index))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, shift: int) -> Tensor:
        """x (H, W, C)"""
        height, width = x.shape[:2]
        result = torch.zeros_like(x)
        for top in range(shift, height + shift, self.window):
            for left in range(shift, width + shift, self.window):
                places = [(top + i, left + j) for i in range(self.window) for j in range(self.window)]
                seen = self._one(torch.stack([x[i % height, j % width] for i, j in places]), places, height, width)
                for (i, j), value in zip(places, seen, strict=True):
                    result[i % height, j % width] = value
        return result

    def _one(self, pixels: Tensor, places: list[tuple[int, int]], height: int, width: int) -> Tensor:
        query, key, value = self.qkv(pixels).chunk(3, dim=1)
        wraps = torch.tensor([[i >= height, j >= width] for i, j in places])
        apart = (wraps[:, None] != wraps[None]).any(2)
        size, parts = query.shape[1] // self.heads, []
        for head in range(self.heads):
            q, k, v = (t[:, head * size : (head + 1) * size] for t in (query, key, value))
            index = self.get_buffer("relative_position_index")
            scores = q @ k.T / size**0.5 + self.relative_position_bias_table[index, head] - 100.0 * apart
            parts.append(scores.softmax(1) @ v)
        result: Tensor = self.proj(torch.cat(parts, 1))
        return result


class SwinPart(nn.Module):
    """A layer of SwinIR; `attn_mask` is of the size of image that it was trained on, and not used."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WindowByWindow(width, heads, window)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 2 * width))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(2 * width, width))
        if shift:
            self.register_buffer("attn_mask", torch.zeros(9, window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.stack([self.attn(image, self.shift) for image in self.norm1(x)])
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Swin(nn.Module):
    """SwinIR with one convolution before the shuffle, as its authors save it; sides are multiples of the window."""

    def __init__(self, scale: int, *, window: int = 4, width: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.conv_first = conv(3, width)
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("norm", nn.LayerNorm(width))
        self.layers = nn.ModuleList()
        for _ in range(2):
            blocks = nn.Sequential(*(SwinPart(width, heads, window, i % 2 * (window // 2)) for i in range(3)))
            group = nn.Sequential()
            group.add_module("blocks", blocks)
            layer = nn.Module()
            layer.add_module("residual_group", group)
            layer.add_module("conv", conv(width, width))
            self.layers.append(layer)
        self.norm, self.conv_after_body = nn.LayerNorm(width), conv(width, width)
        self.upsample = nn.Sequential(conv(width, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
        head = self.conv_first(x - mean)
        y = self.patch_embed(head.movedim(1, 3))
        for layer in self.layers:
            inner = layer.get_submodule("residual_group")(y).movedim(3, 1)
            y = y + layer.get_submodule("conv")(inner).movedim(1, 3)
        result: Tensor = self.upsample(self.conv_after_body(self.norm(y).movedim(3, 1)) + head) + mean
        return result
