"""The size of what a pickle makes, by its opcodes: one that holds the same things again and again says little.

A tuple of two that are one tuple of two, and so on, forty times, takes a hundred bytes, and more steps than anybody
waits for where its hash is computed, or what is in it listed.  And numbers can be chosen that have one hash all of
them, of which a dictionary compares each with each.
"""

from __future__ import annotations

import pickletools
from typing import TypeAlias

from memsr_compiler.errors import InvalidInput

_MOST = 1_000_000  # things in a pickle, each counted as often as it is met; for those that make many themselves
_MOST_EACH = 16  # for each that is made
_UNTOLD = 1 << 60  # further nobody counts
_MOST_NUMBERS = 10_000  # that are keys: of optimisers' states, one for each parameter

_MUTATING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_READING = frozenset({"GET", "BINGET", "LONG_BINGET"})
_WRITING = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})

_Thing: TypeAlias = "list[_Thing]"
"""What it holds."""


class Shape:
    """The things that a pickle makes, and what is in each; `take` each opcode, then `require_small`."""

    def __init__(self) -> None:
        self._literal: _Thing = []
        self._text: _Thing = []  # no one knows its hash before
        self._mark: _Thing = []
        self._keyed: dict[int, tuple[_Thing, int]] = {}  # what holds keys, and how far apart, by its identity
        self._stack: list[_Thing] = []
        self._memo: dict[int, _Thing] = {}
        self._made: list[_Thing] = []

    def take(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Do to a stack of things what this opcode does to that of an unpickler.

        Raises IndexError where there are none left.
        """
        if opcode.name == "MARK":
            self._stack.append(self._mark)
        elif opcode.name in _WRITING:
            self._memo[len(self._memo) if argument is None else int(str(argument))] = self._stack[-1]
        elif opcode.name in _READING:
            self._stack.append(self._memo.get(int(str(argument)), self._literal))
        elif opcode.name == "DUP":
            self._stack.append(self._stack[-1])
        else:
            taken = self._pop(opcode)
            if opcode.name in _MUTATING and not (taken[0] is self._literal or taken[0] is self._text):
                taken[0].extend(taken[1:])
                self._stack.append(taken[0])
            elif opcode.stack_after:
                literal = self._text if opcode.name in _TEXTS else self._literal
                self._stack.append(literal if opcode.name in _LITERALS else self._make(taken))
            self._note_keys(opcode.name, taken)

    def _pop(self, opcode: pickletools.OpcodeInfo) -> list[_Thing]:
        before = [kind.name for kind in opcode.stack_before]
        within: list[_Thing] = []
        if "mark" in before:
            before = before[: before.index("mark")]
            while (thing := self._stack.pop()) is not self._mark:
                within.append(thing)
        single = [self._stack.pop() for _ in before]
        return [*reversed(single), *reversed(within)]

    def _note_keys(self, name: str, taken: list[_Thing]) -> None:
        """Note which things are dictionaries and sets, or may become one in a function that is called with them."""
        if name in ("SETITEM", "SETITEMS"):
            self._keyed[id(taken[0])] = taken[0], 2  # what it was made of, if by a call, are two things, too
        elif name == "DICT":
            self._keyed[id(self._stack[-1])] = self._stack[-1], 2
        elif name in ("ADDITEMS", "FROZENSET"):
            self._keyed[id(self._stack[-1])] = self._stack[-1], 1
        elif name == "REDUCE":
            for held in taken[1]:
                self._keyed.setdefault(id(held), (held, 1))

    def _make(self, held: list[_Thing]) -> _Thing:
        thing: _Thing = list(held)
        self._made.append(thing)
        return thing

    def require_small(self) -> None:
        """Raises InvalidInput where something in it holds far more than there is, since it holds much of that often.

        So it does for more numbers as keys of one dictionary than any weights have.
        """
        keys = (held[::step] for held, step in self._keyed.values())
        most = max((sum(key is not self._text for key in some) for some in keys), default=0)
        if most > _MOST_NUMBERS:
            raise InvalidInput(f"a pickle with {most:,} keys in one place that are no names")
        if self.count_largest() > max(_MOST, _MOST_EACH * len(self._made)):
            raise InvalidInput("a pickle of the same few things, millions of times over")

    def count_largest(self) -> int:
        """Count the things in that in which most lie, itself among them; what is met twice counts twice."""
        counts: dict[int, int] = {id(self._literal): 1, id(self._text): 1}
        for made in self._made:
            todo = [made]
            while todo:
                thing = todo[-1]
                begun = id(thing) in counts
                counts.setdefault(id(thing), 0)  # until all that it holds is counted; within itself it is nothing
                missing = [held for held in thing if id(held) not in counts]
                if missing and not begun:
                    todo += missing
                    continue
                if not missing and not counts[id(thing)]:
                    counts[id(thing)] = min(_UNTOLD, 1 + sum(counts[id(held)] for held in thing))
                todo.pop()
        return max(counts.values())


_LITERALS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if not opcode.stack_before and not opcode.name.startswith(("EMPTY_", "MARK"))
)
_TEXTS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if {kind.name for kind in opcode.stack_after} & {"str", "bytes_or_str"}
)
