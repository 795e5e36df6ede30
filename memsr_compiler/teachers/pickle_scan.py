"""Listing what a pickle would import, by reading its opcodes; nothing is executed.

A pickle is a small program: it can call whatever it imports. So the imports decide whether a file is weights
or code.
"""

from __future__ import annotations

import io
import pickletools
from typing import BinaryIO

import torch

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.teachers import archive
from memsr_compiler.teachers.pickle_shape import Shape

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first thing in a file that torch.save wrote before its zip format."""

PLAIN = "(a plain pickle, not from torch.save)"
"""Stands among the imports of a pickle that torch.save did not write."""

_LEGACY_PICKLES = 5  # magic number, protocol version, machine facts, the object, the keys of its storages

_STRING_OPS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
_MEMO_READS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MEMO_WRITES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})

_REBUILDERS = (
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
)

WEIGHTS = frozenset(
    {
        "collections.Counter",  # of MultiStepLR's milestones, in what Lightning and BasicSR save
        "collections.OrderedDict",
        "builtins.set",
        "__builtin__.set",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
    }
    | {f"torch._utils.{name}" for name in _REBUILDERS}
    | {f"torch.{name}" for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
    | {f"torch.{name}" for name in dir(torch) if name.endswith("Storage")}
    | {"torch.storage.UntypedStorage", "torch.storage.TypedStorage", "torch.serialization._get_layout"}
)
"""All that tensors in containers need to import; none of it has an effect beyond the object it makes."""


WITH_ATTRIBUTES = frozenset({"torch._tensor._rebuild_from_type_v2", "torch.Tensor"})
"""What tensors with attributes of their own need beyond it, which torch's own reader of weights makes too."""


def foreign_imports(data: bytes) -> list[str]:
    """Sorted dotted names of what the file written by torch.save in `data` imports beyond WEIGHTS.

    Both formats of torch.save are read, zip and legacy. Raises InvalidInput if it is neither or is damaged,
    and for a TorchScript archive, whose code is not a pickle and cannot be judged by its imports.
    """
    names = _zip_imports(data) if data.startswith(archive.MAGIC) else _legacy_imports(data)
    return sorted(names - WEIGHTS)


def imports(stream: BinaryIO) -> frozenset[str]:
    """Dotted names that the pickle starting here would import; the stream is left behind its last opcode.

    A name that is computed rather than written down is reported as "(computed).(computed)", which is on no
    list of harmless ones. Raises InvalidInput if it is no complete pickle, and for one that makes far more things than
    it has bytes.
    """
    names: set[str] = set()
    shape = Shape()
    memo: dict[int, str | None] = {}
    # The two topmost stack entries, as far as they are strings just pushed. Anything else makes them unknown.
    below: str | None = None
    top: str | None = None
    try:
        for opcode, arg, _ in pickletools.genops(stream):
            shape.take(opcode, arg)
            if opcode.name in _STRING_OPS:
                below, top = top, arg
            elif opcode.name in _MEMO_READS:
                below, top = top, memo.get(int(str(arg)))
            elif opcode.name in _MEMO_WRITES:
                memo[len(memo) if arg is None else int(str(arg))] = top
            elif opcode.name == "STACK_GLOBAL":
                names.add(f"{below or '(computed)'}.{top or '(computed)'}")
                below = top = None
            elif opcode.name in ("GLOBAL", "INST"):
                names.add(str(arg).replace(" ", "."))
                below = top = None
            elif opcode.name.startswith("EXT"):
                names.add(f"(copyreg extension {arg}).(computed)")
                below = top = None
            elif opcode.name not in ("PROTO", "FRAME"):
                below = top = None
    except Exception as error:  # pickletools raises whatever the damage leads to
        raise InvalidInput(f"damaged pickle ({first_line(error)})") from error
    shape.require_small()
    return frozenset(names)


def _zip_imports(data: bytes) -> frozenset[str]:
    # torch's own zip reader, because it is the one to load the file: two readers can be made to disagree.
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
        records = set(reader.get_all_records())
        if "constants.pkl" in records:
            raise InvalidInput("a TorchScript archive")
        pickled = reader.get_record("data.pkl")
    except (RuntimeError, ValueError) as error:
        raise InvalidInput(f"damaged zip archive, or none of torch.save ({first_line(error)})") from error
    return imports(io.BytesIO(pickled))


def _legacy_imports(data: bytes) -> frozenset[str]:
    stream = io.BytesIO(data)
    names = imports(stream)
    written_by_torch = any(arg == LEGACY_MAGIC for _, arg, _ in pickletools.genops(data))
    if not written_by_torch:
        # Not from torch.save. torch.load would still unpickle it, if only to find that out.
        return names | {PLAIN}
    for _ in range(_LEGACY_PICKLES - 1):
        names |= imports(stream)
    return names
