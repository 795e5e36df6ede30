"""Settings for the paper's tables under which all is tiny, as --smoke has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paper.settings import Settings


def smoke_settings(folder: Path, **changes: Any) -> Settings:
    """Settings of two steps, with runs and pages in a folder; others where they are named."""
    values: dict[str, Any] = {
        "pair": "small",
        "models": None,
        "data": None,
        "tests": None,
        "runs": folder / "runs",
        "out": folder / "pages",
        "device": "cpu",
        "steps": 2,
        "batch": 2,
        "patch": 16,
        "seeds": 1,
        "rows": (),
        "done": False,
        "smoke": True,
    }
    return Settings(**{**values, **changes})
