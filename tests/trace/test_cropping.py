"""Rows and columns that a transposed convolution makes too many, and a slice takes off, are its padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.onnx_files import FREE, agrees, model, node, refuses, saved, whole
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.ir import ConvTranspose2d
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.trace import GraphModule, trace


class Cropped(nn.Module):
    """A transposed convolution, of whose result so many rows and columns are cut off: (first, last) of each axis."""

    def __init__(self, conv: nn.ConvTranspose2d, *cuts: tuple[int, int], by_size: bool = False) -> None:
        super().__init__()
        self.conv, self.cuts, self.by_size = conv, cuts, by_size

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        (top, bottom), (left, right) = self.cuts
        if self.by_size:
            height, width = (side * self.conv.stride[0] for side in x.shape[2:])
            y = y[..., top:, left:][:, :, :height, :width]
        else:
            y = y[:, :, top : -bottom or None, left : -right or None]
        return y


@settings(max_examples=50)
@given(
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    more=st.integers(0, 2),
    dilation=st.integers(1, 2),
    first=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    by_size=st.booleans(),
    groups=st.sampled_from((1, 3)),
)
def test_what_is_cut_off_is_padding(
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    more: int,
    dilation: int,
    first: tuple[int, int],
    by_size: bool,
    groups: int,
) -> None:
    more %= max(stride, dilation)
    surplus = [(k - 1) * dilation + 1 - 2 * padding + more - stride for k in kernel]
    assume(min(surplus) >= 0)
    cuts = [(min(f, s), s - min(f, s)) for f, s in zip(first, surplus, strict=True)]
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(3, 6, kernel, stride, padding, more, groups, dilation=dilation)
    network = Cropped(conv, *cuts, by_size=by_size).double().eval()
    traced = trace(network)
    assert [type(op) for op in traced.graph][1:] == [ConvTranspose2d]
    run = GraphModule(traced.graph)
    for size in ((1, 1), (5, 3), (6, 7)):
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            assert torch.allclose(run(x), network(x), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
@pytest.mark.parametrize("by_size", [False, True])
def test_in_a_pt2_and_to_the_end(by_size: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cropped = Cropped(nn.ConvTranspose2d(4, 3, 9, 2, 3), (1, 0), (0, 1), by_size=by_size)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), cropped).eval()
    sides = {2: torch.export.Dim("h", min=2), 3: torch.export.Dim("w", min=2)}
    exported = torch.export.export(network, (torch.rand(1, 3, 9, 8),), dynamic_shapes=(sides,))
    torch.export.save(exported, tmp_path / "a.pt2")
    x = torch.rand(1, 3, 7, 6)
    for teacher in (network, read_teacher(tmp_path / "a.pt2", probe=False)):
        plain = compile_to_plain(teacher)
        with torch.no_grad():
            assert torch.allclose(plain(x.to(plain[0].weight.dtype)).float(), network(x), atol=1e-5)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (((0, 0), (0, 0)), r"conv: .*: kernel 9, stride 2, padding 3, output_padding 0 do not enlarge by exactly 2; "),
        (((1, 0), (0, 0)), "do not enlarge by exactly 2; .* or crop what is too many"),
        (((1, 1), (0, 1)), "it cuts 1 and 1 pixels off, where 1 are too many; .* crop outside the network"),
        (((2, 0), (0, 1)), "it cuts 2 and 0 pixels off"),
    ],
)
def test_other_crops_are_refused(cuts: Any, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        trace(Cropped(nn.ConvTranspose2d(3, 3, 9, 2, 3), *cuts).eval())


class CroppedByPadding(Cropped):
    """The same by padding of less than nothing."""

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = self.cuts
        return F.pad(F.pad(self.conv(x), (0, 0, -top, 0)), (-left, -right, 0, -bottom))


@pytest.mark.parametrize("cuts", [((1, 1), (0, 2)), ((2, 0), (1, 1))])
def test_negative_padding_cuts_off_too(cuts: Any) -> None:
    network = CroppedByPadding(nn.ConvTranspose2d(3, 3, 6, 2, 1), *cuts).double().eval()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(GraphModule(trace(network).graph)(x), network(x), rtol=0, atol=1e-12)
    with pytest.raises(UnsupportedModel, match="it cuts 3 and 0 pixels off, where 2 are too many"):
        trace(CroppedByPadding(nn.ConvTranspose2d(3, 3, 6, 2, 1), (3, 0), (0, 2)).eval())
    with pytest.raises(UnsupportedModel, match="or crop what is too many"):
        trace(nn.Sequential(nn.ConvTranspose2d(3, 3, 6, 2, 1), nn.ZeroPad2d((1, -3, 0, 0))).eval())


def test_nothing_but_slices_takes_it() -> None:
    class Used(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.ConvTranspose2d(3, 3, 5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(x))[:, :, :-1, :-1]

    with pytest.raises(UnsupportedModel, match=r"conv: .*kernel 5, stride 2, padding 1.* crop what is too many"):
        trace(Used().eval())


@pytest.mark.parametrize("shape", [FREE, (1, 3, 4, 5)])
@pytest.mark.parametrize("ends", ["-1", "-1 of each", "endless"])
def test_in_onnx(shape: Any, ends: str, tmp_path: Path) -> None:
    fixed, most = shape[0] == 1, 2**63 - 1
    rows, columns = (8 + 1, 10 + 1) if fixed else (most, most)
    first = np.array([0, 1] if ends != "-1" else [1, 0])
    last = {"-1": [rows, -1], "-1 of each": [-1, columns], "endless": [-1, most]}[ends]
    weights = {"w": whole(3, 2, 5, 5), "first": first, "last": np.array(last), "axes": np.array([2, -1])}
    nodes = [
        node("ConvTranspose", "x w", "z", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Slice", "z first last axes", "y"),
    ]
    sizes = ((4, 5),) if fixed else ((1, 1), (4, 5))
    agrees(saved(model(nodes, weights, shape=shape), tmp_path), sizes=sizes, batch=1 if fixed else 2)
    weights["last"] = np.array([most, most])
    refuses(saved(model(nodes, weights, shape=shape), tmp_path), "do not enlarge by exactly 2", "crop what is too many")
