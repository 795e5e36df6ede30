"""Small photographs, a teacher and a student for tests of training, and a run on them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.teachers import write_teacher
from PIL import Image
from torch import Tensor, nn

from memsr_compiler import save_plain, shrink
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.calibration_images import sample_inputs
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.training.losses import Objective
from memsr_compiler.training.patches import Patches, prepare_photographs


def forget_accelerator() -> None:
    """Forget device and precision, which accelerate keeps for a process's life: every test stands for a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)


def forget_options(run: Path) -> None:
    """Leave a run's folder as versions did that kept its options in its record alone."""
    path = run / "data.json"
    kept = {kind: names for kind, names in json.loads(path.read_text()).items() if kind != "options"}
    path.write_text(json.dumps(kept))


def draw_picture(height: int, width: int, seed: int) -> np.ndarray:
    """Draw a smooth picture, uint8 (height, width, 3), which a small network can learn."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 100 * np.sin(0.05 * (seed + 1) * x + c) * np.cos(0.07 * y + seed) for c in range(3)]
    return np.stack(channels, axis=2).astype(np.uint8)


def write_photographs(folder: Path) -> Path:
    """Write three of them, 0.png to 2.png."""
    for i in range(3):
        Image.fromarray(draw_picture(40 + 4 * i, 50, i)).save(folder / f"{i}.png")
    return folder


@cache
def _cut_samples(scale: int, channels: int, input_range: tuple[float, float]) -> list[Tensor]:
    whole = sample_inputs(scale=scale, channels=channels, input_range=input_range)
    return [image[:, :, :64, :64].clone() for image in whole[:4]]


def cut_sample_inputs(*, scale: int, channels: int, input_range: tuple[float, float]) -> list[Tensor]:
    """`sample_inputs` for a student of 8 channels: corners of four, made once."""
    return [image.clone() for image in _cut_samples(scale, channels, input_range)]


def new_teacher() -> EDSR:
    """A teacher of one block and 8 channels, the same each time."""
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=1, channels=8, tail="conv").eval()


def derive_student() -> PlainNet:
    """A student of that teacher, 8 channels wide."""
    images = [torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    return shrink(new_teacher(), width=8, calibration=images, refit=0)


def write_networks(student: PlainNet, folder: Path) -> Path:
    """Write teacher.pt and student.safetensors."""
    write_teacher(new_teacher(), folder / "teacher.pt")
    save_plain(student, folder / "student.safetensors")
    return folder


def cut_patches(folder: Path, cache: Path, *, patch: int = 8) -> Patches:
    """Patches of the photographs in a folder, `patch` pixels a side in the small image."""
    return Patches(prepare_photographs(folder, cache, scale=2, patch=patch), scale=2, patch=patch, seed=0)


def score(network: nn.Module) -> float:
    """Minus the mean error on a grey image, as if it were a PSNR."""
    with torch.no_grad():
        return -float(network(torch.full((1, 3, 4, 4), 0.5)).sub(0.5).abs().mean())


def require_gradients(
    objective: Objective, low: Tensor, high: Tensor, *, share: float, all_trained: bool = True
) -> int:
    """Every trained parameter's gradient is that of finite differences, along a random direction; in float64.

    all_trained   every parameter has to have a gradient; else those without are passed over

    Gives how many were compared.
    """
    generator, compared = torch.Generator().manual_seed(2), 0
    objective(low, high, share)[0].backward()
    for name, value in objective.named_parameters():
        if not value.requires_grad or (value.grad is None and not all_trained):
            continue
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        step, losses = 1e-7, []
        for sign in (1, -1):
            with torch.no_grad():
                value.add_(sign * step * direction)
                losses.append(float(objective(low, high, share)[0]))
                value.sub_(sign * step * direction)
        assert value.grad is not None, name
        slope = float((value.grad * direction).sum())
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-3, abs=1e-7), name
        compared += 1
    return compared
