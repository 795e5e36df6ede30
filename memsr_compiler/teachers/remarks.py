"""Remarks of a file on its network, beside the weights: sizes and constants that training code stored with them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from memsr_compiler.teachers.teacher import Range

_DEPTH = 4  # of mappings in mappings: {"opt": {"network_g": {"res_scale": 0.1}}}
_MOST = 10_000  # entries of a mapping that are looked at
_LONGEST = 100_000  # characters of text that are parsed
_LARGEST = 1e6  # no constant of a network is larger
_FAMILY = "memsr_family"
_PAIR = re.compile(r"[\[(]?\s*([^\s,\[(]+)(?:\s*,\s*|\s+)([^\s,\])]+)\s*[\])]?")
_OTHERS = re.compile(
    r"(?i)(^|_)(teacher|d|disc|discriminator|loss|losses|criterion|perceptual|vgg|gan|scaler|mixed_?precision|optimi[sz]ers?"
    r"|schedulers?)(_|$)"
)
"""Names of what training code notes on others than the network that enlarges: {"network_d": {...}}."""

_ALIASES = {  # BasicSR's words
    "rgb_range": ("rgb_range", "img_range"),  # of values inside the network, whose input is 0..1 whatever it is
    "mean": ("rgb_mean",),  # what is called a mean may be anything's
    "eps": ("bn_eps", "norm_eps"),  # and an eps is Adam's
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remarks:
    """Facts on a network that its file states.

    values       by the names of arguments: {"res_scale": 0.1}
    input_range  of its values; None: not stated
    rgb_range    the same as EDSR's authors state it; what others call so may be a constant inside the network
    family       of which the network is, in which case the file is ours and states all that its weights do not
    instead      what the file says it is, if it is a plain network that is not its own teacher, or not always
    """

    values: Mapping[str, object] = field(default_factory=dict)
    input_range: Range | None = None
    rgb_range: Range | None = None
    family: str = ""
    instead: str = ""

    def arguments(self, names: Mapping[str, tuple[object, ...]]) -> dict[str, object]:
        """The values that are stated for these arguments, where they are of the kind of the usual ones."""
        words = {name: (name,) if self.family else _ALIASES.get(name, (name,)) for name in names}
        stated = {
            name: next((self.values[word] for word in known if word in self.values), None)
            for name, known in words.items()
        }
        return {name: _like(value, names[name][0]) for name, value in stated.items() if _fits(value, names[name][0])}


def read_remarks(loaded: object, prefix: str = "") -> Remarks:
    """The remarks in what a checkpoint or a file's metadata hold, under whatever keys.

    prefix   what the keys of the network's weights begin with: other networks beside it say nothing of it

    What is stated twice and differently is not stated.
    """
    values: dict[str, object] = {}
    contradicted: set[str] = set()
    for name, value in _pairs(_without_others(loaded, prefix), _DEPTH):
        if name in values and _differ(values[name], value):
            contradicted.add(name)
        values[name] = value
    values = {name: value for name, value in values.items() if name not in contradicted}
    input_range, rgb_range = (_range(values.get(name)) for name in ("input_range", "rgb_range"))
    if "input_range" in values and input_range is None:
        log.warning("its input_range, %.60s, is no range of two rising numbers, and passed over", values["input_range"])
    return Remarks(values, input_range, rgb_range, str(values.get(_FAMILY, "")))


def attach_remarks(state: Mapping[str, Tensor], family: str, hyper: Mapping[str, object], input_range: Range) -> None:
    """Note in a module's state dict what its weights do not say, in the metadata that torch keeps with it.

    Such a state dict still loads into its module as any other.
    """
    metadata = getattr(state, "_metadata", None)
    assert metadata is not None, "the state dict of a module has metadata"
    metadata[""] = {**metadata.get("", {}), _FAMILY: family, "hyper": dict(hyper), "input_range": tuple(input_range)}


def _pairs(content: object, depth: int, seen: set[int] | None = None) -> Iterator[tuple[str, object]]:
    """Names and plain values, outer ones first; of a mapping that is there several times once."""
    seen = set() if seen is None else seen
    if isinstance(content, nn.Module) or depth == 0 or id(content) in seen:
        return
    seen.add(id(content))
    inner: list[object] = [getattr(content, "_metadata", None)] if isinstance(content, Mapping) else []
    entries = content if isinstance(content, Mapping) else getattr(content, "__dict__", {})  # argparse's Namespace
    for number, (key, value) in enumerate(entries.items()):
        if number >= _MOST:
            return
        if isinstance(value, str):
            value = _parse(value)
        if isinstance(value, Tensor) or not isinstance(key, str):
            continue
        if isinstance(value, (bool, int, float, str, list, tuple)):
            yield key, value
        elif value is not None and not _OTHERS.search(key):
            inner.append(value)
    for part in inner:
        yield from _pairs(part, depth - 1, seen)


def _without_others(content: object, prefix: str) -> object:
    """The content of a checkpoint without the networks beside the one that is meant."""
    name, _, rest = prefix.partition(".")
    if not isinstance(content, Mapping) or name not in content:
        return content
    others = {key for key, value in content.items() if key != name and _holds_weights(value, _DEPTH)}
    kept = {key: value for key, value in content.items() if key not in others}
    return {**kept, name: _without_others(content[name], rest)}


def _holds_weights(content: object, depth: int, seen: set[int] | None = None) -> bool:
    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or not depth or id(content) in seen:
        return isinstance(content, Tensor)
    seen.add(id(content))
    return any(_holds_weights(value, depth - 1, seen) for value in content.values())


def _differ(one: object, other: object) -> bool:
    try:
        return bool(one != other)
    except (RuntimeError, ValueError, RecursionError):  # of lists of tensors, or of lists in themselves
        return True


def _parse(text: str) -> object:
    """Value of text, as metadata that hold nothing but text have it; the text itself if it is no JSON."""
    try:
        return json.loads(text) if len(text) <= _LONGEST else text
    except (ValueError, RecursionError):
        return text


def _fits(value: object, usual: object) -> bool:
    """Whether a value is of the kind of the usual one; a whole number is a number too, a list as good as a tuple."""
    if isinstance(usual, tuple):
        if not isinstance(value, (list, tuple)) or len(value) != len(usual):
            return False
        return all(_fits(one, its) for one, its in zip(value, usual, strict=True))
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
    return type(value) is type(usual) and (not isinstance(value, int) or abs(value) < _LARGEST)


def _like(value: object, usual: object) -> object:
    return tuple(value) if isinstance(usual, tuple) and isinstance(value, list) else value


def _range(value: object) -> Range | None:
    """(0, 255) for 255, as EDSR's `rgb_range` says it; for a pair the pair, be it text, "(0, 255)" or "0 255"."""
    if _fits(value, 0.0) and value in (1, 255):
        return (0.0, 255.0 if value == 255 else 1.0)
    if isinstance(value, str) and (pair := _PAIR.fullmatch(value)):
        value = tuple(map(_parse, pair.groups()))
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(_fits(v, 0.0) for v in value):
        low, high = map(float, value)
        return (low, high) if low < high else None
    return None
