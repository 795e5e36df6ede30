"""Plain networks read back: all of it, or an error; damage and edits of every kind are noticed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsr_compiler.errors import CertificateError, ExportError, InvalidInput, MemsrError
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain import write as export
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.manifest import Manifest
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.read import header, is_plain
from memsr_compiler.plain.stored import describe
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.proof.checker import check
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import load_teacher
from memsr_compiler.trace.trace import trace

MUTATIONS = 600


def teacher() -> EDSR:
    torch.manual_seed(7)
    return EDSR(scale=2, blocks=1, channels=4, colours=1, tail="conv").eval()


@pytest.fixture(scope="module")
def net() -> PlainNet:
    return compile_to_plain(teacher(), align=4)


def uncertified(net: PlainNet) -> PlainNet:
    """A copy that tests may change."""
    twin = copy.deepcopy(net)
    twin.certificate = None
    return twin


def same(left: PlainNet, right: PlainNet) -> bool:
    """Whether two networks compute the same and say the same about themselves."""
    said = (left.info, left.certificate) == (right.info, right.certificate)
    return said and left.sha256() == right.sha256() and left[0].weight.dtype == right[0].weight.dtype


# -- there and back ----------------------------------------------------------------------------------------


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
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
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


# -- damage ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """A change of a file's bytes; `at` and `length` are parts of the file's size."""

    kind: str
    at: float
    length: float
    bit: int

    def of(self, content: bytes) -> bytes:
        start = min(int(self.at * len(content)), len(content) - 1)
        end = min(len(content), start + 1 + int(self.length * 300))
        if self.kind == "flip":
            return content[:start] + bytes([content[start] ^ 1 << self.bit]) + content[start + 1 :]
        if self.kind == "truncate":
            return content[:start]
        if self.kind == "zero":
            return content[:start] + bytes(end - start) + content[end:]
        if self.kind == "repeat":
            return content[:end] + content[start:]
        if self.kind == "remove":
            return content[:start] + content[end:]
        return content + content[start:end]  # append


# Half of the places are among the last and first bytes, where headers and metadata are.
PLACES = st.one_of(st.floats(0, 1), st.floats(0, 0.1), st.floats(0.9, 1))
MUTANTS = st.builds(
    Mutation,
    st.sampled_from(["flip", "truncate", "zero", "repeat", "remove", "append"]),
    PLACES,
    st.floats(0, 1),
    st.integers(0, 7),
)


def _saved(net: PlainNet, folder: Path) -> Path:
    save_plain(net, folder / "net.safetensors")
    return folder / "net.safetensors"


def _inside(net: PlainNet, folder: Path) -> Path:
    return export_onnx(net, folder / "net.onnx", certificate="inside").path


def _beside(net: PlainNet, folder: Path) -> Path:
    return export_onnx(net, folder / "net.onnx").path


def _half(net: PlainNet, folder: Path) -> Path:
    return export_onnx(net, folder / "net.onnx", dtype="float16", certificate="inside").path


def _external(net: PlainNet, folder: Path) -> Path:
    before = export._INLINE_BYTES
    export._INLINE_BYTES = 0  # type: ignore[misc]
    try:
        return _beside(net, folder)
    finally:
        export._INLINE_BYTES = before  # type: ignore[misc]


ARTEFACTS: dict[str, tuple[Callable[[PlainNet, Path], Path], str]] = {
    "safetensors": (_saved, "net.safetensors"),
    "onnx, certificate inside": (_inside, "net.onnx"),
    "onnx of onnx and certificate": (_beside, "net.onnx"),
    "certificate of onnx and certificate": (_beside, "net.cert.json"),
    "float16 onnx": (_half, "net.onnx"),
    "onnx of external weights": (_external, "net.onnx"),
    "data of external weights": (_external, "net.onnx.data"),
}


def computed(path: Path) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = torch.linspace(0, 1, 35).reshape(1, 1, 5, 7)
    (result,) = session.run(None, {"image": image.numpy()})
    return torch.from_numpy(result)


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_no_damage_goes_unnoticed(artefact: str, net: PlainNet, tmp_path: Path) -> None:
    make, victim = ARTEFACTS[artefact]
    path = make(net, tmp_path)
    good, healthy = load_plain(path), (tmp_path / victim).read_bytes()
    noticed: list[str] = []

    @settings(
        max_examples=MUTATIONS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(MUTANTS)
    def try_one(mutation: Mutation) -> None:
        mutant = mutation.of(healthy)
        (tmp_path / victim).write_bytes(mutant)
        try:
            read = load_plain(path)
        except (InvalidInput, CertificateError) as error:
            message = str(error)
        else:
            # Read without complaint: then not a byte may differ, and nothing can.
            assert mutant == healthy
            assert same(read, good)
            return
        assert mutant != healthy
        assert str(path) in message
        assert "\n" not in message
        noticed.append(mutation.kind)

    try_one()
    assert len(noticed) > MUTATIONS / 2
    assert len(set(noticed)) == 6


def resealed(content: bytes) -> bytes:
    """With the hash that a file of this content has to end with: what a determined editor could do."""
    body = content[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def test_no_damage_to_a_graph_goes_unnoticed_even_if_the_hash_is_made_to_fit(net: PlainNet, tmp_path: Path) -> None:
    path = _inside(net, tmp_path)
    healthy = path.read_bytes()
    graph_ends = healthy.rindex(b"\x0a\x0cmemsr_format")  # words of the metadata that follow may be rewritten
    good, output = load_plain(path), computed(path)

    @settings(
        max_examples=MUTATIONS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(MUTANTS)
    def try_one(mutation: Mutation) -> None:
        mutant = resealed(mutation.of(healthy[:graph_ends]) + healthy[graph_ends:])
        path.write_bytes(mutant)
        try:
            read = load_plain(path)
        except (InvalidInput, CertificateError):
            return
        assert same(read, good)
        if mutant != healthy:
            assert torch.equal(computed(path), output)

    try_one()


# -- edits -------------------------------------------------------------------------------------------------


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
    path = _inside(net, tmp_path)
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    assert is_plain(path)
    with pytest.raises(InvalidInput, match=r"was changed or damaged after it was written.*convert the teacher again"):
        load_plain(path)
    path.write_bytes(resealed(path.read_bytes()))
    with pytest.raises(InvalidInput) as caught:
        load_plain(path)
    assert "SHA-256 differs. Get the file" not in str(caught.value) or edit is _weights


def test_saving_a_model_again_with_onnx_changes_nothing(net: PlainNet, tmp_path: Path) -> None:
    path = _inside(net, tmp_path)
    onnx.save(onnx.load(path), path)
    assert same(load_plain(path), net)


def test_the_certificate_beside_must_be_there_and_be_this_ones(net: PlainNet, tmp_path: Path) -> None:
    path, proof = _beside(net, tmp_path), tmp_path / "net.cert.json"
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
    path = _beside(net, tmp_path)
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
    (_set("memsr_format", "memsr plain network 9"), "only 'memsr plain network 1' is read"),
    (_set("layers", LAYERS), "metadata are not as they were written|enlarges"),
    (_set("layers", LAYERS.replace("4", "-4")), "."),
    (_set("layers", "[" * 100_000), "metadata are damaged"),
    (_set("layers", "[1]"), "metadata are damaged"),
    (_set("dtype", "int8"), "metadata are damaged"),
    (_set("scale", "3"), "enlarges 2 times, its info says 3"),
    (_set("scale", "02"), "metadata are not as they were written"),
    (_set("input_range", "1.0 0.0"), "input range"),
    (_set("image_skip", "area"), "image skip"),
    (_set("plain_sha256", "0" * 63 + "1"), "another network|metadata name"),
    (_set("teacher_sha256", "0" * 63 + "1"), "another network"),
    (_set("sha256.layers.1.weight", "1" * 64), r"layers\.1\.weight: is not as it was written"),
    (_set("surprise", "x"), "metadata are not as they were written"),
    (_set("scale", 2), "header was changed"),
]


@pytest.mark.parametrize("case", range(len(HEADERS)))
def test_an_edited_header_is_refused(case: int, net: PlainNet, tmp_path: Path) -> None:
    change, message = HEADERS[case]
    path = _saved(net, tmp_path)
    rewritten(path, lambda header: None)
    assert same(load_plain(path), net)
    rewritten(path, change)
    with pytest.raises(MemsrError, match=message):
        load_plain(path)


def test_sizes_are_checked_before_memory_is_taken(net: PlainNet, tmp_path: Path) -> None:
    """A header that is right in itself and declares terabytes."""
    manifest, _, _ = describe(uncertified(net), "float32", certificate_inside=True)
    huge = tuple(replace(layer, weight=(*layer.weight[:2], 1 << 20 | 1, 1 << 20 | 1)) for layer in manifest.layers)
    (tmp_path / "net.safetensors").write_bytes(header(replace(manifest, layers=huge)) + bytes(100))
    with pytest.raises(InvalidInput, match="100 bytes of weights where"):
        load_plain(tmp_path / "net.safetensors")


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
    path = _external(net, tmp_path / "here")
    for name in os.listdir(path.parent):
        shutil.move(path.parent / name, tmp_path / "there" / name)
    assert same(load_plain(tmp_path / "there" / "net.onnx"), net)
