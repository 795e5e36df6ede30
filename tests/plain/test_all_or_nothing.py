"""Files of plain networks appear whole, with all that belongs to them, or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from helpers.plain_files import tiny

from memsr_compiler.errors import ExportError
from memsr_compiler.files import atomic_write
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain import write as export
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture(scope="module")
def plain() -> PlainNet:
    torch.manual_seed(3)
    return compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("moves", [0, 1, 2])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_all_files_appear_or_none(
    failure: BaseException,
    moves: int,
    before: bool,
    plain: PlainNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "_INLINE_BYTES", 0)
    if before:
        for name in ("net.onnx", "net.onnx.data", "net.cert.json"):
            (tmp_path / name).write_text(f"old {name}")
    was, real, done = contents(tmp_path), os.replace, 0

    def replace_some(source: Path, target: Path) -> None:
        nonlocal done
        done += 1
        if done == moves + 1:
            raise failure
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_some)
    with pytest.raises((ExportError, KeyboardInterrupt)) as caught:
        export_onnx(plain, tmp_path / "net.onnx")
    if isinstance(failure, OSError):
        assert "No space left on device). Free some space" in str(caught.value)
    assert contents(tmp_path) == was


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    for name, message in (
        ("file/net.onnx", "A part of the path is a file"),
        ("nowhere/net.onnx", "Create the folder first"),
        ("folder.onnx", "is a directory"),
        ("pipe.onnx", "device or a pipe"),
        ("x" * 300 + ".onnx", "shorter name"),
    ):
        with pytest.raises(ExportError, match=message) as caught:
            export_onnx(tiny(), tmp_path / name)
        assert "\n" not in str(caught.value)
        with pytest.raises(ExportError, match=message), atomic_write(tmp_path / name):
            pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.onnx", "pipe.onnx"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX can")
@pytest.mark.parametrize("inline", [True, False])
def test_a_disk_that_fills_up_leaves_nothing(
    inline: bool, plain: PlainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(export, "_INLINE_BYTES", export._INLINE_BYTES if inline else 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ExportError, match="cannot be written"):
            export_onnx(plain, tmp_path / "net.onnx")
        with pytest.raises(ExportError, match="cannot be written"):
            save_plain(plain, tmp_path / "net.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
