"""Runs that are killed at any moment go on, or begin again, and end with the same bits as one that was not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.killing import Kill, Killing, leftovers, random_kill, same_end
from helpers.training import derive_student, write_networks, write_photographs

pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")
pytest.importorskip("fcntl", reason="needs fork")

Command = Callable[..., list[object]]

LOOP, COMMON, CHECKPOINTS = (
    f"memsr_compiler.{name}" for name in ("training.loop", "commands.runs.common", "training.checkpoints")
)


@pytest.fixture(scope="module")
def killing() -> Iterator[Killing]:
    with Killing() as process:
        yield process


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_networks(derive_student(), tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def train(photographs: Path) -> Command:
    def command(run: Path, *more: object) -> list[object]:
        small = ["--arch", "edsr", "--blocks", 1, "--channels", 4, "--scale", 2, "--steps", 6, "--every", 2]
        data = ["--data", photographs, "--val", photographs, "--batch", 2, "--patch", 16, "--ema", 0.9]
        return ["train", *small, *data, "--out", run, "--cache", run.parent / "cache", *more]

    return command


@pytest.fixture(scope="module")
def distill(photographs: Path, networks: Path) -> Command:
    def command(run: Path, *more: object) -> list[object]:
        both = [networks / "student.safetensors", "--teacher", networks / "teacher.pt", "--steps", 6, "--every", 2]
        data = ["--data", photographs, "--val", photographs, "--batch", 2, "--patch", 16]
        return ["distill", *both, *data, "--out", run, "--cache", run.parent / "cache", *more]

    return command


@pytest.fixture(scope="module")
def undisturbed(killing: Killing, train: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    status, said = killing.run(*train(run))
    assert status == 0, said
    return run


BEFORE_THE_FIRST_CHECKPOINT = [
    Kill("memsr_compiler.training.patches.read_image", 2),  # while photographs are made ready
    Kill("os.fsync", 6),  # while one of them is written
    Kill(f"{COMMON}.read_bench"),
    Kill(f"{LOOP}.RunState"),
    Kill(f"{COMMON}.Bench.psnr"),  # in the first validation
    Kill("memsr_compiler.training.progress.Log.add", after=True),
]
LATER = [
    Kill(f"{CHECKPOINTS}.save_step", after=True),  # the first; its best network has not been written
    Kill(f"{LOOP}._Stepper.take", 1, after=True),  # between two checkpoints
    Kill(f"{LOOP}._Stepper.take", 4),
    Kill(f"{COMMON}.Bench.psnr", 3),
    Kill("memsr_compiler.training.progress.Log.add", 3, after=True),  # logged, no checkpoint yet
    Kill(f"{CHECKPOINTS}.atomic_write", 3, after=True),
    Kill("memsr_compiler.commands.train._write"),
    Kill("memsr_compiler.commands.train.export_onnx"),  # one of two results is there
    Kill("memsr_compiler.commands.train.tell"),
]


@pytest.mark.parametrize("number", range(len(BEFORE_THE_FIRST_CHECKPOINT)))
def test_before_its_first_checkpoint_a_run_can_be_begun_again_or_resumed(
    killing: Killing, train: Command, undisturbed: Path, tmp_path: Path, number: int
) -> None:
    run, ways = tmp_path / "run", (train(tmp_path / "run"), ["train", "--resume", tmp_path / "run"])
    assert killing.run(*train(run), kill=BEFORE_THE_FIRST_CHECKPOINT[number])[0] == -9
    assert not list(run.glob("step-*.ckpt"))
    status, said = killing.run(*ways[number % 2])
    assert status == 0, said
    assert "was begun before, and stopped without a checkpoint; begins from the start" in said
    assert same_end(undisturbed, run) and not leftovers(tmp_path)


@pytest.mark.parametrize("kill", LATER, ids=repr)
def test_a_run_that_was_killed_goes_on(
    killing: Killing, train: Command, undisturbed: Path, tmp_path: Path, kill: Kill
) -> None:
    run = tmp_path / "run"
    assert killing.run(*train(run), kill=kill)[0] == -9
    status, said = killing.run("train", "--resume", run)
    assert status == 0, said
    assert same_end(undisturbed, run) and not leftovers(tmp_path)


def test_a_run_with_a_checkpoint_is_not_begun_again_by_accident(
    killing: Killing, train: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert killing.run(*train(run), kill=Kill(f"{LOOP}._Stepper.take", 4))[0] == -9
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.glob("step-*"))
    status, said = killing.run(*train(run))
    assert status == 2 and f"--resume {run} goes on with it" in said
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.glob("step-*")) == before


@pytest.mark.parametrize("seed", range(3))
def test_runs_that_are_killed_again_and_again(
    killing: Killing, train: Command, undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    chance, run = random.Random(seed), tmp_path / "run"
    for _ in range(2):
        command = ["train", "--resume", run] if (run / "config.yaml").exists() else train(run)
        assert killing.run(*command, kill=random_kill(chance))[0] in (-9, 0)
    status, said = killing.run("train", "--resume", run)
    assert status == 0, said
    assert same_end(undisturbed, run) and not leftovers(tmp_path)


def test_a_student_is_distilled_on(killing: Killing, distill: Command, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert killing.run(*distill(whole))[0] == 0
    assert killing.run(*distill(run), kill=Kill(f"{LOOP}._Stepper.take", 4))[0] == -9
    assert killing.run("distill", "--resume", run, kill=Kill("memsr_compiler.commands.distill.export_onnx"))[0] == -9
    status, said = killing.run("distill", "--resume", run)
    assert status == 0, said
    assert same_end(whole, run) and not leftovers(tmp_path)


def test_beginning_anew_keeps_the_old_run_until_the_new_one_has_its_data(
    killing: Killing, train: Command, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shutil.copytree(undisturbed.parent / "cache", tmp_path / "cache")
    anew = train(run, "--overwrite", "--seed", 1)
    assert killing.run(*anew, kill=Kill(f"{COMMON}.read_bench"))[0] == -9
    assert same_end(undisturbed, run)
    assert killing.run(*anew, kill=Kill("pathlib.Path.unlink", 3))[0] == -9  # while it is removed
    status, said = killing.run(*anew)
    assert status == 0, said
    assert not same_end(undisturbed, run) and not leftovers(tmp_path)


def test_a_sweep_that_was_killed_is_run_again_and_leaves_nothing(
    killing: Killing, networks: Path, photographs: Path, tmp_path: Path
) -> None:
    table = tmp_path / "curve.csv"
    quick = ["--calibration", photographs, "--samples", 4, "--refit", 0]
    command = ["sweep", networks / "teacher.pt", "--width", "4", *quick, "--csv", table]
    assert killing.run(*command, kill=Kill("os.replace"))[0] == -9
    assert len(leftovers(tmp_path)) == 1 and not table.exists()
    status, said = killing.run(*command)
    assert status == 0 and not leftovers(tmp_path), said
    before = table.read_bytes()
    assert killing.run(*command, kill=Kill("os.fsync"))[0] == -9
    assert table.read_bytes() == before  # the old one stays until the new one is whole
