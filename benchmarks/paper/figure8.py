"""MemSR's Figure 8, at x4: crops of photographs as EDSR-baseline, RFDN, IMDN and students that ship do them."""

from __future__ import annotations

from collections.abc import Iterator

from memsr_compiler.models.catalogue import list_models
from paper.crops import System, make_crops
from paper.quality import load_trained
from paper.rivals import RIVALS
from paper.settings import Settings
from paper.table import Table

SCALE = 4


def make(settings: Settings) -> Iterator[Table]:
    """Figure 8, after each of its systems."""
    shipped = (model.name for model in list_models() if model.scale == SCALE and not model.int8)
    systems = {}
    for name in (*(rival.name for rival in RIVALS), *shipped):
        trained = load_trained(name, SCALE, settings)
        if trained is not None:
            systems[name] = System(trained[0], trained[1])
    return make_crops(8, SCALE, systems, settings)
