"""The settings that every table and figure is made with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST_SEED = 233
"""MemSR's seeds are 233 to 236."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a table is made with.

    pair     of `pairs.PAIRS`: the teacher, and how wide its student is
    models   a folder with trained weights of others; None: what ships
    data     a folder with photographs to train on; None: those that ship
    tests    a folder with Set5/x2/HR, Set5/x2/LR, Set14/...; None: no test sets, the photographs that ship alone
    runs     where runs are kept, and go on;   out   where tables and pictures are written
    device   "cpu" or "cuda"
    steps, batch, patch   of each run;   seeds   how many runs a row has
    rows     the rows whose runs are trained, or whose networks are measured, by name; none: all
    size     width and height of the image that networks make, where they are counted and measured
    done     whether only runs that are done count, and nothing is trained
    smoke    whether only to show that all works: tiny networks with random weights
    """

    pair: str
    models: Path | None
    data: Path | None
    tests: Path | None
    runs: Path
    out: Path
    device: str
    steps: int
    batch: int
    patch: int
    seeds: int
    rows: tuple[str, ...]
    done: bool
    smoke: bool
    size: tuple[int, int] = (1920, 1080)

    @property
    def all_seeds(self) -> range:
        """The seeds themselves."""
        return range(FIRST_SEED, FIRST_SEED + self.seeds)
