"""The networks whose published checkpoints are recognised by their keys, one file each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
from memsr_compiler.teachers.families.base import Family

__all__ = ["FAMILIES", "Family", "find_family", "recognise"]

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


def recognise(shapes: Mapping[str, torch.Size]) -> list[tuple[Family, dict[str, object]]]:
    """Every family that a state dict of these shapes could belong to, with its hyper-parameters."""
    guesses = ((family, family.infer(shapes)) for family in FAMILIES)
    return [(family, hyper) for family, hyper in guesses if hyper is not None]
