"""Networks that no family here knows, built by the package spandrel where it is installed.

It knows some forty architectures by their keys. It is given weights that have been read, never a file: its own reader
of checkpoints is not used.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import torch
from torch import Tensor, nn

from memsr_compiler.errors import first_line, say_missing
from memsr_compiler.teachers.wrappers import StateDict, strip_prefixes, without_counters

INPUT_RANGE = (0.0, 1.0)
"""Smallest and largest value of a pixel for all of spandrel's networks."""

log = logging.getLogger(__name__)


def build_by_spandrel(state: StateDict) -> nn.Module | str:
    """Build the network that spandrel takes these weights for, with them in it; else words on why there is none."""
    try:
        spandrel: Any = importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            return f"{say_missing('spandrel', 'knows more architectures', 'spandrel')}."
        return _tell_broken(error)
    except Exception as error:  # torchvision's build for another torch raises a RuntimeError while it is imported
        return _tell_broken(error)
    reason = "Nor does spandrel know them."
    for version in strip_prefixes(without_counters(state)):
        try:
            found = spandrel.ModelLoader().load_from_state_dict(dict(version))
        except spandrel.UnsupportedModelError:
            continue
        except Exception as error:  # whatever its networks' code raises at weights that are almost theirs
            reason = f"spandrel fails to build them ({first_line(error)})."
            continue
        if not isinstance(found, spandrel.ImageModelDescriptor):
            return f"spandrel reads it as {found.architecture.name}, which takes more than an image."
        log.warning("read by spandrel as %s", found.architecture.name)
        module: nn.Module = found.model
        return module if _stands_alone(found) else Described(found)
    return reason


class Described(nn.Module):
    """A network with what spandrel does around it.

    Its image is padded to a size that the network takes, and the result cut to the image's; some networks want their
    numbers in another range.  Without that they give other images at other sizes, and say nothing.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model: nn.Module = descriptor.model
        self._descriptor = descriptor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        enlarged: Tensor = self._descriptor(x)
        return enlarged.clone()  # of a tensor of inference mode, which would not be taken everywhere


def _stands_alone(descriptor: Any) -> bool:
    """Whether the network is given images as they are."""
    if not descriptor.size_requirements.none:
        return False
    image = torch.rand(1, descriptor.input_channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.equal(descriptor.model.eval()(image).clamp(0, 1), descriptor(image))


def _tell_broken(error: Exception) -> str:
    return (
        f"spandrel is installed but cannot be imported ({first_line(error)}): install torchvision in the version and "
        "build that go with torch, from where torch came."
    )
