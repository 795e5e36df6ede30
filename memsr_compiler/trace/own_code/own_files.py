"""Whose a file of code is: the user's, or torch's, NumPy's, Python's or ours, of which it is known what it does."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

import memsr_compiler

TORCH = os.path.dirname(torch.__file__)
OURS = os.path.dirname(memsr_compiler.__file__)
_KNOWN = (TORCH, os.path.dirname(np.__file__), OURS)
_TYPES = os.path.join(os.path.dirname(TORCH), "typing_extensions.py")  # which hears from `typing` what torch asks for
_PYTHONS = sysconfig.get_path("stdlib")


def lies_in(name: str, folders: Iterable[str]) -> bool:
    """Whether a file lies in a folder, or below one; `torchvision` lies beside `torch`."""
    return name.startswith(tuple(os.path.join(folder, "") for folder in folders))


@lru_cache(4096)  # asked of each call
def is_foreign(name: str) -> bool:
    """Whether a file is neither torch's, NumPy's, Python's nor of this package."""
    return not (
        is_pythons(name) or lies_in(name, _KNOWN) or name == _TYPES or name.startswith(("<frozen", "<eval_with_key>"))
    )


def is_pythons(name: str) -> bool:
    """Whether a file is of Python's own library."""
    return lies_in(name, (_PYTHONS,)) and "site-packages" not in name
