"""How well networks restore the probe's photograph, read rightly and otherwise: the table of docs/teachers.md.

    python benchmarks/readings.py [MODELS]

MODELS   a folder with pretrained networks
"""

from __future__ import annotations

import sys
from pathlib import Path

from machine import machine

from memsr_compiler import MemsrError, read_teacher
from memsr_compiler.teachers.probe import restore

SHIPPED = Path(__file__).parent.parent / "examples" / "edsr_8x32_x2.pt"
RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))


def row(path: Path) -> str:
    """Gain over bicubic interpolation, in dB, of every reading; the one that `read_teacher` takes in bold."""
    right = read_teacher(path)
    cells = []
    for res_scale in (1.0, 0.1):
        for input_range in RANGES:
            arguments = {"res_scale": res_scale} if right.family == "edsr" else {}
            if res_scale != 1 and not arguments:
                cells.append("")
                continue
            teacher = read_teacher(path, arch_args=arguments, input_range=input_range, probe=False)
            score, bicubic = restore(teacher.module, input_range)
            chosen = (input_range, res_scale) == (right.input_range, right.hyper.get("res_scale", 1.0))
            cells.append(f"**{score - bicubic:+.1f}**" if chosen else f"{score - bicubic:+.1f}")
    return f"| {path.name} | {bicubic:.1f} | {' | '.join(cells)} |"


def main(models: Path | None) -> None:
    print(machine())
    for path in [SHIPPED, *sorted(models.iterdir() if models is not None else ())]:
        try:
            print(row(path))
        except MemsrError as error:
            print(f"{path.name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
