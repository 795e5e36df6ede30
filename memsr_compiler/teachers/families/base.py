"""A teacher family, and the few words that the families' files share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

Range: TypeAlias = tuple[float, float]
Shapes: TypeAlias = Mapping[str, torch.Size]
Infer: TypeAlias = Callable[[Shapes], "dict[str, object] | None"]
Rename: TypeAlias = Callable[[Iterable[str]], "dict[str, str]"]
Unsaid: TypeAlias = Mapping[str, "tuple[object, ...]"]
Value = TypeVar("Value")
_LEAST_MEAN = 0.01  # of values of 0..1: no photographs are as dark on average


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Key names under which others distribute weights of a family.

    name         whose names they are
    infer        as `Family.infer`, of a state dict with these names
    translate    the weights under the family's own names, from a state dict that `infer` took and the arguments of the
                 network that they are for
    unsaid       in the place of `Family.unsaid`; None: that
    habits       in the place of `Family.habits`; None: that
    own          arguments that `translate` takes and the network does not
    held         arguments whose values the weights hold: those that the network was built with are none
    range_if     the argument that has to be true for what `Family.read_range` reads to count; "": it always does
    known_range  lowest and highest pixel value that the code with these names takes; None: as the family's weights show
    """

    name: str
    infer: Infer
    translate: Callable[[Mapping[str, Tensor], Mapping[str, object]], dict[str, Tensor]]
    unsaid: Unsaid | None = None
    habits: tuple[str, ...] | None = None
    own: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    range_if: str = ""
    known_range: Range | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A published architecture, with the key names under which trained weights of it are distributed.

    name         what `--arch` takes
    build        makes the network, freshly initialised, from keyword hyper-parameters
    infer        reads those hyper-parameters off the shapes in a state dict; None if it is another network.
                 What leaves no trace in shapes (the stride of a transposed convolution) is left out of the
                 answer
    source       the paper
    input_range  lowest and highest pixel value that the authors' weights expect
    description  one sentence for a list of families
    unsaid       arguments of `build` that leave no trace in weights, each with the values that published networks have,
                 the usual one first
    habits       what else the weights do not say and no argument changes: "slope 0.05 below zero"
    activation   what comes between its convolutions where the weights do not show that, in words: "ReLU"
    read_range   reads the input range off the weights; None where they do not show it
    only_named   whether only `--arch` chooses it: the keys could be any stack's
    dialects     other key names of the same network
    """

    name: str
    build: Callable[..., nn.Module]
    infer: Infer
    source: str
    input_range: Range = (0.0, 1.0)
    description: str = ""
    unsaid: Unsaid = field(default_factory=dict)
    habits: tuple[str, ...] = ()
    activation: str = ""
    read_range: Callable[[Mapping[str, Tensor]], Range | None] = lambda state: None
    only_named: bool = False
    dialects: tuple[Dialect, ...] = ()


def leaving_open(name: str, infer: Infer, unsaid: Unsaid) -> Dialect:
    """Make the dialect that has the family's key names for networks of which these do not show everything."""

    def translate(state: Mapping[str, Tensor], hyper: Mapping[str, object]) -> dict[str, Tensor]:
        return dict(state)

    return Dialect(name=name, infer=infer, translate=translate, unsaid=unsaid)


def renaming(name: str, rename: Rename, infer: Infer, *, unsaid: Unsaid | None = None) -> Dialect:
    """Make the dialect that differs in its key names alone.

    rename  those keys that the family calls otherwise -> its own names; {} for a state dict of something else
    infer   the family's own
    """

    def infer_renamed(shapes: Shapes) -> dict[str, object] | None:
        names = rename(shapes)
        return infer(rename_keys(shapes, names)) if names else None

    def translate(state: Mapping[str, Tensor], hyper: Mapping[str, object]) -> dict[str, Tensor]:
        return rename_keys(state, rename(state))

    return Dialect(name=name, infer=infer_renamed, translate=translate, unsaid=unsaid)


def rename_keys(state: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """The same values under new keys.  A key that would take another's place gets a name that no network has."""
    renamed: dict[str, Value] = {}
    for key, value in state.items():
        new = names.get(key, key)
        renamed[f"{key} (as {new})" if new in renamed else new] = value
    return renamed


def by_patterns(patterns: Mapping[str, str]) -> Rename:
    """Rename keys by the first of some regular expressions that matches the whole of them."""
    compiled = [(re.compile(pattern), new) for pattern, new in patterns.items()]

    def rename(keys: Iterable[str]) -> dict[str, str]:
        names = {}
        for key in keys:
            match, new = next(((m, n) for p, n in compiled if (m := p.fullmatch(key))), (None, ""))
            if match is not None:
                names[key] = match.expand(new)
        return names

    return rename


def number_layers(keys: Iterable[str]) -> list[int]:
    """The numbers of the layers with weights in a sequence called `model`."""
    found = (re.fullmatch(r"model\.(\d{1,3})\.weight", key) for key in keys)
    return sorted(int(match[1]) for match in found if match is not None)


def conv(inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps height and width: stride 1, zero padding kernel // 2, kernel odd."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


def has_kernels(shapes: Mapping[str, torch.Size], *keys: str) -> bool:
    """Whether every key is there and holds a kernel (C_out, C_in / groups, k, k) that is not empty."""
    return all(len(shapes.get(key, ())) == 4 and min(shapes[key]) > 0 for key in keys)


def count_keys(shapes: Mapping[str, torch.Size], template: str, first: int = 0) -> int:
    """Number of template.format(first), .format(first + 1), ... that are keys, up to the first that is not."""
    return next(index for index in count(first) if template.format(index) not in shapes) - first


def range_of_mean_shift(state: Mapping[str, Tensor], name: str) -> Range | None:
    """Input range that the first mean shift shows: means of 0..1 are below 1, those of 0..255 about 100.

    name   of the 1x1 convolution; None where there is none, it mixes colours, or shifts by nothing
    """
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    if weight is None or bias is None or not bias.numel():
        return None
    gain = weight[:, :, 0, 0].diagonal()
    if not torch.equal(torch.diag(gain), weight[:, :, 0, 0]) or not bool(gain.all()):
        return None
    mean = float((bias / gain).abs().max())
    if mean < _LEAST_MEAN:
        return None
    return (0.0, 255.0) if mean > 1 else (0.0, 1.0)
