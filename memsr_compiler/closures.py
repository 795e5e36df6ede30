"""Functions that a copy of something holds, made to name the copy where they named what was copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any


def rename_in_copies(copies: Mapping[int, Any]) -> None:
    """Give the copies that `copy.deepcopy` made functions of their own, where theirs close over what was copied.

    `self.register_forward_hook(lambda *_: self.calls.append(1))`: copy.deepcopy takes a function as it is, so a copy of
    the network would write into the network itself.
    copies   by the ids of what they are copies of: the memo of `copy.deepcopy`
    """
    made: dict[int, Any] = {}
    for held in list(copies.values()):
        if isinstance(held, list):
            held[:] = [_rename(value, copies, made) if isinstance(value, FunctionType) else value for value in held]
        table = held if isinstance(held, dict) else getattr(held, "__dict__", None)
        if isinstance(table, dict):
            for name, value in table.items():
                if isinstance(value, FunctionType):
                    table[name] = _rename(value, copies, made)


def _rename(value: Any, copies: Mapping[int, Any], made: dict[int, Any]) -> Any:
    """The copy that stands for a value; of a function one that names copies; else itself.

    made   functions and cells that have been made already, by the ids of those that they stand for: functions may share
           a cell, or close over themselves
    """
    if id(value) in copies or id(value) in made:
        return copies.get(id(value), made.get(id(value)))
    if not isinstance(value, (FunctionType, MethodType)) or not _reaches(value, copies, set()):
        return value
    if isinstance(value, MethodType):  # `old = self.forward`
        return MethodType(_rename(value.__func__, copies, made), _rename(value.__self__, copies, made))
    cells = value.__closure__ or ()
    new_cells = [cell for cell in cells if id(cell) not in made and _reaches(cell, copies, set())]
    made.update({id(cell): CellType() for cell in new_cells})
    closure = tuple(made.get(id(cell), cell) for cell in cells)
    renamed = FunctionType(value.__code__, value.__globals__, value.__name__, None, closure or None)
    made[id(value)] = renamed
    for cell in new_cells:
        made[id(cell)].cell_contents = _rename(cell.cell_contents, copies, made)
    renamed.__defaults__ = value.__defaults__ and tuple(_rename(v, copies, made) for v in value.__defaults__)
    renamed.__kwdefaults__ = {name: _rename(v, copies, made) for name, v in (value.__kwdefaults__ or {}).items()}
    renamed.__qualname__, renamed.__module__ = value.__qualname__, value.__module__
    vars(renamed).update(vars(value))
    return renamed


def _reaches(value: Any, copies: Mapping[int, Any], seen: set[int]) -> bool:
    """Whether a value was copied, or is a function or a cell by which one comes to what was."""
    if id(value) in copies or id(value) in seen:
        return id(value) in copies
    seen.add(id(value))
    return any(_reaches(part, copies, seen) for part in _list_named(value))


def _list_named(value: Any) -> Iterator[Any]:
    """Everything that a function closes over, or has as defaults; that is in a cell; what a method is of."""
    if isinstance(value, FunctionType):
        yield from (*(value.__closure__ or ()), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, CellType):
        try:
            yield value.cell_contents
        except ValueError:  # nothing yet
            return
