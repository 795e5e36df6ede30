"""check_certificate: a plain network is its teacher, or the reason why that is not proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.teachers import write_teacher
from torch import nn

from memsr_compiler import PlainNet, check_certificate, compile_to_plain, export_onnx, read_teacher, save_plain
from memsr_compiler.errors import CertificateError, InvalidInput
from memsr_compiler.lowering.compile import Report
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=1, channels=4).eval()


@pytest.fixture
def net(network: nn.Module) -> PlainNet:
    return compile_to_plain(network, input_range=(0.0, 255.0))


def test_what_the_check_says_is_what_the_compiler_said(network: nn.Module, net: PlainNet) -> None:
    checked = check_certificate(network, net)
    assert isinstance(net.report, Report)
    assert (checked.guarantee, checked.input_range) == (net.info.guarantee, (0.0, 255.0))
    assert (checked.carried, checked.rounding) == (net.report.carried, net.report.rounding)


@pytest.mark.parametrize("name", ["plain.onnx", "plain.safetensors"])
def test_files_of_both(name: str, network: nn.Module, net: PlainNet, tmp_path: Path) -> None:
    write_teacher(network, tmp_path / "teacher.pt", (0.0, 255.0))
    (export_onnx if name.endswith(".onnx") else save_plain)(net, tmp_path / name)
    for teacher in (network, read_teacher(tmp_path / "teacher.pt"), tmp_path / "teacher.pt"):
        assert check_certificate(teacher, tmp_path / name).guarantee == net.info.guarantee


def test_another_teacher_and_another_range(network: nn.Module, net: PlainNet, tmp_path: Path) -> None:
    other = EDSR(scale=2, blocks=1, channels=4).eval()
    save_plain(net, tmp_path / "plain.safetensors")
    with pytest.raises(CertificateError, match=r"^its certificate is for another teacher"):
        check_certificate(other, net)
    with pytest.raises(CertificateError, match=r"plain\.safetensors: its certificate is for another teacher"):
        check_certificate(other, tmp_path / "plain.safetensors")
    with pytest.raises(CertificateError, match="another --input-range"):
        check_certificate(network, net, input_range=(0.0, 1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guarantee": "exact for the moon"}, "says its guarantee is 'exact for the moon', and it is 'exact for"),
        ({"scale": 3}, "says its scale is '3', and it is '2'"),
        ({"image_skip": "bicubic"}, "says its image skip is 'bicubic', and it is ''"),
        ({"carry": "by hand"}, "says its carry is 'by hand', and it is 'auto'"),
    ],
)
def test_what_a_network_says_of_itself_must_be_true(
    change: dict[str, object], message: str, network: nn.Module, net: PlainNet
) -> None:
    net.info = PlainInfo(**{**net.info.__dict__, **change})
    with pytest.raises(CertificateError, match=message):
        check_certificate(network, net)


def test_changed_weights_and_no_certificate(network: nn.Module, net: PlainNet) -> None:
    certificate = net.certificate
    assert certificate is not None
    net.certificate = None
    with pytest.raises(CertificateError, match="has no certificate"):
        check_certificate(network, net)
    with torch.no_grad():
        net[1].weight[0, 0, 0, 0] += 0.5
    net.certificate = replace(certificate, plain_sha256=net.sha256())
    with pytest.raises(CertificateError):
        check_certificate(network, net)


def test_what_is_no_plain_network(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.onnx: cannot be read"):
        check_certificate(network, tmp_path / "nowhere.onnx")


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.register_forward_hook(lambda module, x, y: y / 2),
        lambda net: net[0].register_forward_pre_hook(lambda module, x: (x[0] / 2,)),
        lambda net: setattr(net[0], "forward", lambda x: x),
        lambda net: setattr(net[0], "dilation", (2, 2)),
        lambda net: setattr(net[1], "padding_mode", "reflect"),
        lambda net: setattr(net, "__class__", type("Mine", (PlainNet,), {"forward": lambda self, x: x})),
    ],
)
def test_a_module_that_does_something_else_than_its_numbers(
    network: nn.Module, net: PlainNet, change: Callable[[PlainNet], object]
) -> None:
    change(net)
    with pytest.raises(CertificateError, match="has been changed since it was made"):
        check_certificate(network, net)
