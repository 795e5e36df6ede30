"""CPU seconds of deriving a student: paper mode, the obvious way to do the same, data-aware mode.

    python benchmarks/initialisation_time.py

CPU seconds on one thread, as the machine may be shared.  EDSR with 16 blocks of 64 channels, x2, its real tail folded.
The obvious way: the features of all levels kept, torch.linalg.svd of 32,768 sampled pixels for each, a search over
ranks (doubling, then halving, as in the MemSR authors' code), torch.linalg.lstsq for each kernel; on the same images,
16 crops of 48x48, at the same theta, in float64 as ours and again in float32.  Paper mode also runs the student, to
report its own error, which the obvious way does not.  Then data-aware mode, whole, with the default calibration, in a
process of its own for its peak memory.

The weights are as initialised: a trained teacher takes the same time, but for theta's ranks.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch
from machine import machine
from torch import Tensor, nn

from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.student.crops import batches
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.paper.initialise import derive_memsr
from memsr_compiler.student.paper.level_kernels import level_kernel
from memsr_compiler.student.paper.options import PaperOptions
from memsr_compiler.student.shrink import shrink
from memsr_compiler.teachers.families.edsr import EDSR

PIXELS = 32768


def edsr() -> nn.Module:
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=16, channels=64, mean=(0.4488, 0.4371, 0.4040), rgb_range=1).eval()


def crops() -> list[Tensor]:
    photographs = sample_inputs(scale=2, channels=3, input_range=(0.0, 1.0))
    return batches(photographs, samples=16, crop=48)


class Obvious:
    """Algorithm 1 and Eq. 11 as one would write them down first."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.ranks: list[int] = []

    @torch.no_grad()
    def __call__(self, teacher: LeveledTeacher, images: Tensor, theta: float, beta: float = 3.0) -> None:
        start = time.process_time()
        features, values = [], teacher.start(images)
        for level in teacher.levels[:-1]:
            held = teacher.advance(level, values)
            features.append(held.after.transpose(0, 1).flatten(1))
            values = held.values
        self.spend("features", start)
        m_below = torch.eye(teacher.input.channels + 1, dtype=images.dtype)
        for level, feature in zip(teacher.levels, features, strict=False):
            sampled = feature[:, torch.randperm(feature.shape[1])[:PIXELS]]
            start = time.process_time()
            mean = sampled.mean(1, keepdim=True)
            centred = sampled - mean
            u, s, vh = torch.linalg.svd(centred, full_matrices=False)
            own = s[:, None] * vh
            self.spend("svd", start)
            start = time.process_time()
            r = self.search(centred, u, own, theta, beta)
            self.spend("search", start)
            start = time.process_time()
            constant = mean - u[:, :r] @ self.probe(centred, u, own, r, beta)[1]
            kernel = torch.einsum("omij,mr->orij", level_kernel(teacher, level).to(images.dtype), m_below)
            middle = kernel.shape[-1] // 2
            kernel[:, 0, middle, middle] -= constant[:, 0]
            torch.linalg.lstsq(u[:, :r], kernel.flatten(1))
            m_below = torch.cat([constant, u[:, :r]], 1)
            m_below = torch.cat([torch.eye(1, r + 1, dtype=images.dtype), m_below])
            self.spend("lstsq", start)
            self.ranks.append(r)

    def search(self, centred: Tensor, u: Tensor, own: Tensor, theta: float, beta: float) -> int:
        low, high, step = 0, len(centred), 1
        while step < high:
            if self.probe(centred, u, own, step, beta)[0] < theta:
                high = step
                break
            low, step = step, step * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self.probe(centred, u, own, middle, beta)[0] < theta:
                high = middle
            else:
                low = middle
        return high

    def probe(self, centred: Tensor, u: Tensor, own: Tensor, r: int, beta: float) -> tuple[float, Tensor]:
        error = float((centred - u[:, :r] @ own[:r]).norm() / centred.norm())
        negative = own[:r].clamp_max(0)
        return error, -beta * negative.sum(1, keepdim=True) / (negative < 0).sum(1, keepdim=True)

    def spend(self, what: str, start: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - start


def paper_mode(theta: float) -> None:
    torch.set_num_threads(1)
    inputs = crops()
    teacher = LeveledTeacher.of(edsr(), (0.0, 1.0))
    start = time.process_time()
    derived = derive_memsr(teacher, inputs, theta=theta, align=1, options=PaperOptions(constant="bias"))
    ours = time.process_time() - start
    ranks = [layer.width for layer in derived.layers]
    print(f"theta {theta}, {len(ranks)} layers of {min(ranks)} to {max(ranks)} channels: paper mode {ours:.1f} s CPU")
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        obvious = Obvious()
        start = time.process_time()
        obvious(teacher, torch.cat(inputs).to(dtype), theta)
        total = time.process_time() - start
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in obvious.seconds.items())
        apart = max(abs(a - b) for a, b in zip(ranks, obvious.ranks, strict=True))
        print(f"  the obvious way in {dtype}: {total:.1f} s CPU ({parts}), {total / ours:.1f} times as much; ", end="")
        print(f"widths differ by at most {apart}", flush=True)


def data_aware() -> None:
    torch.set_num_threads(1)
    model = edsr()
    start, clock = time.process_time(), time.perf_counter()
    shrink(model, width=64)
    seconds, clock = time.process_time() - start, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"data-aware mode, width 64, default calibration: {seconds:.0f} s CPU ({clock:.0f} s by the clock), ", end="")
    print(f"peak process memory {peak:.2f} GiB")


if __name__ == "__main__":
    if "--theta" in sys.argv:
        paper_mode(float(sys.argv[-1]))
    elif "--data-aware" in sys.argv:
        data_aware()
    else:
        print(machine(), flush=True)
        for theta in ("0.05", "0.14"):
            subprocess.run([sys.executable, __file__, "--theta", theta], check=True)
        subprocess.run([sys.executable, __file__, "--data-aware"], check=True)
