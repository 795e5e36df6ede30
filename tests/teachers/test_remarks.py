"""Remarks beside the weights: where they are found, and that nothing in a file is taken for one that is none."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from memsr_compiler.teachers.families.registry import find_family
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.remarks import Remarks, attach_remarks, read_remarks

NAMES: dict[str, tuple[object, ...]] = {"res_scale": (1.0, 0.1), "scale": (2,), "image_skip": (True, False)}
ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "loaded",
    [
        {"res_scale": 0.1},
        {"config": {"network": {"res_scale": 0.1}}},
        {"args": Namespace(res_scale=0.1)},
        {"opt": '{"res_scale": 0.1}'},
        {"res_scale": "0.1"},
        {"a": {"res_scale": 0.1}, "b": {"res_scale": 0.1}, "params": {"w": torch.zeros(1)}},
    ],
)
def test_a_constant_is_found_wherever_it_stands(loaded: object) -> None:
    assert read_remarks(loaded).arguments(NAMES) == {"res_scale": 0.1}


@pytest.mark.parametrize(
    "loaded",
    [
        None,
        [],
        {"res_scale": "large"},
        {"res_scale": True},
        {"res_scale": torch.tensor(0.1)},
        {"res_scale": float("nan")},
        {"res_scale": float("inf")},
        {"res_scale": 1e30},
        {"res_scale": [0.1]},
        {"scale": 2.5},
        {"scale": 10**400},
        {"image_skip": 1},
        {"a": {"res_scale": 0.1}, "b": {"res_scale": 0.2}},  # of two networks
        {"a": {"b": {"c": {"d": {"res_scale": 0.1}}}}},
        {"opt": {"network_teacher": {"res_scale": 0.1}, "network_d": {"res_scale": 0.1}}},
        {"config": {"Loss": {"perceptual": {"res_scale": 0.1}}}},
        {"scaler": {"scale": 65536}, "MixedPrecision": {"scale": 65536}, "optimizer_states": {"a": {"scale": 2}}},
        {"opt": "[" * 5000},
        {1: {"a": 1}, "res_scale": None},
        {"fast": {"res_scale": [torch.zeros(2)]}, "slow": {"res_scale": [torch.ones(2)]}},
        {"a": {"res_scale": ENDLESS}, "b": {"res_scale": [[ENDLESS[0]]]}},
    ],
)
def test_what_is_no_constant_is_none(loaded: object) -> None:
    assert read_remarks(loaded).arguments(NAMES) == {}


@pytest.mark.parametrize(
    ("loaded", "expected"),
    [
        ({"input_range": 255}, (0.0, 255.0)),
        ({"input_range": "1.0"}, (0.0, 1.0)),
        ({"input_range": [-1, 1]}, (-1.0, 1.0)),
        ({"rgb_range": 255, "img_range": 255}, None),  # which may be inside
        ({"input_range": 8}, None),
        ({"input_range": True}, None),
        ({"input_range": [1, 0]}, None),
        ({"input_range": [0, float("inf")]}, None),
        ({}, None),
    ],
)
def test_a_range(loaded: object, expected: tuple[float, float] | None) -> None:
    assert read_remarks(loaded).input_range == expected


@pytest.mark.parametrize("text", ["0 255", "0.0 255.0", "(0, 255)", "[0,255]", "0, 255", "( 0.0 , 255.0 )"])
def test_a_range_as_text(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read_remarks({"input_range": text}).input_range == (0.0, 255.0)
    assert caplog.text == ""


@pytest.mark.parametrize("value", ["0-255", "255 0", "(0, many)", "0 1 2", "0..255", [0, 1, 2], "nan 1"])
def test_a_range_that_is_none_is_told(value: object, caplog: pytest.LogCaptureFixture) -> None:
    assert read_remarks({"input_range": value}).input_range is None
    assert "is no range of two rising numbers, and passed over" in caplog.text


def test_the_range_of_edsrs_authors() -> None:
    assert read_remarks({"args": {"rgb_range": 255}}).rgb_range == (0.0, 255.0)
    assert read_remarks({"rgb_range": 8}).rgb_range is None


def test_a_state_dict_carries_remarks_and_stays_one(tmp_path: Any) -> None:
    network = nn.Conv2d(1, 1, 1)
    state = network.state_dict()
    attach_remarks(state, "edsr", {"res_scale": 0.1}, (0.0, 255.0))
    for legacy in (False, True):
        torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        loaded = torch.load(tmp_path / "a.pt", weights_only=True)
        remarks = read_remarks(loaded)
        assert (remarks.family, remarks.input_range) == ("edsr", (0.0, 255.0))
        assert remarks.arguments(NAMES) == {"res_scale": 0.1}
        network.load_state_dict(loaded)
    assert read_remarks({"params": state}).family == "edsr"


KEYS = st.sampled_from(["res_scale", "rgb_range", "a"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_reading_remarks_never_fails(loaded: object) -> None:
    remarks = read_remarks(loaded)
    assert isinstance(remarks, Remarks)
    remarks.arguments(NAMES)


@pytest.mark.parametrize(("prefix", "scale"), [("a.", 0.1), ("a.params.", 0.1), ("b", 0.2), ("c.x.", 0.4), ("", None)])
def test_of_several_networks_the_others_say_nothing(prefix: str, scale: float | None) -> None:
    weights = {"params": {"w": torch.zeros(1)}}
    loaded = {
        "a": {**weights, "res_scale": 0.1},
        "b": {**weights, "opt": {"res_scale": 0.2}},
        "c": {"x": {**weights, "res_scale": 0.4}, "e": {**weights, "res_scale": 0.5}},
        "epoch": {"image_skip": True},
    }
    expected = {"image_skip": True} if scale is None else {"res_scale": scale, "image_skip": True}
    assert read_remarks(loaded, prefix).arguments(NAMES) == expected


def test_what_an_optimizer_notes_is_not_the_norms() -> None:
    names: dict[str, tuple[object, ...]] = {"eps": (1e-4, 1e-5)}
    assert read_remarks({"eps": 1e-8, "lr": 1e-3}).arguments(names) == {}
    assert read_remarks({"network": {"bn_eps": 1e-5}}).arguments(names) == {"eps": 1e-5}
    assert Remarks({"eps": 1e-5}, family="dncnn").arguments(names) == {"eps": 1e-5}


@pytest.mark.parametrize("name", ["srcnn", "vdsr"])
def test_the_scale_that_was_trained_for_does_not_have_a_network_enlarge(name: str, tmp_path: Path) -> None:
    """Published weights are given the enlarged image; those that `train` wrote say it themselves."""
    network = find_family(name).build(channels=4)
    torch.save({"state_dict": network.state_dict(), "opt": {"scale": 2}}, tmp_path / "a.pt")
    assert read_teacher(tmp_path / "a.pt", probe=False).scale == 1
    own = find_family(name).build(channels=4, scale=2) if name == "srcnn" else network
    state = own.state_dict()
    attach_remarks(state, name, {"scale": 2} if name == "srcnn" else {}, (0.0, 1.0))
    torch.save(state, tmp_path / "b.pt")
    assert read_teacher(tmp_path / "b.pt", probe=False).scale == (2 if name == "srcnn" else 1)


def test_dictionaries_that_hold_themselves_a_thousand_times_end() -> None:
    endless: dict[str, Any] = {}
    endless |= dict.fromkeys((f"k{i}" for i in range(1000)), endless)
    assert read_remarks({"a": {"w": torch.zeros(1)}, "b": endless}, "a.").values == {}
