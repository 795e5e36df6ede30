"""Seconds and peak memory of networks on this machine, each beside one that all are compared with."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import nn

from memsr_compiler.evaluation.bench import time_in_turns
from memsr_compiler.evaluation.memory import peak_memory
from memsr_compiler.runtime.open import open_runner
from memsr_compiler.runtime.room import require_memory
from memsr_compiler.runtime.runners import TorchNetwork
from memsr_compiler.teachers.families.swinir import SwinIR
from memsr_compiler.torch_helpers import copy_module, one_thread
from paper.kept import keep
from paper.rivals import write_network
from paper.settings import Settings

ROUNDS = {"cpu": 3, "cuda": 30}


@dataclass(frozen=True)
class Contender:
    """A network, and channels, height and width of the image that it is given.

    key   of the network: what its time and memory depend on
    """

    key: str
    network: nn.Module
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Speed:
    """Seconds and bytes of a run, its seconds by those of the network beside it, and who measured it where."""

    seconds: float
    ratio: float
    memory: int
    engine: str
    machine: str


def require_room(contenders: Sequence[Contender], settings: Settings) -> None:
    """Raise InvalidInput, with how much it takes, where memory is not enough for a network that runs in torch."""
    for contender in contenders:
        if settings.device == "cuda" or isinstance(contender.network, SwinIR):
            require_memory(contender.network, (1, *contender.shape), settings.device)


def measure_speed(contender: Contender, beside: Contender, settings: Settings) -> Speed:
    """The speed of a network, in turns with another one, kept.  On a processor: one thread."""
    here = _describe_machine(settings.device)
    about = {"speed": contender.key, "shape": list(contender.shape), "beside": beside.key, "machine": here}

    def compute() -> Mapping[str, Any]:
        measure = _measure_on_gpu if settings.device == "cuda" else _measure_on_cpu
        return {**measure(contender, beside, 1 if settings.smoke else ROUNDS[settings.device]), "machine": here}

    return Speed(**keep(settings.runs / "speed", about, compute))


def _describe_machine(device: str) -> str:
    return f"{torch.cuda.get_device_name()}, {machine()}" if device == "cuda" else machine()


def _measure_on_cpu(contender: Contender, beside: Contender, rounds: int) -> dict[str, Any]:
    """In ONNX Runtime, SwinIR in torch, as its windows are numbered by the size of the image."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        files = []
        for name, one in (("beside", beside), ("contender", contender)):
            place = Path(folder, name)
            place.mkdir()
            files.append(write_network(copy_module(one.network, torch.float32).eval(), place, one.shape[0]))
        memory = peak_memory(files[1], contender.shape, threads=1)
        assert memory is not None, "a processor has memory"
        runners = [open_runner(file, threads=1) for file in files]
        images = [torch.rand(1, *one.shape, generator=torch.Generator().manual_seed(0)) for one in (beside, contender)]
        seconds = time_in_turns([r.prepare(x) for r, x in zip(runners, images, strict=True)], rounds)
    return {
        **_compare(seconds),
        "memory": memory.bytes,
        "engine": "torch" if files[1].path.suffix == ".pt" else "ONNX Runtime",
    }


def _measure_on_gpu(contender: Contender, beside: Contender, rounds: int) -> dict[str, Any]:
    """In torch; memory as `torch.cuda.max_memory_allocated` tells it, beyond weights and image."""
    torch.backends.cudnn.benchmark = True
    runs: list[Callable[[], object]] = []
    for one in (beside, contender):
        network = TorchNetwork(copy_module(one.network, torch.float32), provider="cuda")
        runs.append(network.prepare(torch.rand(1, *one.shape)))
    runs[1]()  # cuDNN tries its algorithms now, some of which want much memory
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    runs[1]()
    memory = torch.cuda.max_memory_allocated() - before
    return {**_compare(time_in_turns(runs, rounds)), "memory": memory, "engine": "torch"}


def _compare(seconds: Sequence[tuple[float, ...]]) -> dict[str, float]:
    first, own = seconds
    ratio = statistics.median(mine / other for mine, other in zip(own, first, strict=True))
    return {"seconds": statistics.median(own), "ratio": ratio}
