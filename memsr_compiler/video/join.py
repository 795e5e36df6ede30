"""The result: pictures from the parts, all other streams from the original, packet by packet; nothing is encoded."""

from __future__ import annotations

import heapq
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import explain_unwritten, sync_folder
from memsr_compiler.locks import temporary_file
from memsr_compiler.video.film import Film, is_cover, name_stream, open_container
from memsr_compiler.video.frames import Notes
from memsr_compiler.video.names import WRITTEN
from memsr_compiler.video.parts import Part, explain_ffmpeg, raise_changed

COPIED = ("audio", "subtitle")  # streams without which a result would not be the film
NOT_COPIED = "packets of sound or subtitles that are damaged or out of order, left out"
TIMECODE = "timecode"
COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
OF_THE_FILE = ("encoder", "major_brand", "minor_version", "compatible_brands")  # metadata that are not of the film
Packets: TypeAlias = "Iterator[tuple[Fraction, Packet[Any]]]"


@dataclass(frozen=True)
class Copies:
    """Which streams of the original a result gets as they are, by index, and words on those that it does not."""

    streams: tuple[int, ...]
    left_out: tuple[str, ...]


def choose_copies(film: Film, target: Path, sample: bytes, *, whole: bool) -> Copies:
    """Try what the result's container can hold: its header is written, with the pictures alone and with each stream.

    sample   a part, with a frame or more;   whole   whether it is no scene

    Raises InvalidInput where it cannot hold the pictures, or sound or subtitles.
    """
    kind = WRITTEN[target.suffix.lower()]
    kept: list[int] = []
    left_out, refused = [], []
    with open_container(film.path) as source, av.open(io.BytesIO(sample)) as part:
        pictures = part.streams.video[0]
        reason = _try(kind, film, source, pictures, [])
        if reason:
            codec = pictures.codec_context.codec.canonical_name
            raise InvalidInput(
                f"{target}: such a file cannot hold pictures of {codec} ({reason}); choose another --codec or a name "
                "that ends in .mkv"
            )
        for stream in source.streams:
            if stream.index == film.stream or _is_written_anew(stream, source):
                continue
            reason = _try(kind, film, source, pictures, [stream.index])
            if not reason:
                kept.append(stream.index)
            elif stream.type in COPIED:
                refused.append(name_stream(stream))
            else:
                left_out.append(name_stream(stream))
        if refused:
            way = "a name that ends in .mkv" if kind != "matroska" else "another container for the original first"
            raise InvalidInput(
                f"{target}: such a file cannot hold {', '.join(refused)} of {film.path} as they are; choose {way}"
            )
        reason = _try(kind, film, source, pictures, kept)
        if reason:
            raise InvalidInput(f"{target}: such a file cannot hold all streams of {film.path} together ({reason})")
        words = [f"{name}, which {target.suffix} cannot hold" for name in left_out]
        if not whole and any(TIMECODE in held.metadata for held in (source, *source.streams)):
            words.append("its timecode, which is of the first frame")
    return Copies(tuple(kept), tuple(words))


def join(
    film: Film,
    folder: Path,
    parts: Sequence[Part],
    copies: Copies,
    target: Path,
    scene: tuple[int, int] | None,
    notes: Notes,
    on_whole: Callable[[Path], None],
) -> None:
    """Write the result, whole or not at all.

    scene      the times of its first frame and of the end of its last, where it is not the whole film; begins at 0 then
    notes      hear of packets of the original that cannot be copied
    on_whole   hears where the file is before it takes its name
    """
    with temporary_file(target.parent) as (staged, file):
        try:
            with (
                open_container(film.path) as source,
                av.open(file, "w", format=WRITTEN[target.suffix.lower()]) as result,
            ):
                with open_container(folder / parts[0].name) as first:
                    part = first.streams.video[0]
                    pictures, copied = _lay_out(film, source, result, part, copies.streams, scene)
                others = _keep_order(_read_source(source, copied, film, scene), notes)
                ways = (_read_parts(film, folder, parts, pictures, scene), others)
                for _, packet in heapq.merge(*ways, key=lambda pair: pair[0]):
                    _write(result, packet, packet.stream is not pictures, notes)
        except FFmpegError as error:
            raise explain_ffmpeg(target, error) from error
        except OSError as error:
            raise explain_unwritten(target, error) from error
        file.flush()
        os.fsync(file.fileno())
        on_whole(staged)
        os.replace(staged, target)
    sync_folder(target.parent)  # the parts go next, and a power cut must not bring the old name back without them


def choose_decode_times(times: Sequence[int], order: Sequence[int], step: int) -> list[int]:
    """When each packet has to be decoded: rising, and never after it is shown.

    times   when the frames are shown, rising;   order   which of them each packet holds;   step   before the first
    """
    late = max((place - number for place, number in enumerate(order)), default=0)
    before = [times[0] - step * (late - i) for i in range(late)]
    return [*before, *times][: len(order)]


def _lay_out(
    film: Film,
    source: InputContainer,
    result: OutputContainer,
    part: VideoStream,
    streams: Sequence[int],
    scene: tuple[int, int] | None,
) -> tuple[VideoStream, dict[int, Stream]]:
    """The streams of a result: of the pictures, which are encoded as in a part, and the copies by their index."""
    original = source.streams[film.stream]
    pictures = result.add_stream_from_template(part, opaque=True)
    pictures.time_base = film.time_base
    pictures.disposition = original.disposition
    gone = () if scene is None else (TIMECODE,)  # of the film's first frame
    kept = {k: v for k, v in original.metadata.items() if not _is_of_encoding(k) and k not in gone}
    pictures.metadata.update(kept)
    pictures.set_display_matrix(_enlarge_matrix(film, part))
    made = {i: _copy_stream(film, result, source.streams[i]) for i in streams}
    result.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in (*OF_THE_FILE, *gone)})
    _copy_chapters(source, result, film, scene)
    return pictures, {i: stream for i, stream in made.items() if stream is not None}


def _enlarge_matrix(film: Film, part: VideoStream) -> tuple[int, ...] | None:
    """The film's matrix for its larger pictures: how far they are moved, its 7th and 8th number, counts pixels."""
    if film.matrix is None:
        return None
    scale = part.width // film.width
    return tuple(number * scale if place in (6, 7) else number for place, number in enumerate(film.matrix))


def _is_of_encoding(key: str) -> bool:
    """Whether metadata are about how a stream is encoded, and no longer true."""
    return key.lower().startswith(("encoder", "duration", "number_of_", "bps", "_statistics", "vendor_id"))


def _copy_stream(film: Film, result: OutputContainer, original: Stream) -> Stream | None:
    """A stream for packets of the original; None for what is in the header and has none.

    Raises FFmpegError or ValueError where the container has no place for it.
    """
    if original.type == "attachment":
        result.add_stream_from_template(original)
        return None
    if is_cover(original) and result.format.name == "matroska":
        name, kind = COVERS.get(original.codec_context.codec.canonical_name, ("", ""))
        if not name:
            raise ValueError("a cover of this kind")
        result.add_attachment(name, kind, _read_cover(film.path, original.index))
        return None
    stream = result.add_stream_from_template(original, opaque=True)
    stream.metadata.update(original.metadata)
    stream.disposition = original.disposition
    return stream


def _read_cover(path: Path, index: int) -> bytes:
    with open_container(path) as source:
        return next((bytes(packet) for packet in source.demux(source.streams[index]) if packet.size), b"")


def _is_written_anew(stream: Stream, source: InputContainer) -> bool:
    """Whether it is a copy of the chapters or of the timecode, which muxers make themselves."""
    if stream.type != "data":
        return False
    return (stream.name == "bin_data" and bool(source.chapters())) or TIMECODE in stream.metadata


def _copy_chapters(source: InputContainer, result: OutputContainer, film: Film, scene: tuple[int, int] | None) -> None:
    chapters = source.chapters()
    if scene is not None:
        begin, end = (Fraction(time) * film.time_base for time in scene)
        kept = []
        for chapter in chapters:
            base = chapter["time_base"] or Fraction(1)
            if chapter["start"] * base < end and chapter["end"] * base > begin:
                shift = round(begin / base)
                stop = min(chapter["end"], round(end / base)) - shift
                kept.append({**chapter, "start": max(chapter["start"] - shift, 0), "end": stop})
        chapters = kept  # type: ignore[assignment]
    if chapters:
        result.set_chapters(chapters)


def _read_parts(
    film: Film, folder: Path, parts: Sequence[Part], stream: VideoStream, scene: tuple[int, int] | None
) -> Packets:
    """The packets of all parts, with the times of the original."""
    times = [time - (scene[0] if scene else 0) for part in parts for time in part.times]
    lengths = [length for part in parts for length in part.lengths]
    starts = [sum(len(part.times) for part in parts[:i]) for i in range(len(parts))]
    order = [start + number for part, start in zip(parts, starts, strict=True) for number in part.order]
    decoded = iter(choose_decode_times(times, order, film.step))
    numbers = iter(order)
    for part in parts:
        for packet in _read_part(folder / part.name, len(part.order)):
            number = next(numbers)
            packet.stream = stream
            packet.time_base = film.time_base
            packet.pts, packet.dts = times[number], next(decoded)
            last = number + 1 == len(times)
            packet.duration = lengths[number] if last else times[number + 1] - times[number]
            yield packet.dts * film.time_base, packet


def _read_part(path: Path, count: int) -> Iterator[Packet[VideoStream]]:
    """The packets of a part.  Raises ExportError where there are not `count`."""
    read = 0
    with open_container(path) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size == 0:
                continue
            read += 1
            if read > count:
                break
            yield packet
    if read != count:
        raise_changed(path, f"has {'more' if read > count else 'fewer'} than the {count} pictures that were written")


def _read_source(
    source: InputContainer, copied: dict[int, Stream], film: Film, scene: tuple[int, int] | None
) -> Packets:
    """The packets of the streams that are copied; of a scene those that begin in it."""
    if not copied:
        return
    begin, end = (Fraction(time) * film.time_base for time in scene) if scene else (None, None)
    latest = Fraction(0)
    packets = source.demux([source.streams[i] for i in copied])
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:  # told when the pictures were read
            return
        if packet is None:
            return
        if packet.size == 0:
            continue
        cover = is_cover(source.streams[packet.stream.index])
        if cover:
            packet.pts = packet.dts = 0
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            continue
        if begin is not None and end is not None and not cover:
            shown = (packet.pts if packet.pts is not None else time) * packet.time_base
            if not begin <= shown < end:
                continue
            shift = round(begin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            time -= shift
        latest = max(latest, time * packet.time_base)  # heapq.merge wants what rises
        packet.stream = copied[packet.stream.index]
        yield latest, packet


def _keep_order(packets: Packets, notes: Notes) -> Packets:
    """The packets of copied streams, without those that come after one that is later: no container takes them."""
    latest: dict[int, int] = {}
    for at, packet in packets:
        index = packet.stream.index
        if packet.dts is not None:
            if packet.dts < latest.get(index, packet.dts):
                notes.add(NOT_COPIED, _say_place(packet))
                continue
            latest[index] = packet.dts
        yield at, packet


def _write(result: OutputContainer, packet: Packet[Any], is_copy: bool, notes: Notes) -> None:
    """Write a packet; one of the original that is damaged is noted."""
    place = _say_place(packet)
    try:
        result.mux_one(packet)
    except (InvalidDataError, ArgumentError):
        if not is_copy:
            raise
        notes.add(NOT_COPIED, place)


def _say_place(packet: Packet[Any]) -> str:
    time = packet.pts if packet.pts is not None else packet.dts or 0
    return f"{packet.stream.type} at {float(time * packet.time_base):.2f} s"


def _try(kind: str, film: Film, source: InputContainer, part: VideoStream, streams: Sequence[int]) -> str:
    """Why a container cannot hold the pictures and these streams; "" where it can."""
    try:
        with av.open(io.BytesIO(), "w", format=kind) as result:
            _lay_out(film, source, result, part, streams, None)
            result.start_encoding()
    except (FFmpegError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""
