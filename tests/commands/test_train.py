"""memsrc train: networks by name, of families, of one's own code."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import Run
from helpers.training import forget_accelerator, write_photographs

from memsr_compiler.commands.runs.common import default_cache
from memsr_compiler.images.files import write_image
from memsr_compiler.plain.load import load_plain
from memsr_compiler.teachers.load import read_teacher

pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")


@pytest.fixture(autouse=True)
def another_process() -> None:
    forget_accelerator()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


def test_batch_norm_learns_what_its_inputs_are(run: Run, photographs: Path, tmp_path: Path) -> None:
    few = ["--steps", "3", "--batch", "2", "--patch", "32", "--every", "3", "--cache", tmp_path, "--val", photographs]
    small = ["--arch", "srresnet", "--arch-args", "blocks=1,channels=8", "--scale", "2"]
    status, _, err = run("train", *small, "--data", photographs, "--out", tmp_path / "run", *few)
    assert status == 0, err
    weights = torch.load(tmp_path / "run" / "network.pt", weights_only=True)
    means = [value for name, value in weights.items() if name.endswith("running_mean")]
    assert means and all(mean.abs().max() > 0 for mean in means)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (["--arch", "plain-s", "--blocks", "1"], "takes no arguments"),
        (["--arch", "plain", "--layers", "3"], "--arch plain: give --layers and --width"),
        (["--arch", "plain", "--layers", "3", "--width", "8", "--blocks", "2"], "takes no --blocks"),
        (["--arch", "edsr", "--width", "8"], "--width is for --arch plain"),
        (["--arch", "plain-s", "--image-skip", "none"], "--image-skip is for --arch plain"),
        (["--arch", "edsr", "--branches", "repvgg"], "--branches is for plain networks"),
        (["--arch", "teacher-s", "--init", "xavier"], "--init is for plain networks"),
        (["--arch", "plain-s", "--init", "identity", "--branches", "repvgg"], "--init identity with --branches"),
        (["--arch", "plain", "--layers", "3", "--width", "2", "--init", "identity"], "the 3 channels of the image"),
        (["--arch", "teacher-s", "--arch-args", "foo=1"], "--arch teacher-s: got an unexpected keyword"),
        (["--arch", "teacher-s", "--arch-args", "blocks=abc"], "--arch teacher-s: does not build"),
        (["--arch", "fsrcnn"], "does not take RGB"),
        (["--arch", "vdsr"], "of the size that it is given"),
        (["--arch", "edsr", "--arch-args", "scale=4,blocks=1,channels=4"], "which is not RGB enlarged by 2"),
        (["--arch", "no.such:thing"], "cannot be imported"),
        (
            ["--arch", "resnet"],
            "no such family. Known: teacher-s, teacher-m, teacher-l, plain-s, plain-m, plain-l",
        ),
    ],
)
def test_networks_that_cannot_be_trained(
    run: Run, photographs: Path, tmp_path: Path, arch: list[str], message: str
) -> None:
    status, _, err = run("train", *arch, "--scale", "2", "--data", photographs, "--out", tmp_path / "run")
    assert status == 2 and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()


def test_a_network_of_ones_own_code_is_trained(
    run: Run, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_own.py").write_text(
        "from memsr_compiler.teachers.families.edsr import EDSR\n\n\n"
        "def small(scale, blocks=1):\n    return EDSR(scale=scale, blocks=blocks, channels=4)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path, "--val", photographs]
    own = ["--arch", "mine_own:small", "--scale", "2"]
    status, _, err = run("train", *own, "--data", photographs, "--out", tmp_path / "run", *few)
    assert status == 0 and (tmp_path / "run" / "plain.onnx").exists(), err


def test_own_code_that_changed_since_is_told(
    run: Run, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run went on: weights that were trained in one network, in another."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_code(comment: str) -> None:
        (tmp_path / "own_in_work.py").write_text(
            "from torch import nn\n\n\ndef small():\n"
            f"    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))  # {comment}\n"
        )
        monkeypatch.delitem(sys.modules, "own_in_work", raising=False)
        importlib.invalidate_caches()
        forget_accelerator()

    write_code("first")
    few = ["--steps", "2", "--batch", "2", "--patch", "16", "--every", "1", "--cache", tmp_path / "cache"]
    own = ["--arch", "own_in_work:small", "--scale", "2", "--data", photographs, "--val", photographs]
    assert run("train", *own, "--out", tmp_path / "run", *few, "-q") == (0, "", "")
    resume = ("train", "--resume", tmp_path / "run")
    write_code("second")
    status, _, err = run(*resume)
    assert status == 2 and "code: 1 changed (own_in_work)" in err and err.count("\n") == 1, err
    kept = tmp_path / "run" / "data.json"
    content = json.loads(kept.read_text())
    assert content.pop("code").keys() == {"own_in_work"}
    kept.write_text(json.dumps(content))  # as earlier versions left it
    forget_accelerator()
    status, _, err = run(*resume)
    assert status == 0 and "does not say which code it began with" in err, err
    write_code("first")
    status, _, err = run(*resume, "--allow-changed-data")
    assert status == 0 and "goes on with other data than it began with: code: 1 changed" in err, err


@pytest.mark.parametrize(
    ("arch", "written"),
    [
        (["--arch", "edsr", "--blocks", "1", "--channels", "4"], {"network.pt", "plain.onnx"}),
        (["--arch", "plain-s"], {"network.safetensors", "network.onnx"}),
        (["--arch", "plain", "--layers", "3", "--width", "8"], {"network.safetensors", "network.onnx"}),
        (["--arch", "rfdn", "--arch-args", "channels=16,blocks=1"], {"network.pt"}),
        (["--arch", "srcnn", "--channels", "8", "--arch-args", "narrow=4,colours=3"], {"network.pt"}),
        (["--arch", "latticenet", "--blocks", "1", "--channels", "8", "--arch-args", "narrow=6"], {"network.pt"}),
        (["--arch", "swinir", "--blocks", "1", "--channels", "12", "--arch-args", "layers=2"], {"network.pt"}),
    ],
)
def test_networks_are_trained(run: Run, photographs: Path, tmp_path: Path, arch: list[str], written: set[str]) -> None:
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path, "--val", photographs]
    status, out, err = run(
        "train", *arch, "--scale", "2", "--data", photographs, "--out", tmp_path / "run", *few, "--json"
    )
    assert status == 0, err
    assert {Path(name).name for name in json.loads(out)["written"]} == written
    assert json.loads(out)["arithmetic"] == "float32, by torch on the CPU"
    assert all((tmp_path / "run" / name).exists() for name in written)
    if "network.pt" in written:
        trained = read_teacher(tmp_path / "run" / "network.pt")
        assert (trained.scale, trained.assumed) == (2, ())


def test_images_too_small_for_patch_or_score_are_named_and_spoil_no_run(
    run: Run, photographs: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in photographs.iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    for side in (1, 5, 15):
        write_image(mixed / f"tiny{side}.png", np.zeros((side, 40, 3), np.uint8))
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path / "cache"]
    small = ["--arch", "edsr", "--blocks", "1", "--channels", "4", "--scale", "2", "--out", tmp_path / "run"]
    (tmp_path / "only").mkdir()
    write_image(tmp_path / "only" / "tiny.png", np.zeros((9, 9, 3), np.uint8))
    for option, words in (("--val", "large enough (tiny.png)"), ("--data", "no photograph of at least 32x32")):
        folders = {"--data": mixed, "--val": mixed, option: tmp_path / "only"}
        status, _, err = run("train", *small, *few, *(word for pair in folders.items() for word in pair))
        assert status == 2 and words in err and "only" in err, err
        assert not (tmp_path / "run").exists()
    status, _, err = run("train", *small, *few, "--data", mixed, "--val", mixed)
    assert status == 0, err
    for side in (1, 5, 15):
        assert f"tiny{side}.png: smaller than a patch of 32 pixels; passed over" in err
        assert f"tiny{side}.png: is smaller than 16x16 pixels; passed over" in err


@pytest.mark.parametrize(("skip", "kept"), [([], "nearest"), (["--image-skip", "none"], "")])
def test_a_plain_network_of_any_shape_is_trained(
    run: Run, photographs: Path, tmp_path: Path, skip: list[str], kept: str
) -> None:
    few = ["--steps", "2", "--batch", "2", "--patch", "16", "--every", "1", "--cache", tmp_path, "--val", photographs]
    plain = ["--arch", "plain", "--layers", "4", "--width", "6", *skip, "--scale", "2"]
    status, _, err = run("train", *plain, "--data", photographs, "--out", tmp_path / "run", *few)
    assert status == 0, err
    net = load_plain(tmp_path / "run" / "network.safetensors")
    assert net.widths == [3, 6, 6, 6, 12] and net.info.image_skip == kept


def test_photographs_of_several_folders_are_told_apart(run: Run, photographs: Path, tmp_path: Path) -> None:
    for folder in ("one/HR", "two"):
        (tmp_path / folder).mkdir(parents=True)
        write_photographs(tmp_path / folder)
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path / "cache"]
    small = ["--arch", "edsr", "--arch-args", "blocks=1,channels=8", "--scale", "2", "--val", photographs]
    folders = ("--data", tmp_path / "one", "--data", tmp_path / "two")
    status, out, err = run("train", *small, *folders, "--out", tmp_path / "run", *few)
    assert status == 0, err
    assert f"6 photographs in {tmp_path / 'one' / 'HR'}, {tmp_path / 'two'}" in " ".join(out.split())
    names = sorted(json.loads((tmp_path / "run" / "data.json").read_text())["photographs"])
    assert names == ["one/0.png", "one/1.png", "one/2.png", "two/0.png", "two/1.png", "two/2.png"]
    (tmp_path / "run" / "step-00000002.ckpt").unlink()
    status, _, err = run("train", "--resume", tmp_path / "run")
    assert status == 0, err
    status, _, err = run("train", "--resume", tmp_path / "run", "--data", tmp_path / "two")
    assert status == 2 and "photographs: 3 added (0.png" in err and "6 removed (one/0.png" in err
    status, _, err = run("train", *small, *folders, "--data", tmp_path / "none", "--out", tmp_path / "other", *few)
    assert status == 2 and "none: is no folder" in err and not (tmp_path / "other").exists()


def test_a_run_that_began_with_one_folder_goes_on(run: Run, photographs: Path, tmp_path: Path) -> None:
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path / "cache"]
    small = ["--arch", "edsr", "--arch-args", "blocks=1,channels=8", "--scale", "2", "--val", photographs]
    assert run("train", *small, "--data", photographs, "--out", tmp_path / "run", *few)[0] == 0
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    assert f"data:\n- {photographs}\n" in text
    config.write_text(text.replace(f"data:\n- {photographs}\n", f"data: {photographs}\n"))  # as earlier versions did
    (tmp_path / "run" / "step-00000002.ckpt").unlink()
    status, _, err = run("train", "--resume", tmp_path / "run")
    assert status == 0, err


@pytest.mark.parametrize("branches", ["none", "repvgg", "repvgg-bn-free"])
def test_branches_are_folded_and_a_run_goes_on_bit_for_bit(
    run: Run, photographs: Path, tmp_path: Path, branches: str
) -> None:
    few = ["--steps", "4", "--batch", "2", "--patch", "16", "--every", "2", "--cache", tmp_path / "cache"]
    plain = ["--arch", "plain", "--layers", "4", "--width", "6", "--branches", branches, "--scale", "2"]
    where = ["--data", photographs, "--val", photographs, "--out", tmp_path / "run"]
    status, out, err = run("train", *plain, *few, *where, "--json")
    assert status == 0, err
    told = json.loads(out)
    written = (tmp_path / "run" / "network.safetensors").read_bytes()
    assert load_plain(tmp_path / "run" / "network.safetensors").widths == [3, 6, 6, 6, 12]
    status, out, err = run("eval", tmp_path / "run" / "network.onnx", "--data", photographs, "--json")
    assert status == 0, err
    (model,) = json.loads(out)["models"].values()
    assert model["average"]["psnr"] == pytest.approx(told["psnr"]["network after"], abs=0.01)
    (tmp_path / "run" / "step-00000004.ckpt").unlink()
    status, _, err = run("train", "--resume", tmp_path / "run")
    assert status == 0, err
    assert (tmp_path / "run" / "network.safetensors").read_bytes() == written


def test_he_is_what_plain_networks_begin_with(run: Run, photographs: Path, tmp_path: Path) -> None:
    few = ["--steps", "1", "--batch", "1", "--patch", "16", "--every", "1", "--cache", tmp_path, "--val", photographs]
    shape = ["--layers", "3", "--width", "6", "--scale", "2", "--image-skip", "none"]
    plain = ["--arch", "plain", *shape, "--data", photographs, *few]
    starts = {}
    for init in ("", "he", "he-uniform", "xavier", "xavier-uniform", "identity"):
        out = tmp_path / (init or "default")
        status, _, err = run("train", *plain, "--out", out, *(["--init", init] if init else []))
        assert status == 0, err
        starts[init] = json.loads((out / "log.jsonl").open().readline())["psnr"]
    assert starts.pop("") == starts["he"] and len(set(starts.values())) == 5


def test_a_relative_cache_of_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory Specification wants it."""
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert default_cache() == Path.home() / ".cache" / "memsr_compiler"
