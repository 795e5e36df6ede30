"""The grammar of op names.  A name means a value of the teacher; what a pass adds to it is marked.

body.3.conv1          a tensor of the teacher: its module path
body.3.add:2          a second op that would have had the name body.3.add
body.3.act#1          the second ReLU in the ReLU form of activation body.3.act
body.3.conv1@12       the same value again: carried past boundary 12, or computed again for layer 12
body.3.conv1@above12  the same, where that name is taken
body.3.conv1@12+      the ReLU that holds a carried value, as its two signs (made by +-) or raised by C (made by +C)
body.3~sum            no tensor of the teacher: nothing carries it, no certificate speaks of it
body.3~<x>, body.3~~1 one term of body.3, or several summed; what they are is said by the op's `part`

The traced names bear none of the marks # @ ~ (`escape` sees to it), so that each of these can be taken apart again.
"""

from __future__ import annotations

MARKS = "#@~"


def escape(path: str) -> str:
    """A module path without the marks, which a teacher's modules may not bear."""
    return path.translate(dict.fromkeys(map(ord, MARKS), "-"))


def number(name: str, i: int) -> str:
    """The name of the i-th op that would be called the same; the first keeps the name."""
    return name if i == 1 else f"{name}:{i}"


def relu(activation: str, k: int) -> str:
    """The k-th ReLU, from 0, in the ReLU form of an activation."""
    return f"{activation}#{k}"


def is_relu(name: str) -> bool:
    """Whether this is a ReLU of an activation's ReLU form."""
    return "#" in name


def again(name: str, place: int) -> str:
    """The value of a name once more: carried past that boundary, or computed for that layer."""
    return f"{name}@{place}"


def above(name: str, boundary: int) -> str:
    """The value of a name once more, computed above a boundary, where the name itself is taken."""
    return f"{name}@above{boundary}"


def is_again(name: str) -> bool:
    """Whether this is a second computation, or a carried copy."""
    return "@" in name


def value(name: str) -> str:
    """The value that an op computes: x for x@12."""
    return name.split("@")[0]


def held(carry: str) -> str:
    """The ReLU that holds a carried value."""
    return f"{carry}+"


def signs(carry: str) -> str:
    """Name of the value that goes into the ReLU that holds a carried one as its positive and negative part."""
    return f"{carry}+-"


def raised(carry: str) -> str:
    """Name of the value that goes into the ReLU that holds a carried one plus a constant."""
    return f"{carry}+C"


def internal(name: str, what: str) -> str:
    """Something that is made on the way to a value (or to a layer, for no name) and is no tensor of the teacher."""
    return f"{name}~{what}"


def term(name: str, source: str) -> str:
    """The term of a sum that comes from one source."""
    return internal(name, f"<{source}>")


def partial_sum(name: str, what: int | str) -> str:
    """Some of the terms of a sum, summed."""
    return internal(name, f"~{what}")


def is_internal(name: str) -> bool:
    """Whether this is no tensor of the teacher."""
    return "~" in name
