"""A network whose weights lie in another file is another one when these change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import onnx
from helpers.onnx_files import model, node, saved, small, whole

from memsr_compiler.trace.onnx.digest import network_digest


def write_beside(folder: Path, data: str = "network.onnx.data", seed: int = 0) -> Path:
    """An ONNX network as torch's exporter writes it: its weights in a file of their own."""
    network = model([node("Conv", "x w", "y", pads=[1, 1, 1, 1])], {"w": whole(3, 3, 3, 3, seed=seed)})
    path = folder / "network.onnx"
    (folder / data).parent.mkdir(exist_ok=True, parents=True)
    onnx.save(network, path, save_as_external_data=True, location=data, size_threshold=0)
    return path


def test_weights_beside_a_model_count(tmp_path: Path) -> None:
    for data in ("network.onnx.data", "weights/all.bin"):
        path = write_beside(tmp_path, data)
        model_alone, first = path.read_bytes(), network_digest(path)
        assert first == network_digest(path) != hashlib.sha256(model_alone).hexdigest()
        (tmp_path / data).unlink()  # or onnx appends to it
        write_beside(tmp_path, data, seed=1)
        assert path.read_bytes() == model_alone and network_digest(path) != first


def test_tensors_inside_nodes_and_branches_count(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], b"0000", raw=True)
    onnx.external_data_helper.set_external_data(tensor, "w.bin")
    tensor.ClearField("raw_data")
    branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "branch", [], [])
    network = model([onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)])
    path, digests = saved(network, tmp_path), set()
    for value in (b"0000", b"1111"):
        (tmp_path / "w.bin").write_bytes(value)
        digests.add(network_digest(path))
    assert len(digests) == 2


def test_a_network_in_one_file_is_known_by_that_file(tmp_path: Path) -> None:
    path = saved(small(), tmp_path)
    assert network_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_cannot_be_read_is_known_by_its_own_file(tmp_path: Path) -> None:
    path = write_beside(tmp_path)
    os.replace(tmp_path / "network.onnx.data", tmp_path / "gone")
    for content in (
        path.read_bytes(),
        b"location, but no model",
        path.read_bytes().replace(b"location", b"locat\xffon"),
    ):
        path.write_bytes(content)
        assert network_digest(path) == hashlib.sha256(content).hexdigest()
    path.write_bytes(content.replace(b"network.onnx.data", b"../../../../etc/a"))
    assert network_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
