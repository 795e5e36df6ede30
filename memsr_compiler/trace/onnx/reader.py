"""ONNX files -> IR: the reader for networks that come without their PyTorch code."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memsr_compiler.errors import MemsrError, UnsupportedModel, first_line
from memsr_compiler.trace.builder import Builder, Padded, Resized, Uncropped
from memsr_compiler.trace.onnx.constants import MISUSE, fold_rows
from memsr_compiler.trace.onnx.file import Network, Node, read_network
from memsr_compiler.trace.onnx.folds.registry import COUNTS
from memsr_compiler.trace.onnx.frame import Frame
from memsr_compiler.trace.onnx.ops import activation, convolution, pointwise, resolution, shape
from memsr_compiler.trace.onnx.ops.registry import COMPOUND, ONNX_WORDS, VIEWS, Context, Value
from memsr_compiler.trace.onnx.ops.unsupported import APART, REFUSED, find_refusal
from memsr_compiler.trace.onnx.sizes import find_fixed_node
from memsr_compiler.trace.trace import GraphModule, ImageSkip
from memsr_compiler.trace.views import NO_BOUND, USUAL_LEAST, Unreadable, View, tell_other_sizes, tell_sizes

VOCABULARY = (activation, convolution, pointwise, resolution, shape)  # imported, their words are in ONNX_WORDS
_NARROW = {10: "float16", 16: "bfloat16"}  # by TensorProto's numbers
log = logging.getLogger(__name__)

_BROADCASTS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu", "Where", "Pow")
_TAKES = {"Conv": Padded, "AveragePool": Padded, "Slice": Uncropped, "Pad": Uncropped}
_TAKES_RESIZED = ("Add", "Sum", "Identity", "Cast", "Dropout")


def load_onnx(path: str | Path) -> GraphModule:
    """The super-resolution network in an ONNX file, as a module (N, C, H, W) -> (N, C', s * H, s * W).

    Opsets 11 to 21; weights become float64. A file made for one size of image is read as the network for all
    sizes that it is at this size; a batch fixed at 1 becomes free too, and any other where nothing needs it.

    Raises InvalidInput for a file that is missing, damaged or hostile, and for weights that are NaN or
    infinite, without repeating the path; UnsupportedModel naming the node, the operator, why it cannot be
    plain and what to do.
    """
    network = read_network(Path(path))
    return _Reader(network).read()


class _Reader:
    def __init__(self, network: Network) -> None:
        batch, channels, height, width = network.shape
        if width in (1, 3) and (channels or math.inf) > 4:  # (N, height, width, channels)
            raise UnsupportedModel(
                f"{network.input}: its {width} channels come last, as TensorFlow has them; export it with channels "
                f"first (tf2onnx: --inputs-as-nchw {network.input} --outputs-as-nchw {network.output}), or as .tflite"
            )
        odd = batch not in (None, 1) or (height is None) != (width is None) or 1 in (height, width)
        if odd and not find_fixed_node(network):
            batch = height = width = None
        if batch not in (None, 1):
            raise UnsupportedModel(
                f"{network.input}: the batch is fixed at {batch}; export it with batch 1, or a dynamic one"
            )
        if (height is None) != (width is None) or 1 in (height, width):
            raise UnsupportedModel(
                f"{network.input}: the image is {height or 'any height'} by {width or 'any width'}; "
                "export it with dynamic height and width"
            )
        sides = [side or math.inf for side in network.shape[2:]]
        self.assumed = (*tell_sizes(sides, fixed=math.inf not in sides), *self._tell_ranges(network))
        self.network = network
        self.builder = Builder(channels or count_channels(network), float("-inf"), float("inf"))
        self.context = Context(self.builder, Frame(batch, height, width), network.opset)
        self.values: dict[str, Value] = {**network.constants, network.input: self.builder.input}
        self.rows: set[str] = set()  # constants with a row for each image, of which one is held
        self.left = 64 * sum(a.size for a in network.constants.values()) + 2**26  # elements that may be computed

    def read(self) -> GraphModule:
        for node in self.network.nodes:
            self._locate(node)
            self._store(node, self._results(node))
        tell_rounded(self.network)
        return self._output()

    @staticmethod
    def _tell_ranges(network: Network) -> tuple[str, ...]:
        """Warn of sizes that a file's exporter notes: the conditions in its network's code are no longer there.

        Gives words on what is assumed.
        """
        assumed: list[str] = []
        for least, most in network.ranges:
            if least > USUAL_LEAST or most < NO_BOUND:
                assumed += tell_other_sizes(f"sizes from {least:,.0f} to {most:,.0f}".replace("inf", "any"))
        return tuple(assumed)

    def _locate(self, node: Node) -> None:
        name = re.sub(r"[^\w.:-]", "-", node.name.strip("/").replace("/", "."))
        self.builder.where, self.builder.last = name, node.op
        self.builder.leaf = node.op not in COMPOUND

    def _results(self, node: Node) -> Sequence[Value]:
        operands = [self._value(name) for name in node.inputs]
        if node.domain not in ("", "ai.onnx"):
            self.builder.refuse(
                f"an operator of {node.domain}, not of ONNX, is not read", "export with standard operators"
            )
        try:
            return self._word(node, operands)
        except MemsrError as error:
            if not isinstance(error, Unreadable) or error.located:
                raise
            known = not any(isinstance(v, View) for v in operands)
            if known and any(other.op == "ScatterND" for other in self.network.nodes):
                why = "as torch's older exporter does for a write into a part of a tensor (ScatterND)"
                self.builder.refuse(f"{error}, {why}", APART)
            self.builder.refuse(str(error), "simplify the file (onnxsim), or export it with another exporter")
        except MISUSE as error:
            said = first_line(error)
            self.builder.give_up(f"used in a way that is not read ({said}); export it with another exporter")

    def _word(self, node: Node, operands: list[Value | None]) -> Sequence[Value]:
        if node.op in REFUSED and REFUSED[node.op] == REFUSED["QuantizeLinear"]:
            self.builder.refuse(*REFUSED[node.op])
        known = [v for v in operands if v is None or isinstance(v, np.ndarray)]
        if len(known) == len(operands):
            results, rows = fold_rows(node, known, [name in self.rows for name in node.inputs])
            self.rows.update(node.outputs if rows else ())
            return results
        if (refusal := find_refusal(node, operands)) is not None:
            self.builder.refuse(*refusal)
        self._check_batch(node, operands)
        if node.op not in ONNX_WORDS:
            self.builder.give_up("this operator is not known; export the network without it")
        if any(isinstance(v, Resized) for v in operands) and node.op not in _TAKES_RESIZED:
            self.builder.refuse(
                "the enlarged image is used for something else than one sum at the end",
                "add it last, unscaled",
            )
        self.builder.require_settled(operands, _TAKES.get(node.op))
        if node.op not in VIEWS:
            self._settle(operands)
        result = ONNX_WORDS[node.op](self.context, node, *operands)
        return result if isinstance(result, tuple) else (result,)

    def _check_batch(self, node: Node, operands: Sequence[Value | None]) -> None:
        """Refuse to repeat the image by a number that the file fixes: networks are read with one of their own.

        And constants with a row for each image where the rows are no images.
        """
        ranks = {len(v.axes) if isinstance(v, View) else v.ndim for v in operands if isinstance(v, (View, np.ndarray))}
        if not self.rows.isdisjoint(node.inputs) and (node.op not in _BROADCASTS or ranks != {4}):
            raise Unreadable(COUNTS)
        if node.op in _BROADCASTS:
            for value in operands:
                if isinstance(value, np.ndarray) and value.ndim == 4:
                    self.builder.require_one_image(len(value))

    def _settle(self, operands: list[Value | None]) -> None:
        """Give pixel shuffles that were written as reshapes their own names, not that of the next layer."""
        leaf, self.builder.leaf = self.builder.leaf, False
        for value in operands:
            if isinstance(value, View) and len(value.axes) == 4:
                self.builder.feature(value)
        self.builder.leaf = leaf

    def _value(self, name: str) -> Value | None:
        if not name:
            return None
        if name not in self.values:
            self.builder.refuse(f"it uses '{name}', a result that is not read", "export the network without it")
        return self.values[name]

    def _store(self, node: Node, results: Sequence[Value]) -> None:
        for name, value in zip(node.outputs, results, strict=False):
            if isinstance(value, np.ndarray):
                self.left -= value.size
                if self.left < 0:
                    self.builder.refuse(
                        "the file computes far more constants than it holds", "fold them first (onnxsim)"
                    )
            self.values[name] = value

    def _output(self) -> GraphModule:
        self.builder.where, self.builder.last, self.builder.leaf = self.network.output, "output", False
        result = self._value(self.network.output)
        if isinstance(result, Resized) and result.body is not None:
            skip = ImageSkip(result.mode, result.factor)
            return GraphModule(self.builder.graph(result.body), skip, assumed=self.assumed)
        self.builder.require_settled([result])
        if not isinstance(result, View):
            what = "the enlarged image alone" if isinstance(result, Resized) else "a constant"
            self.builder.refuse(
                f"the network returns {what}", "convert a network that computes something from the image"
            )
        return GraphModule(self.builder.graph(result), assumed=self.assumed)


def tell_rounded(network: Network) -> None:
    """Warn of feature maps, or the enlarged image, in fewer digits than the image has: all of them are read."""
    pixels, to = {network.input}, set()
    for node in network.nodes:
        if node.op not in ("Shape", "Size") and not pixels.isdisjoint(node.inputs):
            pixels.update(node.outputs)
            if node.op == "Cast":
                to.add(_NARROW.get(node.integer("to", 1), ""))
    if to - {""} and network.kind != "FLOAT16":
        log.warning(
            "the file computes feature maps in %s: it is read as the network that rounds nothing",
            " and ".join(sorted(to - {""})),
        )


def count_channels(network: Network) -> int:
    """The input's channels where the file leaves them free: what the first convolution of the image takes."""
    for node in network.nodes:
        if node.op == "Conv" and node.inputs[0] == network.input and node.inputs[1] in network.constants:
            kernel = network.constants[node.inputs[1]]
            if kernel.ndim == 4:
                return int(kernel.shape[1]) * max(1, node.integer("group", 1))
    raise UnsupportedModel(f"{network.input}: its number of channels is free; declare it, as in (N, 3, height, width)")
