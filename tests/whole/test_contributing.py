"""The page on writing a pass is true: its snippets run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_snippets_run() -> None:
    text = PAGE.read_text("utf-8")
    snippets = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert len(snippets) == 4
    names: dict[str, object] = {"__name__": "contributing"}
    for snippet in snippets:
        lines_before = text.count("\n", 0, snippet.start(1))
        exec(compile("\n" * lines_before + snippet[1], str(PAGE), "exec"), names)  # a traceback has the page's line
