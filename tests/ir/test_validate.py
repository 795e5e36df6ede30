"""Validation finds a wrong rewrite right after the pass that made it: known mutants of every pass."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import graphs
from helpers.networks import random_images, random_network
from torch import Tensor, nn

from memsr_compiler import ir, passes
from memsr_compiler.errors import InvalidGraph, NotEquivalent, PassError
from memsr_compiler.ir.interpreter import run
from memsr_compiler.ir.pipeline import run_passes
from memsr_compiler.ir.rewrite import Pass
from memsr_compiler.ir.validate import (
    largest_deviation,
    long_probe,
    probes,
    receptive_field,
    rounding_of_constants,
    run_on_probes,
)
from memsr_compiler.trace.trace import trace

NETWORKS = range(0, 60, 2)  # seeds of exact networks
RECIPE = (*passes.CANONICAL, *passes.PLAIN)

Mutation = Callable[[ir.Graph, random.Random], ir.Graph | None]


def _chosen(graph: ir.Graph, rng: random.Random, *kinds: type[ir.Op]) -> ir.Op | None:
    found = [op for op in graph if isinstance(op, kinds)]
    return rng.choice(found) if found else None


def _with(graph: ir.Graph, old: ir.Op, *new: ir.Op) -> ir.Graph:
    return ir.Graph(tuple(n for op in graph for n in (new if op is old else (op,))), graph.output)


def _nonzero(tensor: Tensor, rng: random.Random) -> tuple[int, ...] | None:
    return tuple(rng.choice(tensor.nonzero().tolist())) if tensor.any() else None


def wrong_sign(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Conv2d)
    at = _nonzero(op.weight, rng) if isinstance(op, ir.Conv2d) else None
    if at is None or not isinstance(op, ir.Conv2d):
        return None
    weight = op.weight.clone()
    weight[at] *= -1
    return _with(graph, op, replace(op, weight=weight))


def perturbed_weight(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Conv2d)
    if not isinstance(op, ir.Conv2d):
        return None
    weight = op.weight.clone()
    weight.flatten()[rng.randrange(weight.numel())] += 2**-20
    return _with(graph, op, replace(op, weight=weight))


def perturbed_block(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.BlockConv2d)
    if not isinstance(op, ir.BlockConv2d) or not op.blocks:
        return None
    i = rng.randrange(len(op.blocks))
    kernel = op.blocks[i].kernel.clone()
    kernel.flatten()[rng.randrange(kernel.numel())] += 2**-20
    blocks = (*op.blocks[:i], replace(op.blocks[i], kernel=kernel), *op.blocks[i + 1 :])
    return _with(graph, op, replace(op, blocks=blocks))


def shifted_block(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    """A block one column to the left or right of its place: operands in the wrong order."""
    op = _chosen(graph, rng, ir.BlockConv2d)
    if not isinstance(op, ir.BlockConv2d) or not op.blocks:
        return None
    i = rng.randrange(len(op.blocks))
    moved = replace(op.blocks[i], column=max(0, op.blocks[i].column + rng.choice([-1, 1])))
    return _with(graph, op, replace(op, blocks=(*op.blocks[:i], moved, *op.blocks[i + 1 :])))


def lost_bias(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Conv2d, ir.BlockConv2d)
    if not isinstance(op, (ir.Conv2d, ir.BlockConv2d)) or not op.bias.any():
        return None
    return _with(graph, op, replace(op, bias=torch.zeros_like(op.bias)))


def dropped_channel(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Conv2d)
    if not isinstance(op, ir.Conv2d):
        return None
    weight, bias, row = op.weight.clone(), op.bias.clone(), rng.randrange(len(op.bias))
    weight[row], bias[row] = 0, 0
    return _with(graph, op, replace(op, weight=weight, bias=bias))


def swapped_concat(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Concat)
    return _with(graph, op, replace(op, inputs=op.inputs[::-1])) if op else None


def swapped_selection(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Select)
    return _with(graph, op, replace(op, index=op.index[::-1])) if isinstance(op, ir.Select) else None


def carried_off_by_one(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    """A sum that reads an operand's own operand: a skip that starts one layer too early."""
    op = _chosen(graph, rng, ir.Sum)
    if op is None:
        return None
    i = rng.randrange(len(op.inputs))
    earlier = graph[op.inputs[i]].inputs
    if not earlier or graph.type(earlier[0]) != graph.type(op.inputs[i]):
        return None
    return _with(graph, op, replace(op, inputs=(*op.inputs[:i], earlier[0], *op.inputs[i + 1 :])))


def lost_operand(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Sum)
    return _with(graph, op, replace(op, inputs=op.inputs[1:])) if op and len(op.inputs) > 1 else None


def missing_relu(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    op = _chosen(graph, rng, ir.Relu)
    return _with(graph, op, ir.Carry(name=op.name, inputs=op.inputs)) if op else None


def depth_first_shuffle(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    """The channel order of ONNX's DepthToSpace in DCR mode."""
    op = _chosen(graph, rng, ir.PixelShuffle)
    if not isinstance(op, ir.PixelShuffle):
        return None
    channels = graph.type(op.inputs[0]).channels
    index = torch.arange(channels).reshape(op.factor**2, -1).T.flatten().tolist()
    mixed = ir.Select(name=f"{op.name}~dcr", inputs=op.inputs, index=tuple(index))
    return _with(graph, op, mixed, replace(op, inputs=(mixed.name,)))


def naive_bias(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    """A bias pushed through the next convolution as if its padding were the bias too."""
    found = [op for op in graph if isinstance(op, ir.Conv2d) and not op.pointwise and op.groups == op.dilation == 1]
    pairs = [(op, graph[op.inputs[0]]) for op in found]
    biased = [
        (op, below)
        for op, below in pairs
        if isinstance(below, (ir.Conv2d, ir.Affine)) and len(graph.users(below.name)) == 1
    ]
    if not biased:
        return None
    op, below = rng.choice(biased)
    bias = below.bias if isinstance(below, ir.Conv2d) else below.shift
    folded = replace(op, bias=op.bias + op.weight.sum(dim=(2, 3)) @ bias)
    bare = replace(below, bias=0 * bias) if isinstance(below, ir.Conv2d) else replace(below, shift=0 * bias)
    return _with(_with(graph, op, folded), below, bare)


def lost_ones(graph: ir.Graph, rng: random.Random) -> ir.Graph | None:
    """The channel of ones that one_pad made is never set to one."""
    ones = [op for op in graph if op.name.startswith("~ones") and isinstance(op, ir.Conv2d)]
    return _with(graph, ones[0], replace(ones[0], bias=0 * ones[0].bias)) if ones else None


MUTATIONS: tuple[Mutation, ...] = (
    wrong_sign, perturbed_weight, perturbed_block, shifted_block, lost_bias, dropped_channel, swapped_concat,
    swapped_selection, carried_off_by_one, lost_operand, missing_relu, depth_first_shuffle, naive_bias, lost_ones,
)  # fmt: skip


def stages(seed: int) -> tuple[list[tuple[Pass, ir.Graph, ir.Graph]], list[Tensor]]:
    """(pass, graph before, graph after) for each pass on a random network, and images for it."""
    network = random_network(seed).double()
    graph = trace(network, input_range=(-1.0, 1.0)).graph
    found = []
    for step in RECIPE:
        after = step(graph)
        found.append((step, graph, after))
        graph = after
    return found, random_images(network, (-1.0, 1.0))


STAGES = {seed: stages(seed) for seed in NETWORKS}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_every_wrong_pass_is_caught(mutation: Mutation) -> None:
    """Each pass with the mutation behind it.  Exact networks have no rounding: a mutant is wrong or it is not."""
    wrong = same = 0
    for seed, (found, images) in STAGES.items():
        for step, before, after in found:
            try:
                mutant = mutation(after, random.Random(seed))
            except InvalidGraph:  # caught by the types already
                wrong += 1
                continue
            if mutant is None:
                continue
            if not any(differs(run(after, x), run(mutant, x)) for x in images):
                same += 1
                continue
            wrong += 1
            bad = Pass(f"bad-{step.name}", "", lambda _, mutant=mutant: mutant, (ir.Op,), ())
            with pytest.raises((NotEquivalent, PassError), match=f"bad-{step.name}|the passes together"):
                run_passes(before, [bad])
    assert wrong >= 10, f"{wrong} of {wrong + same} mutants are wrong"


def differs(a: Tensor, b: Tensor) -> bool:
    return a.shape != b.shape or not torch.equal(a, b)


@pytest.mark.parametrize("seed", NETWORKS)
def test_right_passes_pass_and_are_exact(seed: int) -> None:
    graph = STAGES[seed][0][0][1]
    _, reports = run_passes(graph, RECIPE)
    assert [r.name for r in reports] == [p.name for p in RECIPE]
    flat = {r.name: r.deviation for r in reports if r.deviation > r.bound}
    assert not flat


# -- the parts -------------------------------------------------------------------------------------------------------


def traced(*modules: nn.Module) -> ir.Graph:
    return trace(nn.Sequential(*modules).double(), input_range=(0.0, 255.0)).graph


def test_probes_are_in_range_at_the_border_and_always_the_same() -> None:
    graph = traced(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    first, second = probes(graph) | long_probe(graph), probes(graph) | long_probe(graph)
    assert list(first) == ["1x1", "3x5", "9x2"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert min(float(x.min()) for x in first.values()) == 0
    assert max(float(x.max()) for x in first.values()) == 255


def test_an_unbounded_input_is_probed_on_both_sides_of_zero() -> None:
    graph = ir.Graph((ir.Input(name="x", channels=1),), "x")
    assert {float(v) for v in probes(graph)["1x1"].flatten()} >= {-1.0, 1.0}


@pytest.mark.parametrize(
    ("modules", "reach"),
    [
        ([nn.Conv2d(1, 1, 1)], 0),
        ([nn.Conv2d(1, 1, 7, padding=3)], 3),
        ([nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)], 2),
        ([nn.Conv2d(1, 1, 3, padding=4, dilation=4)], 4),
        ([nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(1, 1, 5, padding=2)], 2),
    ],
)
def test_receptive_field_is_what_an_impulse_reaches(modules: list[nn.Module], reach: int) -> None:
    graph = traced(*modules)
    assert receptive_field(graph) == reach
    x = torch.zeros(1, 1, 2 * reach + 5, 2 * reach + 5, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, reach + 2, reach + 2] = 1
    touched = (run(graph, moved) != run(graph, x)).any(dim=1)[0].nonzero() // graph.scale
    assert int((touched - (reach + 2)).abs().max()) <= reach


def test_a_deviation_says_where_it_is() -> None:
    graph = traced(nn.Conv2d(1, 1, 3, padding=1))
    conv = graph[graph.output]
    assert isinstance(conv, ir.Conv2d)
    wrong = _with(graph, conv, replace(conv, bias=conv.bias + 1))
    inputs = probes(graph)
    found = largest_deviation(inputs, run_on_probes(graph, inputs), run_on_probes(wrong, inputs))
    assert found.largest == pytest.approx(1, abs=1e-9)  # eps * the largest value on the way, 255 * 9
    assert found.bound < 1e-9 and found.probe in ("1x1", "3x5")
    assert str(found).startswith("1 (bound ") and "channel 0, pixel (" in str(found) and " became " in str(found)


def shifted(constant: float, gain: float, *, lower: float | None = None) -> ir.Graph:
    """gain * x, where x, both of its channels, went through a ReLU as x + C, and C, or `lower`, was taken off again."""
    one = torch.ones(2).double()
    m = ir.Meaning("shifted", (0, 1), "x", (0, 1), constant)
    shift = -gain * (constant if lower is None else lower)
    return graphs.graph(
        graphs.source(2, 0.0), ir.Affine(name="up", inputs=("x",), scale=one, shift=constant * one),
        ir.Relu(name="r", inputs=("up",), meaning=(m,)),
        ir.Affine(name="y", inputs=("r",), scale=gain * one, shift=shift * one),
    )  # fmt: skip


@pytest.mark.parametrize(("constant", "gain"), [(1e3, 1.0), (1e6, 1.0), (1e6, 1e4)])
def test_what_rounding_takes_from_a_constant_is_enlarged_by_what_comes_after_it(constant: float, gain: float) -> None:
    graph = shifted(constant, gain)
    moved = rounding_of_constants(graph, probes(graph))
    assert moved == pytest.approx(gain * constant * torch.finfo(torch.float64).eps, rel=1.1)
    none = replace(graph["r"], meaning=(ir.Meaning("value", (0, 1), "up", (0, 1)),))  # type: ignore[call-arg]
    assert rounding_of_constants(_with(graph, graph["r"], none), probes(graph)) == 0


def test_only_what_is_shifted_is_moved() -> None:
    """Of a ReLU with several meanings, and of channels that were left out."""
    graph = shifted(1e6, 1.0)
    meanings = (ir.Meaning("shifted", (1, -1), "x", (0, 1), 1e6), ir.Meaning("value", (0,), "up", (0,)))
    graph = _with(graph, graph["r"], replace(graph["r"], meaning=meanings))  # type: ignore[call-arg]
    first = ir.Select(name="first", inputs=("y",), index=(0,))
    assert rounding_of_constants(graph, probes(graph)) > 0
    assert rounding_of_constants(ir.Graph((*graph, first), "first"), probes(graph)) == 0


@pytest.mark.parametrize("by", [1e-6, -1e-6])
def test_a_constant_of_which_too_little_is_taken_off_is_noticed(by: float) -> None:
    """However large it is for its network, and whatever rounding does to it."""
    scale, shift = torch.full((2,), 1e4).double(), torch.zeros(2).double()
    same = graphs.graph(graphs.source(2, 0.0), ir.Affine(name="y", inputs=("x",), scale=scale, shift=shift))
    for lower, right in ((1e6, True), (1e6 * (1 + by), False)):
        raised = Pass("shift", "", lambda _, lower=lower: shifted(1e6, 1e4, lower=lower), (ir.Op,), ())
        if right:
            run_passes(same, [raised])
            continue
        with pytest.raises(NotEquivalent, match="shift changed what") as caught:
            run_passes(same, [raised])
        assert caught.value.clipped == ""


def test_what_a_relu_took_of_a_shift_is_named() -> None:
    graph = shifted(0.25, 1.0)
    low = _with(graph, graph["x"], replace(graph["x"], low=-1.0))  # type: ignore[call-arg]
    assert run_on_probes(low, probes(low)).clipped == "x" and run_on_probes(graph, probes(graph)).clipped == ""
    value = replace(low["r"], meaning=(ir.Meaning("value", (0, 1), "up", (0, 1)),))  # type: ignore[call-arg]
    assert run_on_probes(_with(low, low["r"], value), probes(low)).clipped == ""


def test_what_two_graphs_have_in_common_is_computed_once_and_is_the_same() -> None:
    graph = STAGES[NETWORKS[0]][0][0][1]
    inputs = probes(graph)
    before = run_on_probes(graph, inputs)
    assert before.products
    again, alone = run_on_probes(graph, inputs, before), run_on_probes(graph, inputs)
    assert all(torch.equal(a, b) for a, b in zip(again.outputs, alone.outputs, strict=True))
    known = {id(p) for products in before.products.values() for p in products}
    assert {id(p) for products in again.products.values() for p in products} <= known
    assert not known & {id(p) for products in alone.products.values() for p in products}


def test_a_kernel_that_was_written_to_is_another_kernel() -> None:
    graph = traced(nn.Conv2d(1, 1, 3, padding=1))
    conv = graph[graph.output]
    assert isinstance(conv, ir.Conv2d)

    def in_place(g: ir.Graph) -> ir.Graph:
        conv.weight[0, 0, 1, 1] += 1
        return _with(g, conv, replace(conv))

    with pytest.raises(NotEquivalent, match="careless changed what the network computes"):
        run_passes(graph, [Pass("careless", "", in_place, (ir.Op,), ())])


def test_what_was_noticed_is_told_in_numbers_too() -> None:
    graph = traced(nn.Conv2d(1, 2, 3, padding=1))
    conv = graph[graph.output]
    assert isinstance(conv, ir.Conv2d)
    off = torch.tensor([0.0, 3.0])
    bad = Pass("off-by-three", "", lambda g: _with(g, conv, replace(conv, bias=conv.bias + off)), (ir.Op,), ())
    with pytest.raises(NotEquivalent) as caught:
        run_passes(graph, [bad])
    error = caught.value
    assert error.pass_name == "off-by-three" and error.deviation == pytest.approx(3, abs=1e-9) and error.bound < 1e-9
    assert error.probe in probes(graph) and error.at[1] == 1
    assert error.found - error.expected == pytest.approx(3, abs=1e-9)


def test_a_contract_that_is_broken_says_of_which_pass() -> None:
    graph = traced(nn.Conv2d(1, 1, 1), nn.ReLU())

    def refuse(g: ir.Graph) -> ir.Graph:
        raise PassError(f"{g.output}: no")

    for bad in (
        Pass("lazy", "", lambda g: g, (ir.Op,), (ir.Relu,)),
        Pass("choosy", "", lambda g: g, (ir.Input,), ()),
        Pass("unwilling", "", refuse, (ir.Op,), ()),
    ):
        with pytest.raises(PassError) as caught:
            bad(graph)
        assert caught.value.pass_name == bad.name


def test_a_nan_is_a_deviation() -> None:
    graph = traced(nn.Conv2d(1, 1, 1))
    conv = graph[graph.output]
    assert isinstance(conv, ir.Conv2d)
    bad = Pass("not-a-number", "", lambda g: _with(g, conv, replace(conv, bias=conv.bias * math.nan)), (ir.Op,), ())
    with pytest.raises(NotEquivalent, match="not-a-number changed what the network computes by inf"):
        run_passes(graph, [bad])


def test_another_shape_is_a_deviation() -> None:
    graph = traced(nn.Conv2d(1, 4, 1))
    bad = Pass("bigger", "", lambda g: _bigger(g), (ir.Op,), ())
    with pytest.raises(NotEquivalent, match=r"the shape \(11, 4, 1, 1\) became \(11, 1, 2, 2\)"):
        run_passes(graph, [bad])


def _bigger(graph: ir.Graph) -> ir.Graph:
    return ir.Graph((*graph.ops, ir.PixelShuffle(name="up", inputs=(graph.output,), factor=2)), "up")


def test_a_pass_that_leaves_behind_what_it_should_remove_is_stopped() -> None:
    graph = traced(nn.Conv2d(1, 1, 1), nn.ReLU())
    with pytest.raises(PassError, match="lazy left a Relu behind"):
        run_passes(graph, [Pass("lazy", "", lambda g: g, (ir.Op,), (ir.Relu,))])
    with pytest.raises(PassError, match="choosy does not read Conv2d; run the passes before it"):
        run_passes(graph, [Pass("choosy", "", lambda g: g, (ir.Input,), ())])


def test_what_ran_is_told_while_it_runs() -> None:
    graph = traced(nn.Conv2d(1, 4, 3, padding=1, groups=1), nn.PixelShuffle(2))
    heard: list[str] = []
    result, reports = run_passes(
        graph, passes.CANONICAL, on_pass=lambda r: heard.append(r.name), on_graph=lambda name, _: heard.append(name)
    )
    assert heard == [name for p in passes.CANONICAL for name in (p.name, p.name)]
    assert reports[-1].ops_after == len(result.ops)
