"""The hash that ends a file of ours, ONNX or TFLite: whoever opens a damaged one is told, as a teacher too."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from helpers.command_line import Run, must_refuse
from helpers.plain_files import teacher
from onnx import numpy_helper

from memsr_compiler.errors import InvalidInput
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain import seal
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.read import is_quantized
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.quantization.quantize import cost_of_quantized, quantize
from memsr_compiler.quantization.tflite import export_integers
from memsr_compiler.runtime.litert import LiteRTNetwork, read_metadata
from memsr_compiler.runtime.one_size import open_onnx, open_tflite
from memsr_compiler.runtime.open import NetworkFile, open_model, open_runner
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.tflite.file import read_network

DAMAGED = "was changed or damaged after it was written"
OLD = "an earlier version wrote it without a hash"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return export_onnx(compile_to_plain(teacher()), tmp_path / "plain.onnx").path


@pytest.fixture
def integers(plain: Path) -> Path:
    torch.manual_seed(3)
    quantize(plain, plain.with_name("int8.onnx"), [torch.rand(1, 1, 12, 12)], takes=Takes(2, 1))
    return plain.with_name("int8.onnx")


def change_weight(path: Path) -> None:
    """Flip a bit of the first stored number."""
    first = onnx.load(path).graph.initializer[0]
    content = path.read_bytes()
    at = content.index(first.raw_data) if first.raw_data else content.index(numpy_helper.to_array(first).tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def forget_what_it_is(path: Path) -> None:
    """A wrong weight, and one wrong letter in the entry by which files of ours are known."""
    change_weight(path)
    content = path.read_bytes()
    for key in (b"memsr_format", b"memsr_quantized"):
        content = content.replace(key, b"M" + key[1:])
    path.write_bytes(content)


def save_without_seal(path: Path, version: str) -> None:
    """The file as earlier versions wrote it."""
    model = onnx.load(path)
    model.doc_string = ""
    entries = {entry.key: entry.value for entry in model.metadata_props} | {"memsr_quantized": version}
    del model.metadata_props[:]
    for key in entries.keys() - {"file_sha256"}:
        model.metadata_props.add(key=key, value=entries[key])
    onnx.save(model, path)


@pytest.mark.parametrize("damage", [change_weight, forget_what_it_is])
def test_a_damaged_plain_network_is_neither_run_nor_a_teacher(plain: Path, damage: Callable[[Path], None]) -> None:
    damage(plain)
    for opened in (OrtNetwork, open_onnx, read_teacher, lambda p: open_runner(NetworkFile(p)), _quantize):
        with pytest.raises(InvalidInput, match=DAMAGED) as told:
            opened(plain)
        assert str(told.value).count(str(plain)) == 1


def _quantize(path: Path) -> None:
    quantize(path, path.with_name("out.onnx"), [torch.rand(1, 1, 12, 12)], takes=Takes(2, 1))


@pytest.mark.parametrize("damage", [change_weight, forget_what_it_is])
def test_a_damaged_network_in_8_bits_is_opened_by_nothing(integers: Path, damage: Callable[[Path], None]) -> None:
    damage(integers)
    for opened in (OrtNetwork, cost_of_quantized, read_teacher, lambda p: open_model(NetworkFile(p))):
        with pytest.raises(InvalidInput, match=f"{DAMAGED}.*quantize again"):
            opened(integers)


@pytest.mark.parametrize("command", ["eval", "bench", "upscale", "quantize", "convert", "similarity"])
def test_commands_refuse_it(integers: Path, plain: Path, run: Run, tmp_path: Path, command: str) -> None:
    change_weight(integers)
    out = tmp_path / "out.onnx"
    words = {
        "eval": (integers,),
        "bench": (integers,),
        "upscale": (plain, tmp_path / "out.png", "--model", integers, "--tile", "off"),
        "quantize": (integers, "--out", out),
        "convert": (integers, "--out", out),
        "similarity": (plain, integers),
    }[command]
    must_refuse(run, tmp_path, (command, *words), str(integers), DAMAGED)


def test_the_seal_ends_what_any_reader_takes(integers: Path) -> None:
    content = integers.read_bytes()
    model = onnx.load(integers)
    onnx.checker.check_model(model)
    assert model.metadata_props[-1].key == "file_sha256"
    assert content.endswith(model.metadata_props[-1].value.encode())
    assert seal.is_sealed(io.BytesIO(content)) and not seal.is_sealed(io.BytesIO(content[:-1] + b"g"))
    assert not seal.is_sealed(io.BytesIO(b""))


def test_a_network_in_8_bits_of_an_earlier_version_is_read_and_told(integers: Path) -> None:
    assert OrtNetwork(integers).note == ""
    image = torch.full((1, 1, 6, 7), 0.5)
    before = OrtNetwork(integers)(image)
    save_without_seal(integers, "memsr quantized network 1")
    network = OrtNetwork(integers)
    assert is_quantized(integers) and network.note.count(OLD) == 1
    assert torch.equal(network(image), before)
    assert cost_of_quantized(integers) is None  # of which nothing was given


def test_it_is_told_once(integers: Path, run: Run) -> None:
    save_without_seal(integers, "memsr quantized network 1")
    status, _, err = run("eval", integers)
    assert status == 0 and err.count(OLD) == 1, err


def test_the_seal_is_not_lost_by_another_version(integers: Path) -> None:
    save_without_seal(integers, "memsr quantized network 2")
    with pytest.raises(InvalidInput, match=DAMAGED):
        OrtNetwork(integers)


def test_files_of_others_are_not_asked_for_a_seal(plain: Path) -> None:
    model = onnx.load(plain)
    del model.metadata_props[:]
    onnx.save(model, plain)
    assert OrtNetwork(plain).note == ""
    model.producer_name = "others"
    model.metadata_props.add(key="file_sha256", value="0" * 64)  # a word that anybody may use
    onnx.save(model, plain)
    assert OrtNetwork(plain).note == ""


# -- TFLite


@pytest.fixture
def tflite(integers: Path) -> Path:
    """The network in 8 bits for phones."""
    pytest.importorskip("tflite")
    export_integers(integers, integers.with_name("int8.tflite"))
    return integers.with_name("int8.tflite")


@pytest.fixture
def float_tflite(plain: Path) -> Path:
    pytest.importorskip("tflite")
    export_tflite(load_plain(plain), plain.with_name("float.tflite"))
    return plain.with_name("float.tflite")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_damaged_tflite_file_is_neither_run_nor_a_teacher(tflite: Path, float_tflite: Path, part: float) -> None:
    for path in (tflite, float_tflite):
        flip(path, int(part * path.stat().st_size))
        for opened in (LiteRTNetwork, open_tflite, read_metadata, read_teacher, lambda p: open_runner(NetworkFile(p))):
            with pytest.raises(InvalidInput, match=f"{DAMAGED}.*export or quantize again") as told:
                opened(path)
            assert str(told.value).count(str(path)) == 1


@pytest.mark.parametrize("command", ["eval", "bench", "upscale", "convert"])
def test_commands_refuse_a_damaged_tflite_file(
    tflite: Path, float_tflite: Path, run: Run, tmp_path: Path, command: str
) -> None:
    for path in (tflite, float_tflite):
        flip(path, path.stat().st_size // 2)
        words = {
            "eval": (path,),
            "bench": (path,),
            "upscale": (path, tmp_path / "out.png", "--model", path, "--tile", "off"),
            "convert": (path, "--out", tmp_path / "out.onnx"),
        }[command]
        must_refuse(run, tmp_path, (command, *words), str(path), DAMAGED)


def test_the_seal_ends_a_tflite_file(tflite: Path, float_tflite: Path) -> None:
    for path in (tflite, float_tflite):
        content = path.read_bytes()
        metadata = read_network(content).metadata
        assert content.endswith(metadata["file_sha256"])
        assert metadata["file_sha256"].decode() == hashlib.sha256(content[:-64]).hexdigest()
        assert "file_sha256" not in read_metadata(path)


def test_any_sign_left_of_whose_it_is_wants_the_seal(tflite: Path, float_tflite: Path) -> None:
    signs = {b"ends with its SHA-256", b"memsr_quantized", b"memsr_tflite", b"file_sha256"}
    for path in (tflite, float_tflite):
        content = path.read_bytes()
        own = [sign for sign in signs if sign in content]
        assert len(own) == 3
        for left in own:
            damaged = content
            for sign in set(own) - {left}:
                damaged = damaged.replace(sign, b"?" * len(sign))
            with pytest.raises(InvalidInput, match=DAMAGED):
                seal.require_tflite_seal(damaged)


def test_tflite_files_of_others_are_not_asked_for_a_seal() -> None:
    seal.require_tflite_seal(b"....TFL3 file_sha256 memory_compiler.plain")
    seal.require_tflite_seal(b"....TFL3 memsr_compiler.plain.network.PlainNet")  # names of a converter of modules


@pytest.mark.parametrize("piece", [30, 31, 64, 65, 1 << 20])
def test_what_a_file_says_is_found_across_pieces(integers: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "_PIECE", piece)
    content = integers.read_bytes()
    seal.require_seal(io.BytesIO(content))
    with pytest.raises(InvalidInput, match=DAMAGED):
        seal.require_seal(io.BytesIO(content + b"\0"))
    for words in ("memsr quantized network 2", "memsr_format", "memsr plain network 1"):
        for start in range(3, 40):
            with pytest.raises(InvalidInput, match=DAMAGED):
                seal.require_seal(io.BytesIO(bytes(start) + words.encode() + bytes(90)))
