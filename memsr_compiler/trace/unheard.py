"""Questions of a network's code that no tracer hears: behind `isinstance`, in a `try`, by way of a text.

torch.fx answers that its proxies are no tensors, and code that catches every exception catches the tracer's too.  So
what code ran is looked at, and where it could ask so, the network is run once more: on an image whose numbers are
followed, and on one whose sides are symbols.
"""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from traceback import FrameSummary
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memsr_compiler.torch_helpers import InFloat64, copy_module
from memsr_compiler.trace.numbers import Group, numbers_at_hand
from memsr_compiler.trace.read_off import KnownNumbers
from memsr_compiler.trace.statements import only_raises, only_tells
from memsr_compiler.trace.views import HEIGHT, WIDTH

_OURS = tuple(os.path.dirname(file) for file in (torch.__file__, np.__file__, os.path.dirname(__file__)))
_PYTHONS = sysconfig.get_path("stdlib")
_ASKING = frozenset(("isinstance", "issubclass", "is_tensor", "type", "__class__", "suppress", "str", "repr", "format"))
_ASKING_WAYS = ("MATCH_", "FORMAT_", "SETUP_FINALLY")
_SYMBOL = os.path.join(_OURS[0], "__init__.py")
_SYMBOLS = (_SYMBOL, os.path.join(_OURS[0], "fx", "experimental"), __file__)
"""Code between a question about a symbol, which is asked of the first, and its answer; operations lie elsewhere."""
_TEXTS = frozenset(
    getattr(kind, name).__code__
    for kind in (torch.SymInt, torch.SymFloat, torch.SymBool)
    for name in ("__repr__", "__hash__")
)
_TAKEN_OUT = frozenset([
    Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.data_ptr, Tensor.untyped_storage, Tensor.__repr__,
])  # fmt: skip


@contextmanager
def noting_code() -> Iterator[dict[CodeType, frozenset[Group]]]:
    """Note the code that is run in the context, of whoever's it is, and numbers that foreign code has at hand."""
    codes: dict[CodeType, frozenset[Group]] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code not in codes:
            codes[code] = numbers_at_hand(frame) if is_foreign(code.co_filename) else frozenset()

    with _told(note):
        yield codes


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


def could_ask(codes: Iterable[CodeType]) -> bool:
    """Whether code could ask what a tracer does not hear."""
    return any(_could_ask(code) for code in codes if is_foreign(code.co_filename))


def is_foreign(name: str) -> bool:
    """Whether a file is neither torch's, NumPy's, Python's nor of this package."""
    pythons = name.startswith(_PYTHONS) and "site-packages" not in name
    return not (pythons or name.startswith((*_OURS, "<frozen", "<eval_with_key>")))


def _could_ask(code: CodeType) -> bool:
    catches = bool(getattr(code, "co_exceptiontable", None))  # of Python 3.11 and later
    formats = any(isinstance(constant, str) and "%" in constant for constant in code.co_consts)
    if catches or formats or not _ASKING.isdisjoint(code.co_names):
        return True
    return any(step.opname.startswith(_ASKING_WAYS) for step in dis.get_instructions(code))


def find_value_question(model: nn.Module, image: Tensor) -> FrameSummary | None:
    """The line of a network's code that takes numbers out of what hangs on the image (1, C, H, W), to decide by them.

    Lines that can do nothing but raise are passed over.
    """
    followed = _Followed(image.clone())
    with torch.no_grad(), InFloat64(), _TakenOut(followed), followed:
        _run(copy_module(model, torch.float64), followed.image)
    return followed.place


def find_size_question(model: nn.Module, channels: int) -> FrameSummary | None:
    """The line of a network's code that decides by the sides of the image; None where none is found.

    No pixel is computed.  Code that takes no symbol for a number ends there.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    places: list[FrameSummary] = []

    class Listening(ShapeEnv):
        """Notes the questions that are asked by no operation."""

        def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
            place = None if places else _find_asking_line()
            if place is not None and not only_raises(place):
                places.append(place)
            return super().evaluate_expr(*args, **kwargs)

    image = torch.empty(1, channels, HEIGHT, WIDTH, dtype=torch.float64)
    free: Any = StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.STATIC, DimDynamic.STATIC, DimDynamic.DYNAMIC, DimDynamic.DYNAMIC],
        dynamic_strides=[DimDynamic.INFER_STRIDE] * 4,
        constraint_sizes=[None] * 4,
    )
    copied = copy_module(model, torch.float64)
    mode = FakeTensorMode(shape_env=Listening(), allow_non_fake_inputs=True)
    symbolic = mode.from_tensor(image, symbolic_context=free)

    def note_text(place: FrameSummary) -> None:
        if not places and not only_tells(place):
            places.append(place)

    with torch.no_grad(), InFloat64(), mode, KnownNumbers(), _hearing_texts(note_text):
        _run(copied, symbolic)
    return places[0] if places else None


@contextmanager
def _hearing_texts(note: Callable[[FrameSummary], None]) -> Iterator[None]:
    """Call `note` for each line of foreign code that takes the text or the hash of a symbol."""

    def hear(frame: FrameType, event: str, _: Any) -> None:
        asker = frame.f_back
        if event == "call" and frame.f_code in _TEXTS and asker and is_foreign(asker.f_code.co_filename):
            note(summarise(asker))

    with _told(hear):
        yield


def _run(model: Callable[[Tensor], Any], image: Tensor) -> None:
    try:
        model(image)
    except Exception:  # whatever the model's own code raises; what was asked before has been heard
        return


def _find_asking_line() -> FrameSummary | None:
    """The line of foreign code that asked for the truth of a symbol; None where an operation did."""
    frames = list(takewhile(lambda f: f.f_code.co_filename.startswith(_SYMBOLS), _frames()))
    asked = any(f.f_code.co_filename == _SYMBOL and f.f_code.co_name == "__bool__" for f in frames)
    asker = frames[-1].f_back if asked else None
    return summarise(asker) if asker is not None and is_foreign(asker.f_code.co_filename) else None


def _find_foreign_line() -> FrameSummary | None:
    """The innermost line of foreign code that is run."""
    return next((summarise(f) for f in _frames() if is_foreign(f.f_code.co_filename)), None)


def _frames() -> Iterator[FrameType]:
    """Frames of what is run, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def summarise(frame: FrameType) -> FrameSummary:
    return FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


class _Followed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows which tensors hang on an image; `place`: the first line that takes numbers out of one."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.image = image
        self.place: FrameSummary | None = None
        self._hanging: dict[int, Tensor] = {id(image): image}  # held, so that no other gets its id

    def hangs(self, *values: Any) -> bool:
        return any(id(value) in self._hanging for value in tree_leaves(values))

    def note(self) -> None:
        place = _find_foreign_line()
        if self.place is None and place is not None and not only_raises(place) and not only_tells(place):
            self.place = place

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        results = func(*args, **given)
        if self.hangs(args, given):
            chosen = func is not torch.ops.aten.index.Tensor or self.hangs(args[1])  # x[mask]; x[:, [2, 0, 1]] is none
            if chosen and _takes_out(func):
                self.note()
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
    """Notes numbers that leave torch, of which no operation tells."""

    def __init__(self, followed: _Followed) -> None:
        super().__init__()
        self._followed = followed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _TAKEN_OUT and self._followed.hangs(args[0]):
            self._followed.note()
        return func(*args, **(kwargs or {}))
