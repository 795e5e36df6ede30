"""Making the network that has exactly the weights in a checkpoint.

A checkpoint may use other key names than the network, and fake its sizes; a network accepts one set of keys.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.teachers.families.registry import FAMILIES, Family, Match, recognise
from memsr_compiler.teachers.held import say_passed_over
from memsr_compiler.teachers.remarks import Remarks
from memsr_compiler.teachers.wrappers import (
    Misfit,
    StateDict,
    UnknownKeys,
    Weights,
    find_part,
    read_notes,
    say_extra_state,
    some,
    strip_prefixes,
    without_counters,
)
from memsr_compiler.torch_helpers import copy_module, list_parameters

_MAX_SHARING = 64  # a recursive network may list one tensor under many names; a hostile file under millions
_ALIGNMENT = 64  # bytes: torch's own, by which its kernels are chosen, and with them the last bits of results
_NUMBER = re.compile(r"\d+")

log = logging.getLogger(__name__)


def check_tensors(state: Mapping[str, Tensor], stored: int) -> None:
    """Refuse tensors that are not what they seem, by an InvalidInput that names the first.

    stored  bytes in the file. Refused, before anything is copied: a tensor larger than its storage, tensors
            that together are far larger than the file (a few bytes can declare terabytes), tensors that are
            not dense or not on the CPU, and NaN or infinite values
    """
    total = 0
    for key, tensor in state.items():
        _check_kind(key, tensor)
        size = tensor.numel() * tensor.element_size()
        total += size
        held = tensor.untyped_storage().nbytes()
        if size > held or total > _MAX_SHARING * stored:
            raise InvalidInput(
                f"{key}: declares {size:,} bytes in {tuple(tensor.shape)} and has {min(held, stored):,}. "
                "The file is damaged or hostile; clone expanded tensors before saving them."
            )
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        # Not every dtype of a byte knows what infinity is, and as float32 networks run.
        if not torch.isfinite(tensor.float()).all():
            larger = tensor.element_size() > 4 and bool(torch.isfinite(tensor).all())
            what = "weights too large for float32" if larger else "NaN or infinite weights"
            raise InvalidInput(f"{key}: holds {what}. Take an earlier checkpoint.")


def widen(state: Mapping[str, Tensor]) -> StateDict:
    """The same numbers, those of one byte (float8) in float32: with them torch does not compute."""
    wide = {key: t.float() if t.is_floating_point() and t.element_size() == 1 else t for key, t in state.items()}
    return Weights(wide, read_notes(state))


def _check_kind(key: str, tensor: Tensor) -> None:
    """Raises InvalidInput for a tensor that does not hold its numbers one by one, in memory."""
    if tensor.is_meta:
        raise InvalidInput(f"{key}: has a shape and no values (meta). Save the network after its weights were loaded.")
    if tensor.is_quantized:
        raise InvalidInput(f"{key}: is quantised. Save the network as it was before, in floating point.")
    if str(tensor.dtype).startswith("torch.float4"):
        raise InvalidInput(
            f"{key}: is stored as {tensor.dtype}, two numbers in a byte, which torch does not compute with. Save the "
            "network as it was before, in float32 or float16."
        )
    if tensor.layout != torch.strided:
        raise InvalidInput(f"{key}: is sparse ({tensor.layout}). Save its to_dense().")
    if tensor.device.type != "cpu":
        raise InvalidInput(f"{key}: is not on the CPU ({tensor.device}). Save its cpu().")


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A network of a known family with a file's weights in it.

    match     the family, and whose key names the weights have
    hyper     the arguments it was built with, but those whose values the weights hold
    weights   the part of the file that is this network's, under the file's names
    """

    module: nn.Module
    match: Match
    hyper: dict[str, object]
    weights: StateDict


def assemble(
    state: StateDict, only: Family | None, options: Mapping[str, object], remarks: Remarks | None = None
) -> Assembled:
    """Build the network of a known family that these weights belong to, with them in it.

    only     the one family to consider; None: whichever recognises the keys, and exactly one must
    options  override the arguments read off the shapes
    remarks  say what those do not show

    Of a file that holds more than the network that network is taken, see `wrappers`. Raises UnknownKeys if no family
    fits, or a key or shape differs from the network's; InvalidInput if several networks could be meant, or an argument
    that shapes do not show is not among the options.
    """
    weights, match = _recognise(state, only, options)
    family = match.family
    _require_kinds(options, family)
    stated = find_stated(remarks or Remarks(), match)
    usual = {key: values[0] for key, values in match.unsaid.items()}
    hyper = {**usual, **stated, **match.hyper, **options}
    # Built without memory, then given the file's own tensors: sizes that come out of a file are believed only when its
    # tensors have them, and no weights are drawn at random to be overwritten.
    own = frozenset() if match.dialect is None else match.dialect.own
    with torch.device("meta"):
        network = call(family.build, {key: value for key, value in hyper.items() if key not in own}, family.name)
    name, fitted = family.name, weights
    if match.dialect is not None:
        log.info("the key names are those of %s", match.dialect.name)
        try:
            fitted = match.dialect.translate(weights, hyper)
        except KeyError as error:
            raise Misfit(f"the weights do not fit {name}: missing {error.args[0]}. Is the file whole?") from error
        except (TypeError, ValueError, RuntimeError) as error:  # torch's, for arguments or shapes that fit nothing
            raise Misfit(f"the weights do not fit {name}: {first_line(error)}. Check --arch-args.") from error
        name = f"{family.name} (its names stand here for {match.dialect.name})"
    fitted = _fit(fitted, network.state_dict(), name)
    network.load_state_dict(_separate(fitted), strict=True, assign=True)
    assert not any(t.is_meta for t in (*network.parameters(), *network.buffers())), "a family's tensors are all saved"
    held = frozenset() if match.dialect is None else match.dialect.held
    known = {key: value for key, value in hyper.items() if key not in held}
    return Assembled(module=network, match=match, hyper=known, weights=weights)


def find_stated(remarks: Remarks, match: Match) -> dict[str, object]:
    """The arguments that weights may not show and a file states: the scale, and what the family names.

    A scale that the family can do without, as SRCNN, which is given enlarged images, is believed of our own files only:
    what others note is the scale that they trained for.
    """
    scale = inspect.signature(match.family.build).parameters.get("scale")
    ours = remarks.family == match.family.name
    asked = scale is not None and (ours or scale.default is scale.empty)
    return remarks.arguments({**({"scale": (2, 3, 4)} if asked else {}), **match.unsaid})


def load_strictly(network: nn.Module, state: StateDict, name: str, *, fitted: bool = False) -> StateDict:
    """Copy the weights into the network; every key and shape of its must be there.  Return those that were copied.

    name     what to call the network in the Misfit that lists the differences
    fitted   whether they are what was returned for such a network, so that its own code is not tried on them again

    Where more than torch's comparison of names takes part in loading (hooks that rename, `set_extra_state`), that says
    what fits.  Of a file that holds more than the network that network is taken, see `wrappers`.
    """
    tried = fitted
    if not fitted:
        expected = _list_expected(network, name)
        part = find_part(state, lambda part: not _differences(_with_norm_counters(part, expected), expected))
        tried = part is None and _loads_by_own_code(network)
        if tried:
            state = _choose_by_trial(network, state, expected, name)
        else:
            state = _fit(state if part is None else part, expected, name)
    if problem := _load_into(network, state, known=tried):
        raise Misfit(_say_misfit(name, problem))
    return state


def _list_expected(network: nn.Module, name: str) -> StateDict:
    """The state dict of a user's network.  Raises InvalidInput where its code makes none, or not one of tensors."""
    try:
        state = network.state_dict()
    except Exception as error:  # whatever its hooks raise
        raise InvalidInput(f"--arch {name}: its state_dict() fails ({first_line(error)}). Mend that code.") from error
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise InvalidInput(f"--arch {name}: {say_extra_state(key, value)}")
        if nn.parameter.is_lazy(value):
            raise InvalidInput(
                f"--arch {name}: {key} has no shape until the network has run; run it once as it is built."
            )
    return state


def _loads_by_own_code(network: nn.Module) -> bool:
    """Whether more takes part in loading weights than torch's comparison of names."""
    own = ("load_state_dict", "_load_from_state_dict", "set_extra_state")
    return any(
        module._load_state_dict_pre_hooks
        or any(
            method in vars(module) or not str(getattr(type(module), method).__module__).startswith("torch.")
            for method in own
        )
        for module in network.modules()
    )


def _choose_by_trial(network: nn.Module, state: StateDict, expected: StateDict, name: str) -> StateDict:
    """The state dict that the network's own code accepts, without a prefix if need be.  Raises Misfit for none."""
    versions = [_pass_over(version, expected) for version in strip_prefixes(state)]
    problems = [_try(network, version, expected) for version in versions]
    if "" not in problems:
        nearest = max(range(len(versions)), key=lambda i: len(versions[i].keys() & expected.keys()))
        raise Misfit(_say_misfit(name, problems[nearest]))
    return versions[problems.index("")]


def _try(network: nn.Module, state: StateDict, expected: StateDict) -> str:
    """Words on why the network's own code does not take these weights; "": it does."""
    for key, tensor in state.items():  # integers under names that it renames would become weights without a word
        if key not in expected and tensor.numel() > 1 and not tensor.is_floating_point():
            return f"unexpected {key}, which is {tensor.dtype}"
    return _load_into(copy_module(network, None), state, known=False)


def _load_into(network: nn.Module, state: StateDict, *, known: bool) -> str:
    """Load weights by the network's own `load_state_dict`; words on what keeps them from it, "" where nothing does.

    known   whether it is known that own code passes over none, which takes as many runs of it as the file has weights
    """
    empty = [key for key, parameter in list_parameters(network).items() if parameter.is_meta]
    if empty:
        return f"{some(empty)} is on the device 'meta', which holds no numbers; build the network on the CPU"
    weights = Weights(state, read_notes(state))
    blank = copy_module(network, None) if not known and _loads_by_own_code(network) else None
    try:
        _give(network, weights)
        return "" if blank is None else say_passed_over(blank, network, weights, _give)
    except Exception as error:  # torch's, which lists all that differs, or of the network's code
        return f"its load_state_dict() says: {some(filter(None, map(str.strip, str(error).splitlines())), ' ')}"


def _give(network: nn.Module, weights: Weights) -> None:
    """Load weights, or copies of them: own code may compute in them, and they are loaded several times."""
    copies = {key: tensor.clone() for key, tensor in weights.items()} if _loads_by_own_code(network) else weights
    network.load_state_dict(Weights(copies, read_notes(weights)), strict=True)


def _say_misfit(name: str, what: str) -> str:
    return (
        f"the weights do not fit {name}: {what.rstrip('.')}. Check --arch and --arch-args, and that the file holds all "
        "of the network."
    )


def call(build: Callable[..., object], options: Mapping[str, object], name: str) -> nn.Module:
    """build(**options); InvalidInput if an argument is missing, unknown, or describes no network."""
    taken = inspect.signature(build)
    try:
        taken.bind(**options)
    except TypeError as error:
        names = ", ".join(taken.parameters) or "no arguments"
        raise InvalidInput(f"--arch {name}: {error}. It takes {names}: say them as --arch-args NAME=VALUE.") from error
    _check_texts(options, taken, name)
    try:
        network = build(**options)
    except InvalidInput:
        raise
    except Exception as error:  # whatever the builder's own code raises
        raise InvalidInput(f"--arch {name}: does not build ({type(error).__name__}: {first_line(error)}).") from error
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"--arch {name}: returned a {type(network).__name__}, not a torch.nn.Module.")
    return network


def _check_texts(options: Mapping[str, object], taken: inspect.Signature, name: str) -> None:
    """Raises InvalidInput for clip=no where code wants yes or no: any text is true.  Warns where that may be so."""
    for key, value in options.items():
        if not isinstance(value, str):
            continue
        parameter = taken.parameters.get(key)
        usual = inspect.Parameter.empty if parameter is None else parameter.default
        kind = usual if parameter is None else parameter.annotation
        if kind in (bool, "bool") or (isinstance(usual, bool) and value.lower() in _YES_OR_NO):
            raise InvalidInput(f"--arch {name}: {key} is {value!r}; want true or false")
        may_be_text = isinstance(usual, str) or kind in (str, "str")
        if isinstance(usual, (int, float)) or (value.lower() in _YES_OR_NO and not may_be_text):
            log.warning(
                "--arch %s: %s is taken as the text %r, which is true wherever code asks; if that is not meant, write "
                "true, false or a number",
                name,
                key,
                value,
            )


_YES_OR_NO = frozenset({"yes", "no", "on", "off", "y", "n", "t", "f", "enabled", "disabled"})


def _require_kinds(options: Mapping[str, object], family: Family) -> None:
    """Raises InvalidInput for a word where yes or no, or a number, is wanted: of image_skip=no any text is true."""
    parameters = inspect.signature(family.build).parameters
    for name, value in options.items():
        usual = parameters[name].default if name in parameters else None
        if isinstance(usual, bool) and value not in (False, True):
            raise InvalidInput(f"--arch {family.name}: {name} is {value!r}; want true or false")
        if isinstance(usual, (int, float)) and isinstance(value, str):
            raise InvalidInput(f"--arch {family.name}: {name} is {value!r}; want a number, such as {usual}")


def _recognise(state: StateDict, only: Family | None, options: Mapping[str, object]) -> tuple[StateDict, Match]:
    part = find_part(state, lambda part: bool(_matches(part, only)))
    if part is not None:
        matches = _matches(part, only)
        if len(matches) > 1:
            names = some(match.family.name for match in matches)
            raise InvalidInput(f"the keys fit {names}. Choose one with --arch NAME.")
        return part, matches[0]
    if only is not None and options:
        return state, Match(only, {})
    if only is not None:
        raise InvalidInput(
            f"the keys ({some(state)}) are not, or not all, those of {only.name}"
            f"{_nearest(state, [only]) or f'. {_wants(only, state)}'}. Give its "
            "size with --arch-args NAME=VALUE to be told all that differs, or choose another --arch."
        )
    stacks = [family.name for family in FAMILIES if family.only_named and _matches(state, family)]
    if stacks:
        raise UnknownKeys(
            f"the keys ({some(state)}) are those of {some(stacks)}, and of any other stack of layers. If it is that, "
            f"say --arch {stacks[0]}; else give the code that builds it with --arch package.module:factory."
        )
    tried = ", ".join(family.name for family in FAMILIES)
    raise UnknownKeys(
        f"the keys ({some(state)}) are not those of {tried}{_nearest(state, FAMILIES)}. Name the network with --arch "
        "NAME, or give the code that builds it with --arch package.module:factory."
    )


def _matches(state: StateDict, only: Family | None) -> list[Match]:
    return recognise({key: tensor.shape for key, tensor in state.items()}, only)


def _nearest(state: StateDict, families: Iterable[Family]) -> str:
    """Words on the family of which the state dict has most keys, if it has half of them, and what keeps it from being
    that; the keys' numbers aside, since nobody knows its size."""
    most, words = 0.5, ""
    for family, stripped in itertools.product(families, strip_prefixes(state)):
        expected = _usual_keys(family)
        missing, unexpected = _unmatched(expected, stripped), _unmatched(stripped, expected)
        different, all_keys = _numberless([*missing, *unexpected]), _numberless([*stripped, *expected])
        share = 1 - len(different) / len(all_keys)
        if share > most:
            misfits = [f"missing {key}" for key in missing or [k for k in expected if k not in stripped]]
            misfits += [f"unexpected {key}" for key in unexpected]
            most, words = share, f" (nearest is {family.name}: {some(misfits, separator='; ')})"
    return words


def _wants(family: Family, state: StateDict) -> str:
    """Words on the keys of the family's usual size that the file lacks, and on those it has instead."""
    expected = _usual_keys(family)
    stripped = min(strip_prefixes(state), key=lambda version: len(_unmatched(expected, version)))
    missing, unexpected = _unmatched(expected, stripped), _unmatched(stripped, expected)
    others = " or ".join(dict.fromkeys(dialect.name for dialect in family.dialects))
    words = f"At its usual size it wants {some(_with_shapes(missing or expected))}"
    words += f" (or the key names of {others})" if others else ""
    return f"{words}; what it does not know is {some(_with_shapes(unexpected)) or 'nothing'}"


def _usual_keys(family: Family) -> StateDict:
    """The state dict of a family's network of the usual size, without memory."""
    with torch.device("meta"):
        parameters = inspect.signature(family.build).parameters
        return family.build(**({"scale": 2} if "scale" in parameters else {})).state_dict()


def _unmatched(state: StateDict, others: StateDict) -> StateDict:
    """The tensors whose keys, numbers aside, the other state dict has not."""
    known = _numberless(others)
    return {key: tensor for key, tensor in state.items() if _NUMBER.sub("N", key) not in known}


def _numberless(state: Iterable[str]) -> set[str]:
    return {_NUMBER.sub("N", key) for key in state}


def _with_shapes(state: StateDict) -> list[str]:
    return [f"{key} {tuple(tensor.shape)}" for key, tensor in state.items()]


def _fit(state: StateDict, expected: Mapping[str, Tensor], name: str) -> StateDict:
    """The state dict with the keys that the network expects; Misfit lists what cannot be reconciled."""
    versions = [_with_norm_counters(_pass_over(stripped, expected), expected) for stripped in strip_prefixes(state)]
    best = min(versions, key=lambda version: len(_differences(version, expected)))
    differences = _differences(best, expected)
    if differences:
        raise Misfit(_say_misfit(name, some(differences, separator="; ")))
    return best


def _pass_over(state: StateDict, expected: Mapping[str, Tensor]) -> StateDict:
    """The state dict without the counters beside the modules that the network knows nothing of."""
    modules = without_counters(state)
    known = {key: tensor for key, tensor in state.items() if key in expected or key in modules}
    return Weights(known, read_notes(state))


def _with_norm_counters(state: StateDict, expected: Iterable[str]) -> StateDict:
    """The state dict with counters of training steps, which old files lack and evaluation does not use."""
    counters = {key: torch.zeros((), dtype=torch.long) for key in expected if key.endswith(".num_batches_tracked")}
    return Weights({**counters, **state}, read_notes(state))


def _separate(state: StateDict) -> StateDict:
    """The same tensors, each alone in its memory and aligned as torch's own are; most are so already."""
    separate: StateDict = {}
    storages: set[int] = set()
    for key, tensor in state.items():
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        whole = tensor.is_contiguous() and storage.nbytes() == tensor.numel() * tensor.element_size()
        alone = whole and address not in storages and address % _ALIGNMENT == 0
        separate[key] = tensor.detach() if alone else tensor.detach().clone(memory_format=torch.contiguous_format)
        storages.add(address)
    return separate


def _differences(state: StateDict, expected: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing {key}" for key in expected if key not in state]
    unexpected = [f"unexpected {key}" for key in state if key not in expected]
    shared = [(key, state[key], expected[key]) for key in expected if key in state]
    shapes = [
        f"{key} is {tuple(here.shape)} in the file, {tuple(there.shape)} in the network"
        for key, here, there in shared
        if here.shape != there.shape
    ]
    # Integers for weights come from a quantised network and mean nothing without their scales.
    kinds = [
        f"{key} is {here.dtype} in the file, {there.dtype} in the network"
        for key, here, there in shared
        if here.is_floating_point() != there.is_floating_point()
    ]
    return missing + unexpected + shapes + kinds
