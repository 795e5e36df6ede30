"""memsr_compiler: a trained super-resolution network in, an equivalent plain network out, or a narrow one close to it.

    net = compile_to_plain(load_teacher("teacher.pt"))
    export_onnx(net, "plain.onnx")
    export_onnx(shrink(load_teacher("teacher.pt"), theta=0.05), "student.onnx")

The names below are the public interface; everything else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memsr_compiler.version import VERSION as __version__

if TYPE_CHECKING:
    from memsr_compiler.errors import MemsrError
    from memsr_compiler.evaluation.bench import benchmark
    from memsr_compiler.evaluation.scores import TestImage, evaluate
    from memsr_compiler.lowering.compile import compile_to_plain
    from memsr_compiler.lowering.inspection import inspect
    from memsr_compiler.lowering.shift_constants import calibrate
    from memsr_compiler.plain.info import Takes
    from memsr_compiler.plain.load import load_plain, save_plain
    from memsr_compiler.plain.network import PlainNet
    from memsr_compiler.plain.write import export_onnx
    from memsr_compiler.proof.certificate import Certificate
    from memsr_compiler.proof.equivalence import check_equivalence
    from memsr_compiler.quantization.quantize import quantize
    from memsr_compiler.runtime.upscaler import Upscaler
    from memsr_compiler.student.shrink import shrink
    from memsr_compiler.teachers.load import load_teacher

_WHERE = {
    "Certificate": "proof.certificate",
    "MemsrError": "errors",
    "PlainNet": "plain.network",
    "Takes": "plain.info",
    "TestImage": "evaluation.scores",
    "Upscaler": "runtime.upscaler",
    "benchmark": "evaluation.bench",
    "calibrate": "lowering.shift_constants",
    "check_equivalence": "proof.equivalence",
    "compile_to_plain": "lowering.compile",
    "evaluate": "evaluation.scores",
    "export_onnx": "plain.write",
    "inspect": "lowering.inspection",
    "load_plain": "plain.load",
    "load_teacher": "teachers.load",
    "quantize": "quantization.quantize",
    "save_plain": "plain.load",
    "shrink": "student.shrink",
}
__all__ = [
    "Certificate",
    "MemsrError",
    "PlainNet",
    "Takes",
    "TestImage",
    "Upscaler",
    "__version__",
    "benchmark",
    "calibrate",
    "check_equivalence",
    "compile_to_plain",
    "evaluate",
    "export_onnx",
    "inspect",
    "load_plain",
    "load_teacher",
    "quantize",
    "save_plain",
    "shrink",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `memsrc --help` must not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'memsr_compiler' has no attribute '{name}'")
    value = getattr(import_module(f"memsr_compiler.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
