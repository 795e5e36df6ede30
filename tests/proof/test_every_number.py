"""Every stored number counts: changed by more than its rounding, it is refused.

All numbers of small networks, biases beside the channel of ones and taps on padding included; 2,000 at random of the
shipped EDSR.  Each is tried in its own row, as the checker looks at it; some in the whole network.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import random_network
from torch import Tensor, nn

from memsr_compiler import PlainNet, compile_to_plain, read_teacher
from memsr_compiler.errors import CertificateError
from memsr_compiler.ir import Meaning
from memsr_compiler.proof import checker
from memsr_compiler.proof.forms import HeldLevel
from memsr_compiler.proof.rows import Expected, Layer, LayerScale, Rows
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.trace import trace

SHIPPED = Path(__file__).resolve().parents[2] / "examples" / "edsr_8x32_x2.pt"


@dataclass(frozen=True)
class Row:
    """One row of a layer, in a layer of its own, and all else that the checker compares it with."""

    layer: Layer
    largest: float  # of the weights of the whole layer
    arguments: tuple[Any, ...]  # of `Rows`, the layer aside

    def is_refused(self) -> bool:
        below, *others = self.arguments
        try:
            Rows(below, self.layer, *others).check(self.largest)
        except CertificateError:
            return True
        return False


def network(seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return EDSR(**{"scale": 2, "blocks": 1, "channels": 2, "colours": 1, **options}).eval()


def leaky() -> nn.Module:
    """Two PReLUs and a pixel shuffle."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.PReLU(3), nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.PixelShuffle(2)
    ).eval()


def rows_of(teacher: nn.Module, net: PlainNet, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """All rows as the checker compares them, the honest network having passed."""
    found: list[Row] = []

    class Watched(Rows):
        def __init__(
            self, below: HeldLevel, layer: Layer, m: Meaning, expected: Expected, scale: LayerScale, where: str
        ) -> None:
            super().__init__(below, layer, m, expected, scale, where)
            largest = max(abs(float(v)) for v in layer.weight.aminmax())
            for i, p in enumerate(m.positions):
                if p >= 0:
                    weight, bias = layer.weight[p : p + 1].clone(), layer.bias[p : p + 1].clone()
                    slope = None if layer.slope is None else layer.slope[p : p + 1].clone()
                    alone = Layer(weight, bias, layer.relu, 1, slope)
                    one = replace(m, positions=(0,), channels=m.channels[i : i + 1])
                    power = LayerScale(scale.rows[p : p + 1], scale.columns)
                    due = Expected(expected.form.pick([i]), expected.slopes[i : i + 1], expected.either[i : i + 1])
                    found.append(Row(alone, largest, (below, one, due, power, where)))

    assert net.certificate is not None
    with monkeypatch.context() as other:
        other.setattr(checker, "Rows", Watched)
        checker.check(trace(teacher, input_range=net.info.input_range).graph, net.checkable(), net.certificate)
    return found


def others(number: Tensor, scale: float, turn: int) -> list[Tensor]:
    """Numbers in place of one, each off by more than rounding it, or computing it in float64, explains.

    The nearest on both sides, and in turn the other sign, nothing, and a large one.
    """
    endless, steps = torch.tensor(float("inf"), dtype=number.dtype), []
    for way in (endless, -endless):
        away = torch.nextafter(torch.nextafter(number, way), way)
        off = number + torch.tensor(scale * (1e-11 if way > 0 else -1e-11), dtype=torch.float64).to(number.dtype)
        steps.append(away if abs(away - number) > abs(off - number) else off)
    further = (-number, 0 * number, number + torch.tensor(scale, dtype=number.dtype))[turn % 3]
    return [v for v in (*steps, further) if abs(float(v - number)) > scale * 1e-12]


def count_refused(row: Row, tensor: Tensor, at: int) -> int:
    """The other numbers in place of one of a row, each of them refused."""
    numbers = tensor.view(-1)
    right = numbers[at].clone()
    changed = others(right, row.largest, at)
    for wrong in changed:
        numbers[at] = wrong
        assert row.is_refused(), (row.arguments[-1], at, float(right), float(wrong))
    numbers[at] = right
    return len(changed)


HALVES, DOUBLES = torch.float16, torch.float64
NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.dtype, dict[str, Any]]] = {
    "split": (network, torch.float32, {}),
    "split, not aligned": (network, torch.float32, {"align": 1}),
    "split, float16": (network, HALVES, {"align": 1}),
    "split, float64": (network, DOUBLES, {"align": 1}),
    "all split": (network, torch.float32, {"carry": "split", "align": 1}),
    "shift": (network, torch.float32, {"carry": "shift", "constant": 2.5}),
    "shift, float16": (network, HALVES, {"carry": "shift", "constant": 2.5, "align": 1}),
    "shift, float64": (network, DOUBLES, {"carry": "shift", "constant": 2.7, "align": 1}),
    "images below zero": (network, torch.float32, {"input_range": (-1.0, 1.0), "align": 1}),
    "folded tail": (lambda: network(scale=4, channels=1), torch.float32, {"align": 1}),
    "stages kept": (lambda: network(scale=4), torch.float32, {"tail": "keep", "align": 1}),
    "PReLU": (leaky, torch.float32, {"align": 1}),
    **{f"random network {i}": (partial(random_network, i), torch.float32, {"align": 1}) for i in (1, 3, 5)},
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_number_of_a_small_network_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, dtype, options = NETWORKS[name]
    teacher = build()
    if dtype == DOUBLES:
        teacher = teacher.double()
    net = compile_to_plain(teacher, **options)
    net = net.half() if dtype == HALVES else net
    rows = rows_of(teacher, net, monkeypatch)
    assert {row.layer.weight.dtype for row in rows} == {dtype}
    numbers = 0
    for row in rows:
        for tensor in (row.layer.weight, row.layer.bias):
            for at in range(tensor.numel()):
                assert count_refused(row, tensor, at) >= 2
                numbers += 1
    assert numbers >= sum(x.weight.numel() + x.bias.numel() for x in net)


def test_numbers_of_the_shipped_network_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 of them, each in its row; 40 of these in the whole network too."""
    teacher = read_teacher(SHIPPED)
    net = compile_to_plain(teacher)
    rows = rows_of(teacher.module, net, monkeypatch)
    rng = random.Random(0)
    for _ in range(2000):
        row = rng.choice(rows)
        tensor = row.layer.bias if rng.random() < 0.1 else row.layer.weight
        count_refused(row, tensor, rng.randrange(tensor.numel()))
    graph = trace(teacher.module, input_range=teacher.input_range).graph
    for _ in range(40):
        layer = net[rng.randrange(len(net.layers))]
        numbers = (layer.bias if rng.random() < 0.1 else layer.weight).detach().view(-1)
        at = rng.randrange(len(numbers))
        right = numbers[at].clone()
        numbers[at] = rng.choice(others(right, max(abs(float(v)) for v in layer.weight.detach().aminmax()), at))
        assert net.certificate is not None
        with pytest.raises(CertificateError):
            checker.check(graph, net.checkable(), net.certificate)
        numbers[at] = right
