"""Frames of films whose colours change on the way, as of two broadcasts one behind the other."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="films need the extra [video]")

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from helpers.films import RATE, Tags, draw, write_film

from memsr_compiler.video import frames
from memsr_compiler.video.colours import Colours, FrameMaker, Pixels, ToPixels
from memsr_compiler.video.film import Film
from memsr_compiler.video.frames import Notes, Scene, read_frames

FIRST = Tags(1, 1, 1, 1)  # BT.709, limited
EACH = 2  # frames


def write_stream(path: Path, tags: Tags, form: str, begin: int) -> bytes:
    """A stream of the same picture, in these colours."""
    colours = Colours(tags.matrix, tags.range == 2, tags.primaries, tags.transfer)
    pixels = draw(0, 48, 32)
    maker = FrameMaker(ToPixels(colours, grey=False, deep=False), 48, 32, form, colours)
    pictures = [maker.make(pixels) for _ in range(EACH)]
    options = {"crf": "1", "bf": "0"}
    times = range(begin, begin + EACH)
    write_film(path, frames=EACH, form=form, tags=tags, options=options, pictures=pictures, times=times, sound=None)
    return path.read_bytes()


def read(tmp_path: Path, tags: Tags, form: str) -> tuple[list[Pixels], Notes]:
    """The pictures of a film that goes on in other colours."""
    film, notes = tmp_path / "film.ts", Notes()
    one = write_stream(tmp_path / "one.ts", FIRST, "yuv420p", 0)
    film.write_bytes(one + write_stream(tmp_path / "other.ts", tags, form, EACH))
    opened = Film.open(film, most_pixels=10_000)
    return [frame.pixels for frame in read_frames(opened, Scene(), 0, notes)], notes


@pytest.mark.parametrize(
    ("tags", "form"),
    [
        pytest.param(Tags(1, 2, 1, 1), "yuv420p", id="range"),
        pytest.param(Tags(6, 1, 1, 6), "yuv420p", id="matrix"),
        pytest.param(FIRST, "yuv444p", id="form"),
        pytest.param(Tags(1, 2, 1, 1), "yuv444p10le", id="all"),
    ],
)
def test_each_frame_is_read_by_what_it_says(tags: Tags, form: str, tmp_path: Path) -> None:
    pictures, notes = read(tmp_path, tags, form)
    assert len(pictures) == 2 * EACH and not notes.damage and not notes.left_out
    off = [np.abs(picture.astype(float) - draw(0, 48, 32)).mean() for picture in pictures]
    assert max(off) < max(off[:EACH]) + 0.3, off


def test_other_primaries_are_told(tmp_path: Path) -> None:
    pictures, notes = read(tmp_path, Tags(6, 1, 6, 6), "yuv420p")
    assert len(pictures) == 2 * EACH and not notes.damage
    assert notes.left_out == {"that some frames have other primaries or another transfer than the first"}


def test_colours_on_the_way_that_networks_do_not_know_are_damage(tmp_path: Path) -> None:
    pictures, notes = read(tmp_path, Tags(9, 1, 9, 16), "yuv420p")
    assert len(pictures) == 2 * EACH and "PQ (HDR)" in notes.tell()[0] and notes.tell()[0].count("frame 2") == 1


@pytest.mark.parametrize(("first", "then"), [("yuv420p", "gray"), ("gray", "yuv420p")])
def test_grey_frames_among_others(first: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a film in colour they have three channels alike; colours among grey frames are left out."""
    film = Film.open(write_film(tmp_path / "film.mkv", codec="ffv1", form=first, frames=1), most_pixels=10_000)
    level = np.full((32, 48), 128, np.uint8)
    made = {"gray": VideoFrame.from_ndarray(level, "gray"), "yuv420p": VideoFrame(48, 32, "yuv420p")}
    notes = Notes()
    monkeypatch.setattr(frames, "_decode", lambda *_: ((made[form], None) for form in (first, then)))
    pictures = [frame.pixels for frame in read_frames(film, Scene(), 0, notes)]
    if first == "gray":
        assert [picture.shape for picture in pictures] == [(32, 48, 1)]
        assert notes.tell()[0].startswith("frames in colour, unlike the first, left out: frame 1")
    else:
        assert [picture.shape for picture in pictures] == [(32, 48, 3)] * 2 and not notes.damage
        assert (pictures[1] == pictures[1][0, 0, 0]).all() and abs(int(pictures[1][0, 0, 0]) - 128) <= 3


def store(film: Path, path: Path, *, in_turn: bool = False, damaged: int | None = None) -> Path:
    """The film again, with the order of storing as its times, as some writers of MP4 leave it, or a packet of zeros."""
    with av.open(film) as source, av.open(path, "w") as container:
        template = source.streams.video[0]
        stream = container.add_stream_from_template(template)
        for number, packet in enumerate(source.demux(template)):
            if packet.dts is None:  # the last one, without data
                continue
            kept = Packet(bytes(packet.size)) if number == damaged else packet
            time = round(number / RATE / template.time_base)
            kept.pts, kept.dts = (time, time) if in_turn else (packet.pts, packet.dts)
            kept.time_base, kept.duration, kept.stream = template.time_base, packet.duration, stream
            container.mux(kept)
    return path


@pytest.mark.parametrize("kind", ["avi, H.264", "avi, MPEG-4", "mp4"])
@pytest.mark.parametrize("first", [0, 5])
def test_frames_without_times_of_their_own(kind: str, first: int, tmp_path: Path) -> None:
    """Stored in another order than shown, where only the order of storing is told: in AVI, and by some of MP4."""
    suffix, codec = ("mp4", "libx264") if kind == "mp4" else ("avi", "mpeg4" if "4," not in kind else "libx264")
    options = {"bf": "3", "b_strategy": "0", "b-adapt": "0", "crf": "1"}
    film = write_film(tmp_path / f"film.{suffix}", frames=20, codec=codec, sound=None, options=options)
    if kind == "mp4":
        film = store(film, tmp_path / "turned.mp4", in_turn=True)
    opened, notes = Film.open(film, most_pixels=10_000), Notes()
    read = list(read_frames(opened, Scene(first, 17), 0, notes))
    assert not notes.damage and [frame.number for frame in read] == list(range(first, 17))
    assert {b.time - a.time for a, b in pairwise(read)} == {opened.step}
    off = [np.abs(frame.pixels.astype(float) - draw(frame.number, 48, 32)).mean() for frame in read]
    assert max(off) < 12, off


def test_a_damaged_packet_of_such_a_film(tmp_path: Path) -> None:
    """The others keep their times."""
    film = write_film(tmp_path / "film.avi", frames=20, sound=None, options={"bf": "3", "b-adapt": "0"})
    times = []
    for path in (film, store(film, tmp_path / "damaged.avi", damaged=15)):
        notes = Notes()
        times.append([frame.time for frame in read_frames(Film.open(path, most_pixels=10_000), Scene(), 0, notes)])
    whole, rest = times
    assert any("cannot be decoded" in words for words in notes.tell())
    assert len(whole) == 20 and len(rest) == 19 and rest[:12] == whole[:12] and rest[-3:] == whole[-3:]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
@pytest.mark.parametrize(("first", "stop"), [(0, 1), (0, 11), (2, 7), (5, 9), (3, 12), (3, 20)])
def test_the_last_frame_of_a_scene_is_as_long_as_it_is_shown(name: str, first: int, stop: int, tmp_path: Path) -> None:
    """At a variable rate the film's frames are of all lengths, and the sound of the scene ends with the last."""
    times = list(accumulate([20, 100, 33, 40, 250] * 3, initial=0))[:12]
    film = write_film(tmp_path / name, times=times, time_base=Fraction(1, 1000), options={"bf": "2"}, sound=None)
    opened, notes = Film.open(film, most_pixels=10_000), Notes()
    read = list(read_frames(opened, Scene(first, stop), 0, notes))
    begin = opened.seconds(next(read_frames(opened, Scene(), 0, Notes())).time)
    assert [round(1000 * (opened.seconds(frame.time) - begin)) for frame in read] == times[first:stop]
    assert not notes.damage
    if stop < len(times):
        end = opened.seconds(read[-1].time + read[-1].length) - begin
        assert round(1000 * end) == times[stop]


@pytest.mark.parametrize("kind", ["a packet of zeros", "cut off"])
def test_damage_behind_a_scene_is_none_of_it(kind: str, tmp_path: Path) -> None:
    """The frame behind it, by which the last one's length is known, may be damaged or missing."""
    if kind == "cut off":
        film = write_film(tmp_path / "film.avi", frames=20, codec="ffv1", sound=None)
        film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    else:
        source = write_film(tmp_path / "film.avi", frames=20, codec="mpeg4", sound=None, options={"bf": "0"})
        film = store(source, tmp_path / "damaged.avi", damaged=8)
    notes, opened = Notes(), Film.open(film, most_pixels=10_000)
    whole = list(read_frames(opened, Scene(), 0, notes))
    good = len(whole) - 1 if kind == "cut off" else 8  # the last one is cut off itself
    assert notes.damage and good > 1
    for stop in (good - 1, good):
        notes = Notes()
        read = list(read_frames(opened, Scene(0, stop), 0, notes))
        assert len(read) == stop and not notes.damage, notes.tell()
