"""Commands that are killed (SIGKILL) at a moment of one's choice.

A process that has imported everything forks for each command: a run then takes a fraction of a second.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from memsr_compiler.training import checkpoints

TESTS = Path(__file__).parents[1]
TIMED = ("patches_per_second", "waiting")  # of the log: what no two runs have in common
PREPARED = (
    *(f"memsr_compiler.{name}" for name in ("cli", "commands.train", "commands.distill", "training.loop")),
    *("torch._dynamo", "torch.utils.tensorboard", "yaml", "onnx", "skimage.metrics"),
)


class Kill:
    """A moment: the n-th call of a function, before it or after it."""

    def __init__(self, name: str, number: int = 1, *, after: bool = False) -> None:
        self.words = {"name": name, "number": number, "after": after}

    def __repr__(self) -> str:
        return f"{'after' if self.words['after'] else 'before'} {self.words['name']} {self.words['number']}"


class Killing:
    """A process that runs commands and kills them.  A context manager."""

    def __enter__(self) -> Killing:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def run(self, *arguments: object, kill: Kill | float | None = None) -> tuple[int, str]:
        """The exit status, and what was said; minus 9 for a command that was killed in time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        moment = kill.words if isinstance(kill, Kill) else kill
        print(json.dumps({"arguments": [*map(str, arguments)], "kill": moment}), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return answer["status"], answer["said"]


def same_end(one: Path, other: Path) -> bool:
    """Whether two runs ended alike, bit for bit: their whole states, best networks, results, and logs but for times."""
    states = [checkpoints.load(checkpoints.newest(run)) for run in (one, other)]
    best = [checkpoints.load(run / "best.ckpt") for run in (one, other)]
    return (
        _same(states[0], states[1])
        and _same(best[0], best[1])
        and read_log(one) == read_log(other)
        and all(_same(_result(one / name), _result(other / name)) for name in _results(one) | _results(other))
        and checkpoints.steps(one) == checkpoints.steps(other)
    )


def read_log(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMED} for line in lines]


def leftovers(*folders: Path) -> list[Path]:
    """Files that no run should leave."""
    return [path for folder in folders for path in folder.rglob(".*")]


def random_kill(chance: random.Random) -> Kill:
    """Any moment of a run of 6 steps on three photographs."""
    name, most = chance.choice(list(MOMENTS.items()))
    return Kill(name, chance.randint(1, most), after=chance.random() < 0.5)


MOMENTS = {
    "memsr_compiler.training.patches.read_image": 3,  # while photographs are made ready
    "os.replace": 20,  # a file is written, and has not got its name yet; or has it
    "os.fsync": 30,
    "os.mkdir": 3,
    "pathlib.Path.unlink": 12,
    "memsr_compiler.commands.runs.common.Bench.psnr": 4,  # in validation
    "memsr_compiler.training.loop._Stepper.take": 6,  # between two checkpoints
    "memsr_compiler.training.progress.Log.add": 4,
    "memsr_compiler.training.checkpoints.save_step": 4,
    "memsr_compiler.training.checkpoints.save": 8,
    "memsr_compiler.commands.runs.common.tell": 1,  # all is done
}
"""Functions of a run by name, and how often it calls them, about."""


def _results(run: Path) -> set[str]:
    return {path.name for path in run.iterdir() if path.suffix in (".onnx", ".safetensors", ".pt", ".json")}


def _result(path: Path) -> object:
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else path.read_bytes()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _serve() -> None:
    """Fork for each line of standard input, and say how that went."""
    _import_all()
    for line in sys.stdin:
        task = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _run(task["arguments"], task["kill"], writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            content = said.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps({"status": os.waitstatus_to_exitcode(status), "said": content}) + "\n")
        sys.stdout.flush()


def _import_all() -> None:
    """Import what a run imports, on its way as well: each fork would do it anew, which takes as long as the run."""
    for name in PREPARED:
        importlib.import_module(name)
    from memsr_compiler import cli
    from memsr_compiler.images.metrics import ssim

    black = np.zeros((16, 16, 3), np.uint8)
    ssim(black, black, scale=1)
    sys.argv = ["memsrc", "train", "--help"]
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        cli.main()


def _run(arguments: list[str], kill: dict[str, Any] | float | None, output: int) -> None:
    from memsr_compiler import cli

    torch.set_num_threads(1)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    if isinstance(kill, dict):
        _kill_in(kill["name"], kill["number"], kill["after"])
    elif kill is not None:
        threading.Timer(kill, _die).start()
    sys.argv = ["memsrc", *arguments]
    status: Any = 1
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _kill_in(name: str, number: int, after: bool) -> None:
    """Let the n-th call of a function be the last thing that this process does."""
    owner, function = _find(name)
    original: Callable[..., Any] = getattr(owner, function)
    calls = 0

    @wraps(original)
    def last(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            _die()
        result = original(*arguments, **options)
        if calls == number:
            _die()
        return result

    setattr(owner, function, last)


def _find(name: str) -> tuple[Any, str]:
    """What has an attribute, a module or a class, and the attribute's name."""
    path, _, function = name.rpartition(".")
    try:
        return importlib.import_module(path), function
    except ImportError:
        module, _, kind = path.rpartition(".")
        return getattr(importlib.import_module(module), kind), function


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _serve()
