"""Any network in a file, ready to run: a plain network, another ONNX file, a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from memsr_compiler.analysis.cost import Cost, cost_of_graph, cost_of_layers
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.plain.info import Takes, takes_images
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.read import is_plain
from memsr_compiler.quantization.quantize import cost_of_quantized, read_cost, takes_of
from memsr_compiler.runtime.litert import LiteRTNetwork, read_metadata
from memsr_compiler.runtime.one_size import OneSize, open_onnx, open_tflite
from memsr_compiler.runtime.runners import OrtNetwork, Provider, Runner, TorchNetwork
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.readings import probe_range
from memsr_compiler.teachers.teacher import Teacher, measure_takes
from memsr_compiler.tflite.model import TFLITE
from memsr_compiler.torch_helpers import copy_module, list_parameters
from memsr_compiler.trace.trace import trace


@dataclass(frozen=True)
class NetworkFile:
    """A file, and how to read it if it holds a teacher: see `read_teacher`.

    input_range   of its input values; None: what the file says, else what its family expects, else 0 to 1
    probe         try on a photograph what the file does not say
    """

    path: Path
    arch: str | None = None
    arch_args: Mapping[str, object] = field(default_factory=dict)
    allow_pickle: bool = False
    input_range: tuple[float, float] | None = None
    prefix: str = ""
    probe: bool = True

    def teacher(self) -> Teacher:
        return read_teacher(
            self.path,
            arch=self.arch,
            arch_args=self.arch_args or None,
            prefix=self.prefix,
            allow_pickle=self.allow_pickle,
            input_range=self.input_range,
            probe=self.probe,
        )


@dataclass(frozen=True)
class Model:
    """A network, what it takes, and what to call it.  assumed: what its file does not say, see `Teacher`."""

    name: str
    network: Runner
    takes: Takes
    assumed: tuple[str, ...] = ()


def open_runner(file: NetworkFile, *, provider: Provider = "cpu", threads: int | None = None) -> Runner:
    """Open a network to run it: .onnx runs in ONNX Runtime, .tflite in LiteRT, all else in torch, in float32.

    Raises InvalidInput for a file that is no network, and a provider that is not to be had.
    """
    engine = _open_in_engine(file.path, provider, threads)
    if engine is not None:
        return engine
    plain = is_plain(file.path)
    module = load_plain(file.path, require_certificate=False) if plain else file.teacher().module
    return _in_torch(module, provider, threads)


def open_model(file: NetworkFile, *, provider: Provider = "cpu", threads: int | None = None) -> Model:
    """Open a network to run it, and find out what it takes.

    Raises InvalidInput as `open_runner`, and for a network that does not work on photographs.
    """
    path = file.path
    if is_plain(path):
        net = load_plain(path, require_certificate=False)
        own = takes_images(net.info, len(net[-1].weight), net[-1].shuffle, str(path))
        takes = _require_agreement(file, own)
        return Model(path.name, open_runner(file, provider=provider, threads=threads), takes)
    runner: Runner
    engine = _open_in_engine(path, provider, threads)
    if engine is not None:
        runner = engine
        stated = _stated_takes(engine, path)
        if stated is not None:
            return Model(path.name, runner, _require_agreement(file, stated))
        input_range, assumed = probe_range(runner, path, file.input_range, probe=file.probe)
    else:  # read once: a pickle that is allowed to be executed is executed once
        teacher = file.teacher()
        runner = _in_torch(teacher.module, provider, threads)
        input_range, assumed = teacher.input_range, teacher.assumed
    return Model(path.name, runner, measure_takes(runner, input_range, str(path), runner.fixed), assumed)


def common_scale(models: Sequence[Model], told: int | None) -> int:
    """The factor by which images are to be enlarged, for all models.

    told   where no network has a scale of its own; None: the networks' own

    Raises InvalidInput where they differ, or nobody says.
    """
    own = [(model.name, model.takes.scale) for model in models if model.takes.scale > 1]
    if len({scale for _, scale in own}) > 1:
        scales = ", ".join(f"{name} x{scale}" for name, scale in own)
        raise InvalidInput(f"the networks enlarge differently ({scales}); compare those of one scale")
    wanted = own[0][1] if own else told
    if wanted is None:
        raise InvalidInput("no network says by how much to enlarge; give --scale 2, 3 or 4")
    if told is not None and told != wanted:
        raise InvalidInput(f"--scale {told}: {own[0][0]} enlarges by {wanted}; leave --scale out")
    return wanted


def count_cost(file: NetworkFile) -> tuple[int | None, Cost | None]:
    """Count parameters, and what the network costs; None where they are not to be had.

    A network that no plain network can express (attention, say) has no count of its operations; if it is an ONNX file,
    none of its parameters either.  Those of other ONNX files are weights and biases.  A network in 8 bits, and a TFLite
    file of ours, has the counts of the one that it was made from, if that one had any.  How weights are to be read says
    nothing of files that hold the network itself, which stand beside them in `bench`.
    """
    if file.path.suffix.lower() in (".onnx", TFLITE):
        file = replace(file, arch=None, arch_args={}, prefix="", probe=False)
    if is_plain(file.path):
        net = load_plain(file.path, require_certificate=False)
        cost = cost_of_layers([(tuple(layer.weight.shape), layer.shuffle) for layer in net])
        return cost.parameters, cost
    before = _stated_cost(file.path)
    if before is not None:
        return before.parameters, before
    try:
        return count_module(file.teacher().module)
    except UnsupportedModel:
        return None, None


def count_live(file: NetworkFile, cost: Cost | None) -> int:
    """Count the values that its engine holds at once, at least, for a pixel of the image; 0 where that is not known.

    Of a plain network all: no engine goes on to a layer's result without what it reads.  Of others, whose operations an
    engine may join, the widest feature map.
    """
    if cost is None:
        return 0
    return cost.floats_per_pixel if is_plain(file.path) else cost.widest


def count_module(module: nn.Module) -> tuple[int | None, Cost | None]:
    """Count parameters and cost of a teacher's module, see `count_cost`."""
    parameters = sum(p.numel() for p in list_parameters(module).values()) or None  # a module made of ONNX has constants
    try:
        cost = cost_of_graph(trace(module).graph)
    except UnsupportedModel:
        return parameters, None
    return parameters or cost.parameters, cost


def _open_in_engine(path: Path, provider: Provider, threads: int | None) -> OrtNetwork | LiteRTNetwork | OneSize | None:
    """The network in a file for ONNX Runtime or LiteRT; None for other files."""
    if path.suffix.lower() == ".onnx":
        return open_onnx(path, provider=provider, threads=threads)
    return open_tflite(path, provider=provider, threads=threads) if path.suffix.lower() == TFLITE else None


def _stated_cost(path: Path) -> Cost | None:
    """The cost that a network's file states; None where it does not."""
    if path.suffix.lower() == TFLITE:
        return read_cost(read_metadata(path))
    return cost_of_quantized(path) if path.suffix.lower() == ".onnx" else None


def _in_torch(module: nn.Module, provider: Provider, threads: int | None) -> TorchNetwork:
    return TorchNetwork(copy_module(module, torch.float32), provider=provider, threads=threads)


def _require_agreement(file: NetworkFile, takes: Takes) -> Takes:
    """Return `takes`.  Raises InvalidInput if the file was given with another range."""
    if file.input_range not in (None, takes.input_range):
        low, high = takes.input_range
        raise InvalidInput(f"{file.path}: takes values from {low:g} to {high:g}; leave --input-range out")
    return takes


def _stated_takes(network: OrtNetwork | LiteRTNetwork | OneSize, path: Path) -> Takes | None:
    """The images that a network in 8 bits, or a TFLite file of ours, says it takes; None if it does not say."""
    try:
        return takes_of(network.metadata)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
