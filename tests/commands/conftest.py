"""What tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The file of a small trained network."""
    torch.manual_seed(0)
    path = tmp_path / "teacher.pt"
    torch.save(EDSR(scale=2, blocks=1, channels=4).state_dict(), path)
    return path
