"""The folder of a run: what is checked before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from memsr_compiler.commands.output import Talk
from memsr_compiler.commands.run_folder import CONFIG, hold_run
from memsr_compiler.commands.training_options import TrainingOptions
from memsr_compiler.errors import InvalidInput
from memsr_compiler.training.recipe import Recipe


def test_only_the_first_process_looks_whether_the_place_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may be late, and find what the first one has written."""
    options = TrainingOptions(data=tmp_path, out=tmp_path / "run")
    options.out.mkdir()
    (options.out / CONFIG).write_text("steps: 4\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with hold_run(options, Recipe(steps=4, batch=2), {}, Talk()) as resume:
        assert resume is None
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(InvalidInput, match=r"holds config\.yaml already"),
        hold_run(options, Recipe(steps=4, batch=2), {}, Talk()),
    ):
        raise AssertionError("the place was not free")
