"""The folder of a run of `train` or `distill`: one run at a time, what it began with, whether it may begin or go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from memsr_compiler.commands.interface.command import option_defaults, option_values
from memsr_compiler.commands.interface.config_file import FORMER
from memsr_compiler.commands.interface.options import ReadingOptions
from memsr_compiler.commands.interface.output import Talk, is_first
from memsr_compiler.commands.interface.training_options import TrainingOptions
from memsr_compiler.errors import InvalidInput, MemsrError, first_line
from memsr_compiler.evaluation.image_sets import TestImage
from memsr_compiler.files import atomic_write, is_utf8
from memsr_compiler.locks import hold_folder
from memsr_compiler.quantities import say_count
from memsr_compiler.sharing import count_processes
from memsr_compiler.training import checkpoints
from memsr_compiler.training.progress import CURVES, LOG
from memsr_compiler.version import VERSION

if TYPE_CHECKING:
    from memsr_compiler.training.recipe import Recipe

CONFIG, VERSIONS, DATA = "config.yaml", "versions.yaml", "data.json"
MARK = "# A run of memsrc began with these options.\n"
STATE = (
    "step-*.ckpt",
    "best.ckpt",
    DATA,
    LOG,
    VERSIONS,
    CONFIG,
)  # besides its curves; known by the last, which goes last
NETWORKS = (".onnx", ".safetensors", ".tflite", ".pt", ".pth")
RESULTS = ("student.*", "network.*", "plain.onnx")
MAY_CHANGE = ("every", "workers", "cache", "out", "student", "teacher", "data", "val")  # while a run goes on
UNRECORDED = ("resume", "config", "overwrite", "allow-changed-data")  # options that are about a start, not the run
NAMED = 3  # of the files that have changed
OPTIONS = "options"  # of a run, kept beside its data: what stands in its record can be edited
CODE = "code"  # of one's own, among what a run is about

Data = Mapping[str, Mapping[str, str]]
"""What a run is about: kinds of files, and of each kind SHA-256 by name."""


@contextmanager
def hold_run(options: TrainingOptions, how: Recipe, record: Mapping[str, Any], talk: Talk) -> Iterator[Path | None]:
    """Keep the run's folder for this run; yield the checkpoint or folder to go on from, None for a beginning.

    The processes of one run are one: the first keeps the folder.  A run that is refused before its first checkpoint
    leaves nothing.

    Raises InvalidInput for a run that cannot be begun, or gone on with, and where another run is at work there.
    """
    _check_options(options, how)
    out = options.out
    _check_folder(options, record)
    if not is_first():
        yield _place(options)
        return
    with _make_folder(out), hold_folder(out):
        _check_folder(options, record)  # again, as another run may have ended meanwhile
        resume, begun = _place(options), is_begun(out)
        if begun and resume is None and not options.overwrite:
            talk.say(f"{out}: was begun before, and stopped without a checkpoint; begins from the start")
        try:
            yield resume
        except MemsrError:
            if not begun and not checkpoints.steps(out):
                remove_run(out)
            raise


def is_begun(folder: Path) -> bool:
    """Whether the folder holds what a run of ours began with."""
    try:
        ours = (folder / CONFIG).read_text("utf-8").startswith(MARK)
        return ours or "memsr_compiler: " in (folder / VERSIONS).read_text("utf-8")  # of earlier versions
    except (OSError, UnicodeDecodeError):
        return False


def _check_options(options: TrainingOptions, how: Recipe) -> None:
    """Check what can be known before any work.  Raises InvalidInput for what cannot be done."""
    for folder in (*options.data, options.val):
        if folder is not None and not folder.is_dir():
            raise InvalidInput(f"{folder}: is no folder; give one with photographs")
    how.share_of(count_processes())
    if how.precision == "fp16" and not torch.cuda.is_available():
        raise InvalidInput("--precision fp16 is for GPUs, and there is none; use bf16, or leave it out")


def _check_folder(options: TrainingOptions, record: Mapping[str, Any]) -> None:
    """Raises InvalidInput where the run cannot begin in its folder, or go on."""
    out = options.out
    if options.resume is not None:
        _check_resumed(options, options.resume, record)
        return
    if not is_first():
        return  # the first process may have begun the run by now, and its files are no other run's
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out}: is a file; give a folder for the run")
    if not is_utf8(str(out)):
        raise InvalidInput(f"{out}: is no name in UTF-8, and TensorBoard writes to no other; choose another --out")
    if out.suffix in NETWORKS and not out.is_dir():
        raise InvalidInput(
            f"{out}: is named like a network's file, and a run has a folder; give one. Of the network that is in it at "
            "the end memsrc export writes .tflite"
        )
    networks = [path for path in (record.get("student"), record.get("teacher")) if path is not None]
    for path, what in [*((path, "network") for path in networks), (options.config, "file of options")]:
        if path is not None and _would_replace(out, Path(str(path))):
            raise InvalidInput(
                f"{path}: is the {what} that is read, and a run in {out} replaces it; choose another --out"
            )
    if options.overwrite:
        return
    if out.is_dir() and checkpoints.steps(out):
        raise InvalidInput(f"{out}: holds a run already; --resume {out} goes on with it, --overwrite begins anew")
    kept = RESULTS if is_begun(out) else (*RESULTS, *STATE, "*.ckpt")
    there = sorted(path.name for pattern in kept for path in out.glob(pattern))
    if there:
        raise InvalidInput(
            f"{out}: holds {there[0]} already, which a run would replace; choose another --out or --overwrite"
        )


def _would_replace(run: Path, path: Path) -> bool:
    """Whether a file is one that a run in this folder removes, or writes anew."""
    place = Path(os.path.realpath(path))
    written = any(fnmatch(place.name, pattern) for pattern in (*RESULTS, *STATE))
    return written and str(place.parent) == os.path.realpath(run)


def _check_resumed(options: TrainingOptions, place: Path, now: Mapping[str, Any]) -> None:
    run = place.parent if place.is_file() else place
    if options.out.resolve() != run.resolve():
        raise InvalidInput(f"--out {options.out}: a run goes on in its own folder, {run}; leave --out out")
    if place.is_file() or checkpoints.steps(run) or not is_begun(run):
        checkpoints.load(checkpoints.newest(place))
    recorded = _read_options(run)
    _require_unedited(run, recorded)
    defaults = option_defaults(type(options)) | option_defaults(ReadingOptions)  # of options that it did not know yet
    defaults |= {name: value for name, value in FORMER.items() if name in defaults}
    for name in (name for name in {**recorded, **now} if name not in MAY_CHANGE):
        before = recorded.get(name, _as_recorded(defaults.get(name)))
        if now.get(name) != before:
            raise InvalidInput(
                f"--{name} {now.get(name)}: the run began with {before}, and goes on with that; leave it out, or begin "
                "another run"
            )


def _read_options(run: Path) -> dict[str, Any]:
    """The options in a run's folder."""
    import yaml

    return {k: v for k, v in (yaml.safe_load((run / CONFIG).read_text("utf-8")) or {}).items() if v != []}


def _require_unedited(run: Path, recorded: Mapping[str, Any]) -> None:
    """Raises InvalidInput where a run's folder has other options than it began with.

    Some would be followed from here on, so that the record is of no run that there was; others, as the rate, are in the
    state, and would not be.
    """
    began = _read_data(run / DATA).get(OPTIONS) if (run / DATA).exists() else None
    if began is None:
        return  # an earlier version began it
    now = _describe_options(recorded)
    for name in (name for name in {**began, **now} if began.get(name) != now.get(name)):
        raise InvalidInput(
            f"{run / CONFIG}: {name} is {now.get(name, 'not there')}, and the run began with "
            f"{began.get(name, 'none')}, and goes on with that; put it back, or begin another run"
        )


def _describe_options(recorded: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in recorded.items() if name not in MAY_CHANGE}


def _place(options: TrainingOptions) -> Path | None:
    """The checkpoint or folder to go on from; None for a run that has no checkpoint yet."""
    place = options.resume
    return place if place is not None and (place.is_file() or checkpoints.steps(place)) else None


@contextmanager
def _make_folder(folder: Path) -> Iterator[None]:
    """Make the folder, and those above it; those that are empty at the end vanish."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be made a folder ({error.strerror}); choose another place") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # in use: it is not empty
            for path in missing:
                path.rmdir()


def begin(out: Path, record: Mapping[str, Any]) -> None:
    """Write into a run's folder how it was begun, instead of any state that is there; the first process does."""
    import yaml

    if not is_first():
        return
    remove_run(out)
    for name, content in ((CONFIG, record), (VERSIONS, versions())):
        with atomic_write(out / name) as file:
            file.write((MARK if name == CONFIG else "").encode())
            file.write(yaml.safe_dump(content, sort_keys=False).encode())


def remove_run(folder: Path) -> None:
    """Remove the state of a run, so that another can begin; its results stay until the other one ends."""
    for path in [path for pattern in STATE for path in folder.glob(pattern)]:
        path.unlink()
    shutil.rmtree(folder / CURVES, ignore_errors=True)


def keep_data(options: TrainingOptions, data: Data, resume: Path | None, talk: Talk) -> None:
    """Keep what the run is about in its folder.

    Raises InvalidInput where it goes on with something else, unless that is allowed.
    """
    if not is_first():
        return
    path = options.out / DATA
    changes: list[str] = []
    if resume is not None and path.exists():
        before = {kind: names for kind, names in _read_data(path).items() if kind != OPTIONS}
        known, code = before.get(CODE, {}), data.get(CODE, {})
        if {**code, **known} == code:  # as it was; an import that is new would have changed the code that it is in
            new = ", ".join(sorted(code.keys() - known.keys()))
            told = f"what was in {new}, which its code imports" if known else "which code it began with"
            if new:  # an earlier version began it
                talk.warn(f"{options.out}: does not say {told}; from now on this is compared")
            before[CODE] = code
        changes = list_changes(before, data)
    if changes and not options.allow_changed_data:
        raise InvalidInput(
            f"{options.out}: its data are not those that the run began with: {'; '.join(changes)}. Give it the old "
            "ones, or go on with these by --allow-changed-data"
        )
    if changes:
        talk.warn(f"{options.out}: goes on with other data than it began with: {'; '.join(changes)}")
    if resume is not None and not path.exists():
        talk.warn(f"{options.out}: does not say which data it began with; from now on these are compared")
    with atomic_write(path) as file:
        file.write(json.dumps({**data, OPTIONS: _describe_options(_read_options(options.out))}, indent=1).encode())


def digest_tests(images: Sequence[TestImage]) -> dict[str, str]:
    """SHA-256 of validation images' pixels, HR and LR, by name."""
    return {image.name: _digest_arrays(image.high, image.low) for image in images}


def _digest_arrays(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def list_changes(before: Data, now: Data) -> list[str]:
    """Changes in words: "photographs: 2 added (a.png, b.png), 1 changed (c.png)"."""
    words = []
    for kind in {**before, **now}:
        old, new = before.get(kind, {}), now.get(kind, {})
        changes = {
            "added": [name for name in new if name not in old],
            "removed": [name for name in old if name not in new],
            "changed": [name for name in new if name in old and new[name] != old[name]],
        }
        named = [f"{len(names)} {what} ({_name_some(names)})" for what, names in changes.items() if names]
        if not named and list(old) != list(new):  # patch i is then of another photograph
            named = ["in another order"]
        if named:
            words.append(f"{kind}: {', '.join(named)}")
    return words


def _name_some(names: Sequence[str]) -> str:
    return ", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])])


def _read_data(path: Path) -> Data:
    try:
        content: Data = json.loads(path.read_bytes())
        return {str(kind): dict(names) for kind, names in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: is damaged ({first_line(error)}); remove it to go on without comparing data"
        ) from None


def record_of(*options: object) -> dict[str, Any]:
    """All options of a run by their names, not where they came from.

    Files by their whole paths, so that a run can go on from any folder.
    """
    values = {name: value for group in options for name, value in option_values(group).items()}
    return {
        name: _as_recorded(value)
        for name, value in values.items()
        if value not in (None, []) and name not in UNRECORDED
    }


def _as_recorded(value: object) -> object:
    """An option's value as it stands in the record."""
    if isinstance(value, (list, tuple)):
        return [_as_recorded(part) for part in value]
    return os.path.abspath(value) if isinstance(value, Path) else value


def versions() -> dict[str, str]:
    """The version of everything that a result may depend on."""
    from accelerate import __version__ as accelerate

    return {
        "memsr_compiler": VERSION,
        "torch": str(torch.__version__),
        "accelerate": accelerate,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {say_count(os.cpu_count() or 1, 'core')}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
    }


def steps_taken(resume: Path | None) -> int:
    """The number of steps that the run to be resumed has taken."""
    if resume is None:
        return 0
    step = checkpoints.load(checkpoints.newest(resume))["step"]
    assert isinstance(step, int)
    return step
