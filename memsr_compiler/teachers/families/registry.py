"""The networks whose published checkpoints are recognised by their keys, one file each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families import (
    carn,
    compact,
    dncnn,
    edsr,
    fsrcnn,
    idn,
    imdn,
    rdn,
    rfdn,
    rrdb,
    srresnet,
    vdsr,
)
from memsr_compiler.teachers.families.base import Dialect, Family

__all__ = ["FAMILIES", "Dialect", "Family", "Match", "find_family", "recognise"]

FAMILIES: tuple[Family, ...] = (
    edsr.FAMILY,
    vdsr.FAMILY,
    imdn.FAMILY,
    imdn.BASELINE,
    rfdn.FAMILY,
    rdn.FAMILY,
    rrdb.FAMILY,
    carn.FAMILY,
    srresnet.FAMILY,
    fsrcnn.FAMILY,
    idn.FAMILY,
    compact.FAMILY,
    dncnn.FAMILY,
)
"""Every family, in the order in which they are tried; no state dict belongs to two of them."""


def find_family(name: str, *, also: Iterable[str] = ()) -> Family:
    """The family that `--arch` calls by this name; InvalidInput lists the names there are, `also` first."""
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join([*also, *(family.name for family in FAMILIES)])
    raise InvalidInput(f"--arch {name}: no such family. Known: {known}; or give --arch package.module:factory.")


@dataclass(frozen=True)
class Match:
    """A family that a state dict could belong to, with its arguments, and whose key names it has; None: its own."""

    family: Family
    hyper: dict[str, object]
    dialect: Dialect | None = None

    @property
    def unsaid(self) -> Mapping[str, tuple[object, ...]]:
        """The arguments that leave no trace in its weights, see `Family`."""
        return (self.dialect or self.family).unsaid

    @property
    def habits(self) -> tuple[str, ...]:
        """What else its weights do not say, see `Family`."""
        return (self.dialect or self.family).habits


def recognise(shapes: Mapping[str, torch.Size], only: Family | None = None) -> list[Match]:
    """Every family that a state dict of these shapes could belong to.

    only   the one family that is asked for; without it those that want to be named are left out
    """
    families = [family for family in FAMILIES if not family.only_named] if only is None else [only]
    matches = []
    for family in families:
        for dialect in (None, *family.dialects):
            hyper = (dialect or family).infer(shapes)
            if hyper is not None:
                matches.append(Match(family, hyper, dialect))
                break
    return matches
