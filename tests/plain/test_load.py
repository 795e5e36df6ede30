"""Plain networks there and back: all of what was written is read, whatever the file is called."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import safetensors.torch
import torch
from helpers.plain_files import (
    same,
    teacher,
    uncertified,
)

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain import write as export
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.read import is_plain
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.proof.checker import check
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import load_teacher
from memsr_compiler.trace.trace import trace


@pytest.mark.parametrize("tail", ["fold", "keep"])
def test_safetensors_there_and_back(tail: Any, tmp_path: Path) -> None:
    torch.manual_seed(8)
    net = compile_to_plain(EDSR(scale=2, blocks=1, channels=4).eval(), tail=tail)
    save_plain(net, tmp_path / "net.safetensors")
    read = load_plain(tmp_path / "net.safetensors")
    assert same(read, net)
    assert read.report is None
    assert not read.training
    image = torch.rand(2, 3, 5, 6)
    with torch.no_grad():
        assert torch.equal(read(image), net(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_safetensors_of_every_dtype(dtype: torch.dtype, net: PlainNet, tmp_path: Path) -> None:
    student = uncertified(net).to(dtype)
    save_plain(student, tmp_path / "net.safetensors")
    assert same(load_plain(tmp_path / "net.safetensors"), student)


def test_the_safetensors_library_reads_it(net: PlainNet, tmp_path: Path) -> None:
    save_plain(net, tmp_path / "net.safetensors")
    assert {**safetensors.torch.load_file(tmp_path / "net.safetensors")}.keys() == net.state_dict().keys()
    for key, value in safetensors.torch.load_file(tmp_path / "net.safetensors").items():
        assert torch.equal(value, net.state_dict()[key])
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert file.metadata()["memsr_format"] == "memsr plain network 1"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("certificate", ["beside", "inside"])
@pytest.mark.parametrize("inline", [True, False])
def test_onnx_there_and_back(
    dtype: Any, certificate: Any, inline: bool, net: PlainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not inline:
        monkeypatch.setattr(export, "_INLINE_BYTES", 0)
    report = export_onnx(net, tmp_path / "net.onnx", dtype=dtype, certificate=certificate)
    read = load_plain(tmp_path / "net.onnx")
    assert read.info == net.info
    assert read.sha256() == report.plain_sha256
    assert read.certificate is not None
    check(trace(teacher()).graph, read.checkable(), read.certificate)


def test_a_file_is_what_it_holds(net: PlainNet, tmp_path: Path) -> None:
    save_plain(net, tmp_path / "net.onnx")
    assert same(load_plain(tmp_path / "net.onnx"), net)
    export_onnx(net, tmp_path / "other.onnx", certificate="inside")
    (tmp_path / "other.onnx").rename(tmp_path / "net.safetensors")
    assert same(load_plain(tmp_path / "net.safetensors"), net)


def test_without_a_certificate(net: PlainNet, tmp_path: Path) -> None:
    student = PlainNet(list(net), net.info)
    save_plain(student, tmp_path / "net.safetensors")
    export_onnx(student, tmp_path / "net.onnx")
    assert sorted(os.listdir(tmp_path)) == ["net.onnx", "net.safetensors"]
    for name in os.listdir(tmp_path):
        assert load_plain(tmp_path / name).certificate is None


def test_a_saved_network_is_saved_again(net: PlainNet, tmp_path: Path) -> None:
    save_plain(net, tmp_path / "a.safetensors")
    save_plain(load_plain(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    export_onnx(load_plain(tmp_path / "a.safetensors"), tmp_path / "c.onnx", certificate="inside")
    assert same(load_plain(tmp_path / "c.onnx"), net)


def test_what_cannot_be_saved(net: PlainNet, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="bfloat16 are not stored"):
        save_plain(uncertified(net).to(torch.bfloat16), tmp_path / "net.safetensors")
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed[1].bias[0] += 1
    with pytest.raises(ExportError, match="not of these weights"):
        save_plain(changed, tmp_path / "net.safetensors")
    changed.certificate = None
    with torch.no_grad():
        changed[1].bias[0] = float("inf")
    with pytest.raises(ExportError, match=r"layers\.1\.bias: holds NaN or infinite"):
        save_plain(changed, tmp_path / "net.safetensors")
    assert os.listdir(tmp_path) == []


# -- is_plain ----------------------------------------------------------------------------------------------


def test_is_plain(net: PlainNet, tmp_path: Path) -> None:
    save_plain(net, tmp_path / "net.safetensors")
    export_onnx(net, tmp_path / "net.onnx")
    assert is_plain(tmp_path / "net.safetensors")
    assert is_plain(tmp_path / "net.onnx")
    assert is_plain(str(tmp_path / "net.onnx"))
    safetensors.torch.save_file(dict(teacher().state_dict()), tmp_path / "teacher.safetensors")
    torch.save(teacher().state_dict(), tmp_path / "teacher.pt")
    bare = onnx.load(tmp_path / "net.onnx")
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in (
        "teacher.safetensors",
        "teacher.pt",
        "bare.onnx",
        "empty",
        "pipe",
        "nowhere",
        "net.cert.json",
        ".",
    ):
        assert not is_plain(tmp_path / name)
        with pytest.raises(InvalidInput) as caught:
            load_plain(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="plain network, not a teacher"):
        load_teacher(tmp_path / "net.safetensors")
