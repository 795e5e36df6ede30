"""ONNX Runtime as it is installed here."""

from __future__ import annotations

from importlib import metadata
from types import ModuleType

from memsr_compiler.errors import MemsrError


def onnxruntime() -> ModuleType:
    """The module.  Raises MemsrError if it is not installed."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise MemsrError(
            f"ONNX Runtime is not installed; pip install 'memsr_compiler[cpu]' (or [gpu], never both){both_installed()}"
        ) from None
    return ort  # type: ignore[no-any-return]


def both_installed() -> str:
    """What to add to a message where onnxruntime and onnxruntime-gpu are both there; '' where they are not."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return ""
    return (
        ". onnxruntime and onnxruntime-gpu are both installed: they share one module, in which each overwrites the "
        "other; pip uninstall both, then install one"
    )
