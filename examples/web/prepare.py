"""Fetch what the page beside this file needs: ONNX Runtime Web from npm, and a student.

    python examples/web/prepare.py [STUDENT]

STUDENT   a plain network's file; by default one that ships, x2-small

Writes runtime/ and student.onnx here.  Then: python -m http.server --directory examples/web
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from memsr_compiler import export_onnx, load_model, load_plain

HERE = Path(__file__).parent
VERSION = "1.30.0"
BUILDS = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def fetch_runtime(target: Path) -> None:
    """Lay the runtime's own files, as its npm package has them, into a folder."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not on PATH. Install it (Debian: apt-get install npm), then run this again.")
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run([npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"], cwd=folder).returncode != 0:
            sys.exit(f"npm did not fetch onnxruntime-web@{VERSION}, for the reason above.")
        with tarfile.open(Path(folder, f"onnxruntime-web-{VERSION}.tgz")) as package:
            target.mkdir(exist_ok=True)
            for name in BUILDS:
                content = package.extractfile(f"package/dist/{name}")
                assert content is not None, name
                (target / name).write_bytes(content.read())


def main(student: Path | None) -> None:
    fetch_runtime(HERE / "runtime")
    net = load_model("x2-small") if student is None else load_plain(student, require_certificate=False)
    export_onnx(net, HERE / "student.onnx", certificate="inside")
    print(f"written: {HERE / 'runtime'}, {HERE / 'student.onnx'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
