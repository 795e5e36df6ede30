"""Zip archives, as torch writes them, checked before anything in them is believed.

torch's own reader looks at no checksum, so damaged weights load as other weights; and it follows the archive's
directory alone, while every member says again in front of it what it is.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections import Counter

from memsr_compiler.errors import InvalidInput, first_line

MAGIC = b"PK\x03\x04"
"""The bytes with which a zip archive begins."""

_MAX_COMPRESSION = 16  # trained weights hardly shrink at all; a zip bomb shrinks a thousandfold
_HEADER = 30  # bytes in front of a member, without its name
_SIZES_FOLLOW = 0x08  # flag: in front of the member, its checksum and sizes are left out
_FOLDER = 0x10  # attribute: torch's reader makes no bytes of a folder, and leaves the memory for them as it was
_IN_EXTRA = 0xFFFFFFFF  # a size of 32 bits that stands elsewhere, in 64
_PIECE = 1 << 20
_REGAIN = "Download or save it again."

log = logging.getLogger(__name__)


def check_archive(data: bytes) -> list[str]:
    """Names of an archive's members, which are all as they were written, as far as the archive can tell.

    Raises InvalidInput for an archive that unpacks to far more than it is; where directory and members disagree, where
    two members have one name or share bytes; and where a checksum differs. Torch can be told to write none: then a
    warning is logged.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except Exception as error:  # zipfile raises whatever the damage leads to
        raise InvalidInput(f"is truncated or damaged ({first_line(error)}). {_REGAIN}") from error
    if sum(member.file_size for member in members) > _MAX_COMPRESSION * len(data):
        raise InvalidInput("is a zip archive that unpacks to far more than weights ever do. It is damaged or hostile.")
    _check_places(data, members, archive.start_dir)
    if any(member.CRC for member in members):
        _check_contents(archive, members)
    elif any(member.file_size for member in members):
        log.warning("the file was saved without checksums, so damage to it cannot be noticed")
    return [member.filename for member in members]


def _check_places(data: bytes, members: list[zipfile.ZipInfo], directory: int) -> None:
    """Raises InvalidInput unless each member is where the directory says, under the same name, and alone there.

    directory   where that begins
    """
    names = Counter(member.filename.lower() for member in members)  # torch's reader takes upper and lower case for one
    doubles = [name for name, times in names.items() if times > 1]
    if doubles:
        raise InvalidInput(f"is damaged or hostile: it has several members {doubles[0]!r}. {_REGAIN}")
    if not all(names):
        raise InvalidInput(f"is damaged or hostile: one of its members has no name. {_REGAIN}")
    folders = [member.filename for member in members if member.external_attr & _FOLDER or member.is_dir()]
    if folders:
        raise InvalidInput(f"is damaged or hostile: its member {folders[0]!r} is said to be a folder. {_REGAIN}")
    in_order = sorted(members, key=lambda member: member.header_offset)
    ends = [_find_end(data, member) for member in in_order]
    starts = [member.header_offset for member in in_order] + [directory]
    if starts[0] != 0:
        raise InvalidInput(f"is damaged or hostile: something stands before its first member. {_REGAIN}")
    for member, end, following in zip(in_order, ends, starts[1:], strict=True):
        if end > following:
            raise InvalidInput(f"is damaged or hostile: its member {member.filename!r} runs into another. {_REGAIN}")


def _find_end(data: bytes, member: zipfile.ZipInfo) -> int:
    """Where a member ends.  Raises InvalidInput unless what stands in front of it is what the directory says."""
    start = member.header_offset
    header = data[start : start + _HEADER]
    flags, method = (int.from_bytes(header[i : i + 2], "little") for i in (6, 8))
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    numbers = [int.from_bytes(header[i : i + 4], "little") for i in (14, 18, 22)]
    known = (member.CRC, member.compress_size, member.file_size)
    missing = bool(flags & _SIZES_FOLLOW)
    agrees = all(
        said == true or (missing and said == 0) or (said == _IN_EXTRA and place)
        for place, (said, true) in enumerate(zip(numbers, known, strict=True))
    )
    same_name = data[start + _HEADER : start + _HEADER + name] == member.orig_filename.encode(
        "utf-8" if flags & 0x800 else "cp437"
    )
    if not (
        header.startswith(MAGIC)
        and flags == member.flag_bits
        and method == member.compress_type
        and agrees
        and same_name
    ):
        raise InvalidInput(
            f"is damaged or hostile: its member {member.filename!r} is not what its directory says. {_REGAIN}"
        )
    return start + _HEADER + name + extra + member.compress_size


def _check_contents(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    """Raises InvalidInput where the bytes of a member have another checksum than they had."""
    for member in members:
        try:
            with archive.open(member) as content:
                while content.read(_PIECE):
                    pass
        except Exception as error:  # zipfile raises whatever the damage leads to
            raise InvalidInput(
                f"is truncated or damaged: its member {member.filename!r} is not as it was written "
                f"({first_line(error)}). {_REGAIN}"
            ) from error
