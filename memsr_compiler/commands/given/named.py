"""Networks that ship, by name wherever a command takes a network's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from memsr_compiler.models.catalogue import find_file

Network = TypeVar("Network", str, Path)


def find_network(value: Network) -> Network:
    """The file of a network, by its name or as it is.  Raises InvalidInput for what is like a name and none."""
    return type(value)(find_file(str(value)))


def find_networks(values: Sequence[Network]) -> list[Network]:
    """The same for several."""
    return [find_network(value) for value in values]
