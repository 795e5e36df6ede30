"""Batches, and the name of the run, which all workers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput

Batch = Mapping[str, NDArray[Any]]

RUN = "memsr_compiler.distributed"  # all workers in a folder are of one run, whichever cluster they are on


def column(batch: Batch, name: str) -> NDArray[Any]:
    """A column of a batch.  Raises InvalidInput where there is none of this name."""
    if name not in batch:
        raise InvalidInput(f"the batch has columns {', '.join(batch) or 'none'}; want {name!r}")
    return batch[name]
