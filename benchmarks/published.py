"""Published PSNR and SSIM, measured again: bicubic interpolation and networks trained by others.

    python benchmarks/published.py MODELS BENCHMARKS [NAME ...]

MODELS      a folder with IMDN_x2.pth, IMDN_x3.pth, IMDN_x4.pth, IMDN_noCCA_x4.pth, RFDN_x4.pth and vdsr.safetensors
BENCHMARKS  a folder with Set5/x2/HR, Set5/x2/LR, ..., Set14, B100, and x3, x4
NAME        bicubic, imdn, rfdn, vdsr; default: all, which takes about 25 minutes of one core

Protocol srcnn for bicubic and VDSR, which the tables score on Y without an 8-bit LR image; edsr for the others, and for
bicubic once more, without a published row: tables of edsr networks print that of srcnn.  Where the weights at hand are
not those of the paper, the paper's row is printed all the same, and the note says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import machine

from memsr_compiler import TestImage, evaluate, load_teacher
from memsr_compiler.evaluation.scores import Score, evaluate_bicubic, mean
from memsr_compiler.images.files import read_images
from memsr_compiler.images.metrics import Protocol
from memsr_compiler.plain.info import Takes

TESTS = ("Set5", "Set14", "B100")
Published = tuple[tuple[float, float], ...]  # PSNR in dB and SSIM, on each of TESTS
Scorer = Callable[[Sequence[TestImage], int, Protocol], list[Score]]

VDSR_PAPER = "VDSR (CVPR 2016)"
IMDN_PAPER = "IMDN (ACM MM 2019)"
RFDN_PAPER = "RFDN (ECCV Workshops 2020)"

BICUBIC: dict[int, Published] = {
    2: ((33.66, 0.9299), (30.24, 0.8688), (29.56, 0.8431)),
    3: ((30.39, 0.8682), (27.55, 0.7742), (27.21, 0.7385)),
    4: ((28.42, 0.8104), (26.00, 0.7027), (25.96, 0.6675)),
}
VDSR: dict[int, Published] = {
    2: ((37.53, 0.9587), (33.03, 0.9124), (31.90, 0.8960)),
    3: ((33.66, 0.9213), (29.77, 0.8314), (28.82, 0.7976)),
    4: ((31.35, 0.8838), (28.01, 0.7674), (27.29, 0.7251)),
}
IMDN: dict[int, Published] = {
    2: ((38.00, 0.9605), (33.63, 0.9177), (32.19, 0.8996)),
    3: ((34.36, 0.9270), (30.32, 0.8417), (29.09, 0.8046)),
    4: ((32.21, 0.8948), (28.58, 0.7811), (27.56, 0.7353)),
}
RFDN: Published = ((32.24, 0.8952), (28.61, 0.7819), (27.57, 0.7360))


@dataclass(frozen=True)
class Row:
    """A network at one scale.  source, published: whose table says what;  note: how the two are not the same."""

    name: str
    scale: int
    protocol: Protocol
    scorer: Scorer
    source: str = ""
    published: Published = ()
    note: str = ""


def bicubic(images: Sequence[TestImage], scale: int, protocol: Protocol) -> list[Score]:
    return evaluate_bicubic(images, scale=scale, protocol=protocol)


def network(path: Path, takes: Takes) -> Scorer:
    """Read when it is first run."""

    def score(images: Sequence[TestImage], scale: int, protocol: Protocol) -> list[Score]:
        return evaluate(load_teacher(path), takes, images, scale=scale, protocol=protocol)

    return score


def rows(models: Path) -> Iterator[Row]:
    for scale, published in BICUBIC.items():
        yield Row("bicubic", scale, "srcnn", bicubic, VDSR_PAPER, published)
    for scale in BICUBIC:
        yield Row("bicubic", scale, "edsr", bicubic)
    for scale, published in IMDN.items():
        scorer = network(models / f"IMDN_x{scale}.pth", Takes(scale))
        yield Row("imdn", scale, "edsr", scorer, IMDN_PAPER, published)
    yield Row("imdn", 4, "edsr", network(models / "IMDN_noCCA_x4.pth", Takes(4)), note="without attention")
    scorer = network(models / "RFDN_x4.pth", Takes(4, 3, (0.0, 255.0)))
    yield Row("rfdn", 4, "edsr", scorer, RFDN_PAPER, RFDN, "weights of the AIM 2020 challenge, not of the paper")
    vdsr = network(models / "vdsr.safetensors", Takes(1, 1))
    for scale, published in VDSR.items():
        yield Row("vdsr", scale, "srcnn", vdsr, VDSR_PAPER, published, "trained anew by others")


def test_images(folder: Path, protocol: Protocol) -> list[TestImage]:
    """HR and LR of a test set; grey files are Y where Y alone is scored."""
    pairs = zip(*(read_images(folder / part, keep_grey=protocol == "srcnn") for part in ("HR", "LR")), strict=True)
    return [TestImage(str(i), high, low) for i, (high, low) in enumerate(pairs, 1)]


def cell(score: Score, row: Row, test: int) -> str:
    measured = f"{score.psnr:.3f} / {score.ssim:.4f}"
    if not row.published:
        return f"{measured:45}"
    decibels, similarity = row.published[test]
    difference = f"({score.psnr - decibels:+.3f} / {score.ssim - similarity:+.4f})"
    return f"{measured}  {decibels:.2f} / {similarity:.4f}  {difference:18}"


def main(models: Path, benchmarks: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    print(machine())
    print("PSNR-Y in dB / SSIM-Y: measured, published, and the difference")
    for row in rows(models):
        if names and row.name not in names:
            continue
        remarks = ", ".join(text for text in (f"published: {row.source}" * bool(row.source), row.note) if text)
        print(f"{row.name} x{row.scale}, protocol {row.protocol}{f' ({remarks})' * bool(remarks)}")
        for i, test in enumerate(TESTS):
            images = test_images(benchmarks / test / f"x{row.scale}", row.protocol)
            print(
                f"    {test:6} {cell(mean(row.scorer(images, row.scale, row.protocol)), row, i)}".rstrip(), flush=True
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
