"""ONNX Runtime as it is installed here: the module, and sessions on the processor or a GPU.

A request for a GPU is met or refused, never answered by the processor.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from memsr_compiler.errors import InvalidInput, MemsrError, say_missing
from memsr_compiler.files import path_or_content

Provider = Literal["cpu", "cuda", "tensorrt"]

_PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),  # the second for what the first does not take
}
PROVIDERS = tuple(_PROVIDERS)
_OPTIONS = {"CUDAExecutionProvider": {"arena_extend_strategy": "kSameAsRequested"}}  # else memory goes up in doubles


def onnxruntime() -> ModuleType:
    """The module.  Raises MemsrError if it is not installed."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise MemsrError(say_missing("ONNX Runtime", "runs the network") + say_both_installed()) from None
    return ort  # type: ignore[no-any-return]


def say_both_installed() -> str:
    """A remark for messages where onnxruntime and onnxruntime-gpu are both there; '' where they are not."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return ""
    return (
        ". onnxruntime and onnxruntime-gpu are both installed: they share one module, in which each overwrites the "
        "other; pip uninstall both, then install one"
    )


def require_provider(provider: Provider) -> None:
    """Raises InvalidInput if this ONNX Runtime was built without the provider, MemsrError if there is none."""
    if provider not in _PROVIDERS:
        raise InvalidInput(f"provider {provider!r}: want one of {', '.join(PROVIDERS)}")
    ort = onnxruntime()
    available = ort.get_available_providers()
    missing = [name for name in _PROVIDERS[provider] if name not in available]
    if missing:
        raise InvalidInput(
            f"--provider {provider}: the installed ONNX Runtime {ort.__version__} has no {missing[0]}, only "
            f"{', '.join(available)}; pip uninstall it and pip install 'memsr_compiler[gpu]'{say_both_installed()}"
        )


def device_of(provider: Provider) -> str:
    """The device, by the name that ONNX Runtime and torch have for it, where a provider holds its values."""
    return "cpu" if provider == "cpu" else "cuda"


def start_session(model: Path | bytes, options: Any, provider: Provider, *, small_workspace: bool = False) -> Any:
    """A session of ONNX Runtime that runs on the provider and on no other.

    small_workspace   on CUDA: convolutions take no more beside their operands than 32 MiB, and may be slower

    Raises InvalidInput as `require_provider`, and where the provider does not start; for a model that cannot be loaded,
    ONNX Runtime's own errors, one type for each status code.
    """
    require_provider(provider)
    wanted = _PROVIDERS[provider]
    cuda = {"cudnn_conv_use_max_workspace": "0"} if small_workspace else {}
    session = onnxruntime().InferenceSession(
        model if isinstance(model, bytes) else path_or_content(model),
        options,
        providers=[(name, _OPTIONS[name] | cuda if name in _OPTIONS else {}) for name in wanted],
        enable_fallback=0,
    )
    running = session.get_providers()
    missing = [name for name in wanted if name not in running]
    if missing:  # ONNX Runtime goes without it and says so in no more than a log line
        raise InvalidInput(
            f"--provider {provider}: ONNX Runtime could not start {missing[0]} and would use {', '.join(running)}; "
            "check that nvidia-smi shows a GPU and that CUDA and cuDNN, and TensorRT for tensorrt, are where libraries "
            f"are looked for{say_both_installed()}"
        )
    return session
