"""memsrc upscale: image files made larger, in as much memory as is allowed; those of a folder by several processes."""

from __future__ import annotations

import gc
import glob
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from memsr_compiler.commands.given.own_code import digest_code
from memsr_compiler.commands.interface.command import SomeNotDone
from memsr_compiler.commands.interface.options import ReadingOptions, UpscaleOptions
from memsr_compiler.commands.interface.output import Done, Talk
from memsr_compiler.commands.runs.resume import ImageState, Journal, JournalNotWritten
from memsr_compiler.errors import InvalidInput, MemsrError, escape_controls, first_line
from memsr_compiler.files import is_image_name, list_files, require_file
from memsr_compiler.images.limits import require_holds
from memsr_compiler.images.streams import WRITTEN, RowFile
from memsr_compiler.locks import hold_folder, remove_leftovers
from memsr_compiler.plain.info import takes_images
from memsr_compiler.plain.read import read_plain_file
from memsr_compiler.quantities import say_count
from memsr_compiler.runtime.ort_layers import THREADS
from memsr_compiler.runtime.upscale_file import ByBands, RowEngine, WholeFrame, enlarge_file
from memsr_compiler.runtime.upscaler import Upscaler
from memsr_compiler.sharing import Launch, Team
from memsr_compiler.trace.onnx.digest import network_digest
from memsr_compiler.video.names import is_film_name, require_av

PATTERN = "*?["


@dataclass(frozen=True)
class Job:
    """An image file, as it was when it was looked at, and what is to become of it."""

    image: RowFile
    state: ImageState
    target: Path


@dataclass(frozen=True)
class Written:
    """A result: of which image, and in words how large, and what was held for it; by which of several processes."""

    image: str
    result: str
    words: str
    process: int | None = None

    @staticmethod
    def of(job: Job, scale: int, process: int | None = None) -> Written:
        width, height = job.image.width, job.image.height
        size = f"{width}x{height} -> {width * scale}x{height * scale}"
        held = job.image.say_held(job.target, scale)
        return Written(str(job.image.path), str(job.target), "; ".join(filter(None, (size, held))), process)


@dataclass(frozen=True)
class Account:
    """A run's end: what was written in how many seconds, what was there, and why the rest could not be, by its path."""

    network: Path
    scale: int
    seconds: float
    written: Sequence[Written]
    kept: Sequence[Path] = ()
    failed: Mapping[Path, str] = field(default_factory=dict)


@dataclass
class Folder:
    """A folder of results: what is to be done, what has been.

    kept    results that were there;   failed   why an image could not be enlarged, by its path
    """

    talk: Talk
    jobs: list[Job] = field(default_factory=list)
    finished: list[Job] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    @contextmanager
    def passing_over(self, source: Path) -> Iterator[None]:
        """Whatever goes wrong with one image does not stop the others."""
        try:
            yield
        except JournalNotWritten:
            raise
        except Exception as error:  # of decoder, network and encoder: there is no base to all that can be wrong
            self.failed[source] = _explain(source, error)
            self.talk.warn(f"{self.failed[source].rstrip('.')}; passed over")


@dataclass(frozen=True)
class Enlarger:
    """A network that enlarges images of a folder one by one, beside other processes that do the others.

    work   all that results depend on, besides the image
    """

    options: UpscaleOptions
    engine: RowEngine
    scale: int
    work: str
    talk: Talk

    @staticmethod
    def open(options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> Enlarger:
        """Raises InvalidInput for a network, a limit or a scale that do not fit."""
        engine = _open_engine(options, reading, talk)
        scale = _choose_scale(engine, options.scale)
        return Enlarger(options, engine, scale, _describe_work(options, reading, engine, scale), talk)

    def enlarge(
        self, source: Path, target: Path, owner: Path, journal: Journal, process: int | None = None
    ) -> dict[str, Any]:
        """Enlarge an image; give what has become of it: fields of `Written`, or "kept" or "failed", with which or why.

        owner   the image whose result this is
        """
        folder = Folder(self.talk)
        with folder.passing_over(source):
            _require_owner(source, target, owner)
            _sort_in(source, target, folder, journal, self.scale, self.options)
            for job in folder.jobs:
                _do(job, self.engine, self.scale, journal, _be_silent)
                return asdict(Written.of(job, self.scale, process))
        if folder.failed:
            gc.collect()
            return {"failed": folder.failed[source]}
        return {"kept": str(target)}


def run(options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Enlarge an image, or all of a folder."""
    for number in (signal.SIGINT, signal.SIGTERM):  # everything is imported: from here on either tidies up
        signal.signal(number, signal.default_int_handler)
    launch = Launch.find()
    if is_film_name(options.source) and not Path(options.source).is_dir():
        if launch is None or launch.rank == 0:  # there is nothing to share in a single film
            _run_film(options, reading, talk)
        return
    _require_no_film(options)
    sources, several = _find_sources(options.source)
    if several and launch is not None:
        make_folder(options.target)
        _share_folder(sources, _share_machine(options, launch), reading, talk, launch)
        return
    if launch is not None and launch.rank > 0:
        return  # there is nothing to share in a single image
    if several:
        make_folder(options.target)
        with hold_folder(options.target):
            _run_folder(sources, options, reading, talk)
        return
    engine = _open_engine(options, reading, talk)
    scale = _choose_scale(engine, options.scale)
    job = _look_at(sources[0], options.target, scale, options, talk)
    remove_leftovers(options.target.parent)
    seconds = time.perf_counter()
    with talk.bar(job.image.width * job.image.height) as advance:
        enlarge_file(engine, job.image, job.target, scale, _report_rows(job, scale, advance))
    _tell(Account(options.model, scale, time.perf_counter() - seconds, [Written.of(job, scale)]), talk)


def _run_film(options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> None:
    require_av()
    require_file(Path(options.source))
    if not Path(options.source).exists():
        if any(letter in options.source for letter in PATTERN) and glob.glob(options.source):
            raise InvalidInput(f"{options.source}: films are enlarged one by one; give one of them")
        raise InvalidInput(f"{options.source}: there is no such file or folder")
    from memsr_compiler.commands.upscale_film import run as run_film  # with PyAV

    engine = _open_engine(options, reading, talk)
    run_film(options, reading, engine, _choose_scale(engine, options.scale), talk)


def _require_no_film(options: UpscaleOptions) -> None:
    """Raises InvalidInput for options that only films have."""
    for name in ("codec", "quality", "frames"):
        if getattr(options, name) is not None:
            raise InvalidInput(f"--{name}: is for films, and {options.source} is named like none; leave it out")
    if is_film_name(options.target) and not options.target.is_dir():
        raise InvalidInput(
            f"{options.target}: is named like a film, and {options.source} is not; name it like an image"
        )


def _run_folder(sources: Sequence[Path], options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Look at all images, enlarge one after the other."""
    engine = _open_engine(options, reading, talk)
    scale = _choose_scale(engine, options.scale)
    targets = _name_targets(sources, options.target)
    owners = _find_owners(targets)
    folder = Folder(talk)
    seconds = time.perf_counter()
    with Journal(options.target, _describe_work(options, reading, engine, scale)) as journal:
        for source, target in targets.items():
            with folder.passing_over(source):
                _require_owner(source, target, owners[target])
                _sort_in(source, target, folder, journal, scale, options)
        with talk.bar(sum(job.image.width * job.image.height for job in folder.jobs)) as advance:
            for job in folder.jobs:
                with folder.passing_over(job.image.path):
                    _do(job, engine, scale, journal, advance)
                    folder.finished.append(job)
                if job.image.path in folder.failed:
                    gc.collect()  # memory and disk that it held: a file that is removed takes room while it is open
    written = [Written.of(job, scale) for job in folder.finished]
    seconds = time.perf_counter() - seconds
    _tell_folder(Account(options.model, scale, seconds, written, folder.kept, folder.failed), sources, talk)


def _share_folder(
    sources: Sequence[Path], options: UpscaleOptions, reading: ReadingOptions, talk: Talk, launch: Launch
) -> None:
    """Enlarge images together with the other processes of the launch; the first of them tells what has become of all.

    An image is looked at by whoever enlarges it.
    """
    first = launch.rank == 0
    enlarger = Enlarger.open(options, reading, talk)
    targets = _name_targets(sources, options.target)
    owners = _find_owners(targets)
    by_name = {str(source): source for source in sources}

    def do(name: str) -> dict[str, Any]:
        source = by_name[name]
        return enlarger.enlarge(source, targets[source], owners[targets[source]], journal, launch.rank)

    seconds = time.perf_counter()
    with (
        Team.join(options.target, launch) as team,
        Journal(options.target, enlarger.work, team.alone) as journal,
        talk.bar(len(sources)) if first else nullcontext(_be_silent) as advance,
    ):
        told = 0
        for notes in team.each(list(by_name), do):
            advance(len(notes) - told, f"{len(notes)} of {len(sources)}")
            told = len(notes)
    seconds = time.perf_counter() - seconds
    if not first:
        return
    outcomes = [(source, notes[name]) for name, source in by_name.items()]
    written = [Written(**outcome) for _, outcome in outcomes if "image" in outcome]
    kept = [Path(outcome["kept"]) for _, outcome in outcomes if "kept" in outcome]
    failed = {source: outcome["failed"] for source, outcome in outcomes if "failed" in outcome}
    _tell_folder(Account(options.model, enlarger.scale, seconds, written, kept, failed), sources, talk)


def _share_machine(options: UpscaleOptions, launch: Launch) -> UpscaleOptions:
    """The options of one of several processes: its share of the machine's cores, unless told how many; its GPU."""
    if options.provider != "cpu":
        launch.take_gpu()
    cores = max((os.cpu_count() or 1) // launch.beside, 1)
    return replace(options, threads=options.threads or min(cores, THREADS))


def _be_silent(amount: float, what: str) -> None:
    """Say nothing of progress, which another process tells."""


def _sort_in(source: Path, target: Path, folder: Folder, journal: Journal, scale: int, options: UpscaleOptions) -> None:
    """Look at an image: its result is there already, or it is a job.  Raises whatever speaks against it."""
    require_file(source)
    if is_film_name(source):
        raise InvalidInput(f"{source}: is a film; enlarge it by itself: memsrc upscale FILM RESULT")
    if not options.overwrite and journal.has(ImageState.of(source), target):
        folder.kept.append(target)
    else:
        folder.jobs.append(_look_at(source, target, scale, options, folder.talk))


def _look_at(source: Path, target: Path, scale: int, options: UpscaleOptions, talk: Talk) -> Job:
    """Open an image; warn of what its result will lack.  Raises InvalidInput where it cannot be enlarged."""
    state = ImageState.of(source)
    image = RowFile.open(source, most_pixels=options.max_pixels)
    _check_target(source, target, options.overwrite)
    require_holds(target, image.width * scale, image.height * scale)
    for warning in image.warnings(target):
        talk.warn(warning)
    return Job(image, state, target)


def _do(job: Job, engine: RowEngine, scale: int, journal: Journal, advance: Done) -> None:
    """Enlarge an image of a folder."""

    def on_whole(staged: Path) -> None:
        if not job.state.is_of(job.image.path):
            raise InvalidInput(
                f"{job.image.path}: has changed since it was looked at, or is gone; run the command again"
            )
        journal.announce(job.state, job.target, staged)

    enlarge_file(engine, job.image, job.target, scale, _report_rows(job, scale, advance), on_whole)
    journal.confirm(job.state, job.target)


def _report_rows(job: Job, scale: int, advance: Done) -> Callable[[int], None]:
    return lambda rows: advance(rows * job.image.width / scale, job.image.path.name)


def _explain(source: Path, error: Exception) -> str:
    """Reason why an image could not be enlarged, with its path."""
    if isinstance(error, MemsrError):
        return str(error) if str(source) in str(error) else f"{source}: {error}"
    if isinstance(error, MemoryError):
        return f"{source}: there is not enough memory for it"
    if isinstance(error, OSError):
        return f"{source}: {error.strerror or error}"
    return f"{source}: {type(error).__name__}: {first_line(error)}"


def _say_failed(failed: Mapping[Path, str], sources: Sequence[Path]) -> str:
    named = ", ".join(path.name for path in list(failed)[:5]) + (", ..." if len(failed) > 5 else "")
    if len(failed) == 1:
        ((path, reason),) = failed.items()
        named = f"{path.name}: {reason.removeprefix(f'{path}: ')}"
    return f"{len(failed)} of {say_count(len(sources), 'file')} could not be enlarged: {named}"


def _tell_folder(account: Account, sources: Sequence[Path], talk: Talk) -> None:
    """Tell what has become of a folder's images.

    Raises InvalidInput where none could be done, SomeNotDone where some could not.
    """
    kept, failed = account.kept, account.failed
    if failed and not account.written and not kept:
        raise InvalidInput(_say_failed(failed, sources))
    _tell(account, talk)
    if kept:
        talk.say(f"done before  {len(kept)} of {len(sources)}, left as they are")
    for reason in failed.values():
        talk.say(f"passed over  {escape_controls(reason)}")
    if failed:
        raise SomeNotDone(_say_failed(failed, sources))


def _tell(account: Account, talk: Talk) -> None:
    talk.json(
        {
            "network": str(account.network),
            "scale": account.scale,
            "seconds": account.seconds,
            "written": [
                {key: value for key, value in asdict(each).items() if key != "words" and value is not None}
                for each in account.written
            ],
            "done_before": [str(path) for path in account.kept],
            "failed": [path.name for path in account.failed],
            "passed_over": list(account.failed.values()),
        }
    )
    talk.say(f"network      {escape_controls(account.network.name)}")
    for each in account.written:
        talk.say(f"written      {escape_controls(each.result)}  ({each.words})")


def _find_sources(source: str) -> tuple[list[Path], bool]:
    """The files, and whether it is to be a folder of results."""
    path = Path(source)
    if path.is_dir():
        paths = list_files(path)
    elif path.is_file():
        return [path], False
    elif any(letter in source for letter in PATTERN):
        paths = sorted(p for p in map(Path, glob.glob(source)) if is_image_name(p.name) or not p.is_dir())
    else:
        require_file(path)
        raise InvalidInput(f"{source}: there is no such file or folder")
    if not paths:
        raise InvalidInput(f"{source}: no file found there; give a folder with images, or a pattern in quotes")
    return paths, True


def make_folder(path: Path) -> None:
    """Make a folder for results, if it is not there.  Raises InvalidInput where that cannot be."""
    if path.suffix.lower() in WRITTEN and not path.is_dir():
        raise InvalidInput(f"{path}: several images go into a folder, and this is named like an image")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be made a folder ({error.strerror}); choose another place") from None


def _open_engine(options: UpscaleOptions, reading: ReadingOptions, talk: Talk) -> RowEngine:
    """The engine: by bands where the network is plain and nothing else is asked for."""
    path = options.model
    if options.tile == "off":
        if options.max_memory is not None:
            raise InvalidInput("--max-memory with --tile off: a whole frame takes what it takes; leave one of them out")
        from memsr_compiler.commands.given.networks import open_network  # with torch, which bands do without

        model = open_network(reading.of(path), talk, provider=options.provider, threads=options.threads)
        return WholeFrame(model.network, model.takes, model.assumed)
    try:
        plain = read_plain_file(path, require_certificate=False)
    except InvalidInput as error:
        if not path.is_file():
            raise
        raise InvalidInput(
            f"{error} Only plain networks are run by bands, others hold values from far above; --tile off runs any "
            "network, on whole images."
        ) from None
    last = plain.manifest.layers[-1]
    expected = takes_images(plain.manifest.info, last.weight[0], last.shuffle, str(path)).input_range
    if reading.input_range not in (None, expected):
        low, high = expected
        raise InvalidInput(f"{path}: takes values from {low:g} to {high:g}; leave --input-range out")
    if reading.arch is not None or reading.arch_args or reading.prefix:
        raise InvalidInput(
            f"{path}: is a plain network, which tells all about itself; leave --arch, --arch-args, --prefix out"
        )
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


def _choose_scale(engine: RowEngine, factor: int | None) -> int:
    own = engine.takes.scale
    if own == 1:
        if factor is None:
            raise InvalidInput("the network works on enlarged images and does not say by how much; give --scale")
        return factor
    if factor not in (None, own):
        raise InvalidInput(f"--scale {factor}: the network enlarges by {own}; leave --scale out")
    return own


def _name_targets(sources: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Results by image: of its own name, as PNG where files of its kind are not written, with its kind where two would
    be one.
    """
    stems = Counter(path.stem for path in sources)
    targets = {}
    for path in sources:
        kind = "" if path.suffix.lower() in WRITTEN else ".png"
        name = path.name if not kind or stems[path.stem] > 1 else path.stem
        targets[path] = folder / f"{name}{kind}"
    return targets


def _find_owners(targets: Mapping[Path, Path]) -> dict[Path, Path]:
    """The first image of each result.  Raises InvalidInput where images of different folders would become one."""
    owners: dict[Path, Path] = {}
    for path, target in targets.items():
        other = owners.setdefault(target, path)
        if other.parent != path.parent:
            raise InvalidInput(f"{other} and {path}: would both become {target}; do them in separate folders")
    return owners


def _require_owner(source: Path, target: Path, owner: Path) -> None:
    """Raises InvalidInput where the result is another image's."""
    if owner != source:
        raise InvalidInput(f"{source}: would become {target}, as {owner} does; rename it")


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix.lower() not in WRITTEN:
        raise InvalidInput(f"{target}: files of this kind are not written; end it in {', '.join(WRITTEN)}")
    if not target.parent.is_dir():
        raise InvalidInput(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise InvalidInput(f"{target}: is a folder; give the name of a file")
    if target.exists() and target.resolve() == source.resolve():
        raise InvalidInput(f"{target}: is the image itself; write somewhere else")
    if os.path.lexists(target) and not overwrite:
        raise InvalidInput(f"{target}: is there already; choose another place, or give --overwrite")


def _describe_work(options: UpscaleOptions, reading: ReadingOptions, engine: RowEngine, scale: int) -> str:
    """All that results depend on, besides the image."""
    return f"x{scale}, {describe_network(options, reading, engine)}"


def describe_network(options: UpscaleOptions, reading: ReadingOptions, engine: RowEngine) -> str:
    """A network's content and how it was read: as told, and where nobody says, as a photograph or --no-probe had it."""
    way = (reading.input_range, reading.arch, *(reading.arch_args or ()), *([reading.prefix] if reading.prefix else []))
    code = "".join(f", code {sha256}" for sha256 in digest_code(reading.arch).values())
    taken = f", taken: {', '.join(engine.assumed)}" if engine.assumed else ""
    return f"network {network_digest(options.model)}, {way}{taken}{code}"
