"""A film made larger: frames are decoded ahead of the network, and encoded behind it, in parts that are joined."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from memsr_compiler.beside import ReadAhead, WriteBehind
from memsr_compiler.errors import InvalidInput
from memsr_compiler.runtime.upscale_file import Pixels, RowEngine, enlarge_pixels
from memsr_compiler.video.codecs import Encoding
from memsr_compiler.video.colours import FrameMaker
from memsr_compiler.video.film import Film, identify
from memsr_compiler.video.frames import Frame, Notes, Scene, read_frames
from memsr_compiler.video.join import Copies, choose_copies, join
from memsr_compiler.video.parts import OnPart, Parts, PartWriter, remove_parts

AHEAD = 2  # frames that wait for the network, and results that wait for the encoder, at most
IN_HANDS = 2  # frames besides: one that is put into a queue, one that has been taken out of it
PART = 240  # frames of a part


@dataclass(frozen=True)
class Plan:
    """Everything about a result that was decided before the work."""

    film: Film
    scene: Scene
    scale: int
    target: Path
    encoding: Encoding
    copies: Copies

    @property
    def frames(self) -> int:
        """Frames of the scene, as far as the film says; 0: nobody knows."""
        last = (
            self.film.frames if self.scene.stop is None else min(self.scene.stop, self.film.frames or self.scene.stop)
        )
        return max(last - self.scene.first, 0)

    @property
    def result_bytes(self) -> int:
        image = self.film.to_pixels
        return self.encoding.width * self.encoding.height * (1 if image.grey else 3) * np.dtype(image.dtype).itemsize


@dataclass(frozen=True)
class Outcome:
    """Account of a film that is done.

    frames    of the result;   before   of these were there when the run began
    damage    what is wrong with the film, in words;   left_out   what its frames carry besides, in words
    """

    frames: int
    before: int
    damage: list[str]
    left_out: list[str]


def make_plan(film: Film, scene: Scene, scale: int, target: Path, encoding: Encoding) -> Plan:
    """Decide what is copied.  Raises InvalidInput where encoder or container cannot do it."""
    copies = choose_copies(film, target, _encode_sample(film, encoding), whole=scene == Scene())
    return Plan(film, scene, scale, target, encoding, copies)


def leave_room(engine: RowEngine, plan: Plan) -> RowEngine:
    """The engine, in the memory that frames which wait leave.  Raises InvalidInput where that is too little."""
    each = plan.result_bytes // plan.scale**2 + plan.result_bytes
    held = (AHEAD + IN_HANDS) * each
    try:
        return engine.leave(held)
    except InvalidInput as error:
        raise InvalidInput(
            f"{plan.film.path}: {AHEAD + IN_HANDS} frames and as many results, which wait for network and encoder, "
            f"take {error}; allow more"
        ) from None


def enlarge_film(
    plan: Plan, engine: RowEngine, parts: Parts, on_frame: Callable[[Frame], None], on_part: OnPart
) -> Outcome:
    """Make all parts that are missing, join them, and remove them.

    on_frame   hears of each frame that is done;   on_part   of each part that is looked at once more

    What interrupts it leaves the parts, the last one as long as it has become.  Raises InvalidInput where there is no
    frame, ExportError where something cannot be written.
    """
    if parts.is_done(plan.target) and parts.finished is not None:
        outcome = Outcome(**parts.finished["words"])
        remove_parts(parts)
        return replace(outcome, before=outcome.frames)
    before, notes = parts.frames, Notes()
    frames = read_frames(plan.film, plan.scene, before, notes)
    with _Encoder(plan, parts).running() as encode, ReadAhead(frames, AHEAD) as ahead:
        for frame in ahead:
            result = np.empty((plan.encoding.height, plan.encoding.width, frame.pixels.shape[2]), frame.pixels.dtype)
            enlarge_pixels(engine, frame.pixels, plan.scale, result)
            encode.put((replace(frame, pixels=np.empty(0)), result))
            on_frame(frame)
    if not parts.frames:
        raise InvalidInput(f"{plan.film.path}: there are no frames {_say(plan.scene)}")
    _require_unchanged(plan.film)
    parts.require_unchanged(on_part)

    def announce(staged: Path) -> None:
        parts.announce(staged, vars(_sum_up(parts, before, notes)))

    join(plan.film, parts.folder, parts.all, plan.copies, plan.target, _find_times(plan, parts), notes, announce)
    outcome = _sum_up(parts, before, notes)
    remove_parts(parts)
    return outcome


def _require_unchanged(film: Film) -> None:
    try:
        same = identify(film.path) == film.state
    except OSError:
        same = False
    if not same:
        raise InvalidInput(f"{film.path}: has changed since it was looked at, or is gone; run the command again")


def _sum_up(parts: Parts, before: int, notes: Notes) -> Outcome:
    return Outcome(parts.frames, before, notes.tell(), sorted(notes.left_out))


class _Encoder:
    """Results on their way into parts."""

    def __init__(self, plan: Plan, parts: Parts) -> None:
        self._plan, self._parts = plan, parts
        self._writer: PartWriter | None = None
        encoding = plan.encoding
        self._maker = FrameMaker(plan.film.to_pixels, encoding.width, encoding.height, encoding.form, encoding.colours)

    @contextmanager
    def running(self) -> Iterator[WriteBehind[tuple[Frame, Pixels]]]:
        """Encode in a thread of its own; at the end, or an interrupt, the part that is begun is completed.

        Where something fails it is let go.
        """
        try:
            with WriteBehind(self._encode, AHEAD) as behind:
                yield behind
        except Exception:
            self._abandon()
            raise
        finally:
            self._complete()

    def _encode(self, item: tuple[Frame, Pixels]) -> None:
        frame, result = item
        plan = self._plan
        if self._writer is None:
            self._writer = PartWriter(self._parts.folder, len(self._parts.all), plan.encoding)
        self._writer.add(self._maker.make(result), frame.time, frame.length)
        if len(self._writer) >= PART:
            self._complete()

    def _complete(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._parts.add(writer.close())

    def _abandon(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abandon()


def _find_times(plan: Plan, parts: Parts) -> tuple[int, int] | None:
    if plan.scene == Scene():
        return None
    last = parts.all[-1]
    return parts.all[0].times[0], last.times[-1] + last.lengths[-1]


def _say(scene: Scene) -> str:
    return "that can be decoded" if scene == Scene() else f"from {scene.first} to {scene.stop or 'the end'}"


def _encode_sample(film: Film, encoding: Encoding) -> bytes:
    """A part of one frame, of one colour.  Raises InvalidInput where the encoder does not take such frames."""
    file = io.BytesIO()
    frame = VideoFrame(encoding.width, encoding.height, encoding.form)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.pts, frame.time_base = 0, 1 / encoding.rate
    try:
        with av.open(file, "w", format="matroska") as container:
            stream = encoding.add_to(container)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise InvalidInput(
            f"{film.path}: {encoding.codec} takes no pictures of {encoding.width} x {encoding.height} pixels "
            f"{encoding.form} ({error.strerror or error}); take another --codec"
        ) from None
    return file.getvalue()
