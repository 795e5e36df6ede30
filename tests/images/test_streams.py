"""Image files by rows: colours that stay or are told of, limits of formats, and what is held as a whole."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.raw_images import RGB, RGBA, write_png, write_tiff
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.images.encoding.pipe import Writer
from memsr_compiler.images.encoding.png_colours import pack_chunks, read_colour_chunks
from memsr_compiler.images.files import read_image
from memsr_compiler.images.limits import SIDES, require_holds
from memsr_compiler.images.streams import WRITTEN, RowFile

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
LINEAR = (b"gAMA", struct.pack(">I", 100_000))
SRGB_GAMMA = (b"gAMA", struct.pack(">I", 45_455))
SRGB_PRIMARIES = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
WIDE = (b"cHRM", struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600))
RENDERING = (b"sRGB", b"\0")
HDR = (b"cICP", bytes([9, 16, 0, 1]))
BRIGHTNESS = (b"cLLI", struct.pack(">2I", 1000, 400))


def double(bands: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for band in bands:
        yield band.repeat(2, axis=0).repeat(2, axis=1)


def save(path: Path, target: Path) -> RowFile:
    image = RowFile.open(path)
    image.save(target, double(image.bands(5)), 2)
    return image


# -- what a PNG says about its colours


@pytest.mark.parametrize(
    "chunks",
    [[LINEAR], [SRGB_PRIMARIES, SRGB_GAMMA, RENDERING], [WIDE, LINEAR], [HDR, BRIGHTNESS], [HDR, SRGB_GAMMA]],
)
@pytest.mark.parametrize(("pixels", "colour"), [(PIXELS, RGB), (np.dstack([PIXELS, PIXELS[..., 0]]), RGBA)])
def test_colour_chunks_go_from_png_to_png(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], pixels: NDArray[Any], colour: int
) -> None:
    write_png(tmp_path / "in.png", pixels, bits=8, colour=colour, before=chunks)
    image = save(tmp_path / "in.png", tmp_path / "out.png")
    assert list(read_colour_chunks(tmp_path / "out.png")) == chunks
    assert image.warnings(tmp_path / "out.png") == []
    made = RowFile.open(tmp_path / "out.png")  # its checksums are right
    assert np.array_equal(np.concatenate(list(made.bands(7))), pixels[..., :3].repeat(2, axis=0).repeat(2, axis=1))
    with Image.open(tmp_path / "out.png") as file:
        file.load()
        assert (file.info.get("gamma") == 1) == (LINEAR in chunks)


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([LINEAR], ["gamma 1 (gAMA)"]),
        ([SRGB_PRIMARIES, SRGB_GAMMA, RENDERING], []),  # what everyone assumes
        ([WIDE], ["primaries (cHRM)"]),
        ([HDR, BRIGHTNESS], ["colour space 9-16-0-1 (cICP)", "brightness of the display (cLLI)"]),
    ],
)
def test_colours_that_other_formats_do_not_keep_are_told(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], words: list[str]
) -> None:
    write_png(tmp_path / "in.png", PIXELS, bits=8, colour=RGB, before=chunks)
    image = RowFile.open(tmp_path / "in.png")
    for suffix in (".jpg", ".tif", ".webp"):
        told = image.warnings(tmp_path / f"out{suffix}")
        assert told == [
            f"{tmp_path / 'in.png'}: its {word} is not kept in {suffix}; write PNG to keep it" for word in words
        ]


def test_a_profile_outdoes_gamma(tmp_path: Path) -> None:
    with_profile = Image.fromarray(PIXELS)
    with_profile.save(tmp_path / "plain.png", icc_profile=srgb())
    content = (tmp_path / "plain.png").read_bytes()
    gamma = struct.pack(">I", 4) + b"gAMA" + LINEAR[1] + struct.pack(">I", zlib.crc32(b"gAMA" + LINEAR[1]))
    (tmp_path / "in.png").write_bytes(content[:33] + gamma + content[33:])
    image = save(tmp_path / "in.png", tmp_path / "out.png")
    assert image.warnings(tmp_path / "out.jpg") == []
    with Image.open(tmp_path / "out.png") as file:
        assert file.info["icc_profile"] == srgb() and file.info["gamma"] == 1


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_before_the_writer_has_begun_is_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begun: bool
) -> None:
    """Not "cannot join thread before it is started", which a folder takes for one image that went wrong."""
    Image.fromarray(PIXELS).save(tmp_path / "in.png")
    launch = Writer.start

    def interrupted(self: Writer) -> None:
        if begun:
            launch(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "start", interrupted)
    image, threads = RowFile.open(tmp_path / "in.png"), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        image.save(tmp_path / "out.png", double(image.bands(4)), 2)
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]
    assert threading.active_count() == threads


def test_a_full_disk_is_told_where_chunks_are_added(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a disk that is always full")
    write_png(tmp_path / "in.png", PIXELS, bits=8, colour=RGB, before=[LINEAR])
    image = RowFile.open(tmp_path / "in.png")
    with pytest.raises(OSError, match="No space left"):
        image._write_with(vips_image(PIXELS), Path("/dev/full"), ".png", pack_chunks(image.chunks))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_a_full_disk_is_told_by_each_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """libvips says "write error" first, and of what file only the temporary name."""
    write_png(tmp_path / "in.png", PIXELS, bits=8, colour=RGB)
    image, target = RowFile.open(tmp_path / "in.png"), tmp_path / f"out{suffix}"
    from memsr_compiler.images import streams

    monkeypatch.setattr(streams, "temporary_file", lambda _: contextlib.nullcontext((Path("/dev/full"), None)))
    with pytest.raises(ExportError) as told:
        image.save(target, double(image.bands(4)), 2)
    assert str(told.value) == (
        f"{target}: cannot be written (No space left on device). Free some space or write elsewhere."
    )


def vips_image(pixels: NDArray[Any]) -> Any:
    import pyvips

    return pyvips.Image.new_from_array(pixels)


def srgb() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# -- CMYK


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_converted_by_its_profile(tmp_path: Path, suffix: str) -> None:
    """Against libvips, which converts by the same profile with the same library, and made the file."""
    ramp = np.linspace(40, 220, 16).astype(np.uint8)
    colours = np.stack([*np.meshgrid(ramp, ramp), np.full((16, 16), 128, np.uint8)], axis=2)
    path = tmp_path / f"in{suffix}"
    inks = vips_image(colours).icc_export(output_profile="cmyk")
    inks.write_to_file(str(path), **({"Q": 100} if suffix == ".jpg" else {}))
    import pyvips

    original = pyvips.Image.new_from_file(str(path))
    expected = original.icc_transform("srgb", embedded=True, intent="relative").numpy()  # which the profile names
    notes: list[str] = []
    made = read_image(path, warn=notes.append)
    assert notes == [] and np.abs(made.astype(int) - expected).max() <= 2
    with Image.open(path) as file:
        assert np.abs(made.astype(int) - np.asarray(file.convert("RGB"))).max() > 20  # as if inks were ideal
    image = save(path, tmp_path / "out.png")
    assert image.warnings(tmp_path / "out.png") == []
    with Image.open(tmp_path / "out.png") as file:
        assert "icc_profile" not in file.info  # that of the inks
        assert np.array_equal(np.asarray(file)[::2, ::2], made)


@pytest.mark.parametrize(("profile", "why"), [(None, "without a profile"), (b"none", "its profile cannot be used")])
def test_cmyk_without_a_profile_is_said_to_be_a_guess(tmp_path: Path, profile: bytes | None, why: str) -> None:
    inks = Image.fromarray(PIXELS).convert("CMYK")
    inks.save(tmp_path / "in.tif", icc_profile=profile)
    notes: list[str] = []
    assert np.array_equal(read_image(tmp_path / "in.tif", warn=notes.append), np.asarray(inks.convert("RGB")))
    told = RowFile.open(tmp_path / "in.tif").warnings(tmp_path / "out.png")
    assert told == notes and len(told) == 1
    assert told[0].startswith(f"{tmp_path / 'in.tif'}: has CMYK") and why in told[0] and "are a guess" in told[0]


def test_without_a_listener_the_log_hears_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "in.tif")
    read_image(tmp_path / "in.tif")
    assert "in.tif: has CMYK without a profile" in caplog.text


# -- what is turned, and what else a file has


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.gif", "x.tif"])
def test_frames_that_are_left_out_are_told(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    told = RowFile.open(tmp_path / name).warnings(tmp_path / "y.png")
    assert f"{tmp_path / name}: has 2 pages or frames; the first is enlarged" in told


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_decoded_whole_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    image = Image.fromarray(PIXELS).convert("CMYK")
    image.save(tmp_path / "in.jpg", exif=exif, quality=100, subsampling=0)
    save(tmp_path / "in.jpg", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as made:
        assert made.getexif().get(0x0112, 1) == 1
        assert made.getexif()[0x010F] == "a camera"
        assert np.array_equal(np.asarray(made)[::2, ::2], read_image(tmp_path / "in.jpg"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("name", ["in.bmp", "in.tif"])
def test_pixels_for_an_inch_stay_where_libvips_does_not_read(tmp_path: Path, name: str, suffix: str) -> None:
    """It made 72 of them."""
    if name == "in.bmp":
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / name, dpi=(300, 150))
    else:  # of 12 bits, by centimetres
        more = [(282, 4, [118]), (283, 4, [59]), (296, 3, [3])]
        write_tiff(tmp_path / name, np.zeros((6, 8), np.uint16), bits=12, raw=bytes(72), more=more)
    image = RowFile.open(tmp_path / name)
    image.save(tmp_path / f"out{suffix}", image.bands(5), 1)
    with Image.open(tmp_path / f"out{suffix}") as file:
        across, down = (float(file.getexif()[tag]) for tag in (282, 283))
    assert (across, down) == pytest.approx((300, 150), rel=2e-3)


@pytest.mark.parametrize("kind", ["P", "1", "I;16", "12 bits"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_for_an_inch_are_turned_with_the_picture(tmp_path: Path, kind: str, orientation: int) -> None:
    """A fax of 204 x 98 that lay on its side was 204 x 98 when it was upright, and looked stretched."""
    if kind == "12 bits":
        more = [(274, 3, [orientation]), (282, 4, [204]), (283, 4, [98]), (296, 3, [2])]
        write_tiff(tmp_path / "in.tif", np.zeros((6, 8), np.uint16), bits=12, raw=bytes(72), more=more)
    else:
        grey = Image.fromarray(PIXELS).convert("L" if kind == "I;16" else kind)
        image = Image.fromarray(np.asarray(grey).astype(np.uint16)) if kind == "I;16" else grey
        exif = Image.Exif()
        exif[274] = orientation
        image.save(tmp_path / "in.tif", dpi=(204, 98), exif=exif)
    save(tmp_path / "in.tif", tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as file:
        shown = file.getexif()
        across, down = (float(shown[tag]) for tag in (282, 283))
    expected = (98, 204) if orientation == 6 and shown[274] == 1 else (204, 98)
    assert (across, down) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize(
    ("name", "exif"),
    [
        ("in.webp", {}),
        ("in.tif", {}),
        ("in.jpg", {}),
        ("in.jpg", {282: 1.0, 283: 1.0, 296: 1}),
        ("in.png", {}),
        ("lab.tif", {}),
        ("in.gif", {}),
    ],
)
def test_an_image_without_resolution_gets_the_one_that_is_assumed(
    tmp_path: Path, name: str, exif: dict[int, float], suffix: str
) -> None:
    """It was 25.4 pixels an inch, 1 or 0, so that programs for print made metres of a photograph."""
    tags = Image.Exif()
    tags.update(exif)
    image = Image.fromarray(PIXELS)
    (image.convert("LAB") if name == "lab.tif" else image).save(tmp_path / name, exif=tags)
    save(tmp_path / name, tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as file:
        made = file.getexif()
        assert [float(made[tag]) for tag in (282, 283, 296)] == pytest.approx([72, 72, 2], rel=1e-3)


@pytest.mark.parametrize(("unit", "expected"), [(2, 300), (3, 762), (0, 72)])
def test_resolutions_of_exif_are_kept(tmp_path: Path, unit: int, expected: float) -> None:
    exif = Image.Exif()
    exif.update({282: 300.0, 283: 300.0, 296: unit})
    Image.fromarray(PIXELS).save(tmp_path / "in.webp", exif=exif)
    save(tmp_path / "in.webp", tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as file:
        made = file.getexif()
    assert float(made[282]) * {2: 1, 3: 2.54}[made[296]] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_resolution_that_no_print_has_is_none(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """libvips said so on standard error, for each time that the image was read."""
    exif = Image.Exif()
    exif.update({282: 4e8, 283: 300.0, 296: 2})
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    save(tmp_path / "in.jpg", tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as file:
        assert float(file.getexif()[282]) == pytest.approx(72, rel=1e-3)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("counts", "words"), [((0, 1), ""), ((3, 3), ""), ((3, 4), "4:3")])
def test_what_a_png_counts_without_a_unit_is_the_shape_of_its_pixels(
    tmp_path: Path, counts: tuple[int, int], words: str
) -> None:
    """Of ffmpeg's 0:1 an X resolution of 0 was written."""
    write_png(tmp_path / "in.png", PIXELS, bits=8, colour=RGB, before=[(b"pHYs", struct.pack(">2IB", *counts, 0))])
    told = save(tmp_path / "in.png", tmp_path / "out.tif").warnings(tmp_path / "out.tif")
    assert [f"has pixels of {words}, not square" in each for each in told] == ([True] if words else [])
    with Image.open(tmp_path / "out.tif") as file:
        assert file.info["dpi"] == pytest.approx((72, 72), rel=1e-3)


def test_pixels_that_are_not_square_are_told(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((6, 8, 3), np.uint8))
    image.save(tmp_path / "in.jpg")
    image.quantize(2).save(tmp_path / "in.gif")
    for name, at, new, words in (("in.jpg", 13, b"\0\0\2\0\1", "2:1"), ("in.gif", 12, b"\x71", "128:64")):
        assert RowFile.open(tmp_path / name).warnings(tmp_path / "out.png") == []
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:at] + new + content[at + len(new) :])
        (told,) = RowFile.open(tmp_path / name).warnings(tmp_path / "out.png")
        assert told.startswith(f"{tmp_path / name}: has pixels of {words}, not square")


def test_a_profile_stays_where_only_pillow_reads(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "in.jp2", icc_profile=srgb())
    with Image.open(tmp_path / "in.jp2") as file:
        profile = file.info.get("icc_profile")
    save(tmp_path / "in.jp2", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as made:
        assert made.info.get("icc_profile") == profile


def test_floating_pixels_become_sixteen_bits(tmp_path: Path) -> None:
    unit = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    write_tiff(tmp_path / "in.tif", unit)
    save(tmp_path / "in.tif", tmp_path / "out.png")
    made = RowFile.open(tmp_path / "out.png")
    pixels = np.concatenate(list(made.bands(4)))[::2, ::2, 0]
    assert made.dtype is np.uint16 and np.abs(pixels / 65535 - unit).max() <= 0.5 / 65535 + 1e-7


# -- limits of formats


@pytest.mark.parametrize(("suffix", "most"), [(".webp", 16_383), (".jpg", 65_500), (".JPEG", 65_500)])
def test_formats_hold_what_is_said(tmp_path: Path, suffix: str, most: int) -> None:
    """One pixel more is what the encoder itself refuses."""
    path = tmp_path / f"out{suffix}"
    require_holds(path, most, most)
    for size in ((most + 1, 1), (1, most + 1)):
        with pytest.raises(InvalidInput, match=rf"holds {most:,} a side at most: write PNG or TIFF"):
            require_holds(path, *size)
    write_png(tmp_path / "in.png", np.zeros((1, most // 2, 3), np.uint8), bits=8, colour=RGB)
    save(tmp_path / "in.png", path)
    write_png(tmp_path / "in.png", np.zeros((1, most // 2 + 1, 3), np.uint8), bits=8, colour=RGB)
    with pytest.raises(ExportError, match="cannot be written"):
        save(tmp_path / "in.png", path)


def test_other_formats_hold_more(tmp_path: Path) -> None:
    assert set(SIDES) == set(WRITTEN)
    write_png(tmp_path / "in.png", np.zeros((1, 600_000, 3), np.uint8), bits=8, colour=RGB)
    for suffix in (".png", ".tif"):
        require_holds(tmp_path / f"out{suffix}", 1_200_000, 2)
        save(tmp_path / "in.png", tmp_path / f"out{suffix}")
        assert RowFile.open(tmp_path / f"out{suffix}").width == 1_200_000
        with pytest.raises(InvalidInput, match=r"a side at most: cut the image into pieces"):
            require_holds(tmp_path / f"out{suffix}", 200_000_000, 1)


# -- what is held whole

PEAK = """
import sys
from pathlib import Path
from memsr_compiler.images.streams import RowFile

def status(word):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(word))

warm, path, target = map(Path, sys.argv[1:])
def run(path):
    image = RowFile.open(path)
    bands = (band.repeat(2, axis=0).repeat(2, axis=1) for band in image.bands(32))
    if target.name == "none":
        for _ in bands:
            pass
    else:
        image.save(target, bands, 2)
    return image
run(warm)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
image = run(path)
print(status("VmHWM") - before, image.held_bytes(target, 2, 1), image.whole or "by rows")
"""


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=2)
    return (waves * 100 + 128).astype(np.uint8)


def measure(tmp_path: Path, path: Path, target: str = "none") -> tuple[int, int, str]:
    """The most bytes that reading, or reading and writing, took beyond the process; what is said; why."""
    with Image.open(path) as file:
        file.crop((0, 0, 64, 64)).save(tmp_path / f"warm{path.suffix}")
    command = [sys.executable, "-c", PEAK, str(tmp_path / f"warm{path.suffix}"), str(path), str(tmp_path / target)]
    peak, said, whole = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(maxsplit=2)
    return int(peak), int(said), whole.strip()


SLACK = 12 << 20  # bytes that decoding by rows takes: a few dozen rows, in a few stages


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak memory")
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("x.png", {"interlace": True}, "an interlaced PNG"),
        ("x.jpg", {"interlace": True, "subsample_mode": "off"}, "a progressive JPEG"),
        ("x.webp", {"lossless": True, "effort": 0}, "a webp file"),
        ("x.tif", {"compression": "deflate", "tile": True, "tile_width": 2048, "tile_height": 1600}, "a TIFF in large"),
        ("x.bmp", {}, "BMP of RGB"),
    ],
)
def test_what_is_held_whole_is_counted(tmp_path: Path, name: str, options: dict[str, Any], words: str) -> None:
    pixels = smooth(1600, 2000)
    if name.endswith("bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
    else:
        vips_image(pixels).write_to_file(str(tmp_path / name), **options)
    peak, said, whole = measure(tmp_path, tmp_path / name)
    assert whole.startswith(words)
    assert said >= 3 * 1600 * 2000 and peak <= said + SLACK


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak memory")
def test_a_webp_that_is_written_is_held_whole(tmp_path: Path) -> None:
    vips_image(smooth(1600, 2000)).write_to_file(str(tmp_path / "x.png"))
    peak, said, _ = measure(tmp_path, tmp_path / "x.png", "out.webp")
    assert said >= 3 * 3200 * 4000 and 0.5 * said <= peak <= said + 2 * SLACK


@pytest.mark.parametrize(("name", "options"), [("x.png", {}), ("x.jpg", {}), ("x.tif", {"compression": "deflate"})])
def test_what_is_read_by_rows_is_not(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    vips_image(PIXELS).write_to_file(str(tmp_path / name), **options)
    image = RowFile.open(tmp_path / name)
    assert (image.whole, image.held_bytes(tmp_path / "out.png", 2, 3)) == ("", 0)


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ("vips_tracked: out of memory\nsize == 88MB", "there is not enough memory to decode it (vips_tracked: "),
        ("pngload: libspng read error", "is damaged (pngload: libspng read error)"),
    ],
)
def test_too_little_memory_is_not_called_damage(
    tmp_path: Path, detail: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyvips

    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = RowFile.open(tmp_path / "a.png")

    class Region:
        def fetch(self, *_: int) -> bytes:
            raise pyvips.Error("unable to fetch", detail)

    monkeypatch.setattr(pyvips.Region, "new", lambda _: Region())
    with pytest.raises(InvalidInput) as told:
        list(image.bands(5))
    assert f"a.png: {words}" in str(told.value)
