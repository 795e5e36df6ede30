"""Parts of a film as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs memsr_compiler[video]")

from memsr_compiler.video.codecs import Encoding  # noqa: E402  # which takes av
from memsr_compiler.video.colours import Colours  # noqa: E402
from memsr_compiler.video.parts import PartWriter  # noqa: E402


class Forgetful:
    """A stream whose encoder leaves the time at which a packet is decoded as its memory had it, as libx265 does."""

    def __init__(self, stream: Any, left: int | None) -> None:
        self._stream, self._left = stream, left

    def encode(self, frame: Any) -> Iterator[Any]:
        for packet in self._stream.encode(frame):
            packet.dts = self._left
            yield packet


@pytest.mark.parametrize("left", [844450699739124, -7082466237925783520, None, 65, -65000])
@pytest.mark.parametrize("count", [1, 2])
def test_a_packet_without_a_time_to_decode_it(left: int | None, count: int, tmp_path: Path) -> None:
    encoding = Encoding("ffv1", None, 32, 16, "gray", Colours(2, True, 2, 2), Fraction(25), None)
    part = PartWriter(tmp_path, 0, encoding)
    stream: Any = Forgetful(part._stream, left)
    part._stream = stream
    for number in range(count):
        picture = np.full((16, 32), 50 * number, np.uint8)
        part.add(av.VideoFrame.from_ndarray(picture, format="gray"), number, 1)
    assert part.close().order == list(range(count))
    with av.open(tmp_path / "000000.mkv") as container:
        pictures = [(frame.time, frame.to_ndarray()) for frame in container.decode(video=0)]
    assert [time for time, _ in pictures] == pytest.approx([number / 25 for number in range(count)], abs=1e-3)
    assert all((picture == 50 * number).all() for number, (_, picture) in enumerate(pictures))
