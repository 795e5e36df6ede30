"""Colours of films: known ones by the formulas of BT.601, BT.709 and BT.2020, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="films need the extra [video]")

import av
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from helpers.films import Tags, colour_patches, write_film

from memsr_compiler.errors import InvalidInput
from memsr_compiler.video.colours import SITE, Colours, FrameMaker, Pixels, ToPixels, read_colours
from memsr_compiler.video.film import Film

LUMA = {6: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 7: (0.212, 0.087)}  # Kr and Kb, by H.273's number
DRAWN = [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (1.0, 1.0, 1.0), (0, 0, 0), (0.8, 0.5, 0.2), (0.25, 0.5, 0.75)]


def encode(colour: tuple[float, float, float], matrix: int, full: bool, bits: int) -> tuple[int, int, int]:
    """R, G and B from 0 to 1 as Y, U and V, by H.273."""
    red, blue = LUMA[matrix]
    y = red * colour[0] + (1 - red - blue) * colour[1] + blue * colour[2]
    u, v = (colour[2] - y) / (2 * (1 - blue)), (colour[0] - y) / (2 * (1 - red))
    step, peak = 2 ** (bits - 8), 2**bits - 1
    if full:
        numbers = (y * peak, u * peak + 128 * step, v * peak + 128 * step)
    else:
        numbers = ((16 + 219 * y) * step, (128 + 224 * u) * step, (128 + 224 * v) * step)
    y, u, v = (min(max(round(number), 0), peak) for number in numbers)
    return y, u, v


def make_frame(conversion: ToPixels, pixels: Pixels, form: str) -> VideoFrame:
    return FrameMaker(conversion, pixels.shape[1], pixels.shape[0], form, conversion.colours).make(pixels)


@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "yuv444p12le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", LUMA)
def test_known_colours(matrix: int, full: bool, form: str) -> None:
    """Half a number for the rounding of Y, U and V, of which each moves a colour by 2 at most; one for libswscale."""
    bits = VideoFormat(form).components[0].bits
    values = [encode(colour, matrix, full, bits) for colour in DRAWN]
    conversion = ToPixels(Colours(matrix, full, 2, 2), grey=False, deep=bits > 8)
    pixels = conversion.read(colour_patches(form, values), VideoReformatter())
    assert pixels.dtype == (np.uint16 if bits > 8 else np.uint8)
    peak = 65535 if bits > 8 else 255
    middles = pixels[8, 8::16].astype(float) / peak
    assert np.abs(middles - np.array(DRAWN)).max() * (2**bits - 1) <= 2.5
    back = make_frame(conversion, pixels, form)
    assert (back.colorspace, back.color_range) == (matrix, 2 if full else 1)
    for plane, channel in zip(back.planes, range(3), strict=True):
        numbers = np.frombuffer(bytes(plane), np.uint16 if bits > 8 else np.uint8).reshape(plane.height, -1)
        middle = numbers[plane.height // 2, : plane.width][plane.width // 14 :: plane.width // 7]
        wanted = np.array([value[channel] for value in values])
        assert np.abs(middle.astype(int) - wanted).max() <= 1


def test_the_matrix_makes_a_difference() -> None:
    """Otherwise the test above would show nothing."""
    frame = colour_patches("yuv444p", [encode((0, 1.0, 0), 1, False, 8)])
    ways = [Colours(matrix, full, 2, 2) for matrix in LUMA for full in (False, True)]
    read = [ToPixels(way, grey=False, deep=False).read(frame, VideoReformatter()) for way in ways]
    assert len({tuple(pixels[8, 8]) for pixels in read}) >= 6


@pytest.mark.parametrize("form", ["bgr0", "gbrp", "rgb24"])
def test_rgb_is_not_touched(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    conversion = ToPixels(Colours(0, True, 2, 2), grey=False, deep=False)
    frame = make_frame(conversion, pixels, form)
    assert np.array_equal(conversion.read(frame, VideoReformatter()), pixels)


@pytest.mark.parametrize(("full", "form", "levels"), [(True, "gray", (0, 128, 255)), (False, "gray", (16, 126, 235))])
def test_grey(full: bool, form: str, levels: tuple[int, ...]) -> None:
    conversion = ToPixels(Colours(2, full, 2, 2), grey=True, deep=False)
    frame = colour_patches(form, [(level, 0, 0) for level in levels])
    pixels = conversion.read(frame, VideoReformatter())
    assert pixels.shape == (16, 48, 1) and list(pixels[8, 8::16, 0]) == [0, 128, 255]
    back = make_frame(conversion, pixels, form)
    assert np.array_equal(back.to_ndarray()[8, 8::16], levels)


@pytest.mark.parametrize(("full", "levels"), [(True, (0, 128, 255)), (False, (16, 126, 235))])
@pytest.mark.parametrize("form", ["yuv420p", "yuv422p10le"])
def test_grey_for_a_codec_that_has_none(form: str, full: bool, levels: tuple[int, ...]) -> None:
    """The range of Y is the grey's: black is not made brighter twice."""
    conversion = ToPixels(Colours(2, full, 2, 2), grey=True, deep=False)
    pixels = conversion.read(colour_patches("gray", [(level, 0, 0) for level in levels]), VideoReformatter())
    frame = make_frame(conversion, pixels, form)
    deep = frame.format.components[0].bits > 8
    luma, *others = (np.frombuffer(bytes(plane), np.uint16 if deep else np.uint8)[:48] for plane in frame.planes)
    one = (1023 / 255 if full else 4) if deep else 1  # of 8 bits' levels
    assert np.abs(luma[8::16] / one - levels).max() <= 1
    assert all(np.abs(other[:24] / (4 if deep else 1) - 128).max() <= 1 for other in others)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("form", ["yuv420p10le", "yuv444p12le"])
def test_deep_grey_for_a_codec_that_has_none(form: str, full: bool) -> None:
    """libswscale's white in 16 bits is 65280 of 65535."""
    bits, levels = VideoFormat(form).components[0].bits, np.array([0, 0.25, 0.5, 0.9, 1])
    conversion = ToPixels(Colours(2, full, 2, 2), grey=True, deep=True)
    pixels = np.tile(np.rint(levels * 65535).astype(np.uint16).repeat(16)[:, None], (16, 1, 1))
    luma = np.frombuffer(bytes(make_frame(conversion, pixels, form).planes[0]), np.uint16)[8:80:16]
    wanted = levels * (2**bits - 1) if full else (16 + 219 * levels) * 2 ** (bits - 8)
    assert np.abs(luma - wanted).max() <= 1


def test_what_a_film_does_not_say_goes_by_its_size() -> None:
    """As players guess; and it is written down, since the result may be on the other side of what they go by."""
    form = VideoFormat("yuv420p")
    untold = (2, 0, 2, 2)
    small, pal, large = (read_colours(*size, form, untold) for size in ((640, 480), (720, 576), (1280, 720)))
    assert (small.matrix, small.primaries) == (6, 6) and not small.full and "BT.601" in small.guessed[0]
    assert (pal.matrix, pal.primaries) == (5, 5) and (large.matrix, large.primaries) == (1, 1)
    assert read_colours(640, 480, form, (0, 0, 0, 0)) == small == read_colours(640, 480, form, (3, 1, 3, 3))
    told = read_colours(640, 480, form, (1, 2, 1, 1))
    assert told == Colours(1, True, 1, 1) and not told.guessed
    assert read_colours(640, 480, VideoFormat("yuvj420p"), (1, 0, 1, 1)).full


@pytest.mark.parametrize("told", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "codec", "form", "limited"),
    [
        ("a.mkv", "ffv1", "gray", False),
        ("a.mkv", "ffv1", "gray10le", False),
        ("a.nut", "rawvideo", "gray", False),
        ("a.mov", "jpeg2000", "gray", False),
        ("a.y4m", "rawvideo", "gray", True),
        ("a.y4m", "wrapped_avframe", "gray", True),
    ],
)
def test_grey_that_does_not_say_its_range(
    name: str, codec: str, form: str, limited: bool, told: int, tmp_path: Path
) -> None:
    """FFmpeg takes it for the full range; some codecs have a rule.  Whichever is taken is told."""
    tags = Tags(2, told, 2, 2) if told else None
    write_film(tmp_path / name, codec=codec, form=form, frames=2, sound=None, tags=tags)
    film = Film.open(tmp_path / name, most_pixels=1 << 20)
    if told and film.tags[1]:  # a .nut and a .mov have no place for it
        assert film.colours.range == told and not film.colours.guessed
    else:
        assert film.colours.full != limited
        assert film.colours.guessed == (f"its grey is taken for that of the {'limited' if limited else 'full'} range",)


@pytest.mark.parametrize(
    ("tags", "words"),
    [((9, 1, 9, 16), "PQ"), ((9, 1, 9, 18), "HLG"), ((10, 1, 9, 14), "constant luminance"), ((14, 1, 9, 14), "ICtCp")],
)
def test_colours_that_networks_do_not_know(tags: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_colours(640, 480, VideoFormat("yuv420p10le"), tags)


@pytest.mark.parametrize("codec", ["ffv1", "libx264", "libx265", "mpeg4"])
def test_colours_stay_where_they_stand(tmp_path: Path, codec: str) -> None:
    """A film's coarse colours stand to the left of its pixels, in the middle, or above; a result's to the left.

    Red rises from left to right, so that a shift by half a pixel of the result, x2, would be one of a quarter level.
    """
    ramp = np.repeat(np.linspace(60, 180, 128)[None], 64, axis=0)
    pixels = np.stack([ramp, np.full_like(ramp, 100), np.full_like(ramp, 100)], axis=2).round().astype(np.uint8)
    conversion = ToPixels(Colours(6, False, 6, 6), grey=False, deep=False)
    with av.open(tmp_path / "film.mkv", "w") as container:
        stream = container.add_stream(codec, rate=25, options={"chroma_sample_location": SITE, "crf": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.qmax = 2
        container.mux([*stream.encode(make_frame(conversion, pixels, "yuv420p")), *stream.encode(None)])
    with av.open(tmp_path / "film.mkv") as source:
        read = conversion.read(next(source.decode(video=0)), VideoReformatter())
    assert abs((read[:, 8:-8, 0].astype(float) - ramp[:, 8:-8]).mean()) < 0.12
