"""ONNX Runtime and torch: what runs where is what was asked for, or refused."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.bounds import likely_rounding
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, export_onnx
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.runners import PROVIDERS, OrtNetwork, Provider, TorchNetwork
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.rrdb import RRDBNet

GPU: list[Provider] = ["cuda", "tensorrt"]
no_gpu = pytest.mark.skipif(
    torch.cuda.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="is about machines without a GPU",
)


@pytest.fixture(scope="module")
def net() -> PlainNet:
    torch.manual_seed(0)
    return compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())


@pytest.fixture(scope="module")
def path(net: PlainNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runtime") / "net.onnx"
    export_onnx(net, made)
    return made


def test_both_engines_compute_the_network(net: PlainNet, path: Path) -> None:
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        expected = net(x)
    for network in (OrtNetwork(path, threads=1), TorchNetwork(net, threads=1)):
        assert network.engine.endswith(", cpu") and network.precision == torch.float32
        assert bool(((network(x) - expected).abs() <= likely_rounding(net, x, torch.float32)).all())
        assert network(x.double()).dtype == torch.float64
    assert OrtNetwork(path).provider == "cpu"


@pytest.mark.parametrize(
    ("ends", "weights", "inner", "words"),
    [
        (torch.float32, (np.float16, np.float16), torch.float16, "float32 (so it computes float16 files there)"),
        (torch.float32, (np.float16, np.float32), torch.float32, "float32"),
        (torch.float16, (np.float32, np.float32), torch.float32, "float32"),
    ],
)
def test_the_precision_is_that_of_the_layers_whatever_images_are_in(
    ends: torch.dtype, weights: tuple[type, type], inner: torch.dtype, words: str, tmp_path: Path
) -> None:
    outer = TensorProto.FLOAT16 if ends is torch.float16 else TensorProto.FLOAT
    nodes, value = [], "x"
    for i, kind in enumerate(weights):
        to = TensorProto.FLOAT16 if kind is np.float16 else TensorProto.FLOAT
        nodes += [helper.make_node("Cast", [value], [f"h{i}"], to=to)]
        nodes += [helper.make_node("Conv", [f"h{i}", f"w{i}"], [f"c{i}"])]
        value = f"c{i}"
    nodes.append(helper.make_node("Cast", [value], ["y"], to=outer))
    stored = [numpy_helper.from_array(np.ones((3, 3, 1, 1), kind), f"w{i}") for i, kind in enumerate(weights)]
    image, result = (helper.make_tensor_value_info(n, outer, [1, 3, "h", "w"]) for n in "xy")
    graph = helper.make_graph(nodes, "mixed", [image], [result], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    network = OrtNetwork(tmp_path / "a.onnx")
    assert (network.precision, network.inner) == (ends, inner)
    assert network.arithmetic == f"{words}, by ONNX Runtime on the CPU"


def test_bound_tensors_give_the_same(path: Path) -> None:
    """Calls on a GPU bind image and result to it; here they are bound to the processor's memory."""
    network, bound = OrtNetwork(path), OrtNetwork(path)
    bound.provider = "cuda"
    for shape in ((1, 3, 9, 7), (1, 3, 4, 5), (2, 3, 9, 7)):
        x = torch.rand(shape)
        assert torch.equal(bound(x), network(x))
    with pytest.raises(InvalidInput, match=r"\(1, 4, 4, 5\) does not fit"):
        bound(torch.rand(1, 4, 4, 5))


def test_a_prepared_run_runs_as_often_as_wanted(net: PlainNet, path: Path) -> None:
    x = torch.rand(1, 3, 9, 7)
    for network in (OrtNetwork(path), TorchNetwork(net)):
        once = network.prepare(x)
        for _ in range(3):
            once()
    with pytest.raises(InvalidInput, match=r"\(1, 4, 4, 5\) does not fit"):
        OrtNetwork(path).prepare(torch.rand(1, 4, 4, 5))()


def test_torch_gets_its_threads_only_while_it_runs(net: PlainNet) -> None:
    before = torch.get_num_threads()
    seen = []
    spied = torch.nn.Sequential(net)
    spied.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    network = TorchNetwork(spied, threads=2)
    network(torch.rand(1, 3, 8, 8))
    network.prepare(torch.rand(1, 3, 8, 8))()
    assert seen == [2, 2] and torch.get_num_threads() == before


@no_gpu
@pytest.mark.parametrize("provider", GPU)
def test_a_provider_that_is_not_there_is_refused(path: Path, net: PlainNet, provider: Provider) -> None:
    with pytest.raises(InvalidInput) as told:
        OrtNetwork(path, provider=provider)
    for words in (f"--provider {provider}", "CPUExecutionProvider", "memsr_compiler[gpu]"):
        assert words in str(told.value)
    with pytest.raises(InvalidInput, match=r"tensorrt runs ONNX files|finds no CUDA device"):
        TorchNetwork(net, provider=provider)


def test_an_unknown_provider(path: Path) -> None:
    with pytest.raises(InvalidInput, match="cpu, cuda, tensorrt"):
        OrtNetwork(path, provider="rocm")  # type: ignore[arg-type]


@pytest.mark.parametrize("provider", GPU)
def test_a_session_that_fell_back_is_refused(path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime built for GPUs does on a machine without one: the session starts, on the processor."""
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    asked: list[Any] = []

    def session(file: str, options: object, *, providers: list[Any], enable_fallback: int) -> object:
        asked.append((providers, enable_fallback))
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(InvalidInput, match=r"could not start .* would use CPUExecutionProvider; check that nvidia-smi"):
        OrtNetwork(path, provider=provider)
    ((providers, fallback),) = asked
    names = {"cuda": ["CUDAExecutionProvider"], "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"]}
    assert [name for name, _ in providers] == names[provider] and fallback == 0


@no_gpu
@pytest.mark.parametrize("both", [True, False])
def test_two_onnx_runtimes_are_told(path: Path, both: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> object:
        if name in ("onnxruntime", "onnxruntime-gpu") and (both or name == "onnxruntime"):
            return object()
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    with pytest.raises(InvalidInput) as told:
        OrtNetwork(path, provider="cuda")
    assert ("share one module" in str(told.value)) == both
    OrtNetwork(path)  # the processor is served by either


def test_the_command_line_knows_the_providers() -> None:
    from memsr_compiler.commands.interface import options

    choices, *_ = get_args(options.Provider)
    assert get_args(choices) == PROVIDERS == get_args(Provider)


class Halved(nn.Module):
    """Takes images of even height and width only, as Real-ESRGAN x2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 48, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.pixel_shuffle(self.conv(torch.pixel_unshuffle(x, 2)), 4)


def test_a_network_that_takes_some_sizes_says_which_it_failed_on() -> None:
    run = TorchNetwork(Halved())
    assert run(torch.zeros(1, 3, 6, 8)).shape == (1, 3, 12, 16)
    with pytest.raises(InvalidInput, match=r"itself fails on an image of 7x8 \(pixel_unshuffle .*\); give it images"):
        run(torch.zeros(1, 3, 7, 8))
    with pytest.raises(InvalidInput, match="itself fails on an image of 7x8"):
        run.prepare(torch.zeros(1, 3, 7, 8))()


@pytest.mark.parametrize(("scale", "multiple"), [(2, 2), (1, 4)])
def test_images_are_continued_to_a_multiple_as_the_authors_of_real_esrgan_do(scale: int, multiple: int) -> None:
    network = RRDBNet(scale=scale, blocks=1, channels=4, growth=2).eval()
    run = TorchNetwork(network)
    assert run.note == f"images are continued as their mirror image to multiples of {multiple} pixels"
    for height, width in ((8, 12), (9, 11), (7, 5), (1, 1), (2, 3)):
        x = torch.rand(1, 3, height, width)
        below, right = -height % multiple, -width % multiple
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), "reflect")
        result = run(x)
        assert result.shape == (1, 3, scale * height, scale * width)
        if min(height, width) > multiple or (below, right) == (0, 0):
            with torch.no_grad():
                expected = network(torch.from_numpy(padded))[:, :, : scale * height, : scale * width]
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_a_lack_of_memory_is_not_said_to_be_of_the_size(error: Exception) -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    with pytest.raises(type(error)):
        TorchNetwork(Huge())(torch.zeros(1, 3, 6, 8))
