"""Every family: its state dict is recognised, by it alone, and builds the same network again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.registry import FAMILIES, find_family, recognise
from memsr_compiler.teachers.load import read_teacher

SHARED = Path(__file__).resolve().parents[3] / "shared"

# (family, arguments that describe a small network, those of them that the weights do not show)
SMALL: list[tuple[str, dict[str, object], set[str]]] = [
    ("edsr", {"scale": 2, "blocks": 2, "channels": 8}, set()),
    ("edsr", {"scale": 3, "blocks": 1, "channels": 8, "mean": (0.4488, 0.4371, 0.4040)}, set()),
    ("edsr", {"scale": 4, "blocks": 1, "channels": 8, "tail": "conv"}, set()),
    ("vdsr", {"blocks": 3, "channels": 8, "colours": 1}, set()),
    ("imdn", {"scale": 2, "blocks": 2, "channels": 16, "colours": 3, "attention": True}, set()),
    ("imdn", {"scale": 3, "blocks": 3, "channels": 12, "colours": 1, "attention": False}, set()),
    ("imdn-baseline", {"scale": 4, "blocks": 2, "channels": 16, "colours": 3}, set()),
    ("rfdn", {"scale": 2, "blocks": 2, "channels": 9, "colours": 3, "kept": 4, "hidden": 3}, set()),
    ("rdn", {"scale": 2, "blocks": 2, "layers": 3, "channels": 8, "growth": 4, "colours": 3}, set()),
    ("rdn", {"scale": 3, "blocks": 1, "layers": 2, "channels": 6, "growth": 6, "colours": 1}, set()),
    ("rdn", {"scale": 4, "blocks": 1, "layers": 1, "channels": 6, "growth": 5, "colours": 3}, set()),
    ("rdn", {"scale": 4, "blocks": 1, "layers": 2, "channels": 7, "growth": 3, "colours": 3, "enlarged": 3}, set()),
    ("rrdb", {"scale": 4, "blocks": 1, "channels": 8, "growth": 4, "colours": 3}, set()),
    ("rrdb", {"scale": 2, "blocks": 2, "channels": 8, "growth": 4, "colours": 3}, set()),
    ("rrdb", {"scale": 1, "blocks": 1, "channels": 8, "growth": 4, "colours": 1}, set()),
    ("carn", {"scale": 4, "channels": 8, "groups": 1, "efficient": False, "multi_scale": False}, set()),
    ("carn", {"scale": 3, "channels": 8, "groups": 4, "efficient": True, "multi_scale": False}, set()),
    ("carn", {"scale": 2, "channels": 8, "groups": 2, "efficient": True, "multi_scale": True}, {"scale"}),
    ("srresnet", {"scale": 4, "blocks": 2, "channels": 8, "colours": 3}, set()),
    ("srresnet", {"scale": 1, "blocks": 1, "channels": 4, "colours": 1}, set()),
    ("fsrcnn", {"scale": 3, "blocks": 2, "channels": 10, "narrow": 4, "colours": 1}, {"scale"}),
    ("idn", {"scale": 2, "blocks": 2, "channels": 16, "kept": 4, "groups": 4, "colours": 3}, {"scale"}),
    ("compact", {"scale": 4, "blocks": 2, "channels": 8, "colours": 3}, set()),
    ("rrdb", {"scale": 2, "blocks": 1, "channels": 8, "growth": 4, "unshuffle": 1, "plus": True}, set()),
    ("vdsr-rgb", {"scale": 2, "layers": 3, "channels": 8}, {"scale"}),
    ("msrresnet", {"scale": 4, "blocks": 2, "channels": 8, "colours": 3}, set()),
    ("msrresnet0", {"scale": 4, "blocks": 2, "channels": 8, "colours": 1, "last_bias": True}, set()),
    ("ecbsr", {"scale": 2, "blocks": 2, "channels": 8, "colours": 1, "activation": "prelu"}, set()),
    ("etds", {"scale": 3, "blocks": 2, "channels": 8, "residual": 3, "colours": 3}, set()),
    ("etds-plain", {"scale": 3, "blocks": 2, "channels": 8, "colours": 3, "spare": 1}, set()),
    ("abpn", {"scale": 2, "blocks": 2, "channels": 8, "colours": 3}, set()),
    ("srcnn", {"middle": 5, "channels": 8, "narrow": 4, "colours": 1}, set()),
    ("srcnn", {"middle": 1, "channels": 6, "narrow": 6, "colours": 3}, set()),
    ("latticenet", {"scale": 2, "blocks": 2, "channels": 8, "narrow": 6, "hidden": 2}, set()),
    ("latticenet", {"scale": 3, "blocks": 1, "channels": 4, "narrow": 4, "hidden": 1}, set()),
    ("swinir", {"scale": 2, "blocks": 1, "layers": 2, "channels": 6, "heads": 2, "window": 4, "hidden": 9}, set()),
    ("swinir", {"scale": 4, "blocks": 2, "layers": 1, "channels": 4, "heads": 4, "window": 8, "colours": 1}, set()),
    ("dncnn", {"layers": 5, "channels": 8, "colours": 1, "batch_norm": False}, set()),
    ("dncnn", {"layers": 4, "channels": 8, "colours": 3, "batch_norm": True}, set()),
]


def network(name: str, hyper: Mapping[str, object]) -> torch.nn.Module:
    """Freshly initialised with fixed randomness; batch normalisation's statistics are random too."""
    torch.manual_seed(0)
    module = find_family(name).build(**hyper)
    for key, buffer in module.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return module.eval()


def shapes_of(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


def test_every_family_has_a_small_example() -> None:
    assert {name for name, _, _ in SMALL} == {family.name for family in FAMILIES}
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_documents_list_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs/teachers.md").read_text("utf-8")
    listed = re.findall(r"^\| `([a-z][\w-]*)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(family.name for family in FAMILIES)


@pytest.mark.parametrize(("name", "hyper", "hidden"), SMALL)
def test_only_its_own_family_claims_a_state_dict(name: str, hyper: dict[str, object], hidden: set[str]) -> None:
    family = find_family(name)
    assert not recognise(shapes_of(network(name, hyper))) or not family.only_named
    found = recognise(shapes_of(network(name, hyper)), family if family.only_named else None)
    assert [match.family.name for match in found] == [name]
    assert found[0].hyper.items() >= {key: value for key, value in hyper.items() if key not in hidden}.items()


@pytest.mark.parametrize(("name", "hyper", "hidden"), SMALL)
def test_a_saved_network_is_read_back(name: str, hyper: dict[str, object], hidden: set[str], tmp_path: Path) -> None:
    teacher = network(name, hyper)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    arch = name if find_family(name).only_named else None
    arguments = {key: hyper[key] for key in hidden}
    loaded = read_teacher(tmp_path / "teacher.pth", arch=arch, arch_args=arguments, probe=False)
    assert loaded.family == name
    assert loaded.input_range == find_family(name).input_range
    scale, colours = hyper.get("scale", 1), hyper.get("colours", 3)
    assert isinstance(scale, int)
    assert isinstance(colours, int)
    image = torch.rand(2, colours, 16, 20)
    with torch.no_grad():
        expected = teacher(image)
        assert torch.equal(loaded.module(image), expected)
    assert expected.shape[2:] == (16 * scale, 20 * scale)


@pytest.mark.parametrize(("name", "hyper", "hidden"), [case for case in SMALL if case[2]])
def test_what_weights_do_not_show_has_to_be_said(
    name: str, hyper: dict[str, object], hidden: set[str], tmp_path: Path
) -> None:
    torch.save(network(name, hyper).state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(InvalidInput, match=r"'scale'.*--arch-arg"):
        read_teacher(tmp_path / "teacher.pth")


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("rdn", {"scale": 5}),
        ("rrdb", {"scale": 3}),
        ("carn", {"scale": 5}),
        ("carn", {"scale": 8, "multi_scale": True}),
        ("srresnet", {"scale": 3}),
        ("srcnn", {"scale": 0}),
        ("latticenet", {"scale": 2, "channels": 7}),
        ("swinir", {"scale": 2, "channels": 60, "heads": 7}),
    ],
)
def test_a_size_the_network_cannot_have_is_refused(name: str, hyper: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="scale="):
        find_family(name).build(**hyper)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"no such family.*edsr.*package\.module:factory"):
        find_family("resnet")


def test_carn_uses_one_upsampler_of_several() -> None:
    shared = network("carn", {"scale": 2, "channels": 4, "multi_scale": True})
    other = find_family("carn").build(scale=3, channels=4, multi_scale=True)
    other.load_state_dict(shared.state_dict())
    assert shared(torch.rand(1, 3, 4, 5)).shape == (1, 3, 8, 10)
    assert other(torch.rand(1, 3, 4, 5)).shape == (1, 3, 12, 15)


KEYS = sorted({key for name, hyper, _ in SMALL for key in shapes_of(network(name, hyper))})


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.lists(st.integers(0, 9), max_size=4), max_size=8))
def test_recognition_survives_any_shapes(shapes: dict[str, list[int]]) -> None:
    recognise({key: torch.Size(shape) for key, shape in shapes.items()})


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SMALL), st.data())
def test_recognition_survives_a_damaged_state_dict(
    case: tuple[str, dict[str, object], set[str]], data: st.DataObject
) -> None:
    shapes = shapes_of(network(*case[:2]))
    victim = data.draw(st.sampled_from(sorted(shapes)))
    shapes[victim] = torch.Size(data.draw(st.lists(st.integers(0, 70), max_size=5)))
    assert all(match.family.name == case[0] for match in recognise(shapes))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pretrained weights in ../shared/models")
@pytest.mark.parametrize(
    ("file", "name", "parameters"),
    [
        ("IMDN_noCCA_x4.pth", "imdn-baseline", 893_936),
        ("IMDN_x2.pth", "imdn", 694_404),
        ("IMDN_x3.pth", "imdn", 703_059),
        ("IMDN_x4.pth", "imdn", 715_176),
        ("RFDN_x4.pth", "rfdn", 433_448),
        ("vdsr.safetensors", "vdsr", 664_704),
    ],
)
def test_pretrained_weights_load(file: str, name: str, parameters: int) -> None:
    loaded = read_teacher(SHARED / "models" / file)
    assert loaded.family == name
    assert sum(parameter.numel() for parameter in loaded.module.parameters()) == parameters
    # A network that fits its weights leaves a flat image about as it is; the border sees zero padding.
    colours = 1 if name == "vdsr" else 3
    assert loaded.input_range is not None
    grey = torch.full((1, colours, 24, 24), 0.5 * loaded.input_range[1])
    with torch.no_grad():
        result = loaded.module(grey)
    middle = result[..., result.shape[2] // 2, result.shape[3] // 2]
    assert torch.allclose(middle, grey[0, 0, 0, 0], rtol=0.02)
