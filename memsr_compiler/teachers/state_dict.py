"""Making the network that has exactly the weights in a checkpoint.

A checkpoint may wrap its state dict, prefix its keys, and fake its sizes; a network accepts one set of keys.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.registry import FAMILIES, Family, recognise

StateDict = dict[str, Tensor]

WRAPPERS = (
    "params_ema", "params", "state_dict", "model_state_dict", "model_ema", "model", "net", "network",
    "netG", "net_g", "generator", "G", "ema", "weights",
)  # fmt: skip
"""Keys under which training code puts the weights, best first: averaged weights are the better ones."""

_MAX_SHARING = 64  # a recursive network may list one tensor under many names; a hostile file under millions
_SHOWN = 4
_ALIGNMENT = 64  # bytes: torch's own, by which its kernels are chosen, and with them the last bits of results
_NUMBER = re.compile(r"\d+")

log = logging.getLogger(__name__)


def unwrap(loaded: object) -> nn.Module | StateDict:
    """The state dict, or the module, in what torch.load returned; it may be under the keys of WRAPPERS.

    A module wrapped for parallel training is unwrapped too. Raises InvalidInput, naming the keys, if there is
    none.
    """
    for _ in range(3):
        if isinstance(loaded, nn.DataParallel | nn.parallel.DistributedDataParallel):
            loaded = loaded.module
        if isinstance(loaded, nn.Module):
            return loaded
        if not isinstance(loaded, Mapping):
            raise InvalidInput(f"it holds a {type(loaded).__name__}, no weights. Save network.state_dict().")
        if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
            return {str(key): value for key, value in loaded.items()}
        inner = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping | nn.Module)), None)
        if inner is None:
            break
        log.info("taking the weights under %r", inner)
        loaded = loaded[inner]
    keys = some(str(key) for key in loaded) if isinstance(loaded, Mapping) else ""
    raise InvalidInput(
        f"no state dict in it: it has the keys {keys or '(none)'}, and weights are looked for under "
        f"{', '.join(WRAPPERS)}. Save network.state_dict() alone."
    )


def check_tensors(state: Mapping[str, Tensor], stored: int) -> None:
    """Refuse tensors that are not what they seem, by an InvalidInput that names the first.

    stored  bytes in the file. Refused, before anything is copied: a tensor larger than its storage, tensors
            that together are far larger than the file (a few bytes can declare terabytes), tensors that are
            not dense or not on the CPU, and NaN or infinite values
    """
    total = 0
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InvalidInput(f"{key}: neither dense nor on the CPU ({tensor.layout}, {tensor.device}).")
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
        # Not every dtype of a byte knows what infinity is; as float32 they all do.
        values = tensor if tensor.element_size() > 2 else tensor.float()
        if not torch.isfinite(values).all():
            raise InvalidInput(f"{key}: holds NaN or infinite weights. Take an earlier checkpoint.")


def assemble(
    state: StateDict, only: Family | None, options: Mapping[str, object]
) -> tuple[nn.Module, Family, dict[str, object]]:
    """The network of a known family that these weights belong to, with them in it, and its arguments.

    only     the one family to consider; None: whichever recognises the keys, and exactly one must
    options  override the arguments read off the shapes

    A prefix common to all keys is stripped while no family fits. Raises InvalidInput if none fits or several
    do, if an argument that shapes do not show is not among the options, or if a key or shape differs from the
    network's.
    """
    fitted, family, hyper = _recognise(state, only, options)
    # Built without memory, then given the file's own tensors: sizes that come out of a file are believed only when its
    # tensors have them, and no weights are drawn at random to be overwritten.
    with torch.device("meta"):
        network = call(family.build, hyper, family.name)
    fitted = _fit(fitted, network.state_dict(), family.name)
    network.load_state_dict(_separate(fitted), strict=True, assign=True)
    assert not any(t.is_meta for t in (*network.parameters(), *network.buffers())), "a family's tensors are all saved"
    return network, family, hyper


def load_strictly(network: nn.Module, state: StateDict, name: str) -> None:
    """Copy the weights into the network; every key and shape must agree, but for a prefix common to all keys.

    name  what to call the network in the InvalidInput that lists the differences.
    """
    network.load_state_dict(_fit(state, network.state_dict(), name), strict=True)


def call(build: Callable[..., object], options: Mapping[str, object], name: str) -> nn.Module:
    """build(**options); InvalidInput if an argument is missing, unknown, or describes no network."""
    try:
        inspect.signature(build).bind(**options)
    except TypeError as error:
        raise InvalidInput(f"--arch {name}: {error}. Say it with --arch-args NAME=VALUE.") from error
    try:
        network = build(**options)
    except InvalidInput:
        raise
    except Exception as error:  # whatever the builder's own code raises
        raise InvalidInput(f"--arch {name}: does not build ({type(error).__name__}: {error}).") from error
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"--arch {name}: returned a {type(network).__name__}, not a torch.nn.Module.")
    return network


def some(items: Iterable[str], separator: str = ", ") -> str:
    """The first few of the items, and how many more there are."""
    listed = list(items)
    more = [f"... {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    return separator.join(listed[:_SHOWN] + more)


def _recognise(
    state: StateDict, only: Family | None, options: Mapping[str, object]
) -> tuple[StateDict, Family, dict[str, object]]:
    for stripped in _without_prefixes(state):
        fitting = recognise({key: tensor.shape for key, tensor in stripped.items()})
        fitting = [(family, hyper) for family, hyper in fitting if only in (None, family)]
        if len(fitting) > 1:
            names = some(family.name for family, _ in fitting)
            raise InvalidInput(f"the keys fit {names}. Choose one with --arch NAME.")
        if fitting:
            (family, hyper) = fitting[0]
            return stripped, family, {**hyper, **options}
    if only is not None and options:
        return state, only, dict(options)
    if only is not None:
        raise InvalidInput(
            f"the keys ({some(state)}) are not, or not all, those of {only.name}{_nearest(state, [only])}. Give its "
            "size with --arch-args NAME=VALUE to be told all that differs, or choose another --arch."
        )
    tried = ", ".join(family.name for family in FAMILIES)
    raise InvalidInput(
        f"the keys ({some(state)}) are not those of {tried}{_nearest(state, FAMILIES)}. Name the network with --arch "
        "NAME, or give the code that builds it with --arch package.module:factory."
    )


def _nearest(state: StateDict, families: Iterable[Family]) -> str:
    """Words on the family of which the state dict has most keys, if it has half of them, and what keeps it from being
    that; the keys' numbers aside, since nobody knows its size."""
    most, words = 0.5, ""
    for family, stripped in itertools.product(families, _without_prefixes(state)):
        with torch.device("meta"):
            network = family.build(**({"scale": 2} if "scale" in inspect.signature(family.build).parameters else {}))
        expected = network.state_dict()
        ours, theirs = ({_NUMBER.sub("N", key) for key in keys} for keys in (stripped, expected))
        share = len(ours & theirs) / len(ours | theirs)
        if share > most:
            missing = [key for key in expected if _NUMBER.sub("N", key) not in ours]
            unexpected = [f"unexpected {key}" for key in stripped if _NUMBER.sub("N", key) not in theirs]
            misfits = [f"missing {key}" for key in missing or [k for k in expected if k not in stripped]] + unexpected
            most, words = share, f" (nearest is {family.name}: {some(misfits, separator='; ')})"
    return words


def _fit(state: StateDict, expected: Mapping[str, Tensor], name: str) -> StateDict:
    """The state dict with the keys that the network expects; InvalidInput lists what cannot be reconciled."""
    # Batch normalisation counts its training steps, but old files lack that and evaluation does not use it.
    counters = {key: torch.zeros((), dtype=torch.long) for key in expected if key.endswith(".num_batches_tracked")}
    versions = [{**counters, **stripped} for stripped in _without_prefixes(state)]
    best = min(versions, key=lambda version: len(_differences(version, expected)))
    differences = _differences(best, expected)
    if differences:
        raise InvalidInput(
            f"the weights do not fit {name}: {some(differences, separator='; ')}. "
            "Check --arch and --arch-args, and that the file holds all of the network."
        )
    return best


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


def _without_prefixes(state: StateDict) -> Iterator[StateDict]:
    """The state dict, then without the first part of its keys, and so on while all keys share that part."""
    yield state
    heads = {key.partition(".")[0] for key in state}
    while len(heads) == 1 and all("." in key for key in state):
        state = {key.partition(".")[2]: tensor for key, tensor in state.items()}
        yield state
        heads = {key.partition(".")[0] for key in state}


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
