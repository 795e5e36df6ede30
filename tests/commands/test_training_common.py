"""What is checked before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from memsr_compiler.commands.training_common import CONFIG, TrainingOptions, check
from memsr_compiler.errors import InvalidInput
from memsr_compiler.training.loop import Recipe


def test_only_the_first_process_looks_whether_the_place_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may be late, and find what the first one has written."""
    options = TrainingOptions(tmp_path, tmp_path / "run", None, None, 48, 0, {}, None, {})
    options.out.mkdir()
    (options.out / CONFIG).write_text("steps: 4\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    check(options, Recipe(steps=4, batch=2))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InvalidInput, match=r"holds config\.yaml already"):
        check(options, Recipe(steps=4, batch=2))
