"""Questions of a network's code that no tracer hears: behind `isinstance`, in a `try`, by way of a text.

torch.fx answers that its proxies are no tensors, and code that catches every exception catches the tracer's too.  So
what code ran is looked at, and where it could ask so, the network is run once more: on an image whose numbers are
followed, and on one whose sides are symbols.
"""

from __future__ import annotations

import gc
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from traceback import FrameSummary
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memsr_compiler.torch_helpers import InFloat64, copy_module
from memsr_compiler.trace.kept.held_values import leaving_values
from memsr_compiler.trace.own_code.known_code import KnownCode
from memsr_compiler.trace.own_code.numbers import Group, numbers_at_hand
from memsr_compiler.trace.own_code.own_files import OURS, TORCH, is_foreign, is_pythons, lies_in
from memsr_compiler.trace.own_code.own_kinds import find_own_kind
from memsr_compiler.trace.own_code.read_off import KnownNumbers, no_pixels, without_reports
from memsr_compiler.trace.own_code.statements import Line, Places, decides_by_number, only_raises, only_tells, refuses
from memsr_compiler.trace.own_code.tensors_only import OnlyTensors, name_of
from memsr_compiler.trace.views import HEIGHT, WIDTH

_SYMBOL = os.path.join(TORCH, "__init__.py")
_SYMBOLS = os.path.join(TORCH, "fx", "experimental")
_MADE_NUMBERS = frozenset(
    getattr(kind, name).__code__
    for kind, name in ((torch.SymInt, "__int__"), (torch.SymFloat, "__int__"), (torch.SymFloat, "__float__"))
    if hasattr(getattr(kind, name, None), "__code__")
)
"""A size that is made a number decides nothing by that; what its function does not do, is looked for at other sizes."""
_TEXTS = frozenset(
    getattr(kind, name).__code__
    for kind in (torch.SymInt, torch.SymFloat, torch.SymBool)
    for name in ("__repr__", "__hash__")
)
_HASH = Tensor.__hash__.__code__
"""Which of two tensors are one may hang on a side (`len({x, x.contiguous()})`), and no torch function hears of that."""
_TELLS_NO_VALUE = (bool, type(None), torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format)
_OF_ITS_KIND = frozenset((
    "__dir__", "__hash__", "__iter__", "__len__", "_version", "dim", "element_size", "get_device", "itemsize", "names",
    "nbytes", "ndim", "ndimension", "nelement", "numel", "output_nr", "result_type", "shape", "size", "storage_offset",
    "stride", "type",
))  # fmt: skip
"""What a tensor is asked, and tells nothing of its values."""


_KINDS_OF_READERS = frozenset(("FakeTensor", "FakeTensorMode"))
_OF_READERS = frozenset((
    "_get_current_dispatch_mode", "_get_current_dispatch_mode_stack", "_get_current_function_mode",
    "_get_current_function_mode_stack", "_get_dispatch_mode", "_get_dispatch_stack_at", "_get_function_stack_at",
    "_is_torch_function_mode_enabled", "_len_torch_dispatch_stack", "_len_torch_function_stack", "active_fake_mode",
    "detect_fake_mode", "getprofile", "is_fake", "is_in_any_mode_without_ignore_compile_internals",
    "is_in_torch_dispatch_mode", "is_in_torch_function_mode",
))  # fmt: skip
"""Functions of torch's and of Python's, and kinds of tensors, that tell code whether it is being looked at."""
_TO_THREADS = re.compile(r"(concurrent/futures|multiprocessing|asyncio)/|(queue|threading)\.py$")
_HANDING_OVER = frozenset((
    "apply", "apply_async", "imap", "imap_unordered", "join", "map", "map_async", "notify", "notify_all", "put",
    "result", "run_coroutine_threadsafe", "set", "starmap", "submit", "wait",
))  # fmt: skip
"""Functions of Python's, in these files, by which work goes to a thread that was there before, which nobody hears."""
_ASKED_OF = _HANDING_OVER | _OF_READERS


class Noted:
    """Foreign code that ran, and the numbers that it has at hand.

    unknown     the first that could ask what a tracer does not hear, by name; "" without
    asking      the first that took anything but a tensor out of a tensor, by name; "" without
    threaded    foreign code that ran in a thread of its own, of which no tracer knows, or hands work to one
    watching    foreign code that asks whether it is being looked at
    written     whether code ran that torch.fx wrote, of whoever's network
    """

    def __init__(self, model: nn.Module) -> None:
        self.threaded: CodeType | None = None
        self.watching: CodeType | None = None
        self.written = False
        self.codes: dict[CodeType, frozenset[Group]] = {}
        self._imports = 0  # frames of Python's that import: what runs within is no code of the network, and much
        self._passed = dict[int, CodeType]()  # that asks nothing, by its id, as to hash code takes long; held for that
        self.known = KnownCode(model)
        self.asking = ""
        self.unknown = find_own_kind(model) if self.known.forwards() else type(model).__name__

    def note(self, frame: FrameType, event: str, called: Any) -> None:
        code = frame.f_code
        if event == "c_return" or id(code) in self._passed:
            return
        if event == "c_call" and getattr(called, "__name__", "") in _OF_READERS and is_foreign(code.co_filename):
            self.watching = code
        imports = code.co_filename.startswith("<frozen importlib")
        if imports:
            self._imports += {"call": 1, "return": -1}.get(event, 0)
        if event != "call":
            return
        if not (imports or code.co_name in _ASKED_OF or code is _HASH or is_foreign(code.co_filename)):
            self._passed[id(code)] = code
            self.written |= code.co_filename.startswith("<eval_with_key>")
            return
        asker = frame.f_back
        if code.co_name in _ASKED_OF and asker is not None and is_foreign(asker.f_code.co_filename):
            self._note_call(frame, asker.f_code)
        if code is _HASH and asker is not None and is_foreign(asker.f_code.co_filename) and not self.asking:
            self.asking = getattr(asker.f_code, "co_qualname", asker.f_code.co_name)  # of Python 3.11
        if not is_foreign(code.co_filename) or _is_made_for_us(frame):
            return
        if code not in self.codes:
            if not _KINDS_OF_READERS.isdisjoint(code.co_names):
                self.watching = code
            if not self._imports:  # else once it runs in the network
                self.codes[code] = numbers_at_hand(frame)
        if self.unknown or self._imports:  # torch imports the first time only; code that does is noted
            return
        if not _is_copying(frame) and not self.known.holds(frame):
            self.unknown = getattr(code, "co_qualname", code.co_name)  # of Python 3.11

    def _note_call(self, frame: FrameType, asker: CodeType) -> None:
        """Note what foreign code calls of torch's, or of Python's, by its name."""
        code = frame.f_code
        if is_pythons(code.co_filename) and _TO_THREADS.search(code.co_filename.replace(os.sep, "/")):
            self.threaded = asker if _is_waited_for(frame.f_locals.get("self")) else self.threaded
        elif code.co_name in _OF_READERS and not is_foreign(code.co_filename):
            self.watching = asker


def _is_waited_for(owner: Any) -> bool:
    """Whether a thread waits for an event, or for what is put into a queue; True of all that does not say so.

    One that looks from time to time is as little known as one that is not told at all, and so is the code that asks.
    """
    condition = {threading.Event: "_cond", queue.Queue: "not_empty"}.get(type(owner))
    return condition is None or bool(getattr(getattr(owner, condition, None), "_waiters", True))


def _is_made_for_us(frame: FrameType) -> bool:
    """Whether code has no file since Python makes it: of named tuples, and of dataclasses that are not foreign."""
    made_of = frame.f_globals
    if not frame.f_code.co_filename.startswith("<"):
        return False
    of_data = frame.f_code.co_name.startswith("__") and not is_foreign(str(made_of.get("__file__", "<nobody>")))
    return of_data or str(made_of.get("__name__")).startswith("namedtuple_")


def _is_copying(frame: FrameType) -> bool:
    """Whether code runs before the network does, as it is copied."""
    outer = next((f for f in _frames(frame) if _is_our_run(f.f_code)), None)
    return outer is not None and outer.f_code is copy_module.__code__


@contextmanager
def noting_code(model: nn.Module) -> Iterator[Noted]:
    """Note the code that a network runs in the context."""
    noted = Noted(model)

    def note_threads(frame: FrameType, event: str, _: Any) -> None:
        if is_foreign(frame.f_code.co_filename):
            noted.threaded = frame.f_code

    before, collects = threading.getprofile(), gc.isenabled()
    threading.setprofile(note_threads)
    gc.disable()  # whose callbacks and finalisers are of anybody's code
    only_tensors = OnlyTensors(model, lambda frame: refuses(callers(frame)))
    try:
        with only_tensors, _told(noted.note):
            yield noted
        noted.unknown = noted.unknown or noted.known.find_remembering()
    finally:
        noted.asking = noted.asking or only_tensors.asker
        threading.setprofile(before)  # None, where nobody was told
        if collects:
            gc.enable()


@contextmanager
def _told(listener: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Tell a listener of each call in the context, and afterwards whoever was told before."""
    before: Any = sys.getprofile()
    sys.setprofile(listener)
    try:
        yield
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:  # Python's own profiler, which is no function
            sys.setprofile(None)
            before.enable()


class Question(NamedTuple):
    """A line that takes numbers out of tensors, and the function by which it does."""

    place: FrameSummary
    name: str


@leaving_values
def find_value_question(model: nn.Module, image: Tensor) -> Question | None:
    """The line of a network's code that takes numbers out of what hangs on the image (1, C, H, W), to decide by them.

    Lines that can do nothing but raise are passed over.
    """
    followed = _Followed(image.clone())
    with torch.no_grad(), InFloat64(), _TakenOut(followed), followed:
        _run(copy_module(model, torch.float64), followed.image)
    return followed.question


@leaving_values
def find_size_question(model: nn.Module, channels: int) -> FrameSummary | None:
    """The line of a network's code that decides by the sides of the image; None where none is found.

    No pixel is computed.  Code that takes no symbol for a number ends there.
    """
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    places: list[FrameSummary] = []

    class Listening(ShapeEnv):
        """Notes the questions that are asked by no operation."""

        def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
            asker = None if places else _find_asker()
            if asker is not None and not only_raises(found := callers(asker)):
                places.append(found[0])
            return super().evaluate_expr(*args, **kwargs)

        def replace(self, expr: Any) -> Any:  # type: ignore[override]  # torch's is one that remembers
            """The operand that torch computes with, which is to stay short."""
            return names.shorten(super().replace(expr), self.create_unspecified_symbol)

    image = torch.empty(1, channels, HEIGHT, WIDTH, dtype=torch.float64)
    free: Any = StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.STATIC, DimDynamic.STATIC, DimDynamic.DYNAMIC, DimDynamic.DYNAMIC],
        dynamic_strides=[DimDynamic.INFER_STRIDE] * 4,
        constraint_sizes=[None] * 4,
    )
    copied = copy_module(model, torch.float64)
    names, sizes = _Names(), Listening()
    sizes._replacements_version_counter = 1  # torch asks for no replacements before there are some
    mode = no_pixels(sizes)
    symbolic = mode.from_tensor(image, symbolic_context=free)
    sides: Any = symbolic.shape[2:]
    names.values = {side.node.expr: number for side, number in zip(sides, (HEIGHT, WIDTH), strict=True)}

    def note_text(asker: FrameType) -> None:
        if not places and not only_tells(found := callers(asker)):
            places.append(found[0])

    with torch.no_grad(), InFloat64(), mode, KnownNumbers(), without_reports(), _hearing_texts(note_text):
        _run(copied, symbolic)
    return places[0] if places else None


class _Names:
    """Symbols that stand for what was computed of others.

    `h = h + h // 2`, again and again, is a term twice as long each time, and torch walks through it at each question.
    values   of all symbols, for the image that is looked at
    """

    def __init__(self) -> None:
        self.values: dict[Any, int] = {}
        self._names: dict[Any, Any] = {}

    def shorten(self, term: Any, make: Callable[..., Any]) -> Any:
        """The symbol of a long term of whole numbers, which `make` makes the first time; a short term itself."""
        if not self.values or not getattr(term, "is_integer", False) or not _is_long(term):
            return term
        if term not in self._names:
            from torch._dynamo.source import ConstantSource
            from torch.fx.experimental.symbolic_shapes import DimDynamic

            value = int(term.xreplace(self.values))
            name = ConstantSource(f"computed_{len(self._names)}")
            self._names[term] = make(value, source=name, dynamic_dim=DimDynamic.DYNAMIC)
            self.values[self._names[term]] = value
        return self._names[term]


_LONG = 64  # parts of a term: more than usual code makes, and few enough to be walked through


def _is_long(term: Any) -> bool:
    waiting = [term]
    for _ in range(_LONG):
        if not waiting:
            return False
        waiting += waiting.pop().args
    return True


@contextmanager
def _hearing_texts(note: Callable[[FrameType], None]) -> Iterator[None]:
    """Call `note` for each line of foreign code that takes the text or the hash of a symbol."""

    def hear(frame: FrameType, event: str, _: Any) -> None:
        asker = frame.f_back
        if event == "call" and frame.f_code in _TEXTS and asker and is_foreign(asker.f_code.co_filename):
            note(asker)

    with _told(hear):
        yield


def _run(model: Callable[[Tensor], Any], image: Tensor) -> None:
    try:
        model(image)
    except Exception:  # whatever the model's own code raises; what was asked before has been heard
        return


def _find_asker() -> FrameType | None:
    """The frame of foreign code that decided by a symbol; None where an operation did, or a number was made of it."""
    frames = list(_frames())
    between = list(takewhile(lambda f: _is_symbols(f.f_code.co_filename), frames))
    asker = next(iter(frames[len(between) :]), None)
    if asker is None or not is_foreign(asker.f_code.co_filename):
        return None
    made = any(f.f_code in _MADE_NUMBERS for f in between)
    return None if made and not decides_by_number(callers(asker)) else asker


def _is_symbols(name: str) -> bool:
    """Whether a file lies between a question about a symbol and its answer; operations lie elsewhere."""
    return name in (_SYMBOL, __file__) or lies_in(name, (_SYMBOLS,))


def _frames(innermost: FrameType | None = None) -> Iterator[FrameType]:
    """Frames of what is run, the innermost first."""
    frame: FrameType | None = innermost or sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def foreign_lines() -> Places:
    """The innermost line of foreign code that is run, and those that called it; empty where there is none."""
    network = takewhile(lambda f: f.f_code is not _run.__code__, _frames())  # not whoever called us
    asker = next((f for f in network if is_foreign(f.f_code.co_filename)), None)
    return () if asker is None else callers(asker)


def callers(frame: FrameType) -> Places:
    """The line of a frame, and those that called it, up to where we run the network."""
    found: list[FrameSummary] = []
    last: FrameType | None = frame
    while last is not None and not _is_our_run(last.f_code):
        summary = FrameSummary(last.f_code.co_filename, last.f_lineno, last.f_code.co_name)
        found.append(summary if found else Line(last, last.f_lineno))
        last = last.f_back
    return found


def _is_our_run(code: CodeType) -> bool:
    """Whether code is ours, and not what hears of operations while they run."""
    return lies_in(code.co_filename, (OURS,)) and not code.co_name.startswith("__torch_")


class _Followed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows which tensors hang on an image; `question`: the first that takes numbers out of one."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.image = image
        self.question: Question | None = None
        self._hanging: dict[int, Tensor] = {id(image): image}  # held, so that no other gets its id

    def hangs(self, *values: Any) -> bool:
        return any(id(value) in self._hanging for value in tree_leaves(values))

    def note(self, name: str) -> None:
        places = () if self.question is not None else foreign_lines()
        if places and not only_raises(places) and not only_tells(places):
            self.question = Question(places[0], name)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        results = func(*args, **given)
        if self.hangs(args, given):
            chosen = func is not torch.ops.aten.index.Tensor or self.hangs(args[1])  # x[mask]; x[:, [2, 0, 1]] is none
            if chosen and _takes_out(func):
                self.note(name_of(func))
            written = (v for a, v in zip(func._schema.arguments, args, strict=False) if _is_written(a))
            for tensor in tree_leaves((results, list(written))):
                if isinstance(tensor, Tensor):
                    self._hanging[id(tensor)] = tensor
        return results


def _takes_out(operation: Any) -> bool:
    """Whether a number, or a shape, of the result hangs on values."""
    return not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.isdisjoint(operation.tags)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


class _TakenOut(TorchFunctionMode):
    """Notes values that leave torch, of which no operation tells: what comes out is neither a tensor nor its kind."""

    def __init__(self, followed: _Followed) -> None:
        super().__init__()
        self._followed = followed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        leaves = tree_leaves(result)
        tells = not any(isinstance(value, Tensor) for value in leaves) and name_of(func) not in _OF_ITS_KIND
        tells = tells and not all(isinstance(value, _TELLS_NO_VALUE) for value in leaves)
        if tells and self._followed.hangs(args, given):
            self._followed.note(name_of(func))
        return result
