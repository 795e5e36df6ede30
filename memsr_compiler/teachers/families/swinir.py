"""SwinIR for lightweight super-resolution: attention between the pixels of windows that are shifted every other time.

Key names of the authors' repository: `conv_first`, `patch_embed.norm`, `layers.0.residual_group.blocks.0.attn.qkv`,
..., `layers.0.conv`, `norm`, `conv_after_body`, `upsample.0`.  Their files also hold constants that follow from the
window and from the size of image they were trained on: `attn.relative_position_index`, `attn_mask`.  Here these are
computed.  It is the form with one convolution before the pixel shuffle; the larger ones end otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import cast

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Dialect, Family, Shapes, Value, conv, count_keys, has_kernels
from memsr_compiler.teachers.families.edsr import DIV2K_MEAN

APART = -100.0
"""Added to the score of two pixels of a window that are no neighbours in the image."""

BLOCK = "layers.0.residual_group.blocks.0"
_CONSTANTS = ("relative_position_index", "attn_mask")


class WindowAttention(nn.Module):
    """Attention within windows: (windows, window^2, channels) -> the same shape.

    No plain network can express it: products of two feature maps, and a softmax.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """The pixels of each window, weighed.

        places   of every pair's bias in the table, (window^2, window^2)
        mask     (windows of one image, window^2, window^2), added to the scores; None: nothing
        """
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[places].permute(2, 0, 1)
        scores = (query * key.shape[-1] ** -0.5) @ key.transpose(-2, -1) + bias
        if mask is not None:
            scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)
        mixed = scores.softmax(-1) @ value
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class Perceptron(nn.Module):
    """Two linear layers and a GELU on every pixel: (..., channels) -> the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The layers' output; see the class."""
        result: Tensor = self.fc2(self.act(self.fc1(x)))
        return result


class SwinLayer(nn.Module):
    """x + attention(x), then x + perceptron(x), normalised before each: (N, H, W, channels) -> the same shape.

    shift   by which the windows are moved, in pixels
    """

    def __init__(self, channels: int, heads: int, window: int, hidden: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Perceptron(channels, hidden)

    def forward(self, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """The layer's output; H and W are multiples of the window."""
        height, width = x.shape[1:3]
        moved = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        windows = self.attn(cut_windows(moved, self.attn.window), places, mask if self.shift else None)
        x = x + torch.roll(join_windows(windows, self.attn.window, height, width), (self.shift, self.shift), (1, 2))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class ResidualGroup(nn.Module):
    """x + conv(layers(x)), every other layer shifted by half a window: (N, H, W, channels) -> the same shape."""

    def __init__(self, layers: int, channels: int, heads: int, window: int, hidden: int) -> None:
        super().__init__()
        shifts = [(number % 2) * (window // 2) for number in range(layers)]
        blocks = nn.ModuleList(SwinLayer(channels, heads, window, hidden, shift) for shift in shifts)
        self.residual_group = nn.ModuleDict({"blocks": blocks})
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """The group's output; see the class."""
        y = x
        for layer in self.residual_group.get_submodule("blocks").children():
            y = layer(y, places, mask)
        return x + to_pixels(self.conv(to_planes(y)))


class SwinIR(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), in [0, 1], of any height and width.

    blocks    groups of layers, each with a convolution and a skip       layers  in each
    window    pixels a side within which pixels attend to each other
    heads     of attention, which divide the channels                    hidden  width of the perceptrons; None: twice
    Where height or width is no multiple of the window, the image goes on as its mirror image to the next one; what that
    gives is cut off.  (The authors' test script mirrors up to a whole window more.)
    Raises InvalidInput for sizes that describe no network.
    Source: Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (ICCV Workshops 2021).
    """

    def __init__(
        self,
        *,
        scale: int,
        blocks: int = 4,
        layers: int = 6,
        channels: int = 60,
        heads: int = 6,
        window: int = 8,
        hidden: int | None = None,
        colours: int = 3,
    ) -> None:
        super().__init__()
        if min(scale, blocks, layers, heads, colours) < 1 or window < 2 or channels < 1 or channels % heads:
            sizes = f"scale={scale}, blocks={blocks}, layers={layers}, channels={channels}, heads={heads}"
            raise InvalidInput(
                f"SwinIR: {sizes}, window={window}. Each must be at least 1, the window 2, and heads divide channels."
            )
        hidden = 2 * channels if hidden is None else hidden
        self.scale, self.window = scale, window
        self.mean = DIV2K_MEAN if colours == len(DIV2K_MEAN) else (0.0,) * colours
        self.conv_first = conv(colours, channels)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(channels)})
        self.layers = nn.ModuleList(ResidualGroup(layers, channels, heads, window, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = conv(channels, channels)
        self.upsample = nn.Sequential(conv(channels, colours * scale**2), nn.PixelShuffle(scale))
        if not self.conv_first.weight.is_meta:  # only the shapes are wanted otherwise
            self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged image, not clipped to [0, 1]."""
        height, width = x.shape[2:]
        mean = x.new_tensor(self.mean)[:, None, None]
        head = self.conv_first(mirror_to_multiple(x - mean, self.window))
        places = number_pairs(self.window, x.device)
        mask = mask_strangers(head, self.window)
        y = self.patch_embed.get_submodule("norm")(to_pixels(head))
        for group in self.layers:
            y = group(y, places, mask)
        enlarged = self.upsample(self.conv_after_body(to_planes(self.norm(y))) + head)
        result: Tensor = enlarged[:, :, : height * self.scale, : width * self.scale] + mean
        return result


def to_pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def to_planes(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def cut_windows(x: Tensor, window: int) -> Tensor:
    """Windows of an image, row by row: (N, H, W, C) -> (N * windows, window^2, C)."""
    images, height, width, channels = x.shape
    cells = x.reshape(images, height // window, window, width // window, window, channels)
    return cells.transpose(2, 3).reshape(-1, window**2, channels)


def join_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The image of these windows: (N * windows, window^2, C) -> (N, height, width, C)."""
    channels = windows.shape[2]
    cells = windows.reshape(-1, height // window, width // window, window, window, channels)
    return cells.transpose(2, 3).reshape(-1, height, width, channels)


def number_pairs(window: int, device: torch.device | None = None) -> Tensor:
    """Place of each pair of a window's pixels in the table of biases, by how far apart they are: (window^2, window^2).

    It is the `relative_position_index` of the authors' files.
    """
    pixel = torch.arange(window**2, device=device)
    row, column = pixel // window, pixel % window
    down, right = (axis[:, None] - axis + window - 1 for axis in (row, column))
    return down * (2 * window - 1) + right


def mask_strangers(x: Tensor, window: int) -> Tensor:
    """APART for pairs of a shifted window that are no neighbours in the image, which the shift wraps around; else 0.

    x   (N, C, H, W), multiples of the window -> (windows, window^2, window^2), the `attn_mask` of the authors' files
    """
    sides = []
    for side in (x.shape[2], x.shape[3]):
        place = torch.arange(side, device=x.device)
        sides.append((place >= side - window).int() + (place >= side - window // 2).int())
    rows, columns = sides
    region = cut_windows((3 * rows[:, None] + columns)[None, :, :, None], window)
    return (region != region.transpose(1, 2)).to(x.dtype) * APART


def mirror_to_multiple(x: Tensor, window: int) -> Tensor:
    """The image continued below and to the right as its mirror image, up to a multiple of the window."""
    for axis in (2, 3):
        near = x[:, :, -window:] if axis == 2 else x[:, :, :, -window:]
        ahead = torch.cat([near.flip(axis), near] * window, axis)  # of a single pixel, too, a whole window
        x = torch.cat([x, ahead.narrow(axis, 0, -x.shape[axis] % window)], axis)
    return x


def infer(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of SwinIR for a state dict without the authors' constants; None if it is another network's."""
    table, grown = f"{BLOCK}.attn.relative_position_bias_table", f"{BLOCK}.mlp.fc1.weight"
    ends = ("conv_first.weight", "layers.0.conv.weight", "conv_after_body.weight", "upsample.0.weight")
    if (
        not has_kernels(shapes, *ends)
        or any(key.endswith(_CONSTANTS) for key in shapes)
        or "conv_last.weight" in shapes
    ):
        return None
    if len(shapes.get(table, ())) != 2 or len(shapes.get(grown, ())) != 2:
        return None
    channels, colours = shapes["conv_first.weight"][:2]
    blocks = count_keys(shapes, "layers.{}.conv.weight")
    layers = count_keys(shapes, "layers.0.residual_group.blocks.{}.norm1.weight")
    if blocks * layers > len(shapes):
        return None  # keeps a hostile list of keys from describing a network of quadratic size
    return {
        "scale": isqrt(shapes["upsample.0.weight"][0] // colours),
        "blocks": blocks,
        "layers": layers,
        "channels": channels,
        "heads": shapes[table][1],
        "window": (isqrt(shapes[table][0]) + 1) // 2,
        "hidden": shapes[grown][0],
        "colours": colours,
    }


def _initialise(module: nn.Module) -> None:
    """Draw weights as the authors do."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    if isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


def _without_constants(entries: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in entries.items() if not key.endswith(_CONSTANTS)}


def _infer_authors(shapes: Shapes) -> dict[str, object] | None:
    own = _without_constants(shapes)
    return infer(own) if len(own) < len(shapes) else None


def _translate_authors(state: Mapping[str, Tensor], hyper: Mapping[str, object]) -> dict[str, Tensor]:
    """The weights alone.  Raises ValueError where pairs of pixels are numbered otherwise than by the authors."""
    window = cast(int, hyper["window"])
    expected: Tensor | None = None  # not made before a file shows that it is as large
    for key, value in state.items():
        if not key.endswith("relative_position_index"):
            continue
        if expected is None and value.shape == (window**2, window**2):
            expected = number_pairs(window)
        if expected is None or not torch.equal(value, expected):
            raise ValueError(f"{key} numbers pairs of pixels in another way than SwinIR does")
    return _without_constants(state)


AUTHORS = Dialect(name="its authors", infer=_infer_authors, translate=_translate_authors)

FAMILY = Family(
    name="swinir",
    build=SwinIR,
    infer=infer,
    source="Liang et al., SwinIR: Image Restoration Using Swin Transformer, ICCV Workshops 2021",
    habits=("mean colour of DIV2K", "images mirrored to whole windows"),
    activation="GELU",
    description="SwinIR for lightweight super-resolution (SwinIR-S); attention between pixels cannot be plain",
    dialects=(AUTHORS,),
)
