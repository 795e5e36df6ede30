"""Own code by its files: the factory's, and what that imports from beside it."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from memsr_compiler.commands.given.own_code import digest_code

FILES = {
    "mine_a.py": "import json\nimport numpy\nimport mine_b\nfrom mine_net.blocks import Block\n\ndef build(): ...\n",
    "mine_b.py": "def late():\n    import mine_late\n",
    "mine_late.py": "import mine_a  # and round\n",
    "mine_other.py": "",
    "mine_net/__init__.py": "from . import extra\nfrom .extra import Block\n",
    "mine_net/extra.py": "from .deep.far import *\n",
    "mine_net/blocks.py": "class Block: ...\n",
    "mine_net/deep/far.py": "from ..blocks import Block\nimport memsr_compiler.errors\n",
    "mine_net/unused.py": "",
    "memsr_compiler/errors.py": "not this one\n",
    "json.py": "neither this one\n",
}
FOUND = {"mine_a", "mine_b", "mine_late", "mine_net", "mine_net.extra", "mine_net.blocks", "mine_net.deep.far"}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with these files, in which modules are found behind all others."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    importlib.invalidate_caches()
    return tmp_path


def test_what_a_factory_imports_from_beside_it_counts(code: Path) -> None:
    importlib.import_module("mine_a")
    before = digest_code("mine_a:build")
    assert before.keys() == FOUND and list(before) == sorted(before)
    assert before["mine_b"] == hashlib.sha256((code / "mine_b.py").read_bytes()).hexdigest()
    (code / "mine_net" / "deep" / "far.py").write_text("x = 1\n")
    changed = digest_code("mine_a:build")
    assert {name for name in before if changed[name] != before[name]} == {"mine_net.deep.far"}


def test_it_is_the_same_whatever_has_been_imported(code: Path) -> None:
    importlib.import_module("mine_a")
    before = digest_code("mine_a:build")
    importlib.import_module("mine_late")
    importlib.import_module("mine_net.unused")
    assert digest_code("mine_a:build") == before


def test_a_factory_in_a_package_counts_what_its_package_imports(code: Path) -> None:
    importlib.import_module("mine_net.blocks")
    package = {name for name in FOUND if name.startswith("mine_net")}
    assert digest_code("mine_net.blocks:Block").keys() == digest_code("mine_net:Block").keys() == package


def test_what_was_installed_is_not_followed() -> None:
    assert digest_code("numpy:asarray").keys() == {"numpy"}
    assert digest_code("json:loads").keys() == {"json"}
    assert digest_code("memsr_compiler.teachers.families.edsr:EDSR").keys() <= {"memsr_compiler.teachers.families.edsr"}
    assert digest_code("edsr") == digest_code(None) == digest_code("not.imported:x") == {}


def count(code: Path, **files: str) -> set[str]:
    """The modules that count for a factory in the first of these files; it has been called."""
    for name, text in files.items():
        (code / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    first = next(iter(files))
    importlib.import_module(first).build()
    return set(digest_code(f"{first}:build"))


@pytest.mark.parametrize(
    "code_of_it",
    [
        "import importlib\ndef build(): return importlib.import_module('mine_seen')\n",
        "import importlib\ndef build(): return importlib.import_module(name='mine_seen')\n",
        "from importlib import import_module as get\ndef build(): return get('mine_seen')\n",
        "def build(): return __import__('mine_seen')\n",
        "import importlib\ndef build(): return importlib.import_module('mine_' + 'seen')\n",
        "import runpy\nfrom pathlib import Path\n"
        "def build(): return runpy.run_path(str(Path(__file__).parent / 'mine_seen.py'))\n",
        "from importlib import util\nfrom pathlib import Path\ndef build():\n"
        "    spec = util.spec_from_file_location('other', Path(__file__).with_name('mine_seen.py'))\n"
        "    spec.loader.exec_module(util.module_from_spec(spec))\n",
        "def build():\n    with open(__file__.replace('mine_begin.py', 'mine_seen.py')) as file: exec(file.read())\n",
        "from pathlib import Path\nSEEN = Path(__file__).with_name('mine_seen.py')\n"
        "def build(): eval(compile(SEEN.read_text(), SEEN, 'exec'))\n",
    ],
)
def test_what_is_imported_by_a_call_counts(code: Path, code_of_it: str) -> None:
    found = count(code, mine_begin=code_of_it, mine_seen="import mine_other\n")
    assert found == {"mine_begin", "mine_seen", "mine_other"}


@pytest.mark.parametrize("path", ["'mine_net' / 'unused.py'", "'mine_net' / 'deep' / 'run.py'"])
def test_a_file_in_a_folder_that_code_names_counts(code: Path, path: str, caplog: pytest.LogCaptureFixture) -> None:
    (code / "mine_net" / "deep" / "run.py").write_text("")
    text = "import runpy\nfrom pathlib import Path\n"
    found = count(code, mine_begin=f"{text}def build(): return runpy.run_path(Path(__file__).parent / {path})\n")
    assert {"mine_net.unused", "mine_net.deep.run"} & found and caplog.text == ""


@pytest.mark.parametrize(
    "path",
    [
        "f'{HERE}/mine_net/unused.py'",
        "f'{HERE}{os.sep}{NET}/{\"unused\"}.py'",
        "f'{HERE}/{NET}' + '/' + 'unused.py'",
        "HERE + '/mine_net/unused.py'",
        "'%s/mine_net/unused.py' % HERE",
        "'{}/{}/unused.py'.format(HERE, NET)",
        "os.path.join(f'{HERE}/mine_net', 'unused.py')",
    ],
)
def test_a_file_that_a_text_put_together_names_counts(code: Path, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """It was not compared, and the warning said that the code does not hold its name."""
    text = "import os, runpy\nHERE = os.path.dirname(__file__)\nNET = 'mine_net'\n"
    assert "mine_net.unused" in count(code, mine_begin=f"{text}def build(): return runpy.run_path({path})\n")
    assert caplog.text == ""


def test_texts_that_are_no_paths_are_no_files(code: Path) -> None:
    text = "import runpy\nTEXT = '" + 5000 * "long" + ".py'\ndef build(): return runpy.run_path('mine_b.py')\n"
    (code / "mine_begin.py").write_text(text)
    importlib.import_module("mine_begin")
    assert digest_code("mine_begin:build").keys() == {"mine_begin"} | FOUND


def test_names_with_dots_are_of_the_package(code: Path) -> None:
    text = "import importlib\ndef build(): return importlib.import_module('.unused', __package__)\n"
    (code / "mine_net" / "begin.py").write_text(text)
    importlib.invalidate_caches()
    importlib.import_module("mine_net.begin").build()
    assert "mine_net.unused" in digest_code("mine_net.begin:build")


def test_a_name_without_a_folder_is_of_the_current_one(
    code: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = "def build(): from pathlib import Path; exec(Path('mine_seen.py').read_text())\n"
    monkeypatch.chdir(code)
    assert count(code, mine_begin=text, mine_seen="import mine_other\n") == {"mine_begin", "mine_seen", "mine_other"}
    assert caplog.text == ""
    (code / "elsewhere").mkdir()
    (code / "elsewhere" / "mine_seen.py").write_text("")
    monkeypatch.chdir(code / "elsewhere")
    assert "elsewhere.mine_seen" in digest_code("mine_begin:build") and caplog.text == ""


@pytest.mark.parametrize(
    "line",
    [
        "import runpy; runpy.run_path(__file__.replace('begin', 'other'))",
        "exec(Path(__file__.replace('begin', 'other')).read_text())",
        "exec(compile(Path(__file__.replace('begin', 'other')).read_text(), '<string>', 'exec'))",
        "eval(Path(__file__.replace('begin', 'other')).read_text() or '0')",
        "exec(Path(f'{__file__[:-8]}other.py').read_text())",
        "exec(Path(f'{Path(__file__).parent}/{\"mine_other\"!s}.py').read_text())",
        "exec(Path(__file__).with_name('mine_b.py').read_text()); exec(Path(__file__[:-8] + 'other.py').read_text())",
    ],
)
def test_a_file_that_code_does_not_name_is_told(code: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert "mine_begin" in count(code, mine_begin=f"from pathlib import Path\ndef build():\n    {line}\n")
    assert f"{code / 'mine_begin.py'}:3: runs a file, and the code does not show which one" in caplog.text


@pytest.mark.parametrize(
    "line", ["exec('x = 1')", "eval('1')", "eval(f'{1}')", "__import__('torch').nn.Module().eval()"]
)
def test_a_text_that_stands_in_the_code_is_no_file(code: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert count(code, mine_begin=f"def build():\n    {line}\n") == {"mine_begin"}
    assert caplog.text == ""
