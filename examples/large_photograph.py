"""Enlarge a photograph that is larger than the memory it may take.

    python examples/large_photograph.py [FOLDER [WIDTH HEIGHT MEGABYTES]]

Photograph and result lie on disk, as arrays that are mapped into memory; what the network takes beside them stays below
the limit.  From image file to image file `memsrc upscale` does it: it reads and writes PNG, TIFF and others by rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from skimage import data

from memsr_compiler import Upscaler

MODEL = "x2-small"  # memsrc models lists those that ship


def on_disk(path: Path, height: int, width: int) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(height, width, 3))


def main(folder: Path, width: int = 3000, height: int = 2000, megabytes: float = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    photograph = on_disk(folder / "photograph.npy", height, width)
    tile = data.astronaut()
    for top in range(0, height, 512):  # a mosaic
        for left in range(0, width, 512):
            there = photograph[top : top + 512, left : left + 512]
            there[:] = tile[: there.shape[0], : there.shape[1]]

    result = on_disk(folder / "result.npy", 2 * height, 2 * width)
    with Upscaler(MODEL, max_memory=f"{megabytes}MB") as upscale:
        upscale(photograph, out=result)
        sizes = f"{photograph.nbytes / 2**20:.1f} MiB became {result.nbytes / 2**20:.1f} MiB"
        print(f"{sizes}, within {megabytes} MB")

        # No seams: a strip from the middle, with more around it than the network looks at, comes out the same.
        middle, around = height // 2, 48
        strip = upscale(photograph[middle - around : middle + around])
    same = strip[around : 3 * around].astype(int) - result[2 * middle - around : 2 * middle + around]
    print(f"a strip of it by itself differs by {np.abs(same).max()} of 255 at most")


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output")
    main(where, *map(int, sys.argv[2:4]), *map(float, sys.argv[4:5]))
