"""Whole networks as the exporter of PyTorch writes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.onnx_files import agrees, saved, small
from torch import nn

from memsr_compiler.teachers.load import load_teacher
from memsr_compiler.trace.trace import trace


class Net(nn.Module):
    """Most of what the exporter writes for a super-resolution network."""

    def __init__(self, shuffle: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 8, 1), nn.ReLU6()
        )
        self.tail = nn.Conv2d(16, 12, 3, padding=1)
        self.shuffle = shuffle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.head(x - 0.5)
        left, right = self.body(a).chunk(2, dim=1)
        b = torch.cat([nn.functional.leaky_relu(right, 0.1), left.abs()], 1) + 0.2 * a
        return self.shuffle(self.tail(torch.cat([a, b], 1)).clamp(-2, 2))


def by_hand(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def unshuffle(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.pixel_unshuffle(nn.functional.pixel_shuffle(x, 2).relu(), 2)


def upsample(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=3, mode="nearest")


def shuffle_channels(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def resize(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
@pytest.mark.parametrize("shuffle", [nn.PixelShuffle(2), by_hand, unshuffle, upsample, resize, shuffle_channels])
@pytest.mark.parametrize("free", [True, False])
def test_networks_exported_by_pytorch(opset: int, shuffle: Any, free: bool, tmp_path: Path) -> None:
    torch.manual_seed(opset)
    net = Net(shuffle).eval()
    path = tmp_path / "network.onnx"
    axes = {"x": {0: "n", 2: "h", 3: "w"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.rand(1, 3, 8, 12),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes=axes,
        )
    read = agrees(path, sizes=((1, 2), (5, 7)) if free else ((8, 12),), batch=2 if free else 1, tolerance=2e-5)
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        # In float64, but for numbers in the file: 0.1, 0.2, and the weights that PyTorch folded its BatchNorm into, in
        # float32 and one by one, so that any processor gives these: off by 3 eps = 4e-7 of values of at most 2.
        assert torch.allclose(read(x), net.double()(x), rtol=0, atol=1e-6)
    assert not {"~", "#", "@"} & set("".join(op.name for op in read.graph))


def test_a_teacher_may_be_an_onnx_file(tmp_path: Path) -> None:
    path = saved(small(), tmp_path)
    teacher = load_teacher(path)
    traced = trace(teacher, input_range=(0.0, 255.0))
    assert traced.reader == "onnx"
    assert (traced.graph.input.low, traced.graph.input.high) == (0.0, 255.0)
