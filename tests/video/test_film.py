"""Parts of a film beside its pictures that a result lacks, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

av = pytest.importorskip("av", reason="films need the extra [video]")

from helpers.films import write_film  # noqa: E402  # which takes av

from memsr_compiler.video.film import Film  # noqa: E402


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this PyAV lacks x265")
def test_brightness_of_the_display_is_told(tmp_path: Path) -> None:
    """As films have it that were made for bright displays, whatever their transfer function is said to be."""
    quiet = "log-level=none:pools=1:frame-threads=1"
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
    plain, told = (
        write_film(tmp_path / name, frames=2, width=64, height=64, codec="libx265", sound=None, options=options)
        for name, options in (
            ("plain.mkv", {"x265-params": quiet}),
            ("told.mkv", {"x265-params": f"{quiet}:{display}"}),
        )
    )
    assert Film.open(plain, most_pixels=10_000).left_out == ()
    expected = ("how bright its pictures are at most", "how bright the display was that it was made on")
    assert Film.open(told, most_pixels=10_000).left_out == expected
