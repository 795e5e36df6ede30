"""Small films, made by PyAV: pictures that move, a sound, subtitles, whatever a test wants to be odd about them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from memsr_compiler.images.files import sample_photographs

Pixels = NDArray[Any]
SUBTITLES = "1\n00:00:00,100 --> 00:00:00,300\nhello\n\n2\n00:00:00,400 --> 00:00:00,600\nworld\n\n"
RATE = 25


@dataclass(frozen=True)
class Tags:
    """Matrix, range, primaries, transfer."""

    matrix: int
    range: int
    primaries: int
    transfer: int


def draw(number: int, width: int, height: int) -> Pixels:
    """A picture of a photograph over which the camera moves."""
    top, left = (3 * number) % 100, (5 * number) % 100
    return np.array(_photograph()[top : top + height, left : left + width])


@functools.cache
def _photograph() -> Pixels:
    return sample_photographs()[0]  # which decodes all of them


def write_film(
    path: Path,
    *,
    frames: int = 12,
    width: int = 48,
    height: int = 32,
    codec: str = "libx264",
    form: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    sound: str | None = "aac",
    tags: Tags | None = None,
    rotation: int | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    pictures: Sequence[VideoFrame] | None = None,
) -> Path:
    """Write a film; its sound lasts as long as its pictures would at 25 a second."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, form
        stream.codec_context.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if tags is not None:
            context = stream.codec_context
            context.colorspace, context.color_range = tags.matrix, tags.range
            context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if rotation is not None:
            stream.set_display_rotation(rotation)
        voice = container.add_stream(sound, rate=8000, layout="mono") if sound else None
        for i in range(frames):
            drawn = VideoFrame.from_ndarray(draw(i, width, height), format="rgb24").reformat(format=form)
            frame = drawn if pictures is None else pictures[i]
            frame.pts, frame.time_base = (i if times is None else times[i]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            container.mux(voice.encode(_hum(8000 * frames // RATE)))
            container.mux(voice.encode(None))
    return path


def add_subtitles(film: Path, path: Path) -> Path:
    """Write the film with subtitles, an attachment, chapters and a title, as Matroska."""
    words = path.with_suffix(".srt")
    words.write_text(SUBTITLES)
    with av.open(path, "w", format="matroska") as container, av.open(film) as source, av.open(words) as text:
        streams = {s.index: container.add_stream_from_template(s, opaque=True) for s in source.streams}
        subtitles = container.add_stream_from_template(text.streams.subtitles[0])
        subtitles.metadata["language"] = "eng"
        container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
        container.metadata["title"] = "A film"
        base = Fraction(1, 1000)
        container.set_chapters(
            [
                {"id": 1, "start": 0, "end": 200, "time_base": base, "metadata": {"title": "one"}},
                {"id": 2, "start": 200, "end": 480, "time_base": base, "metadata": {"title": "two"}},
            ]
        )
        for packet in text.demux():
            if packet.size:
                packet.stream = subtitles
                container.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return path


def read_pictures(path: Path, form: str | None = None) -> list[Pixels]:
    """All pictures of a film, in the form that they have, or in another."""
    with av.open(path) as container:
        return [frame.to_ndarray(format=form) if form else frame.to_ndarray() for frame in container.decode(video=0)]


def read_times(path: Path) -> list[Fraction]:
    """When its pictures are shown, in seconds from the first."""
    with av.open(path) as container:
        times = [Fraction(frame.pts or 0) * (frame.time_base or 1) for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def read_packets(path: Path, kind: str) -> list[list[tuple[float, bytes]]]:
    """Of each stream of a kind the packets: seconds and content."""
    with av.open(path) as container:
        held: dict[int, list[tuple[float, bytes]]] = {s.index: [] for s in container.streams if s.type == kind}
        for packet in container.demux():
            if packet.size and packet.stream.index in held:
                held[packet.stream.index].append((float((packet.pts or 0) * packet.time_base), bytes(packet)))
    return list(held.values())


def colour_patches(form: str, values: Sequence[tuple[int, int, int]], side: int = 16) -> VideoFrame:
    """A frame of squares, one beside the other, each of one Y, U and V of 8 bits, or of what `form` has."""
    frame = VideoFrame(side * len(values), side, form)
    deep = frame.format.components[0].bits > 8
    for plane, channel in zip(frame.planes, itertools.count()):
        row = np.repeat([value[channel] for value in values], plane.width // len(values))
        row = row.astype(np.uint16 if deep else np.uint8)
        padded = np.zeros((plane.height, plane.line_size // row.itemsize), row.dtype)
        padded[:, : plane.width] = row
        plane.update(padded.tobytes())
    return frame


def _hum(samples: int) -> AudioFrame:
    waves = (8000 * np.sin(np.arange(samples) * 0.3)).astype(np.int16)[None]
    frame = AudioFrame.from_ndarray(waves, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
    return frame
