"""The size of what a pickle makes, by its opcodes: one that holds the same things again and again says little.

A tuple of two that are one tuple of two, and so on, forty times, takes a hundred bytes, and more steps than anybody
waits for where its hash is computed, or what is in it listed.
"""

from __future__ import annotations

import pickletools
from typing import TypeAlias

from memsr_compiler.errors import InvalidInput

_MOST = 1_000_000  # things in a pickle, each counted as often as it is met; for those that make many themselves
_MOST_EACH = 16  # for each that is made
_UNTOLD = 1 << 60  # further nobody counts

_MUTATING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_READING = frozenset({"GET", "BINGET", "LONG_BINGET"})
_WRITING = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})

_Thing: TypeAlias = "list[_Thing]"
"""What it holds."""


class Shape:
    """The things that a pickle makes, and what is in each; `take` each opcode, then `require_small`."""

    def __init__(self) -> None:
        self._literal: _Thing = []
        self._mark: _Thing = []
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
            if opcode.name in _MUTATING and taken[0] is not self._literal:
                taken[0].extend(taken[1:])
                self._stack.append(taken[0])
            elif opcode.stack_after:
                self._stack.append(self._make(taken) if opcode.name not in _LITERALS else self._literal)

    def _pop(self, opcode: pickletools.OpcodeInfo) -> list[_Thing]:
        before = [kind.name for kind in opcode.stack_before]
        within: list[_Thing] = []
        if "mark" in before:
            before = before[: before.index("mark")]
            while (thing := self._stack.pop()) is not self._mark:
                within.append(thing)
        single = [self._stack.pop() for _ in before]
        return [*reversed(single), *reversed(within)]

    def _make(self, held: list[_Thing]) -> _Thing:
        thing: _Thing = list(held)
        self._made.append(thing)
        return thing

    def require_small(self) -> None:
        """Raises InvalidInput where something in it holds far more than there is, since it holds much of that often."""
        if self.count_largest() > max(_MOST, _MOST_EACH * len(self._made)):
            raise InvalidInput("a pickle of the same few things, millions of times over")

    def count_largest(self) -> int:
        """How many things lie in that in which most lie, itself among them; what is met twice counts twice."""
        counts: dict[int, int] = {id(self._literal): 1}
        for made in self._made:
            todo = [made]
            while todo:
                thing = todo[-1]
                missing = [held for held in thing if id(held) not in counts]
                if missing and id(thing) not in counts:
                    counts[id(thing)] = 0  # until all that it holds is counted; within itself it is nothing
                    todo += missing
                    continue
                if not counts.get(id(thing)):
                    counts[id(thing)] = min(_UNTOLD, 1 + sum(counts[id(held)] for held in thing))
                todo.pop()
        return max(counts.values())


_LITERALS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if not opcode.stack_before and not opcode.name.startswith(("EMPTY_", "MARK"))
)
