"""Damage to files of plain networks, random and of every kind: none goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import pytest
import torch
from helpers.plain_files import (
    export_beside,
    export_external,
    export_half,
    export_with_certificate,
    reseal,
    same,
    save,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memsr_compiler.errors import CertificateError, InvalidInput
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet

MUTATIONS = 600


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


ARTEFACTS: dict[str, tuple[Callable[[PlainNet, Path], Path], str]] = {
    "safetensors": (save, "net.safetensors"),
    "onnx, certificate inside": (export_with_certificate, "net.onnx"),
    "onnx of onnx and certificate": (export_beside, "net.onnx"),
    "certificate of onnx and certificate": (export_beside, "net.cert.json"),
    "float16 onnx": (export_half, "net.onnx"),
    "onnx of external weights": (export_external, "net.onnx"),
    "data of external weights": (export_external, "net.onnx.data"),
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


def test_no_damage_to_a_graph_goes_unnoticed_even_if_the_hash_is_made_to_fit(net: PlainNet, tmp_path: Path) -> None:
    path = export_with_certificate(net, tmp_path)
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
        mutant = reseal(mutation.of(healthy[:graph_ends]) + healthy[graph_ends:])
        path.write_bytes(mutant)
        try:
            read = load_plain(path)
        except (InvalidInput, CertificateError):
            return
        assert same(read, good)
        if mutant != healthy:
            assert torch.equal(computed(path), output)

    try_one()
