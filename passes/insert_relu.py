"""A ReLU after every carried value, so that each layer is convolution + ReLU."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from memsr_compiler.analysis.schedule import Carrying, nonnegative
from memsr_compiler.errors import PassError
from memsr_compiler.ir import Carry, Conv2d, Graph, Meaning, Op, PRelu, Relu, names
from memsr_compiler.ir.rewrite import conv_1x1, rewrite

Constants = Mapping[str, float]


@rewrite(source="MemSR (ICML 2022), Prop. 3.6 (shift); free and split carries beyond it", removes=(Carry,))
def insert_relu(graph: Graph, *, carry: Carrying = "auto", constant: float | Constants | None = None) -> Graph:
    """Give every Carry the cheapest form that the ReLU leaves whole (MemSR, Prop. 3.6).

    never negative   relu(x) = x: free
    "auto", "split"  x = relu(x) - relu(-x): exact for every x, twice the channels
    "shift"          x = relu(x + C) - C: exact while x >= -C; `constant` is C, for all or by tensor
    "pass"           x = prelu(x) with slope 1: exact for every x; for the PReLU form

    Ensures   no Carry; every activation says what its channels mean.
    Raises PassError without a positive C for a shift.
    """
    rewriter = _Rewriter(graph, carry, constant)
    ops = tuple(new for op in graph for new in rewriter.rule(op, graph.type(op.name).channels))
    return Graph(ops, graph.output)


class _Rewriter:
    def __init__(self, graph: Graph, carry: Carrying, constant: float | Constants | None) -> None:
        self.free, self.carry, self.constant = nonnegative(graph), carry, constant
        self.behind_relu = _find_free_behind_relu(graph, self.free)
        self.carried: dict[str, Relu] = {}  # a Carry's name -> the ReLU that holds it

    def rule(self, op: Op, width: int) -> list[Op]:
        if isinstance(op, PRelu) and self.carry != "pass":
            raise PassError(f"{op.name}: a PRelu is for the PReLU form; run activation-to-relu first")
        if isinstance(op, (Relu, PRelu)):
            return [replace(op, meaning=(_everything("value", names.value(op.name), width),))]
        if not isinstance(op, Carry):
            return [op]
        if op.inputs[0] in self.carried:
            return self._again(op, self.carried[op.inputs[0]], width)
        held = _everything("value", names.value(op.name), width)
        held = replace(held, part=op.part, tensor=op.part.tensor if op.part else held.tensor)
        if self.carry == "pass" and op.name not in self.behind_relu:
            return [PRelu(name=op.name, inputs=op.inputs, slope=_constant(width, 1.0), meaning=(held,))]
        if op.inputs[0] in self.free and op.part is None:
            return [Relu(name=op.name, inputs=op.inputs, meaning=(held,))]
        if self.carry == "shift":
            return self._shift(op, held, width)
        return self._split(op, held, width)

    def _split(self, op: Op, held: Meaning, width: int) -> list[Op]:
        second = tuple(range(width, 2 * width))
        meaning = (replace(held, kind="positive"), replace(held, kind="negative", positions=second))
        both = conv_1x1(names.signs(op.name), op.inputs[0], torch.cat([_eye(width), -_eye(width)]))
        self.carried[op.name] = Relu(name=names.held(op.name), inputs=(both.name,), meaning=meaning)
        return [both, self.carried[op.name], _join_signs(op, width)]

    def _shift(self, op: Op, held: Meaning, width: int) -> list[Op]:
        c = self.constant.get(held.tensor) if isinstance(self.constant, Mapping) else self.constant
        if c is None or not c > 0:
            raise PassError(f"{held.tensor}: a shift needs a constant C > 0 above its largest magnitude, not {c}")
        up = conv_1x1(names.raised(op.name), op.inputs[0], _eye(width), _constant(width, c))
        meaning = (replace(held, kind="shifted", constant=float(c)),)
        self.carried[op.name] = Relu(name=names.held(op.name), inputs=(up.name,), meaning=meaning)
        return [up, self.carried[op.name], _lower(op, width, c)]

    def _again(self, op: Op, before: Relu, width: int) -> list[Op]:
        """Carried a layer before: what holds it is not negative, and is carried on as it is."""
        self.carried[op.name] = Relu(name=names.held(op.name), inputs=(before.name,), meaning=before.meaning)
        shifted = before.meaning[0].kind == "shifted"
        back = _lower(op, width, before.meaning[0].constant) if shifted else _join_signs(op, width)
        return [self.carried[op.name], back]


def _find_free_behind_relu(graph: Graph, free: frozenset[str]) -> frozenset[str]:
    """Carries that are never negative, in levels of nothing but such and ReLUs: engines have a ReLU for nothing."""
    level: dict[str, int] = {}
    relus, bent, carries = set[int](), set[int](), list[str]()
    for op in graph:
        ends = isinstance(op, (Relu, PRelu, Carry))
        level[op.name] = max((level[i] for i in op.inputs), default=0) + ends
        if isinstance(op, Relu):
            relus.add(level[op.name])
        elif isinstance(op, Carry) and op.inputs[0] in free and op.part is None:
            carries.append(op.name)
        elif ends:
            bent.add(level[op.name])
    return frozenset(name for name in carries if level[name] in relus - bent)


def _join_signs(op: Op, width: int) -> Conv2d:
    """x = relu(x) - relu(-x)"""
    return conv_1x1(op.name, names.held(op.name), torch.cat([_eye(width), -_eye(width)], dim=1))


def _lower(op: Op, width: int, constant: float) -> Conv2d:
    """x = relu(x + C) - C"""
    return conv_1x1(op.name, names.held(op.name), _eye(width), _constant(width, -constant))


def _eye(width: int) -> Tensor:
    return torch.eye(width, dtype=torch.float64)


def _constant(width: int, value: float) -> Tensor:
    return torch.full((width,), value, dtype=torch.float64)


def _everything(kind: str, tensor: str, width: int) -> Meaning:
    return Meaning(kind=kind, positions=tuple(range(width)), tensor=tensor, channels=tuple(range(width)))  # type: ignore[arg-type]
