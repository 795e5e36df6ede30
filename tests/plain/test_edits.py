"""Files of plain networks that somebody has edited, hashes and all: refused, by what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from helpers.plain_files import (
    export_beside,
    export_external,
    export_with_certificate,
    reseal,
    same,
    save,
    uncertified,
)

from memsr_compiler.errors import CertificateError, ExportError, InvalidInput, MemsrError
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.manifest import Manifest
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.read import build_header, is_plain
from memsr_compiler.plain.stored import describe
from memsr_compiler.plain.write import save_plain
from memsr_compiler.teachers.families.edsr import EDSR


def _weights(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = b"\0\0\0\0" + tensor.raw_data[4:]


def _operator(model: Any) -> None:
    next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Abs"


def _attribute(model: Any) -> None:
    node = next(n for n in model.graph.node if n.op_type == "DepthToSpace")
    next(a for a in node.attribute if a.name == "mode").s = b"DCR"


def _order(model: Any) -> None:
    model.graph.initializer[0].name, model.graph.initializer[2].name = "layers.1.weight", "layers.0.weight"


def _extra_node(model: Any) -> None:
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["upscaled"]))


def _extra_tensor(model: Any) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(torch.zeros(3).numpy(), "payload"))


def _two_kinds_of_data(model: Any) -> None:
    model.graph.initializer[0].float_data.append(1.0)


def _doc(model: Any) -> None:
    model.doc_string = "values 0 to 255"


def _opset(model: Any) -> None:
    model.opset_import[0].version = 12


def _no_opset(model: Any) -> None:
    del model.opset_import[:]


def _second_entry(model: Any) -> None:
    model.metadata_props.insert(0, onnx.StringStringEntryProto(key="guarantee", value="none"))


def _scale(model: Any) -> None:
    next(e for e in model.metadata_props if e.key == "scale").value = "3"


def _layer_sizes(model: Any) -> None:
    entry = next(e for e in model.metadata_props if e.key == "layers")
    entry.value = entry.value.replace("[8,1,3,3]", "[8,1,30001,30001]")


def _outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret"), ("offset", "0"), ("length", "144")):
        tensor.external_data.add(key=key, value=value)


EDITS = [
    _weights, _operator, _attribute, _order, _extra_node, _extra_tensor, _two_kinds_of_data, _doc, _opset,
    _no_opset, _second_entry, _scale, _layer_sizes, _outside,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_model_is_refused(edit: Callable[[Any], None], net: PlainNet, tmp_path: Path) -> None:
    path = export_with_certificate(net, tmp_path)
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    assert is_plain(path)
    with pytest.raises(InvalidInput, match=r"was changed or damaged after it was written.*convert the teacher again"):
        load_plain(path)
    path.write_bytes(reseal(path.read_bytes()))
    with pytest.raises(InvalidInput) as caught:
        load_plain(path)
    assert "SHA-256 differs. Get the file" not in str(caught.value) or edit is _weights


def test_saving_a_model_again_with_onnx_changes_nothing(net: PlainNet, tmp_path: Path) -> None:
    path = export_with_certificate(net, tmp_path)
    onnx.save(onnx.load(path), path)
    assert same(load_plain(path), net)


def test_the_certificate_beside_must_be_there_and_be_this_ones(net: PlainNet, tmp_path: Path) -> None:
    path, proof = export_beside(net, tmp_path), tmp_path / "net.cert.json"
    torch.manual_seed(9)
    other = compile_to_plain(EDSR(scale=2, blocks=1, channels=4, colours=1, tail="conv").eval(), align=4)
    save_plain(other, tmp_path / "other.safetensors")
    text = proof.read_text()
    proof.unlink()
    with pytest.raises(CertificateError, match=r"net\.cert\.json, is missing.*Copy it along"):
        load_plain(path)
    bare = load_plain(path, require_certificate=False)
    assert bare.certificate is None
    assert bare.sha256() == net.sha256()
    assert other.certificate is not None
    for wrong in (other.certificate.to_json(), "", "{}", text + " "):
        proof.write_text(wrong)
        for required in (True, False):
            with pytest.raises(CertificateError):
                load_plain(path, require_certificate=required)
    proof.write_bytes(b"\xff\xfe")
    with pytest.raises(CertificateError):
        load_plain(path)


def test_renamed_files_are_read(net: PlainNet, tmp_path: Path) -> None:
    path = export_beside(net, tmp_path)
    path.rename(tmp_path / "b.onnx")
    (tmp_path / "net.cert.json").rename(tmp_path / "b.cert.json")
    assert same(load_plain(tmp_path / "b.onnx"), net)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A .safetensors file with another header, its own hash made to fit."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stated = header["__metadata__"].get("header_sha256", "x").encode()
    zeros = text.replace(stated, b"0" * 64)
    text = text.replace(stated, hashlib.sha256(zeros).hexdigest().encode())
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def _set(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["__metadata__"].update({key: value})


LAYERS = '[{"weight":[4,1,3,3],"relu":true,"shuffle":1}]'
HEADERS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (lambda h: h["__metadata__"].pop("plain_sha256"), "metadata are damaged"),
    (lambda h: h["__metadata__"].pop("certificate"), "certificate"),
    (lambda h: h["__metadata__"].pop("header_sha256"), "header"),
    (lambda h: h.pop("layers.0.bias"), "header was changed"),
    (lambda h: h.update(payload=h["layers.0.bias"]), "header was changed"),
    (lambda h: h["layers.0.bias"].update(dtype="F16"), "header was changed"),
    (lambda h: h["layers.0.bias"].update(shape=[1 << 40]), "header was changed"),
    (
        _set("memsr_format", "memsr plain network 9"),
        "only 'memsr plain network 1' and 'memsr plain network 2' are read",
    ),
    (_set("layers", LAYERS), "metadata are not as they were written|enlarges"),
    (_set("layers", LAYERS.replace("4", "-4")), "."),
    (_set("layers", "[" * 100_000), "metadata are damaged"),
    (_set("layers", "[1]"), "metadata are damaged"),
    (_set("dtype", "int8"), "metadata are damaged"),
    (_set("scale", "3"), "enlarges 2 times, its info says 3"),
    (_set("scale", "02"), "metadata are not as they were written"),
    (_set("input_range", "1.0 0.0"), "input range"),
    (_set("image_skip", "area"), "image skip"),
    (_set("levels", "two"), "metadata are damaged"),
    (_set("levels", "1 2 3 4 5 6 7 8 9"), "layers, which stand for levels 1, 2, "),
    (_set("levels", "0"), "layers, which stand for levels 0 of its teacher"),
    (_set("plain_sha256", "0" * 63 + "1"), "another network|metadata name"),
    (_set("teacher_sha256", "0" * 63 + "1"), "another network"),
    (_set("sha256.layers.1.weight", "1" * 64), r"layers\.1\.weight: is not as it was written"),
    (_set("surprise", "x"), "metadata are not as they were written"),
    (_set("scale", 2), "header was changed"),
]


@pytest.mark.parametrize("case", range(len(HEADERS)))
def test_an_edited_header_is_refused(case: int, net: PlainNet, tmp_path: Path) -> None:
    change, message = HEADERS[case]
    path = save(net, tmp_path)
    rewritten(path, lambda header: None)
    assert same(load_plain(path), net)
    rewritten(path, change)
    with pytest.raises(MemsrError, match=message):
        load_plain(path)


def test_sizes_are_checked_before_memory_is_taken(net: PlainNet, tmp_path: Path) -> None:
    """A header that is right in itself and declares terabytes."""
    manifest, _, _ = describe(uncertified(net), "float32", certificate_inside=True)
    huge = tuple(replace(layer, weight=(*layer.weight[:2], 1 << 20 | 1, 1 << 20 | 1)) for layer in manifest.layers)
    (tmp_path / "net.safetensors").write_bytes(build_header(replace(manifest, layers=huge)) + bytes(100))
    with pytest.raises(InvalidInput, match="100 bytes of weights where"):
        load_plain(tmp_path / "net.safetensors")


def test_names_of_tensors_are_put_together_once(net: PlainNet) -> None:
    """They are asked for at each tensor: of thousands of layers that took longer than all else."""
    manifest, _, _ = describe(uncertified(net), "float32", certificate_inside=True)
    assert manifest.shapes is manifest.shapes
    other = replace(manifest, layers=manifest.layers[:1])
    assert list(other.shapes) == ["layers.0.weight", "layers.0.bias"]


def test_weights_that_are_no_numbers_are_refused(
    net: PlainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = uncertified(net)
    with torch.no_grad():
        net[1].weight[0, 0, 0, 0] = float("nan")
    with monkeypatch.context() as patched:  # our own writer would not
        patched.setattr(torch, "isfinite", torch.ones_like)
        save_plain(net, tmp_path / "net.safetensors")
    with pytest.raises(InvalidInput, match=r"layers\.1\.weight: holds NaN"):
        load_plain(tmp_path / "net.safetensors")


def test_layers_must_fit_each_other(net: PlainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = uncertified(net)
    first, second = net[0], net[1]
    weight = torch.cat([second.weight, second.weight], dim=1).detach()
    net.layers[1] = PlainLayer(weight, second.bias.detach(), relu=second.relu)
    with pytest.raises(
        ExportError, match=rf"layers\.1: takes {weight.shape[1]} channels, is given {len(first.weight)}"
    ):
        save_plain(net, tmp_path / "net.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "check", lambda self: None)
        save_plain(net, tmp_path / "net.safetensors")
    with pytest.raises(InvalidInput, match=r"layers\.1: takes"):
        load_plain(tmp_path / "net.safetensors")


def test_external_weights_travel_with_their_model(net: PlainNet, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    path = export_external(net, tmp_path / "here")
    for name in os.listdir(path.parent):
        shutil.move(path.parent / name, tmp_path / "there" / name)
    assert same(load_plain(tmp_path / "there" / "net.onnx"), net)
