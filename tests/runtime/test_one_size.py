"""ONNX networks that take one size only, run on images of any size: as the same network without that limit does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.one_size import BODY, WEIGHTS, by_convolutions, by_reshapes, look_everywhere
from helpers.onnx_files import FREE, Shape, model, node, saved, whole

from memsr_compiler.errors import InvalidInput
from memsr_compiler.runtime.one_size import OneSize, open_onnx
from memsr_compiler.runtime.open import NetworkFile, open_model


@pytest.fixture
def free(tmp_path: Path) -> OneSize:
    (tmp_path / "free").mkdir()
    network = open_onnx(by_convolutions(tmp_path / "free", FREE), threads=1)
    assert network.note == "" and network.fixed == (None, None)
    return network  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(1, 3, 24, 24), (4, 3, 24, 20), (1, 3, "h", "w"), ("n", 3, 16, "w"), (1, 3, 1, 1)])
def test_sizes_that_nothing_needs_are_none(free: OneSize, tmp_path: Path, shape: Shape) -> None:
    network = open_onnx(by_convolutions(tmp_path, shape), threads=1)
    told = ("x".join(map(str, shape)) in network.note) if shape != (1, 3, "h", "w") else network.note == ""
    assert network.fixed == (None, None) and told
    for x in (torch.rand(2, 3, 7, 40), torch.rand(1, 3, 24, 24)):
        assert torch.equal(network(x), free(x))


@pytest.mark.parametrize(("n", "h", "w"), [(1, 24, 24), (4, 24, 24), (1, 16, 40)])
def test_larger_images_are_put_together_from_pieces_without_a_seam(
    free: OneSize, tmp_path: Path, n: int, h: int, w: int
) -> None:
    network = open_onnx(by_reshapes(tmp_path, n, h, w), threads=1)
    assert isinstance(network, OneSize) and f"takes images of {w}x{h} only" in network.note
    assert ": Reshape)" in network.note
    for shape in ((1, 3, 24, 24), (1, 3, 53, 71), (3, 3, 30, 41), (1, 3, 100, w)):
        x = torch.from_numpy(whole(*shape))  # whole numbers, so that sums are exact in any order
        if shape[2] >= h and shape[3] >= w:
            assert torch.equal(network(x), free(x))
        once = network.prepare(x)
        once()


def test_smaller_images_are_continued(free: OneSize, tmp_path: Path) -> None:
    network = open_onnx(by_reshapes(tmp_path, 1, 24, 24), threads=1)
    x = torch.from_numpy(whole(1, 3, 10, 17))
    y = network(x)
    assert y.shape == (1, 3, 20, 34)
    assert torch.equal(y[..., :14, :28], free(x)[..., :14, :28])  # all that three layers do not see from beyond
    continued = torch.nn.functional.pad(x, (0, 7, 0, 14), mode="replicate")
    assert torch.equal(y, network(continued)[..., :20, :34])


def test_half_precision_and_metadata_are_the_files_own(tmp_path: Path) -> None:
    half = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    sizes = {"six": np.array([1, 3, 2, 2, 24, 24]), "four": np.array([1, 3, 48, 48])}
    nodes = [
        *BODY, node("Reshape", "e six", "f"), node("Transpose", "f", "g", perm=[0, 1, 4, 2, 5, 3]),
        node("Reshape", "g four", "y"),
    ]  # fmt: skip
    proto = model(nodes, half | sizes, shape=(1, 3, 24, 24), kind=10)
    proto.metadata_props.add(key="whose", value="somebody's")
    network = open_onnx(saved(proto, tmp_path), threads=1)
    assert network.precision == torch.float16 and network.metadata["whose"] == "somebody's"
    assert network(torch.rand(1, 3, 40, 30)).shape == (1, 3, 80, 60)


def test_what_looks_too_far_takes_its_own_size_alone_and_says_so(tmp_path: Path) -> None:
    path = look_everywhere(tmp_path)
    model = open_model(NetworkFile(path), threads=1)
    assert model.takes.scale == 2 and model.network.fixed == (24, 24)
    assert model.network(torch.rand(2, 3, 24, 24)).shape == (2, 3, 48, 48)
    for shape in ((1, 3, 24, 25), (1, 3, 10, 10)):
        with pytest.raises(InvalidInput, match=r"takes images of 24x24 only \(.*: Reshape\), and pixels of its result"):
            model.network(torch.rand(shape))
