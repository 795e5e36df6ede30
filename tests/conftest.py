"""Fixtures and options of all tests: one thread, memsrc as a function, `--networks N`, `--without-mkldnn`."""

from __future__ import annotations

import functools
import gc
import math
import sys

import pytest
import torch
import typer.main
from helpers.command_line import Run
from hypothesis import settings

from memsr_compiler import cli
from memsr_compiler.commands.interface import output

settings.register_profile("any machine", deadline=None)  # how long an example takes is no part of what it shows
settings.load_profile("any machine")
command_line = functools.cache(typer.main.get_command)  # the same for each run, and 20 ms to build
gc.set_threshold(20_000, 20, 10)  # looking for garbage among thousands of tests takes 0.6 s each time
torch.set_num_threads(1)  # tiny convolutions: more threads only wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--networks", type=int, default=200, help="how many random networks test_fuzz compiles")
    parser.addoption("--without-mkldnn", action="store_true", help="convolve in torch's own way, not in oneDNN's")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-mkldnn"):
        torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests are no garbage


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "network_seed" in metafunc.fixturenames:
        metafunc.parametrize("network_seed", range(metafunc.config.getoption("networks")))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """run("convert", ...) is memsrc with these arguments -> exit status, standard output, standard error."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(output, "EVERY", math.inf)  # however slow the machine: no lines of progress
        monkeypatch.setattr(typer.main, "get_command", command_line)
        monkeypatch.setattr(sys, "argv", ["memsrc", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert cli.BUG not in err, err
        return (stop.value.code if isinstance(stop.value.code, int) else 0), out, err

    return command
