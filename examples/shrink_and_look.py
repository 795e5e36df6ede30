"""Derive a student of 16 channels from the teacher that ships, score it, and put it beside the others in a picture.

    python examples/shrink_and_look.py [FOLDER]

Takes two minutes of a core.  The picture has, from left to right: bicubic, the student, its teacher, the photograph.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from memsr_compiler import TestImage, evaluate, export_onnx, load_teacher, shrink

TEACHER = Path(__file__).parent / "edsr_8x32_x2.pt"
WIDTH = 16


def enlarge(network: torch.nn.Module, image: TestImage) -> np.ndarray:
    """What the network makes of the small image, uint8 (H, W, 3)."""
    pixels = torch.from_numpy(image.low.transpose(2, 0, 1)[None]).float() / 255
    with torch.no_grad():
        output: torch.Tensor = network(pixels)[0].permute(1, 2, 0).clamp(0, 1)
    return (output * 255).round().byte().numpy()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(TEACHER)
    student = shrink(teacher, width=WIDTH)  # from crops of photographs that ship; calibration=... takes yours
    export_onnx(student, folder / "student.onnx")

    photographs = {"astronaut": data.astronaut()[:192, 128:320], "cat": data.chelsea()[60:252, 100:292]}
    images = [TestImage.of(name, pixels, 2) for name, pixels in photographs.items()]
    for name, network in (("teacher", teacher), ("student", student)):
        scores = evaluate(network, images)
        print(f"{name}: {', '.join(f'{score.name} {score.psnr:.2f} dB' for score in scores)}")

    rows = []
    for image in images:
        size = image.high.shape[1::-1]
        bicubic = np.asarray(Image.fromarray(image.low).resize(size, Image.Resampling.BICUBIC))
        rows.append(np.hstack([bicubic, enlarge(student, image), enlarge(teacher, image), image.high]))
    Image.fromarray(np.vstack(rows)).save(folder / "look.png")
    print(f"look at {folder / 'look.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output"))
