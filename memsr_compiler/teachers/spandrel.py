"""Networks that no family here knows, built by the package spandrel where it is installed.

It knows some forty architectures by their keys. It is given weights that have been read, never a file: its own reader
of checkpoints is not used.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from torch import nn

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
        return module
    return reason


def _tell_broken(error: Exception) -> str:
    return (
        f"spandrel is installed but cannot be imported ({first_line(error)}): install torchvision in the version and "
        "build that go with torch, from where torch came."
    )
