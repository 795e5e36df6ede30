"""Finding the weights of one network in what training code saved.

It wraps them in dictionaries, prefixes them, puts moving averages, discriminators and counters beside them. What is
passed over is said; where two networks could be meant, that is an error which names their prefixes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.torch_helpers import unwrap_inside

StateDict: TypeAlias = "dict[str, Tensor]"

WRAPPERS = (
    "params_ema", "params", "state_dict", "model_state_dict", "model_state", "model_ema", "model", "net", "network",
    "netG", "net_g", "generator", "generator_state_dict", "G", "ema", "weights",
)  # fmt: skip
"""Keys under which training code puts the weights, for a message; `_is_wrapper` knows more spellings."""

_PARTS = frozenset({"state", "dict", "weights", "params", "parameters", "online"})  # words that name no network
_AVERAGED = frozenset({"ema", "swa", "averaged", "average", "averaging", "avg", "shadow", "polyak"})
_NETWORKS = frozenset({"", "model", "net", "network", "netg", "g", "generator", "module"})
_COMPANION = re.compile(
    r"d|net_?d|net_?f|critic|.*discriminator.*|.*loss.*|.*criterion.*|.*vgg.*|.*perceptual.*|.*lpips.*|.*metrics?"
    r"|.*feature_?extractor.*|.*optimi[sz]er.*",
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\b(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
_EXTRA = "_extra_state"  # torch's name for what get_extra_state() gives
_COUNTS = ("total_ops", "total_params")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DEPTH = 8  # of wrappers in wrappers; a hostile file could have a million
_SHOWN = 4
_MOST = 1_000_000  # entries; dictionaries that hold themselves have no end

log = logging.getLogger(__name__)


class Weights(dict[str, Tensor]):
    """A state dict with what torch notes beside it of each module, by its name: the version of its format.

    A module's own `_load_from_state_dict` may ask for that, and takes weights without it for those of the first one.
    """

    def __init__(self, tensors: Mapping[str, Tensor], notes: Mapping[str, dict[str, object]]) -> None:
        super().__init__(tensors)
        self._metadata = dict(notes)  # as torch calls it


def read_notes(state: object) -> dict[str, dict[str, object]]:
    """Notes of torch's on the modules of a state dict; of a file that was made by hand whatever looks like them."""
    notes = getattr(state, "_metadata", None)
    entries = notes.items() if isinstance(notes, Mapping) else ()
    return {name: dict(told) for name, told in entries if isinstance(name, str) and isinstance(told, Mapping)}


def _below(notes: Mapping[str, dict[str, object]], prefix: str) -> dict[str, dict[str, object]]:
    """The notes on modules whose names begin so, as those of their tensors do, under the rest of their names."""
    return {f"{m}.".removeprefix(prefix)[:-1]: told for m, told in notes.items() if f"{m}.".startswith(prefix)}


class UnknownKeys(InvalidInput):
    """A state dict of no network that is known here."""


class Misfit(UnknownKeys):
    """A state dict that is almost that of a network that is known here."""


def unwrap(loaded: object, prefix: str = "") -> nn.Module | StateDict:
    """Take the state dict, or the module, out of what torch.load returned.

    prefix   what the keys wanted begin with, those of outer dictionaries counted; it is removed. "": the averaged
             weights where there are some, else the others

    A module that torch.compile or training on several devices wrapped is unwrapped too. Raises InvalidInput, naming the
    keys, if there are no weights, or several that could be meant.
    """
    if prefix:
        module = _take_module(loaded, prefix)
        return take_prefix(_flatten(loaded), prefix) if module is None else module
    for _ in range(_DEPTH):
        if isinstance(loaded, nn.Module):
            return unwrap_inside(loaded)
        if not isinstance(loaded, Mapping):
            raise InvalidInput(f"it holds a {type(loaded).__name__}, no weights. Save network.state_dict().")
        wrapper = _choose_wrapper(loaded)
        if wrapper is not None:
            loaded = loaded[wrapper]
        elif any(isinstance(value, Tensor) for value in loaded.values()):
            return _take_tensors(loaded)
        else:
            break
    keys = some(str(key) for key in loaded) if isinstance(loaded, Mapping) else ""
    raise InvalidInput(
        f"no state dict in it: it has the keys {keys or '(none)'}, and weights are looked for under "
        f"{', '.join(WRAPPERS)}. Save network.state_dict() alone."
    )


def take_prefix(state: StateDict, prefix: str) -> StateDict:
    """Take the weights whose keys begin so, or do so behind one wrapper or more, under the rest of their names.

    Raises InvalidInput that names the prefixes there are, if none begins so, or several do behind different wrappers.
    """
    wanted = f"{prefix.rstrip('.')}."
    starts = {key[: f".{key}".index(f".{wanted}")] for key in state if f".{wanted}" in f".{key}"}
    if not starts:
        raise InvalidInput(f"--prefix {wanted} begins no key; what begins them is {list_prefixes(state)}")
    if "" not in starts and len(starts) > 1:
        raise InvalidInput(f"--prefix {wanted} could be {some(sorted(f'{start}{wanted}' for start in starts))}")
    whole = wanted if "" in starts else starts.pop() + wanted
    log.info("taking the weights under %r", whole)
    taken = {key.removeprefix(whole): tensor for key, tensor in state.items() if key.startswith(whole)}
    return Weights(taken, _below(read_notes(state), whole))


def find_part(state: StateDict, fits: Callable[[StateDict], bool], depth: int = _DEPTH) -> StateDict | None:
    """Find the weights that a network accepts among those of a file, under the names that it knows them by.

    fits    whether the network, or one of those that come into question, accepts a state dict
    depth   how many prefixes may be removed

    Returns None if there are none. Raises InvalidInput, naming the prefixes, if several could be meant.
    """
    if fits(state):
        return state
    modules = without_counters(state)
    if len(modules) < len(state) and fits(modules):
        return modules
    heads = _split(modules) if depth else {}
    if len(heads) == 1:
        (inner,) = heads.values()
        return find_part(inner, fits, depth - 1)
    return _choose_head(heads, fits, depth - 1)


def strip_prefixes(state: StateDict) -> Iterator[StateDict]:
    """The state dict, then without the first part of its keys, and so on while all keys share that part."""
    yield state
    for _ in range(_DEPTH):
        heads = _split(without_counters(state))
        if len(heads) != 1:
            return
        (state,) = heads.values()
        yield state


def without_counters(state: StateDict) -> StateDict:
    """The state dict without the single whole numbers beside the modules: how many networks were averaged, say."""
    modules = {key: tensor for key, tensor in state.items() if "." in key or not _is_counter(tensor)}
    return Weights(modules, read_notes(state))


def without_tools(state: StateDict) -> StateDict:
    """The state dict without what tools leave between and beside modules: wrappers of torch.compile, of checkpointed
    activations and FSDP around inner ones, and the operations that thop counted."""
    names = {key: _WRAPPED.sub("", key) for key in state if not (key.endswith(_COUNTS) and state[key].numel() == 1)}
    if len(set(names.values())) < len(names):
        return state
    notes = {_WRAPPED.sub("", f"{name}.")[:-1]: told for name, told in read_notes(state).items()}
    return Weights({names[key]: state[key] for key in names}, notes)


def is_companion(key: str) -> bool:
    """Whether a key, or the first part of one, is of what a network is trained with: a discriminator, a loss."""
    return _COMPANION.fullmatch(key.partition(".")[0]) is not None


def say_extra_state(key: str, value: object) -> str:
    """Words on what a module keeps besides tensors, which may change what it computes."""
    return (
        f"{key}: get_extra_state() gives a {type(value).__name__} there, not a tensor, and what modules keep besides "
        "tensors is not read from files. Load it in Python, network.load_state_dict(torch.load(file)), and give "
        "compile_to_plain that module."
    )


def list_prefixes(state: Iterable[str]) -> str:
    """The first parts of the keys: 'generator., discriminator.'."""
    return some(dict.fromkeys(f"{key.partition('.')[0]}." if "." in key else key for key in state))


def some(items: Iterable[str], separator: str = ", ") -> str:
    """The first few of the items, and how many more there are."""
    listed = list(items)
    more = [f"... {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    return separator.join(listed[:_SHOWN] + more)


def _choose_wrapper(loaded: Mapping[object, object]) -> object | None:
    """The key of the dictionary that holds the network's weights; None if there is none."""
    keys = [key for key, value in loaded.items() if _is_wrapper(key) and _holds_weights(value)]
    averaged = [key for key in keys if _is_averaged(str(key))]
    chosen = averaged or keys
    if len(chosen) > 1:
        names = " and ".join(repr(str(key)) for key in chosen[:_SHOWN])
        raise InvalidInput(f"it holds weights under {names}. Choose with --prefix {chosen[0]}. or another of them.")
    if not chosen:
        return None
    _say_choice(str(chosen[0]), [str(key) for key in keys])
    twins = [repr(str(key)) for key in loaded if key not in keys and _has_same_keys(loaded[key], loaded[chosen[0]])]
    if twins:
        log.warning("taking the weights under %r, and not those of the same keys under %s", chosen[0], some(twins))
    if any(isinstance(loaded.get(key), Tensor) for key in _keys(loaded[chosen[0]])):
        log.warning("taking the weights under %r, and not those of the same keys beside it", chosen[0])
    nameless = [repr(p) for key, value in loaded.items() if key not in keys for p in _list_nameless(value, str(key))]
    if nameless and not averaged:
        log.warning("passing over %s, averaged weights without names; taking those under %r", some(nameless), chosen[0])
    inner = [path for key, value in loaded.items() if key not in keys for path in _list_averages(value, str(key))]
    if inner and not averaged:
        log.warning(
            "passing over the averaged weights under %s, which --prefix %s. takes; taking those under %r",
            some(map(repr, inner)),
            inner[0],
            chosen[0],
        )
    return chosen[0]


def _list_averages(value: object, path: str, depth: int = _DEPTH, seen: set[int] | None = None) -> Iterator[str]:
    """Paths of state dicts within dictionaries, as a callback of Lightning keeps one, whose names say averaged."""
    seen = set() if seen is None else seen
    if not isinstance(value, Mapping) or not depth or is_companion(path) or id(value) in seen:
        return
    seen.add(id(value))
    if any(isinstance(tensor, Tensor) for tensor in value.values()) and any(map(_is_averaged, path.split("."))):
        yield path
    for key, inner in value.items():
        yield from _list_averages(inner, f"{path}.{key}", depth - 1, seen)


def _keys(weights: object) -> Iterable[object]:
    return weights.keys() if isinstance(weights, Mapping) else ()


def _list_nameless(value: object, path: str, depth: int = _DEPTH, seen: set[int] | None = None) -> Iterator[str]:
    """Paths of lists of tensors whose names say averaged: torch_ema's `shadow_params`, or what a callback keeps."""
    seen = set() if seen is None else seen
    if not depth or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (list, tuple)):
        if any(isinstance(entry, Tensor) for entry in value):
            yield from [path] if any(map(_is_averaged, path.split("."))) else []
            return
        entries: Iterable[tuple[object, object]] = enumerate(value)
    else:
        entries = value.items() if isinstance(value, Mapping) else ()
    for key, inner in entries:
        if isinstance(inner, (Mapping, list, tuple)):
            yield from _list_nameless(inner, f"{path}.{key}", depth - 1, seen)


def _has_same_keys(value: object, weights: object) -> bool:
    """Whether both hold tensors of the same names, behind prefixes or not, counters aside."""
    one, other = _take_named(value), _take_named(weights)
    if not one or not other:
        return False
    names = [without_counters(part).keys() for part in strip_prefixes(other)]
    return any(without_counters(part).keys() in names for part in strip_prefixes(one))


def _take_named(value: object) -> StateDict:
    entries = value.items() if isinstance(value, Mapping) else ()
    return {key: tensor for key, tensor in entries if isinstance(key, str) and isinstance(tensor, Tensor)}


def _choose_head(heads: Mapping[str, StateDict], fits: Callable[[StateDict], bool], depth: int) -> StateDict | None:
    """The part that the network accepts, if no other could be meant."""
    found = {head: find_part(state, fits, depth) for head, state in heads.items() if not is_companion(head)}
    fitting = {head: part for head, part in found.items() if part is not None}
    if not fitting:
        return None
    names = ", ".join(f"{head}." for head in fitting)
    unknown = [head for head in heads if head not in fitting and not is_companion(head)]
    if unknown:
        raise UnknownKeys(
            f"the weights under {names} are those of a known network, but there are others under "
            f"{some(f'{head}.' for head in unknown)}. Take one part alone with --prefix {next(iter(fitting))}. or "
            "give the code that builds the whole with --arch package.module:factory."
        )
    averaged = [head for head in fitting if _is_averaged(head)]
    same = len({_network(head) for head in fitting} - {""}) <= 1  # "ema" is the average of whatever else there is
    if len(fitting) > 1 and not (same and len(averaged) == 1):
        raise InvalidInput(
            f"it holds several networks, under {names}. Choose with --prefix {next(iter(fitting))}. or another of them."
        )
    (chosen,) = averaged if len(fitting) > 1 else fitting
    _say_choice(f"{chosen}.", [f"{head}." for head in heads])
    return fitting[chosen]


def _say_choice(chosen: str, there: Iterable[str]) -> None:
    others = [name for name in there if name != chosen]
    rest = f"; passing over {some(map(repr, others))}" if others else ""
    if others and _is_averaged(chosen):
        log.warning("taking the averaged weights under %r%s", chosen, rest)
    else:
        log.info("taking the weights under %r%s", chosen, rest)


def _words(key: str) -> list[str]:
    """'EMACallback_2' -> ema, callback, 2."""
    return re.split(r"[_\-. ]+", _CAMEL.sub("_", key).lower())


def _is_averaged(key: str) -> bool:
    return not _AVERAGED.isdisjoint(_words(key))


def _network(key: str) -> str:
    """The name of a wrapper without the words that say in which form it holds the network."""
    return "".join(word for word in _words(key) if word not in _PARTS | _AVERAGED)


def _is_wrapper(key: object) -> bool:
    return isinstance(key, str) and _network(key) in _NETWORKS


def _holds_weights(value: object, depth: int = _DEPTH, seen: set[int] | None = None) -> bool:
    """Whether there are tensors in dictionaries in dictionaries; each is looked at once, however often it is there."""
    seen = set() if seen is None else seen
    if isinstance(value, nn.Module):
        return True
    if not isinstance(value, Mapping) or not depth or id(value) in seen:
        return False
    seen.add(id(value))
    return any(isinstance(inner, Tensor) or _holds_weights(inner, depth - 1, seen) for inner in value.values())


def _take_tensors(loaded: Mapping[object, object]) -> StateDict:
    """The tensors of a flat dictionary; what is none must be a number, a text or nothing."""
    for key, value in loaded.items():
        if not isinstance(value, Tensor | int | float | str | None):
            if str(key).rpartition(".")[2] == _EXTRA:
                raise InvalidInput(say_extra_state(str(key), value))
            raise InvalidInput(
                f"under {key!r} it holds a {type(value).__name__} among the weights. Save network.state_dict() alone."
            )
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        log.info("passing over %s, no weights", some(others))
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    return Weights(tensors, read_notes(loaded))


def _take_module(loaded: object, prefix: str) -> nn.Module | None:
    """The whole network that a dictionary holds under a name, if it holds one."""
    found = loaded.get(prefix.rstrip(".")) if isinstance(loaded, Mapping) else None
    return unwrap_inside(found) if isinstance(found, nn.Module) else None


def _flatten(loaded: object) -> StateDict:
    """Every tensor in dictionaries in dictionaries, under its path in them."""
    if isinstance(loaded, nn.Module):
        raise InvalidInput("it holds a whole network. Leave --prefix out.")
    state: StateDict = {}
    notes: dict[str, dict[str, object]] = {}
    pending: list[tuple[str, object, int]] = [("", loaded, 0)]
    left = _MOST
    while pending:
        path, value, depth = pending.pop()
        left -= 1
        if not left:
            raise InvalidInput(f"it holds more than {_MOST:,} entries. Save network.state_dict() alone.")
        if isinstance(value, Tensor):
            if path in state:
                raise InvalidInput(f"it holds two tensors called {path}. Save network.state_dict() alone.")
            state[path] = value
        elif isinstance(value, Mapping) and depth < _DEPTH:
            notes |= {".".join(filter(None, (path, name))): told for name, told in read_notes(value).items()}
            inner = [(f"{path}.{key}" if path else str(key), entry, depth + 1) for key, entry in value.items()]
            pending += reversed(inner)
    return Weights(state, notes)


def _split(state: StateDict) -> dict[str, StateDict]:
    """The state dict by the first part of its keys; {} if a key has but one."""
    heads: dict[str, StateDict] = {}
    for key, tensor in state.items():
        head, dot, rest = key.partition(".")
        if not dot:
            return {}
        heads.setdefault(head, {})[rest] = tensor
    notes = read_notes(state)
    return {head: Weights(part, _below(notes, f"{head}.")) for head, part in heads.items()}


def _is_counter(tensor: Tensor) -> bool:
    return tensor.numel() <= 1 and not tensor.dtype.is_floating_point and tensor.dtype != torch.complex64
