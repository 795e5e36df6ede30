"""memsrc upscale of a film: its pictures enlarged, everything else as it was, whatever is odd about it."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import Run, must_refuse

pytest.importorskip("av", reason="films need the extra [video]")
pytest.importorskip("pyvips", reason="images to compare with need the extra [cpu]")

import av
from av.stream import Disposition
from helpers.films import RATE, Tags, add_subtitles, draw, read_packets, read_pictures, read_times, write_film
from PIL import Image

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.commands import upscale_film
from memsr_compiler.commands.interface.options import UpscaleOptions
from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.vdsr import VDSR
from memsr_compiler.video import run as video_run
from memsr_compiler.video.codecs import choose_encoding
from memsr_compiler.video.film import Film
from memsr_compiler.video.frames import Frame, Scene
from memsr_compiler.video.names import READ, WRITTEN, is_film_name


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_run, "PART", 5)


def mux_all(packets: Iterable[Any], container: Any, stream: Any) -> None:
    """Write packets, but for those that only end a stream, into a stream of another container."""
    for packet in packets:
        if packet.size:
            packet.stream = stream
            container.mux(packet)


# -- the pictures


def enlarge_as_images(run: Run, film: Path, form: str, *options: object) -> list[Path]:
    """Every picture of a film as a PNG, enlarged."""
    small, large = film.parent / "small", film.parent / "large"
    small.mkdir()
    for i, pixels in enumerate(read_pictures(film, form)):
        Image.fromarray(pixels).save(small / f"{i:04}.png")
    status, _, err = run("upscale", small, large, *options)
    assert status == 0, err
    return sorted(large.glob("*.png"))


@pytest.mark.parametrize("tiles", [(), ("--tile", "off"), ("--max-memory", "4.5MB")])
@pytest.mark.parametrize(("form", "pixels"), [("bgr0", "rgb24"), ("gray", "gray")])
def test_each_picture_is_what_the_image_would_be(
    run: Run, model: Path, tmp_path: Path, form: str, pixels: str, tiles: tuple[str, ...], short_parts: None
) -> None:
    film = write_film(tmp_path / "film.mkv", codec="ffv1", form=form, sound=None, tags=Tags(2, 2, 2, 2))
    status, out, err = run("upscale", film, tmp_path / "out.mkv", "--model", model, "--codec", "ffv1", *tiles)
    assert status == 0 and err == "", err
    assert f"48x32 -> 96x64; 12 frames, ffv1, {form}" in out
    images = enlarge_as_images(run, film, pixels, "--model", model)
    films = read_pictures(tmp_path / "out.mkv", pixels)
    assert len(films) == 12
    for image, picture in zip(images, films, strict=True):
        assert np.array_equal(np.asarray(Image.open(image)), picture)


def test_a_network_on_y_does_with_pictures_what_it_does_with_images(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tmp_path / "y.onnx"
    export_onnx(compile_to_plain(VDSR(blocks=2, channels=4).eval()), model)
    film = write_film(tmp_path / "film.mkv", codec="ffv1", form="bgr0", frames=2, sound=None)
    options = ("--model", model, "--scale", "3")
    status, _, err = run("upscale", film, tmp_path / "out.mkv", *options, "--codec", "ffv1")
    assert status == 0, err
    images = enlarge_as_images(run, film, "rgb24", *options)
    for image, picture in zip(images, read_pictures(tmp_path / "out.mkv", "rgb24"), strict=True):
        assert np.array_equal(np.asarray(Image.open(image)), picture)


@pytest.mark.parametrize(
    ("form", "kept"), [("yuv420p10le", "yuv420p10le"), ("yuvj422p", "yuv422p"), ("nv12", "yuv420p")]
)
def test_bits_and_fineness_of_colours_are_kept(run: Run, model: Path, tmp_path: Path, form: str, kept: str) -> None:
    film = write_film(tmp_path / "film.mkv", form=form, frames=3)
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 0, err
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].pix_fmt.replace("yuvj", "yuv") == kept


def test_odd_sides_have_colours_as_fine_as_their_pixels(run: Run, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", codec="ffv1", width=31, height=21, frames=2, sound=None)
    status, out, err = run("upscale", film, tmp_path / "out.mp4", "--model", "x3-small")
    assert status == 0 and "31x21 -> 93x63; 2 frames, libx264, quality 17, yuv444p" in out, err
    assert read_pictures(tmp_path / "out.mp4", "rgb24")[1].shape == (63, 93, 3)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "mpeg4", "libsvtav1"])
def test_codecs(run: Run, model: Path, tmp_path: Path, codec: str, short_parts: None) -> None:
    """In several parts: what they are put together to has all pictures, in their order, near to what was computed."""
    film = write_film(tmp_path / "film.mkv", codec="ffv1", form="yuv420p", frames=12, width=64, height=64)
    lossless, lossy = tmp_path / "lossless.mkv", tmp_path / "lossy.mkv"
    for target, name in ((lossless, "ffv1"), (lossy, codec)):
        status, _, err = run("upscale", film, target, "--model", model, "--codec", name)
        assert status == 0, err
    one, other = (read_pictures(path, "gray") for path in (lossless, lossy))
    assert len(one) == len(other) == 12 and read_times(lossless) == read_times(lossy) == read_times(film)
    errors = [[float(np.abs(a.astype(int) - b).mean()) for b in other] for a in one]
    assert [row.index(min(row)) for row in errors] == list(range(12))
    assert max(errors[i][i] for i in range(12)) < 4
    with av.open(lossy) as container:
        alone = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert sum(alone) == 3, "the first one of each part"


def test_frames_that_are_shown_in_turn(run: Run, model: Path, tmp_path: Path) -> None:
    """AVI does not tell when frames are shown that are stored in another order."""
    film = write_film(tmp_path / "film.avi", sound=None, options={"bf": "3", "b-adapt": "0"})
    status, out, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 0 and "at the times of their packets, the earliest first" in out, err
    assert read_times(tmp_path / "out.mkv") == [Fraction(i, RATE) for i in range(12)]


def test_webm(run: Run, model: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.webm", codec="libvpx-vp9", sound="libopus", frames=6)
    status, out, err = run("upscale", film, tmp_path / "out.webm", "--model", model)
    assert status == 0 and "libvpx-vp9, quality 18, yuv420p" in out, err
    assert read_packets(film, "audio") == read_packets(tmp_path / "out.webm", "audio")
    assert len(read_pictures(tmp_path / "out.webm")) == 6


# -- everything else


def test_sound_subtitles_chapters_and_fonts_are_copied(
    run: Run, model: Path, tmp_path: Path, short_parts: None
) -> None:
    film = add_subtitles(write_film(tmp_path / "plain.mp4"), tmp_path / "film.mkv")
    status, _, err = run("upscale", film, tmp_path / "out.mkv", "--model", model)
    assert status == 0 and err == "", err
    for kind in ("audio", "subtitle"):
        one, other = read_packets(film, kind), read_packets(tmp_path / "out.mkv", kind)
        assert one == other and len(one) == 1 and one[0]
    with av.open(film) as source, av.open(tmp_path / "out.mkv") as result:
        assert [s.type for s in result.streams] == [s.type for s in source.streams]
        assert result.metadata["title"] == "A film" and result.chapters() == source.chapters()
        assert result.streams.subtitles[0].metadata["language"] == "eng"
        assert result.streams[3].data == b"a font"
    assert read_times(film) == read_times(tmp_path / "out.mkv")


def test_mp4_has_its_sound_where_it_was(run: Run, model: Path, tmp_path: Path, short_parts: None) -> None:
    film = write_film(tmp_path / "film.mp4", frames=25)
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 0, err
    assert read_packets(film, "audio") == read_packets(tmp_path / "out.mp4", "audio")
    with av.open(film) as source, av.open(tmp_path / "out.mp4") as result:
        for one, other in zip(source.streams, result.streams, strict=True):
            assert (one.start_time, one.duration, one.time_base) == (other.start_time, other.duration, other.time_base)


@pytest.mark.parametrize(("suffix", "exact"), [(".mp4", True), (".mov", True), (".mkv", False)])
def test_variable_rates_are_kept(
    run: Run, model: Path, tmp_path: Path, suffix: str, exact: bool, short_parts: None
) -> None:
    """Matroska has milliseconds, so there a time may be off by half of one, and the first too."""
    times = list(itertools.accumulate([0, 1001, 1001, 3003, 500, 7, 2000, 1001, 1, 4004, 90, 1001]))
    film = write_film(tmp_path / "film.mp4", times=times, time_base=Fraction(1, 30000), sound=None)
    status, _, err = run("upscale", film, tmp_path / f"out{suffix}", "--model", model)
    assert status == 0, err
    before, after = read_times(film), read_times(tmp_path / f"out{suffix}")
    assert before == [Fraction(time, 30000) for time in times]
    assert (
        after == before if exact else max(abs(a - b) for a, b in zip(before, after, strict=True)) <= Fraction(1, 1000)
    )


def test_a_variable_rate_whose_average_is_too_fine_for_the_codec(run: Run, model: Path, tmp_path: Path) -> None:
    """MPEG-4 cuts a second into 65,535 at most, and here a frame takes, on average, 2651/78750 of it."""
    times = list(itertools.accumulate([0, *[3003, 2995, 3010, 3007, 2991] * 4]))
    film = write_film(tmp_path / "film.mp4", frames=21, times=times, time_base=Fraction(1, 90000), sound=None)
    assert Film.open(film, most_pixels=1 << 20).rate.numerator > 65_535
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model, "--codec", "mpeg4")
    assert status == 0, err
    assert read_times(film) == read_times(tmp_path / "out.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_what_a_player_needs_to_show_it_is_kept(run: Run, model: Path, tmp_path: Path, suffix: str) -> None:
    film = write_film(
        tmp_path / "film.mp4", tags=Tags(9, 2, 9, 14), rotation=90, aspect=Fraction(16, 11), form="yuv420p", frames=3
    )
    status, _, err = run("upscale", film, tmp_path / f"out{suffix}", "--model", model)
    assert status == 0, err
    for path in (film, tmp_path / f"out{suffix}"):
        with av.open(path) as container:
            stream, context = container.streams.video[0], container.streams.video[0].codec_context
            frame = next(container.decode(video=0))
            tags = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
            assert tags == (9, 2, 9, 14) and stream.sample_aspect_ratio == Fraction(16, 11) and frame.rotation == 90
            assert (frame.colorspace, frame.color_range) == (9, 2)


def test_turned_pictures_are_moved_by_as_many_pixels_more(run: Run, model: Path, tmp_path: Path) -> None:
    """A telephone held upright writes: turned to the left, and moved down by the width that the pictures had."""
    plain, film = write_film(tmp_path / "plain.mp4", frames=2, sound=None), tmp_path / "film.mp4"
    one, unit = 1 << 16, 1 << 30
    with av.open(film, "w") as container, av.open(plain) as source:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.set_display_matrix((0, -one, 0, one, 0, 0, 0, 48 * one, unit))
        mux_all(source.demux(), container, stream)
    status, _, err = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 0, err
    result = Film.open(tmp_path / "out.mp4", most_pixels=1 << 20)
    assert result.matrix == (0, -one, 0, one, 0, 0, 0, 2 * 48 * one, unit)


def test_a_guess_is_written_down(run: Run, model: Path, tmp_path: Path) -> None:
    """A player would take the result for BT.709, as it is larger than films of BT.601 are."""
    film = write_film(tmp_path / "film.mp4", width=720, height=480, frames=1, sound=None)
    status, out, _ = run("upscale", film, tmp_path / "out.mp4", "--model", model)
    assert status == 0 and "by its size its matrix is taken for BT.601" in out
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].codec_context.colorspace == 6


# -- scenes


def test_a_scene(run: Run, model: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", codec="ffv1", form="bgr0", frames=30)
    options = ("--model", model, "--codec", "ffv1")
    assert run("upscale", film, tmp_path / "all.mkv", *options)[0] == 0
    status, out, err = run("upscale", film, tmp_path / "scene.mkv", *options, "--frames", "7:19")
    assert status == 0 and "12 frames" in out, err
    whole, scene = (read_pictures(tmp_path / name, "rgb24") for name in ("all.mkv", "scene.mkv"))
    assert len(scene) == 12 and all(np.array_equal(a, b) for a, b in zip(whole[7:19], scene, strict=True))
    (kept,) = read_packets(tmp_path / "scene.mkv", "audio")
    expected = [(at - 7 / 25, data) for at, data in read_packets(film, "audio")[0] if 7 / 25 <= at < 19 / 25]
    assert [data for _, data in kept] == [data for _, data in expected] and kept
    assert max(abs(a - b) for (a, _), (b, _) in zip(kept, expected, strict=True)) <= 0.001
    with av.open(tmp_path / "scene.mkv") as container:
        assert container.start_time == 0


@pytest.mark.parametrize(
    ("text", "scene"), [(None, Scene()), ("3:", Scene(3)), (":9", Scene(0, 9)), ("3:9", Scene(3, 9)), (":", Scene())]
)
def test_words_for_scenes(text: str | None, scene: Scene) -> None:
    assert upscale_film.parse_scene(text) == scene


@pytest.mark.parametrize("text", ["3", "9:3", "3:3", "a:b", "-3:4", "1:2:3", "1.5:3", "9" * 20 + ":"])
def test_words_for_no_scene(text: str) -> None:
    with pytest.raises(InvalidInput, match="--frames"):
        upscale_film.parse_scene(text)


def test_a_scene_behind_the_end(run: Run, model: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model, "--frames", "100:")
    must_refuse(run, tmp_path, command, "there are no frames from 100 to the end")


# -- progress


def test_progress_says_how_long_it_will_take(tmp_path: Path) -> None:
    film = Film.open(write_film(tmp_path / "film.mp4", frames=25), most_pixels=1 << 20)
    encoding = choose_encoding(film, 2, ".mp4", None, None)
    plan = video_run.make_plan(film, Scene(5, 20), 2, tmp_path / "out.mp4", encoding)
    said: list[tuple[float, str]] = []
    clock = iter((0.0, 2.0, 4.0))
    on_frame = upscale_film._report(plan, 6, lambda amount, words: said.append((amount, words)), lambda: next(clock))
    for number in (11, 12):
        on_frame(Frame(number, 0, 0, np.empty(0)))
    assert said == [
        (6, ""),
        (1, "frame 7 of 15, 0.5 a second, 0:16 left"),
        (1, "frame 8 of 15, 0.5 a second, 0:14 left"),
    ]
    assert upscale_film.say_time(3725) == "1:02:05"


# -- what is refused before the work


def write_sound(path: Path) -> Path:
    film = write_film(path.with_name("with pictures.mp4"))
    with av.open(path, "w") as container, av.open(film) as source:
        stream = container.add_stream_from_template(source.streams.audio[0])
        mux_all(source.demux(source.streams.audio[0]), container, stream)
    return path


def test_films_that_are_none(run: Run, model: Path, tmp_path: Path) -> None:
    Image.fromarray(draw(0, 32, 32)).save(tmp_path / "a picture.png")
    os.replace(tmp_path / "a picture.png", tmp_path / "picture.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mkv").write_text("#EXTM3U\n#EXTINF:1,\nfilm.mp4\n")
    write_film(tmp_path / "film.mp4", frames=25)
    (tmp_path / "cut off.mp4").write_bytes((tmp_path / "film.mp4").read_bytes()[:3000])
    write_sound(tmp_path / "sound.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, words in {
        "picture.mp4": "no film that is read here", "empty.mp4": "no film", "text.mkv": "no film",
        "cut off.mp4": "damaged or cut off", "sound.mp4": "has no stream of pictures, only audio",
        "pipe.mp4": "is no file but a pipe", "nothing.mp4": "there is no such file",
    }.items():  # fmt: skip
        must_refuse(run, tmp_path, ("upscale", tmp_path / name, tmp_path / "o.mp4", "--model", model), name, words)


def test_a_film_without_a_frame(run: Run, model: Path, tmp_path: Path) -> None:
    """As a Matroska file that was cut off behind its head, or a recording that was never begun."""
    film = write_film(tmp_path / "film.mkv", codec="mpeg4")
    head = film.read_bytes().index(b"\x1f\x43\xb6\x75")  # the first cluster
    film.write_bytes(film.read_bytes()[: head + 30])
    must_refuse(run, tmp_path, ("upscale", film, tmp_path / "o.mp4", "--model", model), "has no picture")


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"codec": "prores_ks", "form": "yuva444p10le"}, "has transparency"),
        ({"form": "yuv420p10le", "tags": Tags(9, 1, 9, 16)}, "PQ (HDR)"),
        ({"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}, "is interlaced"),
    ],
)
def test_films_that_networks_do_not_know(
    run: Run, model: Path, tmp_path: Path, odd: dict[str, object], words: str
) -> None:
    film = write_film(tmp_path / "film.mov", sound=None, frames=4, **odd)  # type: ignore[arg-type]
    must_refuse(run, tmp_path, ("upscale", film, tmp_path / "out.mp4", "--model", model), str(film), words)


def test_transparency_beside_the_pictures(run: Run, model: Path, tmp_path: Path) -> None:
    """WebM's, which the decoder does not know.  A browser says that there is some in whatever it records."""
    options = {"codec": "libvpx-vp9", "sound": None, "frames": 3}
    film = write_film(tmp_path / "film.webm", form="yuva420p", **options)  # type: ignore[arg-type]
    must_refuse(run, tmp_path, ("upscale", film, tmp_path / "out.mp4", "--model", model), "has transparency")
    plain, recorded = write_film(tmp_path / "plain.webm", **options), tmp_path / "recorded.webm"  # type: ignore[arg-type]
    with av.open(recorded, "w") as container, av.open(plain) as source:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.metadata["alpha_mode"] = "1"
        mux_all(source.demux(), container, stream)
    status, _, err = run("upscale", recorded, tmp_path / "out.mp4", "--model", model)
    assert status == 0, err


def test_containers_that_cannot_hold_it(run: Run, model: Path, tmp_path: Path) -> None:
    film = add_subtitles(write_film(tmp_path / "plain.mp4"), tmp_path / "film.mkv")
    for name, options, words in (
        ("o.mp4", (), "o.mp4: such a file cannot hold stream 2 (subtitle, subrip, eng)"),
        ("o.webm", (), "cannot hold stream 1 (audio, aac"),
        ("o.mov", ("--codec", "ffv1"), "cannot hold pictures of ffv1"),
        ("o.avi", (), "films of this kind are not written; end it in .mp4, .m4v, .mov, .mkv, .webm"),
        ("o.png", (), "films of this kind are not written"),
        ("o.mkv", ("--codec", "h264"), "--codec h264: want one of libx264"),
        ("o.mkv", ("--codec", "ffv1", "--quality", "3"), "ffv1 has no such number"),
        ("o.mkv", ("--quality", "60"), "libx264 takes 0 (best) to 51"),
        ("o.mkv", ("--max-pixels", "100"), "--max-pixels"),
        ("o.mkv", ("--max-memory", "50KB"), "4 frames and as many results, which wait for network and encoder"),
        ("no/o.mkv", (), "does not exist"),
        ("film.mkv", (), "is the film itself"),
    ):
        must_refuse(run, tmp_path, ("upscale", film, tmp_path / name, "--model", model, *options), words)


def test_what_a_container_cannot_hold_and_nobody_misses_is_named(run: Run, model: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    with av.open(film, "w") as container, av.open(write_film(tmp_path / "plain.mp4")) as source:
        streams = [container.add_stream_from_template(s, opaque=True) for s in source.streams]
        container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    status, out, err = run("upscale", film, tmp_path / "out.mp4", "--model", model, "--json")
    assert status == 0 and "stream 2 (attachment, font.ttf), which .mp4 cannot hold" in err
    assert json.loads(out)["left_out"] == ["stream 2 (attachment, font.ttf), which .mp4 cannot hold"]


def write_with(film: Path, path: Path, *, cover: bool = False, timecode: str = "") -> Path:
    """A film with a cover in front of its pictures, or a timecode."""
    picture = path.with_suffix(".jpg")
    Image.fromarray(draw(0, 16, 16)).save(picture)
    with av.open(path, "w") as container, av.open(film) as source, av.open(picture) as covers:
        if cover:
            stream = container.add_stream_from_template(covers.streams.video[0], opaque=True)
            stream.disposition = Disposition.attached_pic
        streams = [container.add_stream_from_template(s, opaque=True) for s in source.streams]
        if timecode:
            streams[0].metadata["timecode"] = timecode
        for packet in (*covers.demux(), *source.demux()):
            if packet.size and (cover or packet.stream.container is source):
                packet.stream = stream if packet.stream.container is covers else streams[packet.stream.index]
                container.mux(packet)
    return path


def test_covers_are_copied(run: Run, model: Path, tmp_path: Path) -> None:
    """From .mp4, where they are streams, to .mkv, where they are files, and back; they are not taken for the film."""
    before = write_with(write_film(tmp_path / "plain.mp4"), tmp_path / "0.mp4", cover=True)
    ((_, data),) = read_packets(before, "video")[1]
    for path in (tmp_path / "1.mp4", tmp_path / "2.mkv", tmp_path / "3.mkv", tmp_path / "4.mp4"):
        status, out, err = run("upscale", before, path, "--model", model, "--frames", ":3", "--json")
        assert status == 0 and err == "" and json.loads(out)["frames"] == 3, err
        with av.open(path) as container:
            (held,) = [s for s in container.streams if s.disposition & Disposition.attached_pic]
            assert next(bytes(packet) for packet in container.demux(held) if packet.size) == data
        before = path


def test_a_second_picture_that_stays_small_is_told(run: Run, model: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "one.mkv")
    with av.open(tmp_path / "two.mkv", "w") as container, av.open(film) as one, av.open(film) as other:
        pictures = [source.streams.video[0] for source in (one, other)]
        streams = [container.add_stream_from_template(stream, opaque=True) for stream in pictures]
        for source, stream in zip((one, other), streams, strict=True):
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    container.mux(packet)
    status, _, err = run("upscale", tmp_path / "two.mkv", tmp_path / "large.mkv", "--model", model, "--frames", ":3")
    assert status == 0, err
    assert "left out: the enlargement of stream 1 (video, " in err and ", which is copied as it is" in err


def test_a_song_with_a_cover_is_no_film(run: Run, model: Path, tmp_path: Path) -> None:
    song, picture = tmp_path / "song.mp4", tmp_path / "cover.jpg"
    Image.fromarray(draw(0, 16, 16)).save(picture)
    with av.open(song, "w") as container, av.open(picture) as covers, av.open(write_sound(tmp_path / "a.mp4")) as sound:
        cover = container.add_stream_from_template(covers.streams.video[0], opaque=True)
        cover.disposition = Disposition.attached_pic
        voice = container.add_stream_from_template(sound.streams.audio[0])
        for source, stream in ((covers, cover), (sound, voice)):
            mux_all(source.demux(), container, stream)
    command = ("upscale", song, tmp_path / "out.mp4", "--model", model)
    must_refuse(run, tmp_path, command, "has no stream of pictures, only a cover, audio")


def test_timecodes_are_kept_but_for_a_scene(run: Run, model: Path, tmp_path: Path) -> None:
    """The muxer makes their track: another one beside it would be refused when all is done."""
    film = write_with(write_film(tmp_path / "plain.mp4"), tmp_path / "film.mov", timecode="01:02:03:04")
    for name, options in (("a.mov", ()), ("b.mp4", ()), ("c.mov", ("--frames", "2:4"))):
        status, _, err = run("upscale", film, tmp_path / name, "--model", model, *options)
        assert status == 0 and ("left out: its timecode" in err) == bool(options), err
        with av.open(tmp_path / name) as container:
            told = [stream.metadata.get("timecode") for stream in container.streams if stream.type != "audio"]
        assert told == ([None] if options else ["01:02:03:04"] * 2)


def test_options_of_films_are_refused_for_images(run: Run, model: Path, tmp_path: Path) -> None:
    Image.fromarray(draw(0, 8, 8)).save(tmp_path / "a.png")
    image = ("upscale", tmp_path / "a.png", tmp_path / "o.png", "--model", model)
    for name, value in (("codec", "ffv1"), ("quality", "3"), ("frames", "1:2")):
        must_refuse(run, tmp_path, (*image, f"--{name}", value), f"--{name}: is for films")
    must_refuse(run, tmp_path, (*image[:2], tmp_path / "o.mp4", *image[3:]), "is named like a film")


def test_without_pyav_the_extra_is_named(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_film(tmp_path / "film.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model)
    must_refuse(run, tmp_path, command, "PyAV (av) is not installed", "pip install 'memsr_compiler[video]'")


def test_a_folder_passes_films_over_and_names_them(run: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    Image.fromarray(draw(0, 8, 8)).save(folder / "a.png")
    write_film(folder / "film.mp4")
    status, _, err = run("upscale", folder, tmp_path / "large", "--model", model)
    assert status == 3 and "film.mp4: is a film; enlarge it by itself" in err
    assert (tmp_path / "large" / "a.png").is_file()


def test_a_pattern_of_films_is_told_that_they_are_done_one_by_one(run: Run, model: Path, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4")
    for pattern, words in (("*.mp4", "films are enlarged one by one"), ("*.mkv", "there is no such file")):
        must_refuse(run, tmp_path, ("upscale", tmp_path / pattern, tmp_path / "out.mp4", "--model", model), words)


def test_names_of_films() -> None:
    assert all(is_film_name(f"a{suffix.upper()}") for suffix in (*READ, *WRITTEN)) and not is_film_name("a.png")
    assert {"codec", "quality", "frames"} <= set(UpscaleOptions.__dataclass_fields__)


@pytest.mark.parametrize("name", ["caf\udce9.mp4", "写真 %03d.mp4", "http:x.mp4", "concat:a|b.mp4", "a\nb.mp4"])
def test_whatever_a_name_is_made_of(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In the current folder, where a protocol would stand in front of it."""
    os.replace(write_film(tmp_path / "film.mp4", frames=2), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    status, _, err = run("upscale", name, f"{name}.mkv", "--model", model)
    assert status == 0 and err == "" and sorted(os.listdir()) == sorted((name, f"{name}.mkv")), err


def test_a_result_that_is_there(run: Run, model: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", frames=2)
    (tmp_path / "out.mp4").write_text("something else")
    command = ("upscale", film, tmp_path / "out.mp4", "--model", model)
    must_refuse(run, tmp_path, command, "is there already")
    assert run(*command, "--overwrite")[0] == 0 and len(read_pictures(tmp_path / "out.mp4")) == 2
