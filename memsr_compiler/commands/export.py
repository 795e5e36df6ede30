"""memsrc export: a plain network in, a TFLite file out."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from memsr_compiler.commands.given.material import read_material
from memsr_compiler.commands.interface.check_outputs import check_outputs
from memsr_compiler.commands.interface.options import ExportOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.students.common import require_relus
from memsr_compiler.errors import ExportError, InvalidInput
from memsr_compiler.evaluation.scores import enlarge, mean_psnr
from memsr_compiler.locks import keep_temporary_files
from memsr_compiler.lowering.equivalence import check_equivalence
from memsr_compiler.plain.halves import LayerPeak
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.probes import probe_images, sample_middles
from memsr_compiler.plain.read import is_quantized
from memsr_compiler.plain.tflite_model import export_tflite, require_writable
from memsr_compiler.plain.write import export_onnx
from memsr_compiler.quantization.quantize import quantize
from memsr_compiler.quantization.tflite import export_integers
from memsr_compiler.reports.text import format_decibels
from memsr_compiler.runtime.open import NetworkFile, count_cost, open_runner
from memsr_compiler.student.crops import batches
from memsr_compiler.tflite.write import import_schema
from memsr_compiler.torch_helpers import copy_module


def run(options: ExportOptions, talk: Talk) -> None:
    """Read a plain network, and write it as TFLite."""
    if options.out.suffix != ".tflite":
        raise InvalidInput(f"{options.out}: export writes TFLite; name it .tflite")
    check_outputs([options.out], reads=[options.model], images=[options.calibration], overwrite=options.overwrite)
    import_schema()  # raises now, not after the work
    size = None if options.size is None else (options.size.height, options.size.width)
    quantized = is_quantized(options.model)
    dtype = options.dtype or ("int8" if quantized else "float32")
    _check_calibration(options, dtype, quantized)
    if quantized:
        if dtype != "int8":
            raise InvalidInput(f"--dtype {dtype}: {options.model} is in 8 bits; give the network that it was made of")
        export_integers(options.model, options.out, ends=options.io, size=size, warn=talk.warn)
    else:
        net = load_plain(options.model, require_certificate=False)
        require_writable(net.info, str(options.out))
        if dtype == "int8":
            _require_quantizable(net, options.model)
            _quantize(net, options, size, talk)
        else:
            judge = partial(_require_near, options.out, net, talk) if dtype == "float16" else None
            export_tflite(net, options.out, dtype=dtype, size=size, judge=judge)
    sizes = "any size" if options.size is None else f"{options.size} only"
    ends = options.io if dtype == "int8" else "float32"
    talk.json({"written": str(options.out), "bytes": options.out.stat().st_size, "dtype": dtype, "io": ends})
    talk.say(f"written      {options.out}  ({dtype}; {ends} in and out, NHWC; images of {sizes})")


def _require_near(
    out: Path, net: PlainNet, talk: Talk, staged: Path | None, fitted: PlainNet, peaks: tuple[LayerPeak, ...]
) -> None:
    """Raises ExportError where the network in float16 is further from itself in float32 than a person accepts."""
    channels, input_range = net.info.channels, net.info.input_range
    images = probe_images(channels, input_range) | sample_middles(channels, input_range)
    halves = copy_module(fitted, torch.float16)
    found = check_equivalence(net, halves, images={name: x[:2] for name, x in images.items()})
    levels = f"{found.deviation / (input_range[1] - input_range[0]) * 255:.3g} of 255 grey levels"
    if not found:
        shift = " (shifts leave float16 few digits: convert again with --carry auto)" if net.largest_shift else ""
        raise ExportError(
            f"{out}: is not written. In float16 it is {levels} from itself on {found.input} ({found.arithmetic}); use "
            f"--dtype float32{shift}"
        )
    talk.say(f"measured     at most {levels} from the network as it is; {found.arithmetic}")


def _check_calibration(options: ExportOptions, dtype: str, quantized: bool) -> None:
    """Raise InvalidInput for options that say what nothing is done with."""
    if dtype == "int8" and not quantized:
        return
    why = f"{options.model} is in 8 bits already" if quantized else f"nothing is measured for {dtype}"
    for name, value, default in (
        ("--calibration", options.calibration, None),
        ("--samples", options.samples, ExportOptions.samples),
        ("--seed", options.seed, ExportOptions.seed),
    ):
        if value != default:
            raise InvalidInput(f"{name} {value}: {why}; leave {name} out")
    if dtype != "int8" and options.io != ExportOptions.io:
        raise InvalidInput(f"--io {options.io}: is for --dtype int8; others take and give float32; leave --io out")


def _require_quantizable(net: PlainNet, path: Path) -> None:
    """Raise InvalidInput for a network that `memsrc quantize` refuses."""
    require_relus(net.info, path, "written in 8 bits")
    if net[0].weight.dtype == torch.float16:
        raise InvalidInput(f"{path}: is float16; give the float32 network, of which 8 bits lose less")


def _quantize(net: PlainNet, options: ExportOptions, size: tuple[int, int] | None, talk: Talk) -> None:
    """Quantise as `memsrc quantize` does, and write that."""
    takes = Takes(net.info.scale, net.info.channels, net.info.input_range)
    material = read_material(options.calibration, takes, talk)
    images = batches(material.inputs(takes), samples=options.samples, seed=options.seed)
    with tempfile.TemporaryDirectory() as folder, talk.progress(3) as step:
        exact, integers = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        step("quantising")
        net.certificate = None
        export_onnx(net, exact)
        with keep_temporary_files():  # ONNX Runtime's
            cost = count_cost(NetworkFile(exact))[1]
            quantize(exact, integers, images, takes=takes, cost=cost, assumed=net.info.assumed)
        step("writing")
        export_integers(integers, options.out, ends=options.io, size=size)
        step("running both")
        tests = material.tests(takes)
        scores = []
        for path in (exact, integers):  # the same integers are in the file
            network = open_runner(NetworkFile(path), threads=1)
            scores.append(mean_psnr(tests.images, (enlarge(network, takes, image) for image in tests.images)))
    before, after = map(format_decibels, scores)
    talk.say(f"measured     PSNR-Y {before} in float32, {after} in 8 bits by ONNX Runtime, on {tests.words}")
