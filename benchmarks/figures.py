"""The README's picture: a detail of a photograph, enlarged by bicubic, the teacher, its plain network, a student.

python examples/demo.py demo-output && python benchmarks/figures.py demo-output docs/figures/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from memsr_compiler.images.files import read_image
from memsr_compiler.images.resize import resize

NUMBER, LEFT, TOP, SIZE = 1, 130, 70, 120  # chelsea's eye; in pixels of the photograph


def main(folder: Path, out: Path) -> None:
    low = read_image(folder / f"{NUMBER}_low.png")
    panels = {
        "bicubic": Image.fromarray(resize(low, 2)),
        "teacher (EDSR 8x32)": Image.open(folder / f"{NUMBER}_teacher.png"),
        "plain, in ONNX Runtime": Image.open(folder / f"{NUMBER}_plain.png"),
        "student, 24 channels": Image.open(folder / f"{NUMBER}_student.png"),
        "photograph": Image.open(folder / f"{NUMBER}_high.png"),
    }
    side, gap, caption = 2 * SIZE, 8, 22
    sheet = Image.new("RGB", (len(panels) * (side + gap) - gap, side + caption), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (name, image) in enumerate(panels.items()):
        detail = image.crop((LEFT, TOP, LEFT + SIZE, TOP + SIZE)).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(detail, (i * (side + gap), 0))
        pen.text((i * (side + gap) + 4, side + 2), name, fill="black", font_size=15)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
