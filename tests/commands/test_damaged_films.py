"""Films that are damaged, odd on the way, interrupted or killed: named, and nothing is lost that was done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import Run, must_refuse

pytest.importorskip("av", reason="films need the extra [video]")
pytest.importorskip("pyvips", reason="runs are prepared with the extra [cpu]")

import av
from helpers.films import read_packets, read_pictures, read_times, write_film

from memsr_compiler.commands import upscale_film
from memsr_compiler.runtime.upscale_file import enlarge_pixels
from memsr_compiler.video import run as video_run
from memsr_compiler.video.film import identify
from memsr_compiler.video.parts import JOURNAL, Parts, remove_parts


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_run, "PART", 5)


def remux(film: Path, path: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """A film's packets in a new file: of each what change(number, content) makes of it."""
    with av.open(path, "w") as container, av.open(film) as source:
        streams = {s.index: container.add_stream_from_template(s, opaque=True) for s in source.streams}
        number = 0
        for packet in source.demux():
            if not packet.size:
                continue
            content = bytes(packet)
            if packet.stream.type == "video":
                content = change(number, content)
                number += 1
            copy = av.Packet(content)
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = streams[packet.stream.index]
            container.mux(copy)
    return path


# -- damage


def test_a_film_that_was_cut_off(run: Run, model: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", frames=30)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 6 // 10])
    status, out, err = run("upscale", film, tmp_path / "out.mkv", "--model", model, "--json")
    told = json.loads(out)
    assert status == 3 and len(told["damage"]) == 1 and "ends before it says" in told["damage"][0]
    assert "the file ends before it says" in err and "The rest is in" in err
    assert 0 < len(read_pictures(tmp_path / "out.mkv")) == told["frames"] < 30


def test_an_mp4_with_its_head_in_front_that_was_cut_off(run: Run, model: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with (
        av.open(film, "w", options={"movflags": "faststart"}) as container,
        av.open(write_film(tmp_path / "plain.mp4", frames=30, sound=None)) as source,
    ):
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 8 // 10])
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 3 and "pictures end before the film says" in err
    assert 0 < len(read_pictures(tmp_path / "out.mp4")) < 30


def test_a_last_picture_that_is_shown_for_long_is_no_damage(run: Run, model: Path, tmp_path: Path) -> None:
    """As the last slide of a talk, or of what a screen showed when nothing moved any more."""
    plain, film = write_film(tmp_path / "plain.mp4", options={"bf": "0"}, sound=None), tmp_path / "film.mp4"
    with av.open(film, "w") as container, av.open(plain) as source:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        *packets, last = (packet for packet in source.demux() if packet.size)
        last.duration = 75 * (last.duration or 0)
        for packet in (*packets, last):
            packet.stream = stream
            container.mux(packet)
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 0 and err == "", err
    with av.open(film) as source, av.open(tmp_path / "out.mp4") as result:
        assert source.duration == result.duration == (11 + 75) * 40_000


def test_packets_that_cannot_be_decoded(run: Run, model: Path, tmp_path: Path) -> None:
    """What stands in them is no picture: ffv1's checksums tell, and each picture stands for itself."""
    plain = write_film(tmp_path / "plain.mkv", codec="ffv1", form="yuv420p", options={"g": "1", "slicecrc": "1"})
    film = remux(plain, tmp_path / "film.mkv", lambda i, content: bytes(10) if i in (3, 4, 8) else content)
    whole = run("upscale", plain, tmp_path / "whole.mkv", "--model", model, "--codec", "ffv1")
    assert whole[0] == 0, whole
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model, "--codec", "ffv1")
    assert status == 3 and "packets that cannot be decoded" in err and "3, the first: 0.12 s, the last: 0.32 s" in err
    expected, pictures = (read_pictures(tmp_path / name) for name in ("whole.mkv", "out.mkv"))
    del expected[8], expected[4], expected[3]
    assert len(pictures) == 9 and all(np.array_equal(a, b) for a, b in zip(expected, pictures, strict=True))
    assert [round(float(at) * 25) for at in read_times(tmp_path / "out.mkv")] == [0, 1, 2, 5, 6, 7, 9, 10, 11]
    assert read_packets(film, "audio") == read_packets(tmp_path / "out.mkv", "audio")


def test_pictures_that_the_decoder_mended(run: Run, model: Path, tmp_path: Path) -> None:
    plain = write_film(tmp_path / "plain.mkv", codec="mpeg4", width=128, height=96)

    def spoil(number: int, content: bytes) -> bytes:
        middle = len(content) // 2
        return content[:middle] + bytes(byte ^ 0x5A for byte in content[middle:]) if number in (4, 5) else content

    film = remux(plain, tmp_path / "film.mkv", spoil)
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 3 and "damaged frames, of which the decoder has made up a part: 2, the first: frame 4" in err
    assert len(read_pictures(tmp_path / "out.mkv")) == 12


def test_sound_that_is_out_of_order(run: Run, model: Path, tmp_path: Path) -> None:
    """Containers refuse it, which would be when all pictures are done.  An .flv that comes twice."""
    film = write_film(tmp_path / "film.flv", frames=20)
    content = film.read_bytes()
    film.write_bytes(content + content[13:])  # behind head and length
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 3 and "packets of sound or subtitles that are damaged or out of order, left out" in err, err
    assert read_packets(tmp_path / "out.mkv", "audio")[0]


def test_a_size_that_changes_on_the_way(run: Run, model: Path, tmp_path: Path) -> None:
    one = write_film(tmp_path / "one.ts", sound=None, frames=8)
    other = write_film(tmp_path / "other.ts", sound=None, frames=6, width=64, height=48)
    film = tmp_path / "film.ts"
    film.write_bytes(one.read_bytes() + other.read_bytes())
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 3 and "frames of 64x48, not 48x32, left out: 6, the first: frame 8" in err
    assert [picture.shape for picture in read_pictures(tmp_path / "out.mkv", "rgb24")] == [(64, 96, 3)] * 8


def test_frames_that_are_interlaced_on_the_way(run: Run, model: Path, tmp_path: Path) -> None:
    """Half a film is better than none, and a person is told."""
    one = write_film(tmp_path / "one.ts", sound=None, frames=8)
    lines = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    other = write_film(tmp_path / "other.ts", sound=None, times=range(8, 14), frames=6, options=lines)
    film = tmp_path / "film.ts"
    film.write_bytes(one.read_bytes() + other.read_bytes())
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 3 and "interlaced frames, enlarged as if they were not: 6, the first: frame 8" in err
    assert len(read_pictures(tmp_path / "out.mkv")) == 14


def test_times_that_do_not_rise(run: Run, model: Path, tmp_path: Path) -> None:
    """Two films, one behind the other, each from zero."""
    one = write_film(tmp_path / "one.ts", sound=None, frames=8)
    film = tmp_path / "film.ts"
    film.write_bytes(one.read_bytes() * 2)
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 3 and "frames with times that do not rise" in err
    assert len(read_pictures(tmp_path / "out.mkv")) == 16


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_film_that_changes_meanwhile(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    film = write_film(tmp_path / "film.mp4", frames=8)

    def enlarge(*arguments: Any) -> None:
        if film.exists() and change == "gone":
            film.unlink()
        elif film.exists():
            film.touch()
        enlarge_pixels(*arguments)

    monkeypatch.setattr(video_run, "enlarge_pixels", enlarge)
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 2 and "has changed since it was looked at, or is gone" in err
    assert not (tmp_path / "out.mp4").exists()


def test_the_result_has_its_name_for_good_before_the_parts_go(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave neither."""
    film, target = write_film(tmp_path / "film.mp4", frames=2), tmp_path / "out.mp4"
    told: list[str] = []
    fsync = os.fsync

    def note_sync(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), os.stat(tmp_path)) and target.exists():
            told.append("named for good")
        fsync(handle)

    def note_removal(parts: Parts) -> None:
        told.append("parts go")
        remove_parts(parts)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(video_run, "remove_parts", note_removal)
    assert run("upscale", film, target, "--model", model)[0] == 0
    assert told == ["named for good", "parts go"]


# -- interrupted


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """interrupting(n): the n-th frame that is done is followed by Ctrl-C; None: none is."""
    original = upscale_film._report

    def after(number: int | None) -> None:
        def report(*arguments: Any) -> Any:
            on_frame, count = original(*arguments), 0

            def interrupt(frame: Any) -> None:
                nonlocal count
                on_frame(frame)
                count += 1
                if count == number:
                    raise KeyboardInterrupt

            return interrupt

        monkeypatch.setattr(upscale_film, "_report", report)

    return after


def test_what_is_interrupted_goes_on(run: Run, model: Path, tmp_path: Path, interrupting: Any) -> None:
    film = write_film(tmp_path / "film.mkv", codec="ffv1", form="bgr0", frames=23)
    command = ("upscale", film, tmp_path / "out.mkv", "--model", model, "--codec", "ffv1")
    assert run(*command)[0] == 0
    os.replace(tmp_path / "out.mkv", tmp_path / "undisturbed.mkv")
    done = 0
    for number in (7, 1, 9):
        interrupting(number)
        status, _, err = run(*command)
        done += number
        assert status == 130 and f"{done} frames are done, in {tmp_path}/out.mkv.parts" in err and "goes on" in err
        assert not (tmp_path / "out.mkv").exists()
        parts = sorted((tmp_path / "out.mkv.parts").glob("*.mkv"))
        assert sum(len(read_pictures(part, "rgb24")) for part in parts) == done  # players show them
    interrupting(None)
    status, out, err = run(*command)
    assert status == 0 and "goes on      17 frames are in" in out, err
    one, other = (read_pictures(tmp_path / name, "rgb24") for name in ("undisturbed.mkv", "out.mkv"))
    assert len(one) == len(other) == 23 and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert read_times(tmp_path / "undisturbed.mkv") == read_times(tmp_path / "out.mkv")
    assert read_packets(film, "audio") == read_packets(tmp_path / "out.mkv", "audio")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mkv", "out.mkv", "undisturbed.mkv"]


def test_nothing_is_left_where_nothing_was_done(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_film(tmp_path / "film.mp4")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(video_run, "enlarge_pixels", interrupt)
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 130 and "frames are done" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_parts_of_other_work_are_not_mixed_in(run: Run, model: Path, tmp_path: Path, interrupting: Any) -> None:
    film = write_film(tmp_path / "film.mp4")
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model)
    interrupting(6)
    assert run(*command)[0] == 130
    interrupting(None)
    must_refuse(run, tmp_path, (*command, "--quality", "20"), "out.mp4.parts: holds parts", "with other options")
    status, out, _ = run(*command, "--quality", "20", "--overwrite", "--json")
    assert status == 0 and json.loads(out)["done_before"] == 0 and json.loads(out)["frames"] == 12


def test_parts_of_another_reading_of_the_network_are_not_mixed_in(
    run: Run, teacher_of_255: Path, tmp_path: Path, interrupting: Any
) -> None:
    film = write_film(tmp_path / "film.mkv", codec="ffv1", frames=3, sound=None)
    command = ("upscale", film, tmp_path / "out.mkv", "--model", teacher_of_255, "--tile", "off", "--codec", "ffv1")
    interrupting(1)
    assert run(*command)[0] == 130
    interrupting(None)
    status, _, err = run(*command, "--no-probe")
    assert status == 2 and "out.mkv.parts: holds parts" in err and "with other options" in err
    status, out, _ = run(*command, "--json")
    assert status == 0 and json.loads(out)["done_before"] == 1


def test_a_part_that_was_cut_off_is_made_again(run: Run, model: Path, tmp_path: Path, interrupting: Any) -> None:
    film = write_film(tmp_path / "film.mp4", frames=23)
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model, "--json")
    interrupting(18)
    assert run(*command)[0] == 130
    interrupting(None)
    folder = tmp_path / "out.mp4.parts"
    part = folder / "000001.mkv"
    os.truncate(part, part.stat().st_size * 2 // 3)
    with open(folder / JOURNAL, "ab") as file:
        file.write(b'{"part": {"na')  # the machine went down
    status, out, err = run(*command)
    assert status == 0 and json.loads(out)["done_before"] == 5, err
    assert f"{part}: is not what was written" in err and "made again" in err
    assert read_times(tmp_path / "out.mp4") == read_times(film) and len(read_pictures(tmp_path / "out.mp4")) == 23


def test_a_journal_that_breaks_off_in_its_first_part_is_about_this_film(
    run: Run, model: Path, tmp_path: Path, interrupting: Any
) -> None:
    """The machine went down when it was noted."""
    film = write_film(tmp_path / "film.mp4")
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model, "--json")
    interrupting(6)
    assert run(*command)[0] == 130
    interrupting(None)
    journal = tmp_path / "out.mp4.parts" / JOURNAL
    work, part, *_ = journal.read_bytes().splitlines()
    journal.write_bytes(work + b"\n" + part[:20])
    status, out, err = run(*command)
    assert status == 0 and json.loads(out)["done_before"] == 0 and json.loads(out)["frames"] == 12, err


def test_a_full_disk_keeps_the_parts(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_film(tmp_path / "film.mp4")
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model)

    def join(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(video_run, "join", join)
        status, _, err = run(*command)
    assert status == 2 and "No space left" in err and (tmp_path / "out.mp4.parts").is_dir()
    status, out, _ = run(*command, "--json")
    assert status == 0 and json.loads(out)["done_before"] == 12 and not (tmp_path / "out.mp4.parts").exists()


def test_a_film_in_the_place_of_another_of_its_size_and_time_does_not_go_on_with_its_parts(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, other = write_film(tmp_path / "film.mp4"), tmp_path / "other.mp4"
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model)

    def join(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(video_run, "join", join)
        assert run(*command)[0] == 130
    content = bytearray(film.read_bytes())
    content[content.index(b"mvhd") + 11] ^= 1  # the time at which it was made
    other.write_bytes(content)
    os.utime(other, ns=(0, film.stat().st_mtime_ns))
    os.replace(other, film)
    status, _, err = run(*command)
    assert status == 2 and "holds parts of this result made of another film" in " ".join(err.split())
    status, out, _ = run(*command, "--overwrite", "--json")
    assert status == 0 and json.loads(out)["done_before"] == 0


def test_a_second_name_or_other_rights_change_no_film(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    before = identify(film)
    os.link(film, tmp_path / "backup.mp4")
    film.chmod(0o600)
    assert identify(film) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("kept", [0, 5])
def test_a_part_that_cannot_be_written_is_named_and_leaves_nothing(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    import resource

    film = write_film(tmp_path / "film.mkv", codec="ffv1", form="bgr0", frames=12, sound=None)
    folder = tmp_path / "out.mkv.parts"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(*arguments: Any) -> None:
        full = len(list(folder.glob("*.mkv"))) * 5 == kept
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000 if full else before[0], before[1]))
        enlarge_pixels(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(video_run, "enlarge_pixels", limit)
        try:
            status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model, "--codec", "ffv1")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    part = folder / f"{kept // 5:06}.mkv"
    assert status == 2 and f"{part}: cannot be written (File too large)" in err
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert names == ({"000000.mkv", JOURNAL} if kept else set()) and folder.exists() == bool(kept)


def test_two_processes_do_not_do_the_same(run: Run, model: Path, tmp_path: Path) -> None:
    from memsr_compiler.locks import hold_folder

    film = write_film(tmp_path / "film.mp4")
    (tmp_path / "out.mp4.parts").mkdir()
    with hold_folder(tmp_path / "out.mp4.parts"):
        status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
        assert status == 2 and "is at work in it" in err


# -- killed

POINTS = ("replace", "fsync", "unlink", "rmdir")  # of os
KILLED = """
import os, signal, sys
from memsr_compiler import cli
from memsr_compiler.commands import upscale_film
from memsr_compiler.video import run
run.PART = 5
last, count = int(sys.argv.pop(1)), 0
def wrap(function):
    def counted(*arguments, **options):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted
for name in {points}:
    setattr(os, name, wrap(getattr(os, name)))
cli.main()
"""


def start(number: int, *arguments: object) -> subprocess.Popen[bytes]:
    """Begin a run that kills itself before the number-th of the points."""
    program = KILLED.replace("{points}", repr(POINTS))
    command = [sys.executable, "-c", program, str(number), *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_run_that_is_killed_goes_on(run: Run, model: Path, tmp_path: Path) -> None:
    """Before points at which what is on the disk changes, MEMSR_KILLS=all: before each; then at any moment."""
    film = write_film(tmp_path / "film.mkv", codec="ffv1", form="bgr0", frames=12)
    options = ("--model", model, "--codec", "ffv1", "-q")
    assert run("upscale", film, tmp_path / "undisturbed.mkv", *options)[0] == 0
    chance = random.Random()
    point = 1 if os.environ.get("MEMSR_KILLS") == "all" else chance.randint(1, 4)
    while True:
        target = tmp_path / f"{point}.mkv"
        killed = start(point, "upscale", film, target, *options).wait()
        if killed == 0:
            break
        assert killed == -signal.SIGKILL
        go_on(run, ("upscale", film, target, *options), tmp_path / "undisturbed.mkv")
        point += 1 if os.environ.get("MEMSR_KILLS") == "all" else chance.randint(2, 7)
    assert point > 20  # there were so many
    target = tmp_path / "random.mkv"
    process = start(-1, "upscale", film, target, *options)
    time.sleep(chance.uniform(0.5, 1.5))
    process.kill()
    process.wait()
    go_on(run, ("upscale", film, target, *options), tmp_path / "undisturbed.mkv")
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".*"))


def go_on(run: Run, command: tuple[object, ...], undisturbed: Path) -> None:
    """Run a command again; it may find that nothing was left to do but to remove an empty folder."""
    target = Path(str(command[2]))
    done = target.exists() and not list(target.with_name(f"{target.name}.parts").glob(JOURNAL))
    status, _, err = run(*command)
    assert status == (2 if done else 0), (status, err)
    assert same_film(target, undisturbed), f"another film: {target}"


def same_film(one: Path, other: Path) -> bool:
    """Whether two films have the same packets at the same times; what makes a file's identity may differ."""
    return all(read_packets(one, kind) == read_packets(other, kind) for kind in ("video", "audio"))
