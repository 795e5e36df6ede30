"""The certificate as a file: written and read again, and what is no certificate refused."""

from __future__ import annotations

import random

import pytest
from helpers.converted import NETWORKS, converted, small_edsr

from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import CertificateError
from memsr_compiler.proof.certificate import Certificate, numbers, runs
from memsr_compiler.proof.checker import check


@pytest.mark.parametrize("carry", ["auto", "split", "shift"])
def test_json_and_back(carry: Carrying) -> None:
    for seed in NETWORKS[:30]:
        c = converted(seed, carry)
        assert Certificate.from_json(c.certificate.to_json()) == c.certificate
        assert c.certificate.teacher_sha256 == c.graph.sha256()
        assert bool(c.certificate.shifts) == any(
            m.kind == "shifted" for s in c.certificate.stages for v in s.levels for m in v
        )


def test_runs_and_numbers() -> None:
    for values in ((), (0,), (3, 4, 5, 9), (5, 4, 3), (-1, -1, 0, 1), (-1, 0), (7, 7)):
        assert numbers(runs(values)) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a certificate"),
        ("[]", "not a certificate"),
        ("{}", "not a certificate"),
        ("null", "not a certificate"),
        ('{"format": "other"}', "this is a 'other'"),
        ("[" * 100_000, "not a certificate"),
        ('{"format": "memsr certificate 1", "stages": [{"base": Infinity, "levels": []}]}', "not a certificate"),
    ],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(text)


def test_a_damaged_file_is_refused_or_says_what_is_true() -> None:
    """One character changed, 1,500 times: never another exception, never a false claim that goes through."""
    c = small_edsr()
    text = c.certificate.to_json()
    rng = random.Random(0)
    accepted = 0
    for _ in range(1500):
        at = rng.randrange(text.index('"input_range"'), len(text))
        damaged = text[:at] + rng.choice('0123456789,[]{}"-aevn') + text[at + 1 :]
        try:
            certificate = Certificate.from_json(damaged)
            check(c.graph, c.layers, certificate)
        except CertificateError:
            continue
        accepted += 1
        assert c.true(c.layers, certificate)
    assert accepted < 300  # digits replaced by themselves
