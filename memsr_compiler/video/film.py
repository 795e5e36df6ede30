"""A film's file, looked at: what is in it, and what speaks against enlarging it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import cast

import av
from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet, PktSideDataT
from av.sidedata.sidedata import SideData, Type
from av.stream import Disposition, Stream
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from memsr_compiler.errors import InvalidInput, first_line
from memsr_compiler.files import require_file
from memsr_compiler.video.colours import Colours, Tags, ToPixels, is_grey, read_colours, read_tags
from memsr_compiler.video.crop import name_crop

KINDS = (  # of containers, as libavformat calls them: no playlists, which name other files, and no pictures
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,nut,yuv4mpegpipe"
)
LOST = {  # side data of frames that a result lacks, and that a person would miss
    Type.A53_CC: "closed captions within the pictures",
    Type.STEREO3D: "that it is for two eyes",
    Type.SPHERICAL: "that it is a view all around",
    Type.AFD: "the active format",
    Type.S12M_TIMECODE: "timecodes within the pictures",
    Type.ICC_PROFILE: "its ICC profile",
    Type.DOVI_METADATA: "Dolby Vision",
    Type.DYNAMIC_HDR_PLUS: "HDR10+",
    Type.MASTERING_DISPLAY_METADATA: "how bright the display was that it was made on",
    Type.CONTENT_LIGHT_LEVEL: "how bright its pictures are at most",
    Type.FILM_GRAIN_PARAMS: "film grain that is told apart from the pictures",
}
LIMITED_UNTOLD = ("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "yuv4mpegpipe")
"""Codecs and containers by whose rules numbers are of the limited range where they do not say, grey ones too."""
PROGRESSIVE = (0, 1)  # field orders: unknown, and none
USUAL_RATE = Fraction(25)
BESIDE: PktSideDataT = "matroska_block_additional"  # its kind, in 8 bytes, comes first
ALPHA = (1).to_bytes(8, "big")
TRANSPARENT = "has transparency, which is not enlarged; put it on a background first"


@dataclass(frozen=True)
class Film:
    """A film's file, and of the stream of pictures that is enlarged what a result needs.

    state       what `identify` tells of the file;   stream   its index
    form        the pixels, as libavutil calls them;   to_pixels   how they become a network's
    tags        those that the first frame has itself
    time_base   seconds of a timestamp's unit;   rate   pictures a second, on average
    frames      that it says it has, or that follow from its length; 0: nobody knows
    in_turn     frames are shown at the times of the packets, the earliest first: those of their own do not rise
    aspect      of a pixel, width / height; None: not said
    matrix      nine numbers by which a player turns the pictures; None: as they are
    left_out    what a result will lack, in words
    """

    path: Path
    state: tuple[int, int, str]
    stream: int
    width: int
    height: int
    form: VideoFormat
    to_pixels: ToPixels
    tags: Tags
    time_base: Fraction
    rate: Fraction
    frames: int
    in_turn: bool
    aspect: Fraction | None
    matrix: tuple[int, ...] | None
    left_out: tuple[str, ...]

    @property
    def colours(self) -> Colours:
        return self.to_pixels.colours

    @property
    def step(self) -> int:
        """The usual time between two frames, in units of the time base."""
        return max(round(1 / self.rate / self.time_base), 1)

    def seconds(self, time: int) -> float:
        return float(time * self.time_base)

    @staticmethod
    def open(path: Path, *, most_pixels: int) -> Film:
        """Look at a film, and decode a frame.  Raises InvalidInput for what cannot be enlarged, and says why."""
        with open_container(path) as container:
            state = identify(path)
            stream = choose_stream(path, container)
            try:
                return _look_at(path, state, container, stream, most_pixels)
            except InvalidInput as error:
                raise InvalidInput(f"{path}: {error}") from None
            except FFmpegError as error:
                raise InvalidInput(f"{path}: cannot be decoded ({error.strerror or error})") from None


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A film's file, opened.  Raises InvalidInput where it is none."""
    require_file(path)
    options = {"format_whitelist": KINDS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", "r", container_options=options, metadata_errors="replace")
    except FileNotFoundError:
        raise InvalidInput(f"{path}: there is no such file") from None
    except PermissionError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InvalidInput(f"{path}: no film that is read here, or one that is damaged or cut off ({reason})") from None
    with container:
        yield container


def choose_stream(path: Path, container: InputContainer) -> VideoStream:
    """The stream of pictures that players show: no cover.  Raises InvalidInput where there is none."""
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    best = container.streams.best("video")
    for stream in streams:
        if best is None or stream.index == best.index:
            return stream
    if streams:
        return streams[0]
    kinds = ", ".join(sorted({"a cover" if is_cover(s) else s.type for s in container.streams})) or "nothing"
    raise InvalidInput(f"{path}: has no stream of pictures, only {kinds}")


def identify(path: Path) -> tuple[int, int, str]:
    """Size and time of a film, and the SHA-256 of its first and last MiB: another of that size and time has another.

    The system's own time does not do, which a hard link or other rights change.  Raises OSError where it is gone.
    """
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_END))
        file.seek(max(status.st_size - _END, 0))
        digest.update(file.read(_END))
    return status.st_size, status.st_mtime_ns, digest.hexdigest()


_END = 2**20


def read_state(path: Path) -> tuple[int, int, int]:
    """Size and times of a file, which differ once it has been changed, or another has its name.

    The second time is the system's own: a copy is given the first one, and a new name leaves it.  Raises OSError where
    the file is gone.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_cover(stream: Stream) -> bool:
    """Whether it is a single picture that players show beside the sound."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def name_stream(stream: Stream) -> str:
    """Words on a stream: 'stream 2 (subtitle, subrip, eng)'."""
    context = getattr(stream, "codec_context", None)
    codec = context.codec.canonical_name if context is not None else getattr(stream, "name", "")
    language = stream.metadata.get("language", "")
    return f"stream {stream.index} ({', '.join(filter(None, (stream.type, codec, language)))})"


def _look_at(
    path: Path, state: tuple[int, int, str], container: InputContainer, stream: VideoStream, most_pixels: int
) -> Film:
    context = stream.codec_context
    if getattr(stream, "codec_context", None) is None:
        raise InvalidInput("nothing here knows how its pictures are decoded; convert it first")
    if context.width * context.height > most_pixels:
        raise InvalidInput(
            f"has pictures of {context.width} x {context.height} pixels, more than {most_pixels:,}; allow them with "
            "--max-pixels if you trust it"
        )
    first = _first_frames(container, stream)
    frame = first[0]
    form = frame.format
    if any(component.is_alpha for component in form.components):
        raise InvalidInput(TRANSPARENT)
    if form.is_bit_stream or form.name.startswith("bayer"):
        raise InvalidInput(f"its pixels are {form.name}, which is not read; convert it first")
    if frame.interlaced_frame or context.field_order not in PROGRESSIVE:
        raise InvalidInput(
            "is interlaced: two moments in one picture, which a network takes for one; deinterlace it first, for "
            "example by FFmpeg's filter bwdif"
        )
    said = read_tags(frame)
    tags = (
        _first_said(2, context.colorspace, said[0]),
        _first_said(0, context.color_range, said[1]),
        _first_said(2, context.color_primaries, said[2]),
        _first_said(2, context.color_trc, said[3]),
    )
    limited = context.codec.canonical_name in LIMITED_UNTOLD or container.format.name in LIMITED_UNTOLD
    colours = read_colours(frame.width, frame.height, form, tags, limited=limited)
    deep = not form.has_palette and form.components[0].bits > 8
    rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
    time_base = stream.time_base or 1 / rate
    crop = name_crop(stream)
    return Film(
        path,
        state,
        stream.index,
        frame.width,
        frame.height,
        form,
        ToPixels(colours, is_grey(form), deep),
        said,
        Fraction(time_base),
        Fraction(rate),
        stream.frames or _count_by_length(container, stream, rate),
        _need_turns(first),
        stream.sample_aspect_ratio or None,
        _display_matrix(frame),
        (*sorted(name_side_data(frame)), *([f"its crop ({crop}), so that players will show all"] if crop else [])),
    )


def _has_alpha_beside(packet: Packet[VideoStream]) -> bool:
    """Whether alpha is beside the pictures, as in WebM, where their decoder knows nothing of it.

    What the file says does not tell: browsers say so of everything that they record.
    """
    return packet.has_sidedata(BESIDE) and bytes(packet.get_sidedata(BESIDE))[:8] == ALPHA


def _first_frames(container: InputContainer, stream: VideoStream) -> list[VideoFrame]:
    """The first frame, and where frames are stored in another order than shown, those that tell whether times are."""
    most = _LOOKED_AT if stream.codec_context.has_b_frames else 1
    found: list[VideoFrame] = []
    packets = container.demux(stream)
    while len(found) < most:
        try:
            packet = next(packets, None)
        except FFmpegError:
            if found:
                break
            raise
        if packet is None:
            break
        if _has_alpha_beside(packet):
            raise InvalidInput(TRANSPARENT)
        try:
            found += stream.decode(packet)
        except FFmpegError:  # the next ones may be whole: it is told when the film is read
            continue
    if not found:
        raise InvalidInput("has no picture that can be decoded; it is empty, damaged or cut off")
    return found


_LOOKED_AT = 24


def _need_turns(frames: list[VideoFrame]) -> bool:
    """Whether the frames' own times are none.

    AVI has no times at all, and some writers of MP4 give the order of storing for that of showing.  Frames come from
    their decoder as they are shown, but with the times of packets that are stored in another order.
    """
    times = [frame.pts for frame in frames if frame.pts is not None]
    return any(later <= earlier for earlier, later in pairwise(times))


def _first_said(unspecified: int, *values: int) -> int:
    return next((value for value in values if value != unspecified), unspecified)


def _count_by_length(container: InputContainer, stream: VideoStream, rate: Fraction) -> int:
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * rate)
    return round(container.duration * rate / av.time_base) if container.duration else 0


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    for held in list_side_data(frame):
        if held.type == Type.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(held))
    return None


def name_side_data(frame: VideoFrame) -> set[str]:
    """Words on what a frame carries that its result will lack."""
    return {LOST[held.type] for held in list_side_data(frame) if held.type in LOST}


def list_side_data(frame: VideoFrame) -> list[SideData]:
    return list(cast("Iterable[SideData]", frame.side_data))  # which is no mapping, whatever its annotations say
