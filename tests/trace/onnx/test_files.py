"""ONNX files that cannot be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_files import agrees, model, node, quick, refuses, saved, small, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.trace.onnx.reader import load_onnx
from memsr_compiler.trace.onnx.tensors import read_initialisers


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text file\n" * 9, b"\x80\x02}q\x00.", b"\x08\x08", b"<html></html>"]
)
def test_other_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    refuses(path, "is ", error=InvalidInput)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    content = small().SerializeToString()
    path = tmp_path / "network.onnx"
    for name in (b"/body/C\xff\xffv", b"/body/\nonv"):
        path.write_bytes(content.replace(b"/body/Conv", name))
        refuses(path, "has a name that is no text", error=InvalidInput)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    refuses(tmp_path / "none.onnx", "cannot be read", error=InvalidInput)
    refuses(tmp_path, "is a directory", error=InvalidInput)


@given(st.data())
@settings(quick, max_examples=150)
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small().SerializeToString())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "network.onnx"
    path.write_bytes(bytes(content))
    try:
        load_onnx(path)
    except MemsrError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    bad = whole(2, 3, 3, 3)
    bad[0, 0, 0, 0] = value
    path = saved(model([node("Conv", "x w", "y", pads=[1, 1, 1, 1])], {"w": bad}), tmp_path)
    refuses(path, "initialiser 'w' has 1 NaN or infinite", error=InvalidInput)
    constant = node("Constant", "", "c", value=numpy_helper.from_array(bad[0]))
    nodes = [constant, node("Reshape", "c v", "w"), node("Conv", "x w", "y", pads=[1, 1, 1, 1])]
    refuses(saved(model(nodes, {"v": np.array([1, 3, 3, 3])}), tmp_path), "its kernel has NaN", error=InvalidInput)


@pytest.mark.parametrize(
    ("dims", "reason"),
    [
        ([2**20, 2**20], "declares 1,099,511,627,776 values, and 54 are there"),
        ([-1], "impossible shape"),
        ([53], "54"),
    ],
)
def test_declared_sizes_are_checked_before_memory_is_taken(dims: list[int], reason: str, tmp_path: Path) -> None:
    proto = small()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    refuses(saved(proto, tmp_path), "initialiser 'w'", reason, error=InvalidInput)


def test_other_types_of_weights_are_refused(tmp_path: Path) -> None:
    proto = small()
    proto.graph.initializer[0].data_type = TensorProto.BFLOAT16
    refuses(saved(proto, tmp_path), "initialiser 'w' is BFLOAT16", "float32")


def external(folder: Path, **entries: str) -> Path:
    """The small network, its kernel in another file."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = small()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return saved(proto, folder)


def test_external_data_beside_the_network_are_read(tmp_path: Path) -> None:
    kernel = small().graph.initializer[0].raw_data
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "weights.bin").write_bytes(b"\0" * 16 + kernel)
    path = external(tmp_path / "in", location="weights.bin", offset="16", length=str(len(kernel)))
    read = load_onnx(path)
    x = torch.from_numpy(whole(1, 3, 5, 6)).double()
    assert torch.equal(read(x), load_onnx(saved(small(), tmp_path))(x))


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "a/../../secret.bin",
        "..\\secret.bin",
        "/etc/hostname",
        "C:\\secret.bin",
        "",
        "link.bin",
        "folder/secret.bin",
    ],
)
def test_external_data_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(small().graph.initializer[0].raw_data)
    path = external(tmp_path / "in", location=location)
    os.symlink(tmp_path / "secret.bin", tmp_path / "in" / "link.bin")
    os.symlink(tmp_path, tmp_path / "in" / "folder")
    refuses(path, "initialiser 'w': its data are said to be in", "folder", error=InvalidInput)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "none.bin"}, "there is no such file"),
        ({"location": "."}, "there is no such file"),
        ({"location": "data.bin", "offset": "1"}, "wants 216 bytes at 1 of data.bin, which has 216"),
        ({"location": "data.bin", "offset": "-8"}, "wants 216 bytes at -8"),
        ({"location": "data.bin", "length": "99"}, "says 99"),
        ({"location": "data.bin", "offset": "many"}, "is not a number"),
    ],
)
def test_external_data_that_do_not_fit_are_refused(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(small().graph.initializer[0].raw_data)
    refuses(external(tmp_path, **entries), reason, error=InvalidInput)


@pytest.mark.parametrize("times", [3, 64])
def test_external_data_that_many_tensors_share(times: int, tmp_path: Path) -> None:
    """A file of kilobytes would be held in gigabytes; a recursive network shares as well, and is read."""
    (tmp_path / "data.bin").write_bytes(small().graph.initializer[0].raw_data)
    path = external(tmp_path, location="data.bin")
    proto = onnx.load(path, load_external_data=False)
    for i in range(times):
        proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
        proto.graph.initializer[-1].name = f"w{i}"
    path.write_bytes(proto.SerializeToString())
    if times == 64:
        refuses(path, "initialiser 'w63' shares its numbers with too many others", error=InvalidInput)
        return
    x = torch.from_numpy(whole(1, 3, 5, 6)).double()
    assert torch.equal(load_onnx(path)(x), load_onnx(saved(small(), tmp_path))(x))
    held = list(read_initialisers(onnx, proto.graph.initializer, tmp_path).values())[-times:]
    assert all(np.shares_memory(one, held[0]) for one in held)


def test_external_data_whose_place_is_told_twice_are_refused(tmp_path: Path) -> None:
    """ONNX Runtime refuses a place that is told twice, or takes the other one."""
    path = external(tmp_path, location="weights.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="offset", value="16")
    model.graph.initializer[0].external_data.add(key="offset", value="32")
    path.write_bytes(model.SerializeToString())
    refuses(path, "the place of its data is told twice", error=InvalidInput)


def test_attributes_of_a_function_outside_of_one_are_refused(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node[0].attribute[0].ref_attr_name = "pads"
    with pytest.raises(InvalidInput, match="is that of a function, and it is in none"):
        load_onnx(saved(proto, tmp_path))


def test_an_output_without_a_shape_is_read(tmp_path: Path) -> None:
    """As editors of graphs leave it; the engine infers it."""
    proto = small()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    agrees(saved(proto, tmp_path))
