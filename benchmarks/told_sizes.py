"""What two things in our ONNX files buy in ONNX Runtime: the sizes of all values, and integers in the last shuffle.

    python benchmarks/told_sizes.py

Each student that ships beside itself without the sizes of its values, those in 8 bits beside themselves with the last
pixel shuffle in floating point: peak memory of a process, and time as a ratio in the same rounds, one thread, 240x135
input.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
from machine import machine

from memsr_compiler import benchmark
from memsr_compiler.models.catalogue import ShippedModel, list_models
from memsr_compiler.plain.seal import seal
from memsr_compiler.torch_helpers import one_thread

SIZE = (240, 135)
ROUNDS = 41


def without_sizes(model: onnx.ModelProto) -> None:
    """Take out the sizes of inner values."""
    del model.graph.value_info[:]


def shuffling_numbers(model: onnx.ModelProto) -> None:
    """Let the last pixel shuffle move the numbers that its integers stand for."""
    *_, shuffle, _, dequantize = model.graph.node
    shuffle.output[0] = dequantize.output[0]
    del model.graph.node[-2:]


def measure(model: ShippedModel, change: Callable[[onnx.ModelProto], None], folder: Path) -> str:
    """A row of a table: MiB before and after, and the ratio of times."""
    changed = onnx.load(str(model.path))
    change(changed)
    del changed.metadata_props[-1:]  # the hash of the file, which ends it
    before = folder / f"{model.name}.onnx"
    before.write_bytes(seal(changed.SerializeToString(deterministic=True)))
    first, second = benchmark([before, model.path], size=SIZE, threads=1, repeats=ROUNDS, images=None)
    mebibytes = [m.memory.bytes / 2**20 for m in (first, second) if m.memory is not None]
    return f"| {model.name} | {' | '.join(f'{m:.1f}' for m in mebibytes)} | {second.ratio:.2f} |"


def main() -> None:
    print(f"{machine()}, {SIZE[0]}x{SIZE[1]} input")
    print("\n| | MiB without | MiB with | time |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, one_thread():
        for model in list_models():
            print(measure(model, shuffling_numbers if model.int8 else without_sizes, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
