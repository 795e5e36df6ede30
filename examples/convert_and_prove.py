"""Convert the teacher that ships, prove the result, and see what the proof is worth: one changed weight is noticed.

python examples/convert_and_prove.py [FOLDER]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from memsr_compiler import check_equivalence, compile_to_plain, export_onnx, load_plain, load_teacher
from memsr_compiler.errors import ExportError, NotEquivalent

TEACHER = Path(__file__).parent / "edsr_8x32_x2.pt"


def verify(plain: Path) -> int:
    """Exit status of `memsrc verify`, which starts from the two files: 0 equivalent, 1 not."""
    command = [sys.executable, "-m", "memsr_compiler", "verify", str(TEACHER), str(plain)]
    return subprocess.run(command, check=False).returncode


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    teacher = load_teacher(TEACHER)
    net = compile_to_plain(teacher)
    export_onnx(net, folder / "plain.onnx")  # and plain.cert.json beside it
    assert verify(folder / "plain.onnx") == 0

    # The same network, one weight changed by a thousandth.
    changed = load_plain(folder / "plain.onnx")
    with torch.no_grad():
        changed.layers[3].weight.view(-1)[0] += 1e-3
    try:
        check_equivalence(teacher, changed).require()
    except NotEquivalent as error:
        print(f"measured: {error}")
    try:
        export_onnx(changed, folder / "changed.onnx")
    except ExportError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output"))
