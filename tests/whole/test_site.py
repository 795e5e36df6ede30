"""The parts of the site that are made from the code; `make docs` builds the whole, strictly."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import memsr_compiler

PAGE = Path(__file__).parents[2] / "docs" / "from_code.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("from_code", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


from_code = load()


def restructured(text: str) -> str:
    return "\n".join(from_code.restructured(text.splitlines()))


def test_aligned_columns_become_a_definition_list() -> None:
    text = """\
Measure networks.

models    files
images    what to score them on, by the scale
          factor; None: nothing;   scale   of both
max_params, max_macs
          at most so many
Raises InvalidInput for *none*.
"""
    assert (
        restructured(text)
        == """\
Measure networks.


``models``
   files

``images``
   what to score them on, by the scale
   factor; None: nothing

``scale``
   of both

``max_params``, ``max_macs``
   at most so many

Raises :py:obj:`~memsr_compiler.InvalidInput`\\  for \\*none\\*.
"""
    )


def test_two_entries_on_a_line_are_two() -> None:
    assert restructured("info  of it;   scale   its scale") == "\n``info``\n   of it\n\n``scale``\n   its scale\n"


def test_indented_lines_are_code_and_backquotes_too() -> None:
    assert restructured("As in\n\n    f(*x)\n\nwhere `x`s are |x|.") == (
        "As in\n\n::\n\n    f(*x)\n\n\nwhere ``x``\\ s are \\|x\\|.\n"
    )


def test_every_public_name_is_on_the_page_of_names() -> None:
    page = from_code.names()
    listed = {line.split("memsr_compiler.")[1] for line in page.splitlines() if line.startswith(".. auto")}
    assert listed == {name for name in dir(memsr_compiler) if not name.startswith("_")}
    assert ".. autoexception:: memsr_compiler.MemsrError" in page


def test_every_command_is_on_the_page_of_commands_with_its_options() -> None:
    page = from_code.commands()
    for heading in ("## convert", "## shrink", "## upscale", "## train"):
        assert heading in page
    assert "`--theta ERROR`\n: " in page
    assert "    memsrc inspect teacher.pt\n" in page
