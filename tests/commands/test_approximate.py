"""Teachers that have no plain form, on the command line: students of them, and plain forms that say what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.command_line import Run, must_refuse
from helpers.html_outline import outline
from helpers.teachers import write_teacher
from helpers.training import forget_accelerator, write_photographs

from memsr_compiler import check_certificate, load_plain, read_teacher
from memsr_compiler.errors import CertificateError
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.teachers.families.latticenet import LatticeNet
from memsr_compiler.teachers.families.rfdn import RFDN
from memsr_compiler.teachers.families.swinir import SwinIR

GATES = ("IMDB1.cca.gate", "IMDB2.cca.gate")


@pytest.fixture
def imdn(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write_teacher(IMDN(scale=2, blocks=2, channels=16), tmp_path / "imdn.pt")


def test_convert_refuses_names_the_way_out_and_takes_it(
    run: Run, imdn: Path, photographs: Path, tmp_path: Path
) -> None:
    message = must_refuse(run, tmp_path, ("convert", imdn, "--no-probe"), "IMDB1.cca: mean: ", "--approximate")
    assert all(gate in message for gate in GATES)
    plain, page = tmp_path / "plain.onnx", tmp_path / "page.html"
    options = ("--approximate", "--calibration", photographs, "--out", plain, "--report", page)
    status, out, _ = run("convert", imdn, "--no-probe", *options)
    assert status == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert all(rows[gate][1] == "gate" and rows[gate][-1] == "dB" for gate in GATES)
    assert float(rows["all"][-2]) <= min(float(rows[gate][-2]) for gate in GATES) + 3
    assert "guarantee    an approximation: the teacher with 2 gates replaced" in out
    assert "this is not the teacher" in out and "Largest deviation from the frozen network" in out
    text = page.read_text("utf-8")
    outline(text)  # it is well formed
    assert "What was replaced" in text and all(gate in text for gate in GATES)
    assert "in the frozen network" in text


def test_verify_says_that_it_is_an_approximation(run: Run, imdn: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    run("convert", imdn, "--no-probe", "--approximate", "--out", plain)
    status, out, err = run("verify", imdn, "--no-probe", plain)
    assert status == 4 and "\nequivalent" not in out
    assert "is an approximation of the teacher, not its equivalent: 2 gates replaced" in err
    assert (
        "measured     frozen network: worst deviation" in out and "replaced     IMDB1.cca.gate, IMDB2.cca.gate" in out
    )
    status, out, _ = run("verify", imdn, "--no-probe", plain, "--json")
    data = json.loads(out)
    assert status == 4 and data["equivalent"] is False
    assert [r["name"] for r in data["approximation"]["replaced"]] == list(GATES)
    assert data["approximation"]["psnr"] > 20
    weights = torch.load(imdn, weights_only=True)
    weights["fea_conv.bias"][0] += 1e-3
    torch.save(weights, imdn)
    status, _, err = run("verify", imdn, "--no-probe", plain)
    assert status == 1 and "for another teacher" in err


def test_an_approximation_as_a_teacher_is_said_to_be_one(
    run: Run, imdn: Path, photographs: Path, tmp_path: Path
) -> None:
    """What is made of it is equivalent to it, and says of what: "exact for every image" alone would mislead."""
    plain, again = tmp_path / "plain.onnx", tmp_path / "again.onnx"
    run("convert", imdn, "--no-probe", "--approximate", "--calibration", photographs, "--out", plain)
    words = "assumed: that it is the teacher, though it is an approximation: the teacher with 2 gates replaced"
    for command in (("convert", plain, "--out", again), ("verify", plain, again), ("inspect", plain)):
        status, out, err = run(*command)
        assert status == 0 and words in " ".join((out + err).split())
    assert any("2 gates replaced" in assumed for assumed in load_plain(again).info.assumed)


def test_the_kind_of_a_replacement_is_the_teachers(run: Run, imdn: Path, photographs: Path, tmp_path: Path) -> None:
    """Any words stood there, which `verify` repeated."""
    plain = tmp_path / "plain.safetensors"
    run("convert", imdn, "--no-probe", "--approximate", "--calibration", photographs, "--out", plain)
    net = load_plain(plain)
    assert net.certificate is not None
    teacher, words = read_teacher(imdn, probe=False), r"replaced IMDB1.cca.gate \(gate\), IMDB2.cca.gate \(gate\)"
    for kind in ("nothing at all", "gelu", "\ud800"):
        replaced = tuple(replace(r, kind=kind) for r in net.certificate.approximation)
        net.certificate = replace(net.certificate, approximation=replaced)
        with pytest.raises(CertificateError, match=f"have to be {words}"):
            check_certificate(teacher, net)


def test_a_convertible_teacher_needs_no_approximation(run: Run, teacher: Path, tmp_path: Path) -> None:
    status, out, _ = run("convert", teacher, "--approximate", "--out", tmp_path / "plain.onnx")
    assert status == 0 and "nothing had to be replaced: this is the teacher" in out
    assert run("verify", teacher, tmp_path / "plain.onnx")[0] == 0


def test_shrink_takes_it_as_it_is(run: Run, imdn: Path, photographs: Path, tmp_path: Path) -> None:
    student, page = tmp_path / "student.onnx", tmp_path / "page.html"
    quick = ("--samples", "4", "--refit", "3", "--width", "16", "--calibration", photographs)
    status, out, _ = run("shrink", imdn, "--no-probe", *quick, "--out", student, "--report", page, "--json")
    data = json.loads(out)
    assert status == 0
    assert [r["name"] for r in data["approximation"]["replaced"]] == list(GATES)
    assert {"teacher", "frozen", "plain", "student"} <= set(data["psnr"])
    assert data["psnr"]["plain"] == data["psnr"]["frozen"] != data["psnr"]["teacher"]
    assert "What was replaced" in page.read_text("utf-8")
    net = load_plain(student, require_certificate=False)
    assert net.certificate is None and "student" in net.info.guarantee


def test_sweep_takes_it_too(run: Run, imdn: Path, photographs: Path) -> None:
    options = ("--width", "8,16", "--samples", "4", "--refit", "0", "--calibration", photographs)
    status, out, _ = run("sweep", imdn, "--no-probe", *options)
    assert status == 0 and "Replaced, since it has no plain form" in out
    assert all(f"width {width}" in out for width in (8, 16))


def test_rfdn_whose_attention_needs_fifteen_pixels(run: Run, photographs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rfdn = write_teacher(RFDN(scale=2, blocks=1, channels=12, kept=6, hidden=4), tmp_path / "rfdn.pt", (0.0, 255.0))
    plain = tmp_path / "plain.onnx"
    options = ("--approximate", "--calibration", photographs, "--out", plain)
    status, out, err = run("convert", rfdn, "--no-probe", *options)
    assert status == 0, err
    assert "B1.esa.gate" in out and "spatial gate" in out
    assert run("verify", rfdn, "--no-probe", plain)[0] == 4


@pytest.fixture
def lattice(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = LatticeNet(scale=2, blocks=1, channels=8, narrow=6, hidden=4)
    return write_teacher(network, tmp_path / "lattice.pt", (0.0, 255.0))


def test_latticenet_is_taken_with_its_coefficients_frozen(
    run: Run, lattice: Path, photographs: Path, tmp_path: Path
) -> None:
    message = must_refuse(run, tmp_path, ("convert", lattice), "body_unit1.fea_ca1: mean: ", "--approximate")
    assert "body_unit1.gate, body_unit1.gate:2" in message
    options = ("--calibration", photographs, "--samples", "4", "--refit", "0", "--width", "8")
    status, out, err = run("shrink", lattice, *options, "--out", tmp_path / "student.safetensors")
    assert status == 0, err
    assert all(f"body_unit1.gate{number}" in out for number in ("", ":2", ":3", ":4"))
    assert load_plain(tmp_path / "student.safetensors", require_certificate=False).info.scale == 2
    status, out, err = run(
        "convert", lattice, "--approximate", "--calibration", photographs, "--out", tmp_path / "plain.onnx"
    )
    assert status == 0 and "an approximation: the teacher with 4 gates replaced" in out, err


def test_swinir_has_no_gate_that_could_be_frozen(run: Run, photographs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = SwinIR(scale=2, blocks=1, layers=2, channels=12, heads=2, window=4)
    swinir = write_teacher(small, tmp_path / "swinir.pt")
    reason = "layers.0.residual_group.blocks.0.attn: matmul: it is a product of two feature maps, as in attention"
    calibration = ("--calibration", photographs)
    for command in (
        ("shrink", swinir, "--width", "8", *calibration),
        ("convert", swinir, "--approximate", *calibration),
    ):
        must_refuse(run, tmp_path, command, reason, "remove attention and retrain")
    status, out, _ = run("inspect", swinir)
    assert status == 0 and f"Not convertible: {reason}" in out


@pytest.mark.parametrize("options", [("--labels", "both"), ("--labels", "photographs", "--lambda", "0.3")])
def test_distill_learns_from_it_as_it_is(
    run: Run, imdn: Path, photographs: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")
    forget_accelerator()
    student, data = tmp_path / "student.safetensors", tmp_path / "data"
    data.mkdir()
    write_photographs(data)
    quick = ("--samples", "4", "--refit", "0", "--width", "8", "--calibration", photographs)
    assert run("shrink", imdn, "--no-probe", *quick, "--out", student)[0] == 0
    few = ("--steps", "4", "--batch", "2", "--patch", "16", "--every", "2", "--cache", tmp_path / "cache")
    command = ("distill", student, "--teacher", imdn, "--no-probe", "--data", data, "--val", data, *few, *options)
    status, out, err = run(*command, "--out", tmp_path / "run", "--json")
    assert status == 0, err
    assert "was derived from another network" not in err  # whatever it was frozen on
    assert {"teacher", "student before", "student after"} <= set(json.loads(out)["psnr"])
