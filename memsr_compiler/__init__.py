"""memsr_compiler: a trained super-resolution network in, an equivalent plain network out, or a narrow one close to it.

    net = compile_to_plain("teacher.pt")
    export_onnx(net, "plain.onnx")
    export_onnx(shrink("teacher.pt", theta=0.05), "student.onnx")

The names below are the public interface; everything else may change.
"""

from __future__ import annotations

from importlib import import_module
from os.path import dirname, isdir, join
from typing import TYPE_CHECKING, Any

from memsr_compiler.version import VERSION as __version__

if not isdir(join(__path__[0], "passes")):
    # Git on Windows and some unpackers of zip files make a text file of the link to ../passes. Python then looks for
    # memsr_compiler.passes where the link would lead.
    __path__.append(dirname(__path__[0]))

if TYPE_CHECKING:  # the same names for type checkers; a test compares the two
    from memsr_compiler.errors import CertificateError as CertificateError
    from memsr_compiler.errors import ExportError as ExportError
    from memsr_compiler.errors import InvalidGraph as InvalidGraph
    from memsr_compiler.errors import InvalidInput as InvalidInput
    from memsr_compiler.errors import MemsrError as MemsrError
    from memsr_compiler.errors import NotEquivalent as NotEquivalent
    from memsr_compiler.errors import PassError as PassError
    from memsr_compiler.errors import RefusedPickle as RefusedPickle
    from memsr_compiler.errors import StagesCannotBeKept as StagesCannotBeKept
    from memsr_compiler.errors import UnsupportedModel as UnsupportedModel
    from memsr_compiler.evaluation.bench import benchmark as benchmark
    from memsr_compiler.evaluation.image_sets import TestImage as TestImage
    from memsr_compiler.evaluation.scores import evaluate as evaluate
    from memsr_compiler.lowering.compile import compile_to_plain as compile_to_plain
    from memsr_compiler.lowering.equivalence import check_equivalence as check_equivalence
    from memsr_compiler.lowering.inspection import inspect as inspect
    from memsr_compiler.lowering.shift_constants import calibrate as calibrate
    from memsr_compiler.lowering.verify import check_certificate as check_certificate
    from memsr_compiler.models.catalogue import load_model as load_model
    from memsr_compiler.plain.info import Takes as Takes
    from memsr_compiler.plain.load import load_plain as load_plain
    from memsr_compiler.plain.network import PlainNet as PlainNet
    from memsr_compiler.plain.write import export_onnx as export_onnx
    from memsr_compiler.plain.write import save_plain as save_plain
    from memsr_compiler.proof.certificate import Certificate as Certificate
    from memsr_compiler.quantization.quantize import quantize as quantize
    from memsr_compiler.runtime.upscaler import Upscaler as Upscaler
    from memsr_compiler.student.paper.options import PaperOptions as PaperOptions
    from memsr_compiler.student.shrink import shrink as shrink
    from memsr_compiler.teachers.load import load_teacher as load_teacher
    from memsr_compiler.teachers.load import read_teacher as read_teacher
    from memsr_compiler.teachers.teacher import Teacher as Teacher

_HOME = {
    # read
    "Teacher": "teachers.teacher",
    "read_teacher": "teachers.load",
    "load_teacher": "teachers.load",
    "inspect": "lowering.inspection",
    # convert, prove
    "compile_to_plain": "lowering.compile",
    "calibrate": "lowering.shift_constants",
    "check_equivalence": "lowering.equivalence",
    "check_certificate": "lowering.verify",
    "Certificate": "proof.certificate",
    # the plain network and its files
    "PlainNet": "plain.network",
    "load_plain": "plain.load",
    "load_model": "models.catalogue",
    "save_plain": "plain.write",
    "export_onnx": "plain.write",
    # narrower, smaller
    "shrink": "student.shrink",
    "PaperOptions": "student.paper.options",
    "quantize": "quantization.quantize",
    # run, measure
    "Upscaler": "runtime.upscaler",
    "Takes": "plain.info",
    "evaluate": "evaluation.scores",
    "TestImage": "evaluation.image_sets",
    "benchmark": "evaluation.bench",
    # what may be raised
    "MemsrError": "errors",
    "InvalidInput": "errors",
    "RefusedPickle": "errors",
    "UnsupportedModel": "errors",
    "StagesCannotBeKept": "errors",
    "NotEquivalent": "errors",
    "CertificateError": "errors",
    "ExportError": "errors",
    "InvalidGraph": "errors",
    "PassError": "errors",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `memsrc --help` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'memsr_compiler' has no attribute '{name}'")
    value = getattr(import_module(f"memsr_compiler.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
