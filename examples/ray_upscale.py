"""Enlarge a folder of photographs by several workers of Ray, on this machine or a cluster.

    python examples/ray_upscale.py [PHOTOS [LARGE [WORKERS]]]

PHOTOS   a folder, by default the photographs that ship with scikit-image;   LARGE  for the results, demo-output/large
WORKERS  2 if not given, each with one core

`pip install 'memsr_compiler[cpu,ray]'`.  Where RAY_ADDRESS names a cluster, the workers are there, and both folders
have to be on a file system that all of its machines share.  A worker that dies is started again and goes on.  What goes
wrong with single files is told at the end; none stops the others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import ray
import ray.data

from memsr_compiler.distributed import EnlargeFiles

MODEL = "x2-tiny"  # memsrc models lists those that ship


def sample_folder() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data"


def main(photos: Path, large: Path, workers: int = 2, worker: type = EnlargeFiles) -> list[dict[str, Any]]:
    """Enlarge the PNG and JPEG files of a folder; give the rows of the result."""
    if "RAY_ADDRESS" not in os.environ:
        ray.init(num_cpus=workers, include_dashboard=False)
    files = sorted(path for path in photos.resolve().iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    rows = ray.data.from_items([{"path": str(path)} for path in files], override_num_blocks=len(files))
    done = rows.map_batches(
        worker,
        fn_constructor_kwargs={"folder": str(large.resolve()), "model": MODEL, "threads": 1},
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    results: list[dict[str, Any]] = done.take_all()
    return results


if __name__ == "__main__":
    photos = Path(sys.argv[1]) if len(sys.argv) > 1 else sample_folder()
    large = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("demo-output") / "large"
    for row in main(photos, large, int(sys.argv[3]) if len(sys.argv) > 3 else 2):
        print(row["error"] or f"{row['path']} -> {row['result']}")
