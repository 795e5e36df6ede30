"""Numbers that programs compute of sizes."""

from __future__ import annotations

import json
import operator
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import check_equivalence, compile_to_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.fx.size_arithmetic import require_short_numbers


def first_product(model: Any) -> tuple[list[Any], int]:
    """The nodes of a program, and which is its first product of sizes."""
    nodes = model["graph_module"]["graph"]["nodes"]
    return nodes, next(i for i, node in enumerate(nodes) if node["target"] == "_operator.mul")


def number(value: int) -> dict[str, Any]:
    return {"name": "", "arg": {"as_sym_int": {"as_int": value}}, "kind": 1}


def raise_to_a_power(model: Any, base: int, exponent: int) -> None:
    nodes, at = first_product(model)
    nodes[at] |= {"target": "_operator.pow", "inputs": [number(base), number(exponent)]}


def square_again_and_again(model: Any, times: int) -> None:
    """Each product has twice the digits of the one before."""
    nodes, at = first_product(model)
    sizes = model["graph_module"]["graph"]["sym_int_values"]
    size = nodes[at]["inputs"][0]
    for i in range(times):
        square = json.loads(json.dumps(nodes[at]))
        square |= {"name": f"q{i}", "inputs": [size, size], "outputs": [{"as_sym_int": {"as_name": f"q{i}"}}]}
        sizes[f"q{i}"] = sizes[nodes[at]["outputs"][0]["as_sym_int"]["as_name"]]
        nodes.insert(at + i, square)
        size = {"name": "", "arg": {"as_sym_int": {"as_name": f"q{i}"}}, "kind": 1}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (partial(raise_to_a_power, base=7, exponent=10**9), True),
        (partial(raise_to_a_power, base=2, exponent=5), False),
        (partial(square_again_and_again, times=45), True),
        (partial(square_again_and_again, times=3), False),
    ],
)
def test_a_pt2_computes_no_number_for_minutes(change: Callable[[Any], None], refused: bool, tmp_path: Path) -> None:
    """Of constants and sizes, as nodes of its graph: torch computes them while it loads the file."""

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(nn.functional.interpolate(x, size=(x.shape[2] * 2, x.shape[3] * 2)))
            return y

    free = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.export.export(Doubled().eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "a.pt2")
    with zipfile.ZipFile(tmp_path / "a.pt2") as file:
        contents = {name: file.read(name) for name in file.namelist()}
    place = next(name for name in contents if name.endswith("models/model.json"))
    model = json.loads(contents[place])
    change(model)
    contents[place] = json.dumps(model).encode()
    with zipfile.ZipFile(tmp_path / "a.pt2", "w", zipfile.ZIP_STORED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    if refused:
        with pytest.raises(InvalidInput, match="a size is multiplied until it has too many digits"):
            read_teacher(tmp_path / "a.pt2", probe=False)
    else:
        read_teacher(tmp_path / "a.pt2", probe=False)


class InPart(nn.Module):
    """Sizes are taken outside a part without gradients, and multiplied within."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.conv(x)
        with torch.no_grad():
            y = y.flatten(2).reshape(n, 12, h * w).view(n, 12, h, w).relu()
        return torch.pixel_shuffle(y, 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_sizes_may_be_multiplied_in_parts_without_gradients(tmp_path: Path) -> None:
    network = InPart().eval()
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    torch.export.save(
        torch.export.export(network, (torch.rand(2, 3, 9, 8),), dynamic_shapes=(free,)), tmp_path / "a.pt2"
    )
    check_equivalence(network, compile_to_plain(tmp_path / "a.pt2")).require()


@pytest.mark.parametrize(
    "made",
    [
        lambda graph, size: graph.call_function(operator.add, ("aaaa", "aaaa")),
        lambda graph, size: graph.call_function(operator.mul, ([0, 1], size)),
        lambda graph, size: graph.call_function(operator.mod, ("%9999999999d", size)),
    ],
)
def test_texts_and_lists_are_no_numbers(made: Callable[[torch.fx.Graph, Any], Any]) -> None:
    graph = torch.fx.Graph()
    made(graph, graph.call_function(torch.ops.aten.sym_size.int, (graph.placeholder("x"), 2)))
    with pytest.raises(InvalidInput, match="computes with what is no number"):
        require_short_numbers(graph)
