"""memsrc inspect: what it says of networks that cannot be converted."""

from __future__ import annotations

from pathlib import Path

from helpers.command_line import Run
from helpers.teachers import write_teacher


def test_inspect_says_why_not(run: Run, tmp_path: Path) -> None:
    from memsr_compiler.teachers.families.registry import find_family

    imdn = find_family("imdn").build(scale=2, blocks=1, channels=16)
    write_teacher(imdn, tmp_path / "imdn.pt")
    status, out, _ = run("inspect", tmp_path / "imdn.pt")
    assert status == 0 and "Not convertible: IMDB1.cca" in out
    assert "convert --approximate, which puts numbers in place of IMDB1.cca.gate, and" in out and "memsrc shrink" in out
