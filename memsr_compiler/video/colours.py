"""The colours of a film: what its numbers mean, and pixels of them for a network and back.

A film says by which matrix, in which range, with which primaries and transfer its Y, U and V are meant, or leaves it to
the player, which goes by the size: so a result four times as large would be shown in other colours.  What is guessed of
an original is therefore written down in its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput

Pixels = NDArray[Any]

UNSPECIFIED = 2  # of matrix, primaries and transfer
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
FLAGS = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
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


def read_colours(width: int, height: int, pixels: VideoFormat, tags: tuple[int, int, int, int]) -> Colours:
    """The colours of a film with these tags: matrix, range, primaries, transfer.

    Raises InvalidInput for those that networks for photographs, or libswscale, know nothing of.
    """
    matrix, numbers, primaries, transfer = tags
    if transfer in REFUSED:
        raise InvalidInput(
            f"its transfer is {REFUSED[transfer]}, and the networks know photographs in sRGB: convert it to SDR first, "
            "for example by FFmpeg's filter zscale with tonemap"
        )
    if pixels.is_rgb or pixels.has_palette:
        return Colours(RGB, True, primaries, transfer)
    full = numbers == FULL or pixels.name.startswith("yuvj")
    if len(pixels.components) == 1:  # grey, which no matrix is for
        return Colours(matrix, full, primaries, transfer)
    guessed = []
    if matrix in (UNSPECIFIED, RGB, 3):  # 0 is written for "unknown" too, and 3 is reserved
        large = width >= HD[0] or height > HD[1]
        matrix = BT709 if large else BT470BG if height == PAL else SMPTE170M
        guessed.append(f"by its size its matrix is taken for {'BT.709' if large else 'BT.601'}")
        if primaries in (UNSPECIFIED, 0, 3):
            primaries = matrix
    if matrix not in SWSCALE:
        raise InvalidInput(
            f"its colour matrix is {OTHER_MATRICES.get(matrix, f'number {matrix}')}, which is not read; convert it to "
            "BT.709 first"
        )
    return Colours(matrix, full, primaries, transfer, tuple(guessed))


@dataclass(frozen=True)
class ToPixels:
    """A conversion of a film's frames to pixels (H, W, 3), or (H, W, 1) of a grey film."""

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
        bits = frame.format.components[0].bits
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
        return self._stretch(pixels, bits)[..., None] if self.grey else pixels

    def write(self, pixels: Pixels, form: str, colours: Colours, converter: VideoReformatter) -> VideoFrame:
        """A frame of these pixels, in a form ("yuv420p") of these colours."""
        numbers = self._squeeze(pixels[..., 0], VideoFormat(form).components[0].bits) if self.grey else pixels
        frame = VideoFrame.from_ndarray(numbers, format=self.format)
        matrix = SWSCALE.get(colours.matrix)
        frame = converter.reformat(
            frame,
            format=form,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=FLAGS,
            src_color_range=FULL,
            dst_color_range=colours.range,
            threads=1,
        )
        frame.colorspace, frame.color_range = colours.matrix, colours.range
        frame.color_primaries, frame.color_trc = colours.primaries, colours.transfer
        return frame

    def _stretch(self, grey: Pixels, bits: int) -> Pixels:
        """Grey of limited range as grey of the full one: libswscale knows no range of grey."""
        if self.colours.full:
            return grey
        black, white = _limits(bits, np.iinfo(self.dtype).max)
        return _round((grey.astype(np.float32) - black) * (np.iinfo(self.dtype).max / (white - black)), self.dtype)

    def _squeeze(self, grey: Pixels, bits: int) -> Pixels:
        if self.colours.full:
            return grey
        black, white = _limits(bits, np.iinfo(self.dtype).max)
        return _round(grey.astype(np.float32) * ((white - black) / np.iinfo(self.dtype).max) + black, self.dtype)


def _limits(bits: int, peak: int) -> tuple[float, float]:
    """Black and white of the limited range, in numbers of so many bits that are spread over 0..peak."""
    one = peak * 2 ** (bits - 8) / (2**bits - 1)
    return 16 * one, 235 * one


def _round(values: Pixels, dtype: type[np.uint8] | type[np.uint16]) -> Pixels:
    rounded: Pixels = np.rint(np.clip(values, 0, np.iinfo(dtype).max)).astype(dtype)
    return rounded
