"""Frames of a film, one after the other, with their times; what is wrong with it is noted and does not stop it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import av
import numpy as np
from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from memsr_compiler.errors import InvalidInput
from memsr_compiler.video.colours import UNSAID, Pixels, ToPixels, is_grey, read_colours, read_tags
from memsr_compiler.video.film import Film, name_side_data, open_container

SHORT = 0.25  # seconds that a film, besides its last two frames, may end before it says so: containers round


@dataclass(frozen=True)
class Frame:
    """A picture of a film.

    number   from 0, in the order in which they are shown
    time     of its beginning;  length   until the next one, as far as the film says: both in units of the time base
    """

    number: int
    time: int
    length: int
    pixels: Pixels


@dataclass
class Notes:
    """Notes of a reader on what a person has to know.

    damage     parts of the film that a result lacks, or in which it is wrong: words, and where that began
    left_out   what frames carry besides that a result lacks
    """

    damage: dict[str, list[str]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)

    def add(self, what: str, where: str) -> None:
        self.damage.setdefault(what, []).append(where)

    def tell(self) -> list[str]:
        """Words on the damage, a line for each kind."""
        return [f"{what}: {_count(places)}" for what, places in self.damage.items()]


@dataclass(frozen=True)
class Scene:
    """The frames from number `first` up to, but without, number `stop`; None: the end."""

    first: int = 0
    stop: int | None = None

    def holds(self, number: int) -> bool:
        return self.first <= number and (self.stop is None or number < self.stop)


def read_frames(film: Film, scene: Scene, skip: int, notes: Notes) -> Iterator[Frame]:
    """The frames of a scene, without the first `skip`, which have been done.

    All are decoded, from the beginning: so their numbers and the damage are the same whenever it is stopped.  Frames of
    another size, or in colour among grey ones, cannot be in one stream with the others, and are left out.
    """
    converter = VideoReformatter()
    given = 0
    timed = _time(film, scene, _decode(film, scene, notes), notes)
    for number, (frame, time, length) in enumerate(_until(scene.stop, timed)):
        if not scene.holds(number):
            continue
        where = f"frame {number} at {film.seconds(time):.2f} s"
        if (frame.width, frame.height) != (film.width, film.height):
            notes.add(f"frames of {frame.width}x{frame.height}, not {film.width}x{film.height}, left out", where)
            continue
        if film.to_pixels.grey and not is_grey(frame.format):
            notes.add("frames in colour, unlike the first, left out", where)
            continue
        to_pixels = _choose_conversion(film, frame, where, notes)
        if frame.is_corrupt:
            notes.add("damaged frames, of which the decoder has made up a part", where)
        if frame.interlaced_frame:
            notes.add("interlaced frames, enlarged as if they were not", where)
        notes.left_out |= name_side_data(frame)
        given += 1
        if given > skip:
            pixels = to_pixels.read(frame, converter)
            if to_pixels.grey and not film.to_pixels.grey:
                pixels = np.repeat(pixels, 3, axis=2)
            yield Frame(number, time, length, pixels)


def _choose_conversion(film: Film, frame: VideoFrame, where: str, notes: Notes) -> ToPixels:
    """The way to read a frame: by what it says where that is not what the first one said, whose colours the result has.

    What it does not say is as for the film.
    """
    tags, first = read_tags(frame), film.colours
    if tags == film.tags and frame.format.name == film.form.name:
        return film.to_pixels
    matrix, numbers, *others = tags
    usual = (first.primaries, first.transfer)
    primaries, transfer = (mine if number in UNSAID else number for number, mine in zip(others, usual, strict=True))
    said = (first.matrix if matrix in UNSAID else matrix, numbers or first.range, primaries, transfer)
    try:
        colours = read_colours(frame.width, frame.height, frame.format, said)
    except InvalidInput as error:
        notes.add(f"frames in other colours than the first, read as if in its ({error})", where)
        return film.to_pixels
    if not first.looks_like(colours):
        notes.left_out.add("that some frames have other primaries or another transfer than the first")
    return replace(film.to_pixels, colours=colours, grey=is_grey(frame.format))


def _decode(film: Film, scene: Scene, notes: Notes) -> Iterator[tuple[VideoFrame, int | None]]:
    """Frames as they are shown, each with its time, where there is one: of a scene, the one behind it too."""
    with open_container(film.path) as container:
        stream = container.streams[film.stream]
        assert isinstance(stream, VideoStream), "the stream of pictures is where it was"
        number, end, latest = 0, 0.0, 0.0
        waiting: list[int] = []  # times of packets whose turn has not come

        def told() -> Notes:
            return _notes_on(number, scene, notes)

        for packet in _demux(container, told):
            latest = max(latest, _find_end(packet))
            if packet.stream.index != film.stream:
                continue
            stored = _find_time(packet)
            if film.in_turn and stored is not None:
                heapq.heappush(waiting, stored)
            try:
                frames = stream.decode(packet)
            except FFmpegError as error:
                if stored in waiting:
                    waiting.remove(stored)
                    heapq.heapify(waiting)
                place = f"{float(packet.pts * packet.time_base):.2f} s" if packet.pts is not None else "the end"
                told().add(f"packets that cannot be decoded ({error.strerror or error}), left out", place)
                continue
            for frame in frames:
                time = heapq.heappop(waiting) if waiting else _find_time(frame)
                if time is not None:  # the last one may be shown for long
                    end = max(end, film.seconds(time + (frame.duration or film.step)))
                yield frame, time
                number += 1
                if scene.stop is not None and number > scene.stop:
                    return
        _look_for_the_end(container, stream, end, latest, SHORT + film.seconds(film.step), told())


def _notes_on(number: int, scene: Scene, notes: Notes) -> Notes:
    """Where to note what there is at the frame of that number: behind the scene nobody has to know of it."""
    return notes if scene.stop is None or number < scene.stop else Notes()


def _demux(container: InputContainer, told: Callable[[], Notes]) -> Iterator[Packet[Stream]]:
    """The packets of all streams, with those without data that make decoders give what they hold back."""
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            told().add(f"the file cannot be read further ({error.strerror or error})", "there it ends")
            yield from (_make_flush(stream) for stream in container.streams.video)
            return
        if packet is None:
            return
        yield packet


def _make_flush(stream: VideoStream) -> Packet[Stream]:
    packet: Packet[Stream] = Packet()
    packet.stream = stream
    return packet


def _look_for_the_end(
    container: InputContainer, stream: VideoStream, end: float, latest: float, tolerance: float, notes: Notes
) -> None:
    """Note where a film ends before it should, as one that was cut off does.

    end, latest   seconds, where the last frame and the last packet of all streams end
    """
    begun = float((stream.start_time or 0) * (stream.time_base or 0))
    said = begun + float((stream.duration or 0) * (stream.time_base or 0))
    if end < said - tolerance:
        notes.add("pictures end before the film says", f"{end:.2f} s, not {said:.2f} s")
    elif container.duration:
        said = (container.duration + max(container.start_time or 0, 0)) / av.time_base
        if latest < said - tolerance:
            notes.add("the file ends before it says", f"{latest:.2f} s, not {said:.2f} s")


def _find_time(item: Packet[Stream] | VideoFrame) -> int | None:
    return item.pts if item.pts is not None else item.dts


def _find_end(packet: Packet[Stream]) -> float:
    time = _find_time(packet)
    return float((time + (packet.duration or 0)) * packet.time_base) if time is not None else 0.0


def _until(stop: int | None, timed: Iterator[tuple[VideoFrame, int, int]]) -> Iterator[tuple[VideoFrame, int, int]]:
    """Frames up to, but without, number `stop`, of which the last is as long as that one lets it be.

    What a frame says of its own length is no more than usual at a variable rate.
    """
    held: tuple[VideoFrame, int, int] | None = None
    for number, (frame, time, length) in enumerate(timed):
        if number == stop and held is not None:
            yield *held[:2], time - held[1]
            return
        held = (frame, time, length) if number + 1 == stop else None
        if held is None:
            yield frame, time, length
    if held is not None:
        yield held


def _time(
    film: Film, scene: Scene, frames: Iterator[tuple[VideoFrame, int | None]], notes: Notes
) -> Iterator[tuple[VideoFrame, int, int]]:
    """Frames with time and length: times that rise, made up where there are none."""
    before: int | None = None
    for number, (frame, time) in enumerate(frames):
        if time is None:
            time = 0 if before is None else before + film.step
        if before is not None and time <= before:
            words = "frames with times that do not rise, shown as soon as can be"
            _notes_on(number, scene, notes).add(words, f"frame {number}")
            time = before + 1
        before = time
        yield frame, time, frame.duration or film.step


def _count(places: list[str]) -> str:
    if len(places) == 1:
        return places[0]
    return f"{len(places)}, the first: {places[0]}, the last: {places[-1]}"
