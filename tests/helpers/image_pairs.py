"""Two small photographs as the benchmarks' folders have them."""

from __future__ import annotations

from pathlib import Path

from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.images.resize import resize


def write_pairs(folder: Path) -> None:
    """HR/0.png and 1.png, 60x48, and LR/0x2.png and 1x2.png."""
    for name in ("HR", "LR"):
        (folder / name).mkdir(parents=True)
    for i, image in enumerate(sample_photographs()[:2]):
        high = image[:48, :60]
        write_image(folder / "HR" / f"{i}.png", high)
        write_image(folder / "LR" / f"{i}x2.png", resize(high, 1 / 2))
