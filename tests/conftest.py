"""What all tests share: one thread, and `--networks N` for the fuzz tests."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)  # tiny convolutions: more threads only wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--networks", type=int, default=200, help="how many random networks test_fuzz compiles")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "network_seed" in metafunc.fixturenames:
        metafunc.parametrize("network_seed", range(metafunc.config.getoption("networks")))
