"""A plain network by bands of rows on a GPU: one graph for all layers, whose kept rows stay on the device.

What `bands` does on the processor, layer by layer into memory of its own, would copy every feature map from the GPU and
back.  Here a band goes in, its result comes out, and between two bands each layer's last k - 1 rows of input remain
where they are, as results of one run that the next one takes.  The first band has zeros above it, the last one below,
and an image that is only one band is the network itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from memsr_compiler.runtime import ort
from memsr_compiler.runtime.bands import Rows, reach, scales_of
from memsr_compiler.runtime.ort import Provider, onnxruntime
from memsr_compiler.runtime.ort_layers import Layer

Part = Literal["whole", "first", "middle", "last"]

IMAGE = "rows"
RESULT = "made"
WAITING = "the image"


class DeviceBands:
    """The layers of a plain network in ONNX Runtime, on a device, in the dtype of their numbers: float32 or float16."""

    def __init__(self, layers: Sequence[Layer], *, image_skip: bool = False, provider: Provider = "cuda") -> None:
        """Take a network.  Sessions are started where they are first needed.

        image_skip   whether the image is added to the output, each pixel repeated

        Raises MemsrError if no ONNX Runtime is installed, InvalidInput for a provider that is not to be had.
        """
        self._layers, self._image_skip, self._provider = tuple(layers), image_skip, provider
        self._device = ort.device_of(provider)
        self._options = onnxruntime().SessionOptions()
        self._options.log_severity_level = 3
        self._sessions: dict[Part, Any] = {}

    def run(self, bands: Iterable[Rows]) -> Iterator[Rows]:
        """The output, band by band, of an image that is given band by band, each (C, h, W); float32 both."""
        kept: dict[str, Any] = {}
        parts = _name_parts(_join_first(bands, least_rows(self._layers)))
        for part, rows in parts:
            made, kept = self._run(part, rows, kept)
            yield made

    def _run(self, part: Part, rows: Rows, kept: dict[str, Any]) -> tuple[Rows, dict[str, Any]]:
        if part not in self._sessions:
            model = build_part(self._layers, part, image_skip=self._image_skip)
            self._sessions[part] = ort.start_session(model, self._options, self._provider, small_workspace=True)
        session = self._sessions[part]
        binding = session.io_binding()
        image = np.ascontiguousarray(rows[None], self._layers[0].weight.dtype)
        values = {IMAGE: onnxruntime().OrtValue.ortvalue_from_numpy(image, self._device, 0), **kept}
        for taken in session.get_inputs():
            binding.bind_ortvalue_input(taken.name, values[taken.name])
        names = [made.name for made in session.get_outputs()]
        for name in names:
            binding.bind_output(name, self._device, 0)
        binding.synchronize_inputs()
        session.run_with_iobinding(binding, self._run_options(part))
        binding.synchronize_outputs()
        results = dict(zip(names, binding.get_outputs(), strict=True))
        made = results.pop(RESULT).numpy()[0].astype(np.float32, copy=False)
        return made, {name.removesuffix(" next"): value for name, value in results.items()}

    def _run_options(self, part: Part) -> Any:
        """Each session has memory of its own on the device: one that is not needed for the next band gives it back."""
        options = onnxruntime().RunOptions()
        if part != "middle":
            place = "cpu:0" if self._device == "cpu" else "gpu:0"
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", place)
        return options


def least_rows(layers: Sequence[Layer]) -> int:
    """Rows that a first band needs at least, so that every layer has rows to keep for the next one."""
    return reach(layers) + max(layer.kernel_size for layer in layers)


def device_bytes(layers: Sequence[Layer], width: int, rows: int, *, image_skip: bool = False) -> int:
    """Bytes that a band of so many rows of `width` pixels takes on the device, at most, weights and workspace aside.

    What layers keep, of this band and of the last one; in the largest layer its rows with those kept above, its result,
    that after a PReLU and that with pixels shuffled; image and output.
    """
    size = layers[0].weight.dtype.itemsize
    kept, within, high = 0, 0, rows
    for layer, scale in zip(layers, scales_of(layers), strict=False):
        c_out, c_in = layer.weight.shape[:2]
        across, above = width * scale, layer.kernel_size - 1
        kept += 2 * c_in * above * across
        high = rows * scale + above
        results = 1 + (layer.shuffle > 1) + (layer.slope is not None)
        within = max(within, (2 * c_in * (high + above) + c_out * high * results) * across)
    colours, scale = layers[0].weight.shape[1], scales_of(layers)[-1]
    ends = colours * width * (rows + rows * scale**2) * (2 if image_skip else 1)
    waiting = 2 * colours * width * (reach(layers) + rows) if image_skip else 0
    return int(size * (kept + within + ends + waiting))


def _join_first(bands: Iterable[Rows], least: int) -> Iterator[Rows]:
    """The bands, the first ones joined until there are `least` rows, and without any that have none."""
    given = (band for band in bands if band.shape[1])
    first: list[Rows] = []
    for band in given:
        first.append(band.copy())  # it need not outlive the next
        if sum(rows.shape[1] for rows in first) >= least:
            break
    if first:
        yield np.concatenate(first, axis=1)
    yield from given


def _name_parts(bands: Iterator[Rows]) -> Iterator[tuple[Part, Rows]]:
    """Each band, and what of the image it is: known when the next one is there, or none."""
    last = next(bands, None)
    if last is None:
        return
    part: Part = "whole"
    for band in bands:
        yield ("first" if part == "whole" else "middle"), last
        last, part = band.copy(), "last"
    yield part, last


def build_part(layers: Sequence[Layer], part: Part, *, image_skip: bool = False) -> bytes:
    """The network for one part of an image, as ONNX: zeros above and below only where the image ends.

    Takes `rows`, and "kept 3" of every layer that keeps some, of the bands before; gives `made`, and "kept 3 next".
    """
    from onnx import helper

    graph = _Graph(layers[0].weight.dtype)
    begins, ends = part in ("whole", "first"), part in ("whole", "last")
    x = graph.take(IMAGE, layers[0].weight.shape[1])
    keep = partial(graph.keep, begins=begins, ends=ends)
    for i, layer in enumerate(layers):
        k = layer.kernel_size
        if k > 1:
            x = keep(f"kept {i}", x, k - 1, layer.weight.shape[1])
        pads = [k // 2 * begins, k // 2, k // 2 * ends, k // 2]
        weights = [graph.constant(layer.weight), graph.constant(layer.bias)]
        x = graph.add("Conv", x, *weights, kernel_shape=[k, k], pads=pads)
        x = graph.add("Relu", x) if layer.relu else x
        x = x if layer.slope is None else graph.add("PRelu", x, graph.constant(layer.slope))
        x = graph.add("DepthToSpace", x, blocksize=layer.shuffle, mode="CRD") if layer.shuffle > 1 else x
    if image_skip:
        colours, scale, late = layers[0].weight.shape[1], scales_of(layers)[-1], reach(layers)
        image = keep(WAITING, IMAGE, late, colours) if late else IMAGE
        image = graph.cut(image, 0, -late) if late and not ends else image
        ones = np.repeat(np.eye(colours), scale**2, axis=0)[..., None, None]
        image = graph.add("Conv", image, graph.constant(ones))
        x = graph.add("Sum", graph.add("DepthToSpace", image, blocksize=scale, mode="CRD"), x)
    graph.give(x, RESULT)
    made = helper.make_graph(graph.nodes, part, graph.inputs, graph.outputs, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class _Graph:
    """An ONNX graph while it is written; values are known by their names."""

    def __init__(self, number: DTypeLike) -> None:
        self._number = np.dtype(number)
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: list[Any] = []

    def take(self, name: str, channels: int) -> str:
        self.inputs.append(self._tell(name, channels))
        return name

    def give(self, value: str, name: str, channels: int | None = None) -> None:
        self.nodes.append(_node("Identity", [value], name))
        self.outputs.append(self._tell(name, channels))

    def keep(self, name: str, x: str, rows: int, channels: int, *, begins: bool, ends: bool) -> str:
        """The rows with those that were kept of the band before above them; the last ones are kept for the next."""
        joined = x if begins else self.add("Concat", self.take(name, channels), x, axis=2)
        if not ends:
            self.give(self.cut(joined, -rows, np.iinfo(np.int64).max), f"{name} next", channels)
        return joined

    def cut(self, x: str, start: int, end: int) -> str:
        """Rows of x from `start` to `end`, which count from the last one where they are negative."""
        return self.add("Slice", x, *(self.constant(np.array([n]), np.int64) for n in (start, end, 2)))

    def constant(self, values: NDArray[Any], number: DTypeLike | None = None) -> str:
        from onnx import numpy_helper

        name = f"constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values.astype(number or self._number), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind} {len(self.nodes)}"
        self.nodes.append(_node(kind, inputs, name, **attributes))
        return name

    def _tell(self, name: str, channels: int | None) -> Any:
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(self._number)
        return helper.make_tensor_value_info(name, kind, [1, channels, f"rows of {name}", f"columns of {name}"])


def _node(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, list(inputs), [name], **attributes)
