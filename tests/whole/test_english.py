"""Plain English, as far as it can be tested: a docstring's first line names its subject."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_first_lines_of_docstrings_name_their_subject() -> None:
    """So not "What a student costs" or "Of a student with these widths", but "Cost of a student with these widths"."""
    wrong = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in (*ROOT.glob("memsr_compiler/**/*.py"), *ROOT.glob("passes/*.py"))
        for line in first_lines(ast.parse(path.read_text("utf-8")))
        if re.match(r"(What|Of|How|Those|Its)\b", line)
    ]
    assert not wrong, "\n".join(wrong)


def first_lines(tree: ast.Module) -> list[str]:
    """The first line of every docstring in a file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return [text.partition("\n")[0] for text in texts if text]
