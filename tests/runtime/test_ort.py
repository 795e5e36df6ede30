"""Providers: what is asked for runs, or is refused; the processor never stands in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from memsr_compiler import Upscaler, compile_to_plain, export_onnx
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime import ort
from memsr_compiler.runtime.ort import PROVIDERS, Provider, require_provider, start_session
from memsr_compiler.teachers.families.edsr import EDSR

NAMES = {"cuda": ["CUDAExecutionProvider"], "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"]}
GPU: list[Provider] = ["cuda", "tensorrt"]
no_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime is built for GPUs"
)


@pytest.fixture(scope="module")
def net() -> PlainNet:
    torch.manual_seed(0)
    return compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())


@pytest.fixture
def built_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)


class Session:
    """A session on the processor that says it is on the provider it was asked for."""

    start: Callable[..., Any] = onnxruntime.InferenceSession

    def __init__(self, model: Any, options: Any, *, providers: list[Any], enable_fallback: int) -> None:
        self.names, self.fallback, self.settings = [name for name, _ in providers], enable_fallback, dict(providers)
        self.session = Session.start(model, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return self.names

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


@no_gpu
@pytest.mark.parametrize("provider", GPU)
def test_an_upscaler_is_refused_what_is_not_there(provider: Provider, net: PlainNet, tmp_path: Path) -> None:
    export_onnx(net, tmp_path / "net.onnx")
    for model in (net, tmp_path / "net.onnx"):
        with pytest.raises(InvalidInput, match=rf"--provider {provider}: .* has no {NAMES[provider][0]}, only .*CPU"):
            Upscaler(model, provider=provider)


def test_an_unknown_provider(net: PlainNet) -> None:
    with pytest.raises(InvalidInput, match="provider 'rocm': want one of cpu, cuda, tensorrt"):
        Upscaler(net, provider="rocm")  # type: ignore[arg-type]
    assert PROVIDERS == ("cpu", "cuda", "tensorrt")
    require_provider("cpu")


@pytest.mark.usefixtures("built_for_gpus")
@pytest.mark.parametrize("provider", GPU)
def test_an_upscaler_never_falls_back(provider: Provider, net: PlainNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime built for GPUs does on a machine without one: the session starts, on the processor."""
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    upscale = Upscaler(net, provider=provider)
    with pytest.raises(
        InvalidInput, match=rf"--provider {provider}: ONNX Runtime could not start {NAMES[provider][0]}"
    ):
        upscale(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.usefixtures("built_for_gpus")
@pytest.mark.parametrize("provider", GPU)
def test_all_runs_where_it_was_asked_to(provider: Provider, net: PlainNet, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    expected = Upscaler(net)(pixels)
    started: list[Session] = []

    def start(*args: Any, **options: Any) -> Session:
        started.append(Session(*args, **options))
        return started[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    monkeypatch.setattr(ort, "device_of", lambda provider: "cpu")
    assert np.array_equal(Upscaler(net, provider=provider)(pixels), expected)
    (session,) = started
    assert session.names == NAMES[provider] and not session.fallback
    assert session.settings["CUDAExecutionProvider"]["cudnn_conv_use_max_workspace"] == "0"


def test_a_model_that_is_none_is_onnx_runtimes_to_explain(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08 nothing")
    with pytest.raises(Exception, match=r"net\.onnx") as told:
        start_session(tmp_path / "net.onnx", onnxruntime.SessionOptions(), "cpu")
    assert not isinstance(told.value, InvalidInput)
