"""Weights under the key names of those who distribute them: read back as the network that they came from."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import foreign_networks as foreign
from helpers.trained import Edsr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.registry import recognise
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.state_dict import assemble

SIZES = ((1, 1), (1, 3), (5, 7), (8, 4))


@dataclass(frozen=True)
class Case:
    """A network of others.

    hyper    what has to be read off its weights;   told   what has to be said
    assumed  what is assumed and said
    fold     what sizes must divide by
    close    whether rounding may differ, since constants are applied in another order
    top      the largest input value
    whole    whether weights are small whole numbers, with which sums of kernels are exact in float64
    """

    family: str
    build: Callable[[], nn.Module]
    hyper: Mapping[str, object]
    told: Mapping[str, object] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    fold: int = 1
    close: bool = False
    whole: bool = False
    top: float = 1.0


CASES: dict[str, Case] = {
    "ESRGAN's first, x1": Case("rrdb", lambda: foreign.FirstEsrgan([]), {"scale": 1, "unshuffle": 1, "blocks": 2}),
    "ESRGAN's first, x2": Case("rrdb", lambda: foreign.FirstEsrgan([2]), {"scale": 2}, assumed=("scale 2",)),
    "ESRGAN's first, x3": Case("rrdb", lambda: foreign.FirstEsrgan([3]), {"scale": 3}, {"scale": 3}),
    "ESRGAN's first, x4": Case("rrdb", lambda: foreign.FirstEsrgan([2, 2], blocks=3), {"scale": 4, "blocks": 3}),
    "ESRGAN's first, x8": Case("rrdb", lambda: foreign.FirstEsrgan([2, 2, 2], width=5), {"scale": 8, "channels": 5}),
    "ESRGAN+": Case("rrdb", lambda: foreign.FirstEsrgan([2, 2], plus=True), {"scale": 4, "plus": True}),
    "ESRGAN's second, x4": Case("rrdb", lambda: foreign.SecondEsrgan(2), {"scale": 4, "plus": False}),
    "ESRGAN's second, x2": Case("rrdb", lambda: foreign.SecondEsrgan(1), {"scale": 2}, assumed=("scale 2",)),
    "Real-ESRGAN, x4": Case("rrdb", lambda: foreign.RealEsrgan(4), {"scale": 4, "unshuffle": 1}),
    "Real-ESRGAN, x2": Case("rrdb", lambda: foreign.RealEsrgan(2), {"scale": 2, "unshuffle": 2}, fold=2),
    "Real-ESRGAN, x1": Case("rrdb", lambda: foreign.RealEsrgan(1), {"scale": 1, "unshuffle": 4}, fold=4),
    "BasicSR's EDSR, x2": Case(
        "edsr",
        lambda: foreign.BasicsrEdsr(2),
        {"scale": 2, "blocks": 2, "channels": 6, "tail": "edsr"},
        assumed=("res_scale 1", "rgb_range 255", "mean (0.4488, 0.4371, 0.404)"),
        close=True,
    ),
    "BasicSR's EDSR, x3": Case("edsr", lambda: foreign.BasicsrEdsr(3, blocks=1), {"scale": 3, "blocks": 1}, close=True),
    "BasicSR's EDSR, x4, large": Case(
        "edsr", lambda: foreign.BasicsrEdsr(4, factor=0.1), {"scale": 4}, {"res_scale": 0.1}, close=True
    ),
    "BasicSR's EDSR of 0..1": Case(
        "edsr", lambda: foreign.BasicsrEdsr(2, top=1.0), {"scale": 2}, {"rgb_range": 1}, ("res_scale 1",), close=True
    ),
    "mmagic's EDSR, x2": Case(
        "edsr",
        lambda: foreign.MmagicEdsr(2),
        {"scale": 2, "blocks": 2},
        assumed=("res_scale 1", "mean (0.4488, 0.4371, 0.404)"),
        close=True,
    ),
    "mmagic's EDSR, x4": Case("edsr", lambda: foreign.MmagicEdsr(4), {"scale": 4}, {"res_scale": 1}, close=True),
    "BasicSR's MSRResNet, x2": Case("msrresnet", lambda: foreign.BasicsrResnet(2), {"scale": 2, "blocks": 2}),
    "BasicSR's MSRResNet, x3": Case(
        "msrresnet", lambda: foreign.BasicsrResnet(3, colours=1), {"scale": 3, "colours": 1}
    ),
    "BasicSR's MSRResNet, x4": Case("msrresnet", lambda: foreign.BasicsrResnet(4, blocks=3), {"scale": 4, "blocks": 3}),
    "KAIR's MSRResNet1": Case("msrresnet", lambda: foreign.BasicsrResnet(4, kair=True), {"scale": 4, "channels": 6}),
    "KAIR's MSRResNet1, x3": Case("msrresnet", lambda: foreign.BasicsrResnet(3, kair=True), {"scale": 3}),
    "mmagic's MSRResNet, x3": Case("msrresnet", lambda: foreign.MmagicResnet(3), {"scale": 3, "blocks": 2}),
    "mmagic's MSRResNet, x4": Case(
        "msrresnet",
        lambda: foreign.MmagicResnet(4),
        {"scale": 4, "shuffle_activation": False},
        assumed=("slope 0.1 below zero",),
    ),
    "KAIR's MSRResNet0": Case(
        "msrresnet0", lambda: foreign.SequenceResnet([2, 2]), {"scale": 4, "blocks": 2}, assumed=("slope 0",)
    ),
    "KAIR's MSRResNet0, leaky": Case(
        "msrresnet0", lambda: foreign.SequenceResnet([2, 2], slope=0.2), {"scale": 4}, {"slope": 0.2}
    ),
    "KAIR's MSRResNet0, x2": Case(
        "msrresnet0", lambda: foreign.SequenceResnet([2]), {}, assumed=("scale 2", "slope 0")
    ),
    "KAIR's MSRResNet0, x3": Case("msrresnet0", lambda: foreign.SequenceResnet([3]), {}, {"scale": 3}),
    "KAIR's MSRResNet0, x1": Case(
        "msrresnet0", lambda: foreign.SequenceResnet([]), {"scale": 1, "upsampling": "upconv"}
    ),
    "KAIR's MSRResNet0, shuffled": Case(
        "msrresnet0", lambda: foreign.SequenceResnet([2, 2], shuffle=True), {"scale": 4, "upsampling": "pixelshuffle"}
    ),
    "KAIR's MSRResNet0, shuffled, x3": Case(
        "msrresnet0", lambda: foreign.SequenceResnet([3], shuffle=True, last_bias=True), {"scale": 3, "last_bias": True}
    ),
    "torchSR's VDSR": Case("vdsr-rgb", lambda: foreign.ColourVdsr(2), {"layers": 4, "channels": 6}, {"scale": 2}),
    "VDSR of EDSR's authors": Case("vdsr-rgb", lambda: foreign.ColourVdsr(1, layers=2), {"layers": 2}, {"scale": 1}),
    "VDSR of EDSR's authors, of 0..255": Case(
        "vdsr-rgb", lambda: foreign.ColourVdsr(1, top=255.0), {"layers": 4}, {"scale": 1}, top=255.0
    ),
    "ECBSR": Case("ecbsr", lambda: foreign.Ecbsr(2, "device"), {"scale": 2, "blocks": 2, "activation": "prelu"}),
    "ECBSR on Y": Case("ecbsr", lambda: foreign.Ecbsr(4, "device", colours=1), {"scale": 4, "colours": 1}),
    "ECBSR with ReLU": Case(
        "ecbsr", lambda: foreign.Ecbsr(2, "device", activation="relu"), {"scale": 2}, assumed=("activation relu",)
    ),
    "ECBSR, as in ETDS": Case("ecbsr", lambda: foreign.Ecbsr(3, "etds"), {"scale": 3, "channels": 5}),
    "ECBSR in training": Case(
        "ecbsr", lambda: foreign.Ecbsr(2, "training"), {"scale": 2}, assumed=("identity False",), whole=True
    ),
    "ECBSR in training, on Y": Case(
        "ecbsr", lambda: foreign.Ecbsr(3, "training", colours=1), {"scale": 3, "colours": 1}, whole=True
    ),
    "ECBSR in training, softplus": Case(
        "ecbsr",
        lambda: foreign.Ecbsr(2, "training", activation="softplus"),
        {},
        {"activation": "softplus"},
        close=True,
        whole=True,
    ),
    "ECBSR in training, identity": Case(
        "ecbsr", lambda: foreign.Ecbsr(2, "training", identity=True), {}, {"identity": True}, whole=True
    ),
    "ABPN, x2": Case("abpn", lambda: foreign.Abpn(2), {"scale": 2, "blocks": 2, "channels": 6}),
    "ABPN, x3": Case("abpn", lambda: foreign.Abpn(3, blocks=3), {"scale": 3, "blocks": 3}),
    "ETDS, x2": Case("etds", lambda: foreign.Etds(2), {"scale": 2, "blocks": 2, "channels": 5, "residual": 3}),
    "ETDS, x4": Case("etds", lambda: foreign.Etds(4, image=4), {"scale": 4, "residual": 4}),
    "ETDS on devices, x2": Case("etds-plain", lambda: foreign.PlainEtds(2), {"scale": 2, "blocks": 2, "spare": 0}),
    "ETDS on devices, x3": Case("etds-plain", lambda: foreign.PlainEtds(3), {"scale": 3, "spare": 1}),
    "SRCNN 9-1-5, its parts named": Case(
        "srcnn",
        foreign.NamedSrcnn,
        {"middle": 1, "channels": 6, "narrow": 4},
        assumed=("bicubic enlargement with a -0.5",),
    ),
    "LatticeNet, x2": Case(
        "latticenet",
        lambda: foreign.Lattice(2),
        {"scale": 2, "blocks": 4, "channels": 8, "narrow": 6, "hidden": 2},
        assumed=("slope 0.05 below zero",),
        fold=2,
        close=True,
        top=255.0,
    ),
    "LatticeNet, x3": Case("latticenet", lambda: foreign.Lattice(3), {"scale": 3}, fold=2, close=True, top=255.0),
    "SwinIR, x2": Case(
        "swinir",
        lambda: foreign.Swin(2),
        {"scale": 2, "blocks": 2, "layers": 3, "channels": 6, "heads": 2, "window": 4, "hidden": 12},
        assumed=("mean colour of DIV2K", "images mirrored to whole windows"),
        fold=4,
        close=True,
    ),
    "SwinIR, x4, window 2": Case(
        "swinir", lambda: foreign.Swin(4, window=2), {"scale": 4, "window": 2}, fold=2, close=True
    ),
}


def build(case: Case) -> nn.Module:
    """The network with random weights and biases, none of which is small."""
    torch.manual_seed(0)
    network = case.build()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and case.whole:
                parameter.copy_(torch.randint_like(parameter, -2, 3))
            elif parameter.requires_grad and parameter.dim() == 1:
                parameter.uniform_(-0.5, 0.5)
    return network.eval().to(torch.float64 if case.whole else torch.float32)


@pytest.mark.parametrize("name", CASES)
def test_weights_under_others_names_are_read_as_the_same_network(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    network = build(case)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth", arch_args=case.told, probe=False)
    assert teacher.family == case.family and teacher.hyper.items() >= case.hyper.items()
    assert teacher.input_range == (0.0, case.top)
    assert set(case.assumed) <= set(teacher.assumed)
    module = teacher.module.to(torch.float64 if case.whole else torch.float32)
    colours = int(str(teacher.hyper.get("colours", 3)))
    for height, width in SIZES:
        image = torch.rand(2, colours, height * case.fold, width * case.fold)
        if case.whole:
            image = image.mul(9).round().double()
        with torch.no_grad():
            expected, result = network(image), module(image)
        if case.close:
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(result, expected)


@pytest.mark.parametrize("name", CASES)
def test_one_family_alone_recognises_them(name: str) -> None:
    shapes = {key: tensor.shape for key, tensor in CASES[name].build().state_dict().items()}
    assert [match.family.name for match in recognise(shapes)] == [CASES[name].family]


@pytest.mark.parametrize("name", CASES)
def test_a_missing_key_or_one_too_many_is_told(name: str, tmp_path: Path) -> None:
    state = CASES[name].build().state_dict()
    middle = list(state)[len(state) // 2]
    for changed in ({k: v for k, v in state.items() if k != middle}, {**state, "more.weight": torch.zeros(3, 3, 3, 3)}):
        torch.save(changed, tmp_path / "a.pth")
        with pytest.raises(InvalidInput, match=r"missing|unexpected|are not those of"):
            read_teacher(tmp_path / "a.pth", arch_args=CASES[name].told, probe=False)


def refusal(state: Mapping[str, torch.Tensor], path: Path, **options: Any) -> str:
    torch.save(dict(state), path)
    with pytest.raises(InvalidInput) as caught:
        read_teacher(path, probe=False, **options)
    return str(caught.value)


def test_a_named_family_says_which_keys_it_wants_and_which_it_does_not_know(tmp_path: Path) -> None:
    state = {"conv.weight": torch.zeros(8, 3, 3, 3), "out.weight": torch.zeros(12, 8, 3, 3)}
    words = refusal(state, tmp_path / "a.pth", arch="rrdb")
    assert "At its usual size it wants conv_first.weight (64, 12, 3, 3), conv_first.bias (64,), body.0.rdb1" in words
    assert "or the key names of ESRGAN's first or ESRGAN's second" in words
    assert "what it does not know is conv.weight (8, 3, 3, 3), out.weight (12, 8, 3, 3)" in words
    words = refusal(build(CASES["ECBSR"]).state_dict(), tmp_path / "a.pth", arch="abpn")
    assert "wants backbone.0.weight (28, 3, 3, 3)" in words and "not know is backbone.0.conv3x3.weight" in words


def test_a_branch_that_is_missing_or_of_another_shape(tmp_path: Path) -> None:
    state = build(CASES["ECBSR in training"]).state_dict()
    key = "backbone.1.conv1x1_sbx.b0"
    words = refusal({k: v for k, v in state.items() if k != key}, tmp_path / "a.pth")
    assert f"do not fit ecbsr: missing {key}" in words
    words = refusal({**state, key: torch.zeros(1)}, tmp_path / "a.pth")
    assert f"{key} is (1,) in the file, not (5,)" in words
    for dtype in (torch.int8, torch.complex64):  # of a quantised file; of no network
        words = refusal({**state, key: state[key].to(dtype)}, tmp_path / "a.pth")
        assert f"{key} is {dtype} in the file" in words
    empty = torch.zeros(5, 5, 0, 0)  # of any number of channels in no bytes
    words = refusal({**state, "backbone.1.conv3x3.weight": empty}, tmp_path / "a.pth")
    assert "backbone.1.conv3x3.weight is (5, 5, 0, 0) in the file, which is no 3x3 kernel" in words
    words = refusal({**state, "backbone.1.conv1x1_odd.k0": torch.zeros(1)}, tmp_path / "a.pth")
    assert "unexpected backbone.1.conv1x1_odd.k0" in words


def test_weights_with_the_names_of_two_dialects(tmp_path: Path) -> None:
    old, second = build(CASES["ESRGAN's first, x4"]).state_dict(), build(CASES["ESRGAN's second, x4"]).state_dict()
    assert "unexpected" in refusal({**old, **second}, tmp_path / "a.pth")


def test_arguments_that_a_dialect_cannot_have(tmp_path: Path) -> None:
    state = build(CASES["BasicSR's EDSR, x2"]).state_dict()
    assert "rgb_range=2" in refusal(state, tmp_path / "a.pth", arch_args={"rgb_range": 2})
    assert "do not fit edsr" in refusal(state, tmp_path / "a.pth", arch_args={"mean": ("a", "b", "c")})


def test_the_dialect_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    torch.save(build(CASES["KAIR's MSRResNet1"]).state_dict(), tmp_path / "a.pth")
    read_teacher(tmp_path / "a.pth", probe=False)
    assert "the key names are those of KAIR" in caplog.text


KEYS = sorted({key for case in CASES.values() for key in case.build().state_dict()})


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.lists(st.integers(0, 9), max_size=4), max_size=12))
def test_recognition_survives_any_shapes(shapes: dict[str, list[int]]) -> None:
    recognise({key: torch.Size(shape) for key, shape in shapes.items()})


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.data())
def test_damaged_shapes_are_refused_or_read(name: str, data: st.DataObject) -> None:
    state = CASES[name].build().state_dict()
    victim = data.draw(st.sampled_from(sorted(state)))
    state[victim] = torch.zeros(data.draw(st.lists(st.integers(0, 7), max_size=5)))
    with contextlib.suppress(InvalidInput):
        assemble(state, None, CASES[name].told)


# -- BasicSR's EDSR, trained: its constants stand in no file, so they are tried ---------------------------------------

TRAINED = [(1.0, 255.0), (0.1, 255.0), (1.0, 1.0), (0.1, 1.0)]


def trained_in_basicsr(factor: float, top: float) -> nn.Module:
    """The shipped teacher as BasicSR has it: the mean taken off, and values up to `top` inside."""
    network = foreign.BasicsrEdsr(2, factor=factor, top=top, blocks=8, width=32)
    names = {
        r"^head\.0": "conv_first",
        r"^body\.(\d)\.body\.0": r"body.\1.conv1",
        r"^body\.(\d)\.body\.2": r"body.\1.conv2",
        r"^body\.8": "conv_after_body",
        r"^tail\.0": "upsample",
        r"^tail\.1": "conv_last",
    }
    state = {}
    for key, tensor in Edsr(factor, top, mean_shift=True).state_dict().items():
        old = next((old for old in names if re.match(old, key)), None)
        if old is not None:
            state[re.sub(old, names[old], key)] = tensor
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize(("factor", "top"), TRAINED)
def test_the_constants_of_basicsrs_edsr_are_found_by_trying(factor: float, top: float, tmp_path: Path) -> None:
    network = trained_in_basicsr(factor, top)
    torch.save({"params": network.state_dict()}, tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert (teacher.hyper["res_scale"], teacher.hyper["rgb_range"], teacher.input_range) == (factor, top, (0.0, 1.0))
    assert {f"res_scale {factor:g}", f"rgb_range {top:g}", "mean (0.4488, 0.4371, 0.404)"} <= set(teacher.assumed)
    image = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(teacher.module(image), network(image), rtol=1e-5, atol=1e-5)


def test_the_constants_of_basicsrs_edsr_beside_its_weights(tmp_path: Path) -> None:
    options: dict[str, dict[str, object]] = {"network_g": {"type": "EDSR", "res_scale": 0.1, "img_range": 255.0}}
    torch.save({"params": trained_in_basicsr(0.1, 255.0).state_dict(), "opt": options}, tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert (teacher.hyper["res_scale"], teacher.hyper["rgb_range"], teacher.input_range) == (0.1, 255.0, (0.0, 1.0))
    usual = ("ReLU", "zero padding", "no clamp at the end")
    assert teacher.assumed == ("mean (0.4488, 0.4371, 0.404)", *usual)
    options["network_g"]["rgb_mean"] = [0.5, 0.5, 0.5]
    torch.save({"params": trained_in_basicsr(0.1, 255.0).state_dict(), "opt": options}, tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert teacher.hyper["mean"] == (0.5, 0.5, 0.5) and teacher.assumed == usual
    teacher = read_teacher(tmp_path / "a.pth", arch_args={"mean": [0, 0, 0]})
    assert not teacher.module.get_parameter("add_mean.bias").any() and teacher.assumed == usual
