"""Where no file is named, and files that are there already: the same for every command."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from helpers.command_line import Run
from helpers.teachers import write_teacher
from PIL import Image

from memsr_compiler import compile_to_plain, export_onnx, load_plain, save_plain
from memsr_compiler.commands.given.default_files import name_beside
from memsr_compiler.commands.interface.check_outputs import check_outputs, is_ours, write_page
from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import atomic_write
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.models.catalogue import find_model
from memsr_compiler.teachers.families.edsr import EDSR

QUICK = ("--samples", "4", "--refit", "0", "--calibration", "photographs")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher and a photograph."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    write_teacher(EDSR(scale=2, blocks=1, channels=8), folder / "my teacher.pt")
    (folder / "photographs").mkdir()
    write_image(folder / "photographs" / "a.png", sample_photographs()[0][100:220, 100:230])
    return folder


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder anew, where the user is."""
    (tmp_path / "my teacher.pt").write_bytes((files / "my teacher.pt").read_bytes())
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "a.png").write_bytes((files / "photographs" / "a.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def written(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what convert and quantize write."""
    folder = tmp_path_factory.mktemp("written")
    export_onnx(compile_to_plain(files / "my teacher.pt"), folder / "my teacher.plain.onnx")
    shutil.copy(find_model("x2-tiny-int8").path, folder / "b.onnx")
    return folder


def example(message: str) -> list[str]:
    """The command that a message ends with."""
    command = shlex.split(message.strip().rpartition("for example: memsrc ")[2])
    assert command, message
    return command


# -- where no file is named


def test_results_go_beside_the_input(run: Run, here: Path) -> None:
    assert run("convert", "my teacher.pt", "-q") == (0, "", "")
    assert load_plain("my teacher.plain.onnx").certificate is not None
    status, out, err = run("shrink", "my teacher.pt", "--width", "8", *QUICK)
    assert status == 0 and "my teacher.student.onnx" in out, err
    assert load_plain("my teacher.student.onnx").widths[1] == 8


@pytest.mark.parametrize(
    ("path", "suffix", "result"),
    [
        ("a/teacher.pt", ".plain.onnx", "a/teacher.plain.onnx"),
        ("teacher.plain.onnx", ".student.onnx", "teacher.student.onnx"),
        ("edsr.v1.pth", ".student.onnx", "edsr.v1.student.onnx"),
    ],
)
def test_names_beside(path: str, suffix: str, result: str) -> None:
    assert name_beside(Path(path), suffix) == Path(result)


def test_shrink_takes_the_only_plain_network_and_says_so(run: Run, here: Path) -> None:
    assert run("convert", "my teacher.pt", "-q")[0] == 0
    status, out, err = run("shrink", "--theta", "0.05", *QUICK)
    assert status == 0, err
    assert out.startswith("my teacher.plain.onnx: the only plain network in this folder\n")
    status, out, err = run("shrink", "--theta", "0.2", *QUICK)  # its own student is no candidate
    assert status == 0, err
    assert (here / "my teacher.student.onnx").exists()


def test_shrink_without_a_network_names_one(run: Run, here: Path) -> None:
    status, out, err = run("shrink", "--theta", "0.05", *QUICK)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert example(err) == ["shrink", "my teacher.pt", "--theta", "0.05", *QUICK]
    assert run(*example(err))[0] == 0


def test_shrink_with_several_networks_lists_them(run: Run, here: Path) -> None:
    for name in ("a.onnx", "b.safetensors"):
        assert run("convert", "my teacher.pt", "--out", name, "-q")[0] == 0
    status, _, err = run("shrink", "--theta", "0.05", *QUICK)
    assert status == 2 and "a.onnx, b.safetensors" in err
    assert run(*example(err))[0] == 0


@pytest.mark.parametrize(
    "typed",
    [
        ("convert",),
        ("inspect", "--json"),
        ("verify", "my teacher.pt"),
        ("verify",),
        ("shrink", *QUICK),
        ("shrink", "my teacher.pt", *QUICK),
        ("sweep", "my teacher.pt", *QUICK),
        ("sweep", *QUICK),
        ("eval", "--data", "photographs"),
        ("upscale", "photographs/a.png"),
        ("upscale", "photographs"),
        ("upscale",),
        ("quantize", *QUICK[-2:]),
        ("quantize", "my teacher.plain.onnx", *QUICK[-2:]),
        ("similarity", "my teacher.pt", "--data", "photographs"),
    ],
)
def test_what_is_missing_is_told_with_an_example_that_runs(
    run: Run, here: Path, written: Path, typed: tuple[str, ...]
) -> None:
    if "upscale" in typed:
        pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")
    shutil.copytree(written, here, dirs_exist_ok=True)
    (here / "photo.png").write_bytes((here / "photographs" / "a.png").read_bytes())
    (here / "a.onnx").touch()  # nothing that a command could take
    for _ in range(3):  # a sweep lacks one thing after the other
        status, _, err = run(*typed)
        assert status == 2 and err.count("\n") == 1, err
        typed = (*example(err),)
        status, _, err = run(*typed)
        if status == 0:
            return
    raise AssertionError(err)


@pytest.mark.parametrize("command", ["convert", "shrink", "inspect"])
def test_a_folder_is_no_network(run: Run, here: Path, command: str) -> None:
    more = ("--width", "8") if command == "shrink" else ()
    assert run(command, "photographs", *more) == (
        2, "", "memsrc: photographs: is a directory. Give the file with the weights.\n"
    )  # fmt: skip


# -- files that are there already


def test_what_memsrc_wrote_it_replaces(run: Run, here: Path) -> None:
    everything, own = ("--out", "p.onnx", "--report", "r.html"), ("--data", "photographs")
    for _ in range(2):
        assert run("convert", "my teacher.pt", *everything, "-q") == (0, "", "")
        assert run("sweep", "p.onnx", "--width", "8", *QUICK, "--csv", "s.csv", "--plot", "s.svg", "-q") == (0, "", "")
        assert run("eval", "bicubic", "--scale", "2", *own, "--csv", "e.csv", "-q") == (0, "", "")
        assert run("similarity", "p.onnx", "my teacher.pt", *own, "--csv", "c.csv", "--plot", "c.svg", "-q")[0] == 0
        bench = ("bench", "p.onnx", "--size", "16x16", "--repeats", "1", *own, "-q")
        assert run(*bench, "--csv", "b.csv", "--plot", "b.png")[0] == 0
        assert run("quantize", "p.onnx", "--out", "q.onnx", "--size", "16x16", *QUICK[-2:], "-q")[0] == 0


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "my teacher.pt", "--out", "there.onnx"),
        ("convert", "my teacher.pt", "--report", "there.html"),
        ("convert", "my teacher.pt", "--out", "there.safetensors"),
        ("shrink", "my teacher.pt", "--width", "8", "--out", "there.onnx"),
        ("shrink", "my teacher.pt", "--width", "8", "--save", "there.safetensors"),
        ("sweep", "my teacher.pt", "--width", "8", "--csv", "there.csv"),
        ("sweep", "my teacher.pt", "--width", "8", "--plot", "there.svg"),
        ("eval", "my teacher.pt", "--csv", "there.csv"),
        ("bench", "my teacher.pt", "--plot", "there.png"),
        ("quantize", "p.onnx", "--out", "there.onnx"),
        ("similarity", "my teacher.pt", "p.onnx", "--csv", "there.csv"),
    ],
)
def test_other_files_are_refused_and_stay(run: Run, here: Path, command: tuple[str, ...]) -> None:
    there = here / command[-1]
    there.write_text("somebody's own")
    status, out, err = run(*command)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert command[-1] in err and "--overwrite" in err
    assert there.read_text() == "somebody's own"


def test_overwrite_replaces_other_files_but_never_what_is_read(run: Run, here: Path) -> None:
    (here / "there.onnx").write_text("somebody's own")
    assert run("convert", "my teacher.pt", "--out", "there.onnx", "--overwrite", "-q") == (0, "", "")
    before = (here / "there.onnx").read_bytes()
    status, _, err = run("shrink", "there.onnx", "--width", "8", "--out", "there.onnx", "--overwrite")
    assert status == 2 and "is the network that is read" in err
    assert (here / "there.onnx").read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "my teacher.pt", "--data", "there", "--csv"),
        ("bench", "my teacher.pt", "--data", "there", "--csv"),
        ("sweep", "my teacher.pt", "--width", "8", "--calibration", "there", "--csv"),
        ("similarity", "my teacher.pt", "p.onnx", "--data", "there", "--csv"),
        ("quantize", "p.onnx", "--calibration", "there", "--out"),
    ],
)
def test_an_image_that_is_read_is_never_replaced(run: Run, here: Path, command: tuple[str, ...]) -> None:
    """By its name, another name of the folder, or what a link in the folder leads to."""
    out = "0.onnx" if command[0] == "quantize" else "0.png"
    (here / "there").mkdir()
    for place in (here / "there" / out, here / out):
        Image.new("RGB", (24, 24)).save(place, "PNG")
    (here / "there" / "linked.png").symlink_to(here / out)
    (here / "alias").symlink_to(here / "there")
    before = (here / out).read_bytes()
    for place in (Path("there", out), Path("alias", out), Path(out)):
        status, _, err = run(*command, str(place), "--overwrite")
        assert status == 2 and f"{place}: is among the images that are read" in err
    assert (here / out).read_bytes() == (here / "there" / out).read_bytes() == before


def test_a_teacher_is_not_taken_for_a_result(here: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "memsr_compiler", [x], [y])
    onnx.save(onnx.helper.make_model(graph, doc_string="/home/user/memsr_compiler/teacher.py"), here / "own.onnx")
    assert not is_ours(here / "own.onnx")
    assert not is_ours(here / "my teacher.pt")
    (here / "empty.onnx").write_bytes(b"")
    assert not is_ours(here / "empty.onnx")


def test_marks_are_at_the_end_and_the_rest_as_it_was(here: Path) -> None:
    write_page(here / "page.svg", "<svg/>\n")
    assert (here / "page.svg").read_text().startswith("<svg/>\n<!-- ") and is_ours(here / "page.svg")
    check_outputs([here / "page.svg"], reads=[], overwrite=False)
    (here / "page.svg").write_text("<svg/>\n")
    with pytest.raises(InvalidInput, match="is there already"):
        check_outputs([here / "page.svg"], reads=[], overwrite=False)


def test_what_a_killed_process_left_half_written_goes_before_the_next_is_written(here: Path) -> None:
    (here / ".memsr-0123456789abcdef.tmp").write_text("half")
    (here / ".memsr-abcdefgh.tmp").mkdir()
    (here / ".memsr-abcdefgh.tmp" / "plain.onnx").write_text("half")
    with atomic_write(here / "other.svg"):
        check_outputs([here / "page.svg"], reads=[], overwrite=False)
        assert len(list(here.glob(".memsr-*.tmp"))) == 1  # of a living process, this one
    assert not list(here.glob(".memsr-*.tmp"))


def test_a_file_of_ours_in_another_format_is_another_file(here: Path) -> None:
    """A network written as .safetensors under the name of a table, say."""
    save_plain(compile_to_plain(EDSR(scale=2, blocks=1, channels=4).eval()), here / "a.safetensors")
    (here / "a.safetensors").rename(here / "a.csv")
    assert not is_ours(here / "a.csv")


def test_a_folder_is_not_said_to_be_missing(run: Run, tmp_path: Path) -> None:
    status, _, err = run("eval", tmp_path, "--data", tmp_path)
    assert status == 2 and f"{tmp_path}: is a folder; give a network" in err


def test_a_link_to_nothing_is_there_already(here: Path) -> None:
    (here / "page.svg").symlink_to(here / "gone.svg")
    with pytest.raises(InvalidInput, match="is there already"):
        check_outputs([here / "page.svg"], reads=[], overwrite=False)
    check_outputs([here / "page.svg"], reads=[], overwrite=True)
