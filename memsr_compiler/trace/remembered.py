"""Whether code keeps something from one run to the next where no weights are: attributes, tables, lists, globals."""

from __future__ import annotations

import dis
from itertools import pairwise
from types import CodeType

_STORES = frozenset(("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF", "STORE_SUBSCR"))
_CHANGES = frozenset((
    "__dict__", "__setattr__", "__setitem__", "add", "append", "appendleft", "clear", "extend", "globals", "insert",
    "pop", "popitem", "popleft", "remove", "setattr", "setdefault", "update", "vars",
))  # fmt: skip
"""Names under which containers and attributes are changed."""


def keeps_values(code: CodeType) -> bool:
    """Whether code may do so; what it changes of a value of its own, `features.append(y)`, ends with it."""
    for before, step in pairwise(dis.get_instructions(code)):
        own = before.opname.startswith("LOAD_FAST")
        if step.opname in _STORES and not (own and step.opname == "STORE_DEREF"):
            return True
        if step.argval in _CHANGES and step.opname.startswith("LOAD_") and not own:
            return True
    return False
