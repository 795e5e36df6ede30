"""A teacher: a trained network, and what has to be known to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.plain.info import Takes, require_range
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.torch_helpers import first_weight, unwrap
from memsr_compiler.trace.approximate.freeze import Frozen
from memsr_compiler.trace.fx.casts import range_of_integers
from memsr_compiler.trace.kept.held_values import leaving_nothing
from memsr_compiler.trace.trace import Traced

Range: TypeAlias = tuple[float, float]

_SIDE = 32  # pixels, of the image by which an unknown network shows its scale
_RANGE_WORDS = "input values "


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network, and what has to be known to run it.

    module       (N, C, H, W) -> (N, C', s H, s W); on the CPU, in evaluation mode, in float32 where it came from a file
    input_range  lowest and highest input value, and so output value: (0, 1) or (0, 255)
    family       the name of the architecture it was recognised as; "" for a user's own code
    hyper        the arguments it was built with
    assumed      what nothing in the file says, in words: "res_scale 1", "input values 0 to 1", "no clamp at the end"
    stated_range the range that the file itself tells, whatever `input_range` was asked for; None: it does not
    sha256       of the file, in hexadecimal; "" for a module
    path         of the file; None for a module
    frozen       the network that stands for it where it has no plain form, once it was made: see `trace_or_freeze`
    traced       the module as a graph, where it was read already: then it is not read again
    """

    module: nn.Module
    input_range: Range = (0.0, 1.0)
    family: str = ""
    hyper: Mapping[str, object] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    stated_range: Range | None = None
    sha256: str = ""
    path: Path | None = None
    frozen: Frozen | None = None
    traced: Traced | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput for a range that is empty or infinite."""
        require_range(self.input_range)
        low, high = map(float, self.input_range)  # which may be a list, as YAML has it, or of whole numbers
        object.__setattr__(self, "input_range", (low, high))

    @property
    def convertible(self) -> nn.Module:
        """The network that is compiled: the teacher's own, or the frozen one that stands for it."""
        return self.module if self.frozen is None else self.frozen.module

    @property
    def range_is_assumed(self) -> bool:
        """Whether `input_range` is no more than the usual one."""
        return any(words.startswith(_RANGE_WORDS) for words in self.assumed)

    @property
    def takes(self) -> Takes:
        """Channels that it takes and the factor by which it enlarges, as a run on a small image shows them.

        Raises InvalidInput for a network that does not enlarge images by a whole factor.
        """
        weight, run = first_weight(self.module), leaving_nothing(self.module)
        name = str(self.path or type(self.module).__name__)
        return measure_takes(lambda x: run(x.to(weight)), self.input_range, name)

    @property
    def scale(self) -> int:
        """Output size / input size; 1 for a network that works on enlarged images.  Raises InvalidInput as `takes`."""
        return self.takes.scale


class _Read(NamedTuple):
    """Fields of a `Teacher` that stay true of its module, whatever is done to its weights."""

    input_range: Range
    assumed: tuple[str, ...]
    stated_range: Range | None


_READ: WeakKeyDictionary[nn.Module, _Read] = WeakKeyDictionary()


def remember_range(teacher: Teacher) -> Teacher:
    """The teacher; `as_teacher` knows the range of its module, as long as that is there, where it is given alone.

    Not that of copies, nor of what is put around it.
    """
    _READ[teacher.module] = _Read(teacher.input_range, teacher.assumed, teacher.stated_range)
    return teacher


TeacherLike: TypeAlias = "Teacher | nn.Module | str | PathLike[str]"
"""Anything that a function takes as a teacher: what `read_teacher` gives, a module, or a file's path."""


def as_teacher(source: TeacherLike, *, input_range: Range | None = None, plain: bool = False) -> Teacher:
    """The teacher that a person means: a `Teacher`, a module of theirs, or a file.

    input_range   replaces what the teacher says; None: that, what was read with a module that came from a file, or of
                  another 0 to 1, or 0 to 255 where it takes uint8
    plain         a plain network's file is taken too

    Of a file it is probed what the file does not say, see `read_teacher`.
    Raises InvalidInput for anything else, for a range that is empty or infinite, and as `read_teacher` does for files.
    """
    if input_range is not None:
        require_range(input_range)  # before a file is read
    teacher = _teacher(source, input_range, plain)
    if input_range is None:
        return teacher
    known = range_of_integers(source) if isinstance(source, nn.Module) else None
    if known not in (None, input_range):
        raise InvalidInput(
            f"the network takes images of uint8, values from 0 to 255; leave input_range={input_range} out"
        )
    assumed = tuple(words for words in teacher.assumed if not words.startswith(_RANGE_WORDS))
    return replace(teacher, input_range=input_range, assumed=assumed, traced=None)


def assume_range(input_range: Range) -> str:
    """Words of `Teacher.assumed` on a range that nothing says."""
    return f"{_RANGE_WORDS}{input_range[0]:g} to {input_range[1]:g}"


def _name_kind(name: str) -> str:
    return f"{name}; give its module()" if name == "ExportedProgram" else name


def _teacher(source: TeacherLike, input_range: Range | None, plain: bool) -> Teacher:
    if isinstance(source, Teacher):
        return source
    if isinstance(source, PlainNet):
        return _plain_teacher(source, None)
    if isinstance(source, nn.Module):
        if (read := _READ.get(source)) is not None:
            return Teacher(module=source, **read._asdict())
        known = range_of_integers(source)
        return Teacher(
            module=unwrap(source), input_range=known or (0.0, 1.0), assumed=() if known else (assume_range((0.0, 1.0)),)
        )
    if not isinstance(source, (str, PathLike)):
        raise InvalidInput(
            "a teacher is wanted: what read_teacher gives, a torch.nn.Module, or a file's path; "
            f"not {_name_kind(type(source).__name__)}"
        )
    from memsr_compiler.plain.load import load_plain
    from memsr_compiler.plain.read import is_plain
    from memsr_compiler.teachers.load import read_teacher  # which makes Teachers itself

    path = Path(source)
    if plain and is_plain(path):
        return _plain_teacher(load_plain(path, require_certificate=False), path)
    return read_teacher(path, input_range=input_range)


def _plain_teacher(net: PlainNet, path: Path | None) -> Teacher:
    """The teacher that a plain network is for a student; what was assumed when it was made still is."""
    return Teacher(module=net, input_range=net.info.input_range, assumed=net.info.assumed, path=path)


def measure_takes(
    network: Callable[[Tensor], object],
    input_range: Range,
    name: str,
    fixed: tuple[int | None, int | None] = (None, None),
) -> Takes:
    """Channels that a network accepts and its scale, by the size of what it makes of a grey image.

    fixed   height and width that it takes; None: any

    It need not be convertible.  Raises InvalidInput for one that does not enlarge images by a whole factor.
    """
    height, width = (side or _SIDE for side in fixed)
    problem, ran = "", False
    for channels in (3, 1):
        image = torch.full((1, channels, height, width), sum(input_range) / 2)
        try:
            with torch.no_grad():
                output = network(image)
        except Exception as error:  # torch's, or of somebody's code, for another number of channels
            problem = problem or first_line(error)
            continue
        ran = True
        if not isinstance(output, Tensor):
            continue
        scale, left = divmod(output.shape[-1], width)
        if output.shape == (1, channels, scale * height, scale * width) and scale and not left:
            return Takes(scale, channels, input_range)
    if not ran:
        raise InvalidInput(
            f"{name}: does not run on an image of {height}x{width} ({problem}); a network that takes one image of any "
            "size is wanted"
        )
    raise InvalidInput(f"{name}: does not enlarge images by a whole factor; a super-resolution network is wanted")
