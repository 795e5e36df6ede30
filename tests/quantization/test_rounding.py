"""Weights rounded one after the other; what a convolution reads; values inside a network."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from memsr_compiler.quantization.conv_window import Window
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.rounding import round_weights
from memsr_compiler.student.statistics.moments import Regression


def samples(inputs: int, count: int, seed: int, *, rank: int | None = None) -> Tensor:
    """(inputs + 1, count), correlated, away from zero, the last row 1."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(inputs, rank or inputs, generator=generator) @ torch.randn(
        rank or inputs, count, generator=generator
    )
    return torch.cat([mixed + 3, torch.ones(1, count)]).double()


def exact(outputs: int, inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed + 1)).double()
    return weight, weight.abs().amax(1) / 64


def given_by(integers: Tensor, bias: Tensor, steps: Tensor, x: Tensor) -> Tensor:
    return integers * steps[:, None] @ x[:-1] + bias[:, None]


@given(seed=st.integers(0, 10**6), inputs=st.integers(1, 12), outputs=st.integers(1, 5))
def test_integers_stay_as_they_are(seed: int, inputs: int, outputs: int) -> None:
    """Weights that are multiples of the step are found again, and no bias is needed."""
    _, steps = exact(outputs, inputs, seed)
    integers = torch.randint(-64, 65, (outputs, inputs), generator=torch.Generator().manual_seed(seed)).double()
    x = samples(inputs, 40 * inputs, seed)
    found, bias = round_weights(
        integers * steps[:, None], steps, 64, Regression.of(x, torch.zeros(outputs, x.shape[1]))
    )
    assert torch.equal(found, integers)
    assert bias.abs().max() < 1e-9


@given(seed=st.integers(0, 10**6), rank=st.sampled_from([2, 4, 16]))
def test_never_worse_than_the_nearest_and_better_where_inputs_are_alike(seed: int, rank: int) -> None:
    weight, steps = exact(4, 16, seed)
    x = samples(16, 2000, seed, rank=rank)
    found, bias = round_weights(weight, steps, 64, Regression.of(x, torch.zeros(4, 2000)))
    nearest = (weight / steps[:, None]).round()
    correction = (weight - nearest * steps[:, None]) @ x[:-1].mean(1)
    wanted = weight @ x[:-1]
    ours, theirs = (
        (given_by(q, b, steps, x) - wanted).square().mean() for q, b in ((found, bias), (nearest, correction))
    )
    assert ours <= theirs * (1 + 1e-9 if rank == 16 else 0.6)
    assert found.abs().max() <= 64 and torch.equal(found, found.round())
    assert (given_by(found, bias, steps, x) - wanted).mean(1).abs().max() < 1e-9  # nothing is lost on average


def test_what_the_inputs_have_lost_is_given_back() -> None:
    """An input that is read at half its size gets twice the weight."""
    weight, steps = torch.tensor([[20.0, -30.0]]).double(), torch.ones(1).double()
    true = torch.cat([torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) + 3, torch.ones(1, 5000)])
    true = true.double()
    x = true * torch.tensor([[0.5], [1.0], [1.0]])
    lost = weight @ true[:-1] - weight @ x[:-1]
    found, bias = round_weights(weight, steps, 64, Regression.of(x, lost))
    assert found.tolist() == [[40.0, -30.0]] and bias.abs().max() < 0.05


@pytest.mark.parametrize("size", [1e-30, 1.0, 300.0, 1e6])
@pytest.mark.parametrize("kind", ["zero", "constant", "duplicate", "float32 constant", "mixed"])
def test_inputs_that_tell_nothing_of_each_other(kind: str, size: float) -> None:
    """Channels that are always 0, or the same, or each other: nothing, or rounding alone, is left of what varies.

    All of them 0 ended in an error of linear algebra.
    """
    weight, steps = exact(4, 12, 0)
    x = samples(12, 500, 0)
    x[:-1] *= size
    constants = torch.linspace(-1, 1, 12).double()[:, None].expand(12, 500) * size
    if kind == "zero":
        x[:-1] = 0
    elif kind == "constant":
        x[:-1] = constants
    elif kind == "float32 constant":
        x[:-1] = (constants + 0.1).float().double()
    elif kind == "duplicate":
        x[:-1] = x[:1]
    else:
        x[:4], x[4:8], x[8] = 0, constants[4:8], x[9]
    found, bias = round_weights(weight, steps, 64, Regression.of(x, torch.zeros(4, 500)))
    assert found.abs().max() <= 64 and torch.equal(found, found.round()) and bias.isfinite().all()
    wanted, result = weight @ x[:-1], given_by(found, bias, steps, x)
    nearest = (weight / steps[:, None]).round()
    correction = (weight - nearest * steps[:, None]) @ x[:-1].mean(1)
    theirs = (given_by(nearest, correction, steps, x) - wanted).square().mean()
    assert (result - wanted).square().mean() <= theirs * (1 + 1e-9) + (1e-9 * size) ** 2


def test_with_hardly_a_sample_the_nearest() -> None:
    weight, steps = exact(3, 200, 0)
    found, _ = round_weights(weight, steps, 64, Regression.of(samples(200, 2, 0), torch.zeros(3, 2)))
    assert (found - (weight / steps[:, None]).round()).abs().mean() < 0.2


@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.one_of(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]), st.tuples(*[st.integers(0, 2)] * 4)),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
)
def test_windows_are_what_the_standard_says(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: str | tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    if isinstance(pads, str) and pads != "VALID":
        dilations = (1, 1)  # the reference does not take these together
    options: dict[str, Any] = {"auto_pad": pads} if isinstance(pads, str) else {"pads": list(pads)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=strides, dilations=dilations, **options)
    generator = np.random.default_rng(0)
    image = generator.integers(-3, 4, (2, 3, *size)).astype(np.float32)  # whole numbers: nothing is rounded
    weight = generator.integers(-3, 4, (4, 3, *kernel)).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    wanted = torch.from_numpy(np.asarray(cast("list[Any]", ReferenceEvaluator(model).run(None, {"x": image}))[0]))
    columns = torch.cat(list(Window.of(node, kernel).columns(torch.from_numpy(image))), dim=1)
    found = torch.from_numpy(weight).flatten(1) @ columns
    assert torch.equal(found, wanted.transpose(0, 1).flatten(1))


def test_parts_of_an_image_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window((3, 3), (2, 1), (1, 2), (1, 2, 0, 1))
    image = torch.rand(2, 3, 17, 9)
    whole = torch.cat(list(window.columns(image)), dim=1)
    monkeypatch.setattr("memsr_compiler.quantization.conv_window._PIXELS", 20)
    parts = list(window.columns(image))
    assert len(parts) > 4 and torch.equal(torch.cat(parts, dim=1), whole)


def test_values_inside_a_network_with_a_skip() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "e")]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Mul", ["a", "two"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c"]),
        helper.make_node("Neg", ["c"], ["d"]),
        helper.make_node("Abs", ["d"], ["e"]),
    ]
    two = numpy_helper.from_array(np.float32(2), "two")
    model = helper.make_model(
        helper.make_graph(nodes, "skip", ends[:1], ends[1:], [two]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    x = np.array([-1, 2], np.float32)
    values = InnerValues(model, [x, x * 3])
    wanted = {"x": [-1, 2], "a": [0, 2], "b": [0, 4], "c": [-1, 6], "d": [1, -6], "e": [1, 6]}
    for names in ("xabcde", "bce", "aa", "dx"):
        for name in names:
            first, second = values.of(name)
            assert first.tolist() == wanted[name] and second.tolist() == [3 * v for v in wanted[name]], name
