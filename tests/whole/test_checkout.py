"""A checkout without symbolic links (Windows, a zip) runs: memsr_compiler/passes is a text file there, or missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import memsr_compiler.passes.fuse_1x1
import memsr_compiler.lowering.compile
print(memsr_compiler.__file__)
print(memsr_compiler.passes.__file__)
print([name for name in sys.modules if name.partition(".")[0] == "passes"])
"""


@pytest.mark.parametrize("link", ["../passes", None])
def test_passes_are_found_without_a_link(link: str | None, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "passes", tmp_path / "passes", ignore=ignored)
    shutil.copytree(
        ROOT / "memsr_compiler",
        tmp_path / "memsr_compiler",
        ignore=lambda folder, names: {*ignored(folder, names), *({"passes"} & set(names))},
    )
    if link is not None:
        (tmp_path / "memsr_compiler" / "passes").write_text(link)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    package, passes, by_another_name = done.stdout.splitlines()
    assert Path(package) == tmp_path / "memsr_compiler" / "__init__.py"
    assert Path(passes) == tmp_path / "passes" / "__init__.py"
    assert by_another_name == "[]"
