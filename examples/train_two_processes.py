"""Train a small network on two processes of this machine.

    python examples/train_two_processes.py [FOLDER [STEPS]]

`torchrun` starts the processes; each takes its share of every batch, and two give what one gives, to rounding.  On a
machine with GPUs each process takes one.  A run that is stopped goes on with `memsrc train --resume FOLDER/run`.  Needs
the extra [train]; the photographs are those of scikit-image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image
from skimage import data

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def train(*options: str | Path) -> None:
    """torchrun --nproc-per-node 2 -m memsr_compiler train ..."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # each; torchrun sets it too, and says so
    command = [*TORCHRUN, "-m", "memsr_compiler", "train", *map(str, options)]
    subprocess.run(command, env=one_thread, check=True)


def main(folder: Path, steps: int = 200) -> None:
    photographs, validation, run = folder / "photographs", folder / "validation", folder / "run"
    photographs.mkdir(parents=True, exist_ok=True)
    validation.mkdir(exist_ok=True)
    for name in ("astronaut", "coffee"):  # DIV2K, if you have it
        Image.fromarray(getattr(data, name)()).save(photographs / f"{name}.png")
    Image.fromarray(data.chelsea()[60:252, 100:292]).save(validation / "cat.png")

    network = ["--arch", "edsr", "--blocks", "2", "--channels", "16", "--scale", "2"]
    amount = ["--steps", str(steps), "--batch", "4", "--patch", "48", "--every", str(steps // 2)]
    train(*network, *amount, "--data", photographs, "--val", validation, "--out", run, "--cache", folder / "cache")

    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    print("\n".join(f"step {entry['step']}: {entry['psnr']:.2f} dB" for entry in log))
    print(f"as a plain network: {run / 'plain.onnx'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output"), *map(int, sys.argv[2:3]))
