"""memsrc quantize: a float32 ONNX network in, one of 8-bit integers out, and what that costs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memsr_compiler.arithmetic import join_arithmetics
from memsr_compiler.commands.given.material import read_material
from memsr_compiler.commands.given.networks import network_file, open_network
from memsr_compiler.commands.interface.check_outputs import check_outputs
from memsr_compiler.commands.interface.options import QuantizeOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk, finite
from memsr_compiler.commands.students.common import require_relus
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.image_sets import ImageSet, read_image_set
from memsr_compiler.evaluation.scores import enlarge, mean_psnr
from memsr_compiler.locks import keep_temporary_files
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.read import is_plain, read_plain_file
from memsr_compiler.plain.tflite_model import require_writable
from memsr_compiler.quantities import say_count
from memsr_compiler.quantization.quantize import Quantized, quantize
from memsr_compiler.quantization.tflite import export_integers
from memsr_compiler.reports.text import format_decibels
from memsr_compiler.runtime.litert import import_litert
from memsr_compiler.runtime.open import NetworkFile, count_cost, count_live, open_runner
from memsr_compiler.runtime.room import require_room
from memsr_compiler.runtime.runners import Network, Runner
from memsr_compiler.student.crops import batches
from memsr_compiler.tflite.model import TFLITE
from memsr_compiler.tflite.write import import_schema

PAIRS = 7  # runs of both, one after the other; the median ratio hardly depends on what else the machine does


@dataclass(frozen=True)
class Costs:
    """PSNR in dB of float32 and of 8 bits, and the arithmetic of each, in words.

    seconds   of float32;   ratio   time of 8 bits to that
    """

    psnr: tuple[float | None, float | None]
    arithmetics: tuple[str, str]
    seconds: float
    ratio: float


def run(options: QuantizeOptions, talk: Talk) -> None:
    """Read a network, measure ranges, write it in 8 bits, compare."""
    if options.model.suffix.lower() != ".onnx":
        raise InvalidInput(f"{options.model}: is not named .onnx; quantize reads ONNX files")
    if options.out.suffix not in (".onnx", TFLITE):
        raise InvalidInput(f"{options.out}: is not named .onnx or .tflite, which quantize writes; name it so")
    check_outputs(
        [options.out], reads=[options.model], images=[options.calibration, options.data], overwrite=options.overwrite
    )
    network = TeacherOptions(teacher=options.model, input_range=options.input_range)
    network_file(network, talk)  # raises where there is none
    if options.out.suffix == TFLITE:
        _require_tflite(options.model, options.out)
    plain = is_plain(options.model)
    if plain:
        info = read_plain_file(options.model, require_certificate=False).manifest.info
        require_relus(info, options.model, "written in 8 bits")
    model = open_network(network, talk, provider="cpu", threads=None)
    takes = model.takes
    height, width = model.network.fixed
    size = options.size if height is None or width is None else (width, height)
    cost = count_cost(NetworkFile(options.model))[1]
    if model.network.fixed == (None, None):  # else it runs on pieces
        require_room(str(options.model), takes, size, live=count_live(NetworkFile(options.model), cost))
    assumed = info.assumed if plain else model.assumed  # a plain one says what was assumed of its teacher
    material = read_material(options.calibration, takes, talk)
    images = batches(material.inputs(takes), samples=options.samples, seed=options.seed)
    data = options.data
    tests = material.tests(takes) if data is None else read_image_set(data, takes.scale, warn=talk.warn)
    if model.network.fixed != (None, None):
        enlarge(model.network, takes, tests.images[0])  # raises now, not after the work
    with talk.progress(2) as step:
        step("quantising")
        with keep_temporary_files():  # ONNX Runtime's
            written = _write(options.model, options.out, images, takes=takes, cost=cost, assumed=assumed)
        step("running both")
        pair = tuple(open_runner(NetworkFile(path), threads=1) for path in (options.model, options.out))
        costs = _compare(pair[0], pair[1], tests, takes, size)
    _tell(written, costs, tests, len(images), size, talk)


def _require_tflite(source: Path, out: Path) -> None:
    """Raise InvalidInput for a network that is not written as TFLite, MemsrError where nothing writes it or runs it."""
    if not is_plain(source):
        raise InvalidInput(f"{source}: is not plain, as a network for TFLite has to be; convert it, or write .onnx")
    require_writable(read_plain_file(source, require_certificate=False).manifest.info, str(out))
    import_schema()
    import_litert()


def _write(source: Path, out: Path, images: Sequence[Tensor], **facts: Any) -> Quantized:
    """Write the network in 8 bits: as ONNX, or the same integers as TFLite."""
    if out.suffix != TFLITE:
        return quantize(source, out, images, **facts)
    with tempfile.TemporaryDirectory() as folder:
        written = quantize(source, Path(folder) / "int8.onnx", images, **facts)
        export_integers(written.path, out)
    return replace(written, path=out, bytes=out.stat().st_size)


def _compare(exact: Runner, integer: Runner, tests: ImageSet, takes: Takes, size: tuple[int, int]) -> Costs:
    scores = [
        mean_psnr(tests.images, (enlarge(network, takes, image) for image in tests.images))
        for network in (exact, integer)
    ]
    low, high = takes.input_range
    width, height = size
    image = torch.rand(1, takes.channels, height, width, generator=torch.Generator().manual_seed(0))
    arithmetics = exact.arithmetic, integer.arithmetic
    return Costs((scores[0], scores[1]), arithmetics, *time_ratio(exact, integer, image.mul_(high - low).add_(low)))


def time_ratio(one: Network, other: Network, image: Tensor) -> tuple[float, float]:
    """Seconds that one takes, and the time of the other as a part of that: medians of runs in turn."""
    pairs = [(_seconds(one, image), _seconds(other, image)) for _ in range(PAIRS + 1)][1:]  # the first takes memory
    return statistics.median(first for first, _ in pairs), statistics.median(b / a for a, b in pairs)


def _seconds(network: Network, image: Tensor) -> float:
    start = time.perf_counter()
    network(image)
    return time.perf_counter() - start


def _tell(written: Quantized, costs: Costs, tests: ImageSet, batches: int, size: tuple[int, int], talk: Talk) -> None:
    width, height = size
    talk.json(
        {
            "written": str(written.path),
            "convolutions_in_8_bits": written.convolutions,
            "bytes": {"float32": written.source_bytes, "int8": written.bytes},
            "psnr": {"float32": finite(costs.psnr[0]), "int8": finite(costs.psnr[1])},
            "psnr_on": tests.words,
            "protocol": "edsr",
            "arithmetic": {"float32": costs.arithmetics[0], "int8": costs.arithmetics[1]},
            "size": [width, height],
            "seconds": {"float32": costs.seconds, "int8": costs.seconds * costs.ratio},
            "time_ratio": costs.ratio,
        }
    )
    talk.table(
        f"PSNR on {tests.words}, protocol edsr; one thread, a {width}x{height} input",
        ("", "PSNR-Y", "file", "time"),
        [
            (
                "float32",
                format_decibels(costs.psnr[0]),
                _kilobytes(written.source_bytes),
                f"{costs.seconds * 1e3:.0f} ms",
            ),
            ("int8", format_decibels(costs.psnr[1]), _kilobytes(written.bytes), f"x {costs.ratio:.2f}"),
        ],
    )
    talk.say(f"computed in  {join_arithmetics(dict(zip(('float32', 'int8'), costs.arithmetics, strict=True)))}")
    talk.say(
        f"8 bits       {say_count(written.convolutions, 'convolution')}; ranges measured on "
        f"{say_count(batches, 'batch', 'batches')} of crops"
    )
    ends = "  (int8 in and out, NHWC; images of any size)" if written.path.suffix == TFLITE else ""
    talk.say(f"written      {written.path}{ends}")


def _kilobytes(count: int) -> str:
    return f"{count / 1e3:,.0f} kB"
