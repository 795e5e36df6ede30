"""Functions that a copy of something holds, made to name the copy where they named what was copied."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType, NoneType
from typing import Any
from weakref import WeakMethod, ref

PLAIN = frozenset((bool, bytes, complex, float, int, str, NoneType))
"""Kinds in which nothing is held: asked first, as there are many of them."""


def leave_out_atoms(values: Iterable[Any]) -> list[Any]:
    """Values but for numbers, texts and tuples of them, which hold nothing: tables may be of millions."""
    return [value for value in values if not (type(value) in PLAIN or is_plain_tuple(value))]


def is_plain_tuple(value: Any) -> bool:
    """Whether it is a tuple of such kinds."""
    return type(value) is tuple and PLAIN.issuperset(map(type, value))


def rename_in_copies(copies: Mapping[int, Any]) -> None:
    """Give the copies that `copy.deepcopy` made functions of their own, where theirs close over what was copied.

    `self.register_forward_hook(lambda *_: self.calls.append(1))`: copy.deepcopy takes a function as it is, so a copy of
    the network would write into the network itself.
    copies   by the ids of what they are copies of: the memo of `copy.deepcopy`
    """
    made: dict[int, Any] = {}
    slots: dict[type, list[str]] = {}
    for held in list(copies.values()):
        kind = type(held)
        if kind in PLAIN:
            continue
        table = held if isinstance(held, (list, deque, dict)) else getattr(held, "__dict__", None)
        if isinstance(table, (list, deque, dict)):
            for key, value in list(table.items() if isinstance(table, dict) else enumerate(table)):
                if type(value) not in _OTHERS and isinstance(value, _WAYS) and not is_plain_tuple(value):
                    table[key] = _rename(value, copies, made)
        if kind not in slots:
            slots[kind] = list_slots(kind)
        for slot in slots[kind]:
            if isinstance(value := getattr(held, slot, None), _WAYS) and _reaches(value, copies):
                object.__setattr__(held, slot, _rename(value, copies, made))  # those of frozen dataclasses too


_OTHERS = PLAIN | {dict, list, set, OrderedDict}


def list_slots(kind: type) -> list[str]:
    """Names in the `__slots__` of a class, and of those that it derives from."""
    slots = (vars(base).get("__slots__", ()) for base in kind.__mro__ if base.__module__ != "builtins")
    names = [name for names in slots for name in ((names,) if isinstance(names, str) else names)]
    return [name for name in names if not name.startswith("__")]


_WAYS = (FunctionType, MethodType, partial, tuple, ref)
"""Kinds that copy.deepcopy leaves as they are, or copies without the functions in them."""


def _rename(value: Any, copies: Mapping[int, Any], made: dict[int, Any]) -> Any:
    """The copy that stands for a value; of what leads to functions or to what was copied one that names copies; else
    itself.

    made   what has been made already, by the ids of what it stands for: functions may share a cell, or close over
           themselves
    """
    if id(value) in copies or id(value) in made:
        return copies.get(id(value), made.get(id(value)))
    if not _reaches(value, copies):
        return value

    def rename(part: Any) -> Any:
        return _rename(part, copies, made)

    if isinstance(value, FunctionType):
        return _rename_function(value, copies, made)
    if isinstance(value, MethodType):  # `old = self.forward`
        return MethodType(rename(value.__func__), rename(value.__self__))
    if isinstance(value, partial):
        return partial(
            rename(value.func), *map(rename, value.args), **{k: rename(v) for k, v in value.keywords.items()}
        )
    if isinstance(value, ref):
        kind = WeakMethod if isinstance(value, WeakMethod) else ref
        return kind(rename(value()))
    if isinstance(value, tuple):
        parts = map(rename, value)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    renamed = made[id(value)] = type(value)()  # a list or a table
    if isinstance(value, dict):
        renamed.update({key: rename(part) for key, part in value.items()})
    else:
        renamed.extend(map(rename, value))
    return renamed


def _rename_function(value: FunctionType, copies: Mapping[int, Any], made: dict[int, Any]) -> FunctionType:
    cells = value.__closure__ or ()
    new_cells = [cell for cell in cells if id(cell) not in made and _reaches(cell, copies)]
    made.update({id(cell): CellType() for cell in new_cells})
    closure = tuple(made.get(id(cell), cell) for cell in cells)
    renamed = FunctionType(value.__code__, value.__globals__, value.__name__, None, closure or None)
    made[id(value)] = renamed
    for cell in new_cells:
        made[id(cell)].cell_contents = _rename(cell.cell_contents, copies, made)
    renamed.__defaults__ = value.__defaults__ and tuple(_rename(v, copies, made) for v in value.__defaults__)
    renamed.__kwdefaults__ = {name: _rename(v, copies, made) for name, v in (value.__kwdefaults__ or {}).items()}
    renamed.__qualname__, renamed.__module__ = value.__qualname__, value.__module__
    vars(renamed).update({name: _rename(v, copies, made) for name, v in vars(value).items()})
    return renamed


def _reaches(value: Any, copies: Mapping[int, Any]) -> bool:
    """Whether a value was copied, or is something by which one comes to what was."""
    seen, waiting = set[int](), [value]
    while waiting:  # functions may close over each other more deeply than Python goes
        part = waiting.pop()
        if id(part) in copies:
            return True
        if id(part) not in seen:
            seen.add(id(part))
            waiting += leave_out_atoms(_list_named(part))
    return False


def _list_named(value: Any) -> Iterable[Any]:
    """Everything that a function closes over, or has as defaults or attributes; that is in a cell or a list; what a
    method is of."""
    if isinstance(value, FunctionType):
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return (*(value.__closure__ or ()), *defaults, *vars(value).values())
    if isinstance(value, MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, ref):
        return (value(),)
    if isinstance(value, CellType):
        try:
            return (value.cell_contents,)
        except ValueError:  # nothing yet
            return ()
    if type(value) in (list, deque, dict) or isinstance(value, tuple):
        return value.values() if isinstance(value, dict) else value
    return ()
