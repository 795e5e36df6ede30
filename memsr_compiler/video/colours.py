"""The colours of a film: what its numbers mean, and pixels of them for a network and back.

A film says by which matrix, in which range, with which primaries and transfer its Y, U and V are meant, or leaves it to
the player, which goes by the size: so a result four times as large would be shown in other colours.  What is guessed of
an original is therefore written down in its result.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput

Pixels = NDArray[Any]
Tags: TypeAlias = "tuple[int, int, int, int]"  # matrix, range, primaries, transfer: H.273's numbers, libavutil's range

UNSPECIFIED, RESERVED = 2, (0, 3)  # of matrix, primaries and transfer; some write 0 where they do not know
UNSAID = (UNSPECIFIED, *RESERVED)
RGB, BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 0, 1, 4, 5, 6, 7, 9  # matrices, by ITU-T H.273
LIMITED, FULL = 1, 2  # ranges, as libavutil numbers them
SWSCALE = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020: 9}  # what libswscale calls these matrices
OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 of constant luminance", 11: "SMPTE 2085", 14: "ICtCp"}
REFUSED = {  # transfer characteristics of which networks for photographs know nothing
    8: "linear light",
    9: "logarithmic",
    10: "logarithmic",
    16: "PQ (HDR)",
    17: "SMPTE ST 428",
    18: "HLG (HDR)",
}
SITE = "left"  # where colours that are coarser than the pixels stand in a result, as libavcodec calls it
SAME_CURVES = (1, 6, 14, 15)  # transfers of one formula, by their numbers
FLAGS = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
SHORT = 256 / 257
"""White in 16 bits where libswscale converts between RGB and Y, U, V: 255 of 255 levels, of 256 numbers each."""
HD = (1280, 576)  # a film wider or higher than this is BT.709 where it does not say
PAL = 576  # lines of it, where it does not say either


@dataclass(frozen=True)
class Colours:
    """The meaning of a film's numbers: H.273's numbers for matrix, primaries and transfer, libavutil's for the range.

    guessed   what the film does not say, in words
    """

    matrix: int
    full: bool
    primaries: int
    transfer: int
    guessed: tuple[str, ...] = ()

    @property
    def range(self) -> int:
        return FULL if self.full else LIMITED

    def looks_like(self, other: Colours) -> bool:
        """Whether RGB of the one is RGB of the other, as far as both say."""
        curves = {1 if number in SAME_CURVES else number for number in (self.transfer, other.transfer)}
        return all(len(said - {UNSPECIFIED}) <= 1 for said in (curves, {self.primaries, other.primaries}))


def read_tags(frame: VideoFrame) -> Tags:
    """Tags of a frame, those that it does not have being unspecified."""
    return frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc


def is_grey(form: VideoFormat) -> bool:
    return len(form.components) == 1 and not form.has_palette and not form.is_rgb


def read_colours(width: int, height: int, pixels: VideoFormat, tags: Tags, *, limited: bool = True) -> Colours:
    """The colours of a film with these tags.

    limited  whether grey that does not say its range is limited, as its codec has it; else it is full, as FFmpeg has it

    Raises InvalidInput for those that networks for photographs, or libswscale, know nothing of.
    """
    matrix, numbers, *others = tags
    primaries, transfer = (UNSPECIFIED if number in RESERVED else number for number in others)
    if transfer in REFUSED:
        raise InvalidInput(
            f"its transfer is {REFUSED[transfer]}, and the networks know photographs in sRGB: convert it to SDR first, "
            "for example by FFmpeg's filter zscale with tonemap"
        )
    if pixels.is_rgb or pixels.has_palette:
        return Colours(RGB, True, primaries, transfer)
    full = numbers == FULL or pixels.name.startswith("yuvj")
    if len(pixels.components) == 1:  # grey, which no matrix is for
        if numbers in (LIMITED, FULL):
            return Colours(matrix, full, primaries, transfer)
        words = f"its grey is taken for that of the {'limited' if limited else 'full'} range"
        return Colours(matrix, not limited, primaries, transfer, (words,))
    guessed = []
    if matrix in UNSAID:  # RGB, which is 0, is not: it has been told by its pixels
        large = width >= HD[0] or height > HD[1]
        matrix = BT709 if large else BT470BG if height == PAL else SMPTE170M
        guessed.append(f"by its size its matrix is taken for {'BT.709' if large else 'BT.601'}")
        if primaries == UNSPECIFIED:
            primaries = matrix
    if matrix not in SWSCALE:
        raise InvalidInput(
            f"its colour matrix is {OTHER_MATRICES.get(matrix, f'number {matrix}')}, which is not read; convert it to "
            "BT.709 first"
        )
    return Colours(matrix, full, primaries, transfer, tuple(guessed))


@dataclass(frozen=True)
class ToPixels:
    """A conversion of a film's frames to pixels (H, W, 3), or (H, W, 1) of a grey film.

    deep   whether they have 16 bits each
    """

    colours: Colours
    grey: bool
    deep: bool

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint16 if self.deep else np.uint8

    @property
    def format(self) -> str:
        """The pixels, as libavutil calls them."""
        return {(False, False): "rgb24", (False, True): "rgb48le", (True, False): "gray", (True, True): "gray16le"}[
            self.grey, self.deep
        ]

    def read(self, frame: VideoFrame, converter: VideoReformatter) -> Pixels:
        """Pixels of a frame, of the whole range of their dtype."""
        form = frame.format
        matrix = SWSCALE.get(self.colours.matrix)
        pixels: Pixels = converter.reformat(
            frame,
            format=self.format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=FLAGS,
            src_color_range=self.colours.range,
            dst_color_range=FULL,
            threads=1,
        ).to_ndarray()
        if self.grey:
            return self._stretch(pixels, form.components[0].bits)[..., None]
        return _scale(pixels, self._find_gain(form)) if self.deep else pixels

    def _find_gain(self, form: VideoFormat) -> float:
        """The factor that white in 16 bits lacks, as libswscale makes it of such a frame."""
        if form.is_rgb or form.has_palette:
            return 1.0
        bits, peak = form.components[0].bits, int(np.iinfo(np.uint16).max)
        return peak / (peak >> 16 - bits << 16 - bits) if self.colours.full else 1 / SHORT

    def _stretch(self, grey: Pixels, bits: int) -> Pixels:
        """Grey of limited range as grey of the full one: libswscale knows no range of grey."""
        if self.colours.full:
            return grey
        black, white = _find_limits(bits, np.iinfo(self.dtype).max)
        return _round((grey.astype(np.float32) - black) * (np.iinfo(self.dtype).max / (white - black)), self.dtype)


class FrameMaker:
    """Frames of pixels, in a form ("yuv420p") of these colours."""

    def __init__(self, to_pixels: ToPixels, width: int, height: int, form: str, colours: Colours) -> None:
        self._to_pixels, self._form, self._colours = to_pixels, form, colours
        self._converter = VideoReformatter()
        self._frame = _make_sited_frame(width, height, to_pixels.format)

    def make(self, pixels: Pixels) -> VideoFrame:
        """Make a frame of (H, W, C), of the whole range of their dtype."""
        numbers = _scale(self._squeeze(pixels[..., 0]) if self._to_pixels.grey else pixels, self._find_gain())
        plane = self._frame.planes[0]
        rows = np.zeros((plane.height, plane.line_size // numbers.itemsize), numbers.dtype)
        rows[:, : numbers[0].size] = numbers.reshape(plane.height, -1)
        plane.update(rows.tobytes())
        matrix = SWSCALE.get(self._colours.matrix, self._of_grey())
        frame = self._converter.reformat(
            self._frame,
            format=self._form,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=FLAGS,
            src_color_range=FULL,
            dst_color_range=self._colours.range,
            threads=1,
        )
        if frame is self._frame:  # it has that form; the encoder keeps what it is given
            frame = VideoFrame.from_ndarray(numbers, format=self._form)
        frame.colorspace, frame.color_range = self._colours.matrix, self._colours.range
        frame.color_primaries, frame.color_trc = self._colours.primaries, self._colours.transfer
        frame.pict_type = PictureType.NONE  # a decoded frame stands for itself; an encoder is to choose
        return frame

    def _of_grey(self) -> int | None:
        """Any matrix makes the same Y of grey, and none another one in 16 bits."""
        return SWSCALE[BT709] if self._to_pixels.grey else None

    def _find_gain(self) -> float:
        """The factor of the pixels of which libswscale makes the right Y, U, V."""
        form = VideoFormat(self._form)
        return SHORT if self._to_pixels.deep and len(form.components) > 1 and not form.is_rgb else 1.0

    def _squeeze(self, grey: Pixels) -> Pixels:
        """Grey of the full range as grey of the limited one, unless libswscale makes Y of it, whose range it knows."""
        form = VideoFormat(self._form)
        if self._colours.full or len(form.components) > 1:
            return grey
        peak = np.iinfo(grey.dtype).max
        black, white = _find_limits(form.components[0].bits, peak)
        return _round(grey.astype(np.float32) * ((white - black) / peak) + black, self._to_pixels.dtype)


def _make_sited_frame(width: int, height: int, form: str) -> VideoFrame:
    """A frame whose colours, once they are coarser than its pixels, stand where most films have them: to the left.

    Of a frame that is new libswscale puts them in the middle, and there is no other way to tell it than a frame that
    was decoded, and says so.
    """
    file = io.BytesIO()
    frame = VideoFrame(16, 16, "yuv420p")
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25, options={"chroma_sample_location": SITE})
        assert isinstance(stream, VideoStream), "ffv1 is a codec of pictures"
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        container.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file) as container:
        decoded = next(container.decode(video=0))
    return VideoReformatter().reformat(decoded, width=width, height=height, format=form, threads=1)


def _find_limits(bits: int, peak: int) -> tuple[float, float]:
    """Black and white of the limited range, in numbers of so many bits that are spread over 0..peak."""
    one = peak * 2 ** (bits - 8) / (2**bits - 1)
    return 16 * one, 235 * one


def _scale(pixels: Pixels, gain: float) -> Pixels:
    """Pixels in 16 bits times a number."""
    scaled: Pixels = pixels if gain == 1 else _scaled_numbers(gain)[pixels]
    return scaled


@lru_cache(4)
def _scaled_numbers(gain: float) -> Pixels:
    return _round(np.arange(1 << 16) * gain, np.uint16)


def _round(values: Pixels, dtype: type[np.uint8] | type[np.uint16]) -> Pixels:
    rounded: Pixels = np.rint(np.clip(values, 0, np.iinfo(dtype).max)).astype(dtype)
    return rounded
