"""Words by name: one for each operation, whatever it is called (torch function, tensor method, ATen op).

A word is a function (builder, arguments as torch's own function takes them) -> value.  The other files of this folder
hold the words, and put them into `WORDS` when they are imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Word = Callable[..., Any]
WORDS: dict[str, Word] = {}
F = TypeVar("F", bound=Word)


def word(*names: str) -> Callable[[F], F]:
    """Make a function the word for these names."""

    def attach(function: F) -> F:
        WORDS.update(dict.fromkeys(names, function))
        return function

    return attach
