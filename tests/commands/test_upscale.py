"""memsrc upscale of a folder: no file stops the others, no kill spoils it, no second process disturbs it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import kill_upscale
from helpers.command_line import Run
from helpers.onnx_files import model as network_of
from helpers.onnx_files import node, whole
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler import export_onnx, load_plain
from memsr_compiler.commands import upscale
from memsr_compiler.commands.runs.resume import NAME, ImageState, Journal, JournalNotWritten
from memsr_compiler.locks import hold_folder
from memsr_compiler.runtime import upscale_file


def pixels(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, height: int = 10, width: int = 12) -> None:
    Image.fromarray(pixels(height, width)).save(path)


def names(folder: Path) -> list[str]:
    """What is in a folder, but hidden."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a.png and z.png; what is between them must not keep z.png from being done."""
    folder = tmp_path / "photos"
    folder.mkdir()
    write(folder / "a.png")
    write(folder / "z.png", 8)
    return folder


# -- one file never stops the others


def test_whatever_a_name_stands_for(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "b folder.png").mkdir()
    (photos / "subfolder").mkdir()
    (photos / "c gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(photos / "d pipe.png")
    (photos / "e empty.png").touch()
    (photos / "f text.jpg").write_text("no image")
    write(photos / "g large.png", 100, 100)
    (photos / ".hidden.png").write_text("no image")
    large = tmp_path / "large"
    status, out, err = run("upscale", photos, large, "--model", model, "--max-pixels", "9999")
    assert status == 3 and names(large) == ["a.png", "z.png"]
    assert (
        "6 of 8 files could not be enlarged: b folder.png, c gone.png, d pipe.png, e empty.png, f text.jpg, ..." in err
    )
    told = " ".join(out.split())
    for reason in (
        "b folder.png: is a folder", "c gone.png: is a link to nothing", "d pipe.png: is no file but a pipe",
        "e empty.png: not a readable image", "f text.jpg: not a readable image",
        "g large.png: has 100 x 100 pixels, more than 9,999",
    ):  # fmt: skip
        assert f"passed over {photos}/{reason}" in told and reason in " ".join(err.split())
    status, out, _ = run("upscale", photos, large, "--model", model, "--json")
    result = json.loads(out)  # one object
    assert status == 3 and names(large) == ["a.png", "g large.png", "z.png"]
    assert result["failed"] == ["b folder.png", "c gone.png", "d pipe.png", "e empty.png", "f text.jpg"]
    assert result["passed_over"][0] == f"{photos}/b folder.png: is a folder" and len(result["done_before"]) == 2
    status, _, err = run("upscale", f"{photos}/[bcd]*.png", tmp_path / "none", "--model", model, "--json")
    assert status == 2 and "3 of 3 files could not be enlarged" in err and names(tmp_path / "none") == []


def test_a_pipe_is_not_waited_for(run: Run, model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    status, _, err = run("upscale", tmp_path / "pipe.png", tmp_path / "out.png", "--model", model)
    assert status == 2 and "pipe.png: is no file but a pipe" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    write(photos / "b.png")
    (photos / "b.png").chmod(0)
    status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    assert (
        status == 3
        and "b.png: " in err
        and "Permission denied" in err
        and names(tmp_path / "large") == ["a.png", "z.png"]
    )


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8"])
def test_whatever_a_name_is_made_of(model: Path, photos: Path, tmp_path: Path, encoding: str) -> None:
    """No UTF-8; as long as a name can be; not to be written in ASCII; a terminal's and rich's control characters."""
    odd = [
        b"caf\xe9.png",
        b"n" * 251 + b".png",
        "写真.png".encode(),
        b"[bold] :cat: \x1b[31m\n.png",
        b"x[1].png",
        b"-q.png",
    ]
    for name in odd:
        with open(os.path.join(os.fsencode(photos), name), "wb") as file:
            Image.fromarray(pixels(9, 9)).save(file, "PNG")
    with open(os.path.join(os.fsencode(photos), b"m" * 255), "wb") as file:  # its result's name would be too long
        Image.fromarray(pixels(9, 9)).save(file, "PNG")
    command = [sys.executable, "-m", "memsr_compiler", "upscale", str(photos), str(tmp_path / "large")]
    command += ["--model", str(model)]
    for expected in ("written", "done before  8 of 9"):
        done = subprocess.run(
            command, env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "400"}, capture_output=True
        )
        assert done.returncode == 3, done.stderr
        assert sorted(os.listdir(os.fsencode(tmp_path / "large"))) == sorted([b"a.png", b"z.png", NAME.encode(), *odd])
        assert expected.encode() in done.stdout
        assert b"1 of 9 files could not be enlarged: mmmm" in done.stderr and b"File name too long" in done.stderr
        assert b"\x1b[31m" not in done.stdout + done.stderr
        if expected == "written":
            assert rb"caf\udce9.png" in done.stdout and rb"[bold] :cat: \x1b[31m\n.png" in done.stdout
            assert (rb"\u5199\u771f" in done.stdout) == (encoding != "utf-8")


def test_a_folder_whose_name_is_no_utf8(run: Run, model: Path, tmp_path: Path) -> None:
    photos, large = (Path(os.fsdecode(os.fsencode(tmp_path / part) + b"\xff")) for part in ("photos", "large"))
    photos.mkdir()
    write(photos / "a.png")
    Image.fromarray(pixels(9, 9)).save(photos / "b.tif")
    assert run("upscale", photos, large, "--model", model, "--tile", "4")[0] == 0
    assert names(large) == ["a.png", "b.tif"]


def test_a_place_that_is_taken(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    (large / "b.png").mkdir(parents=True)
    (large / "c.png").write_text("somebody's own")
    (large / "d.png").symlink_to("nothing.png")
    for name in ("b", "c", "d"):
        write(photos / f"{name}.png")
    status, _, err = run("upscale", photos, large, "--model", model)
    assert status == 3 and "b.png: is a folder" in err and "c.png: is there already" in err
    assert "d.png: is there already" in err and (large / "d.png").is_symlink()
    assert names(large) == ["a.png", "b.png", "c.png", "d.png", "z.png"]
    assert (large / "c.png").read_text() == "somebody's own"
    assert run("upscale", photos, large, "--model", model, "--overwrite")[0] == 3
    assert Image.open(large / "c.png").size == (24, 20)


def test_two_files_that_would_become_one(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("b.bmp", "b.tga", "b.bmp.png"):
        write(photos / name)
    status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    assert status == 3 and f"b.bmp.png: would become {tmp_path}/large/b.bmp.png, as {photos}/b.bmp does" in err
    assert names(tmp_path / "large") == ["a.png", "b.bmp.png", "b.tga.png", "z.png"]


def test_what_changes_or_vanishes_meanwhile(
    run: Run, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b gone.png", "c while read.png", "d changed.png"):
        write(photos / name)
    enlarge = upscale_file.enlarge_file

    def meddle(engine: Any, image: Any, target: Path, scale: int, on_rows: Any, on_whole: Any) -> None:
        (photos / "b gone.png").unlink(missing_ok=True)

        def rows(count: int) -> None:
            on_rows(count)
            if image.path.name == "c while read.png":
                image.path.unlink(missing_ok=True)
            if image.path.name == "d changed.png":
                os.utime(image.path, (1, 1))

        enlarge(engine, image, target, scale, rows, on_whole)

    monkeypatch.setattr(upscale, "enlarge_file", meddle)
    status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    assert status == 3 and "3 of 5 files" in err and names(tmp_path / "large") == ["a.png", "z.png"]
    assert "d changed.png: has changed since it was looked at" in " ".join(err.split())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), RuntimeError(), KeyError("x")])
def test_whatever_goes_wrong_while_one_is_enlarged(
    run: Run, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write(photos / "b.png")
    enlarge = upscale_file.enlarge_file

    def fail(engine: Any, image: Any, *arguments: Any) -> None:
        if image.path.name == "b.png":
            raise error
        enlarge(engine, image, *arguments)

    monkeypatch.setattr(upscale, "enlarge_file", fail)
    status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    words = "there is not enough memory for it" if isinstance(error, MemoryError) else type(error).__name__
    assert status == 3 and f"b.png: {words}" in err and names(tmp_path / "large") == ["a.png", "z.png"]


def test_what_the_format_cannot_hold_is_told_before_any_work(
    run: Run, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(photos / "b wide.webp", 2, 8192)
    enlarge = upscale_file.enlarge_file

    def watch(engine: Any, image: Any, *arguments: Any) -> None:
        assert image.path.name != "b wide.webp", "it is worked on"
        enlarge(engine, image, *arguments)

    monkeypatch.setattr(upscale, "enlarge_file", watch)
    status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    assert status == 3 and names(tmp_path / "large") == ["a.png", "z.png"]
    assert "b wide.webp: the result would have 16,384 x 4 pixels, and .webp holds 16,383 a side at most" in err


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at Linux's list of open files")
def test_what_does_not_fit_on_the_disk_takes_no_room_from_the_others(
    run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    import resource

    write(photos / "b large.png", 200, 200)
    write(photos / "c large.tif", 200, 200)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 3 and "b large.png: " in err and "cannot be written" in err
    assert names(tmp_path / "large") == ["a.png", "z.png"]
    opened = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [path for path in opened if ".memsr-" in path.name]


# -- goes on


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks")
def test_a_folder_that_is_killed_goes_on_wherever_that_is(model: Path, tmp_path: Path) -> None:
    """Before every renaming, removal and durable write, and at 20 random moments: always the same in the end."""
    photos = tmp_path / "photos"
    photos.mkdir()
    write(photos / "a.png", 40, 40)
    write(photos / "b.jpg", 30, 60)
    (tmp_path / "place").mkdir()
    program = [kill_upscale.__file__, str(model), str(photos), str(tmp_path / "place"), "20"]
    done = subprocess.run(
        [sys.executable, *program], capture_output=True, text=True, env={**os.environ, "COLUMNS": "400"}
    )
    assert done.returncode == 0, done.stderr
    points, _, kills = done.stdout.split()[:3]
    assert int(points) >= 12 and int(kills) >= 20


def test_a_second_process_on_the_folder_is_told(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    with hold_folder(large):
        status, _, err = run("upscale", photos, large, "--model", model)
    assert status == 2 and "is at work in it" in err and names(large) == []
    assert run("upscale", photos, large, "--model", model)[0] == 0


def test_a_single_image_goes_into_a_folder_that_is_at_work(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    with hold_folder(tmp_path):
        assert run("upscale", photos / "a.png", tmp_path / "a2.png", "--model", model)[0] == 0


def test_a_journal_without_times_of_results_is_gone_on_with(
    run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    assert run("upscale", photos, large, "--model", model)[0] == 0
    lines = (large / NAME).read_text().splitlines()
    done = {name: entry[:5] for name, entry in map(json.loads, lines[1:])}
    old = {"work": json.loads(lines[0])["work"], "done": done}
    (large / NAME).write_text(json.dumps(old))
    (large / "z.png").unlink()
    status, out, _ = run("upscale", photos, large, "--model", model)
    assert status == 0 and "done before  1 of 2" in out and names(large) == ["a.png", "z.png"]


def test_networks_under_any_name_of_bytes(run: Run, model: Path, tmp_path: Path) -> None:
    """ONNX and its runtime take no path that is not in UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    shutil.copytree(model.parent, folder)
    export_onnx(load_plain(folder / model.name), folder / "again.onnx")
    (tmp_path / "small").mkdir()
    write(tmp_path / "small" / "a.png", 48, 48)
    networks, quick = (folder / model.name, folder / "again.onnx"), ("--size", "8x6", "--repeats", 1)
    status, _, err = run("bench", *networks, *quick, "--data", tmp_path / "small")
    assert status == 0, err


def test_copies_of_results_are_results(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    large, copy = tmp_path / "large", tmp_path / "copy"
    assert run("upscale", photos, large, "--model", model)[0] == 0
    copy.mkdir()
    for path in large.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    status, out, _ = run("upscale", photos, copy, "--model", model)
    assert status == 0 and "done before  2 of 2" in out


def test_a_result_that_was_announced_is_done_only_as_it_was(tmp_path: Path) -> None:
    """A file of another's that has the same size, put there after the kill, is not taken for ours."""
    image, result, staged = (tmp_path / name for name in ("image", "result", "staged"))
    image.write_text("pixels")
    staged.write_text("larger")
    state = ImageState.of(image)
    with Journal(tmp_path, "x2") as journal:
        journal.announce(state, result, staged)
    os.utime(result if result.exists() else staged, ns=(0, staged.stat().st_mtime_ns))
    assert not Journal(tmp_path, "x2").has(state, result)
    result.write_text("others")
    os.utime(result, ns=(0, staged.stat().st_mtime_ns + 1))
    assert not Journal(tmp_path, "x2").has(state, result)
    staged.replace(result)
    assert Journal(tmp_path, "x2").has(state, result)
    assert not Journal(tmp_path, "x3").has(state, result)


def test_a_result_of_an_image_that_changed_its_name_is_not_done(tmp_path: Path) -> None:
    """Photographs without compression out of one archive are of one size and one time."""
    first, second, result = (tmp_path / name for name in ("a.bmp", "b.bmp", "a.png"))
    for path in (first, second, result):
        path.write_text(path.name)
        os.utime(path, (1, 1))
    with Journal(tmp_path, "x2") as journal:
        journal.confirm(ImageState.of(first), result)
    assert Journal(tmp_path, "x2").has(ImageState.of(first), result)
    second.replace(first)
    assert not Journal(tmp_path, "x2").has(ImageState.of(first), result)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"[" * 100_000,
        b'{"work": "x2", "done": 3}\n',
        b'{"work": "x2", "done": {"image": 3}}\n',
        b"\xff\n",
    ],
)
def test_a_damaged_journal_is_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / NAME).write_bytes(damage)
    (tmp_path / "image").write_text("pixels")
    state = ImageState.of(tmp_path / "image")
    with Journal(tmp_path, "x2") as journal:
        assert not journal.has(state, tmp_path / "image")
        journal.confirm(state, tmp_path / "image")
    assert Journal(tmp_path, "x2").has(state, tmp_path / "image")


def test_a_last_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("pixels")
    state = ImageState.of(tmp_path / "image")
    with Journal(tmp_path, "x2") as journal:
        for name in ("a", "b"):
            (tmp_path / name).write_text(name)
            journal.confirm(state, tmp_path / name)
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[:-9])
    with Journal(tmp_path, "x2") as journal:
        assert journal.has(state, tmp_path / "a") and not journal.has(state, tmp_path / "b")
        journal.confirm(state, tmp_path / "b")
    assert Journal(tmp_path, "x2").has(state, tmp_path / "b")


def test_a_folder_without_a_journal_is_stopped_at_once(
    run: Run, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise JournalNotWritten("no space left")

    monkeypatch.setattr(Journal, "announce", full)
    status, _, err = run("upscale", photos, tmp_path / "large", "--model", model)
    assert status == 2 and err == "memsrc: no space left\n" and names(tmp_path / "large") == []


def test_another_reading_of_the_network_is_other_work(
    run: Run, teacher_of_255: Path, photos: Path, tmp_path: Path
) -> None:
    """What nobody says is read as a photograph has it, or as it is with --no-probe: other pixels."""
    command = ("upscale", photos, tmp_path / "large", "--tile", "off", "--model", teacher_of_255)
    status, _, err = run(*command)
    assert status == 0 and "input values 0 to 255" in err, err
    assert "done before  2 of 2" in run(*command)[1]
    status, _, err = run(*command, "--no-probe")
    assert status == 2 and "a.png: is there already" in err


def test_code_that_changed_is_another_network(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    code = (
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.{}(), nn.PixelShuffle(2))\n"
    )
    torch.save({"0.weight": torch.randn(12, 3, 1, 1), "0.bias": torch.zeros(12)}, tmp_path / "a.pt")
    options = ("--model", tmp_path / "a.pt", "--arch", "changing_code:net", "--no-probe", "--tile", "off")
    for activation, expected in (("ReLU", 0), ("Identity", 2)):
        (tmp_path / "changing_code.py").write_text(code.format(activation))
        monkeypatch.delitem(sys.modules, "changing_code", raising=False)
        importlib.invalidate_caches()
        status, _, err = run("upscale", photos, tmp_path / "large", *options)
        assert status == expected, err
    assert "a.png: is there already" in err


def test_weights_beside_the_model_that_changed_are_another_network(run: Run, photos: Path, tmp_path: Path) -> None:
    """The .onnx that torch's exporter writes has the same bytes whatever the weights are."""

    def write_network(seed: int) -> Path:
        (tmp_path / "w.data").unlink(missing_ok=True)
        nodes = [node("Conv", "x w", "z", pads=[1, 1, 1, 1]), node("DepthToSpace", "z", "y", blocksize=2, mode="CRD")]
        network = network_of(nodes, {"w": whole(12, 3, 3, 3, seed=seed)})
        path = tmp_path / "network.onnx"
        onnx.save(network, path, save_as_external_data=True, location="w.data", size_threshold=0)
        return path

    command = ("upscale", photos, tmp_path / "large", "--tile", "off", "--model")
    path = write_network(0)
    before = path.read_bytes()
    status, _, err = run(*command, path)
    assert status == 0, err
    assert "done before  2 of 2" in run(*command, path)[1]
    assert write_network(1).read_bytes() == before
    status, _, err = run(*command, path)
    assert status == 2 and "a.png: is there already" in err
