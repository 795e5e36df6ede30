"""Whether code keeps something from one run to the next where no weights are: attributes, tables, lists, globals."""

from __future__ import annotations

import dis
from functools import lru_cache
from itertools import pairwise
from types import CodeType

_STORES = frozenset(("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "STORE_SUBSCR"))
_CHANGES = frozenset((
    "__dict__", "__setattr__", "__setitem__", "add", "append", "appendleft", "clear", "extend", "globals", "insert",
    "pop", "popitem", "popleft", "remove", "setattr", "setdefault", "update", "vars",
))  # fmt: skip
"""Names under which containers and attributes are changed."""


@lru_cache(4096)
def keeps_values(code: CodeType) -> bool:
    """Whether code may do so; what it changes of a value that it has made, `features.append(y)`, ends with it."""
    steps = list(pairwise(dis.get_instructions(code)))
    made = _list_made(steps)
    for before, step in steps:
        own = before.opname.startswith("LOAD_FAST") and before.argval in made
        if step.opname in _STORES and not (step.opname == "STORE_DEREF" and step.argval in code.co_cellvars):
            return True
        if step.argrepr in ("+=", "|=") and before.opname.startswith("BUILD_"):  # memo += [y]
            return True
        if step.argval in _CHANGES and step.opname.startswith("LOAD_") and not own:
            return True
    return False


def _list_made(steps: list[tuple[dis.Instruction, dis.Instruction]]) -> set[str]:
    """Names of a function's own that stand for nothing but lists and tables which it makes, `features = []`."""
    made: set[str] = set()
    others: set[str] = set()
    for before, step in steps:
        if step.opname == "STORE_FAST" and before.opname.startswith("BUILD_"):
            made.add(step.argval)
        elif "STORE_FAST" in step.opname:  # two names at once, from Python 3.13 on
            others.update(step.argval if isinstance(step.argval, tuple) else (step.argval,))
    return made - others
