"""Networks that somebody's own code builds, `--arch package.module:factory`, with the weights of a file in them."""

from __future__ import annotations

import importlib
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PureWindowsPath
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.teachers.anew import NotDone, list_beside, split_off
from memsr_compiler.teachers.held import list_held, list_saved
from memsr_compiler.teachers.state_dict import call, load_strictly
from memsr_compiler.teachers.unset import Seen, differ, require_all_set, see
from memsr_compiler.teachers.wrappers import StateDict, Weights, read_notes
from memsr_compiler.torch_helpers import prepare, unwrap_inside
from memsr_compiler.trace.fx.programs import tell_guarded, without_guards

_FILE = re.compile(r".*[/\\].*|.*\.py")


def build_own(arch: str, options: Mapping[str, object], state: StateDict) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with these weights, and what is assumed of its code, in words.

    It is built twice, and in another process, which shows whether it computes with numbers that it draws as it is
    built or imported.  Raises InvalidInput where it does, or cannot be built, or the weights are not its own.
    """
    module = arch.rpartition(":")[0]
    before = list_beside(module)
    stays = module in sys.modules and module not in before  # made by hand, or of an installed package
    with split_off(partial(_see_anew, arch, options, state), before) as ask:
        network, fitted, reason, exported = _build_twice(arch, options, state)
        if not stays:
            reason = _compare_with_anew(network, partial(ask, _name(fitted, state)), arch, before=bool(before))
    if not reason:
        return network, exported
    words = f"{arch} computes with no numbers that it draws as it is built (building it twice does not show it: "
    return network, (*exported, f"{words}{reason.rstrip('.').replace(';', ',')})")


def _build_twice(
    arch: str, options: Mapping[str, object], state: StateDict
) -> tuple[nn.Module, StateDict, str, tuple[str, ...]]:
    """The network, its weights under the names that it takes, words as of `_compare_with_another`, and on what is
    assumed of programs of torch.export in it."""
    factory = import_factory(arch)
    imported = _read_random_state()
    given, network, fitted = _build(factory, arch, options, state)
    exported = tell_guarded(given)
    build = partial(_build, factory, arch, options, fitted, fitted=True)
    drew = _read_random_state().drew_since(imported)
    return network, fitted, _compare_with_another(given, network, build, arch, drew=drew), exported


def _compare_with_anew(network: nn.Module, ask: Callable[[], Seen], arch: str, *, before: bool) -> str:
    """Words on why a network whose modules are imported anew tells nothing of drawn numbers; "": it does.

    before   whether some had been imported before: what was set in them since then, it does not have
    Raises InvalidInput where it shows that there are such.
    """
    try:
        again = ask()
    except NotDone as error:
        return str(error).replace(f"--arch {arch}: ", "")
    if before and differ(see(network), again):
        return "its modules, imported anew, compute something else than they do as they were imported before"
    require_all_set(network, again, arch, "built twice, its modules imported anew")
    return ""


def _see_anew(arch: str, options: Mapping[str, object], state: StateDict, fitted: _Named) -> Seen:
    """Results of its network with the weights of a file, in a process where it is not imported yet."""
    named, notes = fitted
    weights = {key: state[value] if isinstance(value, str) else value for key, value in named.items()}
    return see(_build(import_factory(arch), arch, options, Weights(weights, notes), fitted=True)[1])


_Named: TypeAlias = tuple[dict[str, "str | Tensor"], dict[str, dict[str, object]]]


def _name(fitted: StateDict, state: StateDict) -> _Named:
    """Weights by the names that they have in the file, which the other process has, too; others as they are."""
    names = {id(tensor): key for key, tensor in state.items()}
    return {key: names.get(id(tensor), tensor) for key, tensor in fitted.items()}, read_notes(fitted)


def _compare_with_another(
    given: nn.Module, network: nn.Module, build: Callable[[], _Built], arch: str, *, drew: bool
) -> str:
    """Words on why a second network tells nothing of numbers drawn as it is built; "": it does.

    drew   whether the first drew numbers
    Raises InvalidInput where it shows that there are such.
    """
    held = _describe_held(network)
    torch.rand(())  # so that code that begins with the same seed each time is seen to have drawn
    before = _read_random_state()
    try:
        given_again, again, _ = build()
    except InvalidInput as error:
        return f"the second time: {str(error).removeprefix(f'--arch {arch}: ')}"
    drew_again = _read_random_state().drew_since(before)
    if given_again is given:
        return "it gives the same network each time"
    if _describe_held(network) != held:
        raise InvalidInput(
            f"--arch {arch}: changes what the network that it built before holds, each time it builds one. Let each "
            "have lists and tables of its own."
        )
    require_all_set(network, see(again), arch, "built twice")
    if drew and not drew_again:
        return "it draws some the first time alone"
    return "its networks share parts" if _has_parts_of(given, given_again) else ""


def import_factory(arch: str) -> Callable[..., object]:
    """Import `package.module:factory`.  Raises InvalidInput where there is nothing to call."""
    module_name, _, attribute = arch.rpartition(":")
    try:
        factory: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except Exception as error:  # importing runs the user's code, which may raise anything
        if isinstance(error, (ImportError, TypeError)) and _FILE.fullmatch(module_name):
            path = PureWindowsPath(module_name)  # which knows both kinds of slashes
            raise InvalidInput(
                f"--arch {arch}: names a file, and a module of Python is wanted. Say --arch {path.stem}:{attribute}, "
                "in the folder of that file, or with it on PYTHONPATH."
            ) from error
        lacks = isinstance(error, ModuleNotFoundError)
        way_out = "Check PYTHONPATH." if lacks else "Check the name, and that file."
        raise InvalidInput(
            f"--arch {arch}: cannot be imported ({type(error).__name__}: {first_line(error)}). {way_out}"
        ) from error
    if not callable(factory):
        raise InvalidInput(f"--arch {arch}: is a {type(factory).__name__}, not something to call.")
    return factory


_Built: TypeAlias = tuple[nn.Module, nn.Module, StateDict]


def _build(
    factory: Callable[..., object], arch: str, options: Mapping[str, object], state: StateDict, *, fitted: bool = False
) -> _Built:
    """The module that the code gives; it with these weights, without what torch.compile and torch.export add; and the
    weights under the names that it takes.

    fitted   as in `load_strictly`
    """
    anew = tree_map(lambda value: value, dict(options))  # tables out of which code may take what it has read
    given = call(factory, anew, arch)
    try:
        network = unwrap_inside(given)
    except InvalidInput as error:
        raise InvalidInput(f"--arch {arch}: {error}") from error
    except AttributeError as error:
        told = first_line(error)
        raise InvalidInput(
            f"--arch {arch}: does not call super().__init__() in each of its modules ({told})."
        ) from error
    network = without_guards(network)
    state = load_strictly(network, state, arch, fitted=fitted)
    return given, prepare(network), state


@dataclass(frozen=True)
class _RandomState:
    """Where the sequences of random numbers are, of torch, of NumPy and Python."""

    seed: int
    torchs: bytes
    others: tuple[object, ...]

    def drew_since(self, before: _RandomState) -> bool:
        """Whether numbers were drawn that are others each time, unlike those behind torch.manual_seed."""
        return self.others != before.others or (self.seed == before.seed and self.torchs != before.torchs)


def _read_random_state() -> _RandomState:
    others = str(np.random.get_state(legacy=False)), random.getstate()
    return _RandomState(torch.initial_seed(), torch.get_rng_state().numpy().tobytes(), others)


def _describe_held(network: nn.Module) -> list[object]:
    """The numbers and texts that it holds, the kinds of modules, and the shapes of tensors."""
    held = list_held(network)
    return [type(x) if isinstance(x, nn.Module) else x.shape if isinstance(x, Tensor) else x for x in held]


def _has_parts_of(network: nn.Module, again: nn.Module) -> bool:
    """Whether two networks have one part in common that no weights set."""
    own = {id(part) for part in _list_unset(network)}
    return any(id(part) in own for part in _list_unset(again))


def _list_unset(network: nn.Module) -> Iterator[nn.Module | Tensor]:
    """Tensors that no state dict holds, and modules of somebody's with attributes of their own."""
    saved = {id(tensor) for tensor in list_saved(network).values()}
    for each in list_held(network):
        if isinstance(each, nn.Module):
            of_torch = type(each).__module__.startswith("torch.")
            if not of_torch and vars(each).keys() > vars(nn.Module()).keys():
                yield each
        elif isinstance(each, Tensor) and id(each) not in saved:
            yield each
