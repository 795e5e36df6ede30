"""Networks side by side on this machine: what they cost, how long they take, what memory, how good they are."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.memory import Memory, peak_memory
from memsr_compiler.evaluation.scores import Score, TestImage, evaluate, mean
from memsr_compiler.images.files import sample_photographs
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.read import is_plain
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.runtime.open import Model, NetworkFile, common_scale, count_cost, open_model
from memsr_compiler.runtime.runners import Provider


@dataclass(frozen=True)
class Measured:
    """One network among those that were compared.

    path         as given;   engine  who computed it, and where
    size         width and height of what it was given: `size`, or the enlarged image for networks of scale 1
    parameters   None where the file does not tell
    cost         None for a network that no plain network can express
    precision    bytes of a value
    seconds      of every round
    ratio        median over the rounds of its seconds by the first network's: what slows a round down, slows both
    memory       of a run, beyond network and image; None on a GPU that torch does not find
    score        PSNR-Y and SSIM, averages; None without images
    """

    path: Path
    engine: str
    size: tuple[int, int]
    parameters: int | None
    cost: Cost | None
    precision: int
    seconds: tuple[float, ...]
    ratio: float
    memory: Memory | None
    score: Score | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds that a quarter of the rounds stayed below, and that a quarter exceeded."""
        lower, upper = np.quantile(self.seconds, (0.25, 0.75))
        return float(lower), float(upper)

    @property
    def macs(self) -> int | None:
        """Multiply-adds for the image."""
        width, height = self.size
        return None if self.cost is None else self.cost.macs_per_pixel * width * height

    @property
    def feature_maps(self) -> int | None:
        """Bytes of live feature maps in theory, at the worst moment."""
        width, height = self.size
        return None if self.cost is None else self.cost.memory(height, width, self.precision)


def photographs(scale: int) -> list[TestImage]:
    """Those that ship.  Raises InvalidInput if scikit-image, which brings them, is missing."""
    return [TestImage.of(f"photograph {i}", image, scale) for i, image in enumerate(sample_photographs(), 1)]


def benchmark(
    models: Sequence[str | Path | NetworkFile],
    *,
    size: tuple[int, int] = (960, 540),
    scale: int | None = None,
    provider: Provider = "cpu",
    threads: int | None = None,
    repeats: int = 5,
    images: Callable[[int], Sequence[TestImage]] | None = photographs,
    on_step: Callable[[str], None] | None = None,
) -> tuple[Measured, ...]:
    """Measure networks: .onnx and plain .safetensors in ONNX Runtime, teachers in torch.

    models    files; `runtime.open.NetworkFile` for a teacher that needs to be told how it is read
    size      width and height of the image to enlarge
    scale     where no network has one of its own (VDSR)
    provider  "cpu", "cuda" or "tensorrt"
    threads   None: the engine's choice
    repeats   rounds, in each of which every network runs once, so that other work on the machine hits all alike
    images    what to score them on, by the scale factor; None: nothing
    on_step   hears what is measured next

    Networks of scale 1 get the image as it is after interpolation, which is not measured.

    Raises InvalidInput for what is no network, networks of different scales, a provider that is not to be had;
    MemsrError where memory is not enough.
    """
    files = [model if isinstance(model, NetworkFile) else NetworkFile(Path(model)) for model in models]
    if min(repeats, *size) < 1 or not files:
        raise InvalidInput(f"{len(files)} networks, {repeats} repeats, size {size}: want 1 or more of each")
    step = on_step or (lambda what: None)
    with tempfile.TemporaryDirectory() as folder:
        factor, contenders = _contenders(files, Path(folder), size, scale, provider, threads)
        chosen = images(factor) if images is not None else ()
        memories, scores = [], []
        for c in contenders:
            step(f"memory of {c.model.name}")
            memories.append(peak_memory(c.file, c.shape, provider=provider, threads=threads))
        for c in contenders:
            step(f"quality of {c.model.name}")
            found = evaluate(c.model.network, c.model.takes, chosen, scale=factor)
            scores.append(mean(found) if found else None)
        step("time")
        seconds = interleaved([c.model.network.prepare(c.image()) for c in contenders], repeats)
    return tuple(_measured(*each, first=seconds[0]) for each in zip(contenders, memories, scores, seconds, strict=True))


@dataclass(frozen=True)
class _Contender:
    """given   the file that was named;   file   the one that runs;   shape   channels, height and width of its image"""

    given: NetworkFile
    file: NetworkFile
    model: Model
    shape: tuple[int, int, int]

    def image(self) -> torch.Tensor:
        low, high = self.model.takes.input_range
        return torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(0)) * (high - low) + low


def _contenders(
    files: Sequence[NetworkFile],
    folder: Path,
    size: tuple[int, int],
    scale: int | None,
    provider: Provider,
    threads: int | None,
) -> tuple[int, list[_Contender]]:
    """What all of them enlarge by, and they, ready to run."""
    ready = [_in_onnx(file, folder / f"{i}.{file.path.name}.onnx") for i, file in enumerate(files)]
    models = [
        replace(open_model(file, provider=provider, threads=threads), name=given.path.name)
        for given, file in zip(files, ready, strict=True)
    ]
    factor = common_scale(models, scale)
    shapes = [_shape(model, size, factor) for model in models]
    return factor, [_Contender(*each) for each in zip(files, ready, models, shapes, strict=True)]


def _measured(
    c: _Contender, memory: Memory | None, score: Score | None, seconds: tuple[float, ...], *, first: tuple[float, ...]
) -> Measured:
    parameters, cost = count_cost(c.given)
    return Measured(
        path=c.given.path,
        engine=c.model.network.engine,
        size=(c.shape[2], c.shape[1]),
        parameters=parameters,
        cost=cost,
        precision=c.model.network.precision.itemsize,
        seconds=seconds,
        ratio=statistics.median(mine / other for mine, other in zip(seconds, first, strict=True)),
        memory=memory,
        score=score,
    )


def interleaved(
    runs: Sequence[Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, ...]]:
    """Seconds of every run in every round: A B A B, after one round that does not count."""
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
    if file.path.suffix == ".onnx" or not is_plain(file.path):
        return file
    export_onnx(load_plain(file.path, require_certificate=False).float(), path)
    return NetworkFile(path)


def _shape(model: Model, size: tuple[int, int], scale: int) -> tuple[int, int, int]:
    """Channels, height and width of what the network is given."""
    factor = scale if model.takes.scale == 1 else 1
    return model.takes.channels, size[1] * factor, size[0] * factor
