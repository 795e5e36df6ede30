"""Zeros that code puts around an image before a convolution are read as that convolution's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.onnx_files import agrees, model, node, refuses, saved, whole
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.ir import Conv2d
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.trace import GraphModule, trace


class Padding(nn.Module):
    """Convolutions of kernel, dilation and own padding, with what that lacks put around the image before each."""

    def __init__(self, *convs: tuple[int, int, int], by_module: bool = False) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, k, padding=own, dilation=spread) for k, spread, own in convs)
        self.lacks = [(k - 1) // 2 * spread - own for k, spread, own in convs]
        self.pads = nn.ModuleList(nn.ZeroPad2d(lack) if by_module else nn.Identity() for lack in self.lacks)
        self.by_module = by_module

    def forward(self, x: Tensor) -> Tensor:
        for conv, lack, pad in zip(self.convs, self.lacks, self.pads, strict=True):
            x = pad(x) if self.by_module else F.pad(x, [lack] * 4)
            x = torch.relu(conv(x))
        return x


KERNELS = st.tuples(st.sampled_from((1, 3, 5)), st.integers(1, 2)).flatmap(
    lambda k: st.tuples(st.just(k[0]), st.just(k[1]), st.integers(0, (k[0] - 1) // 2 * k[1]))
)


@given(convs=st.lists(KERNELS, min_size=1, max_size=3), by_module=st.booleans())
def test_it_is_the_convolutions_own_padding(convs: list[tuple[int, int, int]], by_module: bool) -> None:
    torch.manual_seed(0)
    network = Padding(*convs, by_module=by_module).double().eval()
    traced = trace(network)
    run = GraphModule(traced.graph)
    for size in ((1, 1), (5, 3), (6, 7)):
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            assert torch.allclose(run(x), network(x), rtol=0, atol=1e-12)
    assert sum(isinstance(op, Conv2d) for op in traced.graph) == len(convs)


def test_means_of_neighbours_take_it_too() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ZeroPad2d(1), nn.AvgPool2d(3, 1)).double().eval()
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(GraphModule(trace(network).graph)(x), network(x), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_in_a_pt2_and_to_the_end(tmp_path: Path) -> None:
    network = nn.Sequential(Padding((3, 1, 0), (5, 1, 1)), nn.ZeroPad2d(1), nn.Conv2d(3, 12, 3), nn.PixelShuffle(2))
    network.eval()
    sides = {2: torch.export.Dim("h", min=2), 3: torch.export.Dim("w", min=2)}
    exported = torch.export.export(network, (torch.rand(1, 3, 9, 8),), dynamic_shapes=(sides,))
    torch.export.save(exported, tmp_path / "a.pt2")
    plain = compile_to_plain(read_teacher(tmp_path / "a.pt2", probe=False))
    x = torch.rand(1, 3, 7, 6)
    with torch.no_grad():
        assert torch.allclose(plain(x.to(plain[0].weight.dtype)).float(), network(x), atol=1e-5)


class Around(nn.Module):
    def __init__(self, pad: list[int], value: float = 0.0, *, then: str = "conv") -> None:
        super().__init__()
        self.conv, self.pad, self.value, self.then = nn.Conv2d(3, 3, 3), pad, value, then

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self.pad, value=self.value)
        if self.then == "relu":
            return self.conv(torch.relu(padded))  # type: ignore[no-any-return]
        if self.then == "border":  # as SeqConv3x3 of ECBSR's authors has it
            padded[:, :, 0:1, :] = self.conv.weight[:, 0, 0, 0].view(1, -1, 1, 1)
            return self.conv(padded)  # type: ignore[no-any-return]
        if self.then == "nothing":
            return F.pad(self.conv(padded), [1] * 4)
        return self.conv(padded)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Around([1, 1, 1, 1], 0.5), r"\(1, 1, 1, 1\) \(value 0.5\) outside a convolution"),
        (Around([0, 2, 0, 2]), r"\(0, 2, 0, 2\) is not the same on both sides"),
        (Around([-1, -1, -1, -1]), r"\(-1, -1, -1, -1\) cuts pixels off; .* crop outside the network"),
        (Around([0, -1], 0.5), r"\(0, -1\) cuts pixels off"),
        (Around([1, -1]), r"\(1, -1\) cuts pixels off on one side and adds some on another"),
        (Around([0, 0, 0, 0, -1]), "not of height and width alone"),
        (Around([2, 2, 2, 2]), r"padding \(2, 2\) changes the size of the image"),
        (Around([1, 1, 1, 1, 0, 1]), "not of height and width alone"),
        (Around([1, 1, 1, 1], then="relu"), "relu: zeros are put around what it takes.*the convolution that follows"),
        (Around([1, 1, 1, 1], then="nothing"), "output: zeros are put around"),
        (Around([1, 1, 1, 1], then="border"), "slice: it .*writes into, rows of .*zeros.* merge such branches into"),
    ],
)
def test_what_is_not_is_refused_by_name(network: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        compile_to_plain(network)


def test_in_an_onnx_file(tmp_path: Path) -> None:
    pads = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "q": np.array([2, 1, 2, 1]), "where": np.array([2, -1])}
    zero = {"zero": np.zeros((), np.float32)}
    steps = [
        node("Pad", "x p", "a"), node("Conv", "a w", "b"), node("Relu", "b", "c"),
        node("Pad", "c q zero where", "d"), node("Conv", "d v", "y", pads=[0, 1, 0, 1]),
    ]  # fmt: skip
    weights = {"w": whole(3, 3, 3, 3), "v": whole(2, 3, 5, 5), **pads, **zero}
    agrees(saved(model(steps, weights, opset=18), tmp_path))
    one = {**weights, "zero": np.ones((), np.float32)}
    refuses(saved(model(steps, one, opset=18), tmp_path), "(value 1) outside a convolution", "zero padding")
    bare = [node("Pad", "x p", "y")]
    refuses(saved(model(bare, {"p": pads["p"]}, opset=18), tmp_path), "y: output: zeros are put around")
    steps[1:2] = [node("Relu", "a", "e"), node("Conv", "e w", "b")]
    refuses(
        saved(model(steps, weights, opset=18), tmp_path), "Relu: zeros are put around", "the convolution that follows"
    )
