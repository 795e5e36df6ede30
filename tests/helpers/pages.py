"""Reports of conversions, for the tests that look at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from memsr_compiler import ir
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.reports.conversion import report_conversion


def converted(model: nn.Module, **options: Any) -> tuple[PlainNet, list[tuple[str, ir.Graph]]]:
    steps = list[tuple[str, ir.Graph]]()
    net = compile_to_plain(model, on_graph=lambda name, graph: steps.append((name, graph)), **options)
    return net, steps


def page(net: PlainNet, steps: list[tuple[str, ir.Graph]], name: str = "teacher.pt", **measured: str) -> str:
    return report_conversion(net, steps, teacher_name=name, measured=measured)


class Hostile(nn.Module):
    """A network whose module path is markup."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("<script>alert(1)</script>", nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.get_submodule("<script>alert(1)</script>")(x)) + x
