"""The teacher as a chain of levels: what its plain form holds between its layers, without the plain form's width.

The graph is the teacher's own, every op in its layer and carried values as they are (one channel each, not two), so
features cost what they cost in the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from memsr_compiler import ir, passes
from memsr_compiler.analysis.schedule import body_output
from memsr_compiler.errors import InvalidInput
from memsr_compiler.ir import names
from memsr_compiler.ir.interpreter import evaluate
from memsr_compiler.ir.rewrite import conv_1x1
from memsr_compiler.lowering.canonical import canonical
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantities import say_count
from memsr_compiler.student.merge_split_carries import merge_split_carries
from memsr_compiler.student.split_activations import split_activations
from memsr_compiler.torch_helpers import copy_module, enlarge
from memsr_compiler.trace.approximate.freeze import Frozen
from memsr_compiler.trace.trace import ImageSkip, Traced, trace

Values = Mapping[str, Tensor]
Outside = Literal["nearest", "none"]  # what a student adds to its layers' output


@dataclass(frozen=True)
class Level:
    """The values held after layer `number` of the plain form, and how they come from the level below.

    number    from 1; the last level is the network's output, folded to the input's resolution
    ops       names of the ops between the level below and this one, this level's included, in order
    held      names of the values, side by side; what a level above reads
    before    names of their values before the ReLU; of the same value where the teacher has none
    relu      bool (C,): which channels are behind a ReLU of the teacher; the others are carried, or the output
    kernel    size of the largest convolution in between
    spans     how many levels of the teacher it is: more than 1 where those below it were left out
    """

    number: int
    ops: tuple[str, ...]
    held: tuple[str, ...]
    before: tuple[str, ...]
    relu: Tensor
    kernel: int
    spans: int = 1

    @property
    def channels(self) -> int:
        return len(self.relu)


@dataclass(frozen=True)
class Features:
    """A level on some images: `before` and `after` the ReLUs (N, C, H, W), and what the next level starts from.

    known   what the level holds, before the ReLUs and after: most that is asked of a level is one of them
    """

    level: Level
    known: Values

    @cached_property
    def before(self) -> Tensor:
        return torch.cat([self.known[name] for name in self.level.before], dim=1)

    @cached_property
    def after(self) -> Tensor:
        return torch.cat([self.known[name] for name in self.level.held], dim=1)

    @property
    def targets(self) -> list[Tensor]:
        """Values (N, C', H, W) before the ReLUs, side by side `before`, and then those behind them, where they are."""
        before, held = ([self.known[name] for name in names] for names in (self.level.before, self.level.held))
        firsts = accumulate((value.shape[1] for value in held[:-1]), initial=0)
        return before + [value for value, first in zip(held, firsts, strict=True) if self.level.relu[first]]

    @property
    def values(self) -> Values:
        return {name: self.known[name] for name in self.level.held}


@dataclass(frozen=True)
class LeveledTeacher:
    """A network as levels.

    graph        Input, Conv2d, Sum, Relu, Carry at the input's resolution; its output before the pixel shuffle
    scale        factor of the pixel shuffle at the end
    sha256       of the network as it was traced
    image_skip   the enlarged image that is added to the output, outside of all this
    truth        the network that a student is to follow, where the graph is only a frozen one in its place
    """

    graph: ir.Graph
    levels: tuple[Level, ...]
    scale: int
    sha256: str
    image_skip: ImageSkip | None
    truth: nn.Module | None = None

    @staticmethod
    def of(
        model: nn.Module,
        input_range: tuple[float, float],
        *,
        image_skip: Outside | None = "none",
        frozen: Frozen | None = None,
        traced: Traced | None = None,
    ) -> LeveledTeacher:
        """Read a network, or a plain network.

        frozen       the network with what has no plain form replaced, where that is needed
        image_skip   "nearest": less the nearest-neighbour image, which is to be added outside; "none": as it is;
                     None: "nearest" where that can be.  An image that it adds outside itself stays there.
        traced       the network, or the frozen one, where it has been read already

        Raises UnsupportedModel where it has no plain form, InvalidInput where no image can be taken off its output.
        """
        if traced is None:
            traced = trace(model, input_range=input_range) if frozen is None else frozen.traced
        graph, outside = traced.graph, traced.image_skip
        reason = _why_no_image(graph, outside)
        if image_skip == "nearest" and reason:
            raise InvalidInput(f"the nearest-neighbour image cannot stay outside: {reason}; leave --image-skip out")
        if image_skip != "none" and not reason and outside is None:
            graph, outside = _subtract_image(graph), ImageSkip("nearest", graph.scale)
        graph = canonical(graph, "fold", keep_prelu=isinstance(model, PlainNet))[0].graph
        if isinstance(model, PlainNet):
            graph = merge_split_carries(split_activations(graph))
        graph = passes.skip_to_conv(graph)
        sha256 = model.info.teacher_sha256 if isinstance(model, PlainNet) else traced.graph.sha256()
        levels = LeveledTeacher(graph, _find_levels(graph), graph.scale, sha256, outside)
        if frozen is None:
            return levels
        return replace(levels, sha256=frozen.teacher_sha256, truth=copy_module(model, torch.float32))

    @property
    def input(self) -> ir.Input:
        return self.graph.input

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Channels at every level, the input's first and the output's last."""
        return (self.input.channels, *(level.channels for level in self.levels))

    @property
    def kernels(self) -> tuple[int, ...]:
        return tuple(level.kernel for level in self.levels)

    @property
    def whole(self) -> bool:
        """Whether no level was left out."""
        return all(level.spans == 1 for level in self.levels)

    def keep(self, kept: Sequence[int]) -> LeveledTeacher:
        """Leave out all inner levels but these (numbers, from 1, rising), which then stand for those below them too.

        What is computed stays the same; a level that is left out only moves the values on.
        """
        assert sorted(set(kept)) == list(kept) and all(0 < k < len(self.levels) for k in kept), f"levels {kept}"
        runs = pairwise((0, *kept, len(self.levels)))
        return replace(self, levels=tuple(_merge(self.levels[a:b], i) for i, (a, b) in enumerate(runs, 1)))

    def widest(self, layers: int) -> LeveledTeacher:
        """Leave out all but the widest inner levels: what a student of so many layers can have at most."""
        inner = sorted(self.levels[:-1], key=lambda level: level.channels, reverse=True)
        return self.keep(sorted(level.number for level in inner[: layers - 1]))

    def like(self, x: Tensor) -> LeveledTeacher:
        """Convert its weights to the dtype and the device of a tensor."""
        return replace(self, graph=self.graph.like(x))

    def start(self, images: Tensor) -> Values:
        """Values that level 1 starts from."""
        return {self.input.name: images}

    def advance(self, level: Level, values: Values) -> Features:
        """Compute a level's features from those of the level below (`Features.values`)."""
        known = dict(values)
        for name in level.ops:
            op = self.graph[name]
            known[name] = evaluate(op, *(known[i] for i in op.inputs))
        return Features(level, {name: known[name] for name in (*level.before, *level.held)})

    def resume(self, level: Level, after: Tensor) -> Values:
        """Values that the next level starts from, if this level's features were `after` (N, C, H, W)."""
        sizes = [self.graph.type(name).channels for name in level.held]
        return dict(zip(level.held, torch.split(after, sizes, dim=1), strict=True))

    def inner_features(self, images: Tensor) -> Iterator[Features]:
        """Yield the features of every level but the last."""
        values = self.start(images)
        for level in self.levels[:-1]:
            features = self.advance(level, values)
            values = features.values
            yield features

    def output(self, images: Tensor) -> Tensor:
        """Compute the network's output before the pixel shuffle, (N, C' * scale**2, H, W)."""
        first = self.advance(self.levels[0], self.start(images))
        return self.finish(self.levels[0], first.values) if len(self.levels) > 1 else first.after

    def target(self, images: Tensor) -> Tensor:
        """Compute what a student is to give before the pixel shuffle: the output of the network itself, not frozen."""
        if self.truth is None:
            return self.output(images)
        output = self.truth.to(images)(images.clone())
        if self.image_skip is not None:
            output = output - enlarge(images, self.image_skip.factor, self.image_skip.mode)
        return nn.functional.pixel_unshuffle(output, self.scale)

    def finish(self, level: Level, values: Values) -> Tensor:
        """Compute that output from what the level above this one starts from."""
        for above in self.levels[level.number :]:
            features = self.advance(above, values)
            values = features.values
        return features.after


def _why_no_image(graph: ir.Graph, outside: ImageSkip | None) -> str:
    """Why a network's output, less the nearest-neighbour image, is nothing to derive a student of; "" where it is."""
    if outside is not None and outside.mode != "nearest":
        return f"the network adds the image itself, enlarged by {outside.mode} interpolation"
    if graph.scale == 1:
        return "the network enlarges nothing"
    colours = graph.type(graph.output).channels
    if colours != graph.input.channels:
        return f"its output has {say_count(colours, 'channel')} and its input {graph.input.channels}"
    return ""


def _subtract_image(graph: ir.Graph) -> ir.Graph:
    """Subtract the nearest-neighbour image from a network's output.

    In canonical form an image that the network adds itself is gone then, and no level carries it.
    """
    source, output = graph.input.name, graph.output
    repeated = torch.eye(graph.input.channels, dtype=torch.float64).repeat_interleave(graph.scale**2, dim=0)
    minus = conv_1x1(names.internal(output, "minus"), source, -repeated)
    image = ir.PixelShuffle(name=names.internal(output, "image"), inputs=(minus.name,), factor=graph.scale)
    rest = ir.Sum(name=names.internal(output, "rest"), inputs=(output, image.name))
    return ir.Graph((*graph, minus, image, rest), rest.name)


def _merge(levels: Sequence[Level], number: int) -> Level:
    """Make one level of several, of which the last is what is held."""
    ops = tuple(name for level in levels for name in level.ops)
    kernel = max(level.kernel for level in levels)
    return replace(levels[-1], number=number, ops=ops, kernel=kernel, spans=sum(level.spans for level in levels))


def _find_levels(graph: ir.Graph) -> tuple[Level, ...]:
    output = body_output(graph)
    number: dict[str, int] = {}
    for op in graph:
        below = max((number[i] for i in op.inputs), default=0)
        number[op.name] = below + isinstance(op, (ir.Relu, ir.Carry))
    depth = number[output] + 1
    ops: list[list[str]] = [[] for _ in range(depth)]
    held: list[list[ir.Op]] = [[] for _ in range(depth)]
    for op in graph:
        ends = isinstance(op, (ir.Relu, ir.Carry))
        if isinstance(op, (ir.Input, ir.PixelShuffle)):
            continue
        at = number[op.name] - 1 if ends else number[op.name]
        ops[at].append(op.name)
        if ends:
            held[at].append(op)
    held[-1] = [graph[output]]
    return tuple(_make_level(graph, i + 1, ops[i], held[i]) for i in range(depth))


def _make_level(graph: ir.Graph, number: int, ops: Sequence[str], held: Sequence[ir.Op]) -> Level:
    relu = [isinstance(op, ir.Relu) for op in held for _ in range(graph.type(op.name).channels)]
    convs = [op for op in map(graph.__getitem__, ops) if isinstance(op, ir.Conv2d)]
    ends = [isinstance(op, (ir.Relu, ir.Carry)) for op in held]
    before = tuple(op.inputs[0] if end else op.name for op, end in zip(held, ends, strict=True))
    kernel = max((op.weight.shape[-1] for op in convs), default=1)
    return Level(number, tuple(ops), tuple(op.name for op in held), before, torch.tensor(relu), kernel)
