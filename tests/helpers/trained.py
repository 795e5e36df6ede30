"""A trained network, rewritten into the forms in which others distribute such: other ranges, constants, mean shifts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

SHIPPED = Path(__file__).resolve().parents[2] / "examples" / "edsr_8x32_x2.pt"
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])


class Block(nn.Module):
    """x + res_scale * conv(relu(conv(x)))."""

    def __init__(self, res_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.res_scale * self.body(x)
        return y


class Edsr(nn.Module):
    """EDSR as others write it, with the shipped weights: images of 0..1, whatever is inside.

    peak         of the values inside
    mean_shift   subtract the mean colour first, and add it last
    """

    def __init__(self, res_scale: float = 1.0, peak: float = 1.0, *, mean_shift: bool = False) -> None:
        super().__init__()
        self.peak = peak
        self.head = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1))
        self.body = nn.Sequential(*(Block(res_scale) for _ in range(8)), nn.Conv2d(32, 32, 3, padding=1))
        up = nn.Sequential(nn.Conv2d(32, 128, 3, padding=1), nn.PixelShuffle(2))
        self.tail = nn.Sequential(up, nn.Conv2d(32, 3, 3, padding=1))
        self.load_state_dict(torch.load(SHIPPED, weights_only=True))
        with torch.no_grad():
            state = self.state_dict()
            for name, value in state.items():
                value *= peak if name.endswith("bias") else 1.0
                value /= res_scale if ".body.2." in name else 1.0
            if mean_shift:
                state["head.0.bias"] += torch.einsum("oikl,i->o", state["head.0.weight"], MEAN * peak)
                state["tail.1.bias"] -= MEAN * peak
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            self.add_module(name, self._shift(sign) if mean_shift else nn.Identity())
        self.eval().requires_grad_(False)

    def _shift(self, sign: int) -> nn.Conv2d:
        conv = nn.Conv2d(3, 3, 1)
        assert conv.bias is not None
        conv.weight.data, conv.bias.data = torch.eye(3)[:, :, None, None], sign * MEAN * self.peak
        return conv

    def forward(self, x: Tensor) -> Tensor:
        head = self.head(self.get_submodule("sub_mean")(x * self.peak))
        y: Tensor = self.get_submodule("add_mean")(self.tail(head + self.body(head)))
        return y / self.peak
