"""Crops that containers tell players: seen in Matroska and in MP4, and told."""

from __future__ import annotations

from pathlib import Path

import pytest

av = pytest.importorskip("av", reason="films need the extra [video]")

from helpers.films import write_film  # noqa: E402  # which takes av

from memsr_compiler.video.crop import name_crop  # noqa: E402
from memsr_compiler.video.film import Film  # noqa: E402

DISPLAY_UNIT, CROP_TOP = b"\x54\xb2\x81", b"\x54\xbb\x81"  # elements of Matroska, with their size


def crop(path: Path, target: Path, rows: int) -> Path:
    """A film, cropped at the top, in the place of what says in which unit its size is."""
    content = path.read_bytes()
    at = content.index(DISPLAY_UNIT)
    target.write_bytes(content[:at] + CROP_TOP + bytes([rows]) + content[at + 4 :])
    return target


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_crops_are_told(suffix: str, tmp_path: Path) -> None:
    plain = write_film(tmp_path / "plain.mkv", frames=2, sound=None)
    film, copy = crop(plain, tmp_path / "film.mkv", 8), tmp_path / f"copy{suffix}"
    with av.open(film) as source, av.open(copy, "w") as container:
        assert name_crop(source.streams.video[0]) == "8 rows at the top"
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    told = "its crop (8 rows at the top), so that players will show all"
    assert Film.open(copy, most_pixels=10_000).left_out == (told,)
    assert Film.open(plain, most_pixels=10_000).left_out == ()


def test_one_row(tmp_path: Path) -> None:
    plain = write_film(tmp_path / "plain.mkv", frames=1, sound=None)
    with av.open(crop(plain, tmp_path / "film.mkv", 1)) as source:
        assert name_crop(source.streams.video[0]) == "1 row at the top"
