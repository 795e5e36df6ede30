"""Encoders for a result: their quality, the pixels that they take, how they are set up."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.codec import find_best_pix_fmt_of_list
from av.container.output import OutputContainer
from av.error import FFmpegError
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from memsr_compiler.errors import InvalidInput
from memsr_compiler.video.colours import BT709, RGB, SITE, Colours
from memsr_compiler.video.film import Film

FASTEST = 500  # pictures a second that are noted in a part, at most: Matroska counts milliseconds
GOP = 250  # frames between two that stand for themselves, at most


@dataclass(frozen=True)
class Codec:
    """An encoder, and how its quality is told: the option's name, the least and the worst, and the default.

    options   besides;   ticks   into how many a second is cut at most, of which a frame takes some; None: any number
    """

    option: str = ""
    best: int = 0
    worst: int = 0
    quality: int = 0
    options: tuple[tuple[str, str], ...] = ()
    ticks: int | None = None


CODECS = {
    "libx264": Codec("crf", 0, 51, 17),
    "libx265": Codec("crf", 0, 51, 18, (("x265-params", "log-level=none"),)),
    "libsvtav1": Codec("crf", 1, 63, 20),
    "libvpx-vp9": Codec("crf", 0, 63, 18, (("b", "0"), ("row-mt", "1"))),
    "prores_ks": Codec(),
    "mpeg4": Codec("qscale", 1, 31, 2, ticks=65_535),
    "ffv1": Codec(options=(("level", "3"), ("slicecrc", "1"))),
}
DEFAULTS = {".webm": "libvpx-vp9"}


@dataclass(frozen=True)
class Encoding:
    """Everything that an encoder is told.

    form      of the pixels, "yuv420p";   quality   None for a codec without such a number
    """

    codec: str
    quality: int | None
    width: int
    height: int
    form: str
    colours: Colours
    rate: Fraction
    aspect: Fraction | None

    def describe(self) -> str:
        """All of it that makes a difference, as text."""
        colours = self.colours
        tags = (colours.matrix, colours.range, colours.primaries, colours.transfer)
        size = f"{self.width}x{self.height}"
        return f"{self.codec} {self.quality} {size} {self.form} {tags} {self.rate} {self.aspect}, PyAV {av.__version__}"

    def add_to(self, container: OutputContainer) -> VideoStream:
        """A new stream of a container, set up to encode.  The time base is a frame."""
        kind = CODECS[self.codec]
        if self.codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "0")  # it writes to standard error, past libavutil
        stream = container.add_stream(self.codec, rate=self.rate, options=dict(kind.options))
        assert isinstance(stream, VideoStream), "every codec here is one of pictures"
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.form
        context = stream.codec_context
        if kind.option:
            context.gop_size = GOP
        context.time_base = 1 / self.rate
        context.colorspace, context.color_range = self.colours.matrix, self.colours.range
        context.color_primaries, context.color_trc = self.colours.primaries, self.colours.transfer
        if self.aspect is not None:
            context.sample_aspect_ratio = self.aspect
        context.options = {**context.options, "chroma_sample_location": SITE}
        if kind.option == "crf":
            context.options = {**context.options, "crf": str(self.quality)}
        elif kind.option == "qscale":
            context.qscale = True
            context.global_quality = int(self.quality or 1) * 118  # FF_QP2LAMBDA
        if self.codec == "libsvtav1":
            with _as_urgent_as_before():
                context.open()  # threads that it starts later are as urgent as the one that they are started by
        return stream


@contextlib.contextmanager
def _as_urgent_as_before() -> Iterator[None]:
    """Take back real-time scheduling, which this thread, and others that were started meanwhile, are given.

    SVT-AV1 does so where root runs it: before anything else on the machine, with the highest priority that there is.
    """
    tasks = Path("/proc/self/task")
    if sys.platform != "linux" or not tasks.is_dir():
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    threads = set(os.listdir(tasks))
    yield
    if (os.sched_getscheduler(0), os.sched_getparam(0)) == (policy, parameters):
        return
    for thread in (0, *map(int, set(os.listdir(tasks)) - threads)):
        with contextlib.suppress(ProcessLookupError):  # it has ended by now
            os.sched_setscheduler(thread, policy, parameters)


def choose_encoding(film: Film, scale: int, suffix: str, codec: str | None, quality: int | None) -> Encoding:
    """The encoding of a result.  Raises InvalidInput for a codec or a quality that is none, or not to be had here."""
    name = codec or DEFAULTS.get(suffix, "libx264")
    if name not in CODECS:
        raise InvalidInput(f"--codec {name}: want one of {', '.join(CODECS)}")
    kind = CODECS[name]
    try:
        encoder = av.Codec(name, "w")
    except (FFmpegError, ValueError):
        raise InvalidInput(f"--codec {name}: this PyAV has no such encoder; take another codec") from None
    if quality is not None and not kind.option:
        raise InvalidInput(f"--quality {quality}: {name} has no such number; leave it out")
    if quality is not None and not kind.best <= quality <= kind.worst:
        raise InvalidInput(f"--quality {quality}: {name} takes {kind.best} (best) to {kind.worst}")
    width, height = film.width * scale, film.height * scale
    form = _choose_form(film, encoder.video_formats or [], width, height)
    colours = film.colours
    if film.form.is_rgb and not VideoFormat(form).is_rgb:
        colours = Colours(BT709, False, colours.primaries, colours.transfer)
    if not film.form.is_rgb and VideoFormat(form).is_rgb:
        colours = Colours(RGB, True, colours.primaries, colours.transfer)
    chosen = (kind.quality if quality is None else quality) if kind.option else None
    rate = min(film.rate, Fraction(FASTEST)).limit_denominator(1001 * 60)
    if kind.ticks is not None:  # the average of a variable rate may be any fraction
        rate = 1 / (1 / rate).limit_denominator(kind.ticks)
    return Encoding(name, chosen, width, height, form, colours, rate, film.aspect)


def _choose_form(film: Film, forms: list[VideoFormat], width: int, height: int) -> str:
    """The pixels that lose least of the film's: as many bits, as fine colours, finer ones where sides are odd."""
    mine = film.form.name.replace("yuvj", "yuv")
    fitting = [form.name for form in forms if _is_usual(form) and not _halves_odd_side(form, width, height)]
    if mine in fitting:
        return mine
    if film.form.has_palette:
        mine = "rgb24"
    best, _ = find_best_pix_fmt_of_list(fitting, mine)
    if best is None:
        raise InvalidInput(
            f"{film.path}: the codec takes no pictures of {width} x {height} pixels with sides that are odd; take "
            "--codec ffv1, or cut the film"
        )
    return best.name


def _is_usual(form: VideoFormat) -> bool:
    """Whether it is one of whole numbers, without alpha, each component on its own or RGB."""
    name = form.name
    if name.startswith(("yuvj", "nv", "p0", "p2", "pal", "mono", "ya")) or "f16" in name or "f32" in name:
        return False
    return not any(component.is_alpha for component in form.components)


def _halves_odd_side(form: VideoFormat, width: int, height: int) -> bool:
    """Whether its colours have half a pixel too many."""
    return bool((width % 2 and form.chroma_width(8) < 8) or (height % 2 and form.chroma_height(8) < 8))
