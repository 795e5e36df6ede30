"""Two processes of torch.distributed, as torchrun starts them, without torchrun, which would import torch once more.

Whether torchrun itself works is tested where a person would use it: distill, and upscale of a folder.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_two(words: Sequence[str | Path], **environment: str) -> str:
    """What the first process says; `words` are Python's arguments.  Each has one thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        _start(words, {**shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1", **environment})
        for rank in ("0", "1")
    ]
    said = [process.communicate() for process in processes]
    for process, (_, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, err
    return said[0][0]


def _start(words: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
