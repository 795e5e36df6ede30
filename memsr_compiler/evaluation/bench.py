"""Networks side by side on this machine: what they cost, how long they take, what memory, how good they are."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.analysis.counted_run import count_multiply_adds
from memsr_compiler.checks import require_choice, require_listener, require_size, require_threads, require_whole
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import (
    SSIM_WINDOW,
    TestImage,
    TestImages,
    read_test_images,
    sample_test_images,
)
from memsr_compiler.evaluation.memory import Memory, measure_run, peak_memory
from memsr_compiler.evaluation.scores import Score, evaluate, mean
from memsr_compiler.locks import temporary_folder
from memsr_compiler.plain.info import takes_images
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.read import is_plain
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.runtime.open import (
    Model,
    NetworkFile,
    common_scale,
    count_cost,
    count_live,
    count_module,
    open_model,
)
from memsr_compiler.runtime.ort import device_of
from memsr_compiler.runtime.room import require_room
from memsr_compiler.runtime.runners import PROVIDERS, Provider, TorchNetwork
from memsr_compiler.teachers.teacher import TeacherLike, as_teacher
from memsr_compiler.torch_helpers import copy_module


@dataclass(frozen=True)
class Measured:
    """One network among those that were compared.

    path         as given, None for a module;   name  the file's, or the module's class
    engine       who computed it, and where;   arithmetic   the same and in what precision, in words
    size         width and height of what it was given: `size`, or the enlarged image for networks of scale 1
    parameters   None where the file does not tell
    cost         None for a network that no plain network can express
    precision    bytes of a value between its layers, as the file has it
    seconds      of every round
    ratio        median over the rounds of its seconds by the first network's: what slows a round down, slows both
    memory       of a run, beyond network and image; None on a GPU that torch does not find
    score        PSNR-Y and SSIM, averages; None without images
    note         words on the sizes that its file fixes; "" where there is nothing to say
    assumed      what the file does not say, see `Teacher`
    counted      multiply-adds of a run, where there is no cost and the network is a module; attention's count too
    """

    path: Path | None
    name: str
    engine: str
    size: tuple[int, int]
    parameters: int | None
    cost: Cost | None
    precision: int
    seconds: tuple[float, ...]
    ratio: float
    memory: Memory | None
    score: Score | None
    arithmetic: str = ""
    note: str = ""
    assumed: tuple[str, ...] = ()
    counted: int | None = None

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds that a quarter of the rounds stayed below, and that a quarter exceeded."""
        lower, upper = np.quantile(self.seconds, (0.25, 0.75))
        return float(lower), float(upper)

    @property
    def macs(self) -> int | None:
        """Multiply-adds that the image takes."""
        width, height = self.size
        return self.counted if self.cost is None else self.cost.macs_per_pixel * width * height

    @property
    def feature_maps(self) -> int | None:
        """Bytes of live feature maps in theory, at the worst moment."""
        width, height = self.size
        return None if self.cost is None else self.cost.memory(height, width, self.precision)


def benchmark(
    models: Sequence[TeacherLike | NetworkFile],
    *,
    size: tuple[int, int] = (960, 540),
    scale: int | None = None,
    provider: Provider = "cpu",
    threads: int | None = None,
    repeats: int = 5,
    images: Callable[[int], Sequence[TestImage]] | TestImages = sample_test_images,
    on_step: Callable[[str], None] | None = None,
) -> tuple[Measured, ...]:
    """Measure networks side by side: .onnx and plain networks in ONNX Runtime, .tflite in LiteRT, teachers in torch.

    models    files, what `read_teacher` gives, or modules; `runtime.open.NetworkFile` for a file that needs to be told
              how it is read.  Memory of modules is measured in this process, where it may have been more
    size      width and height of the image to enlarge
    scale     where no network has one of its own (VDSR)
    provider  "cpu", "cuda" or "tensorrt"
    threads   None: the engine's choice
    repeats   rounds, in each of which every network runs once, so that other work on the machine hits all alike
    images    what to score them on, as for `evaluate`, or a function that gives them by the scale factor; None: nothing
    on_step   hears what is measured next

    Networks of scale 1 get the image as it is after interpolation, which is not measured.

    Raises InvalidInput for what is no network, networks of different scales, a provider that is not to be had;
    MemsrError where memory is not enough.
    """
    if isinstance(models, str) or not isinstance(models, Sequence):
        raise InvalidInput(f"models: one {type(models).__name__}; give a list of networks")
    if not models:
        raise InvalidInput("there are no networks to compare; give a list of one or more")
    require_size(size)
    require_whole("repeats", repeats, 1, f"{repeats} repeats measure nothing; 5 is usual")
    require_threads(threads)
    require_choice("provider", provider, PROVIDERS)
    require_listener("on_step", on_step, "a text")
    step = on_step or (lambda what: None)
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        entries = [_enter(model, folder / str(i), provider, threads) for i, model in enumerate(models)]
        factor = common_scale([entry.model for entry in entries], scale)
        contenders = [_Contender(entry, _shape(entry.model, size, factor)) for entry in entries]
        tests = () if images is None else _read(images, factor)
        for c in contenders:
            c.require_memory(provider)
            if c.entry.model.network.fixed != (None, None):
                c.entry.model.network(c.image())  # raises where an image of this size cannot be put together
        memories, scores = [], []
        for c in contenders:
            step(f"memory of {c.entry.model.name}")
            memories.append(_memory(c, provider, threads))
        for c in contenders:
            step(f"quality of {c.entry.model.name}")
            each = evaluate(c.entry.model.network, c.entry.model.takes, tests, scale=factor) if tests else ()
            scores.append(mean(each) if each else None)
        step("time")
        seconds = time_in_turns([c.entry.model.network.prepare(c.image()) for c in contenders], repeats)
        measured = zip(contenders, memories, scores, seconds, strict=True)
        return tuple(_conclude(*each, first=seconds[0]) for each in measured)


def _read(images: Callable[[int], Sequence[TestImage]] | TestImages, factor: int) -> Sequence[TestImage]:
    return images(factor) if callable(images) else read_test_images(images, factor, window=SSIM_WINDOW)


@dataclass(frozen=True)
class _Entry:
    """A network, ready to run.

    path    of the file that was named, None for a module;   file  the one that runs, None for a module
    parameters, cost   None where they are not to be had
    """

    path: Path | None
    file: NetworkFile | None
    model: Model
    parameters: int | None
    cost: Cost | None


@dataclass(frozen=True)
class _Contender:
    """A network and the image that it is measured on: channels, height and width."""

    entry: _Entry
    shape: tuple[int, int, int]

    def image(self) -> torch.Tensor:
        low, high = self.entry.model.takes.input_range
        image = torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(0))
        return image.mul_(high - low).add_(low)

    def require_memory(self, provider: Provider) -> None:
        """Raise InvalidInput where memory is not enough for a run."""
        network, file = self.entry.model.network, self.entry.file
        if isinstance(network, TorchNetwork):
            network.require_memory((1, *self.shape))
        elif file is not None and network.fixed == (None, None):  # else it runs on pieces
            _, height, width = self.shape
            require_room(
                self.entry.model.name,
                self.entry.model.takes,
                (width, height),
                live=count_live(file, self.entry.cost),
                item_bytes=(network.precision.itemsize, network.inner.itemsize),
                device=device_of(provider),
            )


def _enter(source: TeacherLike | NetworkFile, place: Path, provider: Provider, threads: int | None) -> _Entry:
    """Open a network; a plain one is written to `place` as .onnx, so that all plain networks run in one engine."""
    if isinstance(source, (str, PathLike)):
        source = NetworkFile(Path(source))
    if isinstance(source, NetworkFile):
        ready = _in_onnx(source, place.with_suffix(f".{source.path.name}.onnx"))
        model = open_model(ready, provider=provider, threads=threads)
        return _Entry(source.path, ready, replace(model, name=source.path.name), *count_cost(source))
    teacher = as_teacher(source)
    name = teacher.path.name if teacher.path else type(teacher.module).__name__
    single = copy_module(teacher.module, torch.float32)
    if isinstance(single, PlainNet):
        ready = _write_onnx(single, name, place.with_suffix(".onnx"))
        model = open_model(ready, provider=provider, threads=threads)
        return _Entry(teacher.path, ready, replace(model, name=name), *count_cost(ready))
    network = TorchNetwork(single, provider=provider, threads=threads)
    model = Model(name, network, teacher.takes, teacher.assumed if teacher.path else ())
    return _Entry(teacher.path, None, model, *count_module(teacher.module))


def _memory(c: _Contender, provider: Provider, threads: int | None) -> Memory | None:
    """Memory of a run: in a process of its own for a file; a module cannot be taken there."""
    if c.entry.file is not None:
        return peak_memory(c.entry.file, c.shape, provider=provider, threads=threads)
    memory = measure_run(c.entry.model.network, c.shape, provider=provider)
    return memory and replace(memory, at_least=True)


def _conclude(
    c: _Contender, memory: Memory | None, score: Score | None, seconds: tuple[float, ...], *, first: tuple[float, ...]
) -> Measured:
    parameters, cost, network = c.entry.parameters, c.entry.cost, c.entry.model.network
    counted = None
    if cost is None and isinstance(network, TorchNetwork):
        with suppress(Exception):  # of a network that looks at values, say
            counted = count_multiply_adds(network.module, (1, *c.shape))
    return Measured(
        path=c.entry.path,
        name=c.entry.model.name,
        engine=network.engine,
        size=(c.shape[2], c.shape[1]),
        parameters=parameters,
        cost=cost,
        precision=network.inner.itemsize,
        seconds=seconds,
        ratio=statistics.median(mine / other for mine, other in zip(seconds, first, strict=True)),
        memory=memory,
        score=score,
        arithmetic=network.arithmetic,
        note=network.note,
        assumed=c.entry.model.assumed,
        counted=counted,
    )


def time_in_turns(
    runs: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, ...]]:
    """Seconds of every run in every round, taken in turns A B A B, after one round that does not count."""
    rounds = []
    for _ in range(repeats + 1):
        times = []
        for run in runs:
            start = clock()
            run()
            times.append(clock() - start)
        rounds.append(times)
    return list(zip(*rounds[1:], strict=True))


def _in_onnx(file: NetworkFile, path: Path) -> NetworkFile:
    """A plain network in .safetensors as .onnx, so that all plain networks run in one engine; others as they are."""
    if file.path.suffix.lower() == ".onnx" or not is_plain(file.path):
        return file
    return _write_onnx(load_plain(file.path, require_certificate=False).float(), str(file.path), path)


def _write_onnx(net: PlainNet, name: str, path: Path) -> NetworkFile:
    """A plain network as a file.  Raises InvalidInput naming it, not the file, for one that is not for photographs."""
    takes_images(net.info, len(net[-1].weight), net[-1].shuffle, name)
    export_onnx(net, path)
    return NetworkFile(path)


def _shape(model: Model, size: tuple[int, int], scale: int) -> tuple[int, int, int]:
    """Channels, height and width of the image that a network is given."""
    factor = scale if model.takes.scale == 1 else 1
    return model.takes.channels, size[1] * factor, size[0] * factor
