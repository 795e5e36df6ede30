"""memsrc upscale of a film: what is done, what is left out, how far it is."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from memsr_compiler.commands.interface.command import SomeNotDone
from memsr_compiler.commands.interface.options import ReadingOptions, UpscaleOptions
from memsr_compiler.commands.interface.output import Done, Talk
from memsr_compiler.commands.upscale import describe_network
from memsr_compiler.errors import InvalidInput, escape_controls
from memsr_compiler.locks import remove_leftovers
from memsr_compiler.quantities import say_count
from memsr_compiler.runtime.upscale_file import RowEngine
from memsr_compiler.video.codecs import choose_encoding
from memsr_compiler.video.film import Film
from memsr_compiler.video.frames import Frame, Scene
from memsr_compiler.video.names import WRITTEN
from memsr_compiler.video.parts import open_parts
from memsr_compiler.video.run import Outcome, Plan, enlarge_film, leave_room, make_plan

MOST_DIGITS = 9
IN_TURN = "frames are shown at the times of their packets, the earliest first; the film tells no others"
_CHECKING = "checking what is written: "


def run(options: UpscaleOptions, reading: ReadingOptions, engine: RowEngine, scale: int, talk: Talk) -> None:
    """Enlarge a film.  Raises SomeNotDone where it is damaged, and the result lacks something."""
    source, target = Path(options.source), options.target
    _check_target(source, target)
    scene = parse_scene(options.frames)
    film = Film.open(source, most_pixels=options.max_pixels)
    encoding = choose_encoding(film, scale, target.suffix.lower(), options.codec, options.quality)
    plan = make_plan(film, scene, scale, target, encoding)
    engine = leave_room(engine, plan)
    for words in (*film.left_out, *plan.copies.left_out):
        talk.warn(f"{source}: left out: {words}")
    remove_leftovers(target.parent)
    seconds = time.perf_counter()
    work = _describe_work(options, reading, engine, plan)
    with contextlib.ExitStack() as held:
        with talk.progress() as step:
            there = open_parts(target, work, begin_anew=options.overwrite, on_part=lambda part: step(_CHECKING + part))
            parts = held.enter_context(there)
        if os.path.lexists(target) and not options.overwrite and not parts.is_done(target):
            raise InvalidInput(f"{target}: is there already; choose another place, or give --overwrite")
        if parts.changed and not parts.is_done(target):
            talk.warn(f"{parts.changed}; made again, with what comes behind it")
        if parts.frames:
            talk.say(f"goes on      {_say_frames(parts.frames)} in {escape_controls(str(parts.folder))}")
        try:
            with talk.bar(plan.frames) as advance:
                on_frame = _report(plan, parts.frames, advance, time.monotonic)
                outcome = enlarge_film(plan, engine, parts, on_frame, lambda part: advance(0, _CHECKING + part))
        except BaseException:  # whatever it is, an interrupt too
            if parts.frames:
                talk.warn(
                    f"{_say_frames(parts.frames)} done, in {parts.folder}: players show these files, without sound; "
                    "the same command goes on with them"
                )
            raise
    _tell(options, plan, outcome, time.perf_counter() - seconds, talk)


def _say_frames(number: int) -> str:
    """Subject and verb: "1 frame is", "2 frames are"."""
    return f"{say_count(number, 'frame')} {'is' if number == 1 else 'are'}"


def parse_scene(text: str | None) -> Scene:
    """'100:250' as a scene; either may be left out.  Raises InvalidInput."""
    if text is None:
        return Scene()
    first, colon, stop = text.partition(":")
    if not colon or not all(part == "" or (part.isdecimal() and len(part) <= MOST_DIGITS) for part in (first, stop)):
        raise InvalidInput(f"--frames {text}: want A:B, from frame A up to, but without, frame B: 100:250, 100:, :250")
    scene = Scene(int(first or 0), int(stop) if stop else None)
    if scene.stop is not None and scene.stop <= scene.first:
        raise InvalidInput(f"--frames {text}: there is no frame in it")
    return scene


def _check_target(source: Path, target: Path) -> None:
    if target.suffix.lower() not in WRITTEN:
        raise InvalidInput(f"{target}: films of this kind are not written; end it in {', '.join(WRITTEN)}")
    if not target.parent.is_dir():
        raise InvalidInput(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise InvalidInput(f"{target}: is a folder; give the name of a file")
    if target.exists() and os.path.samefile(source, target):
        raise InvalidInput(f"{target}: is the film itself; write somewhere else")


def _describe_work(options: UpscaleOptions, reading: ReadingOptions, engine: RowEngine, plan: Plan) -> str:
    """All that parts depend on."""
    film = f"{plan.film.path.resolve()}, bytes, time and ends {plan.film.state}"
    network = describe_network(options, reading, engine)
    scene = f"{plan.scene.first}:{plan.scene.stop}"
    return f"{film}, frames {scene}, x{plan.scale}, {network}, {plan.encoding.describe()}"


def _report(plan: Plan, before: int, advance: Done, clock: Callable[[], float]) -> Callable[[Frame], None]:
    """Progress of frames, with the time left as the last ones took."""
    begun, done = clock(), 0
    if before:
        advance(before, "")

    def on_frame(frame: Frame) -> None:
        nonlocal done
        done += 1
        speed = done / max(clock() - begun, 1e-9)
        far = f"frame {before + done}" + (f" of {plan.frames}" if plan.frames else "")
        left = max(plan.frames - before - done, 0) / speed
        rest = f", {say_time(left)} left" if plan.frames else ""
        advance(1, f"{far}, {speed:.1f} a second{rest}")

    return on_frame


def say_time(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _tell(options: UpscaleOptions, plan: Plan, outcome: Outcome, seconds: float, talk: Talk) -> None:
    film, encoding = plan.film, plan.encoding
    told = (*film.left_out, *plan.copies.left_out)
    left_out = [*dict.fromkeys((*told, *outcome.left_out))]
    for words in left_out[len(told) :]:
        talk.warn(f"{film.path}: left out: {words}")
    talk.json(
        {
            "network": str(options.model),
            "scale": plan.scale,
            "seconds": seconds,
            "written": [{"film": str(film.path), "result": str(plan.target)}],
            "frames": outcome.frames,
            "done_before": outcome.before,
            "codec": encoding.codec,
            "quality": encoding.quality,
            "pixels": encoding.form,
            "guessed": [*film.colours.guessed, *([IN_TURN] if film.in_turn else [])],
            "left_out": left_out,
            "damage": outcome.damage,
        }
    )
    talk.say(f"network      {escape_controls(options.model.name)}")
    codec = encoding.codec if encoding.quality is None else f"{encoding.codec}, quality {encoding.quality}"
    size = f"{film.width}x{film.height} -> {encoding.width}x{encoding.height}"
    how = f"{size}; {say_count(outcome.frames, 'frame')}, {codec}, {encoding.form}"
    talk.say(f"written      {escape_controls(str(plan.target))}  ({how})")
    for words in film.colours.guessed:
        talk.say(f"colours      {words}, and written down")
    if film.in_turn:
        talk.say(f"times        {IN_TURN}")
    for words in outcome.damage:
        talk.say(f"damage       {escape_controls(words)}")
    if outcome.damage:
        raise SomeNotDone(f"{film.path}: {'; '.join(outcome.damage)}. The rest is in {plan.target}")
