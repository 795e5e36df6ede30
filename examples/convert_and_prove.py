"""Convert the teacher that ships, prove the result, and see what the proof is worth: one changed weight is noticed.

python examples/convert_and_prove.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from memsr_compiler import (
    ExportError,
    NotEquivalent,
    check_certificate,
    check_equivalence,
    compile_to_plain,
    export_onnx,
    load_plain,
    read_teacher,
)

TEACHER = Path(__file__).parent / "edsr_8x32_x2.pt"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    teacher = read_teacher(TEACHER)
    print(f"{teacher.family}, input values {teacher.input_range}")
    net = compile_to_plain(teacher)
    export_onnx(net, folder / "plain.onnx")  # and plain.cert.json beside it

    # Whoever gets the two files can do this; `memsrc verify` does.  Algebra on the weights: no image is needed.
    proof = check_certificate(TEACHER, folder / "plain.onnx")
    print(f"proved: {proof.guarantee}")

    # And this measures it, in float64, borders included.
    measured = check_equivalence(teacher, net).require()
    print(f"measured: largest difference {measured.deviation:.1e}, where rounding explains {measured.bound:.1e}")
    print(f"          ({measured.arithmetic})")

    # The same network, one weight changed by a thousandth.
    changed = load_plain(folder / "plain.onnx")
    with torch.no_grad():
        changed[3].weight.view(-1)[0] += 1e-3
    try:
        check_equivalence(teacher, changed).require()
    except NotEquivalent as error:
        print(f"noticed: {error}")
    try:
        export_onnx(changed, folder / "changed.onnx")
    except ExportError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output"))
