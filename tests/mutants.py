"""Small mistakes in passes, analysis, proof and kernels (mutants.txt); the tests of that module alone must notice each.

    python tests/mutants.py [WORD ...]    only mutants with one of the words in their file or mistake
    python tests/mutants.py --jobs 4

Each mutant replaces one piece of text, which stands in its file exactly once, in a copy of the tree.  It is killed if
a test of that module fails, or takes no end; a file that cannot even be imported kills nothing.  The tests run first
without a mutant, and then the quickest first, so that most mutants take a second.  Prints a table with the test that
noticed; exit status 1 if a mutant survives, 2 if the tests fail without one.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[1]
MISTAKES = Path(__file__).with_suffix(".txt")
COPIED = ("memsr_compiler", "passes", "tests", "pyproject.toml", "CONTRIBUTING.md", "setup.cfg")
LOADED = ("torch", "networkx", "typer", "numpy", "pytest", "hypothesis.strategies")  # before the mutants' processes
LONGEST = 120  # seconds of the processor; a mutant that takes longer goes round in circles
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Mutant:
    """One mistake: what a programmer did wrong, as the text that stands in a file and what stands there instead."""

    file: str
    mistake: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Outcome:
    """What became of the tests: whether all ran and passed, the first that failed, and the seconds of each and all."""

    passed: bool
    failed: str
    seconds: float
    each: Mapping[str, float]

    @property
    def word(self) -> str:
        return "killed" if self.failed else "SURVIVED" if self.passed else "NOT RUN"


class Watch:
    """A plugin of pytest: the quickest tests first, and the seconds of each."""

    def __init__(self, known: Mapping[str, float]) -> None:
        self.known = known
        self.seconds: dict[str, float] = {}
        self.failed = ""

    def pytest_configure(self) -> None:
        """Examples without the time to shrink them; conftest.py, which has its own profile, is loaded by now."""
        settings.register_profile("mutants", deadline=None, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort by the seconds that are known."""
        items.sort(key=lambda item: self.known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the seconds of preparing, running and tidying up; keep the first failure."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid


def files_of_tests(file: str) -> tuple[str, ...]:
    """passes/one_pad.py -> tests/passes/test_one_pad.py; most of forms and rows is tested through the checker."""
    folder, _, name = file.removeprefix("memsr_compiler/").rpartition("/")
    own = f"tests/{folder}/test_{name}"
    return (own, f"tests/{folder}/test_checker.py") if name in ("forms.py", "rows.py") else (own,)


def read_mutants() -> list[Mutant]:
    """The mistakes of mutants.txt."""
    mutants: list[Mutant] = []
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
            mutants.append(Mutant(file, mistake, "\n".join(right), "\n".join(wrong)))
            mistake, right, wrong = "", [], []
    return mutants


def run_tests(mutant: Mutant | None, tests: Sequence[str], known: Mapping[str, float]) -> Outcome:
    """Run files of tests, of known seconds, in a copy of the tree with this mistake; in a process of its own."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy_tree(Path(folder))
        if mutant is not None:
            path = Path(folder, mutant.file)
            path.write_text(path.read_text("utf-8").replace(mutant.right, mutant.wrong), "utf-8")
        os.chdir(folder)
        sys.path.insert(0, folder)
        signal.signal(signal.SIGPROF, _stop)
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        watch = Watch(known)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            status = pytest.main([*PYTEST, *tests], plugins=[watch])
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Outcome(status == pytest.ExitCode.OK, watch.failed, time.monotonic() - start, watch.seconds)


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
    start = time.monotonic()
    for name in LOADED:  # a mutant's process then starts with them
        __import__(name)
    sys.path.remove(str(ROOT / "tests"))
    with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        known: dict[str, float] = {}
        files = list(dict.fromkeys(file for m in chosen for file in files_of_tests(m.file)))
        for file, outcome in zip(files, pool.imap(_run, [(None, (f,), known) for f in files]), strict=True):
            print(f"{outcome.seconds:6.1f} s  {'pass' if outcome.passed else 'FAIL'}      {file}", flush=True)
            if not outcome.passed:
                return 2
            known.update(outcome.each)
        alive = 0
        results = pool.imap(_run, [(m, files_of_tests(m.file), known) for m in chosen])
        for m, outcome in zip(chosen, results, strict=True):
            alive += outcome.word != "killed"
            noticed = f"   {outcome.failed.partition('::')[2]}" if outcome.failed else ""
            print(f"{outcome.seconds:6.1f} s  {outcome.word:8}  {m.file}: {m.mistake}{noticed}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants killed in {time.monotonic() - start:.0f} seconds")
    return 1 if alive else 0


def _run(task: tuple[Mutant | None, Sequence[str], Mapping[str, float]]) -> Outcome:
    return run_tests(*task)


if __name__ == "__main__":
    sys.exit(main())
