"""The time that plain networks take in ONNX Runtime, for a student that has to be fast enough."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from memsr_compiler.analysis.cost import cost_of_layers
from memsr_compiler.locks import temporary_folder
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.quantities import say_count
from memsr_compiler.runtime.ort import device_of, require_provider
from memsr_compiler.runtime.room import require_room
from memsr_compiler.runtime.runners import OrtNetwork, Provider


def make_timer(
    provider: Provider = "cpu", *, threads: int | None = None, rounds: int = 5
) -> Callable[[PlainNet, tuple[int, int]], float]:
    """Make a function that times a plain network on an image of (width, height), in milliseconds.

    provider   "cpu", "cuda" or "tensorrt";   threads   None: ONNX Runtime's choice
    rounds     after one that does not count; the fastest is told, since other work on the machine only slows it down

    Raises InvalidInput for a provider that is not to be had, MemsrError without ONNX Runtime.
    """
    require_provider(provider)

    def measure(net: PlainNet, size: tuple[int, int]) -> float:
        width, height = size
        info, layers = net.info, [(layer.weight.shape, layer.shuffle) for layer in net]
        takes = Takes(info.scale, info.channels, info.input_range)
        name = f"a plain network of {say_count(len(layers), 'layer')}"
        require_room(name, takes, size, live=cost_of_layers(layers).floats_per_pixel, device=device_of(provider))
        with temporary_folder(Path(tempfile.gettempdir())) as folder:
            export_onnx(net, folder / "plain.onnx")
            network = OrtNetwork(folder / "plain.onnx", threads=threads, provider=provider)
            run = network.prepare(torch.zeros(1, net.info.channels, height, width))
            times = []
            for _ in range(rounds + 1):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
        return 1000 * min(times[1:])

    return measure
