"""The mistakes of mutants.txt can still be made: `make mutants`, which takes minutes, makes them."""

from __future__ import annotations

import pytest
from mutants import ROOT, Mutant, files_of_tests, read_mutants


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda m: f"{m.file}: {m.mistake}")
def test_every_mistake_can_be_made(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text("utf-8")
    assert text.count(mutant.right) == 1, f"the text stands there {text.count(mutant.right)} times, not once"
    compile(text.replace(mutant.right, mutant.wrong), mutant.file, "exec")
    assert all((ROOT / file).is_file() for file in files_of_tests(mutant.file))
