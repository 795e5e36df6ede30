"""Files of teachers that say all about them, as `memsrc train` writes them: networks in tests are not trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from memsr_compiler.teachers.remarks import attach_remarks


def write_teacher(network: nn.Module, path: Path, input_range: tuple[float, float] = (0.0, 1.0)) -> Path:
    """Write the weights of a network, of a family of its class's name if of any."""
    state = network.state_dict()
    attach_remarks(state, type(network).__name__.lower(), {}, input_range)
    torch.save(state, path)
    return path
