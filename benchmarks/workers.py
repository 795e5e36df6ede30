"""A folder of photographs by one process, and by several that share it out, of which one is lost: images a second.

    python benchmarks/workers.py [IMAGES [PROCESSES]]

IMAGES   photographs of 600x400, 24 if not given;   PROCESSES   at most, 2 if not given

Processes of `memsrc upscale` with one thread each, through x2-tiny to JPEG, as torchrun would start them; seconds of
the clock from the first result to the last, so that starting Python does not count, and CPU seconds of all processes,
where it does.  "One is killed": by SIGKILL, once a third of the results is there.  With Ray installed, also by workers
of Ray Data.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import machine

from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.images.resize import resize

MODEL = "x2-tiny"


def start(photos: Path, large: Path, processes: int) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "memsr_compiler", "upscale", str(photos), str(large), "--model", MODEL, "-q"]
    common = {**os.environ, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    common["TORCHELASTIC_RUN_ID"] = large.name
    alone = ["--threads", "1"]
    return [subprocess.Popen([*command, *alone], env={**common, "RANK": str(rank)}) for rank in range(processes)]


def results(large: Path) -> list[float]:
    """When each result was done."""
    return sorted(path.stat().st_mtime for path in large.glob("*.jpg"))


def run(photos: Path, large: Path, processes: int, kill: bool) -> tuple[float, float]:
    """Seconds of the clock between the first result and the last, and CPU seconds of all processes that ended."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = start(photos, large, processes)
    images = len(list(photos.iterdir()))
    while kill and len(results(large)) < images // 3:
        time.sleep(0.01)
    if kill:
        started[-1].send_signal(signal.SIGKILL)
    statuses = [process.wait() for process in started]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert statuses == [0] * (processes - kill) + [-signal.SIGKILL] * kill, statuses
    times = results(large)
    assert len(times) == images, "all are done, whoever died"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return times[-1] - times[0], cpu


def by_ray(photos: Sequence[Path], large: Path, workers: int) -> float:
    import ray
    import ray.data

    from memsr_compiler.distributed import EnlargeFiles

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    rows = ray.data.from_items([{"path": str(path)} for path in photos], override_num_blocks=len(photos))
    done = rows.map_batches(
        EnlargeFiles,
        fn_constructor_kwargs={"folder": str(large), "model": MODEL},
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    ).take_all()
    assert not any(row["error"] for row in done)
    ray.shutdown()
    times = results(large)
    return times[-1] - times[0]


def main(images: str = "24", processes: str = "2") -> None:
    print(machine())
    most, number = int(processes), int(images)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        samples = [resize(image[:300, :400], 2)[:400, :600] for image in sample_photographs()]
        for i in range(number):
            write_image(photos / f"{i:03}.jpg", samples[i % len(samples)])
        print("                              images a second  CPU s an image")
        for count, kill in [*((n, False) for n in range(1, most + 1)), (most, True)]:
            large = Path(folder) / f"{count}{kill}"
            seconds, cpu = run(photos, large, count, kill)
            words = f"{count} process{'es' if count > 1 else ''}{', one is killed' if kill else ''}"
            print(f"{words:30}{(number - 1) / seconds:14.2f} {cpu / number:15.2f}", flush=True)
        if importlib.util.find_spec("ray") is not None:
            seconds = by_ray(sorted(photos.iterdir()), Path(folder) / "ray", most)
            print(f"{f'{most} workers of Ray Data':30}{(number - 1) / seconds:14.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
