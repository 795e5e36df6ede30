"""Train a small EDSR teacher on a folder of photographs, on a CPU, in well under an hour.

    python examples/train_teacher.py photographs/ --output teacher.pt --blocks 8 --channels 32 --scale 2

The low-resolution images are made here, by MATLAB's bicubic. The result is a bare float32 state dict of
`memsr_compiler.families.edsr.EDSR` without mean shift, for RGB in 0..1.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.logging import RichHandler
from rich.progress import Progress, track
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.families.edsr import EDSR
from memsr_compiler.images import crop_to_multiple, read_image, to_image, to_tensor
from memsr_compiler.metrics import psnr
from memsr_compiler.resize import resize

log = logging.getLogger("train_teacher")

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def image_files(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted, so that the seed alone decides the order."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: no such folder. Give one with photographs.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def degrade(folder: Path, scale: int, patch: int) -> list[Pair]:
    """(LR, HR) of every photograph at least `patch` LR pixels high and wide, uint8 (H, W, 3)."""
    pairs = []
    for path in track(image_files(folder), description="preparing", transient=True):
        high = crop_to_multiple(read_image(path), scale)
        if min(high.shape[:2]) >= patch * scale:
            pairs.append((resize(high, 1 / scale), high))
    return pairs


def read_pairs(folder: Path) -> list[Pair]:
    """(LR, HR) from the sub-folders LR and HR of a benchmark, matched by order."""
    low, high = image_files(folder / "LR"), image_files(folder / "HR")
    if len(low) != len(high):
        raise InvalidInput(f"{folder}: {len(low)} images in LR, {len(high)} in HR. They must be pairs.")
    return [(read_image(a), read_image(b)) for a, b in zip(low, high, strict=True)]


def batches(pairs: list[Pair], size: int, patch: int, scale: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of patches, turned and mirrored at random: LR and HR, (N, 3, h, w) float32 in 0..1."""
    random = np.random.default_rng(seed)
    while True:
        chosen = [_patch(*pairs[random.integers(len(pairs))], patch, scale, random) for _ in range(size)]
        yield torch.cat([low for low, _ in chosen]), torch.cat([high for _, high in chosen])


def _patch(
    low: NDArray[Any], high: NDArray[Any], patch: int, scale: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    top, left = (int(random.integers(extent - patch + 1)) for extent in low.shape[:2])
    turns, mirror = int(random.integers(4)), bool(random.integers(2))

    def turned(image: NDArray[Any], factor: int) -> Tensor:
        rows = slice(top * factor, (top + patch) * factor)
        columns = slice(left * factor, (left + patch) * factor)
        part = np.rot90(image[rows, columns], turns)
        return to_tensor(part[:, ::-1] if mirror else part)

    return turned(low, 1), turned(high, scale)


@torch.no_grad()
def mean_psnr(network: nn.Module, pairs: list[Pair], scale: int) -> float:
    """Average PSNR on Y in dB over whole images, protocol "edsr"."""
    return float(np.mean([psnr(to_image(network(to_tensor(low))), high, scale=scale) for low, high in pairs]))


def save(network: nn.Module, path: Path) -> None:
    """Write the state dict beside `path` and move it there: an interruption never leaves half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:  # given a path, torch would write the temporary name into the archive
        torch.save(network.state_dict(), file)
    partial.replace(path)


def train(options: argparse.Namespace) -> None:
    """Prepare, train, validate and save, as the options say."""
    if not options.output.absolute().parent.is_dir():  # not found out only at the first save
        raise InvalidInput(f"{options.output}: no such folder. Create it first.")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    scale = options.scale
    pairs = degrade(options.photographs, scale, options.patch)
    if not pairs:
        size = options.patch * scale
        raise InvalidInput(f"{options.photographs}: no photograph of {size}x{size} pixels. Lower --patch.")
    held_out = read_pairs(options.validate) if options.validate else []
    network = EDSR(scale=scale, blocks=options.blocks, channels=options.channels, tail=options.tail)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=options.steps)
    source = batches(pairs, options.batch, options.patch, scale, options.seed)
    count = sum(parameter.numel() for parameter in network.parameters())
    log.info("%d photographs, %d parameters, %d steps", len(pairs), count, options.steps)
    start, recent = time.perf_counter(), []
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=options.steps)
        for step in range(1, options.steps + 1):
            low, high = next(source)
            loss = nn.functional.l1_loss(network(low), high)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            recent.append(loss.item())
            progress.advance(task)
            if step % options.every == 0 or step == options.steps:
                score = f"{mean_psnr(network, held_out, scale):.3f} dB  " if held_out else ""
                seconds = time.perf_counter() - start
                log.info("step %d  L1 %.5f  %s%.0f s", step, np.mean(recent), score, seconds)
                recent.clear()
                save(network, options.output)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description="Train a small EDSR teacher on a folder of photographs.",
        epilog="example: %(prog)s photographs/ --output teacher.pt --steps 12000 --validate Set5/x2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    result.add_argument("photographs", type=Path, help="folder of high-resolution photographs")
    result.add_argument("--output", type=Path, required=True, help="where the state dict goes (.pt)")
    result.add_argument("--validate", type=Path, help="folder with HR/ and LR/; its PSNR-Y is logged")
    result.add_argument("--scale", type=int, default=2, help="enlargement")
    result.add_argument("--blocks", type=int, default=8, help="residual blocks")
    result.add_argument("--channels", type=int, default=32, help="feature channels")
    result.add_argument("--tail", choices=("edsr", "conv"), default="edsr", help="upsampler: stages, or one conv")
    result.add_argument("--steps", type=int, default=12000, help="optimizer steps")
    result.add_argument("--batch", type=int, default=8, help="patches per step")
    result.add_argument("--patch", type=int, default=32, help="side of a low-resolution patch in pixels")
    result.add_argument("--rate", type=float, default=1e-3, help="peak learning rate of the one-cycle schedule")
    result.add_argument("--every", type=int, default=500, help="steps between log lines and saves")
    result.add_argument("--seed", type=int, default=233, help="of the weights and of the patches")
    result.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    return result


def main() -> None:
    """Parse, train, and turn the compiler's errors into messages."""
    command = parser()
    logging.basicConfig(level="INFO", format="%(message)s", handlers=[RichHandler(show_path=False, markup=False)])
    try:
        train(command.parse_args())
    except MemsrError as error:
        command.error(str(error))


if __name__ == "__main__":
    main()
