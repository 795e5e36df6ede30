"""Parts of a film as they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs memsr_compiler[video]")

from av.error import FFmpegError  # noqa: E402

from memsr_compiler.errors import ExportError  # noqa: E402
from memsr_compiler.video.codecs import Encoding  # noqa: E402  # which takes av
from memsr_compiler.video.colours import Colours  # noqa: E402
from memsr_compiler.video.join import _read_part  # noqa: E402
from memsr_compiler.video.parts import (  # noqa: E402
    JOURNAL,
    Part,
    PartWriter,
    _explain_errors,
    name_folder,
    open_parts,
)

GREY = Encoding("ffv1", None, 32, 16, "gray", Colours(2, True, 2, 2), Fraction(25), None)


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
    part = PartWriter(tmp_path, 0, GREY)
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


def write_part(folder: Path, number: int, first: int, count: int = 4) -> Part:
    part = PartWriter(folder, number, GREY)
    for time in range(first, first + count):
        picture = np.full((16, 32), 10 * time, np.uint8)
        part.add(av.VideoFrame.from_ndarray(picture, format="gray"), time, 1)
    return part.close()


def write_parts(target: Path) -> Path:
    """Three parts of a result; give their folder."""
    with open_parts(target, "work", begin_anew=False, on_part=print) as parts:
        for number in range(3):
            parts.add(write_part(parts.folder, number, 4 * number))
    return name_folder(target)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def forget_checksums(folder: Path) -> None:
    """As a journal of an earlier version."""
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    for line in lines[1:]:
        del line["part"]["size"], line["part"]["sha256"], line["check"]
    (folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))


def spoil_a_number(folder: Path) -> None:
    """A time in the journal that rises as before."""
    path = folder / JOURNAL
    path.write_text(path.read_text().replace('"times": [4, 5, 6, 7]', '"times": [3, 5, 6, 7]'))


@pytest.mark.parametrize(
    ("change", "kept", "words"),
    [
        pytest.param(lambda folder: None, 12, "", id="untouched"),
        pytest.param(lambda folder: (folder / "000001.mkv").unlink(), 4, "is gone", id="gone"),
        pytest.param(lambda folder: flip(folder / "000001.mkv"), 4, "damaged or replaced", id="one bit"),
        pytest.param(lambda folder: (folder / "000000.mkv").write_bytes(b""), 0, "damaged or replaced", id="empty"),
        pytest.param(
            lambda folder: os.truncate(folder / "000002.mkv", 700), 8, "damaged or replaced", id="cut in half"
        ),
        pytest.param(lambda folder: write_part(folder, 1, 8), 4, "damaged or replaced", id="other pictures"),
        pytest.param(lambda folder: write_part(folder, 1, 4, 6), 4, "damaged or replaced", id="more pictures"),
        pytest.param(spoil_a_number, 4, "its line in journal.jsonl is damaged", id="a number in the journal"),
        pytest.param(forget_checksums, 0, "earlier version, which noted no checksum", id="earlier version"),
    ],
)
def test_what_is_not_what_was_written_is_made_again(
    change: Callable[[Path], object], kept: int, words: str, tmp_path: Path
) -> None:
    folder = write_parts(tmp_path / "out.mkv")
    change(folder)
    looked_at: list[str] = []
    with open_parts(tmp_path / "out.mkv", "work", begin_anew=False, on_part=looked_at.append) as parts:
        assert looked_at == ["000000.mkv", "000001.mkv", "000002.mkv"][: kept // 4 + bool(words)]
        assert parts.frames == kept and words in parts.changed and bool(words) == bool(parts.changed)
        for number in range(kept // 4, 3):
            parts.add(write_part(folder, number, 4 * number))
        looked_at.clear()
        parts.require_unchanged(looked_at.append)
        assert looked_at == [], "nobody has touched what was read, or written, a moment ago"
        (folder / "000000.mkv").touch()
        parts.require_unchanged(looked_at.append)
        assert looked_at == ["000000.mkv"]
        flip(folder / "000002.mkv")
        with pytest.raises(ExportError, match=r"000002\.mkv: is not what was written.*run the same command again"):
            parts.require_unchanged(looked_at.append)


@pytest.mark.parametrize(("count", "words"), [(3, "more"), (5, "fewer")])
def test_a_part_has_as_many_pictures_as_were_written(count: int, words: str, tmp_path: Path) -> None:
    part = write_part(tmp_path, 0, 0)
    assert len(list(_read_part(tmp_path / part.name, 4))) == 4
    with pytest.raises(ExportError, match=f"has {words} than the {count} pictures"):
        list(_read_part(tmp_path / part.name, count))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FFmpegError(28, "No space left on device"), "(No space left on device). Free some space or write elsewhere."),
        (FFmpegError(22, "Invalid argument"), "(Invalid argument)"),
        (OSError(28, "No space left on device"), "(No space left on device). Free some space or write elsewhere."),
        (OSError(13, "Permission denied"), "(Permission denied). Check the permissions, or write elsewhere."),
    ],
)
def test_what_cannot_be_written_is_told_with_a_way_out_of_that(tmp_path: Path, error: Exception, words: str) -> None:
    with pytest.raises(ExportError) as told, _explain_errors(tmp_path / "000000.mkv"):
        raise error
    assert str(told.value) == f"{tmp_path / '000000.mkv'}: cannot be written {words}"
