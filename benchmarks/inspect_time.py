"""CPU seconds and memory of `memsrc inspect`, and of its refusals, beside those of importing torch alone.

    python benchmarks/inspect_time.py

A process each: RRDBNet with 23 blocks of 64 channels (16.7 M parameters), as JSON; a state dict that no family knows;
and networks that neither torch.fx nor torch.export reads, because of a decision by pixels at their end, or of
attention.  Memory is at least that of this process, which is what a child starts from.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from machine import machine
from torch import Tensor, nn

from memsr_compiler.teachers.families.rrdb import RRDBNet


class Decides(RRDBNet):
    """RRDBNet that asks for the mean of its output."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return -y if y.mean() > 0.5 else y


class Attends(nn.Module):
    """Window attention on padded images, 36 times, as in SwinIR."""

    def __init__(self, channels: int = 180, heads: int = 6, window: int = 8) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(36))
        self.mixes = nn.ModuleList(nn.Linear(channels, 3 * channels) for _ in range(36))
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        window = self.window
        height, width = x.shape[2:]
        if height % window or width % window:
            x = nn.functional.pad(x, (0, -width % window, 0, -height % window), "reflect")
        y = self.first(x).permute(0, 2, 3, 1)
        n, h, w, c = y.shape
        for norm, mix in zip(self.norms, self.mixes, strict=True):
            cells = norm(y).view(n, h // window, window, w // window, window, c).permute(0, 1, 3, 2, 4, 5)
            parts = mix(cells.reshape(-1, window * window, c)).view(-1, window * window, 3, self.heads, c // self.heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(cells.shape)
            y = y + mixed.permute(0, 1, 3, 2, 4, 5).reshape(y.shape)
        image: Tensor = self.last(y.permute(0, 3, 1, 2))[:, :, :height, :width]
        return image


def decides() -> nn.Module:
    return Decides(scale=4)


def measure(name: str, *arguments: str, expected: int = 0) -> None:
    """Run Python with these arguments; print its CPU seconds and its peak of memory."""
    child = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == expected, f"{name}: status {os.waitstatus_to_exitcode(status)}"
    print(f"{name:42} {seconds(usage):5.1f} s CPU  {usage.ru_maxrss / 2**10:5.0f} MiB", flush=True)


def seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    print(machine())
    inspect = ("-m", "memsr_compiler", "inspect", "--json")
    with tempfile.TemporaryDirectory() as folder:
        large, unknown, decided, attended = (
            str(Path(folder, f"{name}.pt")) for name in ("large", "unknown", "decided", "attended")
        )
        torch.manual_seed(0)
        torch.save(RRDBNet(scale=4).state_dict(), large)
        torch.save({"a.weight": torch.zeros(3, 3, 3, 3), "b.bias": torch.zeros(3)}, unknown)
        torch.save(decides().state_dict(), decided)
        torch.save(Attends().state_dict(), attended)
        measure("import torch", "-c", "import torch")
        measure("RRDBNet, 16.7 M parameters", *inspect, large)
        measure("keys that no family knows", *inspect, unknown, expected=2)
        measure("RRDBNet that decides by pixels", *inspect, decided, "--arch", "inspect_time:decides")
        measure("36 times window attention", *inspect, attended, "--arch", "inspect_time:Attends")


if __name__ == "__main__":
    main()
