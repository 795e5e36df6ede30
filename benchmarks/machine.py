"""The machine that a number was measured on."""

import os
import platform

import torch


def machine() -> str:
    """'2 cores x86_64, Linux, Python 3.11, torch 2.13.0'."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
