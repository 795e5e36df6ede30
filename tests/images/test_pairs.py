"""HR and LR files are paired by name, in the folders of public test sets; what has no partner or two is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import find_scale, read_test_images
from memsr_compiler.images.files import write_image
from memsr_compiler.images.pairs import find_test_files, match_names
from memsr_compiler.images.resize import resize


def picture(seed: int, height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def pairs_of(high: list[Path], low: list[Path], factor: int | None = 2) -> list[tuple[str, str]]:
    return [(a.name, b.name) for a, b in match_names(high, low, factor)[0]]


def write_set(folder: Path, high: str, low: str, factor: int = 2, names: tuple[str, ...] = ("1", "2", "10")) -> None:
    """HR and LR files whose paths have * for the image's name."""
    for i, name in enumerate(names):
        image = picture(i)
        for path, pixels in ((high, image), (low, resize(image, 1 / factor))):
            place = folder / path.replace("*", name)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_image(place, pixels)


def require_set(folder: Path, factor: int, names: tuple[str, ...] = ("1", "2", "10"), passed_over: int = 0) -> None:
    """Require that each image meets its own LR."""
    warnings: list[str] = []
    images = read_test_images(folder, factor, warn=warnings.append)
    assert len(warnings) == passed_over, warnings
    expected = {picture(i).tobytes(): resize(picture(i), 1 / factor) for i in range(len(names))}
    assert len(images) == len(names)
    for image in images:
        assert np.array_equal(expected.pop(image.high.tobytes()), image.low)


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("HR/*.png", "LR/*x2.png"),  # sorted, 10 comes before 1x2
        ("HR/*.png", "LR/*.png"),
        ("HR/*.png", "LR/*_small.png"),
        ("HR/*.png", "LR/X2/*x2.png"),
        ("HR/*.png", "LR_bicubic/X2/*x2.png"),  # EDSR's benchmark
        ("HR_x2/*.png", "LR_x2/*.png"),
        ("HR x2/*.png", "LR x2/*.png"),
        ("GTmod12/*.png", "LRbicx2/*.png"),  # BasicSR's
        ("DIV2K_valid_HR/000*.png", "DIV2K_valid_LR_bicubic/X2/000*x2.png"),
        ("DIV2K_valid_HR/000*.png", "DIV2K_valid_LR_wild/000*x2w1.png"),
        ("HR/x2/*_HR_x2.png", "LR/x2/*_LRBI_x2.png"),  # RCAN's
        ("img_00*_SRF_2_HR.png", "img_00*_SRF_2_LR.png"),  # SelfExSR's image_SRF_2
        ("*_HR.png", "*_LR.png"),
        ("*.png", "*x2.png"),
    ],
)
def test_folders_of_public_test_sets(tmp_path: Path, high: str, low: str) -> None:
    write_set(tmp_path, high, low)
    require_set(tmp_path, 2)
    assert find_scale(tmp_path) == 2


def test_of_several_scales_the_networks_own_is_taken(tmp_path: Path) -> None:
    for factor in (2, 4):
        write_set(tmp_path / "nested", "HR/*.png", f"LR_bicubic/X{factor}/*x{factor}.png", factor)
        write_set(tmp_path / "beside", "HR/*.png", f"LRbicx{factor}/*.png", factor)
        write_set(tmp_path / "together", "HR/*.png", f"LR/*x{factor}.png", factor)
        write_set(tmp_path / "marked", f"img_*_SRF_{factor}_HR.png", f"img_*_SRF_{factor}_LR.png", factor)
    for name in ("nested", "beside", "together", "marked"):
        for factor in (2, 4):
            require_set(tmp_path / name, factor)
    for name, words in (("nested", "LR_bicubic/X2, LR_bicubic/X4"), ("together", "1x2.png and 1x4.png may both be")):
        with pytest.raises(InvalidInput, match=words):
            read_test_images(tmp_path / name, 1)


def test_photographs_for_training_are_not_scored(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        write_set(tmp_path, f"DIV2K_{part}_HR/*.png", f"DIV2K_{part}_LR_bicubic/X2/*x2.png")
        write_set(tmp_path, f"DIV2K_{part}_HR/*.png", f"DIV2K_{part}_LR_unknown/X2/*x2.png")
    files = find_test_files(tmp_path, 2)
    assert files.folder.name == "DIV2K_valid_HR" and files.pairs
    assert files.pairs[0][1].parts[-3:-1] == ("DIV2K_valid_LR_bicubic", "X2")


def test_what_other_methods_made_is_no_test_image(tmp_path: Path) -> None:
    write_set(tmp_path, "img_00*_SRF_2_HR.png", "img_00*_SRF_2_LR.png")
    write_set(tmp_path, "img_00*_SRF_2_bicubic.png", "img_00*_SRF_2_SRCNN.png")
    require_set(tmp_path, 2)


def test_files_named_x2_that_are_larger_are_images_like_others(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(0, 20, 20))
    write_image(tmp_path / "ax2.png", picture(1, 40, 40))
    assert [image.name for image in read_test_images(tmp_path, 2)] == ["a.png", "ax2.png"]


def test_an_odd_or_damaged_first_pair_hides_no_other(tmp_path: Path) -> None:
    """LR images were scored as HR: MATLAB's imresize rounds sides up."""
    (tmp_path / "a.png").write_text("no image")
    write_image(tmp_path / "ax2.png", picture(0, 10, 10))
    write_image(tmp_path / "b.png", picture(1, 41, 41))
    write_image(tmp_path / "bx2.png", picture(1, 21, 21))
    for name in "cd":
        write_image(tmp_path / f"{name}.png", picture(2, 40, 40))
        write_image(tmp_path / f"{name}x2.png", picture(2, 20, 20))
    warnings: list[str] = []
    assert [image.name for image in read_test_images(tmp_path, 2, warn=warnings.append)] == ["c.png", "d.png"]
    assert len(warnings) == 2 and "a.png" in warnings[0] and "b.png and bx2.png" in warnings[1]


def test_smaller_images_of_another_scale_are_left_alone(tmp_path: Path) -> None:
    for name in "ab":
        for factor in (1, 2, 4):
            mark = f"x{factor}" if factor > 1 else ""
            write_image(tmp_path / f"{name}{mark}.png", picture(0, 80 // factor, 80 // factor))
    for scale in (2, 4):
        images = read_test_images(tmp_path, scale)
        assert [(image.name, image.scale) for image in images] == [("a.png", scale), ("b.png", scale)]
    with pytest.raises(InvalidInput, match="holds LR of x2 and x4, and none of x3; give a folder of HR images alone"):
        read_test_images(tmp_path, 3)


@given(st.sets(st.integers(0, 2000), min_size=1, max_size=30), st.sampled_from(["x2", "", "_LR", "_x2", "-small"]))
def test_numbers_need_no_zeros_in_front(numbers: set[int], mark: str) -> None:
    high, low = (sorted(paths(*(f"{n}{end}.png" for n in numbers))) for end in ("", mark))
    assert set(pairs_of(high, low)) == {(f"{n}.png", f"{n}{mark}.png") for n in numbers}


def test_names_that_look_like_marks() -> None:
    assert pairs_of(paths("fox2.png", "fox.png"), paths("fox2x2.png", "foxx2.png")) == [
        ("fox2.png", "fox2x2.png"),
        ("fox.png", "foxx2.png"),
    ]
    assert pairs_of(paths("a.png", "a_b.png"), paths("a_b_small.png", "a_small.png")) == [
        ("a.png", "a_small.png"),
        ("a_b.png", "a_b_small.png"),
    ]
    assert pairs_of(paths("img.png", "img2.png"), paths("img.png", "img2.png")) == [
        ("img.png", "img.png"),
        ("img2.png", "img2.png"),
    ]
    assert pairs_of(paths("1.png"), paths("10x2.png")) == []
    assert pairs_of(paths("img.png"), paths("img2.png")) == []


@pytest.mark.parametrize(
    ("high", "low", "words"),
    [
        (("a.png",), ("ax2.png", "a_x2.png"), "a.png: ax2.png and a_x2.png may both be its partner"),
        (("a.png",), ("a.png", "ax2.png"), "a.png: a.png and ax2.png may both be its partner"),
        (("a.png", "a.jpg"), ("ax2.png",), "ax2.png: a.png and a.jpg may both be its partner"),
    ],
)
def test_two_partners_are_refused(high: tuple[str, ...], low: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        match_names(paths(*high), paths(*low), 2)


def test_what_has_no_partner_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_set(tmp_path, "HR/*.png", "LR/*x2.png")
    write_image(tmp_path / "HR" / "7.png", picture(7))
    write_image(tmp_path / "LR" / "8x2.png", picture(8))
    warnings: list[str] = []
    assert [i.name for i in read_test_images(tmp_path, 2, warn=warnings.append)] == ["1.png", "10.png", "2.png"]
    assert warnings == [f"{tmp_path}/{name}: has no partner; passed over" for name in ("HR/7.png", "LR/8x2.png")]


def test_sets_of_different_images_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, "HR/a*.png", "LR/b*x2.png")
    with pytest.raises(InvalidInput, match=r"do not hold the same images \(a1.png, a10.png, a2.png; b10x2.png"):
        read_test_images(tmp_path, 2)


def test_one_pair_that_does_not_fit_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_set(tmp_path, "HR/*.png", "LR/*x2.png")
    write_image(tmp_path / "LR" / "10x2.png", picture(0, 13, 16))
    (tmp_path / "LR" / "2x2.png").write_text("no image")
    warnings: list[str] = []
    assert [i.name for i in read_test_images(tmp_path, 2, warn=warnings.append)] == ["1.png"]
    assert warnings[0] == f"{tmp_path}/HR/10.png and 10x2.png: HR is 48x40 and LR 16x13, which is not x2; passed over"
    assert "2x2.png: not a readable image" in warnings[1]
    assert find_scale(tmp_path) == 2


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("HR/*.png", "lq/*.png"),
        ("GT/*.png", "input/*.png"),
        ("HR/*.png", "Set5_LR_x2/*.png"),
        ("Set5_HR/*.png", "LR/*.png"),
        ("HR/*.png", "LR_x2_degraded/*_d.png"),
        ("HR/*.png", "low/X2/*.png"),
        ("*.png", "lr/*.png"),
        ("*.png", "half/*.png"),
        ("*.png", "*-small.png"),
    ],
)
def test_what_only_sizes_tell_to_be_lr_is_taken_and_told(tmp_path: Path, high: str, low: str) -> None:
    """LR was made anew, or LR images were scored as HR, without a word."""
    write_set(tmp_path, high, low)
    require_set(tmp_path, 2, passed_over=1)
    assert find_scale(tmp_path) == 2
    said: list[str] = []
    read_test_images(tmp_path, 2, warn=said.append)
    assert len(said) == 1 and "is taken for LR, as" in said[0]


@pytest.mark.parametrize(
    ("high", "low"),
    [("*.png", "*_lr.png"), ("img*_HR.png", "img*_LR2.png"), ("*_gt.png", "*_lq.png"), ("*_HR.png", "*.png")],
)
def test_names_that_say_lr_are_no_hr(tmp_path: Path, high: str, low: str) -> None:
    write_set(tmp_path, high, low)
    require_set(tmp_path, 2)
    with pytest.raises(InvalidInput, match=r"none of x3|is not x3"):
        read_test_images(tmp_path, 3)


def test_folders_that_are_left_alone_are_told(tmp_path: Path) -> None:
    write_set(tmp_path, "HR/*.png", "LR_x2/*.png")
    write_set(tmp_path, "SRCNN/*.png", "notes/*_other.txt.png", 4)
    said: list[str] = []
    assert len(read_test_images(tmp_path, 3, warn=said.append)) == 3
    assert said == [f"{tmp_path}: not used: LR_x2, SRCNN, notes; LR is made from HR by MATLAB's bicubic"]
    write_set(tmp_path, "HR/*.png", "lq/*.png", 4)
    assert len(read_test_images(tmp_path, 4, warn=said.append)) == 3
    assert said[1].endswith(
        "not used: LR_x2, SRCNN, lq, notes; LR is made from HR by MATLAB's bicubic; give a folder that holds HR "
        "and one of them"
    )


def test_lr_alone_is_scored_aloud(tmp_path: Path) -> None:
    write_set(tmp_path, "HR/*.png", "LR_bicubic/X2/*x2.png")
    said: list[str] = []
    low = tmp_path / "LR_bicubic" / "X2"
    assert len(read_test_images(low, 2, warn=said.append)) == 3
    assert said == [f"{low}: by their names its images are LR; they are taken for HR, and made smaller again"]


def test_photographs_that_only_look_like_versions_stay(tmp_path: Path) -> None:
    """One of two sizes, counted, or of Lightroom; what looks smaller is told."""
    for name, side in (
        ("a", 40),
        ("a_b", 20),
        ("c", 40),
        ("d", 40),
        ("d_2", 20),
        ("e", 40),
        ("e-LR", 40),
        ("f-LR", 30),
    ):
        write_image(tmp_path / f"{name}.png", picture(0, side, side))
    said: list[str] = []
    assert len(read_test_images(tmp_path, 2, warn=said.append)) == 8
    assert len(said) == 3 and all("is taken for an HR image, though" in words for words in said)


def test_what_stands_beside_hr_by_name_is_no_hr(tmp_path: Path) -> None:
    write_set(tmp_path, "*_HR.png", "results/*.png")
    for name in ("1_HR", "2_HR"):
        write_image(tmp_path / f"{name.replace('HR', 'SRCNN')}.png", picture(3))
    said: list[str] = []
    (tmp_path / "results").rename(tmp_path.with_name(f"{tmp_path.name}-away"))
    assert [image.name for image in read_test_images(tmp_path, 2, warn=said.append)] == [
        "10_HR.png",
        "1_HR.png",
        "2_HR.png",
    ]
    assert len(said) == 1 and "1_SRCNN.png beside 1_HR.png: is no HR image by its name" in said[0]


def test_a_folder_that_may_not_be_read_is_nobodys_lr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk has one, lost+found."""
    write_image(tmp_path / "a.png", picture(0))
    (tmp_path / "lost+found").mkdir()
    iterate = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return iterate(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert len(read_test_images(tmp_path, 2)) == 1
