"""What code writes into, in whatever way, is seen: constants after their use, statistics, buffers of programs."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim, export

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.fx.needed import find_needed
from memsr_compiler.trace.trace import GraphModule, trace

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of torch's own, as it copies programs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Net(nn.Module):
    """What is done beside the convolutions, `step` decides."""

    k: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, step: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.register_buffer("k", torch.ones(1))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self, x, F.pixel_shuffle(self.tail(F.relu(self.a(x))), 2))


def smaller_steps(net: Net, x: Tensor, y: Tensor) -> Tensor:
    k = net.k.clone()
    for _ in range(3):
        y = y + F.relu(y) * k
        k *= 0.5
    return y


def set_later(net: Net, x: Tensor, y: Tensor) -> Tensor:
    k = torch.zeros(3)
    y = y + k.view(1, 3, 1, 1)
    k[1] = 2.0
    return y


def smaller_in_a_list(net: Net, x: Tensor, y: Tensor) -> Tensor:
    k = net.k.clone()
    y = y + F.relu(y) * k
    torch._foreach_mul_([k], 0.5)
    return y + F.relu(y) * k


@pytest.mark.parametrize("step", [smaller_steps, set_later, smaller_in_a_list])
def test_constants_that_are_changed_after_their_use(
    step: Callable[[Net, Tensor, Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """A graph of torch.fx has them by name, with the numbers of the last change; torch.export follows each."""
    network, image = Net(step).double().eval(), torch.rand(1, 3, 9, 8, dtype=torch.float64)
    with caplog.at_level(logging.INFO, "memsr_compiler"):
        graph = trace(network).graph
    assert "a tensor is changed after it was used" in caplog.text
    with torch.no_grad():
        assert torch.allclose(GraphModule(graph)(image), network(image), rtol=0, atol=1e-9)


def test_constants_that_are_made_in_steps_are_read_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def step(net: Net, x: Tensor, y: Tensor) -> Tensor:
        k = torch.zeros(3)
        k[1] = 2.0
        k += net.k
        return y + k.view(1, 3, 1, 1)

    with caplog.at_level(logging.INFO, "memsr_compiler"):
        assert trace(Net(step).eval()).reader == "torch.fx.symbolic_trace"
    assert not caplog.text


def test_constants_without_memory_that_can_be_looked_at() -> None:
    """Those that are sparse, which code may make anew."""

    def step(net: Net, x: Tensor, y: Tensor) -> Tensor:
        return y + (torch.eye(3).to_sparse().mul_(2) @ torch.ones(3, 1)).view(1, 3, 1, 1)

    assert trace(Net(step).eval()).reader == "torch.fx.symbolic_trace"


def far_within(view: Tensor, y: Tensor) -> Tensor:
    """Changes a part of the view that no small image has, and so of the features, if it is one of them."""
    view[:, :, 50:, 50:].mul_(2)
    return y


@pytest.mark.parametrize(
    "step",
    [
        lambda net, x, y: far_within(torch.einsum("nchw->ncwh", y), y),
        lambda net, x, y: far_within(y.float().dequantize(), y),
    ],
    ids=["einsum", "dequantize"],
)
def test_views_by_operations_that_no_reader_takes(step: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedModel, match=r"einsum: products|dequantize: it rounds"):
        trace(Net(step).eval())


def updated(net: Net, x: Tensor, y: Tensor) -> Tensor:
    torch.batch_norm_update_stats(x, net.mean, net.var, 1.0)
    return y + F.relu(net.mean.min() - 0.9)


def updated_elsewhere(net: Net, x: Tensor, y: Tensor) -> Tensor:
    mean, _ = y.new_zeros(3), torch.batch_norm_update_stats(x, net.mean, net.var, 1.0)
    torch.batch_norm_update_stats(x, mean, net.var.clone(), 1.0)
    return y + F.relu(mean.mean() - 0.9)


@pytest.mark.parametrize("step", [updated, updated_elsewhere])
def test_statistics_that_no_schema_tells_of(step: Callable[[Net, Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedModel, match="batch_norm_update_stats: it writes how large values are"):
        trace(Net(step).eval())


def exported(step: Callable[[Any, Tensor, Tensor], Tensor]) -> nn.Module:
    free: Any = Dim.DYNAMIC
    program = export(Net(step).eval(), (torch.rand(1, 3, 24, 32),), dynamic_shapes=({2: free, 3: free},))
    return program.module(check_guards=False)


def test_operations_in_place_of_a_program() -> None:
    with pytest.raises(UnsupportedModel, match="slice: it takes part of axis 2"):
        trace(exported(lambda net, x, y: far_within(y, y)))


def test_statistics_of_a_program_are_needed() -> None:
    def step(net: Net, x: Tensor, y: Tensor) -> Tensor:
        F.batch_norm(x, net.mean, net.var, training=True, momentum=1.0)
        return y + F.relu(net.mean.min() - 0.9)

    program = exported(step)
    needed = {node.name for node in find_needed(program.graph)}  # type: ignore[arg-type]
    assert any(name.startswith("batch_norm") for name in needed)


def remembered(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y = y + net.k
    net.k.copy_(F.relu(x.amin() - 0.5).view(1))
    return y


def watched(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """A mean of the images, for whoever asks later."""
    net.k.copy_(0.9 * net.k + 0.1 * x.mean())
    return y


def test_a_program_that_remembers_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="k: the network keeps something of an image in it"):
        trace(exported(remembered))


def test_and_one_that_only_watches_is_not() -> None:
    trace(exported(watched))


@pytest.mark.parametrize("text", [str, repr])
def test_programs_that_compare_texts_of_sizes_are_not_read_at_one(
    text: Callable[[Any], str], caplog: pytest.LogCaptureFixture
) -> None:
    program = fx.symbolic_trace(Net(lambda net, x, y: y * x.shape[2]))
    (size,) = (node for node in program.graph.nodes if node.target == operator.getitem)
    with program.graph.inserting_after(size):
        as_text = program.graph.call_function(text, (size,))
    with program.graph.inserting_after(as_text):
        same = program.graph.call_function(operator.eq, (as_text, "24"))
    size.replace_all_uses_with(same, lambda user: user is not as_text)
    program.recompile()
    trace(program.eval())
    assert "assumed: " in caplog.text
