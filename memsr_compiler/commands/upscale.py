"""memsrc upscale: image files made larger, in as much memory as is allowed."""

from __future__ import annotations

import glob
import hashlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memsr_compiler.commands.options import ReadingOptions, UpscaleOptions
from memsr_compiler.commands.output import Talk
from memsr_compiler.commands.resume import Journal
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.streams import WRITTEN, RowFile
from memsr_compiler.plain.read import read_plain_file
from memsr_compiler.runtime.upscale_file import ByBands, RowEngine, WholeFrame, enlarge_file
from memsr_compiler.runtime.upscaler import Upscaler

PATTERN = "*?["


@dataclass(frozen=True)
class Job:
    """An image file and what is to become of it."""

    image: RowFile
    target: Path


def run(options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Find the images, check all, enlarge one after the other."""
    for number in (signal.SIGINT, signal.SIGTERM):  # everything is imported: from here on either tidies up
        signal.signal(number, signal.default_int_handler)
    sources, several = _sources(options.source)
    if several:
        _make_folder(options.target)
    engine = _engine(options, reading, talk)
    scale = _scale(engine, options.scale)
    journal = Journal.of(options.target, _work(options, reading, scale)) if several else None
    jobs, kept, failed = _jobs(sources, options, journal, talk)
    seconds = time.perf_counter()
    finished = []
    with talk.bar(sum(job.image.width * job.image.height for job in jobs)) as advance:
        for job in jobs:
            image, name = job.image, job.image.path.name

            def on_rows(rows: int, image: RowFile = image, name: str = name) -> None:
                advance(rows * image.width / scale, name)

            try:
                enlarge_file(engine, image, job.target, scale, on_rows)
            except InvalidInput as error:
                if not several:
                    raise
                failed.append(name)
                talk.warn(f"{error}; passed over")
                continue
            if journal is not None:
                journal.add(image.path, job.target)
            finished.append(job)
    seconds = time.perf_counter() - seconds
    talk.json(
        {
            "scale": scale,
            "seconds": seconds,
            "written": [{"image": str(job.image.path), "result": str(job.target)} for job in finished],
            "done_before": [str(path) for path in kept],
            "failed": failed,
        }
    )
    for job in finished:
        size = f"{job.image.width}x{job.image.height} -> {job.image.width * scale}x{job.image.height * scale}"
        talk.say(f"written      {job.target}  ({size})")
    if kept:
        talk.say(f"done before  {len(kept)} of {len(sources)}, left as they are")
    if failed:
        named = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        raise InvalidInput(f"{len(failed)} of {len(sources)} images could not be enlarged: {named}")


def _sources(source: str) -> tuple[list[Path], bool]:
    """The files, and whether it is to be a folder of results."""
    path = Path(source)
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    elif path.is_file():
        return [path], False
    elif any(letter in source for letter in PATTERN):
        paths = sorted(Path(p) for p in glob.glob(source) if Path(p).is_file())
    else:
        raise InvalidInput(f"{source}: there is no such file or folder")
    if not paths:
        raise InvalidInput(f"{source}: no file found there; give a folder with images, or a pattern in quotes")
    return paths, True


def _make_folder(path: Path) -> None:
    if path.suffix.lower() in WRITTEN and not path.is_dir():
        raise InvalidInput(f"{path}: several images go into a folder, and this is named like an image")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be made a folder ({error.strerror}); choose another place") from None


def _engine(options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> RowEngine:
    """The engine: by bands where the network is plain and nothing else is asked for."""
    path = options.model
    if options.tile == "off":
        if options.max_memory is not None:
            raise InvalidInput("--max-memory with --tile off: a whole frame takes what it takes; leave one of them out")
        from memsr_compiler.commands.models import open_network  # with torch, which bands do without

        model = open_network(reading.of(path), talk, provider=options.provider, threads=options.threads)
        return WholeFrame(model.network, model.takes)
    try:
        plain = read_plain_file(path, require_certificate=False)
    except InvalidInput as error:
        if not path.is_file():
            raise
        raise InvalidInput(
            f"{error} Only plain networks are run by bands, others hold values from far above; --tile off runs any "
            "network, on whole images."
        ) from None
    expected = plain.manifest.info.input_range
    if reading.input_range not in (None, expected):
        low, high = expected
        raise InvalidInput(f"{path}: takes values from {low:g} to {high:g}; leave --input-range out")
    columns = None if options.tile == "auto" else int(options.tile)
    folder = options.target if options.target.is_dir() else options.target.parent
    upscaler = Upscaler(
        plain,
        max_memory=options.max_memory,
        columns=columns,
        threads=options.threads,
        provider=options.provider,
    )
    return ByBands(upscaler, folder)


def _scale(engine: RowEngine, factor: int | None) -> int:
    own = engine.takes.scale
    if own == 1:
        if factor is None:
            raise InvalidInput("the network works on enlarged images and does not say by how much; give --scale")
        return factor
    if factor not in (None, own):
        raise InvalidInput(f"--scale {factor}: the network enlarges by {own}; leave --scale out")
    return own


def _jobs(
    sources: Sequence[Path], options: UpscaleOptions, journal: Journal | None, talk: Talk
) -> tuple[list[Job], list[Path], list[str]]:
    """Work that is to be done; results that are there already; names of files that cannot be read."""
    jobs: list[Job] = []
    kept: list[Path] = []
    failed: list[str] = []
    becomes: dict[Path, Path] = {}
    for source in sources:
        target = options.target if journal is None else _target(source, options.target, sources)
        other = becomes.setdefault(target, source)
        if other is not source:
            raise InvalidInput(f"{other} and {source}: would both become {target}; do them in separate folders")
        if journal is not None and not options.overwrite and journal.has(source, target):
            kept.append(target)
            continue
        try:
            image = RowFile.open(source, most_pixels=options.max_pixels)
        except InvalidInput as error:
            if journal is None:
                raise
            failed.append(source.name)
            talk.warn(f"{error}; passed over")
            continue
        _check_target(source, target, options.overwrite)
        for warning in image.warnings(target):
            talk.warn(warning)
        jobs.append(Job(image, target))
    if not jobs and not kept:
        raise InvalidInput(f"{options.source}: no readable image in it")
    return jobs, kept, failed


def _target(source: Path, folder: Path, sources: Sequence[Path]) -> Path:
    """The image's own name; as PNG where files of its kind are not written, with its kind where two would be one."""
    if source.suffix.lower() in WRITTEN:
        return folder / source.name
    alike = [p for p in sources if p.stem == source.stem]
    return folder / f"{source.name if len(alike) > 1 else source.stem}.png"


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix.lower() not in WRITTEN:
        raise InvalidInput(f"{target}: files of this kind are not written; end it in {', '.join(WRITTEN)}")
    if not target.parent.is_dir():
        raise InvalidInput(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise InvalidInput(f"{target}: is a folder; give the name of a file")
    if target.exists() and target.resolve() == source.resolve():
        raise InvalidInput(f"{target}: is the image itself; write somewhere else")
    if target.exists() and not overwrite:
        raise InvalidInput(f"{target}: is there already; choose another place, or give --overwrite")


def _work(options: UpscaleOptions, reading: ReadingOptions, scale: int) -> str:
    """All that results depend on, besides the image."""
    way = (reading.input_range, reading.arch, *(reading.arch_args or ()), *([reading.prefix] if reading.prefix else []))
    return f"x{scale}, network {hashlib.sha256(options.model.read_bytes()).hexdigest()}, {way}"
