"""Images of formats that are not read: commands tell what they are, go on with others, and write nothing of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command_line import Run, must_refuse
from helpers.rare_formats import BY_HAND

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.images.files import sample_photographs, write_image

MORE = {"table.csv": ("CSV", b"1,2,3\n4,5,6\n")}  # which libvips alone knows, by its name


@pytest.mark.parametrize("name", [*BY_HAND, *MORE])
def test_one_is_refused_in_a_line(run: Run, model: Path, tmp_path: Path, name: str) -> None:
    words, content = (BY_HAND | MORE)[name]
    (tmp_path / name).write_bytes(content)
    must_refuse(run, tmp_path, ("upscale", tmp_path / name, tmp_path / "out.png", "--model", model), name, words)
    must_refuse(run, tmp_path, ("eval", "bicubic", "--scale", 2, "--data", tmp_path), name, words)


def test_those_in_a_folder_are_counted_and_listed(run: Run, model: Path, tmp_path: Path) -> None:
    folder, large = tmp_path / "photos", tmp_path / "large"
    folder.mkdir()
    write_image(folder / "photo.png", sample_photographs()[0][:48, :48])
    for name, (_, content) in (BY_HAND | MORE).items():
        (folder / name).write_bytes(content)
    count = len(BY_HAND | MORE)
    status, out, err = run("upscale", folder, large, "--model", model, "--json")
    told = json.loads(out)
    assert status == 3 and f"{count} of {count + 1} files could not be enlarged" in err
    assert [path.name for path in large.iterdir() if not path.name.startswith(".")] == ["photo.png"]
    _require_named(told["passed_over"])
    status, out, err = run("eval", "bicubic", "--scale", 2, "--data", folder, "--json")
    assert status == 3 and f"{count} files were passed over" in err
    assert list(json.loads(out)["models"]["bicubic"]["images"]) == ["photo.png"]
    _require_named(json.loads(out)["passed_over"])


def _require_named(lines: list[str]) -> None:
    """Require that of each file it is told in a line what it is."""
    for name, (words, _) in (BY_HAND | MORE).items():
        (told,) = (line for line in lines if f"/{name}: " in line)
        assert words in told


@pytest.mark.parametrize("ending", ["tga", "bmp", "gif", "psd", "ico", "pdf", "fits"])
def test_results_in_other_formats_are_refused(run: Run, model: Path, tmp_path: Path, ending: str) -> None:
    write_image(tmp_path / "photo.png", sample_photographs()[0][:48, :48])
    command = ("upscale", tmp_path / "photo.png", tmp_path / f"out.{ending}", "--model", model)
    must_refuse(run, tmp_path, command, f"out.{ending}: files of this kind are not written; end it in .png, .tif")
