"""Ways to read a file that does not say everything: what is assumed, and what of that a photograph bears out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NoReturn

from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family
from memsr_compiler.teachers.families.registry import Match
from memsr_compiler.teachers.probe import CLEAR, Choice, Network, Reading, choose
from memsr_compiler.teachers.remarks import Remarks
from memsr_compiler.teachers.state_dict import assemble, find_stated
from memsr_compiler.teachers.teacher import Range, Teacher, assume_range
from memsr_compiler.teachers.wrappers import StateDict
from memsr_compiler.torch_helpers import compiling_nothing, one_thread, prepare
from memsr_compiler.trace.kept.held_values import leaving_nothing

RANGES: tuple[Range, ...] = ((0.0, 1.0), (0.0, 255.0))
PADDING, NO_CLAMP = "zero padding", "no clamp at the end"  # of all families, and nothing of it is in weights
UNCLEAR = {
    "none": "does not restore a photograph, however it is read",
    "several": "restores a photograph about as well in several ways",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """Values for what a file does not say: arguments of its family, and the input range.

    words   what of it is assumed: {"res_scale": "res_scale 0.1", "input_range": "input values 0 to 255"}
    """

    arguments: Mapping[str, object]
    input_range: Range
    words: Mapping[str, str]

    def departs(self, usual: Variant) -> dict[str, str]:
        """Words on what is not as in the usual one."""
        return {name: words for name, words in self.words.items() if words != usual.words.get(name)}


@dataclass(frozen=True)
class Readings:
    """Ways to read a file.

    variants   the usual one first
    read       makes the teacher of one
    habits     what is assumed in all of them
    uncertain  whether a photograph could show that none is right: something that matters to all pixels is assumed, or
               the word of training code's notes is taken for it
    ways_out   options with which a person would say what is not known for certain
    """

    variants: tuple[Variant, ...]
    read: Callable[[Variant], Teacher]
    habits: tuple[str, ...] = ()
    uncertain: bool = True
    ways_out: tuple[str, ...] = ()

    def teacher(self, variant: Variant) -> Teacher:
        """The teacher of a variant, with all that is assumed."""
        return replace(self.read(variant), assumed=(*variant.words.values(), *self.habits))


def read_module(network: nn.Module, hyper: Mapping[str, object], remarks: Remarks, told: Range | None) -> Readings:
    """Ways to read a network whose own code or graph is known: the input range alone may be open.

    told   the range, by the user
    """
    known = told or remarks.input_range
    variants = tuple(_variant({}, r, ranged=known is None) for r in ([known] if known else RANGES))

    def read(variant: Variant) -> Teacher:
        return Teacher(module=network, input_range=variant.input_range, hyper=hyper, stated_range=remarks.input_range)

    habits = (f"that it is the teacher, though it is {remarks.instead}",) if remarks.instead else ()
    return Readings(variants, read, habits, uncertain=known is None)


def read_family(
    state: StateDict, only: Family | None, options: Mapping[str, object], remarks: Remarks, told: Range | None
) -> Readings:
    """Ways to read weights of a known family.  Raises InvalidInput as `assemble` does.

    only     the family, if it was named;   told   the input range, if it was
    options  arguments that were
    """
    usual = assemble(state, only, options, remarks)
    match, family = usual.match, usual.match.family
    ours = remarks.family == family.name  # which states all that is not usual
    noted = find_stated(remarks, match)
    said = {**noted, **options}
    open_arguments = {name: values for name, values in match.unsaid.items() if name not in said and not ours}
    shown = family.read_range(usual.module.state_dict())
    stated = match.known_range or remarks.input_range or shown
    if shown and stated and shown != stated == remarks.input_range and told is None:
        log.warning(
            "the file says that it has %s, and its mean shift is one of %s: taken at its word; if that is wrong, say "
            "its --input-range",
            assume_range(stated),
            assume_range(shown),
        )
    if stated is None and "rgb_range" not in match.unsaid:
        stated = remarks.rgb_range
    if told and stated and told != stated:
        log.warning("the file says that it has %s: taken as told, %s", assume_range(stated), assume_range(told))
    known = told or stated
    ranges = [known] if known else [family.input_range, *(r for r in RANGES if r != family.input_range)]
    by_weights = shown is not None and not (told or match.known_range or remarks.input_range)
    variants = []
    for values in product(*open_arguments.values()):
        arguments = dict(zip(open_arguments, values, strict=True))
        unshown = by_weights and not arguments.get(match.range_if, True)  # a shift that is not used shows no range
        for input_range in RANGES if unshown else ranges:
            variants.append(_variant(arguments, input_range, ranged=known is None or unshown))

    def read(variant: Variant) -> Teacher:
        built = usual
        if any(variant.arguments[name] != value for name, value in variants[0].arguments.items()):
            built = assemble(usual.weights, family, {**options, **variant.arguments}, remarks)
        return Teacher(
            module=prepare(built.module),
            input_range=variant.input_range,
            family=family.name,
            hyper=built.hyper,
            stated_range=stated,
        )

    habits = () if ours else (*match.habits, *_list_usual(match))
    word_taken = bool(noted.keys() - options.keys()) or known not in (told, match.known_range, shown)
    uncertain = bool(open_arguments or known is None or (not ours and (match.habits or word_taken)))
    ways_out = [f"--arch-args {name}=VALUE" for name in match.unsaid if name not in options]
    if told is None and match.known_range is None:
        ways_out.insert(0, "--input-range LOW HIGH")
    return Readings(tuple(variants), read, habits, uncertain, tuple(ways_out))


def _list_usual(match: Match) -> list[str]:
    """List the habits of all or most families that no weights show."""
    clamp = "" if "clamp" in match.unsaid else NO_CLAMP
    return [words for words in (match.family.activation, PADDING, clamp) if words]


@compiling_nothing()
@one_thread()
def probe_range(network: Network, path: Path, told: Range | None, *, probe: bool) -> tuple[Range, tuple[str, ...]]:
    """The input range of a network whose file does not say it, as a photograph shows it; and what is assumed.

    network   runs on tensors (N, C, H, W);   told   the range, if the user says it
    """
    if told is not None:
        return told, ()
    variants = [_variant({}, input_range, ranged=True) for input_range in RANGES]
    chosen = 0
    if probe:
        choice = choose(
            Reading(network, v.input_range, assume_range(v.input_range), frozenset(v.departs(variants[0])))
            for v in variants
        )
        chosen = choice.index
        _tell(choice, variants, path)
    return variants[chosen].input_range, tuple(variants[chosen].words.values())


@compiling_nothing()
@one_thread()
def choose_reading(readings: Readings, path: Path) -> Teacher:
    """The teacher of the reading that a photograph speaks for; the usual one where nothing has to be probed.

    What is not the usual is told by a warning.  Raises InvalidInput where the network is a family's, and no reading is
    right, or several are.
    """
    usual = readings.variants[0]
    if not readings.uncertain:
        return readings.teacher(usual)
    choice = choose(_tried(readings))
    chosen = readings.teacher(readings.variants[choice.index])
    if chosen.family and choice.outcome in UNCLEAR:
        _refuse(readings, chosen, choice)
    _tell(choice, readings.variants, path, readings.ways_out)
    return chosen


def _tried(readings: Readings) -> Iterator[Reading]:
    """The variants as the probe is given them, each built when it is its turn: networks are large."""
    usual = readings.variants[0]
    for variant in readings.variants:
        words = ", ".join(variant.words.values()) or "what the file says"
        departs = frozenset(variant.departs(usual))
        try:
            network: Network = leaving_nothing(readings.read(variant).module)
        except InvalidInput:  # weights that fit the usual arguments need not fit all
            network = _no_network
        yield Reading(network, variant.input_range, words, departs)


def _no_network(x: Tensor) -> Tensor:
    raise InvalidInput("there is no such network")


def _tell(choice: Choice, variants: Sequence[Variant], path: Path, ways_out: Sequence[str] = ()) -> None:
    """Warn where a photograph speaks for another reading than the usual, or for none, or cannot speak.

    ways_out   options that would settle it; none: the range alone is open
    """
    if choice.outcome == "untried" and variants[0].words:
        words = ", ".join(variants[0].words.values())
        log.warning("%s: runs on no photograph, so nothing bears out that it has %s; say it if it is else", path, words)
    if choice.outcome == "taken":
        departs = ", ".join(variants[choice.index].departs(variants[0]).values())
        log.warning("%s: taken: %s, since so it restores a photograph to %s", path, departs, choice.words)
    what = UNCLEAR.get(choice.outcome, "restores a photograph no better than bicubic interpolation")
    if choice.outcome in UNCLEAR or choice.gain < CLEAR:
        options = " or ".join(ways_out or ("--input-range LOW HIGH",))
        way_out = f"if it is trained to enlarge, it is read wrongly: say its {options}"
        log.warning("%s: %s: %s; %s", path, what, choice.words, way_out)


def _refuse(readings: Readings, usual: Teacher, choice: Choice) -> NoReturn:
    raise InvalidInput(
        f"as {usual.family} ({', '.join(usual.assumed)} being assumed) it {UNCLEAR[choice.outcome]}: {choice.words}. "
        f"Say what it is with {', '.join([*readings.ways_out, '--arch NAME'])}, or give its code with --arch "
        "package.module:factory. --no-probe reads it as assumed: a network that is not trained, or made for "
        "something else."
    )


def _variant(arguments: Mapping[str, object], input_range: Range, *, ranged: bool) -> Variant:
    words = {
        name: f"{name} {value:g}" if type(value) is float else f"{name} {value}" for name, value in arguments.items()
    }
    return Variant(arguments, input_range, {**words, **({"input_range": assume_range(input_range)} if ranged else {})})
