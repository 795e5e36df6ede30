"""Random networks over everything that is accepted: the plain network is the teacher, as torch itself runs it.

`pytest tests/whole/test_fuzz.py --networks 5000` tries more of them; `random_network(seed)` gives a failing one again.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from helpers.bounds import rounding, shift_constant
from helpers.networks import RandomNetwork, networks, random_images, random_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import StagesCannotBeKept
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.proof import checker
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.trace.trace import trace


@dataclass
class Options:
    """Choices of how a network is compiled, drawn from its seed."""

    rng: random.Random
    carry: Carrying = field(init=False)
    tail: Literal["fold", "keep"] = field(init=False)
    align: int = field(init=False)
    input_range: tuple[float, float] = field(init=False)
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        self.carry = self.rng.choice(["auto", "auto", "split", "shift"])
        self.tail = self.rng.choice(["fold", "fold", "keep"])
        self.align = self.rng.choice([1, 8])
        self.input_range = self.rng.choice([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
        self.dtype = self.rng.choice([torch.float32, torch.float32, torch.float64])


def test_the_plain_network_is_the_teacher(network_seed: int) -> None:
    check_equal(random_network(network_seed), Options(random.Random(network_seed)))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks(), st.randoms(use_true_random=False))
def test_the_plain_network_is_the_teacher_shrunk_by_hypothesis(network: RandomNetwork, rng: random.Random) -> None:
    check_equal(network, Options(rng))


def check_equal(network: RandomNetwork, options: Options) -> None:
    """Compile, and hold the result against torch's own run of the module, and against its certificate."""
    network = network.to(options.dtype)
    before = copy.deepcopy(network)
    images = random_images(network, options.input_range)
    plain, graph = compiled(network, options, images)
    check_unchanged(before, network)
    assert plain.certificate is not None
    checker.check(graph, plain.checkable(), Certificate.from_json(plain.certificate.to_json()))
    assert {layer.weight.dtype for layer in plain} == {options.dtype}
    assert all(width % options.align == 0 for width in inner_widths(plain))
    teacher, plain = before.double(), plain.double()
    with torch.no_grad():
        for x in images:
            expected, found = teacher(x.clone()), plain(x)
            assert expected.shape == found.shape, network
            if network.exact:
                assert torch.equal(expected, found), network
            else:
                assert bool(((expected - found).abs() <= rounding(graph, plain, x)).all()), network


def inner_widths(plain: PlainNet) -> list[int]:
    return [layer.out_channels for layer in plain if layer.relu]


def check_unchanged(before: RandomNetwork, after: RandomNetwork) -> None:
    state = after.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.state_dict().items())
    assert [m.training for m in before.modules()] == [m.training for m in after.modules()]


def compiled(network: RandomNetwork, options: Options, images: list[Tensor]) -> tuple[PlainNet, ir.Graph]:
    """The plain network, and the network as it was read: once more where the constant needs it before."""
    constant, seen = None, dict[str, ir.Graph]()
    if options.carry == "shift":
        seen["as read"] = trace(network, input_range=options.input_range).graph
        constant = shift_constant(seen["as read"], images)
    choices: dict[str, Any] = {
        "carry": options.carry,
        "constant": constant,
        "align": options.align,
        "input_range": options.input_range,
        "on_graph": seen.setdefault,
    }
    try:
        plain = compile_to_plain(network, tail=options.tail, **choices)
    except StagesCannotBeKept:
        plain = compile_to_plain(network, tail="fold", **choices)
    return plain, seen["as read"]
