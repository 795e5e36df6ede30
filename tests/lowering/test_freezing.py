"""compile_to_plain(approximate=...): the exact plain form of a frozen network, never taken for the teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.gated import Contrast, Enhanced, Lattice, Squeeze, gated, images
from torch import nn

from memsr_compiler import PlainNet, check_certificate, compile_to_plain, export_onnx, load_plain, save_plain
from memsr_compiler.errors import CertificateError, InvalidInput, UnsupportedModel
from memsr_compiler.lowering.compile import Report
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.teachers.families.edsr import EDSR


def approximation(network: nn.Module) -> PlainNet:
    return compile_to_plain(network, approximate=images())


@pytest.mark.parametrize(
    ("make", "act"), [(Squeeze, nn.ReLU), (Contrast, nn.GELU), (Enhanced, nn.SiLU), (Lattice, nn.Tanh)]
)
def test_the_plain_network_is_the_frozen_one(make: Callable[[], nn.Module], act: Callable[[], nn.Module]) -> None:
    network = gated(make, act=act)
    net = approximation(network)
    assert isinstance(net.report, Report) and net.report.frozen is not None
    frozen = net.report.frozen
    checked = check_certificate(network, net)
    assert checked.replaced == frozen.replacements
    assert checked.frozen is not None
    with torch.no_grad():
        for x in images(1):
            exact, plain = frozen.module(x), net(x.float())
            assert torch.equal(exact, checked.frozen(x))
            torch.testing.assert_close(plain.double(), exact, rtol=0, atol=1e-5)


def test_without_being_asked_it_is_refused_and_the_way_out_named() -> None:
    with pytest.raises(
        UnsupportedModel, match=r"^body\.0\.3: adaptive_avg_pool2d: .*retrain; or use convert --approximate, which"
    ):
        compile_to_plain(gated(Squeeze))
    with pytest.raises(UnsupportedModel, match=r"in place of body\.0\.1, body\.0\.3\.gate, body\.1\.1 and 1 more, and"):
        compile_to_plain(gated(Squeeze, act=nn.GELU))
    with pytest.raises(UnsupportedModel) as refusal:
        compile_to_plain(gated(lambda: nn.MaxPool2d(3, 1, 1)))
    assert "--approximate" not in str(refusal.value)


def test_what_cannot_be_approximated_is_refused_for_its_reason() -> None:
    with pytest.raises(UnsupportedModel, match=r"^body\.0\.3: max_pool2d"):
        approximation(gated(lambda: nn.MaxPool2d(3, 1, 1)))


def test_a_teacher_that_is_convertible_is_converted_exactly() -> None:
    torch.manual_seed(0)
    network = EDSR(scale=2, blocks=1, channels=4).eval()
    net = approximation(network)
    assert net.sha256() == compile_to_plain(network).sha256()
    assert isinstance(net.report, Report) and net.report.frozen is None
    assert check_certificate(network, net).replaced == ()
    assert net.info.guarantee.startswith("exact for every image")


@pytest.mark.parametrize("name", ["plain.onnx", "plain.safetensors"])
def test_its_files_say_what_they_are(name: str, tmp_path: Path) -> None:
    network = gated(Squeeze, act=nn.GELU)
    net = approximation(network)
    (export_onnx if name.endswith(".onnx") else save_plain)(net, tmp_path / name)
    read = load_plain(tmp_path / name)
    assert read.info.guarantee.startswith("an approximation: the teacher with 2 gelu, 2 gates replaced; of that, exact")
    assert read.certificate is not None and net.certificate is not None
    assert read.certificate.approximation == net.certificate.approximation
    assert check_certificate(network, tmp_path / name).replaced == net.certificate.approximation


def test_forged_numbers_are_refused() -> None:
    network = gated(Squeeze)
    net = approximation(network)
    assert net.certificate is not None
    first, *others = net.certificate.approximation
    for forged in (
        (replace(first, scale=(first.scale[0] + 1e-6, *first.scale[1:])), *others),
        (replace(first, shift=(1e-6,)), *others),
        (replace(first, name=others[0].name), *others),
        (*others, first),
        (first,),
        (first, *others, first),
        (),
    ):
        net.certificate = replace(net.certificate, approximation=forged)
        with pytest.raises((CertificateError, UnsupportedModel)):
            check_certificate(network, net)


def test_an_approximation_that_says_it_is_the_teacher_is_refused() -> None:
    network = gated(Squeeze)
    net = approximation(network)
    net.info = replace(net.info, guarantee=net.info.guarantee.rpartition("; of that, ")[2])
    with pytest.raises(CertificateError, match="says its guarantee is 'exact for every image"):
        check_certificate(network, net)


def test_numbers_do_not_turn_one_teacher_into_another() -> None:
    """Nor is a teacher without gates the one with them, whatever the numbers."""
    network = gated(Squeeze)
    net = approximation(network)
    other = gated(Squeeze)
    with torch.no_grad():
        other.head.weight[0] += 1
    with pytest.raises(CertificateError, match="for another teacher"):
        check_certificate(other, net)
    with pytest.raises(CertificateError, match="of this teacher have to be replaced nothing"):
        check_certificate(gated(nn.Identity), net)


def test_the_certificate_is_read_as_it_was_written() -> None:
    net = approximation(gated(Squeeze, act=nn.GELU))
    assert net.certificate is not None
    text = net.certificate.to_json()
    assert Certificate.from_json(text) == net.certificate
    data = json.loads(text)
    changes: list[dict[str, object]] = [{"scale": [None]}, {"scale": []}, {"knots": [[0.5]]}, {"name": 3}, {"more": 1}]
    for change in changes:
        data["approximation"][0] = {**json.loads(text)["approximation"][0], **change}
        with pytest.raises(CertificateError):
            Certificate.from_json(json.dumps(data, separators=(",", ":")))


def test_the_largest_shift_is_read_off_an_approximation_too() -> None:
    net = compile_to_plain(gated(Squeeze), approximate=images(), carry="shift", constant=50.0)
    assert net.info.guarantee.startswith("an approximation: ") and net.largest_shift == 50.0
    assert PlainInfo.from_strings(net.info.to_strings()) == net.info


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "there are no images"),
        ("nowhere", "nowhere"),
        (7, "image 0: is a int"),
        ([torch.rand(3, 8, 8)], r"image 0: torch\.float32 of shape \(3, 8, 8\)"),
        ([torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)], r"image 1: torch\.float32 of shape \(1, 1, 8, 8\)"),
        ([torch.rand(1, 3, 0, 8)], "image 0: "),
        ([torch.rand(1, 3, 8, 8) * 255], r"image 0: values from .* to .*; the network takes 0 to 1"),
        ([torch.full((1, 3, 8, 8), torch.nan)], "image 0: values from nan to nan"),
    ],
)
def test_images_that_are_none_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compile_to_plain(gated(Squeeze), approximate=wrong)


def test_a_single_image_and_pixels_are_images_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    tensor = torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float()
    nets = [compile_to_plain(gated(Squeeze), approximate=image) for image in (pixels, [pixels], tensor, [tensor])]
    assert len({net.sha256() for net in nets}) == 1
