"""Test images in a folder as public test sets have them: which files are HR, which LR, and which of them are a pair.

HR and LR are two folders (HR and LR, GTmod12 and LRbicx2, DIV2K_valid_HR and DIV2K_valid_LR_bicubic/X2), or stand side
by side under names that say so (img_001_SRF_2_HR and img_001_SRF_2_LR, baby and babyx2).  Names decide, their order
does not; where they tell nothing of LR, sizes do, and a person hears of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import is_image_name, list_files
from memsr_compiler.images.files import NamedImage, read_folder, read_image

_FACTOR_AT_END = r"(?:[ _-]?x(?P<factor>\d+))?"
_HR_FOLDER = re.compile(rf"(?P<set>(?:.*[ _-])?)(?:hr|gt|gtmod\d+){_FACTOR_AT_END}", re.IGNORECASE)
_LR_FOLDER = re.compile(rf"(?P<set>(?:.*[ _-])?)lr[ _-]?(?P<way>[a-z]*?){_FACTOR_AT_END}", re.IGNORECASE)
_FACTOR_FOLDER = re.compile(r"x?(?P<factor>\d+)", re.IGNORECASE)
_SCALE_FOLDER = re.compile(r"x\d", re.IGNORECASE)
_BICUBIC = ("", "bi", "bic", "bicubic")  # what LR's folder says of the way in which LR was made
_WAYS = (*_BICUBIC, "bd", "dn", "difficult", "mild", "unknown", "wild")  # `lrc` is Lightroom's
_MOST = 8  # the largest factor that names of LR alone are believed to tell: 1920x1080 is none

_SIDE = re.compile(
    r"(?P<key>.+)[ _-](?P<side>hr|gt|hq|lr|lq)(?:bi|bic|bicubic|bd|dn|(?<=lr)(?P<factor>\d+))?", re.IGNORECASE
)
_TRIED = 200  # files of a folder, at most, whose partners are looked for to tell what it is
_LOOKED_AT = 3  # pairs, of two folders, whose sizes tell whether the one is LR of the other
_FACTOR = re.compile(r"(?P<key>.+?)(?:[ _-]?x|_SRF_)(?P<factor>\d+)(?:m|d|w\d*)?", re.IGNORECASE)


@dataclass(frozen=True)
class TestFiles:
    """Files of test images: pairs of HR and LR, or HR images alone.

    folder     where the HR images are
    pairs      None: there is no LR, so it has to be made
    unpaired   files without a partner
    alone      the HR images, where there are no pairs; None: all files in the folder
    notes      what was not told by names, or is left out, in words
    """

    __test__ = False  # pytest: not a test

    folder: Path
    pairs: tuple[tuple[Path, Path], ...] | None = None
    unpaired: tuple[Path, ...] = ()
    alone: tuple[Path, ...] | None = None
    notes: tuple[str, ...] = ()


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
    files = _find_test_files(folder, factor)
    return files if files.pairs is not None else replace(files, notes=(*files.notes, *say_low(files.folder)))


def _find_test_files(folder: Path, factor: int | None) -> TestFiles:
    if not (folder / "HR").is_dir() and any(is_image_name(path.name) for path in list_files(folder)):
        files = _find_side_by_side(folder, factor)
        highs = list_files(folder) if files.alone is None else list(files.alone)
        low, notes = (None, []) if files.pairs is not None else _find_beside(folder, folder, highs, factor)
        if low is None:
            return replace(files, notes=(*files.notes, *notes))
        return TestFiles(folder, *match_names(highs, list_files(low), factor), notes=(*files.notes, *notes))
    high, low = _find_folders(folder, factor)
    highs, notes = list_files(high), []
    if low is None:
        low, notes = _find_beside(folder, high, highs, factor)
    if low is None:
        return TestFiles(high, notes=tuple(notes))
    lows = list_files(low)
    for place, paths in ((high, highs), (low, lows)):
        if not paths:
            raise InvalidInput(f"{place}: no readable image in it; give a folder of PNG or JPEG files")
    pairs, unpaired = match_names(highs, lows, factor)
    if not pairs:
        mark = "x2" if factor is None else f"x{factor}"
        raise InvalidInput(
            f"{folder}: HR and LR do not hold the same images ({list_names(highs)}; {list_names(lows)}); give every "
            f"image the same name in both, or one that goes on in LR: 001.png and 001{mark}.png"
        )
    return TestFiles(high, pairs, unpaired, notes=tuple(notes))


def is_high(name: str) -> bool:
    """Whether a folder of HR images is called so."""
    return _HR_FOLDER.fullmatch(name) is not None


def is_low(folder: Path) -> bool:
    """Whether a folder is called as folders of LR images are: LR_bicubic, DIV2K_train_LR_unknown/X2, LRbicx4."""
    place = folder.resolve()
    place = place.parent if _FACTOR_FOLDER.fullmatch(place.name) else place
    match = _LR_FOLDER.fullmatch(place.name)
    return match is not None and match["way"].lower() in _WAYS


def say_low(folder: Path) -> list[str]:
    """Words on images that are all LR by their names, or their folder's, and are taken for HR nevertheless."""
    names = [_read_name(path) for path in list_files(folder) if is_image_name(path.name)]
    factors, sides = {name.factor or 1 for name in names}, {name.side for name in names}
    marked = sides == {"lr"} or ("hr" not in sides and len(factors) == 1 and 1 < min(factors) <= _MOST)
    if not names or not (marked or is_low(folder)):
        return []
    return [f"{folder}: by their names its images are LR; they are taken for HR, and made smaller again"]


def list_high(folder: Path) -> tuple[list[Path], list[str]]:
    """The files in a folder that are no LR of others in it, by names and sizes, and words on those that are."""
    names = {path: _read_name(path) for path in list_files(folder)}
    lows, no_image, notes = _sort_versions(names, None)
    small = [path for paths in lows.values() for path in paths]
    if small:
        notes.append(f"{folder}: LR of others in it is passed over: {list_names(small)}")
    notes += say_low(folder)
    left_out = {*small, *no_image}
    return [path for path in names if path not in left_out], notes


def read_high(folder: str | os.PathLike[str], warn: Callable[[str], None]) -> list[NamedImage]:
    """Every image in a folder but LR of others in it, whose LR is to be made: see `read_folder`, `list_high`."""
    place = Path(folder)
    paths, notes = list_high(place) if place.is_dir() else (None, [])
    images = read_folder(place, paths=paths, warn=warn)
    for note in notes:
        warn(note)
    return images


def find_others(folder: Path, taken: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """The folders in one, other than those that are taken, that hold images: those called LR, or X2, and others.

    Sets for validation are left alone.
    """
    low: list[Path] = []
    others: list[Path] = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if inner.resolve() in taken or "valid" in inner.name:
            continue
        try:
            parts = [part for part in inner.iterdir() if part.is_dir() and _FACTOR_FOLDER.fullmatch(part.name)]
            if any(is_image_name(path.name) for place in (inner, *parts) for path in list_files(place)):
                low_by_name = is_low(inner) or _SCALE_FOLDER.fullmatch(inner.name)
                (low if low_by_name else others).append(inner)
        except OSError:  # a disk's lost+found
            continue
    return low, others


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
    heads = {h: max((head for head in _heads(h) if _is_version(stem, head)), key=len, default="") for h in high}
    longest = max(map(len, heads.values()), default=0)
    return [h for h, head in heads.items() if head and len(head) == longest]


def _heads(path: Path) -> Iterator[str]:
    """Beginnings of the names of an HR image's versions: its own, also without a mark that says that it is HR."""
    yield path.stem
    name = _read_name(path)
    if name.side == "hr":
        yield name.key


def _is_version(stem: str, head: str) -> bool:
    return stem.startswith(head) and stem != head and not _goes_on(head, stem[len(head)])


def _goes_on(stem: str, letter: str) -> bool:
    """Whether a letter after a name makes it another name, as 0 after 1 does, and is no beginning of a mark."""
    return letter.isdigit() if stem[-1].isdigit() else letter.isalnum()


@lru_cache(4096)
def _read_name(path: Path) -> _Name:
    """baby_LRBI_x2 and babyx2 -> baby, "lr" or "", 2."""
    key, side, factor = path.stem, "", None
    while True:
        if not side and (match := _SIDE.fullmatch(key)):
            key, side = match["key"], "lr" if match["side"].lower().startswith("l") else "hr"
            factor = int(match["factor"]) if match["factor"] else factor  # RealSR's LR2
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
    lows, no_image, notes = _sort_versions(names, factor)
    high = [path for path in names if path not in no_image and not any(path in low for low in lows.values())]
    if not lows:
        return TestFiles(folder, alone=tuple(high) if no_image else None, notes=tuple(notes))
    if factor is not None and factor not in lows:
        there = " and ".join(f"x{other}" for other in sorted(lows))
        raise InvalidInput(
            f"{folder}: holds LR of {there}, and none of x{factor}; give a folder of HR images alone, which are made "
            "smaller, or that scale"
        )
    low = [path for other, paths in lows.items() if factor in (None, other) for path in paths]
    return TestFiles(folder, *match_names(high, low, factor), notes=tuple(notes))


def _sort_versions(
    names: Mapping[Path, _Name], factor: int | None
) -> tuple[dict[int, list[Path]], list[Path], list[str]]:
    """Files that are versions of others by their names: LR by its factor, what is no test image, and words on it.

    They are smaller if the first of those that go on alike that can be read is.  A file named x2 may be twice as large
    as well, one named lr be of the same size (Lightroom), and one that goes on otherwise be another photograph.
    """
    lows: dict[int, list[Path]] = {}
    no_image: list[Path] = []
    notes: list[str] = []
    alike: dict[str, dict[Path, Path]] = {}
    for path, (ending, original) in _find_originals(names).items():
        alike.setdefault(ending, {})[path] = original
    versions = {path for paths in alike.values() for path in paths}
    for ending, originals in alike.items():
        path, original = next(iter(originals.items()))
        name, beside = names[path], f"{path} beside {original.name}"
        some = "" if len(originals) == 1 else f", and {len(originals) - 1} more that end so"
        said = bool(name.side or (name.factor and name.key == original.stem) or names[original].side)
        factors = (_find_factor(high, low, rounded_up=said) for low, high in originals.items())
        found = next(filter(None, factors), 1)
        counted = ending.strip(" _-").isdigit()  # 1_2 is no version of 1
        if found > 1 and name.factor in (None, found) and said:
            lows.setdefault(found, []).extend(originals)
        elif (
            found > 1 and not said and not counted and factor in (None, found) and _have_all(names, versions, originals)
        ):
            lows.setdefault(found, []).extend(originals)
            notes.append(f"{beside}: is taken for LR, as it is {found} times smaller{some}")
        elif names[original].side == "hr" and not counted:
            no_image += originals
            notes.append(f"{beside}: is no HR image by its name, nor LR by its size; passed over{some}")
        elif found > 1 or name.side == "lr":
            why = f"it is {found} times smaller" if found > 1 else "its name says LR"
            notes.append(f"{beside}: is taken for an HR image, though {why}; move it, if it is none{some}")
    return lows, no_image, notes


def _have_all(names: Mapping[Path, _Name], versions: set[Path], originals: Mapping[Path, Path]) -> bool:
    """Whether every image that is no version of another has one among these."""
    return {path for path in names if path not in versions} == {*originals.values()}


def _find_originals(names: Mapping[Path, _Name]) -> dict[Path, tuple[str, Path]]:
    """Files that by their names are versions of others: how their names go on after those, and which they are."""
    heads: dict[str, Path] = {name.key: path for path, name in names.items() if name.side == "hr"}
    heads |= {path.stem: path for path, name in names.items() if name.side != "lr"}
    keys = {name.key: path for path, name in names.items() if name.side == "hr"}
    found: dict[Path, tuple[str, Path]] = {}
    for path, name in names.items():
        stem = path.stem
        if name.side == "hr":
            continue
        if stem in keys:
            found[path] = "", keys[stem]
            continue
        ends = [end for end in range(1, len(stem)) if stem[:end] in heads]
        ends = [end for end in ends if stem[:end] == name.key or _is_version(stem, stem[:end])]
        if ends:
            found[path] = stem[ends[-1] :], heads[stem[: ends[-1]]]
    return found


def _find_factor(high: Path, low: Path, *, rounded_up: bool) -> int:
    """By how much LR is smaller, sides rounded down, or up too; 1 where it is not, 0 where one cannot be read."""
    try:
        sides = list(zip(_read_sides(high), _read_sides(low), strict=True))
    except InvalidInput:
        return 0
    factor = round(sides[0][0] / sides[0][1])
    most = factor - 1 if rounded_up else 0
    fits = factor > 1 and all(small in (large // factor, (large + most) // factor) for large, small in sides)
    return factor if fits else 1


def _read_sides(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    return _sides_of(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(4096)  # an original of many versions is measured beside each
def _sides_of(path: Path, *_state: int) -> tuple[int, int]:
    height, width = read_image(path).shape[:2]
    return height, width


def _find_beside(folder: Path, high: Path, highs: Sequence[Path], factor: int | None) -> tuple[Path | None, list[str]]:
    """A folder that does not say by its name that it is LR of these HR images, and is by sizes; and words on others."""
    fitting: dict[Path, int] = {}
    others = []
    for place in _list_beside(folder, high):
        found = _measure(highs, list_files(place), factor)
        if found is not None and found > 1:
            fitting[place] = found
        elif found is not None or high != folder or _LR_FOLDER.fullmatch(place.name):
            others.append(place)
    if len(fitting) == 1:
        [(low, found)] = fitting.items()
        return low, [f"{low}: is taken for LR, as its images are HR's, {found} times smaller"]
    left = ", ".join(str(place.relative_to(folder)) for place in sorted([*fitting, *others]))
    if not left:
        return None, []
    several = "; give a folder that holds HR and one of them" if fitting else ""
    return None, [f"{folder}: not used: {left}; LR is made from HR by MATLAB's bicubic{several}"]


def _list_beside(folder: Path, high: Path) -> list[Path]:
    """Folders with images beside HR's, or in it, or their parts by factors; those for training are left alone."""
    places = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if _HR_FOLDER.fullmatch(inner.name) or "train" in inner.name.lower() or inner in (high, *high.parents):
            continue
        try:
            parts = [part for part in sorted(inner.iterdir()) if part.is_dir() and _FACTOR_FOLDER.fullmatch(part.name)]
            places += [p for p in (inner, *parts) if any(is_image_name(path.name) for path in list_files(p))]
        except (OSError, InvalidInput):  # a disk's lost+found
            continue
    return places


def _measure(highs: Sequence[Path], lows: Sequence[Path], factor: int | None) -> int | None:
    """By how much images are smaller than HR of their names; 1 where not, or not all are; None where there is no HR."""
    found: list[int] = []
    for low in lows[:_TRIED]:
        several = _find_partners(low, highs)
        if len(several) == 1 and (ratio := _find_factor(several[0], low, rounded_up=False)):
            found.append(ratio)
        if len(found) == _LOOKED_AT:
            break
    if not found:
        return None
    return found[0] if len({*found}) == 1 and factor in (None, found[0]) else 1


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


def list_names(paths: Sequence[Path]) -> str:
    """The names of the first three files."""
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
