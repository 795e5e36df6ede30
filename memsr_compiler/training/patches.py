"""Patches of photographs, by number: patch i of a seed is always the same one, whoever asks, in whichever order.

So a run goes on where it stopped by knowing how many steps it has taken, and gives the same for any number of workers
or processes.  Photographs and their small versions are decoded and made once, and kept on disk as raw pixels of which
only what a patch needs is read.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.files import atomic_write, file_digest, is_image_name, list_files, require_file
from memsr_compiler.images.files import crop_to_multiple, read_image, say_inner
from memsr_compiler.images.pairs import find_others, is_high, list_high, list_names
from memsr_compiler.images.resize import resize
from memsr_compiler.locks import remove_leftovers

_DIGEST = 64  # characters of a SHA-256
_CHECKSUM = 4  # bytes of a CRC-32, behind the content of each file of the cache
_PIECE = 1 << 22
_READING = 4
"""Raised by whoever changes what `read_image` or `resize` make of any file.

It is in the names of what is kept: else pixels that an earlier version misread, and the labels that a teacher made of
them, would be trained on for ever, as the file that they are of is the same.
"""
_HIGH = "-high.raw"  # ends the names of large versions in the cache
Labels = Literal["photographs", "teacher", "both"]

WAYS = 8  # in which a picture can be turned by right angles and mirrored


@dataclass(frozen=True)
class Batch:
    """Patches, float32 in the network's range, and the photographs' names.

    low     (N, 3, p, p)
    high    (N, T, 3, s p, s p): what is wanted of them, the photograph, the teacher's output, or both; where there is
            no photograph, that output twice
    """

    low: Tensor
    high: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class RawPhotograph:
    """A photograph as raw pixels on disk, uint8: high (H, W, 3), a multiple of the scale, and low (H / s, W / s, 3).

    high     None of one that is zoomed into: its own pixels are low, and only a teacher knows larger ones
    sha256   of the file that it was read from
    label    a teacher's output for low, float16 (H, W, 3) in levels of 0 to 255: see `labels`
    """

    name: str
    high: Path | None
    low: Path
    size: tuple[int, int]
    sha256: str
    label: Path | None = None

    def is_whole(self, scale: int) -> bool:
        """Whether both files are as they were written."""
        count = 3 * self.size[0] * self.size[1]
        whole = self.high is None or is_as_written(self.high, count)
        return whole and is_as_written(self.low, count // scale**2)

    def open_low(self, scale: int) -> NDArray[np.uint8]:
        """The small pixels, of which only what is looked at is read."""
        height, width = self.size
        return map_raw(self.low, np.uint8, (height // scale, width // scale, 3))

    def open_high(self) -> NDArray[np.uint8]:
        """The large pixels, of which only what is looked at is read."""
        assert self.high is not None, "it is not zoomed into"
        return map_raw(self.high, np.uint8, (*self.size, 3))

    def open_label(self) -> NDArray[np.float16]:
        """The teacher's output, of which only what is looked at is read."""
        assert self.label is not None, "photographs have been labelled"
        return map_raw(self.label, np.float16, (*self.size, 3))


def find_image_folder(folder: Path, warn: Callable[[str], None] | None = None, *, given: Sequence[Path] = ()) -> Path:
    """The folder itself, or, where no image lies in it, one within it that is called HR, or ends so, as DIV2K's do.

    warn    hears of others in it that hold images, LR among them
    given   folders that are used besides

    Raises InvalidInput where there is no folder, or several may be meant.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: is no folder; give one with high-resolution photographs")
    if any(is_image_name(path.name) for path in list_files(folder)):
        _say_left(folder, [folder, *given], warn)
        return folder
    within = sorted(p for p in folder.iterdir() if p.is_dir())
    named = [p for p in within if p.name.endswith("HR")] or [p for p in within if is_high(p.name)]
    meant = [p for p in named if "valid" not in p.name] or named
    if len(meant) > 1:
        each = " ".join(f"--data {p}" for p in meant)
        raise InvalidInput(f"{folder}: {', '.join(p.name for p in meant)} may be meant; give those that are: {each}")
    source = (meant or [folder])[0]
    if meant:
        _say_left(folder, [source, *given], warn)
    return source


def _say_left(folder: Path, taken: Sequence[Path], warn: Callable[[str], None] | None) -> None:
    """Tell of folders of images in it that are not taken."""
    if warn is None:
        return
    low, others = find_others(folder, {path.resolve() for path in taken})
    if low:
        warn(f"{folder}: not used: {list_names(low)}; LR is made from HR by MATLAB's bicubic")
    if others:
        warn(f"{folder}: not used: {list_names(others)}; give those that are meant by --data, too")


def prepare_folders(
    folders: Sequence[Path],
    cache: Path,
    *,
    scale: int,
    patch: int,
    on_image: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[RawPhotograph]:
    """Read every photograph of several folders, one after the other; see `prepare_photographs`.

    Of more than one folder photographs are called FOLDER/NAME.
    """
    photographs = []
    for prefix, folder in zip(_name_folders(folders), folders, strict=True):
        of_folder = prepare_photographs(
            folder, cache, scale=scale, patch=patch, on_image=on_image, warn=warn, given=folders
        )
        photographs += [replace(photograph, name=prefix + photograph.name) for photograph in of_folder]
    return photographs


def _name_folders(folders: Sequence[Path]) -> list[str]:
    """The beginning of photographs' names in each folder, "" of a single one; folders of one name are counted."""
    if len(folders) == 1:
        return [""]
    names = [folder.resolve().name for folder in folders]
    return [
        f"{name}-{names[:i].count(name) + 1}/" if names.count(name) > 1 else f"{name}/" for i, name in enumerate(names)
    ]


def prepare_photographs(
    folder: Path,
    cache: Path,
    *,
    scale: int,
    patch: int,
    on_image: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    given: Sequence[Path] = (),
) -> list[RawPhotograph]:
    """Read every photograph in a folder that holds a patch: decoded and made smaller by MATLAB's bicubic, once.

    cache     where that is kept, for other runs too; what is there already is taken
    patch     side of a patch of the small image, in pixels;  warn  hears of what is not readable or too small
    given     folders that are used besides

    Raises InvalidInput if no photograph is left, ExportError where the cache cannot be written.
    """
    source = find_image_folder(folder, warn, given=given)
    paths, notes = list_high(source)
    if warn is not None:
        for note in notes:
            warn(note)
    remove_leftovers(cache)
    kept = _list_kept(cache)
    photographs: list[RawPhotograph] = []
    unreadable = 0
    for path in paths:
        if on_image is not None:
            on_image(path.name)
        try:
            photograph = _prepare(path, cache, kept, scale)
        except (InvalidInput, OSError) as error:  # the second where it has vanished
            unreadable += 1
            if warn is not None:
                why = str(error).rstrip(".") if isinstance(error, InvalidInput) else f"{path}: not a readable image"
                warn(f"{why}; passed over")
            continue
        if min(photograph.size) >= patch * scale:
            photographs.append(photograph)
        elif warn is not None:
            warn(f"{path}: smaller than a patch of {patch * scale} pixels; passed over")
    if not photographs:
        others = f", and {unreadable} that cannot be read" if unreadable else ""
        within = "" if paths else say_inner(source)
        raise InvalidInput(
            f"{source}: no photograph of at least {patch * scale}x{patch * scale} pixels in it{others}{within}"
        )
    return photographs


def _list_kept(cache: Path) -> dict[str, Path]:
    """Large versions in the cache by key; listed once, as it may hold tens of thousands of files."""
    try:
        names = os.listdir(cache)
    except OSError:  # not there yet; or writing will tell
        return {}
    return {name.split("-")[0]: cache / name for name in sorted(names, reverse=True) if name.endswith(_HIGH)}


def _prepare(path: Path, cache: Path, kept: Mapping[str, Path], scale: int) -> RawPhotograph:
    sha256 = _digest(path, cache)
    # A copy of a photograph, or one that was touched, is the same photograph.
    key = _key(f"{sha256} x{scale} reading {_READING}")
    high, low = kept.get(key), cache / f"{key}-low.raw"
    if high is not None:
        height, width = map(int, high.name.split("-")[1].split("x"))
        known = RawPhotograph(path.name, high, low, (height, width), sha256)
        if known.is_whole(scale):
            return known
    pixels = crop_to_multiple(read_image(path), scale)
    if min(pixels.shape[:2]) < scale:
        return RawPhotograph(path.name, low, low, (0, 0), "")
    high = cache / f"{key}-{pixels.shape[0]}x{pixels.shape[1]}{_HIGH}"
    write_raw(low, np.ascontiguousarray(resize(pixels, 1 / scale)).data)
    write_raw(high, np.ascontiguousarray(pixels).data)
    return RawPhotograph(path.name, high, low, (pixels.shape[0], pixels.shape[1]), sha256)


def _digest(path: Path, cache: Path) -> str:
    """SHA-256 of a photograph's file, taken again only where that is not as it was.

    Times of modification are told by whoever unpacks or copies a file; those of change, and its number, are not.
    """
    require_file(path)
    state = path.stat()
    looks = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    kept = cache / f"{_key(f'{path.resolve()} {looks}')}.sha256"
    if is_as_written(kept, _DIGEST):
        return kept.read_bytes()[:_DIGEST].decode("ascii")
    digest = file_digest(path)
    write_raw(kept, digest.encode())
    return digest


def _key(text: str) -> str:
    """The beginning of the names of what is kept of this."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def write_raw(path: Path, content: bytes | memoryview) -> None:
    """Write a file of the cache, which ends with a checksum of its name and content.

    Several processes may at once: each writes its own, and the last name wins.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
            file.write(_to_bytes(zlib.crc32(content, zlib.crc32(path.name.encode()))))
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another --cache") from None
    except ExportError as error:
        raise ExportError(f"{error} Or choose another --cache.") from None


def is_as_written(path: Path, count: int) -> bool:
    """Whether there is a file of the cache with so many bytes of content, under the name that it was written under.

    All of it is read: what has been damaged, or is another photograph's, looks like pixels too.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != count + _CHECKSUM:
                return False
            checksum, left = zlib.crc32(path.name.encode()), count
            while left and (piece := file.read(min(left, _PIECE))):
                checksum = zlib.crc32(piece, checksum)
                left -= len(piece)
            return file.read() == _to_bytes(checksum)
    except OSError:  # is not there, or cannot be read: writing it will tell
        return False


def _to_bytes(checksum: int) -> bytes:
    return checksum.to_bytes(_CHECKSUM, "little")


def map_raw(path: Path, dtype: type[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a file of the cache, of which only what is looked at is read; a plain array, whose views cost little."""
    return np.asarray(np.memmap(str(path), dtype, "r", shape=shape))


def turn(image: NDArray[Any], way: int) -> NDArray[Any]:
    """The image (H, W, C) turned by right angles and mirrored, one of WAYS."""
    turned = np.rot90(image, way % 4)
    return turned[:, ::-1] if way >= 4 else turned


def turn_back(image: NDArray[Any], way: int) -> NDArray[Any]:
    """The image that `turn` made this one of."""
    return np.rot90(image[:, ::-1] if way >= 4 else image, -(way % 4))


class Patches(Dataset[tuple[Tensor, Tensor, str]]):
    """Patches by number, from 0 without end: low (3, p, p), high (T, 3, s p, s p), the photograph's name.

    Photograph, place and way of turning are drawn from (seed, i) alone.  high is the photograph, or the teacher's
    output where there are labels, or both, in this order; that output for both where a photograph is zoomed into.
    """

    def __init__(
        self,
        photographs: Sequence[RawPhotograph],
        *,
        scale: int,
        patch: int,
        seed: int,
        input_range: tuple[float, float] = (0.0, 1.0),
        labels: Labels = "photographs",
    ) -> None:
        self._photographs, self._labels = photographs, labels
        self._scale, self._patch, self._seed, self._range = scale, patch, seed, input_range

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the photographs' files by name."""
        return {photograph.name: photograph.sha256 for photograph in self._photographs}

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, str]:
        random = np.random.default_rng([self._seed, i])
        photograph = self._photographs[int(random.integers(len(self._photographs)))]
        low = photograph.open_low(self._scale)
        top, left = (int(random.integers(extent - self._patch + 1)) for extent in low.shape[:2])
        way = int(random.integers(WAYS))
        large = torch.stack([self._cut(image, top, left, self._scale, way) for image in self._wanted(photograph)])
        return self._cut(low, top, left, 1, way), large, photograph.name

    def _wanted(self, photograph: RawPhotograph) -> list[NDArray[Any]]:
        if self._labels == "photographs":
            return [photograph.open_high()]
        label = photograph.open_label()
        if self._labels == "teacher":
            return [label]
        return [label if photograph.high is None else photograph.open_high(), label]

    def crops(self, count: int, side: int) -> list[Tensor]:
        """Parts of the small photographs (1, 3, side, side), at most `count`, less where a photograph is smaller.

        They are drawn from the seed; as many as there are, different photographs.
        """
        random = np.random.default_rng(self._seed)
        order = random.permutation(len(self._photographs))
        places = set()
        for i in range(count):
            number = int(order[i % len(order)])
            height, width = (extent // self._scale for extent in self._photographs[number].size)
            top, left = (int(random.integers(max(extent - side, 0) + 1)) for extent in (height, width))
            places.add((number, top, left))
        return [self._crop(*place, side) for place in sorted(places)]

    def _crop(self, number: int, top: int, left: int, side: int) -> Tensor:
        low = self._photographs[number].open_low(self._scale)
        return self._to_range(low[top : top + side, left : left + side])[None]

    def _cut(self, image: NDArray[Any], top: int, left: int, factor: int, way: int) -> Tensor:
        size = self._patch * factor
        part = image[top * factor : top * factor + size, left * factor : left * factor + size]
        return self._to_range(turn(part, way))

    def _to_range(self, image: NDArray[Any]) -> Tensor:
        """Tensor (3, h, w) in the network's range, of levels (h, w, 3)."""
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
        low, high = self._range
        return torch.from_numpy(pixels).float() * ((high - low) / 255) + low


def batches(
    patches: Patches, *, size: int, first: int, last: int, rank: int = 0, processes: int = 1, workers: int = 0
) -> Iterator[Batch]:
    """Batches number `first` to `last` - 1; of each the share of one process: size / processes patches.

    workers   processes that cut patches; 0: a thread of this one
    """
    loader = torch.utils.data.DataLoader(
        patches,
        batch_sampler=_Numbers(first, last, size, rank * (size // processes), size // processes),
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it draws from the one that networks draw from, at each start once
    )
    yield from loader if workers else _work_ahead(iter(loader))


def _work_ahead(source: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches, each of them made by a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, source, None)
            yield batch


@dataclass(frozen=True)
class _Numbers(Sampler[list[int]]):
    """Numbers of the patches of each step, first to last - 1: `count` of `size`, from `offset` on."""

    first: int
    last: int
    size: int
    offset: int
    count: int

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            start = step * self.size + self.offset
            yield list(range(start, start + self.count))

    def __len__(self) -> int:
        return self.last - self.first


def _collate(parts: Sequence[tuple[Tensor, Tensor, str]]) -> Batch:
    low, high, names = zip(*parts, strict=True)
    return Batch(torch.stack(low), torch.stack(high), names)
