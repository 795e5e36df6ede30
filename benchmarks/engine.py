"""One network in one engine, one thread: what the table of engines and the tests run, on this processor or another.

    python benchmarks/engine.py ENGINE FILE PRECISION IMAGES.npz RESULTS.npz

ENGINE     ncnn, mnn, openvino or onnxruntime
FILE       what `convert` made of an ONNX file for it
PRECISION  one of PRECISIONS[ENGINE]
IMAGES     arrays (1, C, H, W), float32, in the network's range; RESULTS get the same names

Only numpy and the engine are imported, so that it also runs where torch is not to be had: on an emulated phone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = "NDArray[np.float32]"
Network: TypeAlias = "Callable[[Image], Image]"

NO_HALF = {"use_fp16_packed": False, "use_fp16_storage": False, "use_fp16_arithmetic": False}
PRECISIONS: dict[str, dict[str, dict[str, Any]]] = {
    "onnxruntime": {"float": {}},
    "ncnn": {
        "float": NO_HALF,
        "half between layers": {"use_fp16_arithmetic": False},
        "half": {},
        "half, no Winograd": {"use_winograd_convolution": False},
        "bfloat16": {"use_bf16_storage": True, **NO_HALF},
    },
    "mnn": {"float": {"precision": "high"}, "half": {"precision": "low"}},
    "openvino": {
        "float": {"INFERENCE_PRECISION_HINT": "f32"},
        "half": {"INFERENCE_PRECISION_HINT": "f16"},
        "as it comes": {},
    },
}
"""By engine: names of precisions, and the engine's own settings.  Half is what the engine makes of it: a processor
without half-precision arithmetic computes float32, or bfloat16."""


def convert(engine: str, onnx: Path, folder: Path, *, half_weights: bool = False) -> Path:
    """Make the file that an engine reads of an ONNX file.

    half_weights  weights are stored in float16, which halves the file; precision is chosen when it runs
    """
    if engine == "ncnn":
        return _convert_to_ncnn(onnx, folder, half_weights)
    if engine == "mnn":
        return _convert_to_mnn(onnx, folder / f"{onnx.stem}.mnn", half_weights)
    return onnx


def _convert_to_ncnn(onnx: Path, folder: Path, half_weights: bool) -> Path:
    """Two shapes tell the converter that height and width are free.  It leaves files beside what it reads."""
    import pnnx

    source = folder / onnx.name
    if source != onnx:
        shutil.copy(onnx, source)
    sizes = ["inputshape=[1,3,64,64]", "inputshape2=[1,3,48,80]"]
    words = [pnnx.EXEC_PATH, source.name, *sizes, f"fp16={int(half_weights)}"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / f"{source.stem.replace('-', '_')}.ncnn.param"


def _convert_to_mnn(onnx: Path, target: Path, half_weights: bool) -> Path:
    """By the function behind MNN's command `mnnconvert`, which would install a package and report to its makers."""
    words = ["-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(target), "--bizCode", "memsr"]
    program = f"import _tools; _tools.mnnconvert({['mnnconvert', *words, *(['--fp16'] if half_weights else [])]!r})"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return target


def open_network(engine: str, file: Path, precision: str = "float") -> Network:
    """A network ready to run: (1, C, H, W) -> (1, C, scale * H, scale * W), float32 whatever it computes in."""
    opened = {"ncnn": _open_ncnn, "mnn": _open_mnn, "openvino": _open_openvino, "onnxruntime": _open_onnxruntime}
    return opened[engine](file, PRECISIONS[engine][precision])


def _open_ncnn(file: Path, options: dict[str, Any]) -> Network:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    for name, value in options.items():
        setattr(net.opt, name, value)
    if net.load_param(str(file)) != 0 or net.load_model(str(file.with_suffix(".bin"))) != 0:
        raise ValueError(f"ncnn does not read {file}")

    def run(image: Image) -> Image:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image[0]).clone())
        status, result = extractor.extract("out0")
        if status != 0:
            raise RuntimeError(f"ncnn ends with {status}")
        return np.array(result, dtype=np.float32)[None]

    return run


def _open_mnn(file: Path, options: dict[str, Any]) -> Network:
    import MNN.expr
    import MNN.nn

    manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": 1, **options},))
    net = MNN.nn.load_module_from_file(str(file), ["image"], ["upscaled"], runtime_manager=manager)

    def run(image: Image) -> Image:
        result = net.forward([MNN.expr.const(image, list(image.shape), MNN.expr.NCHW, MNN.expr.float)])[0]
        planar = MNN.expr.convert(result, MNN.expr.NCHW)
        values: Image = np.array(planar.read(), dtype=np.float32).reshape(planar.shape)
        return values

    return run


def _open_openvino(file: Path, options: dict[str, Any]) -> Network:
    import openvino

    net = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_NUM_THREADS": 1, **options})
    return lambda image: np.array(net(image)[0])


def _open_onnxruntime(file: Path, options: dict[str, Any]) -> Network:
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), session_options, providers=["CPUExecutionProvider"], **options)
    return lambda image: np.array(session.run(None, {"image": image})[0])


def main(engine: str, file: Path, precision: str, images: Path, results: Path) -> None:
    network = open_network(engine, file, precision)
    with np.load(images) as arrays:
        np.savez(results, **{name: network(array) for name, array in arrays.items()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
