"""Networks in ONNX and TFLite files that take images of one size only, run on images of any size.

A larger image goes through in pieces of that size, and of each result only what no cut can have changed is taken: how
far pixels reach is measured, by changing one half of an image.  So the whole is what the network makes of each part of
it.  A smaller image is continued by its last rows and columns.  A network in which pixels reach too far takes images of
its own size alone, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.tiles import Span, cut, place_spans, stack
from memsr_compiler.runtime.litert import LiteRTNetwork
from memsr_compiler.runtime.runners import OrtNetwork, Provider

_LEAST_KEPT = 4  # a piece gives at least this part of its side, so that an image takes at most 16 times its own work
_SIDE = 64  # pixels of an axis that is free, where the reach is measured
_ROUNDING = 64  # units in the last place of the largest value: a change below is none


def open_onnx(path: Path, *, provider: Provider = "cpu", threads: int | None = None) -> OrtNetwork | OneSize:
    """Open an ONNX file to run it on images of any size.  Raises InvalidInput as `OrtNetwork`."""
    network = OrtNetwork(path, provider=provider, threads=threads)
    return network if network.sizes == (None, None, None) else OneSize(network, path)


def open_tflite(path: Path, *, provider: Provider = "cpu", threads: int | None = None) -> LiteRTNetwork | OneSize:
    """Open a TFLite file to run it on images of any size.  Raises InvalidInput as `LiteRTNetwork`."""
    network = LiteRTNetwork(path, provider=provider, threads=threads)
    return network if network.fixed == (None, None) else OneSize(network, path)


class OneSize:
    """A network that takes images of one size only, as a function of images of any size.

    fixed   height and width that it takes; None: any
    note    what there is to say on that and on the file, for whoever runs it
    """

    def __init__(self, network: OrtNetwork | LiteRTNetwork, path: Path) -> None:
        self._network, self._path = network, path
        self._batch, *sides = network.sizes
        self.fixed = (sides[0], sides[1])
        self.engine, self.arithmetic, self.metadata = network.engine, network.arithmetic, network.metadata
        self.precision, self.inner = network.precision, network.inner
        size = (
            f"{path}: takes images of {self._size()} only ({network.needs_sizes}); others go through in pieces of "
            "that size"
        )
        self.note = "; ".join(filter(None, (network.note, "" if self.fixed == (None, None) else size)))

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns = (self._spans(axis, extent) for axis, extent in enumerate(x.shape[2:]))
        height, width = (side or extent for side, extent in zip(self.fixed, x.shape[2:], strict=True))
        places = [(i, row, column) for i in range(len(x)) for row, column in product(rows, columns)]
        pieces = [cut(x[i], row, column, height, width) for i, row, column in places]
        results = (result for batch in stack(pieces, self._batch) for result in self._network(batch))
        whole: Tensor | None = None
        for (i, row, column), result in zip(places, results, strict=False):
            scale = result.shape[-1] // width
            if whole is None:
                whole = x.new_empty(len(x), len(result), scale * x.shape[2], scale * x.shape[3])
            whole[i, :, _scaled(row, scale), _scaled(column, scale)] = _kept(result, row, column, scale)
        assert whole is not None, "an image has at least one piece"
        return whole

    def prepare(self, x: Tensor) -> Callable[[], object]:
        def once() -> None:
            self(x)

        return once

    def _spans(self, axis: int, extent: int) -> list[Span]:
        side = self.fixed[axis]
        if side is None or side == extent:
            return [Span(0, 0, extent)]
        margin = self._reach[axis]
        if side - 2 * margin < max(side // _LEAST_KEPT, 1):
            raise InvalidInput(
                f"{self._path}: takes images of {self._size()} only ({self._network.needs_sizes}), and pixels of its "
                "result depend on what is too far away to put others together from pieces of that size. Give images "
                "of that size, or export the network with dynamic height and width."
            )
        return place_spans(extent, side, margin)

    def _size(self) -> str:
        height, width = (str(side or "any") for side in self.fixed)
        return f"{width}x{height}"

    @cached_property
    def _reach(self) -> tuple[int, int]:
        """The distance, down and across, from which pixels may change a pixel of the result, all of them together."""
        height, width = (side or _SIDE for side in self.fixed)
        generator = torch.Generator().manual_seed(0)
        reach = [0, 0]
        for top in (1.0, 255.0):  # in either range ReLUs are open elsewhere
            image = torch.rand(self._network.channels or 3, height, width, generator=generator) * top
            before = self._run(image)
            for axis, side in enumerate((height, width)):
                for colour, half in ((top, slice(side // 2, None)), (0.0, slice(None, side // 2))):
                    other = image.clone()
                    other.movedim(1 + axis, 0)[half] = colour
                    distance = _distance(before, self._run(other), axis, half, side)
                    reach[axis] = max(reach[axis], distance)
        return reach[0], reach[1]

    def _run(self, image: Tensor) -> Tensor:
        """The result of an image of the size that the network takes."""
        (batch,) = stack([image], self._batch)
        return self._network(batch)[0]


def _distance(before: Tensor, after: Tensor, axis: int, half: slice, side: int) -> int:
    """Distance to which the result has changed beyond the half of the image that was, in pixels of the image."""
    change = (after - before).abs().amax(dim=(0, 2 - axis))
    limit = _ROUNDING * torch.finfo(torch.float32).eps * float(before.abs().max())
    changed = torch.nonzero(change > limit).flatten() // (len(change) // side)
    if not len(changed):
        return 0
    return side // 2 - int(changed.min()) if half.stop is None else int(changed.max()) - side // 2 + 1


def _scaled(span: Span, scale: int) -> slice:
    return slice(span.first * scale, span.last * scale)


def _kept(result: Tensor, row: Span, column: Span, scale: int) -> Tensor:
    """The part of a piece's result that is taken."""
    rows, columns = (
        slice((span.first - span.start) * scale, (span.last - span.start) * scale) for span in (row, column)
    )
    return result[:, rows, columns]
