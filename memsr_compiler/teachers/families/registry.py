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
    ecbsr,
    edsr,
    etds,
    fsrcnn,
    idn,
    imdn,
    latticenet,
    msrresnet,
    rdn,
    rfdn,
    rrdb,
    srcnn,
    srresnet,
    swinir,
    vdsr,
)
from memsr_compiler.teachers.families.base import Dialect, Family, Range, Unsaid

__all__ = ["FAMILIES", "Dialect", "Family", "Match", "find_family", "recognise"]

FAMILIES: tuple[Family, ...] = (
    edsr.FAMILY,
    vdsr.FAMILY,
    vdsr.COLOUR,
    imdn.FAMILY,
    imdn.BASELINE,
    rfdn.FAMILY,
    latticenet.FAMILY,
    swinir.FAMILY,
    rdn.FAMILY,
    rrdb.FAMILY,
    carn.FAMILY,
    srresnet.FAMILY,
    msrresnet.FAMILY,
    msrresnet.SEQUENCE,
    fsrcnn.FAMILY,
    srcnn.FAMILY,
    idn.FAMILY,
    compact.FAMILY,
    ecbsr.FAMILY,
    etds.FAMILY,
    etds.PLAIN,
    etds.ANCHOR,
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
    def unsaid(self) -> Unsaid:
        """The arguments that leave no trace in its weights, see `Family`."""
        own = None if self.dialect is None else self.dialect.unsaid
        return self.family.unsaid if own is None else own

    @property
    def habits(self) -> tuple[str, ...]:
        """Other facts that its weights do not say, see `Family`."""
        own = None if self.dialect is None else self.dialect.habits
        return self.family.habits if own is None else own

    @property
    def range_if(self) -> str:
        """The argument on which it hangs whether its weights show the range of pixels, see `Dialect`."""
        return "" if self.dialect is None else self.dialect.range_if

    @property
    def known_range(self) -> Range | None:
        """The range of pixels that the code with these key names takes, see `Dialect`."""
        return None if self.dialect is None else self.dialect.known_range


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
