"""TFLite files of plain networks, read as teachers: the same network, its range and its image outside."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
import torch
from helpers.plain_nets import build, draw_image, plain_nets
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler.lowering.compile import Report, compile_to_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.teachers.load import read_teacher

pytest.importorskip("tflite")


@settings(max_examples=40)
@given(plain_nets(prelu=True), st.integers(1, 9), st.integers(1, 9))
def test_what_is_written_is_read(net: PlainNet, height: int, width: int) -> None:
    with TemporaryDirectory() as folder:
        export_tflite(net, Path(folder) / "net.tflite")
        teacher = read_teacher(Path(folder) / "net.tflite")
    assert teacher.input_range == net.info.input_range and not teacher.assumed
    x = draw_image(net, height, width).double()
    expected = copy.deepcopy(net).double()(x).detach()
    assert torch.allclose(teacher.module(x), expected, rtol=0, atol=1e-12 * (1 + float(expected.abs().max())))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_repeated_image_stays_outside(dtype: Literal["float32", "float16"], tmp_path: Path) -> None:
    net = build([8, 8], [3, 3, 3], image_skip="nearest")
    export_tflite(net, tmp_path / "net.tflite", dtype=dtype)
    teacher = read_teacher(tmp_path / "net.tflite")
    plain = compile_to_plain(teacher, image_skip="outside")
    assert plain.info.image_skip == "nearest" and len(plain.layers) == len(net.layers)
    x = draw_image(net, 6, 5)
    tolerance = 1e-5 if dtype == "float32" else 5e-3
    assert torch.allclose(plain(x), net(x), rtol=0, atol=tolerance)
    assert isinstance(plain.report, Report) and plain.report.reader == "tflite"
