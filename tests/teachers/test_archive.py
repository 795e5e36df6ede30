"""Zip archives: what is damaged in them is told, although torch would load it."""

from __future__ import annotations

import io
import logging
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.archive import check_archive
from memsr_compiler.teachers.families.vdsr import VDSR
from memsr_compiler.teachers.load import read_teacher

CHECKSUM, PACKED, SIZE = range(3)
DIRECTORY: dict[str, Any] = {"at": b"PK\x01\x02", "name": 46, "length": 28, "numbers": 16, "method": 10}
HEADER: dict[str, Any] = {"at": b"PK\x03\x04", "name": 30, "length": 26, "numbers": 14, "method": 8}


@pytest.fixture(scope="module")
def weights() -> bytes:
    """What torch.save makes of a small network."""
    torch.manual_seed(1)
    stream = io.BytesIO()
    torch.save(VDSR(blocks=2, channels=4).state_dict(), stream)
    return stream.getvalue()


def find_entry(data: bytes, member: str, where: dict[str, Any]) -> int:
    """Where the directory, or the header in front of a member, begins to speak of it."""
    start, mark, name = -1, where["at"], int(where["name"])
    assert isinstance(mark, bytes)
    while (start := data.find(mark, start + 1)) >= 0:
        length = int.from_bytes(data[start + int(where["length"]) :][:2], "little")
        if data[start + name :][:length].decode().partition("/")[2] == member:
            return start
    raise AssertionError(f"no {member}")


def change_number(data: bytes, member: str, where: dict[str, Any], which: int, value: int) -> bytes:
    at = find_entry(data, member, where) + int(where["numbers"]) + 4 * which
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def rewrite(data: bytes, **options: int) -> bytes:
    """The same members, written by another program than torch."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w", **options) as target:  # type: ignore[call-overload]
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return stream.getvalue()


def test_what_torch_and_others_write_is_whole(weights: bytes) -> None:
    assert "archive/data.pkl" in check_archive(weights)
    for data in (rewrite(weights), rewrite(weights, compression=zipfile.ZIP_DEFLATED)):
        assert check_archive(data) == check_archive(weights)


def test_every_bit_of_a_weight_counts(weights: bytes, tmp_path: Path) -> None:
    """Torch would load the other network."""
    member = zipfile.ZipFile(io.BytesIO(weights)).getinfo("archive/data/0")
    start = weights.index(zipfile.ZipFile(io.BytesIO(weights)).read(member))
    for position in range(start, start + member.file_size, 7):
        damaged = bytearray(weights)
        damaged[position] ^= 1 << position % 8
        assert torch.load(io.BytesIO(damaged), weights_only=True)
        (tmp_path / "a.pth").write_bytes(damaged)
        with pytest.raises(
            InvalidInput, match=r"a\.pth: .*member 'archive/data/0' is not as it was written \(Bad CRC-32"
        ):
            read_teacher(tmp_path / "a.pth")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_weights_that_were_packed_by_another_program(compression: int, weights: bytes) -> None:
    data = bytearray(rewrite(weights, compression=compression))
    member = zipfile.ZipFile(io.BytesIO(data)).getinfo("archive/data/0")
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 4
    with pytest.raises(InvalidInput, match="member 'archive/data/0' is not as it was written"):
        check_archive(bytes(data))


def test_weights_saved_without_checksums_are_read_and_told(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.BytesIO()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, stream)
    finally:
        torch.serialization.set_crc32_options(True)
    with caplog.at_level(logging.WARNING):
        check_archive(stream.getvalue())
    assert "saved without checksums" in caplog.text


@pytest.mark.parametrize("which", [CHECKSUM, PACKED, SIZE])
@pytest.mark.parametrize("value", [1, 0xFFFFFFF0])
@pytest.mark.parametrize("member", ["data.pkl", "data/0", "version"])
def test_directory_and_member_say_the_same(which: int, value: int, member: str, weights: bytes) -> None:
    """A size of gigabytes is told before memory is taken for it."""
    others = rewrite(weights)  # torch leaves the numbers in front of members out
    for data in (
        change_number(weights, member, DIRECTORY, which, value),
        change_number(others, member, HEADER, which, value),
    ):
        with pytest.raises(
            InvalidInput, match=r"not what its directory says|unpacks to far more|runs into|not as it was"
        ):
            check_archive(data)


def test_members_that_say_nothing_of_their_size_say_nothing_wrong(weights: bytes) -> None:
    with pytest.raises(InvalidInput, match="'archive/data/0' is not what its directory says"):
        check_archive(change_number(weights, "data/0", HEADER, SIZE, 7))


def test_terabytes_in_a_small_archive(weights: bytes) -> None:
    for size in (4 << 40, (1 << 64) - 1):
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(weights)) as source, zipfile.ZipFile(stream, "w") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
            target.getinfo("archive/data/0").file_size = size
        with pytest.raises(InvalidInput, match="unpacks to far more than weights ever do"):
            check_archive(stream.getvalue())


def test_two_members_of_one_name(weights: bytes) -> None:
    """Torch takes upper and lower case for one."""
    for name in ("archive/data/0", "archive/DATA.pkl"):
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(weights)) as source, zipfile.ZipFile(stream, "w") as target:
            for other in source.namelist():
                target.writestr(other, source.read(other))
            if name == "archive/data/0":
                with pytest.warns(UserWarning, match="Duplicate name"):
                    target.writestr(name, bytes(100))
            else:
                target.writestr(name, bytes(100))
        with pytest.raises(InvalidInput, match=f"several members '{name.lower()}'"):
            check_archive(stream.getvalue())


def test_another_name_in_front_of_a_member(weights: bytes) -> None:
    at = find_entry(weights, "data/0", HEADER) + 30
    with pytest.raises(InvalidInput, match="'archive/data/0' is not what its directory says"):
        check_archive(weights[:at] + b"archive/data/9" + weights[at + 14 :])


def test_members_that_share_bytes(weights: bytes) -> None:
    """Sizes that the numbers in front of the member, which torch leaves out, do not contradict."""
    longer = change_number(change_number(weights, "data/0", DIRECTORY, PACKED, 2000), "data/0", DIRECTORY, SIZE, 2000)
    with pytest.raises(InvalidInput, match="'archive/data/0' runs into another"):
        check_archive(longer)


def test_something_before_and_after(weights: bytes) -> None:
    with pytest.raises(InvalidInput, match="something stands before its first member"):
        check_archive(weights + weights)
    with pytest.raises(InvalidInput, match="is truncated or damaged"):
        check_archive(weights[: len(weights) // 2])


def test_a_member_that_is_said_to_be_a_folder(weights: bytes) -> None:
    """Torch takes no bytes of it, and makes a tensor of whatever was in its memory."""
    at = find_entry(weights, "data/0", DIRECTORY) + 38
    with pytest.raises(InvalidInput, match="'archive/data/0' is said to be a folder"):
        check_archive(weights[:at] + b"\x10" + weights[at + 1 :])


def test_a_member_without_a_name() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", b"content")
    nameless = content.getvalue().replace(b"a", b"\0")  # zipfile ends a name where C does
    with pytest.raises(InvalidInput, match="one of its members has no name"):
        check_archive(nameless)
