"""Runs: trained once, gone on with, scored after their last step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paper import smoke_settings
from paper import methods, runs
from paper.command import main
from paper.runs import SHIPPED, Method, Outcome, load_last, run_method, score
from paper.settings import Settings
from paper.table import Numbers
from paper.training_table import Line, make_table

from memsr_compiler.errors import InvalidInput
from memsr_compiler.training import checkpoints

ROOT = Path(__file__).parents[2]
AVERAGED = Method("averaged", methods.DERIVED, ("--ema", "0.9"))
ONE = methods.INITIALISED[0]
METHODS = (ONE, methods.WHOLE[1], AVERAGED, methods.PISR[0], methods.FAKD[1], methods.REPVGG)
WILD = Method("wild", methods.DERIVED, (*methods.PUBLISHED, "--rate", "1e30", "--lambda", "0"))


def run(method: Method, settings: Settings) -> Outcome:
    outcome = run_method(method, 233, settings)
    assert outcome is not None
    return outcome


def folder_of(method: Method, settings: Settings) -> Path:
    return settings.runs / "smoke" / f"{method.folder}-233"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with that of one method in it."""
    settings = smoke_settings(tmp_path_factory.mktemp("trained"))
    run(ONE, settings)
    return settings.runs


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    """A folder for settings, with a copy of that."""
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_last_step_is_scored(method: Method, tmp_path: Path) -> None:
    """Whatever is trained beside the student: it is the network of the last validation."""
    settings = smoke_settings(tmp_path, steps=4)
    outcome = run(method, settings)
    assert [step for step, _ in outcome.curve] == [0, 1, 2, 3, 4]
    (start,) = (settings.runs / "smoke" / "starts").glob("init_memsr-6-*.safetensors")
    last = load_last(folder_of(method, settings) / "run", start, method)
    assert score(last, settings, SHIPPED) == pytest.approx(outcome.curve[-1][1], abs=1e-6)
    assert score(start, settings, SHIPPED) != pytest.approx(outcome.curve[-1][1], abs=1e-3)


def test_a_network_of_its_own_is_scored_in_its_own_range(tmp_path: Path) -> None:
    """Not in that of the teacher's student, 0 to 255 say, in whose place it is trained."""
    settings = smoke_settings(tmp_path, steps=2)
    outcome = run(methods.REPVGG, settings)
    last = load_last(folder_of(methods.REPVGG, settings) / "run", tmp_path / "no start", methods.REPVGG)
    assert last.info.input_range == (0.0, 1.0)
    assert score(last, settings, SHIPPED) == pytest.approx(outcome.curve[-1][1], abs=1e-6)


def test_what_is_done_is_not_trained_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "memsrc", None)
    outcome = run(ONE, smoke_settings(folder))
    assert run(ONE, smoke_settings(folder, done=True)) == outcome
    assert run_method(ONE, 234, smoke_settings(folder, done=True)) is None
    with pytest.raises(TypeError):  # there is no memsrc now
        run_method(ONE, 234, smoke_settings(folder))


def test_a_test_set_that_is_named_later_is_scored_then(folder: Path) -> None:
    shutil.copytree(folder / "runs" / "photographs", folder / "tests" / "Set5" / "x2")
    settings = smoke_settings(folder, tests=folder / "tests")
    outcome = run(ONE, settings)
    assert outcome.scores == {"Set5": pytest.approx(outcome.curve[-1][1], abs=1e-6)}
    line = Line(ONE, {"Set5": "32.09", "Set14": "28.54"})
    table = list(make_table(1, "Table", [line], (), settings))[-1]
    assert table.columns == ("", "at the start", "after 2 steps", "Set5")
    assert table.rows[1].cells[2] == Numbers((outcome.scores["Set5"],), "32.09")


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, original = 60, runs.memsrc
    killed, whole = (smoke_settings(tmp_path, steps=steps, runs=tmp_path / name) for name in ("killed", "whole"))
    command = ["-m", "benchmarks.paper", "table10", "--smoke", "--steps", str(steps), "--runs", str(killed.runs)]
    place = folder_of(ONE, killed) / "run"
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as this process has: more of them add up in another order
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=one_thread, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and len(checkpoints.steps(place)) < 2:
            time.sleep(0.02)
        process.kill()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert 0 < checkpoints.steps(place)[-1] < steps, "the machine was too fast, or nothing ran"
    arguments: list[tuple[object, ...]] = []

    def listen(*given: object) -> None:
        arguments.append(given)
        original(*given)

    monkeypatch.setattr(runs, "memsrc", listen)
    outcome = run(ONE, killed)
    assert arguments == [("distill", "--resume", place)]
    assert outcome.curve == run(ONE, whole).curve


def test_an_interrupted_run_is_not_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """typer catches Ctrl-C, and gives the status of it."""
    settings = smoke_settings(folder)
    monkeypatch.setattr(runs, "app", lambda *_, **__: 130)
    with pytest.raises(KeyboardInterrupt):
        run(methods.HE[0], settings)
    assert not (folder_of(methods.HE[0], settings) / "outcome.json").exists()
    assert main(["table2", "--smoke", "--runs", str(settings.runs), "--row", methods.HE[0].name]) == 130


def test_a_run_that_diverges_is_a_row_that_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = smoke_settings(folder)
    table = list(make_table(1, "Table", [Line(WILD), Line(ONE)], (), settings))[-1]
    assert table.rows[1].cells[1] == "diverged after step 0"
    assert not isinstance(table.rows[2].cells[1], str)
    monkeypatch.setattr(runs, "memsrc", None)
    assert run(WILD, settings).failure.startswith("after step 1: ")


def test_a_folder_that_is_of_another_run_is_no_run_that_diverged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: str, *_: object) -> None:
        if command != "shrink":
            raise InvalidInput(
                "run/step-2.ckpt: is of another run, or run/log.jsonl is: 30 dB after step 2, and there 31"
            )

    settings = smoke_settings(folder)
    monkeypatch.setattr(runs, "memsrc", refuse)
    with pytest.raises(InvalidInput, match="of another run"):
        run(methods.HE[0], settings)
    assert not (folder_of(methods.HE[0], settings) / "outcome.json").exists()


def test_a_row_that_is_not_run_says_so(folder: Path) -> None:
    rows = [Line(methods.HE[0]), Line(ONE)]
    table = list(make_table(1, "Table", rows, (), smoke_settings(folder, done=True)))[-1]
    assert [row.cells[0] == "not run" for row in table.rows] == [False, True, False]


def test_one_row_alone(folder: Path) -> None:
    rows = [Line(methods.HE[0]), Line(ONE), Line(methods.XAVIER[0])]
    settings = smoke_settings(folder, rows=("new weights, Xavier",))
    table = list(make_table(1, "Table", rows, (), settings))[-1]
    assert [row.cells[0] == "not run" for row in table.rows] == [False, True, False, False]
    with pytest.raises(InvalidInput, match="--row He: is no row here; there are new weights, He; initialised; new"):
        list(make_table(1, "Table", rows, (), smoke_settings(folder, rows=("He",))))


@pytest.mark.parametrize(("change", "words"), [({"steps": 3}, "steps 2, not 3"), ({"patch": 20}, "patch 16, not 20")])
def test_a_run_with_other_settings_is_refused(change: dict[str, int], words: str, folder: Path) -> None:
    with pytest.raises(InvalidInput, match=words):
        run(ONE, smoke_settings(folder, **change))


def test_a_run_on_other_photographs_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="is a run with photographs those that ship, not "):
        run(ONE, smoke_settings(folder, data=folder / "runs" / "photographs"))


def test_a_run_of_another_row_or_a_damaged_one_is_refused(folder: Path) -> None:
    settings, other = smoke_settings(folder), methods.HE[0]
    folder_of(ONE, settings).rename(folder_of(other, settings))
    with pytest.raises(InvalidInput, match=r"is a run with distill \['--as-published', '--lambda', '0'\], not"):
        run(other, settings)
    (folder_of(other, settings) / "settings.json").write_text("[")
    with pytest.raises(InvalidInput, match=r"settings\.json: is damaged"):
        run(other, settings)


def list_methods() -> Iterator[Method]:
    for value in vars(methods).values():
        yield from (part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, Method))


def test_every_method_has_a_folder_of_its_own_and_names_do_not_count() -> None:
    folders = [method.folder for method in list_methods()]
    assert len(set(folders)) == len(folders) > 30
    assert {method.name for method in list_methods()} != set(folders)
    assert Method("a", ("--init", "memsr"), ("--lambda", "0")).folder == "init_memsr_to_lambda_0"
