"""The tables and figures of MemSR beside ours: which of them, with what.

    python -m benchmarks.paper NAME ... [options]       table1, figure6, ...; all: all of them
    python -m benchmarks.paper all --smoke              that all of them work, in a minute

Each is printed, and written as CSV and Markdown, with its picture where it is a figure.  A run that is done is not
trained again, one that was stopped goes on; the table is written anew after each.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Protocol, cast

import torch

from memsr_compiler.cli import INTERRUPTED
from memsr_compiler.errors import InvalidInput, MemsrError
from paper.pairs import PAIRS
from paper.settings import ROOT, Settings
from paper.table import Table

RUNS, OUT = Path("build/paper"), ROOT / "docs" / "results" / "paper"
SMOKE_RUNS = Path("build/paper-smoke")
STEPS, BATCH, PATCH = 500, 8, 96
SIZE, SMOKE_SIZE = (1920, 1080), (96, 72)
SMOKE_STEPS, SMOKE_BATCH, SMOKE_PATCH = 2, 2, 16


class Maker(Protocol):
    """A module of this folder."""

    def make(self, settings: Settings) -> Iterator[Table]:
        """The table as far as it is done, again and again, and at last the whole of it."""


def names() -> list[str]:
    """The tables and figures that there are, by their numbers."""
    found = [path.stem for path in Path(__file__).parent.glob("*.py") if re.fullmatch(r"(table|figure)\d+", path.stem)]
    return sorted(found, key=lambda name: (name.rstrip("0123456789") == "figure", int(re.sub(r"\D", "", name))))


def main(arguments: Sequence[str]) -> int:
    """The exit status: 2 where something is wrong, 130 where it was interrupted, after one line on it."""
    try:
        options = _Parser().parse_args(arguments)
        chosen = _choose(options.names)
        settings = _settings(options)
        for name in chosen:
            maker = cast(Maker, importlib.import_module(f"paper.{name}"))
            table = None
            for table in maker.make(settings):
                table.write(settings.out)
            assert table is not None, f"{name} makes no table"
            print(table.to_markdown(), flush=True)
    except MemsrError as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("paper: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


class _Parser(argparse.ArgumentParser):
    """The options; what is wrong with them is InvalidInput."""

    def __init__(self) -> None:
        super().__init__("python -m benchmarks.paper", description="The tables and figures of MemSR beside ours")
        add = self.add_argument
        add("names", nargs="+", metavar="NAME", help=f"{', '.join(names())}; all")
        add("--pair", choices=sorted(PAIRS), default="small", help="teacher and student; default: small")
        add(
            "--models",
            type=Path,
            metavar="DIR",
            help="weights of others, edsr_5x32_x2.safetensors say; else: what ships",
        )
        add("--data", type=Path, metavar="DIR", help="photographs to train on; default: those that ship")
        add("--tests", type=Path, metavar="DIR", help="with Set5/x2/HR, Set5/x2/LR, Set14/...; default: no test sets")
        add("--runs", type=Path, metavar="DIR", help=f"where runs are kept, and go on; default: {RUNS}")
        add("--out", type=Path, metavar="DIR", help="for tables and pictures; default: docs/results/paper")
        add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
        add("--steps", type=int, metavar="N", help=f"of each run; default: {STEPS}")
        add("--batch", type=int, metavar="N", help=f"patches in a step; default: {BATCH}")
        add("--patch", type=int, metavar="N", help=f"side of a patch of the photograph; default: {PATCH}")
        add("--seeds", type=int, metavar="N", default=1, help="runs of each row; default: 1")
        add(
            "--row",
            action="append",
            default=[],
            dest="rows",
            metavar="NAME",
            help="train this row only; may be repeated",
        )
        add("--size", type=_size, metavar="WxH", help="of the image that networks make; default: 1920x1080")
        add("--done", action="store_true", help="train nothing: tables of the runs that are done")
        add("--smoke", action="store_true", help="tiny networks, few steps: only to see that it works")

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message}; see python -m benchmarks.paper --help")


def _choose(chosen: Sequence[str]) -> list[str]:
    known = names()
    for name in chosen:
        if name not in (*known, "all"):
            raise InvalidInput(f"{name}: is no table or figure here; there are {', '.join(known)}, and all")
    return known if "all" in chosen else list(dict.fromkeys(chosen))


def _settings(options: argparse.Namespace) -> Settings:
    """The options as settings.  Raises InvalidInput for folders that are not there, and a GPU that is not."""
    for name in ("models", "data", "tests"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            raise InvalidInput(f"--{name} {folder}: is no folder")
    smoke = options.smoke
    standard = (SMOKE_STEPS, SMOKE_BATCH, SMOKE_PATCH) if smoke else (STEPS, BATCH, PATCH)
    given = (options.steps, options.batch, options.patch)
    steps, batch, patch = (usual if number is None else number for number, usual in zip(given, standard, strict=True))
    if min(steps, batch, patch, options.seeds) < 1:
        raise InvalidInput("--steps, --batch, --patch and --seeds: want 1 or more")
    runs = options.runs or (SMOKE_RUNS if smoke else RUNS)
    return Settings(
        pair=options.pair,
        models=options.models,
        data=options.data,
        tests=options.tests,
        runs=runs,
        out=options.out or (runs / "pages" if smoke else OUT),
        device=_device(options.device),
        steps=steps,
        batch=batch,
        patch=patch,
        seeds=options.seeds,
        rows=tuple(options.rows),
        done=options.done,
        smoke=smoke,
        size=options.size or (SMOKE_SIZE if smoke else SIZE),
    )


def _size(text: str) -> tuple[int, int]:
    """Width and height, of which x2, x3 and x4 are whole.  Raises ValueError, which argparse reports."""
    width, height = (int(part) for part in text.split("x"))
    if min(width, height) < 1 or width % 12 or height % 12:
        raise argparse.ArgumentTypeError(f"{text}: want multiples of 12, as 1920x1080 are")
    return width, height


def _device(name: str | None) -> str:
    """The device to train on, which is a GPU wherever torch has one."""
    there = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and there == "cpu":
        raise InvalidInput("--device cuda: torch finds no such device here")
    if name == "cpu" and there == "cuda":
        raise InvalidInput("--device cpu: training takes the GPU that is here; hide it by CUDA_VISIBLE_DEVICES=")
    return there
