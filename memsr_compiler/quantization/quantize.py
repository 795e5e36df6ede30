"""An ONNX network in 8-bit integers, by ONNX Runtime's static quantisation: read, quantised, checked, described.

QDQ, unsigned activations by minimum and maximum (image and result: the levels of images), signed weights per output
channel in 7 bits (`reduce_range`: processors without VNNI add two products in 16 bits, which 8-bit weights would
overflow).

Before, channels are brought to one range: see `equalise`.  Ranges are then narrowed where that is nearer to the values:
see `narrow_ranges`; and the weights rounded again, layer after layer: see `round_convolutions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.errors import ExportError, InvalidInput, MemsrError, first_line, say_missing
from memsr_compiler.files import DISK_FULL, atomic_write_together
from memsr_compiler.images.tensors import Images, image_tensors_in_range
from memsr_compiler.images.tiles import cut_batches
from memsr_compiler.plain.info import Takes, takes_images
from memsr_compiler.plain.manifest import QUANTIZED_FORMAT, QUANTIZED_KEY, UNSEALED_FORMAT
from memsr_compiler.plain.read import is_plain, read_plain_file
from memsr_compiler.plain.seal import require_sealed_file, seal
from memsr_compiler.quantities import say_count
from memsr_compiler.quantization.constants import store_constants
from memsr_compiler.quantization.equalise import equalise_channels
from memsr_compiler.quantization.image_levels import override_image, use_image_levels
from memsr_compiler.quantization.inner_values import InnerValues
from memsr_compiler.quantization.narrow_ranges import narrow_ranges
from memsr_compiler.quantization.round_convolutions import list_convolutions, round_convolutions
from memsr_compiler.quantization.shuffle_integers import shuffle_integers
from memsr_compiler.tflite.metadata import TFLITE_KEY
from memsr_compiler.trace.onnx.digest import network_digest
from memsr_compiler.trace.onnx.sizes import fixed_sizes, free_sizes, what_needs_sizes
from memsr_compiler.version import VERSION

if TYPE_CHECKING:
    from onnx import ModelProto

_MOST_ENLARGED = 16  # times; more no command takes
_OPSET = 17  # for models older than 13, which have no quantisation per channel
_SAME = 1e-3  # of the largest value: what converting a model may change, which float32 rounds otherwise then
_PROBE = (24, 20)  # height and width of the images that it is compared on, where the file fixes none
_READY = ("onnx.quant.pre_process", "onnxruntime.quant")  # without it ONNX Runtime advises on the root logger
_INTEGER_OPS = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear")
_ADDED = re.compile("_(?=scale|zero_point|quantized|Quantize|Dequantize|Reduce|Abs|Cast|convert)")
"""Where the words begin that ONNX Runtime puts behind names."""


@dataclass(frozen=True)
class Quantized:
    """The file that was written.

    bytes, source_bytes   of the file, and of the one that it was made from, with those that its weights lie in
    convolutions          that compute in 8 bits
    """

    path: Path
    bytes: int
    source_bytes: int
    convolutions: int


def quantize(
    source: str | Path,
    out: str | Path,
    images: Images,
    *,
    takes: Takes,
    cost: Cost | None = None,
    assumed: Sequence[str] = (),
) -> Quantized:
    """Write an 8-bit network beside a float32 one; float32 images go in and come out as before.

    source   an .onnx file, one image in and one out
    images   tensors (N, C, h, w) in the network's range, pixels, files, a folder; any sizes: what values come up is
             measured on them, or on pieces of them where the network takes one size only
    takes    kept in the file's metadata, with the hash of `source`; nothing else is: an 8-bit network is not plain any
             more, and no certificate speaks of it
    cost     of `source`, kept there too if it is given
    assumed  what the file of its teacher did not say, in words: kept there too

    The file appears whole or not at all.  Raises InvalidInput for a file that is not such a network, float16, or 8-bit
    already, for `takes` that the file or a run contradicts, without images, and for images of another range;
    ExportError where the file cannot be written; MemsrError without ONNX Runtime.
    """
    source, out = Path(source), Path(out)
    if out.suffix != ".onnx":
        raise InvalidInput(f"{out}: an ONNX model needs the extension .onnx; give it")
    if out.exists() and source.exists() and out.samefile(source):
        raise InvalidInput(f"{out}: is the network that is quantised; choose another name")
    if isinstance(images, (list, tuple)) and not images:
        raise InvalidInput("there are no calibration images; give some")
    if not isinstance(takes, Takes):
        raise InvalidInput(f"takes: a {type(takes).__name__}; want memsr_compiler.Takes, which says the scale")
    tensors = image_tensors_in_range(images, channels=None, input_range=takes.input_range)
    model = read_float(source)
    _require_stated(takes, source)
    sizes = fixed_sizes(model)
    arrays = [image.detach().cpu().float().numpy() for image in cut_batches(tensors, sizes)]
    with _explained(source):
        _require_measured(takes, source, model, arrays[0] if any(sizes) else arrays[0][:1])
    with atomic_write_together([out]) as staged:
        integer_model, inner = choose_integers(model, staged[0], arrays, source, takes)
        describe_integers(integer_model, takes, cost, assumed, source)
        staged[0].write_bytes(seal(integer_model.SerializeToString(deterministic=True)))
        size = staged[0].stat().st_size
    return Quantized(out, size, _count_bytes(source), inner)


def takes_of(metadata: Mapping[str, str]) -> Takes | None:
    """Images that a network in 8 bits or a TFLite file of ours says it takes; None for other metadata.

    Raises InvalidInput where they are damaged.
    """
    if QUANTIZED_KEY not in metadata and TFLITE_KEY not in metadata:
        return None
    if metadata.get(QUANTIZED_KEY, QUANTIZED_FORMAT) not in (QUANTIZED_FORMAT, UNSEALED_FORMAT):
        raise InvalidInput(f"is a {metadata[QUANTIZED_KEY]}, which this version does not know. Update memsr_compiler.")
    try:
        low, high = map(float, metadata["input_range"].split())
        scale = int(metadata["scale"])
        if not 1 <= scale <= _MOST_ENLARGED:
            raise ValueError(f"x{scale}")
        takes = Takes(scale, int(metadata["channels"]), (low, high))
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"its metadata are damaged ({first_line(error)}); quantize or export again") from None
    return takes


def cost_of_quantized(path: str | Path) -> Cost | None:
    """Cost of the network that `quantize` made this file of; None where the file does not say, or is another's."""
    metadata = {entry.key: entry.value for entry in load_model(Path(path)).metadata_props}
    return read_cost(metadata) if QUANTIZED_KEY in metadata else None


def read_cost(metadata: Mapping[str, str]) -> Cost | None:
    """Cost that a file of ours states; None where it does not."""
    numbers = [metadata.get(part.name, "") for part in fields(Cost)]
    known = all(number.isdecimal() and len(number) < 20 for number in numbers)
    return Cost(*map(int, numbers)) if known else None


# -- what it takes -------------------------------------------------------------------------------------------


def _require_stated(takes: Takes, source: Path) -> None:
    """Raise InvalidInput where the file, a plain network of ours, says that it takes something else."""
    if not is_plain(source):
        return
    manifest = read_plain_file(source, require_certificate=False).manifest
    stated = takes_images(manifest.info, manifest.layers[-1].weight[0], manifest.layers[-1].shuffle, str(source))
    if takes != stated:
        raise InvalidInput(f"{source}: says itself what it takes, not takes={_say(takes)}; give takes={_say(stated)}")


def _require_measured(takes: Takes, source: Path, model: ModelProto, image: NDArray[Any]) -> None:
    """Raise InvalidInput where a run shows other channels or another scale."""
    (result,) = InnerValues(model, [image]).of(model.graph.output[0].name)
    channels, (height, width) = image.shape[1], image.shape[2:]
    if channels != takes.channels:
        raise InvalidInput(
            f"{source}: takes {say_count(channels, 'channel')}, and takes={_say(takes)} says {takes.channels}"
        )
    if result.shape[1:] != (channels, takes.scale * height, takes.scale * width):
        raise InvalidInput(
            f"{source}: makes {'x'.join(map(str, result.shape[1:]))} of {'x'.join(map(str, image.shape[1:]))}, which "
            f"is not takes={_say(takes)}; give its scale, and a network that takes and gives one kind of image"
        )


def _say(takes: Takes) -> str:
    low, high = takes.input_range
    return f"Takes({takes.scale}, {takes.channels}, ({low:g}, {high:g}))"


# -- reading -------------------------------------------------------------------------------------------------


def read_float(path: Path) -> ModelProto:
    """The model without metadata, every convolution with a bias; what cannot be quantised is refused."""
    import onnx

    model = load_model(path)
    nodes = model.graph.node
    if any(node.op_type in _INTEGER_OPS for node in nodes):
        raise InvalidInput(f"{path}: is quantised already; give the float32 network that it was made from")
    _require_no_branches(model, path)
    store_constants(model)
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
        raise InvalidInput(f"{path}: is float16; give the float32 network, of which 8 bits lose less")
    if not any(True for _ in list_convolutions(model)):
        raise InvalidInput(f"{path}: has no convolution with stored weights, so there is nothing to quantise")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < 13:
        model = _convert_opset(model, path)
    if fixed_sizes(model) != (None, None, None) and not what_needs_sizes(path):
        free_sizes(model)
    del model.metadata_props[:]
    model.metadata_props.add(key=_READY[0], value=_READY[1])
    _name_nodes(model)
    _require_plain_convolutions(model, path)
    _rename_like_others(model)
    _give_biases(model)
    return model


def _require_plain_convolutions(model: ModelProto, path: Path) -> None:
    """Refuse convolutions over rows or volumes, and biases that are not in the file: nothing rounds these."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in list_convolutions(model):
        if ranks[node.input[1]] != 4:
            raise InvalidInput(
                f"{path}: {node.name}: a convolution over {say_count(ranks[node.input[1]] - 2, 'axis', 'axes')} of its "
                "input, and only those over height and width are quantised; write it as one of these"
            )
        if any(name and name not in ranks for name in node.input[2:]):
            raise InvalidInput(
                f"{path}: {node.name}: the bias of this convolution is computed, and only those in the file are "
                "quantised; write it as an Add behind a convolution without a bias"
            )


def _require_no_branches(model: ModelProto, path: Path) -> None:
    """Refuse nodes that hold graphs: these may take any value of the network, which would be scaled beneath them."""
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise InvalidInput(
                f"{path}: {node.name or next(filter(None, node.output), '')}: {node.op_type}: control flow is not "
                "quantised; simplify the file (onnxsim) so that the decision is taken once, or export it without"
            )


def _count_bytes(path: Path) -> int:
    """Bytes of a readable model: of its file, and of those beside it that its weights lie in."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    stored = [*graph.initializer, *(attribute.t for node in graph.node for attribute in node.attribute)]
    beside = {entry.value for tensor in stored for entry in tensor.external_data if entry.key == "location"}
    return sum((path.parent / name).stat().st_size for name in {path.name, *beside})


def _copy(model: ModelProto) -> ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def load_model(path: Path) -> ModelProto:
    """The ONNX model in a file, one of ours as it was written.  Raises InvalidInput."""
    import onnx
    from google.protobuf.message import DecodeError

    require_sealed_file(path)
    try:
        model = onnx.load(str(path))
        checked = _copy(model)
        for value in checked.graph.output:
            value.type.tensor_type.shape.SetInParent()  # engines infer it where there is none
        onnx.checker.check_model(checked)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error}). Check the path.") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = first_line(error)
        raise InvalidInput(f"{path}: is no ONNX model, or damaged ({reason}); export it again") from None
    return model


def _convert_opset(model: ModelProto, path: Path) -> ModelProto:
    """The model in a newer opset.  Raises InvalidInput where onnx cannot convert it, or makes another network of it."""
    from onnx import version_converter

    try:
        converted = version_converter.convert_version(model, _OPSET)
        deviation = _compare(model, converted)
    except ImportError:
        raise MemsrError(say_missing("ONNX Runtime", "measures ranges")) from None
    except Exception as error:  # the converter is C++ and has no exceptions of its own
        reason = first_line(error)
        raise InvalidInput(
            f"{path}: cannot be brought to opset {_OPSET} ({reason}); export it with 13 or later"
        ) from None
    if deviation > _SAME:
        raise InvalidInput(
            f"{path}: onnx.version_converter brings it to opset {_OPSET} as another network, which differs by "
            f"{deviation:.2g} of the largest value (of a linear Upsample or Resize of opset 10 and before it makes one "
            "by half pixels); export it with opset 13 or later, or set coordinate_transformation_mode in what the "
            "converter gives to asymmetric"
        )
    return converted


def _compare(model: ModelProto, converted: ModelProto) -> float:
    """By how much the second differs from the first, in parts of the largest value, on noise of levels 0..1 and 0..255.

    It is infinite for other sizes, and where only one of them gives NaN.
    """
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    batch, channels, height, width = dims if len(dims) == 4 else [0] * 4
    shape = batch or 1, channels or 3, height or _PROBE[0], width or _PROBE[1]
    noise = np.random.default_rng(0).random(shape, np.float32)
    images = [noise, noise * 255]
    before, after = (InnerValues(each, images).of(each.graph.output[0].name) for each in (model, converted))
    return max(_deviate(a, b) for a, b in zip(before, after, strict=True))


def _deviate(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference, in parts of the first one's largest value."""
    if one.shape != other.shape:
        return float("inf")
    differ = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    peak = np.abs(one[np.isfinite(one)]).max(initial=np.finfo(np.float32).tiny)
    return float(np.nan_to_num(np.abs(one - other)[differ] / peak, nan=np.inf).max(initial=0.0))


def _name_nodes(model: ModelProto) -> None:
    """Name the nodes that have no name: ONNX Runtime names what it makes after them."""
    taken = {node.name for node in model.graph.node}
    for i, node in enumerate(model.graph.node):
        node.name = node.name or _choose_free(f"node_{i}", taken)


def _rename_like_others(model: ModelProto) -> None:
    """Give values and nodes other names where theirs are another one's with a word behind it, "r_scale" beside "r".

    ONNX Runtime names what it adds so, and of two constants of one name a file keeps one.  Image and result keep
    theirs.
    """
    graph = model.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    values = {*ends, *(t.name for t in graph.initializer), *(name for node in graph.node for name in node.output)}
    taken = values | {node.name for node in graph.node}
    like = [name for name in sorted(taken - ends) if any(name[: m.start()] in taken for m in _ADDED.finditer(name))]
    new = {name: _choose_free(name.replace("_", "."), taken) for name in like}
    for entry in (*graph.initializer, *graph.value_info, *graph.node):
        entry.name = new.get(entry.name, entry.name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]


def _choose_free(name: str, taken: set[str]) -> str:
    """That name, or one made of it that is not taken; from here on it is."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _give_biases(model: ModelProto) -> None:
    """Add biases of zero where a convolution has none, so that there is something to correct."""
    from onnx import numpy_helper

    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    taken = {*shapes, *(name for node in model.graph.node for name in (*node.input, *node.output))}
    for node in list_convolutions(model):
        if len(node.input) < 3 or not node.input[2]:
            name = _choose_free(f"{node.name}.zero_bias", taken)
            model.graph.initializer.append(
                numpy_helper.from_array(np.zeros(shapes[node.input[1]][0], np.float32), name)
            )
            del node.input[2:]
            node.input.append(name)


# -- quantising ----------------------------------------------------------------------------------------------


def choose_integers(
    model: ModelProto, place: Path, images: Sequence[NDArray[Any]], source: Path, takes: Takes
) -> tuple[ModelProto, int]:
    """The model in 8 bits, and how many of its convolutions are.

    model    as `read_float` gives it; its channels are equalised, so that it is the same network in floating point
    place    where ONNX Runtime may write the model meanwhile;   source  the file that errors are about
    """
    _run_static(model, place, images, source, takes)
    integer_model = load_model(place)
    use_image_levels(model, integer_model, takes)
    narrow_ranges(model, integer_model, images, takes.input_range)
    convolutions = round_convolutions(model, integer_model, images)
    shuffle_integers(integer_model)
    return integer_model, convolutions


def _run_static(model: ModelProto, path: Path, images: Sequence[NDArray[Any]], source: Path, takes: Takes) -> None:
    """Equalise channels and run ONNX Runtime's static quantisation; ranges are measured, but for the image's.

    Given a model, not a file, it keeps its temporary files in a temporary folder, not beside the file.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError:
        raise MemsrError(say_missing("ONNX Runtime", "measures ranges")) from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(self.left, None)
            return None if image is None else {model.graph.input[0].name: image}

    with _explained(source):
        equalise_channels(model, images)
        quantize_static(
            _copy(model),  # it moves the weights of what it is given into a temporary file
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            extra_options={"TensorQuantOverrides": override_image(model, takes)},
        )


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Errors of ONNX Runtime, whatever its steps raise, as ours."""
    try:
        yield
    except MemsrError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise ExportError(
                f"{source}: of 8 bits it cannot be written ({error.strerror}). {DISK_FULL[error.errno]}"
            ) from error
        reason = first_line(error)
        raise InvalidInput(f"{source}: ONNX Runtime cannot quantise it ({reason}); give a plain network") from error


def describe_integers(
    integer_model: ModelProto, takes: Takes, cost: Cost | None, assumed: Sequence[str], source: Path
) -> None:
    """Give the 8-bit network metadata of its own: those of the plain network would say that this is one."""
    low, high = takes.input_range
    integer_model.doc_string = QUANTIZED_FORMAT  # far from the metadata, so that damage to these does not hide it
    del integer_model.metadata_props[:]
    for key, value in {
        QUANTIZED_KEY: QUANTIZED_FORMAT,
        "scale": str(takes.scale),
        "channels": str(takes.channels),
        "input_range": f"{low} {high}",
        "source_sha256": network_digest(source),
        "tool": f"memsr_compiler {VERSION}",
        **({name: str(value) for name, value in asdict(cost).items()} if cost is not None else {}),
        **({"assumed": "; ".join(assumed)} if assumed else {}),
    }.items():
        integer_model.metadata_props.add(key=key, value=value)
