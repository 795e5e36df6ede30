"""memsrc upscale and what is behind it: image files by rows, networks on them, folders that go on."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import Run
from helpers.raw_images import RGB, write_png, write_tiff
from helpers.teachers import write_teacher
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler import Upscaler, compile_to_plain, export_onnx, save_plain
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.images.streams import RowFile
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime import upscale_file
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.vdsr import VDSR


def pixels(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> NDArray[Any]:
    generator = np.random.default_rng(height * 1000 + width)
    return generator.integers(0, int(np.iinfo(dtype).max) + 1, (height, width, channels)).astype(dtype)


def write_16_bit(path: Path, image: NDArray[np.uint16]) -> None:
    """Pillow has no 16-bit RGB."""
    height, width, channels = image.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def read_back(path: Path) -> NDArray[Any]:
    """By another library than the one that wrote it, where that reads 16 bits."""
    image = RowFile.open(path)
    if image.dtype == np.uint8:
        with Image.open(path) as file:
            return np.array(file)
    return np.concatenate(list(image.bands(1000)))


def double(bands: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for band in bands:
        yield band.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="module")
def net() -> PlainNet:
    torch.manual_seed(0)
    return compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())


@pytest.fixture(scope="module")
def model(net: PlainNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "plain.onnx"
    export_onnx(net, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_holds_the_pixels_of_the_whole_frame(model: Path, tmp_path: Path, dtype: type) -> None:
    """All of them, though it is read, computed and written by rows: levels go in, and come out rounded once."""
    image = pixels(90, 70, dtype=dtype)
    if dtype is np.uint8:
        Image.fromarray(image).save(tmp_path / "small.png")
    else:
        write_16_bit(tmp_path / "small.png", image)
    upscaler = Upscaler(model, threads=1)
    engine = upscale_file.ByBands(upscaler, tmp_path)
    expected = np.concatenate(list(upscaler.bands(image)))
    for name in ("large.png", "large.tif"):
        upscale_file.enlarge_file(engine, RowFile.open(tmp_path / "small.png"), tmp_path / name, 2)
        assert np.array_equal(read_back(tmp_path / name), expected)


# -- files by rows


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.booleans(), st.integers(1, 50))
def test_pixels_come_back(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, channels: int, deep: bool, rows: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    before = pixels(height, width, channels, np.uint16 if deep else np.uint8)
    if deep:
        write_16_bit(folder / "in.png", before)
    else:
        Image.fromarray(before[..., 0] if channels == 1 else before).save(folder / "in.png")
    image = RowFile.open(folder / "in.png")
    assert (image.height, image.width, image.channels, image.alpha, image.dtype) == (*before.shape, False, before.dtype)
    assert np.array_equal(np.concatenate(list(image.bands(rows))), before)
    for suffix in (".png", ".tif"):
        image.save(folder / f"out{suffix}", double(image.bands(rows)), 2)
        made = read_back(folder / f"out{suffix}").reshape(2 * height, 2 * width, channels)
        assert np.array_equal(made, before.repeat(2, axis=0).repeat(2, axis=1))
    assert not list(folder.glob(".*"))


def test_what_a_file_has_beside_colours_stays(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # orientation: turned; maker
    alpha = np.full((30, 20), 77, np.uint8)
    image = np.dstack([pixels(30, 20), alpha])
    Image.fromarray(image).save(tmp_path / "in.png", icc_profile=profile, exif=exif, dpi=(300, 300))
    source = RowFile.open(tmp_path / "in.png")
    assert source.alpha
    for suffix in (".png", ".tif", ".webp", ".jpg"):
        out = tmp_path / f"out{suffix}"
        source.save(out, double(source.bands(8)), 2)
        with Image.open(out) as made:
            assert made.size == ((60, 40) if suffix == ".tif" else (40, 60))  # Pillow turns TIFFs as they are noted
            assert made.info["icc_profile"] == profile
            assert made.getexif()[0x0112] == 6
            assert suffix == ".tif" or made.getexif()[0x010F] == "a camera"  # libvips writes no more into TIFF
            if suffix != ".jpg":
                assert made.mode == "RGBA" and (np.array(made)[..., 3] == 77).all()
            if suffix == ".png":
                assert round(made.info["dpi"][0]) == 300


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels(200, 200)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    for name in ("empty.png", "text.png", "missing.png"):
        with pytest.raises(InvalidInput, match="not a readable image"):
            RowFile.open(tmp_path / name)
    with pytest.raises(InvalidInput, match=r"half\.png: is damaged \(it is cut off\)"):
        RowFile.open(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes(content)
    half = RowFile.open(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])  # between opening and reading
    with pytest.raises(InvalidInput, match=r"half\.png: is damaged"):
        half.save(tmp_path / "out.png", double(half.bands(16)), 2)
    with pytest.raises(InvalidInput, match="200 x 200 pixels, more than 39,999"):
        RowFile.open(tmp_path / "whole.png", most_pixels=39_999)
    write_tiff(tmp_path / "floating.tif", np.zeros((4, 4, 3), np.float32), photometric=2)
    with pytest.raises(InvalidInput, match="floating-point numbers in 3 channels"):
        RowFile.open(tmp_path / "floating.tif")
    whole = RowFile.open(tmp_path / "whole.png")
    with pytest.raises(ExportError, match="cannot be written"):
        whole.save(tmp_path / "nowhere" / "out.png", double(whole.bands(16)), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "empty.png",
        "floating.tif",
        "half.png",
        "text.png",
        "whole.png",
    ]


# -- the command


def expected(net: PlainNet, image: NDArray[Any]) -> NDArray[Any]:
    return Upscaler(net)(image)


def test_one_image_by_every_way(run: Run, net: PlainNet, model: Path, tmp_path: Path) -> None:
    image = pixels(90, 61)
    Image.fromarray(image).save(tmp_path / "in.png")
    whole = expected(net, image)
    ways: list[list[str]] = [["--tile", "off"], [], ["--tile", "16"], ["--max-memory", "4900kB"], ["--threads", "2"]]
    for i, options in enumerate(ways):
        out = tmp_path / f"{i}.png"
        assert run("upscale", tmp_path / "in.png", out, "--model", model, *options)[0] == 0
        made = read_back(out)
        assert made.shape == (180, 122, 3) and np.abs(made.astype(int) - whole).max() <= 1
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["plain.onnx", "plain.safetensors"])
def test_plain_networks_need_no_torch(net: PlainNet, tmp_path: Path, name: str) -> None:
    """It takes most of a process's memory, and of the time until it starts."""
    (export_onnx if name.endswith("onnx") else save_plain)(net, tmp_path / name)
    Image.fromarray(pixels(9, 12)).save(tmp_path / "small.png")
    program = "import sys; sys.modules['torch'] = None; from memsr_compiler.cli import main; main()"
    arguments = ["upscale", "small.png", "large.png", "--model", name, "--max-memory", "16MB"]
    subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, check=True, capture_output=True)
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (24, 18)


def test_deep_and_grey_images(run: Run, net: PlainNet, model: Path, tmp_path: Path) -> None:
    deep = pixels(20, 30, 3, np.uint16)
    write_16_bit(tmp_path / "deep.png", deep)
    assert run("upscale", tmp_path / "deep.png", tmp_path / "out.png", "--model", model)[0] == 0
    made = read_back(tmp_path / "out.png")
    assert made.dtype == np.uint16 and np.abs(made.astype(int) - expected(net, deep)).max() <= 2
    grey = pixels(20, 30, 1)
    Image.fromarray(grey[..., 0]).save(tmp_path / "grey.png")
    assert run("upscale", tmp_path / "grey.png", tmp_path / "grey2.png", "--model", model)[0] == 0
    made = read_back(tmp_path / "grey2.png")
    assert made.shape == (40, 60)
    colours = expected(net, grey.repeat(3, axis=2).astype(np.float32) / 255)
    assert np.abs(made - 255 * np.clip(colours.mean(axis=2), 0, 1)).max() <= 0.51


def test_networks_on_luma_leave_colours_alone(run: Run, tmp_path: Path) -> None:
    """A network that gives its input back leaves what bicubic interpolation makes."""
    torch.manual_seed(0)
    vdsr = VDSR(blocks=1, channels=4).eval()
    with torch.no_grad():
        for parameter in vdsr.parameters():
            parameter.zero_()
    save_plain(compile_to_plain(vdsr), tmp_path / "same.safetensors")
    image = np.clip(pixels(24, 40), 60, 180)
    Image.fromarray(image).save(tmp_path / "in.png")
    again = run("upscale", tmp_path / "in.png", tmp_path / "x.png", "--model", tmp_path / "same.safetensors")
    assert again[0] == 2 and "give --scale" in again[2]
    command = ("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", tmp_path / "same.safetensors")
    assert run(*command, "--scale", "3")[0] == 0
    from memsr_compiler.images.resize import resize

    bicubic = resize(image, 3, rounding=False)
    assert np.abs(read_back(tmp_path / "out.png") - np.clip(bicubic, 0, 255)).max() <= 1.5


def test_a_folder_goes_on_where_it_stopped(run: Run, model: Path, tmp_path: Path) -> None:
    photos, large = tmp_path / "photos", tmp_path / "large"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(pixels(10 + i, 12)).save(photos / f"{i}.png")
    Image.fromarray(pixels(9, 9)).save(photos / "scan.bmp")
    (photos / "notes.txt").write_text("no image")
    first = run("upscale", photos, large, "--model", model)
    assert first[0] == 3 and "1 of 5 files could not be enlarged: notes.txt" in first[2]
    (photos / "notes.txt").unlink()
    assert sorted(p.name for p in large.glob("*.png")) == ["0.png", "1.png", "2.png", "scan.png"]
    (large / "1.png").unlink()
    Image.fromarray(pixels(20, 20)).save(photos / "2.png")  # another image now
    old, before = (large / "2.png").read_bytes(), (large / "0.png").stat().st_mtime_ns
    refused = run("upscale", photos, large, "--model", model)
    assert refused[0] == 3 and "2.png: is there already" in refused[2]
    assert "done before  2 of 4" in refused[1] and (large / "1.png").exists()
    assert (large / "2.png").read_bytes() == old
    (large / "2.png").unlink()
    second = run("upscale", photos, large, "--model", model)
    assert second[0] == 0 and "done before  3 of 4" in second[1]
    assert (large / "0.png").stat().st_mtime_ns == before
    assert read_back(large / "2.png").shape == (40, 40, 3)
    assert run("upscale", f"{photos}/[01].png", large, "--model", model)[0] == 0
    assert run("upscale", photos, large, "--model", model, "--overwrite")[0] == 0
    assert (large / "0.png").stat().st_mtime_ns != before


def test_what_only_pillow_reads_keeps_alpha_and_the_limit(tmp_path: Path) -> None:
    image = np.dstack([pixels(6, 5), np.full((6, 5), 9, np.uint8)])
    Image.fromarray(image).save(tmp_path / "x.tga")
    opened = RowFile.open(tmp_path / "x.tga")
    opened.save(tmp_path / "out.png", double(opened.bands(4)), 2)
    assert np.array_equal(read_back(tmp_path / "out.png"), image.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(InvalidInput, match="5 x 6 pixels, more than 29"):
        RowFile.open(tmp_path / "x.tga", most_pixels=29)


@pytest.mark.parametrize("name", ["in.gif", "in.png", "in.webp", "in.tif"])
def test_further_frames_are_told_of(name: str, run: Run, model: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(pixels(8, 8 + i)).crop((0, 0, 8, 8)) for i in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    status, _, err = run("upscale", tmp_path / name, tmp_path / "out.png", "--model", model)
    assert status == 0 and "has 3 pages or frames" in " ".join(err.split())


def test_two_images_never_become_one(run: Run, model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels(9, 9)).save(tmp_path / name / "x.png")
    status, _, err = run("upscale", f"{tmp_path}/?/x.png", tmp_path / "large", "--model", model)
    assert status == 2 and "would both become" in err and not list((tmp_path / "large").iterdir())


def test_a_result_that_was_cut_off_is_not_done(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels(9, 9)).save(tmp_path / "in" / "x.png")
    command = ("upscale", tmp_path / "in", tmp_path / "large", "--model", model)
    assert run(*command)[0] == 0
    (tmp_path / "large" / "x.png").write_bytes(b"")
    status, _, err = run(*command)
    assert status == 2 and "is there already" in err


def test_a_network_that_enlarges_otherwise_than_its_file_says(tmp_path: Path) -> None:
    """Not "cannot be written": what the encoder says of too few rows."""
    Image.fromarray(pixels(9, 8)).save(tmp_path / "in.png")
    engine = upscale_file.WholeFrame(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3), Takes(3))
    with pytest.raises(InvalidInput, match="makes 16x18 pixels of 8x9, and says that it enlarges by 3"):
        upscale_file.enlarge_file(engine, RowFile.open(tmp_path / "in.png"), tmp_path / "out.png", 3)
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, net: PlainNet, tmp_path: Path) -> None:
    """Before memory is mapped that the disk cannot hold."""
    Image.fromarray(pixels(40, 40)).save(tmp_path / "in.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upscale_file, "_on_disk", full)
    engine = upscale_file.ByBands(Upscaler(net, columns=8), tmp_path)
    with pytest.raises(ExportError, match="No space left"):
        upscale_file.enlarge_file(engine, RowFile.open(tmp_path / "in.png"), tmp_path / "out.png", 2)
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_half_written(model: Path, tmp_path: Path, number: int) -> None:
    Image.fromarray(pixels(1500, 1500)).save(tmp_path / "in.png")
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "memsr_compiler", "upscale", str(tmp_path), str(folder), "--model", str(model)]
    process = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (folder.is_dir() and list(folder.glob(".memsr-*.tmp"))) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in told, told.decode()
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("name", "options", "whole"),
    [
        ("in.png", {"interlace": True}, "an interlaced PNG, held whole: 1,440,000 bytes"),
        ("in.jpg", {"interlace": True}, "a progressive JPEG, held whole: 3,240,000 bytes"),
        ("in.webp", {}, "a webp file, held whole: 6,120,000 bytes"),
    ],
)
def test_what_is_held_whole_counts_and_is_said(
    run: Run, model: Path, tmp_path: Path, name: str, options: dict[str, Any], whole: str
) -> None:
    import pyvips

    image = np.tile(pixels(60, 60), (10, 10, 1))
    pyvips.Image.new_from_array(image).write_to_file(str(tmp_path / name), **options)
    bytes_held = int(whole.split()[-2].replace(",", ""))
    command = ("upscale", tmp_path / name, tmp_path / "out.png", "--model", model)
    refused = run(*command, "--max-memory", f"{bytes_held - 1}B")
    assert refused[0] == 2 and whole.partition(",")[0] in refused[2] and "are allowed in all" in refused[2]
    least = bytes_held + (4 << 20)
    refused = run(*command, "--max-memory", f"{least}B")
    assert refused[0] == 2 and f"besides {bytes_held:,} for the image, are too few" in refused[2]
    assert not (tmp_path / "out.png").exists()
    status, out, _ = run(*command, "--max-memory", f"{least + (3 << 20)}B")
    assert status == 0 and f"(600x600 -> 1200x1200; {whole})" in out


def test_a_result_that_is_held_whole_counts(run: Run, model: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(300, 300)).save(tmp_path / "in.png")
    command = ("upscale", tmp_path / "in.png", tmp_path / "out.webp", "--model", model)
    refused = run(*command, "--max-memory", "3MB")
    assert refused[0] == 2 and "a .webp as result, held whole: 3,960,000 bytes" in " ".join(refused[2].split())
    assert "write another format than WebP" in " ".join(refused[2].split())
    assert run(*command, "--max-memory", "20MB")[0] == 0


def test_advice_is_about_the_formats_at_hand(run: Run, model: Path, tmp_path: Path) -> None:
    """Of a result in PNG, for which colours are extended under transparent pixels, WebP is nowhere."""
    Image.fromarray(np.tile(pixels(50, 100)[..., :1], (1, 100, 4))).save(tmp_path / "in.png")
    command = ("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", model)
    status, _, err = run(*command, "--max-memory", "3MB")
    told = " ".join(err.split())
    assert status == 2 and "transparency, whose colours are extended" in told and "WebP" not in told
    assert "allow more, or write JPEG, which has no transparency" in told


def test_a_result_too_large_for_its_format_is_refused_before_the_work(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "in.png", np.zeros((1, 8192, 3), np.uint8), bits=8, colour=RGB)
    monkeypatch.setattr(Upscaler, "stream", None)  # nothing is computed
    status, _, err = run("upscale", tmp_path / "in.png", tmp_path / "out.webp", "--model", model)
    told = " ".join(err.split())
    assert status == 2 and "would have 16,384 x 2 pixels, and .webp holds 16,383 a side at most: write PNG" in told
    engine = upscale_file.ByBands(Upscaler(model), tmp_path)
    with pytest.raises(InvalidInput, match=r"holds 16,383 a side"):
        upscale_file.enlarge_file(engine, RowFile.open(tmp_path / "in.png"), tmp_path / "out.webp", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "wide"], "want auto, off, or a number"),
        (["--scale", "3"], "the network enlarges by 2"),
        (["--max-memory", "1MB"], "are too few"),
        (["--max-memory", "20MB", "--tile", "off"], "leave one of them out"),
        (["--arch", "edsr"], "is a plain network, which tells all about itself; leave --arch"),
        (["--input-range", "0", "255"], "takes values from 0 to 1; leave --input-range out"),
        (["--input-range", "0", "255", "--tile", "off"], "takes values from 0 to 1; leave --input-range out"),
        (["--max-pixels", "50"], "allow more with --max-pixels"),
    ],
)
def test_options_that_do_not_fit(run: Run, model: Path, tmp_path: Path, options: list[str], message: str) -> None:
    Image.fromarray(pixels(10, 10)).save(tmp_path / "in.png")
    refused = run("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", model, *options)
    assert refused[0] == 2 and message in refused[2]
    assert not (tmp_path / "out.png").exists()


def test_our_limit_not_pillows(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BMP is read by Pillow, which has a limit of its own that no option would lift."""
    Image.fromarray(pixels(30, 30)).save(tmp_path / "in.bmp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    command = ("upscale", tmp_path / "in.bmp", tmp_path / "out.png", "--model", model)
    refused = run(*command, "--max-pixels", "800")
    assert refused[0] == 2 and "30 x 30 pixels, more than 800" in refused[2] and "--max-pixels" in refused[2]
    assert run(*command)[0] == 0 and Image.MAX_IMAGE_PIXELS == 100


def test_places_that_do_not_fit(run: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(pixels(10, 10)).save(source)
    teacher = tmp_path / "teacher.pt"
    write_teacher(EDSR(scale=2, blocks=1, channels=8), teacher)
    out = tmp_path / "out.png"
    for arguments, message in (
        ((source, source, "--model", model), "is the image itself"),
        ((source, tmp_path / "out.bmp", "--model", model), "files of this kind are not written"),
        ((source, tmp_path / "no" / "out.png", "--model", model), "does not exist; make it first"),
        ((tmp_path / "none.png", out, "--model", model), "there is no such file or folder"),
        (
            (source, out, "--model", tmp_path / "none.onnx"),
            "(No such file or directory). Check the path.\n",
        ),
        ((tmp_path, tmp_path / "large.png", "--model", model), "named like an image"),
        ((tmp_path, source / "sub", "--model", model), "cannot be made a folder"),
        ((source, out, "--model", teacher), "is no plain network of ours"),
    ):
        refused = run("upscale", *arguments)
        assert refused[0] == 2 and message in refused[2], refused
    assert run("upscale", source, out, "--model", teacher, "--tile", "off")[0] == 0
    assert read_back(out).shape == (20, 20, 3)
