"""memsr_compiler.distributed: workers that enlarge batches; in a cluster of Ray, where it is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ray_killed
from helpers.ray_environment import ray_environment
from PIL import Image

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler import Upscaler
from memsr_compiler.distributed import EnlargeFiles, EnlargeImages
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import read_image
from memsr_compiler.locks import hold_folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate("abcde"):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20 + i, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_files_of_a_batch_are_enlarged_once(photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "a.png").save(photos / "f.bmp")
    (photos / "g.png").write_text("no image")
    worker = EnlargeFiles(tmp_path / "large", model="x2-tiny")
    batch = {"path": np.array([str(photos / name) for name in ("a.png", "f.bmp", "g.png", "gone.png")])}
    done = worker(batch)
    assert done["path"].tolist() == batch["path"].tolist()
    assert done["result"].tolist() == [str(tmp_path / "large" / name) for name in ("a.png", "f.bmp.png")] + ["", ""]
    assert done["error"].tolist()[:2] == ["", ""] and "gone.png" in done["error"][3]
    assert done["error"][2].startswith(f"{photos / 'g.png'}: ")
    assert visible(tmp_path / "large") == ["a.png", "f.bmp.png"]
    with Upscaler("x2-tiny") as upscale:
        expected = np.concatenate(list(upscale.bands(read_image(photos / "a.png"))))
    assert np.array_equal(read_image(tmp_path / "large" / "a.png"), expected)
    times = [(tmp_path / "large" / name).stat().st_mtime_ns for name in visible(tmp_path / "large")]
    again = EnlargeFiles(tmp_path / "large", model="x2-tiny")(batch)
    assert again["result"].tolist() == done["result"].tolist() and again["error"].tolist() == done["error"].tolist()
    assert times == [(tmp_path / "large" / name).stat().st_mtime_ns for name in visible(tmp_path / "large")]
    other = EnlargeFiles(tmp_path / "large", model="x2-small")({"path": batch["path"][:1]})
    assert "is there already" in other["error"][0]  # another network's result is not replaced


def test_a_run_in_the_folder_keeps_workers_out(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    monkeypatch.setattr("memsr_compiler.locks._BEGINNING", 0.1)
    worker = EnlargeFiles(tmp_path / "large", model="x2-tiny")
    with hold_folder(tmp_path / "large"), pytest.raises(InvalidInput, match="is at work in it"):
        worker({"path": np.array([str(photos / "a.png")])})


def test_images_of_a_batch_are_enlarged() -> None:
    worker = EnlargeImages(model="x2-tiny")
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), np.uint8)
    done = worker({"image": images, "name": np.array(["a", "b"])})
    assert done["image"].shape == (2, 18, 22, 3) and done["name"].tolist() == ["a", "b"]
    with Upscaler("x2-tiny") as upscale:
        assert np.array_equal(done["image"][1], upscale(images[1]))
    column = np.empty(2, object)
    column[:] = [images[0], images[1, :5]]
    assert [image.shape for image in worker({"image": column})["image"]] == [(18, 22, 3), (10, 22, 3)]


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    for batch, worker in (
        ({"image": np.zeros(1)}, EnlargeFiles(tmp_path / "large", model="x2-tiny")),
        ({"path": np.zeros(1)}, EnlargeImages(model="x2-tiny")),
    ):
        with pytest.raises(InvalidInput, match=r"the batch has columns \w+; want '\w+'"):
            worker(batch)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be made a folder"):
        EnlargeFiles(tmp_path / "file", model="x2-tiny")
    with pytest.raises(InvalidInput, match=r"no\.onnx"):
        EnlargeFiles(tmp_path / "large", model="no.onnx")
    with pytest.raises(InvalidInput, match="max_memory"):
        EnlargeFiles(tmp_path / "large", model="x2-tiny", max_memory="much")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make ray")
def test_of_two_workers_of_ray_one_is_killed_and_nothing_is_lost_or_done_twice(photos: Path, tmp_path: Path) -> None:
    program = [sys.executable, ray_killed.__file__, str(photos), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, env=ray_environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"errors"')))
    assert said["errors"] == {f"{name}.png": "" for name in "abcde"} and said["killed"]
    assert said["begun"] == {"a.png": 1, "b.png": 2, "c.png": 1, "d.png": 1, "e.png": 1}  # b died with its worker
    assert said["processes"] >= 2
    assert visible(tmp_path / "large") == visible(photos)
    alone = EnlargeFiles(tmp_path / "alone", model="x2-tiny")
    alone({"path": np.array([str(photos / name) for name in visible(photos)])})
    for name in visible(photos):
        assert (tmp_path / "large" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
