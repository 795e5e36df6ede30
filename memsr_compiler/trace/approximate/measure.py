"""Runs of a torch.fx graph on images, with a look at the places that are approximated, or with replacements there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from memsr_compiler.ir.approximation import Replacement, pack_numbers
from memsr_compiler.trace.approximate.fit import fit_curve
from memsr_compiler.trace.approximate.reader import Place

SAMPLES = 4096  # pixels of all images together that a curve is fitted to


class _Run(fx.Interpreter):
    """A run of the graph that keeps what the sources were, before anything changed them in place."""

    def __init__(self, module: fx.GraphModule, places: Iterable[Place]) -> None:
        super().__init__(module)
        self.at = {place.result: place for place in places}
        self.wanted = {place.source for place in self.at.values()}
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        place = self.at.get(n.name)
        if place is None:
            value = super().run_node(n)
        else:
            source, gate = self._value(n, place.source), self._value(n, place.gate) if place.gate else None
            value = self.meet(place, source, gate, super().run_node(n))
        if n.name in self.wanted:  # which may be the result of another place
            self.kept[n.name] = value.clone()
        return value

    def meet(self, place: Place, source: Tensor, gate: object, result: Tensor) -> Tensor:
        """Look at a place; what is returned goes on in place of the result."""
        return result

    def _value(self, node: fx.Node, name: str) -> Any:
        """Value that a node reads, as it is now; of another node the one that it had when it was made."""
        read = next((read for read in node.all_input_nodes if read.name == name), None)
        value = self.kept[name] if read is None else self.env[read]
        return value.clone() if isinstance(value, Tensor) else value


class _Replaced(_Run):
    def __init__(self, module: fx.GraphModule, places: Iterable[Place], numbers: Mapping[str, Replacement]) -> None:
        super().__init__(module, places)
        self.numbers = numbers

    def meet(self, place: Place, source: Tensor, gate: object, result: Tensor) -> Tensor:
        return result.copy_(self.numbers[place.name].evaluate(source))  # for all who hold what was changed in place


class _Measured(_Run):
    def __init__(self, module: fx.GraphModule, places: Iterable[Place], pixels: int) -> None:
        super().__init__(module, places)
        self.gates: dict[str, _GateSums] = {}
        self.samples: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.pixels = pixels

    def meet(self, place: Place, source: Tensor, gate: object, result: Tensor) -> Tensor:
        if place.gate:
            self.gates.setdefault(place.name, _GateSums()).add(place, source, gate)
        else:
            self.samples.setdefault(place.name, []).append(_sample(place, source, result, self.pixels))
        return result


class _GateSums:
    """Sums over images, from which a gate's mean comes, and for one that differs from pixel to pixel the best line."""

    def __init__(self) -> None:
        self.spatial = False
        self.count = 0.0
        self.sums: Tensor | None = None  # (5, C): gate, x, y, x * x, x * y, where y = gate * x

    def add(self, place: Place, x: Tensor, gate: object) -> None:
        factor = gate.double() if isinstance(gate, Tensor) else None
        if factor is None or factor.dim() != 4 or factor.shape[1] not in (1, x.shape[1]):
            raise place.refusal
        factor = 1 / factor if place.inverse else factor
        flat = factor.flatten(2)
        self.spatial = self.spatial or not torch.equal(flat.amax(2), flat.amin(2))
        wide = factor.expand(len(x), x.shape[1], *factor.shape[2:])
        x = x.double()
        y = wide * x
        sums = [x.sum((0, 2, 3)), y.sum((0, 2, 3)), x.square().sum((0, 2, 3)), (x * y).sum((0, 2, 3))]
        pixels = x.numel() / x.shape[1]
        each = torch.stack([wide.mean((0, 2, 3)) * pixels, *sums])
        self.sums = each if self.sums is None else self.sums + each
        self.count += pixels

    def replacement(self, name: str) -> Replacement:
        assert self.sums is not None, "the place was met"
        gate, x, y, xx, xy = self.sums / self.count
        if not self.spatial:
            return Replacement(name, "gate", pack_numbers(gate))
        scale = (xy - x * y) / (xx - x * x).clamp_min(1e-30)
        return Replacement(name, "spatial gate", pack_numbers(scale), pack_numbers(y - scale * x))


def run_replaced(
    module: fx.GraphModule, places: Iterable[Place], numbers: Mapping[str, Replacement], image: Tensor
) -> Tensor:
    """The network's output where these places are replaced, and no others."""
    output: Tensor = _Replaced(module, places, numbers).run(image)
    return output


def measure(module: fx.GraphModule, places: Sequence[Place], images: Sequence[Tensor]) -> dict[str, Replacement]:
    """The best replacement for each place, by name: means of gates, curves fitted where activations have their inputs.

    Raises the refusal of a place whose gate is not a number for each channel.
    """
    run = _Measured(module, places, max(64, SAMPLES // len(images)))
    for image in images:
        run.run(image)
    numbers: dict[str, Replacement] = {}
    for place in places:
        if place.gate:
            numbers[place.name] = run.gates[place.name].replacement(place.name)
        else:
            x, y = (torch.cat(parts, dim=1) for parts in zip(*run.samples[place.name], strict=True))
            numbers[place.name] = fit_curve(place.name, place.kind, x, y)
    return numbers


def _sample(place: Place, x: Tensor, y: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Some pixels of what lies before and behind an activation, (C, pixels) each."""
    if x.shape != y.shape or x.dim() != 4:
        raise place.refusal
    x, y = (v.transpose(0, 1).flatten(1).double() for v in (x, y))
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(x.shape[1], (min(pixels, x.shape[1]),), generator=generator)
    return x[:, index], y[:, index]
