"""Single layers in ONNX Runtime, for `bands`: from one piece of memory that the caller holds into another.

Each layer is a session of its own.  They take the memory that they need on the way from one common arena, which grows
by what is asked for and no more: with an arena each, all would keep as much as the largest layer ever needed.  On a GPU
this would copy whatever is read and made: see `device_bands`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from memsr_compiler.runtime.ort import onnxruntime, start_session

THREADS = 8  # at most, unless told: every layer has its own, and a few rows are not worth more
BLOCK = 16  # channels that ONNX Runtime's fast convolutions work on together; 8 on processors without AVX-512


@dataclass(frozen=True)
class Layer:
    """A layer: weight (C_out, C_in, k, k), bias (C_out,), ReLU or not, the factor of the pixel shuffle after it.

    slope  (C_out, 1, 1) of a PReLU; None: there is none
    """

    weight: NDArray[Any]
    bias: NDArray[Any]
    relu: bool
    shuffle: int
    slope: NDArray[Any] | None = None

    @property
    def kernel_size(self) -> int:
        return int(self.weight.shape[-1])

    @property
    def out_channels(self) -> int:
        """Channels of the result, after the pixel shuffle."""
        return len(self.bias) // self.shuffle**2

    def astype(self, number: DTypeLike) -> Layer:
        """A copy in that dtype."""
        slope = None if self.slope is None else self.slope.astype(number)
        return Layer(self.weight.astype(number), self.bias.astype(number), self.relu, self.shuffle, slope)

    def to_float32(self) -> Layer:
        """A copy in float32."""
        return self.astype(np.float32)

    def transpose(self) -> Layer:
        """The layer for images whose height and width are exchanged."""
        weight, bias, slope, s = self.weight.swapaxes(2, 3), self.bias, self.slope, self.shuffle
        if s > 1:  # the shuffle's channels are (c, row, column)
            order = np.arange(len(bias)).reshape(-1, s, s).swapaxes(1, 2).flatten()
            weight, bias, slope = weight[order], bias[order], None if slope is None else slope[order]
        return Layer(np.ascontiguousarray(weight), bias, self.relu, s, slope)


class OrtLayers:
    """The layers of a plain network, float32, zeros only to the left and right of the image."""

    def __init__(self, layers: Sequence[Layer], *, threads: int | None = None) -> None:
        """Start a session for each layer.  Raises MemsrError if no ONNX Runtime is installed."""
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        options.intra_op_num_threads = threads or min(os.cpu_count() or 1, THREADS)
        # Threads that wait actively would do so in all layers but the one at work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        _arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        self._reserver = start_session(_reserver(), options, "cpu")
        self._sessions = [start_session(_model(layer), options, "cpu") for layer in layers]

    def __call__(self, number: int, read: NDArray[Any], made: NDArray[Any]) -> None:
        """Run layer `number`, from 0: read (C, h + k - 1, W) -> made (C', s * h, s * W), both contiguous float32."""
        session = self._sessions[number]
        binding = session.io_binding()
        binding.bind_input("read", "cpu", 0, np.float32, (1, *read.shape), read.ctypes.data)
        binding.bind_output("made", "cpu", 0, np.float32, (1, *made.shape), made.ctypes.data)
        session.run_with_iobinding(binding)

    def reserve(self, numbers: int) -> None:
        """Have the arena hold so many float32 numbers in one piece, which is then split among whatever is asked for.

        Layers differ in size: left alone, it takes another piece for each that is larger than those before, and keeps
        them all.  For the same reason a piece that has become too small is given back first.
        """
        arena = _arena()
        if numbers <= arena.reserved:
            return
        options = onnxruntime().RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._reserver.run(None, {"size": np.array([1], np.int64)}, options)
        _trim()
        self._reserver.run(None, {"size": np.array([numbers], np.int64)})
        arena.reserved = numbers


def count_inside(layer: Layer, read: int, made: int) -> int:
    """The most numbers that the engine holds within a layer, `read` and `made` being pixels per channel.

    What is read and what is made are copied, with channels in whole blocks; before a pixel shuffle there is one copy
    more, and before a PReLU another.
    """
    c_out, c_in = layer.weight.shape[:2]
    blocks = _whole_blocks(c_in) * read + _whole_blocks(c_out) * made
    return int(blocks + c_out * made * ((layer.shuffle > 1) + (layer.slope is not None)))


def _whole_blocks(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


@dataclass
class _Arena:
    """The memory of all layers of a process.   reserved   float32 numbers in its largest piece"""

    reserved: int = 0


@cache
def _arena() -> _Arena:
    """The process's arena, registered at the first call; only sessions that ask for it use it."""
    ort = onnxruntime()
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    same_as_requested = 1
    growth = {"max_mem": 0, "arena_extend_strategy": same_as_requested, "initial_chunk_size_bytes": 1 << 16}
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({**growth, "max_dead_bytes_per_chunk": 1 << 16}))
    return _Arena()


def _trim() -> None:
    """Have glibc give back what was freed; other C libraries do so by themselves, or have no such call."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # the last: Windows has no library of that name
        ctypes.CDLL(None).malloc_trim(0)


def _reserver() -> bytes:
    """A tensor as large as asked for, of which one number is the result."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["space"]),
        helper.make_node("Gather", ["space", "first"], ["number"]),
    ]
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [1])
    number = helper.make_tensor_value_info("number", TensorProto.FLOAT, [])
    return _serialise(nodes, size, number, [numpy_helper.from_array(np.array(0, np.int64), "first")])


def _model(layer: Layer) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    c_out, c_in, k, _ = layer.weight.shape
    s = layer.shuffle
    nodes = [
        helper.make_node("Conv", ["read", "weight", "bias"], ["conv"], kernel_shape=[k, k], pads=[0, k // 2, 0, k // 2])
    ]
    if layer.relu:
        nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["relu"]))
    if layer.slope is not None:
        nodes.append(helper.make_node("PRelu", [nodes[-1].output[0], "slope"], ["prelu"]))
    if s > 1:
        nodes.append(helper.make_node("DepthToSpace", [nodes[-1].output[0]], ["wide"], blocksize=s, mode="CRD"))
    nodes[-1].output[0] = "made"
    read = helper.make_tensor_value_info("read", TensorProto.FLOAT, [1, c_in, "rows", "columns"])
    made = helper.make_tensor_value_info("made", TensorProto.FLOAT, [1, c_out // s**2, "rows made", "columns made"])
    weights = [numpy_helper.from_array(layer.weight, "weight"), numpy_helper.from_array(layer.bias, "bias")]
    if layer.slope is not None:
        weights.append(numpy_helper.from_array(layer.slope, "slope"))
    return _serialise(nodes, read, made, weights)


def _serialise(nodes: Sequence[Any], image: Any, result: Any, constants: Sequence[Any]) -> bytes:
    from onnx import helper

    graph = helper.make_graph(nodes, "layer", [image], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
