"""Memory that one run of a network takes, measured in a process of its own.

With network and image in place, and after a tiny image went through, the highest amount of the process's memory while
the image is processed, less what it had before.  The result counts: it is the last feature map.

Linux forgets the highest amount on request (/proc/self/clear_refs).  Where that is not allowed, it may have been
reached while the network was loaded: the difference to the highest amount before the run is then at least what the run
took.  On a GPU it is what the device has less of after the run, as the engines keep what they took; others on the same
device disturb it, and TensorRT prepares itself for the image's size in that run.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from memsr_compiler.errors import MemsrError
from memsr_compiler.locks import temporary_folder
from memsr_compiler.runtime.open import NetworkFile, open_runner
from memsr_compiler.runtime.runners import Provider, Runner, TorchNetwork

TINY = 32  # pixels a side, of the image that goes through first
RESULT = "memory.json"
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Memory of a run.

    bytes      that it took;   at_least   it may have been more, this system does not tell
    """

    bytes: int
    at_least: bool = False


def peak_memory(
    file: NetworkFile,
    shape: tuple[int, int, int],
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
) -> Memory | None:
    """Memory of one run on an image of random values, in its own process; None on a GPU that torch does not find.

    shape   of the image: channels, height, width

    Raises MemsrError if the process fails, for want of memory say.
    """
    request = pickle.dumps((replace(file, path=file.path.resolve()), shape, provider, threads))
    places = [str(Path(place).resolve()) for place in sys.path]  # the user's own module may be needed for a teacher
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    with temporary_folder(Path(tempfile.gettempdir())) as folder:  # where -m finds no file named like a module
        process = subprocess.run(
            [sys.executable, "-m", __name__, str(folder)],
            input=request,
            env=environment,
            cwd=folder,
            capture_output=True,
            check=False,
        )
        if process.returncode:
            raise MemsrError(f"{file.path}: {_reason(process)}")
        numbers = json.loads((folder / RESULT).read_text())
    return None if numbers is None else Memory(**numbers)


def _reason(process: subprocess.CompletedProcess[bytes]) -> str:
    if process.returncode < 0:
        return f"the process that measures memory was killed (signal {-process.returncode}); try a smaller --size"
    last = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the process that measures memory failed: {''.join(last)}"


def measure_run(network: Runner, shape: tuple[int, int, int], *, provider: Provider = "cpu") -> Memory | None:
    """Memory that one run in this process takes."""
    channels, height, width = shape
    image = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=network.precision)
    if network.fixed == (None, None):  # of one size, a first image would take all that the second does
        network(torch.zeros(1, channels, TINY, TINY, dtype=network.precision))
    if isinstance(network, TorchNetwork):
        network.require_memory(tuple(image.shape))  # now, as that takes memory itself
    if provider != "cpu":
        return _measure_on_gpu(network, image)
    exact = _forget_highest()
    before = _status("VmRSS") if exact else _highest()
    network(image)
    return Memory(max(_highest() - before, 0), at_least=not exact)


def _measure_on_gpu(network: Runner, image: torch.Tensor) -> Memory | None:
    if not torch.cuda.is_available():
        return None
    once = network.prepare(image)
    before, _ = torch.cuda.mem_get_info()
    once()
    after, _ = torch.cuda.mem_get_info()
    return Memory(max(before - after, 0))


def _forget_highest() -> bool:
    """Let the highest amount count from now on; False where the system does not allow it."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _highest() -> int:
    """Bytes that this process had at most so far."""
    if _STATUS.exists():  # getrusage would count the process that started this one, too
        return _status("VmHWM")
    import resource  # which Windows has not

    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _status(key: str) -> int:
    line = next(text for text in _STATUS.read_text().splitlines() if text.startswith(f"{key}:"))
    return int(line.split()[1]) << 10


def _main(folder: Path) -> None:
    file, shape, provider, threads = pickle.load(sys.stdin.buffer)
    memory = measure_run(open_runner(file, provider=provider, threads=threads), shape, provider=provider)
    (folder / RESULT).write_text(json.dumps(memory and asdict(memory)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
