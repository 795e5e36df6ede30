"""Patches by number: the same for whoever asks, and parts of photographs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.training import cut_patches, draw_picture
from PIL import Image
from torch import Tensor

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.files import file_digest
from memsr_compiler.images.files import read_image
from memsr_compiler.training import patches
from memsr_compiler.training.patches import Patches, batches, find_image_folder, prepare_folders, prepare_photographs


def test_patches_are_the_same_for_any_workers_processes_and_first_step(photographs: Path, tmp_path: Path) -> None:
    source = cut_patches(photographs, tmp_path)
    whole = list(batches(source, size=4, first=0, last=3))
    working = list(batches(source, size=4, first=1, last=3, workers=2))
    halves = [list(batches(source, size=4, first=0, last=3, rank=r, processes=2)) for r in (0, 1)]
    for a, b in zip(whole[1:], working, strict=True):
        assert torch.equal(a.low, b.low) and torch.equal(a.high, b.high) and a.names == b.names
    for i, batch in enumerate(whole):
        assert torch.equal(batch.high, torch.cat([halves[0][i].high, halves[1][i].high]))


def is_part(crop: Tensor, image: Tensor) -> bool:
    """Whether it lies somewhere in the image, both (3, h, w)."""
    side = crop.shape[1]
    places = image.unfold(1, side, 1).unfold(2, side, 1)  # (3, y, x, side, side)
    return bool((places == crop[:, None, None]).flatten(3).all(3).all(0).any())


def test_crops_are_bounded_parts_of_the_small_photographs(photographs: Path, tmp_path: Path) -> None:
    prepared = prepare_photographs(photographs, tmp_path, scale=2, patch=8)
    source = Patches(prepared, scale=2, patch=8, seed=0, input_range=(0.0, 255.0))
    smalls = [torch.from_numpy(p.open_low(2).copy()).permute(2, 0, 1).float() for p in prepared]
    crops = source.crops(7, 12)
    assert len(crops) == 7 and all(crop.shape == (1, 3, 12, 12) for crop in crops)
    whose = [{i for i, small in enumerate(smalls) if is_part(crop[0], small)} for crop in crops]
    assert set.union(*whose) == set(range(len(smalls))) and all(whose)
    assert all(torch.equal(a, b) for a, b in zip(crops, source.crops(7, 12), strict=True))
    other = Patches(prepared, scale=2, patch=8, seed=1, input_range=(0.0, 255.0)).crops(7, 12)
    assert not all(torch.equal(a, b) for a, b in zip(crops, other, strict=True))
    whole = source.crops(30, 1000)
    assert sorted(crop.shape for crop in whole) == sorted((1, *small.shape) for small in smalls)


def test_the_next_batch_is_cut_while_one_is_used(photographs: Path, tmp_path: Path) -> None:
    source, cut = cut_patches(photographs, tmp_path), threading.Semaphore(0)

    class Counted(Patches):
        def __init__(self) -> None:
            pass

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor, str]:
            cut.release()
            if i == 4:
                raise OSError("the photograph is gone")
            return source[i]

    waiting = batches(Counted(), size=2, first=0, last=3)
    next(waiting)
    assert all(cut.acquire(timeout=20) for _ in range(4))  # of two batches, though one was asked for
    next(waiting)
    with pytest.raises(OSError, match="the photograph is gone"):
        next(waiting)


def test_a_patch_is_a_turned_part_of_photograph_and_small_image(photographs: Path, tmp_path: Path) -> None:
    source = cut_patches(photographs, tmp_path)
    seen = set()
    for i in range(30):
        low, (high,), name = source[i]
        assert low.shape == (3, 8, 8) and high.shape == (3, 16, 16) and 0 <= float(high.min()) <= float(high.max()) <= 1
        whole, part = torch.from_numpy(read_image(photographs / name)).permute(2, 0, 1), (high * 255).round().byte()
        turned = [torch.rot90(part.flip(2) if flip else part, k, (1, 2)) for k in range(4) for flip in (False, True)]
        windows = whole.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert any(bool((windows == t).flatten(1).all(1).any()) for t in turned)
        assert float((F.avg_pool2d(high[None], 2)[0] - low).abs().mean()) < 0.02
        seen.add(name)
    assert len(seen) == 3


def test_what_is_ready_is_not_made_again_and_bad_files_are_named(photographs: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "data" / "DIV2K_train_HR", tmp_path / "cache"
    told: list[str] = []
    folder.mkdir(parents=True)
    Image.fromarray(draw_picture(40, 40, 0)).save(folder / "good.png")
    Image.fromarray(draw_picture(9, 9, 0)).save(folder / "small.png")
    (folder / "notes.txt").write_text("no image")
    (folder.parent / "DIV2K_valid_HR").mkdir()
    found = prepare_photographs(folder.parent, cache, scale=2, patch=8, warn=told.append)
    assert [p.name for p in found] == ["good.png"]
    assert "notes.txt: not a readable image" in told[0] and told[1].endswith(
        "small.png: smaller than a patch of 16 pixels; passed over"
    )
    times = {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    prepare_photographs(folder.parent, cache, scale=2, patch=8)
    assert {p: p.stat().st_mtime_ns for p in cache.iterdir()} == times
    with pytest.raises(InvalidInput, match="no photograph of at least 200x200"):
        prepare_photographs(folder, cache, scale=2, patch=100)


def test_a_folder_of_photographs_is_taken_for_itself(tmp_path: Path) -> None:
    """Those in `oldHR` were trained on instead."""
    (tmp_path / "oldHR").mkdir()
    assert find_image_folder(tmp_path) == tmp_path / "oldHR"
    Image.fromarray(draw_picture(40, 40, 0)).save(tmp_path / "one.png")
    assert find_image_folder(tmp_path) == tmp_path


def test_a_photograph_that_another_took_the_place_of(tmp_path: Path) -> None:
    """Files out of an archive have the times, and photographs without compression the sizes, of those before."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    path, other = photographs / "a.bmp", tmp_path / "other.bmp"
    for file, number in ((path, 1), (other, 2)):
        Image.fromarray(draw_picture(40, 40, number)).save(file)
        os.utime(file, (1, 1))
    before = {p.name: p.sha256 for p in prepare_photographs(photographs, tmp_path / "cache", scale=2, patch=8)}
    os.replace(other, path)
    after = {p.name: p.sha256 for p in prepare_photographs(photographs, tmp_path / "cache", scale=2, patch=8)}
    assert after["a.bmp"] == file_digest(path) != before["a.bmp"]


def test_what_an_earlier_version_misread_is_read_again(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TIFFs that were once read as black stayed black in the cache, and runs learned black."""
    with monkeypatch.context() as earlier:
        earlier.setattr(patches, "_READING", 1, raising=False)
        earlier.setattr(patches, "read_image", lambda path: np.zeros_like(read_image(path)))
        misread = prepare_photographs(photographs, tmp_path, scale=2, patch=8)
    now = prepare_photographs(photographs, tmp_path, scale=2, patch=8)
    for old, new in zip(misread, now, strict=True):
        assert new.sha256 == old.sha256 and new.low.stem != old.low.stem  # the latter is in the names of labels
        assert not old.open_high().any() and np.array_equal(new.open_high(), read_image(photographs / new.name))


def test_the_cache_is_not_listed_for_every_photograph(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of tens of thousands of files took ten seconds of every run."""
    listed: list[str] = []

    def count(name: str) -> None:
        real = getattr(os, name)

        def listing(path: Any = ".") -> Any:
            listed.append(str(path))
            return real(path)

        monkeypatch.setattr(os, name, listing)

    first = prepare_photographs(photographs, tmp_path, scale=2, patch=8)
    for name in ("listdir", "scandir"):
        count(name)
    assert prepare_photographs(photographs, tmp_path, scale=2, patch=8) == first
    assert len(first) == 3 and 1 <= listed.count(str(tmp_path)) <= 2  # once more for what others left there


def test_photographs_made_ready_are_made_again_where_they_are_damaged(photographs: Path, tmp_path: Path) -> None:
    before = cut_patches(photographs, tmp_path / "cache")[3]
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    after = cut_patches(photographs, tmp_path / "cache")[3]
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="choose another --cache"):
        cut_patches(photographs, tmp_path / "file")


def test_a_photograph_that_was_copied_or_touched_is_not_made_ready_again(photographs: Path, tmp_path: Path) -> None:
    """Labels of a teacher hang on these names: a copied disk had all of them computed again."""
    before, copies = prepare_photographs(photographs, tmp_path / "cache", scale=2, patch=8), tmp_path / "copies"
    copies.mkdir()
    for i, path in enumerate(sorted(photographs.iterdir())):
        (copies / path.name).write_bytes(path.read_bytes())
        os.utime(copies / path.name, (i, i))
    assert prepare_photographs(copies, tmp_path / "cache", scale=2, patch=8) == before
    first, second, *_ = sorted(copies.iterdir())
    second.write_bytes(first.read_bytes())
    after = prepare_photographs(copies, tmp_path / "cache", scale=2, patch=8)
    assert after[1].high == before[0].high and after[1].name == before[1].name


@pytest.mark.parametrize("kind", ["-high.raw", "-low.raw", ".sha256"])
def test_what_is_of_the_right_size_and_other_content_is_made_again(
    kind: str, photographs: Path, tmp_path: Path
) -> None:
    """A bit that fell over, and a file that is another photograph's: both look like pixels."""
    cache = tmp_path / "cache"
    cut_patches(photographs, cache)
    before = {path: path.read_bytes() for path in cache.iterdir()}
    first, second, *_ = sorted(path for path in before if path.name.endswith(kind))
    first.write_bytes(bytes([before[first][0] ^ 1]) + before[first][1:])
    second.write_bytes(before[first])
    cut_patches(photographs, cache)
    assert {path: path.read_bytes() for path in cache.iterdir()} == before


def test_a_folder_is_read_whatever_stands_in_it(photographs: Path, tmp_path: Path) -> None:
    folder, told = tmp_path / "data", list[str]()
    folder.mkdir()
    Image.fromarray(draw_picture(40, 40, 0)).save(folder / "good.png")
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.png"), "wb") as file:
        Image.fromarray(draw_picture(40, 40, 1)).save(file, "PNG")
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    found = prepare_photographs(folder, tmp_path / "cache", scale=2, patch=8, warn=told.append)
    assert [os.fsencode(p.name) for p in found] == [b"caf\xe9.png", b"good.png"]
    assert [text.partition(":")[0] for text in told] == [
        str(folder / f"{name}.png") for name in ("folder", "gone", "pipe")
    ]


def test_folders_of_one_name_are_counted(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "HR", tmp_path / "b" / "HR", tmp_path / "c"]
    for i, folder in enumerate(folders):
        folder.mkdir(parents=True)
        Image.fromarray(draw_picture(40, 40, i)).save(folder / "0.png")
    found = prepare_folders(folders, tmp_path / "cache", scale=2, patch=8)
    assert [p.name for p in found] == ["HR-1/0.png", "HR-2/0.png", "c/0.png"]
    assert [p.sha256 for p in found] == [file_digest(folder / "0.png") for folder in folders]
    assert [p.name for p in prepare_folders(folders[:1], tmp_path / "cache", scale=2, patch=8)] == ["0.png"]


def test_of_several_folders_of_photographs_none_is_left_in_silence(tmp_path: Path) -> None:
    """The first was trained on, without a word."""
    for name in ("DIV2K_train_HR", "DIV2K_valid_HR", "HR_extra"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    said: list[str] = []
    assert find_image_folder(tmp_path, said.append).name == "DIV2K_train_HR"
    assert said == [f"{tmp_path}: not used: HR_extra; give those that are meant by --data, too"]
    assert find_image_folder(tmp_path, pytest.fail, given=[tmp_path / "HR_extra"]).name == "DIV2K_train_HR"
    (tmp_path / "Flickr2K_HR").mkdir()
    with pytest.raises(InvalidInput, match="DIV2K_train_HR, Flickr2K_HR may be meant; give those that are: --data "):
        find_image_folder(tmp_path)


def test_lr_beside_its_photograph_is_no_photograph(tmp_path: Path) -> None:
    """It was trained on too."""
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    for name, pixels in (("a", image), ("ax2", image[::2, ::2]), ("b", image[:, ::-1])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    said: list[str] = []
    found = prepare_photographs(tmp_path, tmp_path / "cache", scale=2, patch=4, warn=said.append)
    assert [p.name for p in found] == ["a.png", "b.png"]
    assert said == [f"{tmp_path}: LR of others in it is passed over: ax2.png"]


def put_picture(path: Path, side: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_picture(side, side, 0)).save(path)
    return path


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("DIV2K_train_HR/1.png", "DIV2K_train_LR_unknown/X2/1x2.png"),
        ("HR/1.png", "LR_bicubic/1x2.png"),
        ("GTmod12/1.png", "LRbicx2/1.png"),
        ("1.png", "X2/1x2.png"),
    ],
)
def test_folders_of_lr_are_left_aloud(high: str, low: str, tmp_path: Path) -> None:
    """LR made in another way was passed over without a word, and bicubic's trained on."""
    for name, side in ((high, 24), (low, 12)):
        put_picture(tmp_path / name, side)
    said: list[str] = []
    found = prepare_photographs(tmp_path, tmp_path / "cache", scale=2, patch=4, warn=said.append)
    assert [(p.name, p.size) for p in found] == [("1.png", (24, 24))]
    left = low.split("/")[0]
    assert said == [f"{tmp_path}: not used: {left}; LR is made from HR by MATLAB's bicubic"]


@pytest.mark.parametrize("name", ["LR_bicubic/X2/1.png", "LR/1.png", "small/1x2.png", "small/1_LR.png"])
def test_lr_given_as_photographs_is_told(name: str, tmp_path: Path) -> None:
    path = put_picture(tmp_path / name)
    said: list[str] = []
    assert len(prepare_photographs(path.parent, tmp_path / "cache", scale=2, patch=4, warn=said.append)) == 1
    assert said == [f"{path.parent}: by their names its images are LR; they are taken for HR, and made smaller again"]


@pytest.mark.parametrize("name", ["lrc/1.png", "a/1920x1080.png", "2019/1.png", "a/1_SRF_2_HR.png"])
def test_other_names_are_not_taken_for_lrs(name: str, tmp_path: Path) -> None:
    path = put_picture(tmp_path / name)
    prepare_photographs(path.parent, tmp_path / "cache", scale=2, patch=4, warn=pytest.fail)


def test_a_folder_without_photographs_names_those_in_it(tmp_path: Path) -> None:
    for name in ("LRbicx2", "original"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(InvalidInput, match=f"in it, {tmp_path / 'original'} perhaps$"):
        prepare_photographs(tmp_path, tmp_path / "cache", scale=2, patch=4)
