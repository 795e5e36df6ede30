"""Small mistakes in passes, analysis, proof and kernels (mutants.txt); the tests of that module alone must notice each.

    python tests/mutants.py [WORD ...]    only mutants with one of the words in their file or mistake
    python tests/mutants.py --jobs 4

Each mutant replaces one piece of text, which stands in its file exactly once, in a copy of the tree.  It is killed if
a test of that module fails, or takes no end.  Prints a table; exit status 1 if a mutant survives, or cannot even be
imported, 2 if the tests fail without one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MISTAKES = Path(__file__).with_suffix(".txt")
COPIED = ("memsr_compiler", "passes", "tests", "pyproject.toml", "CONTRIBUTING.md", "setup.cfg")
LOADED = ("torch", "networkx", "typer", "numpy", "pytest", "hypothesis.strategies")  # before the mutants' processes
LONGEST = 600  # seconds; a mutant that takes longer goes round in circles
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning")
PASSED, FAILED = 0, 1  # exit statuses of pytest


@dataclass(frozen=True)
class Mutant:
    """One mistake: what a programmer did wrong, as the text that stands in a file and what stands there instead."""

    file: str
    mistake: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Outcome:
    """Exit status of the tests, and their seconds."""

    status: int
    seconds: float

    @property
    def word(self) -> str:
        return {PASSED: "SURVIVED", FAILED: "killed"}.get(self.status, "NOT RUN")


def file_of_tests(file: str) -> str:
    """passes/one_pad.py -> tests/passes/test_one_pad.py; forms are tested through the checker."""
    folder, _, name = file.removeprefix("memsr_compiler/").rpartition("/")
    return f"tests/{folder}/test_{'checker.py' if name == 'forms.py' else name}"


def read_mutants() -> list[Mutant]:
    """The mistakes of mutants.txt."""
    found: list[Mutant] = []
    file, mistake, right, wrong = "", "", list[str](), list[str]()
    for line in [*MISTAKES.read_text("utf-8").splitlines(), ""]:
        if line.startswith("["):
            file = line.strip("[]")
        elif line.startswith("- "):
            right.append(line[2:])
        elif line.startswith("+ "):
            wrong.append(line[2:])
        elif line and not line.startswith("#"):
            mistake = line
        elif mistake and not line:
            found.append(Mutant(file, mistake, "\n".join(right), "\n".join(wrong)))
            mistake, right, wrong = "", [], []
    return found


def run_tests(mutant: Mutant | None, tests: str) -> Outcome:
    """Run test files in a copy of the tree, with this mistake in it; in a process of its own."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy_tree(Path(folder))
        if mutant is not None:
            path = Path(folder, mutant.file)
            path.write_text(path.read_text("utf-8").replace(mutant.right, mutant.wrong), "utf-8")
        os.chdir(folder)
        sys.path.insert(0, folder)
        signal.signal(signal.SIGALRM, _stop)
        signal.alarm(LONGEST)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import pytest
            from hypothesis import Phase, settings

            settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate))  # no time to shrink
            settings.load_profile("mutants")
            status = int(pytest.main([*PYTEST, tests]))
        signal.alarm(0)
    return Outcome(status, time.monotonic() - start)


def _stop(*_: object) -> None:
    raise TimeoutError  # which fails the test that takes so long


def copy_tree(folder: Path) -> None:
    """Copy what the tests need, compiled files as well."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, folder / name)


def require_unambiguous(chosen: Sequence[Mutant]) -> None:
    """Leave unless the text of every mutant stands in its file once."""
    for m in chosen:
        times = (ROOT / m.file).read_text("utf-8").count(m.right)
        if times != 1:
            raise SystemExit(f"{m.file}: {m.mistake}: its text stands there {times} times, not once:\n{m.right}")


def main() -> int:
    """Run the mutants and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their file or mistake")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    options = parser.parse_args()
    chosen = [
        m for m in read_mutants() if not options.words or any(w in f"{m.file} {m.mistake}" for w in options.words)
    ]
    require_unambiguous(chosen)
    for name in LOADED:  # a mutant's process then starts with them
        __import__(name)
    sys.path.remove(str(ROOT / "tests"))
    files = list(dict.fromkeys(file_of_tests(m.file) for m in chosen))
    with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        for file, outcome in zip(files, pool.starmap(run_tests, [(None, f) for f in files], chunksize=1), strict=True):
            print(f"{outcome.seconds:6.1f} s  {'pass' if outcome.status == PASSED else 'FAIL'}      {file}", flush=True)
            if outcome.status != PASSED:
                return 2
        results = pool.imap(_run, chosen, chunksize=1)
        alive = 0
        for m, outcome in zip(chosen, results, strict=True):
            alive += outcome.word != "killed"
            print(f"{outcome.seconds:6.1f} s  {outcome.word:8}  {m.file}: {m.mistake}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants killed")
    return 1 if alive else 0


def _run(mutant: Mutant) -> Outcome:
    return run_tests(mutant, file_of_tests(mutant.file))


if __name__ == "__main__":
    sys.exit(main())
