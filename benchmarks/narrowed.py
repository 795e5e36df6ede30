"""What narrowing the ranges of 8-bit values is worth: PSNR-Y of students in 8 bits, with ranges as measured too.

    python benchmarks/narrowed.py PHOTOGRAPHS [STUDENT ...]

PHOTOGRAPHS  a folder of high-resolution photographs, made smaller by MATLAB's bicubic
STUDENT      files of plain networks; those that ship, if none is given

Calibrated as `memsrc quantize` does; protocol edsr; ONNX Runtime.  And by how many levels of 255 the network in 8 bits
is off, at most, in the middle of images of one pure colour.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
from machine import machine

from memsr_compiler import evaluate, quantize
from memsr_compiler.evaluation.scores import mean
from memsr_compiler.models.catalogue import list_models
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.read import read_plain_file
from memsr_compiler.quantization import narrow_ranges
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches

SHARES = {"as measured": [1.0], "narrowed": narrow_ranges._SHARES}
SIDE, BORDER = 64, 40  # of images of one colour, and of their results what is left out


def colours_off(exact: Path, integer: Path, input_range: tuple[float, float]) -> float:
    colours = torch.tensor(list(product(input_range, repeat=3)))
    images = colours[:, :, None, None].expand(-1, -1, SIDE, SIDE)
    one, other = (OrtNetwork(path, threads=1)(images) for path in (exact, integer))
    off = (one - other)[..., BORDER:-BORDER, BORDER:-BORDER].abs().max()
    return float(off) / (input_range[1] - input_range[0]) * 255


def main(photographs: Path, students: list[Path]) -> None:
    torch.set_num_threads(1)
    print(machine())
    for source in students or [model.path for model in list_models() if not model.int8]:
        info = read_plain_file(source).manifest.info
        takes = Takes(info.scale, info.channels, info.input_range)
        inputs = sample_inputs(scale=info.scale, channels=info.channels, input_range=info.input_range)
        exact = mean(evaluate(source, photographs)).psnr
        print(f"{source.stem:10} {exact:.3f}", end="", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "int8.onnx")
            for words, shares in SHARES.items():
                with patch.object(narrow_ranges, "_SHARES", shares):
                    quantize(source, out, list(batches(inputs, samples=36)), takes=takes)
                lost = exact - mean(evaluate(out, photographs)).psnr
                print(f"   {words} -{lost:.4f} dB, {colours_off(source, out, info.input_range):.1f} levels", end="")
        print(flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
