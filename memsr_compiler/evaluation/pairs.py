"""Test images in a folder as public test sets have them: which files are HR, which LR, and which of them are a pair.

HR and LR are two folders (HR and LR, GTmod12 and LRbicx2, DIV2K_valid_HR and DIV2K_valid_LR_bicubic/X2), or stand side
by side under names that say so (img_001_SRF_2_HR and img_001_SRF_2_LR, baby and babyx2).  Names decide, their order
does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import is_image_name, list_files
from memsr_compiler.images.files import read_image

_FACTOR_AT_END = r"(?:[ _-]?x(?P<factor>\d+))?"
_HR_FOLDER = re.compile(rf"(?P<set>(?:.*[ _-])?)(?:hr|gt|gtmod\d+){_FACTOR_AT_END}", re.IGNORECASE)
_LR_FOLDER = re.compile(rf"(?P<set>(?:.*[ _-])?)lr[ _-]?(?P<way>[a-z]*?){_FACTOR_AT_END}", re.IGNORECASE)
_FACTOR_FOLDER = re.compile(r"x?(?P<factor>\d+)", re.IGNORECASE)
_BICUBIC = ("", "bi", "bic", "bicubic")  # what LR's folder says of the way in which LR was made

_SIDE = re.compile(r"(?P<key>.+)[ _-](?P<side>hr|gt|lr)(?:bi|bic|bicubic|bd|dn)?", re.IGNORECASE)
_FACTOR = re.compile(r"(?P<key>.+?)(?:[ _-]?x|_SRF_)(?P<factor>\d+)(?:m|d|w\d*)?", re.IGNORECASE)


@dataclass(frozen=True)
class TestFiles:
    """Files of test images: pairs of HR and LR, or HR images alone.

    folder     where the HR images are
    pairs      None: there is no LR, so it has to be made
    unpaired   files without a partner
    """

    __test__ = False  # pytest: not a test

    folder: Path
    pairs: tuple[tuple[Path, Path], ...] | None = None
    unpaired: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Name:
    """A file's name without its marks, and what they say: "hr", "lr" or "" for neither; a scale factor."""

    key: str
    side: str
    factor: int | None


@dataclass(frozen=True)
class _Place:
    """A folder of HR or LR images;  set: what its name begins with;  bicubic: whether LR was made in that way."""

    path: Path
    set: str
    bicubic: bool


def find_test_files(folder: Path, factor: int | None) -> TestFiles:
    """The test images in a folder.

    factor   by which LR is smaller; None: by what names and sizes say

    Raises InvalidInput where there is no such folder, no file has a partner, or names do not tell which one it is.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: is no folder; give one with PNG or JPEG files")
    if not (folder / "HR").is_dir() and any(is_image_name(path.name) for path in list_files(folder)):
        return _find_side_by_side(folder, factor)
    high, low = _find_folders(folder, factor)
    if low is None:
        return TestFiles(high)
    highs, lows = list_files(high), list_files(low)
    for place, paths in ((high, highs), (low, lows)):
        if not paths:
            raise InvalidInput(f"{place}: no readable image in it; give a folder of PNG or JPEG files")
    pairs, unpaired = match_names(highs, lows, factor)
    if not pairs:
        mark = "x2" if factor is None else f"x{factor}"
        raise InvalidInput(
            f"{folder}: HR and LR do not hold the same images ({_list_names(highs)}; {_list_names(lows)}); give every "
            f"image the same name in both, or one that goes on in LR: 001.png and 001{mark}.png"
        )
    return TestFiles(high, pairs, unpaired)


def match_names(
    high: Sequence[Path], low: Sequence[Path], factor: int | None
) -> tuple[tuple[tuple[Path, Path], ...], tuple[Path, ...]]:
    """Pairs of HR and LR files, and files without a partner.

    LR is named as HR, or has a mark besides, 001x2 or 001_LR, or goes on otherwise, 001_small.  LR of other factors is
    left alone.  Raises InvalidInput where a file may be the partner of several.
    """
    partners: dict[Path, list[Path]] = {path: [] for path in high}
    unpaired = []
    for path in low:
        several = _find_partners(path, high)
        if len(several) > 1:
            raise InvalidInput(_say_ambiguous(path, several))
        if not several:
            unpaired.append(path)
        elif several[0].stem == path.stem or _fits(_read_name(path), factor):
            partners[several[0]].append(path)
    for path, several in partners.items():
        if len(several) > 1:
            raise InvalidInput(_say_ambiguous(path, several))
    pairs = tuple((path, several[0]) for path, several in partners.items() if several)
    return pairs, (*(path for path, several in partners.items() if not several), *unpaired)


def _find_partners(path: Path, high: Sequence[Path]) -> list[Path]:
    """HR files that an LR file may belong to."""
    stem, key = path.stem, _read_name(path).key
    alike = [h for h in high if h.stem == stem] or [h for h in high if key in (h.stem, _read_name(h).key)]
    if alike:
        return alike
    longer = [h for h in high if stem.startswith(h.stem) and not _goes_on(h.stem, stem[len(h.stem)])]
    longest = max((len(h.stem) for h in longer), default=0)
    return [h for h in longer if len(h.stem) == longest]


def _goes_on(stem: str, letter: str) -> bool:
    """Whether a letter after a name makes it another name, as 0 after 1 does, and is no beginning of a mark."""
    return letter.isdigit() if stem[-1].isdigit() else letter.isalnum()


def _read_name(path: Path) -> _Name:
    """baby_LRBI_x2 and babyx2 -> baby, "lr" or "", 2."""
    key, side, factor = path.stem, "", None
    while True:
        if not side and (match := _SIDE.fullmatch(key)):
            key, side = match["key"], "lr" if match["side"].lower() == "lr" else "hr"
        elif factor is None and (match := _FACTOR.fullmatch(key)):
            key, factor = match["key"], int(match["factor"])
        else:
            return _Name(key, side, factor)


def _fits(name: _Name, factor: int | None) -> bool:
    return factor is None or name.factor in (None, factor)


def _find_side_by_side(folder: Path, factor: int | None) -> TestFiles:
    """The files of one folder; where names say of some that they are HR and LR, these alone."""
    names = {path: _read_name(path) for path in list_files(folder)}
    high, low = ([p for p, name in names.items() if name.side == side and _fits(name, factor)] for side in ("hr", "lr"))
    if high and low:
        return TestFiles(folder, *match_names(high, low, factor))
    lows = _find_smaller(names)
    if not lows:
        return TestFiles(folder)
    if factor is not None and factor not in lows:
        there = " and ".join(f"x{other}" for other in sorted(lows))
        raise InvalidInput(
            f"{folder}: holds LR of {there}, and none of x{factor}; give a folder of HR images alone, which are made "
            "smaller, or that scale"
        )
    high = [path for path in names if not any(path in low for low in lows.values())]
    low = [path for other, paths in lows.items() if factor in (None, other) for path in paths]
    return TestFiles(folder, *match_names(high, low, factor))


def _find_smaller(names: Mapping[Path, _Name]) -> dict[int, list[Path]]:
    """LR files by their factor: those named x2, say, beside others, if the first that can be read is that much smaller.

    A file named x2 may be twice as large as well.
    """
    stems = {path.stem: path for path in names}
    marked: dict[int, list[Path]] = {}
    for path, name in names.items():
        if name.factor and name.key in stems:
            marked.setdefault(name.factor, []).append(path)
    return {
        factor: paths
        for factor, paths in marked.items()
        if next(filter(None, (_compare_sizes(stems[names[p].key], p, factor) for p in paths)), "") == "smaller"
    }


def _compare_sizes(high: Path, low: Path, factor: int) -> str:
    """'smaller' where LR is as much smaller as its name says, sides rounded up or down; '' where one cannot be read."""
    try:
        sides = zip(read_image(high).shape[:2], read_image(low).shape[:2], strict=True)
    except InvalidInput:
        return ""
    return "smaller" if all(small in (large // factor, -(-large // factor)) for large, small in sides) else "other"


def _find_folders(folder: Path, factor: int | None) -> tuple[Path, Path | None]:
    """The folders of HR and of LR.  Raises InvalidInput where there are several that may be meant."""
    highs, lows = (_list_places(folder, pattern, factor) for pattern in (_HR_FOLDER, _LR_FOLDER))
    if not highs:
        return folder, None
    untrained = [high for high in highs if "train" not in high.set]  # photographs for training are not to be scored
    high = _choose(untrained or highs, folder)
    own = [low for low in lows if low.set == high.set]
    return high.path, _choose([low for low in own if low.bicubic] or own, folder).path if own else None


def _list_places(folder: Path, pattern: re.Pattern[str], factor: int | None) -> list[_Place]:
    places = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        match = pattern.fullmatch(inner.name)
        if match is None or not _is_meant(match["factor"], factor):
            continue
        bicubic = match.groupdict().get("way", "").lower() in _BICUBIC
        parts = [part for part in sorted(inner.iterdir()) if part.is_dir() and _FACTOR_FOLDER.fullmatch(part.name)]
        if not parts or list_files(inner):
            parts = [inner]
        else:
            parts = [p for p in parts if _is_meant(p.name.lstrip("xX"), factor)]
        places += [_Place(part, match["set"].lower(), bicubic) for part in parts]
    return places


def _is_meant(written: str | None, factor: int | None) -> bool:
    return written is None or factor in (None, int(written))


def _choose(places: Sequence[_Place], folder: Path) -> _Place:
    """The only one, or the one with the plainest name."""
    places = [place for place in places if place.path.name in ("HR", "LR")] or places
    if len(places) > 1:
        named = ", ".join(str(place.path.relative_to(folder)) for place in places)
        raise InvalidInput(
            f"{folder}: {named} may be meant; give the scale, or a folder that holds one HR and one LR of them"
        )
    return places[0]


def _say_ambiguous(path: Path, several: Sequence[Path]) -> str:
    named = " and ".join(other.name for other in several)
    return f"{path}: {named} may both be its partner; leave one of them in the folder, or give each a name of its own"


def _list_names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
