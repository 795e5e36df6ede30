"""PSNR on Set5 of trained networks and of their plain forms, in torch and in ONNX Runtime.

    python benchmarks/pretrained.py MODELS BENCHMARKS

MODELS      a folder with IMDN_noCCA_x4.pth and vdsr.safetensors
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, Set5/x4/...
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx, load_teacher
from memsr_compiler.images.files import read_images, to_image, to_tensor
from memsr_compiler.images.metrics import psnr, srcnn_input
from memsr_compiler.runtime.runners import OrtNetwork

SHIPPED = Path(__file__).parent.parent / "examples" / "edsr_8x32_x2.pt"


def rgb_psnr(network: object, folder: Path, scale: int) -> float:
    """Protocol A."""
    scores = []
    for low, high in zip(read_images(folder / "LR"), read_images(folder / "HR"), strict=True):
        with torch.no_grad():
            scores.append(psnr(to_image(network(to_tensor(low))), high, scale=scale))  # type: ignore[operator]
    return float(np.mean(scores))


def luma_psnr(network: object, folder: Path, scale: int) -> float:
    """Protocol E: Y of the bicubically enlarged image in, Y out."""
    scores = []
    for high in read_images(folder / "HR"):
        bicubic = torch.from_numpy(srcnn_input(high, scale)).float()[None, None]
        with torch.no_grad():
            output: Tensor = network(bicubic)  # type: ignore[operator]
        scores.append(psnr(output[0, 0].double().numpy(), high, scale=scale, protocol="srcnn"))
    return float(np.mean(scores))


def row(name: str, teacher: nn.Module, score: object) -> None:
    net = compile_to_plain(teacher)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(net, Path(folder, "plain.onnx"))
        values = [score(n) for n in (teacher, net, OrtNetwork(Path(folder, "plain.onnx")))]  # type: ignore[operator]
    print(f"{name:28} {values[0]:10.4f} {values[1]:10.4f} {values[2]:10.4f}   widest {max(net.widths)}")


def main(models: Path, benchmarks: Path) -> None:
    print(machine())
    print(f"{'PSNR-Y on Set5, dB':28} {'teacher':>10} {'plain':>10} {'plain, ORT':>10}")
    set5 = benchmarks / "Set5"
    row("EDSR 8x32 x2 (shipped)", load_teacher(SHIPPED), lambda n: rgb_psnr(n, set5 / "x2", 2))
    row("IMDN, no attention, x4", load_teacher(models / "IMDN_noCCA_x4.pth"), lambda n: rgb_psnr(n, set5 / "x4", 4))
    vdsr = load_teacher(models / "vdsr.safetensors")
    for scale in (2, 3, 4):
        row(f"VDSR x{scale} (protocol E)", vdsr, lambda n, s=scale: luma_psnr(n, set5 / f"x{s}", s))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
