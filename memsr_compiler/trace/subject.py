"""A network that is to be read, as it is after a run of it, and samples with which each reading of it is compared."""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.overrides import TorchFunctionMode

from memsr_compiler.errors import InvalidInput, UnsupportedModel, first_line
from memsr_compiler.quantities import say_count
from memsr_compiler.torch_helpers import InFloat64, copy_module, list_weights, running_itself, unwrap_inside
from memsr_compiler.trace.fx.casts import refuse_autocast
from memsr_compiler.trace.fx.needed import word_of
from memsr_compiler.trace.fx.programs import require_whole, tell_guarded, without_guards
from memsr_compiler.trace.fx.reader import module_of
from memsr_compiler.trace.kept.first_runs import require_nothing_of_the_first, run_as_it_is
from memsr_compiler.trace.kept.held_values import Held, putting_back
from memsr_compiler.trace.kept.remembered import keeps_values
from memsr_compiler.trace.own_code.numbers import Group, numbers_of_modules
from memsr_compiler.trace.own_code.places import words_of
from memsr_compiler.trace.own_code.tensors_only import has_marked_tensors
from memsr_compiler.trace.own_code.unheard import Noted, find_value_question, noting_code
from memsr_compiler.trace.samples import (
    SIZES,
    Range,
    Sample,
    Size,
    has_changed,
    is_same,
    is_steady,
    measure_as_it_is,
    measure_in_float32,
    require_same_weights,
    stated_size,
    take_sample,
    take_samples,
    try_channels,
    types_of_weights,
)

_QUANTISING = ("torch.ao.quantization.", "torchao.")
_NUMPYS = ("__array__", "__array_wrap__", "numpy")  # methods by which a tensor becomes an array, and is made of one
_IN_INTEGERS = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_IN_FLOATS = ("FloatFunctional", "FXFloatFunctional")  # sums, as they are before a network is quantised
_COPIED_BY_TORCH = ("torch.fx.graph_module", "torch._dynamo.eval_frame")
_TAKES_OTHERS = re.compile(r"'Tensor' object has no attribute|positional argument|keyword-only argument|to unpack")
_DRAWS = 64  # runs of a network that draws random numbers: one that drops a path in twenty is met 26 times of 27

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A network that is to be read.

    model     the network, or a copy with the weights that a run of it leaves
    given     the network itself, as it was given; without what shares batches out among processes, which waits for them
    exact     its copy in float64, which gave the samples
    samples   for each number of channels that it takes
    errors    for the others what it raises, and where
    size      height and width of the first of them
    unknown   its code that could ask what no tracer hears, by name: the first; "" without
    asking    its code that took anything but a tensor out of a tensor, by name: the first; "" without
    numbers   that its code has at hand, to decide by
    keeps     whether its code may keep something from one run to the next, elsewhere than in weights
    exported  what is assumed of programs of torch.export in it, in words; it has been told
    of_ours   whether all the code that ran is torch's and of this package, which keeps nothing and asks for no size
    """

    model: nn.Module
    given: nn.Module
    exact: nn.Module
    samples: Mapping[int, Sequence[Sample]]
    errors: Mapping[int, str]
    size: Size
    unknown: str
    asking: str = ""
    numbers: frozenset[Group] = frozenset()
    keeps: bool = False
    exported: tuple[str, ...] = ()
    of_ours: bool = False

    def tell_assumed(self, *, sizes: bool = False, channels: int | None = None) -> tuple[str, ...]:
        """Words on what is assumed of the network and its code, as a warning too: it is compared at samples alone.

        sizes      whether its code was followed at one size of image
        channels   of the images as which it was read, where nobody says that
        """
        code, name = self.unknown or self.asking, type(self.model).__name__
        assumed = []
        if channels is not None and self._takes_others(channels):
            assumed.append(f"images of {say_count(channels, 'channel')}")
        if code or sizes:
            assumed.append(f"{code} does the same to every image" if code else f"{name} does the same at every size")
        for words in assumed:
            log.warning("%s: assumed: %s", name, words)
        return (*self.exported, *assumed)

    def _takes_others(self, channels: int) -> bool:
        """Whether it takes images of other numbers of channels too, but for grey ones by broadcasting."""
        others = self.samples.keys() - {channels}
        if others != {1}:
            return bool(others)
        grey = self.samples[1][0]
        with suppress(Exception):  # whatever the model's own code raises
            return not is_same(grey, take_sample(self.exact, grey.image.repeat(1, channels, 1, 1)).result)
        return True

    def refuse_to_run(self) -> UnsupportedModel:
        """The refusal of a network that takes no image."""
        of_channels = [
            c for c, error in self.errors.items() if re.search(r"expected .* channels|size of tensor a", error)
        ]
        channels = next((c for c in self.errors if c not in of_channels), next(iter(self.errors)))
        size = stated_size(self.model)
        if isinstance(self.model, fx.GraphModule) and size is not None and size != self.size:
            return UnsupportedModel(_say_fixed(self.model, size, torch.empty(1, channels, *self.size)))
        error = first_line(self.errors[channels])
        way_out = "give the module that takes one image, whatever its height and width"
        if _TAKES_OTHERS.search(error):
            way_out += "; one that takes a dictionary, a list or several tensors is to be wrapped in such a module"
        shape = (1, channels, *self.size)
        return UnsupportedModel(
            f"{type(self.model).__name__} itself fails on a float64 image {shape}: {error}; {way_out}"
        )


def _say_fixed(program: fx.GraphModule, size: Size, image: Tensor) -> str:
    """The message on a program into which the one size of image that it was exported for is written, and where."""
    run = _Run(program)
    with suppress(Exception):  # which is known
        run.run(image)
    return (
        f"{run.place}: the size of the image, {size[0]}x{size[1]}, is written into the program, which was exported for "
        "that alone, and a plain network takes every size; export it with free sizes: torch.export.export(network, "
        "(image,), dynamic_shapes=({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)), Dim of torch.export"
    )


class _Run(fx.Interpreter):
    """A run of a program; where it ends, `place` is where it has come to."""

    place = "the network"

    def run_node(self, n: fx.Node) -> Any:
        if n.op.startswith("call_"):
            self.place = f"{module_of(n)[0] or 'the network'}: {word_of(n)}"
        return super().run_node(n)


def observe(model: nn.Module, input_range: Range, sizes: Sequence[Size] = SIZES) -> Subject:
    """Run a network, which is not changed, on small images.

    sizes   of the images, of which it has to take the first

    Raises InvalidInput as `require_readable`, for random numbers, and for train mode where it counts; UnsupportedModel
    for weights set by the image.
    """
    itself, model = model, unwrap_inside(model)
    if any(isinstance(module, nn.parallel.DistributedDataParallel) for module in itself.modules()):
        itself = model
    require_whole(model)
    _require_numbers(model)
    _require_own_calls(model)
    refuse_autocast(model)
    exported = tell_guarded(model)
    model = without_guards(model)
    given, reference = model, copy_module(model, torch.float64)
    require_readable(reference)
    _require_copied(model, reference)
    tried = copy_module(reference, torch.float64)  # out of hearing: copying runs much code
    with noting_code(reference) as noted:
        taken, failed = try_channels(reference, tried, input_range, sizes[0])
    _require_heard(model, noted)
    held = Held([model], weights=False)
    before, private = _shared_chance(), _OwnGenerators()
    with noting_code(reference) as noted, private:
        samples, errors = take_samples(reference, taken, input_range, sizes)
    _require_heard(model, noted)
    if any(change.place.outside for change in held.list_changes()):
        held.put_back()
        run_as_it_is(model, input_range, sizes[0])
        reference = copy_module(model, torch.float64)
        samples, errors = take_samples(reference, taken, input_range, sizes)
    if samples and (private.used or _shared_chance() != before):
        _require_no_chance(reference, copy_module(model, torch.float64), samples)
    if samples and any(module.training for module in model.modules()):
        _require_mode(model, next(iter(samples.values())))
    if samples and has_changed(reference, model):
        require_same_weights(reference, copy_module(model, torch.float64), samples)
        model = reference
    of_ours = not noted.codes and not noted.unknown and not noted.written
    if samples and not of_ours:
        with held.as_it_was():
            require_nothing_of_the_first(given, input_range, sizes[0])
    numbers = numbers_of_modules(model, noted.codes).union(*noted.codes.values())
    keeps = bool(noted.unknown) or any(map(keeps_values, noted.codes))
    unknown = noted.unknown or (type(model).__name__ if has_marked_tensors(given) else "")
    return Subject(
        model,
        itself,
        reference,
        samples,
        failed | errors,
        sizes[0],
        unknown,
        noted.asking,
        numbers,
        keeps,
        exported,
        of_ours,
    )


def _require_heard(model: nn.Module, noted: Noted) -> None:
    """Raises UnsupportedModel for code that ran where nobody hears it, or that asks whether somebody does."""
    if noted.threaded is not None:
        raise UnsupportedModel(
            f"{type(model).__name__} (at {noted.threaded.co_filename}:{noted.threaded.co_firstlineno}) runs code in "
            "threads of its own, into which nothing can be followed; let forward call it itself"
        )
    if noted.watching is not None:
        raise UnsupportedModel(
            f"{type(model).__name__} (at {noted.watching.co_filename}:{noted.watching.co_firstlineno}) asks whether "
            "torch or Python is listening to it (dispatch modes, fake tensors, a profile), as they do while it is "
            "read, so that nobody can know what it does otherwise; take that question out"
        )


def _require_numbers(model: nn.Module) -> None:
    """Raises InvalidInput where torch.fx has put proxies in the place of attributes, of whose numbers none are left."""
    for path, module in model.named_modules():
        for name, value in {**vars(module), **module._buffers}.items():
            if issubclass(type(value), fx.Proxy):
                raise InvalidInput(
                    f"{path or type(model).__name__}: its {name} holds no numbers any more: forward assigns to it "
                    f"(self.{name} = ...), and torch.fx, which traced the network, left a Proxy there, also in the "
                    "network that it was given; make the network anew, and give that, untraced"
                )


def _require_own_calls(model: nn.Module) -> None:
    """Raises InvalidInput where something else than a module's own code was put where `module.compile()` puts that,
    compiled: it would be called, and copies of the module know nothing of it."""
    for path, module in model.named_modules():
        called = vars(module).get("_compiled_call_impl")
        if called is not None and getattr(called, "_torchdynamo_orig_callable", called) != module._call_impl:
            raise InvalidInput(
                f"{path or type(model).__name__}: its _compiled_call_impl, which is called in place of forward, is not "
                "what compile() makes of that, and is not read; leave it out, or write it into forward"
            )


def _require_copied(model: nn.Module, copied: nn.Module) -> None:
    """Raises InvalidInput where a copy is another network: what is read, and what it is compared with, are copies.

    Programs of torch.export, and what torch.compile gives, torch itself copies, but for notes of its own on them.
    """
    copies = dict(copied.named_modules())
    for path, module in model.named_modules():
        if type(module).__module__ in _COPIED_BY_TORCH:
            continue
        held = vars(copies.get(path, module))
        for name, value in vars(module).items():
            if isinstance(value, (bool, int, float, str)) and value == value and held.get(name) != value:
                raise InvalidInput(
                    f"{path or type(model).__name__}: its {name} is {value!r}, and that of its copy is not; networks "
                    "are copied before they are read: let its __getstate__ or __deepcopy__ keep what it computes with"
                )


def require_usual_tensors() -> None:
    """Raises InvalidInput where torch makes tensors elsewhere than on the CPU by itself, or without numbers."""
    made = torch.empty(0)
    if type(made) is not Tensor:
        raise InvalidInput(
            f"torch makes a {type(made).__name__} of every tensor here, without numbers in it, and a network is read "
            "by running it; leave that context (FakeTensorMode) first"
        )
    if made.device.type != "cpu":
        raise InvalidInput(
            f"torch makes new tensors on '{made.device}' here (torch.set_default_device, or a `with torch.device`), "
            "and networks are read on the CPU; call torch.set_default_device('cpu') first, the network may stay "
            "where it is"
        )


def _shared_chance() -> tuple[object, ...]:
    """Where the generators of random numbers are that everybody shares: torch's, Python's and NumPy's."""
    numpys = map(np.asarray, np.random.get_state(legacy=True))
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), *(part.tobytes() for part in numpys)


class _OwnGenerators(TorchFunctionMode):
    """Notes whether random numbers are drawn from a generator that nobody else has."""

    used = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.used = self.used or (kwargs or {}).get("generator") is not None
        return func(*args, **(kwargs or {}))


def require_no_value_question(model: nn.Module, samples: Sequence[Sample]) -> None:
    """Raises UnsupportedModel for code that decides by the values of its image where no tracer hears it."""
    for image, _ in samples:
        if (question := find_value_question(model, image)) is not None:
            where = f"{type(model).__name__}{words_of(question.place)}"
            if question.name in _NUMPYS:
                raise UnsupportedModel(
                    f"{where} takes numbers out of the image, or of what is made of it, for NumPy, which computes "
                    "outside torch, where nothing can be followed; call torch's own functions (torch.clamp, say, for "
                    "numpy.clip)"
                )
            raise UnsupportedModel(
                f"{where} takes numbers out of the image, or of what is made of it, "
                "and a plain network does the same to every image; rewrite that line with operations on the whole of it"
            )


def _require_mode(model: nn.Module, samples: Sequence[Sample]) -> None:
    """Raises InvalidInput where a network in train mode, as new ones are, gives another image than in eval mode."""
    try:
        network = copy_module(model, torch.float64)
        network.eval()  # which a module of somebody's need not return
        others = [take_sample(network, image).result for image, _ in samples]
    except Exception:  # whatever the model's own code raises; a program of torch.export has no modes
        return
    pairs = zip(samples, others, strict=True)
    if any(not is_same(s, other) if isinstance(other, Tensor) else isinstance(s.result, Tensor) for s, other in pairs):
        raise InvalidInput(
            f"{type(model).__name__} is in train mode, in which it gives something else than in eval mode; call "
            "model.eval() first"
        )


def _require_no_chance(model: nn.Module, fresh: nn.Module, samples: Mapping[int, Sequence[Sample]]) -> None:
    """Raises InvalidInput where the random numbers that a network draws count.

    fresh   a copy that has not run yet: what is made of them in a first run, such as a layer, stays
    """
    image, first = next(iter(samples.values()))[0]
    with InFloat64():
        if all(torch.equal(model(image.clone()), first) for _ in range(_DRAWS)):
            if torch.equal(fresh(image.clone()), first):
                return
            raise InvalidInput(
                f"{type(model).__name__} makes something of random numbers when it runs first, such as a layer, and "
                "keeps that; run it on an image once, load its weights then, and give it afterwards"
            )
    first_way = "call model.eval() first, or " if any(module.training for module in model.modules()) else ""
    if any(isinstance(module, fx.GraphModule) for module in model.modules()):  # whose modes the export has fixed
        first_way = "export network.eval() again, or "
    raise InvalidInput(f"{type(model).__name__} draws random numbers as it runs; {first_way}take out what draws them")


def require_steady(subject: Subject, *, unheard: bool) -> tuple[str, ...]:
    """Raises UnsupportedModel for a network that remembers, or decides by values.

    unheard   whether its code could do so where the reader did not hear it
    Warns of one that is another in float32, and gives words on that: see `Teacher.assumed`.  This is asked once it
    is known that the network can be read: why it cannot says more.
    """
    if unheard:
        require_no_value_question(subject.model, next(iter(subject.samples.values())))
    name = type(subject.model).__name__
    if not is_steady(subject.exact, subject.samples, keeps=subject.keeps):
        raise UnsupportedModel(
            f"{name} gives another result for the same image after it has seen another: it remembers, "
            "as networks for films do; give a module that takes all it needs as channels of an image"
        )
    return _compare_types(subject)


def _compare_types(subject: Subject) -> tuple[str, ...]:
    """Warn of a network that is another in float32 than in float64; raise InvalidInput where copies are no copies.

    Gives words on it: see `Teacher.assumed`.  However much it is, it is not refused: which of the two was meant nobody
    knows, code may ask for a type on purpose, and large values that cancel make any number of it.
    """
    name = type(subject.model).__name__
    with running_itself(subject.given):
        itself = measure_as_it_is(subject.given, subject.exact, subject.samples)
    if math.isnan(itself) and not isinstance(subject.given, fx.GraphModule):  # a program does what its graph says
        log.warning("%s itself takes no image on which it could be compared with its copy, which is what is read", name)
        return (f"{name} does what its copy does, with which it could be compared on no image",)
    if itself == 0 and types_of_weights(subject.given) == {torch.float32}:
        return ()
    if off := measure_in_float32(subject.model, subject.samples):
        log.warning(
            "%s gives something else in float32 than in float64, by %.2g of its largest value: it rounds, or its code "
            "asks for the image's type; it is read as in float64",
            name,
            off,
        )
        return (f"{name} is meant as it is in float64 (in float32 it is off by {off:.2g} of its largest value)",)
    if itself > 0:
        why = (
            "its code asks for the type of its weights, or its copies lack something (__deepcopy__, __getstate__, "
            "hooks on what torch.fx made, a graph that was changed and not recompiled)"
        )
        if place := _find_written(subject.given, subject):
            why = (
                f"its copies write into it, in {place}, as their code names the network by a global, a class or "
                "something else that copies have in common; let that come to it by self, or by the module of a hook"
            )
        raise InvalidInput(
            f"{name} gives something else than a copy of it in float64, by {itself:.2g} of its largest value, and "
            f"copies are what is read: {why}"
        )
    return ()


def _find_written(given: nn.Module, subject: Subject) -> str:
    """The place in a network into which a run of its copy writes; "" for none that is known."""
    image, _ = next(iter(subject.samples.values()))[0]
    with putting_back(given, weights=True) as held:
        take_sample(subject.exact, torch.full_like(image, float(image.max())))
        return next((str(change.place) for change in held.list_changes() if not change.place.outside), "")


def require_readable(model: nn.Module) -> None:
    """Raise InvalidInput for a module that cannot be read as it is, in whatever way."""
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidInput(
            "TorchScript is not read; give the nn.Module it was made from, or its state dict with --arch"
        )
    if _global_forward_hooks or _global_forward_pre_hooks:
        raise InvalidInput(
            "torch has a hook for every module (register_module_forward_hook, register_module_forward_pre_hook), which "
            "no reader sees; take it off, or write it into forward"
        )
    if model._forward_hooks or any(
        not type(h).__module__.startswith("torch.") or isinstance(h, fx.GraphModule)
        for h in model._forward_pre_hooks.values()
    ):
        raise InvalidInput(
            "the network has a hook of its own, which no reader sees; take it off, or write it into forward"
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InvalidInput(f"{name}: TorchScript is not read; put the nn.Module it was made from in its place")
        if refusal := _refuse_quantisation(module):
            raise InvalidInput(f"{name or 'the network'}: {refusal}")
        stateful = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
        if module.training and isinstance(module, stateful):
            raise InvalidInput(
                f"{name or 'the network'}: {type(module).__name__} is in train mode; call model.eval() first"
            )
        variance = module.running_var if isinstance(module, nn.modules.batchnorm._NormBase) else None
        if variance is not None and bool((variance + module.eps < 0).any()):
            raise InvalidInput(f"{name or 'the network'}: running_var has values below 0; the checkpoint is damaged")
    for name, tensor in list_weights(model).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InvalidInput(f"{name}: has NaN or infinite values; the checkpoint is damaged or training diverged")


def _refuse_quantisation(module: nn.Module) -> str:
    """Words on a module that torch put in to quantise a network, or that computes in integers; "" for others."""
    homes = [(f"{kind.__module__}.", kind.__name__) for kind in type(module).__mro__]
    name = type(module).__name__
    for home, base in homes:
        if home.startswith(_QUANTISING) and base.endswith("FakeQuantizeBase"):
            return (
                f"{name} rounds to 8 bits: the network is one that was trained for these. Load its weights into the "
                "network as it was before, by load_state_dict(..., strict=False), of which missing_keys have to be "
                "empty; convert that, and memsrc quantize makes 8 bits of what comes out"
            )
        if home.startswith(_QUANTISING) and base.endswith("ObserverBase"):
            return (
                f"{name} watches values, to quantise the network later; give the network as it was before, which "
                "computes the same, and memsrc quantize makes 8 bits of what comes out"
            )
        if home.startswith(_IN_INTEGERS) and base not in _IN_FLOATS:
            return f"{name} computes in 8-bit integers; give the network as it was before it was quantised"
    return ""
