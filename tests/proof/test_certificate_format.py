"""The certificate as a file: written and read again, and what is no certificate refused."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from helpers.converted import NETWORKS, converted, small_edsr
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import CertificateError
from memsr_compiler.ir import Meaning, Part
from memsr_compiler.proof.certificate import Certificate, Stage, numbers, runs
from memsr_compiler.proof.checker import check
from memsr_compiler.proof.forms import HeldLevel, Known
from memsr_compiler.trace.trace import trace


@pytest.mark.parametrize("carry", ["auto", "split", "shift"])
def test_json_and_back(carry: Carrying) -> None:
    for seed in NETWORKS[:30]:
        c = converted(seed, carry)
        assert Certificate.from_json(c.certificate.to_json()) == c.certificate
        assert c.certificate.teacher_sha256 == c.graph.sha256()
        assert bool(c.certificate.shifts) == any(
            m.kind == "shifted" for s in c.certificate.stages for v in s.levels for m in v
        )


def test_runs_and_numbers() -> None:
    for values in ((), (0,), (3, 4, 5, 9), (5, 4, 3), (-1, -1, 0, 1), (-1, 0), (7, 7)):
        assert numbers(runs(values)) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a certificate"),
        ("[]", "not a certificate"),
        ("{}", "not a certificate"),
        ("null", "not a certificate"),
        ('{"format": "other"}', "this is a 'other'"),
        ("[" * 100_000, "not a certificate"),
        ('{"format": "memsr certificate 1", "stages": [{"base": Infinity, "levels": []}]}', "not a certificate"),
    ],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(text)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('{"format"', '{"stages":[],"format"'),  # twice, of which each reader takes the one it likes
        ('"base":1', '"base":1.0'),
        ('"base":1', '"base":true'),
        ('"base":1', '"base":1,"base":1'),
        ('"at":[[0,1]]', '"at":[[0,1.0]]'),
        ('"at":[[0,1]]', '"at":[[false,1]]'),
        ('"at":[[0,1]]', '"at":[[0,-1]]'),
        ('"at":[[0,1]]', '"at":[[0,1],[0,0]]'),
        ('"at":[[0,1]]', '"at":["01"]'),
        ('"at":[[0,1]]', '"at":[[0,1]],"why":""'),
        ('"tensor":"input"', '"tensor":0'),
        ('["-1.0","1.0"]', '["-1.0","1.0","1.0"]'),
        ('["-1.0","1.0"]', '["nan","1.0"]'),
        ('["-1.0","1.0"]', '["-1.00","1.0"]'),
        ('["-1.0","1.0"]', "[-1.0,1.0]"),
        ('"constant":8.0', '"constant":8'),
        ('"constant":8.0', '"constant":NaN'),
        ('"constant":8.0', '"constant":Infinity'),
        ('"constant":8.0', '"constant":1e999'),
        ('"constant":8.0', '"constant":' + 5000 * "9"),
        ('"constant":8.0', '"constant":null'),
    ],
)
def test_a_text_that_is_not_as_it_was_written_is_refused(right: str, wrong: str) -> None:
    low = Meaning("value", (0,), "input", (0,))
    levels = ((low,), (replace(low, kind="shifted", constant=8.0),), (low,))
    right_one = Certificate("", "", (-1.0, 1.0), (Stage(1, levels),))
    text = right_one.to_json()
    assert Certificate.from_json(text) == right_one and right in text
    with pytest.raises(CertificateError):
        Certificate.from_json(text.replace(right, wrong, 1))


@pytest.mark.parametrize("name", [1, None, ["add"], {"add": 1}])
def test_a_part_of_what_is_no_name_is_refused(name: object) -> None:
    """The words of the guarantee were read off it before anything was checked, and ended with a TypeError."""
    part = Part("add", (name,), ())  # type: ignore[arg-type]
    level = (Meaning("value", (0,), "add", (0,), part=part),)
    text = replace(small_edsr().certificate, stages=(Stage(1, (level, level)),)).to_json()
    with pytest.raises(CertificateError, match="a part is of what has no name"):
        Certificate.from_json(text)


def test_a_certificate_of_other_layers_takes_no_memory() -> None:
    """A few hundred bytes that speak of a million channels, of a network that has three."""
    c = small_edsr()
    text, layers = c.certificate.to_json(), [(x.weight.shape[1], x.weight.shape[0]) for x in c.layers]
    assert Certificate.from_json(text, layers) == c.certificate
    for right, wrong in (
        ('"at":[[0,3]]', '"at":[[0,1000000000000]]'),
        ('"at":[[0,3]]', '"at":[[0,3],[1000000000000,1]]'),
        ('"channels":[[0,3]]', '"channels":[[0,1000000000000]]'),
        ('"channels":[[0,3]]', '"channels":[[0,100],' + 100 * "[0,1000]," + "[0,100]]"),
    ):
        assert right in text
        with pytest.raises(CertificateError, match="channels where a level has"):
            Certificate.from_json(text.replace(right, wrong), layers)
    start, between, end = text.split('"channels":[[0,3]]', 2)  # of one level
    made_up_for = f'{start}"channels":[[0,1000000000000]]{between}"channels":[[0,-1000000000000]]{end}'
    with pytest.raises(CertificateError, match="a level has no channels"):
        Certificate.from_json(made_up_for, layers)
    for others in (layers[:-1], [*layers, layers[-1]]):
        with pytest.raises(CertificateError, match="does not speak of the"):
            Certificate.from_json(text, others)


@pytest.mark.parametrize("kind", ["zero", "one"])
def test_constants_are_no_more_than_the_channels_there_are(kind: Literal["zero", "one"]) -> None:
    """A megabyte that said of one channel of padding, 900,000 times, that it is 0 took 4.6 GB and two minutes."""
    c = small_edsr()
    stage, layers = c.certificate.stages[0], [(x.weight.shape[1], x.weight.shape[0]) for x in c.layers]
    level = (*stage.levels[1], Meaning(kind, 200 * (0,)))
    levels = (stage.levels[0], level, *stage.levels[2:])
    text = replace(c.certificate, stages=(replace(stage, levels=levels),)).to_json()
    with pytest.raises(CertificateError, match="channels where a level has"):
        Certificate.from_json(text, layers)


def test_definitions_are_counted() -> None:
    c = small_edsr()
    level = HeldLevel(Known(c.graph, frozenset()), 1, c.certificate.stages[0].levels[0], nonnegative=False)
    for _ in range(32 + 2 * len(c.graph.ops)):
        level.count_definition()
    with pytest.raises(CertificateError, match="take more work than there are tensors"):
        level.count_definition()


def test_a_tensor_that_takes_far_more_numbers_than_its_layer_is_not_written_down() -> None:
    """A first layer of 8 channels that claims those behind an enlargement by 16: a certificate of 1 MB took 14 GB."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.late, self.last = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 8), (8, 3)))

        def forward(self, x: Tensor) -> Tensor:
            large = F.interpolate(self.early(x).relu(), scale_factor=16, mode="nearest")
            result: Tensor = self.last(self.late(large).relu())
            return result

    torch.manual_seed(0)
    teacher = Late().eval()
    net, graph = compile_to_plain(teacher, tail="keep"), trace(teacher).graph
    assert net.certificate is not None
    check(graph, net.checkable(), net.certificate)
    first, *others = net.certificate.stages
    (held,) = first.levels[1]
    late = next(m.tensor for stage in others for level in stage.levels for m in level if m.tensor.startswith("relu:"))
    levels = (first.levels[0], (replace(held, tensor=late),), *first.levels[2:])
    forged = replace(net.certificate, stages=(replace(first, levels=levels), *others))
    with pytest.raises(CertificateError, match="late: takes 37,748,736 numbers to write in terms of a level of 3"):
        check(graph, net.checkable(), forged)


def test_a_damaged_file_is_refused_or_says_what_is_true() -> None:
    """One character changed, 1,500 times: never another exception, never a false claim that goes through."""
    c = small_edsr()
    text = c.certificate.to_json()
    rng = random.Random(0)
    accepted = 0
    for _ in range(1500):
        at = rng.randrange(text.index('"input_range"'), len(text))
        damaged = text[:at] + rng.choice('0123456789,[]{}"-aevn') + text[at + 1 :]
        try:
            certificate = Certificate.from_json(damaged)
            check(c.graph, c.layers, certificate)
        except CertificateError:
            continue
        accepted += 1
        assert c.true(c.layers, certificate)
    assert accepted < 300  # digits replaced by themselves
