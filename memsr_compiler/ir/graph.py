"""A network as a graph of ops: checked when it is built, never changed, printed and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import networkx as nx
from torch import Tensor

from memsr_compiler.errors import InvalidGraph
from memsr_compiler.ir.ops import FeatureMap, Input, Op, PRelu


@dataclass(frozen=True)
class Graph:
    """Ops in an order in which operands come first, and which of them is the result.

    Immutable; a pass builds a new one.  A graph that exists has type-checked.  `structure` is the networkx digraph
    operand -> user over the ops' names.  Raises InvalidGraph for unknown operands, cycles, misfits, duplicate names.
    """

    ops: tuple[Op, ...]
    output: str
    structure: nx.DiGraph = field(init=False, repr=False, compare=False)
    _types: dict[str, FeatureMap] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        structure: nx.DiGraph = nx.DiGraph()
        types: dict[str, FeatureMap] = {}
        for op in self.ops:
            if op.name in types:
                raise InvalidGraph(f"{op.name}: two ops have this name")
            missing = [i for i in op.inputs if i not in types]
            if missing:
                raise InvalidGraph(f"{op.name}: operand {missing[0]} is not computed before it")
            structure.add_node(op.name, op=op)
            structure.add_edges_from((i, op.name) for i in op.inputs)
            types[op.name] = op.infer(*(types[i] for i in op.inputs))
        if self.output not in types:
            raise InvalidGraph(f"the output {self.output} is not computed")
        if sum(isinstance(op, Input) for op in self.ops) != 1:
            raise InvalidGraph("a graph has exactly one Input")
        object.__setattr__(self, "structure", nx.freeze(structure))
        object.__setattr__(self, "_types", types)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __getitem__(self, name: str) -> Op:
        op: Op = self.structure.nodes[name]["op"]
        return op

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def type(self, name: str) -> FeatureMap:
        return self._types[name]

    def operands(self, op: Op) -> list[Op]:
        return [self[i] for i in op.inputs]

    def users(self, name: str) -> list[Op]:
        """Ops that read the value, each once, in graph order of insertion."""
        return [self[user] for user in self.structure.successors(name)]

    @property
    def input(self) -> Input:
        return next(op for op in self.ops if isinstance(op, Input))

    @property
    def scale(self) -> int:
        return self.type(self.output).scale

    def like(self, x: Tensor) -> Graph:
        """The same with its weights in the dtype and on the device of a tensor, so that no run has to move them."""
        ops = []
        for op in self.ops:
            tensors = {f.name: getattr(op, f.name) for f in fields(op) if isinstance(getattr(op, f.name), Tensor)}
            ops.append(replace(op, **{name: value.to(x) for name, value in tensors.items()}))
        return Graph(tuple(ops), self.output)

    def text(self) -> str:
        """One line an op: name, op, facts, operands; for people, golden tests and diffs."""
        return "\n".join(_line(self, op) for op in self.ops) + f"\nreturn {self.output}\n"

    def sha256(self) -> str:
        """Hash of what the graph computes: ops, their wiring and every weight, but no names.

        Stable under renaming and, for the same network, over versions of torch.
        """
        digest = hashlib.sha256()
        number = {op.name: i for i, op in enumerate(self.ops)}
        for op in self.ops:
            digest.update(f"{type(op).__name__}{[number[i] for i in op.inputs]}".encode())
            for name, value in _facts(op):
                if name == "meaning" and isinstance(op, PRelu) and not value:
                    continue  # of teachers; the hashes in certificates are from before a PRelu could have one
                digest.update(f"{name}=".encode())
                if isinstance(value, Tensor):
                    digest.update(str(tuple(value.shape)).encode() + value.double().contiguous().numpy().tobytes())
                else:
                    digest.update(repr(value).encode())
        digest.update(f"return {number[self.output]}".encode())
        return digest.hexdigest()


def _facts(op: Op) -> Iterator[tuple[str, object]]:
    for f in fields(op):
        if f.name not in ("name", "inputs", "part"):
            yield f.name, getattr(op, f.name)


def _line(graph: Graph, op: Op) -> str:
    facts = []
    for name, value in _facts(op):
        if isinstance(value, Tensor):
            facts.append(f"{name}={'x'.join(map(str, value.shape))}")
        elif name == "index" and isinstance(value, tuple):
            facts.append(f"index={_runs(value)}")
        elif name == "meaning" and isinstance(value, tuple):
            facts.extend(f"{m.kind} {m.tensor}[{len(m.positions)}]" for m in value)
        elif name == "blocks" and isinstance(value, tuple):
            facts.append(f"{len(value)} blocks")
        else:
            facts.append(f"{name}={value}")
    t = graph.type(op.name)
    return f"{op.name}: {t.channels}x{t.scale} = {type(op).__name__}({', '.join([*op.inputs, *facts])})"


def _runs(numbers: tuple[int, ...]) -> str:
    """'0:16,32' for 0..15, 32."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([n, n + 1])
    return ",".join(str(a) if b == a + 1 else f"{a}:{b}" for a, b in runs)
