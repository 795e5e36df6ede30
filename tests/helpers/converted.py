"""Teachers, their plain layers and certificates, and an oracle for claims that shares nothing with the checker."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from helpers.bounds import shift_constant
from helpers.networks import random_images, random_network
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import CertificateError
from memsr_compiler.ir.interpreter import evaluate
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.proof.checker import Layer, check
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.trace import GraphModule, trace

NETWORKS = range(0, 120, 2)  # seeds of exact networks


class Converted:
    """A teacher, its plain layers, the certificate that links them, and images to tell networks apart."""

    def __init__(
        self, teacher: nn.Module, images: list[Tensor], carry: Carrying, constant: float | None = None
    ) -> None:
        low, seen = min(float(x.min()) for x in images), dict[str, ir.Graph]()
        self.range = (0.0, 1.0) if low >= 0 else (-1.0, 1.0)
        choices: dict[str, Any] = {"input_range": self.range, "align": 1, "on_graph": seen.setdefault}
        plain = compile_to_plain(teacher, carry=carry, constant=constant, **choices)
        assert plain.certificate is not None
        self.graph = seen["as read"]
        self.layers, self.certificate, self.images = list(plain.checkable()), plain.certificate, images
        self.outputs = [run_layers(self.layers, x)[-1] for x in images]

    def changed(self, layers: Sequence[Layer]) -> bool:
        """Whether other layers compute something else, exactly."""
        return any(
            not torch.equal(run_layers(layers, x)[-1], y) for x, y in zip(self.images, self.outputs, strict=True)
        )

    def refused(self, layers: Sequence[Layer], certificate: Certificate) -> bool:
        try:
            check(self.graph, layers, certificate)
        except CertificateError:
            return True
        return False

    def true(self, layers: Sequence[Layer], certificate: Certificate) -> bool:
        """Whether every claim of the certificate's only stage holds on all images."""
        return all(holds(self.graph, layers, certificate.stages[0], x) for x in self.images)


@cache
def converted(seed: int, carry: Carrying = "auto") -> Converted:
    network, images = read(seed)
    constant = shift_constant(network.graph, images) if carry == "shift" else None
    return Converted(network, images, carry, constant)


@cache
def read(seed: int) -> tuple[GraphModule, list[Tensor]]:
    """A random network as it is read, which takes most of the time of a conversion, and images."""
    network = random_network(seed).double()
    input_range = random.Random(seed).choice([(0.0, 1.0), (-1.0, 1.0)])
    module = GraphModule(trace(network, input_range=input_range).graph)
    module.weight = nn.Parameter(torch.zeros(0).double())  # of whose dtype the plain network is
    return module, random_images(network, input_range)


def small_edsr(carry: Carrying = "auto", constant: float | None = None) -> Converted:
    """Two residual blocks, x2, weights of few bits; its input may be negative, so it is carried in two halves."""
    teacher = EDSR(scale=2, blocks=2, channels=3, colours=1, tail="conv").double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_((torch.randn(p.shape, generator=generator) * 2).round().clamp(-2, 2) / 2)
    sizes = ((1, 1), (4, 5), (9, 7))
    images = [torch.randint(-8, 9, (2, 1, h, w), generator=generator).double() / 8 for h, w in sizes]
    return Converted(teacher, images, carry, constant)


# -- the oracle ------------------------------------------------------------------------------------------------------


def run_layers(layers: Sequence[Layer], x: Tensor) -> list[Tensor]:
    """What each level holds, the input first."""
    levels = [x]
    for layer in layers:
        y = F.conv2d(levels[-1], layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)
        levels.append(F.pixel_shuffle(y.relu() if layer.relu else y, layer.shuffle))
    return levels


def holds(graph: ir.Graph, layers: Sequence[Layer], stage: Stage, x: Tensor) -> bool:
    """Whether what the levels of a network hold for an image is what they are said to hold."""
    levels = run_layers([replace(layer, shuffle=1) for layer in layers], x)
    if len(levels) != len(stage.levels):
        return False
    real = Values(graph, x)
    for z, meanings in zip(levels, stage.levels, strict=True):
        for m in meanings:
            try:
                expected = {"one": torch.ones_like(z[:, :1]), "zero": 0 * z[:, :1]}.get(m.kind)
                t = real.meant(m) if expected is None else expected.expand(-1, len(m.positions), -1, -1)
                found = torch.stack([z[:, p] if p >= 0 else 0 * z[:, 0] for p in m.positions], dim=1)
            except (IndexError, KeyError):
                return False
            if not torch.equal(t, found):
                return False
    return True


class Values:
    """Every tensor of a teacher for one image; with `leaves`, as those would make it."""

    def __init__(self, graph: ir.Graph, x: Tensor, leaves: dict[str, Tensor] | None = None) -> None:
        self.graph, self.x = graph, x
        self.found = dict(leaves or {})
        self.by_relus = leaves is not None

    def value(self, name: str) -> Tensor:
        if name not in self.found:
            self.found[name] = self.relu(name) if "#" in name else self.defined(self.graph[name])
        return self.found[name]

    def defined(self, op: ir.Op) -> Tensor:
        if isinstance(op, ir.Input):
            return self.x
        if self.by_relus and isinstance(op, ir.PRelu):
            return self.value(f"{op.name}#0") - op.slope[:, None, None] * self.value(f"{op.name}#1")
        if self.by_relus and isinstance(op, ir.Maximum):
            return self.value(op.inputs[0]) + self.value(f"{op.name}#0")
        if self.by_relus and isinstance(op, ir.Clamp):
            if math.isinf(op.low):
                return op.high - self.value(f"{op.name}#0")
            above = op.low + self.value(f"{op.name}#0")
            return above if math.isinf(op.high) else above - self.value(f"{op.name}#1")
        return evaluate(op, *(self.value(i) for i in op.inputs))

    def relu(self, name: str) -> Tensor:
        op, k = self.graph[name.split("#")[0]], name.split("#")[1]
        x = self.value(op.inputs[0])
        if isinstance(op, ir.PRelu):
            return (x if k == "0" else -x).relu()
        if isinstance(op, ir.Maximum):
            return (self.value(op.inputs[1]) - x).relu()
        if isinstance(op, ir.Clamp):
            return (op.high - x if math.isinf(op.low) else x - (op.low if k == "0" else op.high)).relu()
        raise KeyError(name)

    def meant(self, m: ir.Meaning) -> Tensor:
        """What channels with this meaning hold."""
        t = self.value(m.tensor) if m.part is None else self.part(m.part)
        t = F.pixel_unshuffle(t, t.shape[-1] // self.x.shape[-1])[:, list(m.channels)]
        return {"value": t, "positive": t.relu(), "negative": (-t).relu(), "shifted": t + m.constant}[m.kind]

    def part(self, part: ir.Part) -> Tensor:
        leaves = {name: self.value(name) for name in (*part.sources, *part.rest)}
        only = {name: t if name in part.sources and name not in part.rest else 0 * t for name, t in leaves.items()}
        constants = Values(self.graph, 0 * self.x, {name: 0 * t for name, t in leaves.items()})
        return Values(self.graph, 0 * self.x, only).value(part.tensor) - constants.value(part.tensor)
