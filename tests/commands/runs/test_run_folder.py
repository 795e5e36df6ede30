"""The folder of a run: what is checked before it begins."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command_line import Run, must_refuse
from helpers.training import draw_picture, forget_accelerator, forget_options, write_photographs
from PIL import Image

from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.interface.training_options import TrainingOptions
from memsr_compiler.commands.runs import run_folder
from memsr_compiler.commands.runs.run_folder import CONFIG, DATA, hold_run, keep_data, list_changes
from memsr_compiler.errors import InvalidInput
from memsr_compiler.locks import hold_folder
from memsr_compiler.training.recipe import Recipe


def test_only_the_first_process_looks_whether_the_place_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may be late, and find what the first one has written."""
    options = TrainingOptions(data=[tmp_path], out=tmp_path / "run")
    options.out.mkdir()
    (options.out / CONFIG).write_text("steps: 4\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with hold_run(options, Recipe(steps=4, batch=2), {}, Talk()) as resume:
        assert resume is None
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(InvalidInput, match=r"holds config\.yaml already"),
        hold_run(options, Recipe(steps=4, batch=2), {}, Talk()),
    ):
        raise AssertionError("the place was not free")


def test_a_run_never_replaces_the_options_that_it_reads(tmp_path: Path) -> None:
    """A file of options in the run's folder, with its comments, was the run's own record afterwards."""
    (tmp_path / "run").mkdir()
    mine = tmp_path / "run" / CONFIG
    mine.write_text("steps: 4  # no more\n")
    options = TrainingOptions(data=[tmp_path], out=tmp_path / "run", config=mine, overwrite=True)
    message = r"config\.yaml: is the file of options that is read, and a run in .*run replaces it"
    with pytest.raises(InvalidInput, match=message), hold_run(options, Recipe(steps=4, batch=2), {}, Talk()):
        raise AssertionError("the place was not free")
    assert mine.read_text() == "steps: 4  # no more\n"


def test_a_folder_that_tensorboard_cannot_name(tmp_path: Path) -> None:
    options = TrainingOptions(data=[tmp_path], out=Path(os.fsdecode(os.fsencode(tmp_path) + b"/run\xff")))
    with (
        pytest.raises(InvalidInput, match="is no name in UTF-8, and TensorBoard writes to no other"),
        hold_run(options, Recipe(steps=4, batch=2), {}, Talk()),
    ):
        raise AssertionError("it began")


@pytest.mark.parametrize("kind", ["student", "teacher"])
@pytest.mark.parametrize("name", ["best.ckpt", "student.onnx", "step-00000010.ckpt"])
def test_a_run_never_replaces_the_network_that_it_reads(kind: str, name: str, tmp_path: Path) -> None:
    """A teacher in the run's folder was gone as soon as the run began."""
    network = tmp_path / "run" / name
    network.parent.mkdir()
    network.write_bytes(b"weights")
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    options = TrainingOptions(data=[tmp_path], out=tmp_path / "alias", overwrite=True)
    message = f"{name}: is the network that is read, and a run in .*alias replaces it"
    with (
        pytest.raises(InvalidInput, match=message),
        hold_run(options, Recipe(steps=4, batch=2), {kind: str(network)}, Talk()),
    ):
        raise AssertionError("it began")
    elsewhere = {kind: str(tmp_path / name)}
    with hold_run(options, Recipe(steps=4, batch=2), elsewhere, Talk()) as resume:
        assert resume is None


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def train(tmp_path: Path, photographs: Path) -> list[object]:
    """A run that takes two steps, on its own copies of the photographs."""
    forget_accelerator()
    for name in ("data", "val"):
        shutil.copytree(photographs, tmp_path / name)
    small = ["--arch", "edsr", "--blocks", 1, "--channels", 4, "--scale", 2, "--steps", 2, "--every", 1]
    data = ["--data", tmp_path / "data", "--val", tmp_path / "val", "--batch", 2, "--patch", 16]
    return ["train", *small, *data, "--out", tmp_path / "run", "--cache", tmp_path / "cache"]


def test_of_two_runs_on_a_folder_the_second_is_told(run: Run, train: list[object], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with hold_folder(tmp_path / "run"):  # as the other one does
        must_refuse(run, tmp_path, tuple(train), f"process {os.getpid()} on ", "is at work in it")
        must_refuse(run, tmp_path, (*train, "--overwrite"), "is at work in it")
    assert run(*train, "-q") == (0, "", "")
    with hold_folder(tmp_path / "run"):
        must_refuse(run, tmp_path, ("train", "--resume", tmp_path / "run"), "is at work in it")
    forget_accelerator()
    assert run("train", "--resume", tmp_path / "run", "-q") == (0, "", "")


def test_a_run_that_ended_while_another_waited_to_begin_is_not_replaced(
    run: Run, train: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        (folder / "step-00000002.ckpt").write_bytes(b"the other's")
        with hold_folder(folder):
            yield

    monkeypatch.setattr(run_folder, "hold_folder", late)
    status, _, err = run(*train)
    assert status == 2 and "holds a run already" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000002.ckpt"]


def test_a_run_that_is_refused_leaves_nothing(run: Run, train: list[object], tmp_path: Path) -> None:
    status, _, err = run(*train, "--out", tmp_path / "a" / "b", "--patch", 1000)
    assert status == 2 and "no photograph of at least 1000x1000" in err
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    assert run(*train, "--out", tmp_path / "mine", "--patch", 1000)[0] == 2
    assert not list((tmp_path / "mine").iterdir())


def test_a_config_of_somebody_else_is_not_begun_again(run: Run, train: list[object], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).write_text("steps: 4\n")
    must_refuse(run, tmp_path, tuple(train), "holds config.yaml already")
    must_refuse(run, tmp_path, ("train", "--resume", tmp_path / "run", *train[1:]), "has no checkpoint")
    (tmp_path / "run" / "versions.yaml").write_text("memsr_compiler: 1.0\n")  # so did earlier versions begin
    (tmp_path / "run" / "model.ckpt").write_text("somebody's")
    status, out, err = run(*train)
    assert status == 0 and "begins from the start" in out, err
    assert (tmp_path / "run" / "model.ckpt").read_text() == "somebody's"


def test_data_that_changed_since_are_told(run: Run, train: list[object], tmp_path: Path) -> None:
    assert run(*train, "-q") == (0, "", "")
    resume = ("train", "--resume", tmp_path / "run")
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    for path in (tmp_path / "moved").iterdir():
        os.utime(path, (1, 1))
    forget_accelerator()
    assert run(*resume, "--data", tmp_path / "moved", "-q") == (0, "", "")  # the same photographs elsewhere
    for i in (3, 4, 5, 6):
        Image.fromarray(draw_picture(40, 40, i)).save(tmp_path / "data" / f"{i}.png")
    (tmp_path / "data" / "0.png").unlink()
    Image.fromarray(draw_picture(44, 50, 9)).save(tmp_path / "data" / "1.png")
    Image.fromarray(draw_picture(44, 50, 9)).save(tmp_path / "val" / "2.png")
    status, _, err = run(*resume)
    assert status == 2 and err.count("\n") == 1
    for words in (
        "photographs: 4 added (3.png, 4.png, 5.png, ...), 1 removed (0.png), 1 changed (1.png); validation: 1 changed",
        "or go on with these by --allow-changed-data",
    ):
        assert words in err, err
    forget_accelerator()
    status, _, err = run(*resume, "--allow-changed-data")
    assert status == 0 and "goes on with other data than it began with: photographs: 4 added" in err
    forget_accelerator()
    assert run(*resume, "-q") == (0, "", "")  # they are now the run's


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such names")
def test_a_run_goes_on_whatever_its_files_are_called(run: Run, train: list[object], tmp_path: Path) -> None:
    """Its own record was refused for blanks of other scripts, as they are usual in Japanese names, and for joiners."""
    odd = os.fsdecode("写真\u3000a\u00a0b👨\u200d👩\n\x7f c".encode() + b"\xff")
    for name in ("data", "val", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / f"{name}{odd}")
    places = [word for name in ("data", "val", "cache") for word in (f"--{name}", tmp_path / f"{name}{odd}")]
    out = tmp_path / "run 写真\u3000👨\u200d👩\n"
    few = ["--arch", "edsr", "--blocks", 1, "--channels", 4, "--scale", 2, "--steps", 2, "--batch", 2, "--patch", 16]
    assert run("train", *few, *places, "--out", out, "-q") == (0, "", "")
    forget_accelerator()
    assert run("train", "--resume", out, "-q") == (0, "", "")
    forget_accelerator()
    assert run("train", "--config", out / CONFIG, "--out", tmp_path / "again", "-q") == (0, "", "")


def test_an_option_that_the_record_lacks_had_its_default(run: Run, train: list[object], tmp_path: Path) -> None:
    assert run(*train, "-q") == (0, "", "")
    config = tmp_path / "run" / CONFIG
    before = config.read_text()
    config.write_text(
        "".join(line for line in before.splitlines(keepends=True) if not line.startswith(("clip", "ema")))
    )
    assert config.read_text() != before
    forget_options(tmp_path / "run")
    forget_accelerator()
    assert run("train", "--resume", tmp_path / "run", "-q") == (0, "", "")  # as of a version before these options
    forget_accelerator()
    must_refuse(
        run, tmp_path, ("train", "--resume", tmp_path / "run", "--clip", 1), "--clip 1.0: the run began with 0.0"
    )


def test_what_a_run_is_about_is_compared_from_now_on_where_it_does_not_say(
    run: Run, train: list[object], tmp_path: Path
) -> None:
    assert run(*train, "-q") == (0, "", "")
    (tmp_path / "run" / DATA).unlink()  # as earlier versions left it
    forget_accelerator()
    status, _, err = run("train", "--resume", tmp_path / "run")
    assert status == 0 and "does not say which data it began with" in err
    (tmp_path / "run" / DATA).write_text("[")
    status, _, err = run("train", "--resume", tmp_path / "run")
    assert status == 2 and f"{DATA}: is damaged" in err and "remove it" in err


@pytest.mark.parametrize(
    ("line", "edited", "message"),
    [
        ("rate: 0.0002", "rate: 0.1", "rate is 0.1, and the run began with 0.0002"),  # is in the state: had no effect
        ("seed: 233", "seed: 5", "seed is 5, and the run began with 233"),  # had one, from here on
        ("clip: 0.0\n", "", "clip is not there, and the run began with 0.0"),
        ("clip: 0.0\n", "clip: 0.0\nwidth: 8\n", "width is 8, and the run began with none"),
    ],
)
def test_options_that_were_edited_are_refused(
    run: Run, train: list[object], tmp_path: Path, line: str, edited: str, message: str
) -> None:
    assert run(*train, "-q", "--rate", 2e-4) == (0, "", "")
    path = tmp_path / "run" / CONFIG
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, edited))
    forget_accelerator()
    status, _, err = run("train", "--resume", tmp_path / "run", "--allow-changed-data")
    assert status == 2 and message in err and "put it back" in err and err.count("\n") == 1


def test_options_are_compared_from_now_on_where_a_run_does_not_say(
    run: Run, train: list[object], tmp_path: Path
) -> None:
    assert run(*train, "-q") == (0, "", "")
    before = (tmp_path / "run" / DATA).read_text()
    forget_options(tmp_path / "run")
    forget_accelerator()
    assert run("train", "--resume", tmp_path / "run", "-q") == (0, "", "")
    assert (tmp_path / "run" / DATA).read_text() == before


def test_changes_in_words() -> None:
    before = {"networks": {"teacher": "a", "student": "b"}, "photographs": {"x": "1"}}
    assert list_changes(before, before) == []
    assert list_changes(before, {**before, "networks": {"teacher": "c", "student": "b"}}) == [
        "networks: 1 changed (teacher)"
    ]
    assert list_changes({}, {"photographs": {"x": "1"}}) == ["photographs: 1 added (x)"]
    turned = {"photographs": {"b/x": "2", "a/x": "1"}}  # --data b --data a: patch i is of another photograph
    assert list_changes({"photographs": {"a/x": "1", "b/x": "2"}}, turned) == ["photographs: in another order"]


def test_code_that_an_earlier_version_did_not_look_at_is_compared_from_now_on(tmp_path: Path) -> None:
    """It noted the factory's module alone, not what that imports."""
    options = TrainingOptions(data=[tmp_path], out=tmp_path)
    (tmp_path / CONFIG).write_text("steps: 4\n")
    warned: list[str] = []
    talk = Talk()
    talk.warn = warned.append  # type: ignore[method-assign, assignment]
    keep_data(options, {"code": {"own": "1"}}, None, talk)
    keep_data(options, {"code": {"blocks": "2", "own": "1"}}, tmp_path, talk)
    keep_data(options, {"code": {"own": "1", "blocks": "2"}}, tmp_path, talk)
    assert len(warned) == 1 and "does not say what was in blocks, which its code imports" in warned[0]
    with pytest.raises(InvalidInput, match=r"code: 1 changed \(blocks\)"):
        keep_data(options, {"code": {"own": "1", "blocks": "3"}}, tmp_path, talk)
    with pytest.raises(InvalidInput, match=r"code: 1 added \(new\), 1 changed \(own\)"):
        keep_data(options, {"code": {"own": "2", "blocks": "2", "new": "4"}}, tmp_path, talk)
