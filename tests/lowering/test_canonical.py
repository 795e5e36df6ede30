"""The canonical form: which passes run in which order, on the whole graph or stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from helpers.graphs import conv, graph, source
from torch import nn

from memsr_compiler import ir, passes
from memsr_compiler.ir.interpreter import run
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.lowering.canonical import Tail, apply_passes, canonical
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.trace import trace


def teacher() -> ir.Graph:
    torch.manual_seed(0)
    network = EDSR(scale=4, blocks=1, channels=4)
    with torch.no_grad():  # small integers: exact in float64, in whatever order they are added
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
    return trace(network).graph


@pytest.mark.parametrize(("tail", "resolutions"), [("fold", [4]), ("keep", [2, 2, 1])])
def test_stages_follow_each_other(tail: Tail, resolutions: list[int]) -> None:
    whole = teacher()
    stages = canonical(whole, tail)
    assert [stage.graph.scale for stage in stages] == resolutions
    assert stages[0].starts == (whole.input.name,)
    assert stages[-1].ends == (whole.output,)
    assert [stage.ends for stage in stages[:-1]] == [stage.starts for stage in stages[1:]]
    x = torch.randint(0, 3, (2, 3, 4, 5)).double()
    y = x
    for stage in stages:
        y = run(stage.graph, y)
    assert torch.equal(y, run(whole, x))


@pytest.mark.parametrize("tail", ["fold", "keep"])
def test_what_is_left_is_what_scheduling_reads(tail: Tail) -> None:
    for stage in canonical(teacher(), tail):
        kinds = (ir.Input, ir.Conv2d, ir.Sum, ir.Relu)
        last = stage.graph[stage.graph.output]
        assert all(isinstance(op, kinds) for op in stage.graph if op is not last)
        assert isinstance(last, (*kinds, ir.PixelShuffle))


def test_the_passes_are_applied_as_told() -> None:
    """Folded in one recipe, so that validation sees one; kept, first on the whole, then on each stage."""
    seen: list[list[str]] = []

    def apply(before: ir.Graph, recipe: Sequence[Pass]) -> ir.Graph:
        seen.append([p.name for p in recipe])
        return apply_passes(before, recipe)

    local, fold = ([p.name for p in recipe] for recipe in (passes.LOCAL, passes.FOLD))
    canonical(teacher(), "fold", further=(passes.skip_to_conv,), apply=apply)
    assert seen == [[*local, *fold, "skip-to-conv"]]
    seen.clear()
    canonical(teacher(), "keep", further=(passes.skip_to_conv,), apply=apply)
    assert seen == [local, *[[*fold, "skip-to-conv"]] * 3]


def test_the_traced_graph_stays_as_it_is() -> None:
    before = graph(source(), conv("a", "x"))
    text = before.text()
    canonical(before, "fold")
    assert before.text() == text


def test_passes_one_after_the_other() -> None:
    whole = trace(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(), nn.Conv2d(4, 3, 3, padding=1))).graph
    expected = passes.activation_to_relu(passes.dense_conv(whole))
    assert apply_passes(whole, (passes.dense_conv, passes.activation_to_relu)).text() == expected.text()
