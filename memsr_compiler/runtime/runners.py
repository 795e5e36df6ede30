"""Networks that run: ONNX files in ONNX Runtime, modules in torch, on the processor or on a GPU.

A request for a GPU is met or refused; neither engine falls back to the processor.  On NVIDIA's GPUs both use TF32 for
convolutions in float32, which is their default.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from memsr_compiler.arithmetic import INTEGERS, name_arithmetic
from memsr_compiler.errors import InvalidInput, MemsrError, first_line, tells_of_memory
from memsr_compiler.plain.seal import UNSEALED, is_unsealed, require_sealed_file
from memsr_compiler.quantities import say_count
from memsr_compiler.runtime.ort import PROVIDERS as PROVIDERS
from memsr_compiler.runtime.ort import Provider as Provider
from memsr_compiler.runtime.ort import device_of, onnxruntime, start_session
from memsr_compiler.runtime.room import require_memory
from memsr_compiler.torch_helpers import prepare, some_threads
from memsr_compiler.trace.onnx.sizes import free_sizes, what_needs_sizes

Network = Callable[[Tensor], Tensor]
"""Anything that makes (N, C', s H, s W) of (N, C, H, W)."""

_INTEGERS = ("QuantizeLinear", "QLinearConv", "ConvInteger")
_FLOATS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


class Runner(Protocol):
    """A network that can be run: tensors on the CPU, of any float dtype, in and out.

    engine      who computes it, and where: "ONNX Runtime, cpu"
    precision   of the values that it takes and gives;   inner   of those between its layers, as the file has them
    arithmetic  who computes it, where, and in what precision, in words
    fixed       height and width of the images that it takes as they are; None: any
    note        what there is to say on that and on the file, for whoever runs it; "" where there is nothing
    """

    engine: str
    precision: torch.dtype
    inner: torch.dtype
    arithmetic: str
    fixed: tuple[int | None, int | None]
    note: str

    def __call__(self, x: Tensor, /) -> Tensor: ...

    def prepare(self, x: Tensor, /) -> Callable[[], object]:
        """A function that runs the network on this image, as often as it is called.

        Image and result stay where it is computed, so that time is the network's own; it returns when all is done.
        """


class OrtNetwork:
    """An ONNX file as a function (N, C, H, W) -> (N, C', s H, s W); tensors on the CPU of any float dtype in and out.

    The file's own precision decides what is computed; `inner` says which, `provider` and `engine` where, `arithmetic`
    both in words, `metadata` what else the file says.  Sizes that the file fixes and nothing in it needs
    are free here; the others are `sizes`: batch, height and width, None where they are free.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None, provider: Provider = "cpu") -> None:
        """Load a file.

        threads    of the processor; None: ONNX Runtime's choice
        provider   "cpu", "cuda", or "tensorrt" with CUDA for what it does not take

        Raises InvalidInput if the file is not a network with one image in and one out, is one of ours and not as it
        was written, or the provider is not to be had; MemsrError if no ONNX Runtime is installed.
        """
        ort = onnxruntime()
        require_sealed_file(Path(path))
        self.provider = provider
        self.engine = f"ONNX Runtime, {provider}"
        self._session = _start(path, Path(path), _options(ort, threads), provider)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        with _explain_refusal(path):  # names may be no text
            names = [value.name for value in (*inputs, *outputs)]
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if len(inputs) != 1 or len(outputs) != 1:
            raise InvalidInput(
                f"{path}: has {say_count(len(inputs), 'input')} and {say_count(len(outputs), 'output')}; one "
                "image in, one out is wanted"
            )
        if inputs[0].type not in _FLOATS:
            raise InvalidInput(f"{path}: takes {inputs[0].type}, not floating-point images")
        self.sizes = _sizes(inputs[0].shape)
        self.needs_sizes = ""
        notes = [_say_unsealed(path)] if is_unsealed(self.metadata) else []
        if self.sizes != (None, None, None):
            self.needs_sizes = what_needs_sizes(Path(path))
            if not self.needs_sizes:
                self._session = _start(path, _without_sizes(Path(path)), _options(ort, threads), provider)
                declared = "x".join(map(str, inputs[0].shape))
                if self.sizes != (1, None, None):  # one image at a time is what others are given, too
                    notes.append(
                        f"{path}: says {declared}, and nothing in it needs that: it is run on images as they are"
                    )
                self.sizes = (None, None, None)
        self.note = "; ".join(notes)
        self.fixed = self.sizes[1:]
        self.channels = inputs[0].shape[1] if len(inputs[0].shape) == 4 else None
        self._name, result = names
        self.precision = _FLOATS[inputs[0].type]
        self.inner = _find_inner(Path(path), self.precision)
        numbers = INTEGERS if self.inner == torch.uint8 else str(self.inner).removeprefix("torch.")
        self.arithmetic = name_arithmetic(numbers, "ONNX Runtime", provider)
        self._bound = _Binding(ort, self._session, self._name, result, device_of(provider))

    def __call__(self, x: Tensor) -> Tensor:
        with _explain_misfit(x):
            if self.provider == "cpu":
                (result,) = self._session.run(None, {self._name: self._array(x)})
            else:
                binding = self._bound.to(self._array(x))
                self._bound.run(binding)
                (result,) = binding.copy_outputs_to_cpu()
        return torch.from_numpy(result).to(x.dtype)

    def prepare(self, x: Tensor) -> Callable[[], object]:
        binding = self._bound.to(self._array(x))

        def once() -> None:
            with _explain_misfit(x):
                self._bound.run(binding)

        return once

    def _array(self, x: Tensor) -> Any:
        return x.detach().cpu().to(self.precision).contiguous().numpy()


class _Binding:
    """Input and output of a session at places of our choice: the image is copied to a device once, the result stays."""

    def __init__(self, ort: ModuleType, session: Any, image: str, result: str, device: str) -> None:
        self._ort, self._session, self._device = ort, session, device
        self._image, self._result = image, result

    def to(self, array: Any) -> Any:
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._image, self._ort.OrtValue.ortvalue_from_numpy(array, self._device, 0))
        binding.bind_output(self._result, self._device, 0)
        return binding

    def run(self, binding: Any) -> None:
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()


class TorchNetwork:
    """A module as the same function, in float32; the module is moved to the device where it runs.

    A network with a `size_multiple` of height and width is given other images continued as their mirror image below and
    to the right, and what that gives is cut off, as Real-ESRGAN's authors do.

    Raises InvalidInput if the device is not to be had, for an image for which memory is not enough, and for one on
    which the network itself fails.  Torch has no TensorRT.
    """

    def __init__(self, module: nn.Module, *, threads: int | None = None, provider: Provider = "cpu") -> None:
        if provider == "tensorrt":
            raise InvalidInput("--provider tensorrt runs ONNX files; export the network, or use --provider cuda")
        if provider == "cuda" and not torch.cuda.is_available():
            raise InvalidInput(
                f"--provider cuda: torch {torch.__version__} finds no CUDA device; check nvidia-smi, or install a "
                "build of torch with CUDA"
            )
        self.engine = f"torch, {provider}"
        self.fixed: tuple[int | None, int | None] = (None, None)
        self.note = ""
        self.precision = self.inner = torch.float32
        self.arithmetic = name_arithmetic("float32", "torch", provider)
        self._device = device_of(provider)
        self._threads = threads
        self.module = prepare(module, self._device)
        self._multiple = int(getattr(module, "size_multiple", 1))
        if self._multiple > 1:
            self.note = f"images are continued as their mirror image to multiples of {self._multiple} pixels"
        self._fits = 0  # pixels of the largest image for which memory was enough

    def __call__(self, x: Tensor) -> Tensor:
        self.require_memory(tuple(x.shape))
        return self._run(x.to(self._device, self.precision)).cpu().to(x.dtype)

    def prepare(self, x: Tensor) -> Callable[[], object]:
        self.require_memory(tuple(x.shape))
        image = x.to(self._device, self.precision)

        def once() -> None:
            self._run(image)
            if self._device == "cuda":
                torch.cuda.synchronize()

        return once

    def require_memory(self, shape: tuple[int, ...]) -> None:
        """Raise InvalidInput where an image (N, C, H, W) takes more memory than there is."""
        pixels = shape[-2] * shape[-1]
        if pixels > self._fits:
            require_memory(self.module, shape, self._device)
            self._fits = pixels

    def _run(self, x: Tensor) -> Tensor:
        try:
            with torch.no_grad(), some_threads(self._threads):
                result = self._run_continued(x)
        except Exception as error:  # whatever the network's own code raises: many want an even height, or a multiple
            if isinstance(error, MemsrError) or tells_of_memory(error):
                raise
            height, width = x.shape[2:]
            raise InvalidInput(
                f"the network itself fails on an image of {height}x{width} ({first_line(error)}); give it images of "
                "sizes that it takes: crop or pad them"
            ) from error
        return result

    def _run_continued(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        below, right = -height % self._multiple, -width % self._multiple
        if not below and not right:
            result: Tensor = self.module(x)
            return result
        mode = "reflect" if below < height and right < width else "replicate"
        whole: Tensor = self.module(nn.functional.pad(x, (0, right, 0, below), mode=mode))
        scale = whole.shape[-1] // (width + right)
        return whole[:, :, : height * scale, : width * scale]


def _say_unsealed(path: str | Path) -> str:
    return f"{path}: {UNSEALED}"


def _start(name: str | Path, model: Path | bytes, options: Any, provider: Provider) -> Any:
    with _explain_refusal(name):
        return start_session(model, options, provider)


@contextlib.contextmanager
def _explain_refusal(name: str | Path) -> Iterator[None]:
    try:
        yield
    except MemsrError:
        raise
    except Exception as error:  # ONNX Runtime raises its own types, one for each status code
        raise InvalidInput(f"{name}: ONNX Runtime cannot load it: {first_line(error)}") from None


def _sizes(shape: Sequence[object]) -> tuple[int | None, int | None, int | None]:
    """Batch, height and width where they are numbers."""
    if len(shape) != 4:
        return None, None, None
    n, _, h, w = (size if isinstance(size, int) else None for size in shape)
    return n, h, w


def _without_sizes(path: Path) -> bytes:
    import onnx

    model = onnx.load(path)
    free_sizes(model)
    content: bytes = model.SerializeToString()
    return content


def _find_inner(path: Path, ends: torch.dtype) -> torch.dtype:
    """Precision of the values between a file's layers; unsigned 8 bits for 8-bit integers of any kind."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not any(content.find(name.encode()) >= 0 for name in (*_INTEGERS, "Cast")):
            return ends  # most files are such, and onnx loads slowly
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    if _computes_in_integers(graph):
        return torch.uint8
    return _find_layers_type(graph) or ends


def _computes_in_integers(graph: Any) -> bool:
    """Whether there are operators that compute in 8-bit integers; steps of 16 bits lie between sums of floats."""
    from onnx import TensorProto

    wide = {t.name for t in graph.initializer if t.data_type in (TensorProto.INT16, TensorProto.UINT16)}
    return any(node.op_type in _INTEGERS and wide.isdisjoint(node.input) for node in graph.node)


def _find_layers_type(graph: Any) -> torch.dtype | None:
    """The widest type of weights that convolutions read, and so of feature maps, whatever images are in.

    None where a weight's type is not known.
    """
    from onnx import TensorProto

    types: dict[Any, torch.dtype] = {
        TensorProto.FLOAT16: torch.float16,
        TensorProto.FLOAT: torch.float32,
        TensorProto.DOUBLE: torch.float64,
    }
    kinds: dict[str, Any] = {t.name: t.data_type for t in graph.initializer}
    for node in graph.node:
        for a in node.attribute:
            if node.op_type == "Constant" or (node.op_type == "Cast" and a.name == "to"):
                kinds[node.output[0]] = a.i if node.op_type == "Cast" else a.t.data_type
    convolutions = (node for node in graph.node if node.op_type in ("Conv", "ConvTranspose"))
    weights = [types.get(kinds.get(node.input[1])) for node in convolutions]
    known = [kind for kind in weights if kind is not None]
    return max(known, key=lambda kind: kind.itemsize) if known and len(known) == len(weights) else None


def _options(ort: ModuleType, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # with it, the second size takes twice the memory
    options.enable_cpu_mem_arena = True  # without it glibc takes several times as much
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL  # a ReLU becomes part of its Conv
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else threads spin on in another's turn
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


@contextlib.contextmanager
def _explain_misfit(x: Tensor) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's own types again
        raise InvalidInput(f"an image of {tuple(x.shape)} does not fit the network: {first_line(error)}") from None
