"""Own code that draws numbers as its modules are imported, or once for all: seen by another process."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import Tensor

from memsr_compiler import read_teacher
from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers import anew
from memsr_compiler.teachers.teacher import Teacher

NET = """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, factor=None):
        super().__init__()
        self.a, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.factor = factor

    def forward(self, x):
        x = F.relu(self.a(x))
        return F.pixel_shuffle(self.tail(x if self.factor is None else x * self.factor), 2)
"""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules of own code, by their paths; those that were imported are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files: str) -> None:
        for name, text in {"own_net": NET, **files}.items():
            path = tmp_path / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {"a.weight": (4, 3, 3, 3), "a.bias": (4,), "tail.weight": (12, 4, 3, 3), "tail.bias": (12,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def read(arch: str, folder: Path, state: Mapping[str, Tensor] | None = None, **others: Any) -> Teacher:
    torch.save(dict(state or weights()), folder / "weights.pt")
    return read_teacher(folder / "weights.pt", arch=arch, probe=False, input_range=(0.0, 1.0), **others)


DRAWN = {
    "numpys": "import numpy as np\nK = float(np.random.default_rng().random())",
    "torchs": "import time\nK = torch.rand(1, generator=torch.Generator().manual_seed(time.time_ns() % 2**62))",
    "seeded_by_none": "g = torch.Generator()\ng.seed()\nK = torch.rand(1, generator=g)",
    "pythons": "import random\nK = random.Random().random()",
    "system": "import random\nK = random.SystemRandom().random()",
    "secrets": "import secrets\nK = 1 + secrets.randbelow(2**40) / 2**40",
    "urandom": "import os\nK = int.from_bytes(os.urandom(4), 'little') / 2**32",
    "uuid": "import uuid\nK = uuid.uuid4().int / 2**128",
    "time": "import time\nK = 1 + time.time_ns() % 1_000_000 / 1e6",
    "process": "import os\nK = 1 / os.getpid()",
    "of_all": "K = torch.rand(1)",
    "of_all_by_numpy": "import numpy as np\nK = float(np.random.rand())",
}


@pytest.mark.parametrize("kind", DRAWN)
def test_numbers_drawn_as_a_module_is_imported_are_refused(kind: str, write: Write, tmp_path: Path) -> None:
    write(drawing=f"import torch\nfrom own_net import Net\n{DRAWN[kind]}\ndef make(): return Net(K)")
    with pytest.raises(InvalidInput, match=r"drawing:make: computes with random numbers that it draws as .* imported"):
        read("drawing:make", tmp_path)


REMEMBERED = {
    "cache": "@functools.cache\ndef draw(): return RNG.random()",
    "memo": "MEMO = {}\ndef draw():\n    return MEMO.setdefault('k', secrets.randbelow(2**40) / 2**40)",
    "once": (
        "K = None\ndef draw():\n    global K\n    if K is None:\n        K = float(np.random.default_rng().random())\n"
        "    return K"
    ),
    "default": "def draw(k=[]):\n    if not k: k.append(float(torch.rand(1)))\n    return k[0]",
}


@pytest.mark.parametrize("kind", REMEMBERED)
def test_numbers_drawn_once_for_all_are_refused(kind: str, write: Write, tmp_path: Path) -> None:
    helper = "import functools, random, secrets, torch\nimport numpy as np\nRNG = random.Random()\n" + REMEMBERED[kind]
    factory = "from own_net import Net\nfrom .helper import draw\ndef make(): return Net(draw())"
    write(drawing__in____init__="", drawing__in__nets=factory, drawing__in__helper=helper)
    with pytest.raises(InvalidInput, match="computes with random numbers"):
        read("drawing.nets:make", tmp_path)


def test_one_network_for_all_with_drawn_numbers_is_refused(write: Write, tmp_path: Path) -> None:
    """It was assumed that it has none."""
    code = "import functools, torch\nfrom own_net import Net\n@functools.cache\ndef make(): return Net(torch.rand(1))"
    write(drawing=code)
    with pytest.raises(InvalidInput, match=r"computes with random numbers .* \(factor\)"):
        read("drawing:make", tmp_path)


HONEST = {
    "constant": "K = 0.5\ndef make(): return Net(K)",
    "seeded": "K = torch.rand(1, generator=torch.Generator().manual_seed(3))\ndef make(): return Net(K)",
    "seeded_for_all": "torch.manual_seed(3)\nK = torch.rand(1)\ndef make(): return Net(K)",
    "unused": "import random, time, uuid\nSTART, NAME = time.time(), uuid.uuid4()\nK = torch.rand(1)\nmake = Net",
    "cached": "import functools\n@functools.cache\ndef make(): return Net()",
    "single": "NET = Net()\ndef make(): return NET",
    "shared": "K = torch.tensor([2.0])\ndef make(): return Net(K)",
    "once": "OPTIONS = {'factor': 2}\ndef make(): return Net(OPTIONS.pop('factor'))",
    "dataclass": (
        "from dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass Options:\n    factor: float = 2.0\n"
        "    names: list = field(default_factory=list)\ndef make(): return Net(Options().factor)"
    ),
    "pickled": (
        "import copy, pickle\nclass Mine(Net): pass\nBYTES = pickle.dumps(Mine(2.0))\n"
        "def make(): return copy.deepcopy(pickle.loads(BYTES))"
    ),
    "main": "import sys\nif __name__ == '__main__':\n    sys.exit('this is a script')\nmake = Net",
    "talkative": "import logging, sys, warnings\nprint('imported')\nlogging.warning('imported')\nmake = Net",
    "own_backward": (
        "class Double(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x * 2\n"
        "    @staticmethod\n    def backward(ctx, g): return g * 2\nmake = Net"
    ),
    "operation": (
        "LIBRARY = torch.library.Library('{name}', 'DEF')\nLIBRARY.define('twice(Tensor x) -> Tensor')\n"
        "LIBRARY.impl('twice', lambda x: x * 2, 'CPU')\nmake = Net"
    ),
    "custom_operation": (
        "@torch.library.custom_op('{name}::twice', mutates_args=())\n"
        "def twice(x: torch.Tensor) -> torch.Tensor: return x * 2\nmake = Net"
    ),
    "threads": "torch.set_num_threads(2)\ntorch.conv2d(torch.rand(8, 32, 64, 64), torch.rand(9, 32, 3, 3))\nmake = Net",
    "named": "NAMES = {'a', 'b', 'c'}\ndef make(): return Net(float(len(NAMES)))",
    "processes": (
        "import multiprocessing\nP = multiprocessing.get_context('fork').Process(target=print)\nP.start()\nP.join()\n"
        "make = Net"
    ),
    "own_exit": "import atexit\natexit.register(print, 'gone')\nmake = Net",
    "waiting_thread": (
        "import threading\nGONE = threading.Event()\nthreading.Thread(target=GONE.wait, args=(5,)).start()\nmake = Net"
    ),
}


@pytest.mark.parametrize("kind", HONEST)
def test_honest_code_is_read_without_a_word(
    kind: str, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    if kind == "threads":  # others of which are not in the other process, which would wait for them
        torch.set_num_threads(2)
        torch.mm(torch.rand(500, 500), torch.rand(500, 500))
    name = f"honest_{kind}"
    write(**{name: "import torch\nfrom own_net import Net\n" + HONEST[kind].replace("{name}", name)})
    try:
        assert read(f"{name}:make", tmp_path).assumed == ()
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert capfd.readouterr().out.count("imported") == (kind == "talkative")


REGISTRY = """
class Registry(dict):
    def register(self, kind):
        assert kind.__name__ not in self, f"{kind.__name__} was already registered"
        self[kind.__name__] = kind
        return kind

ARCH_REGISTRY = Registry()
"""


@pytest.mark.parametrize("place", ["own__in__registry", "site-packages__in__elsewhere_registry"])
def test_registries_that_refuse_a_second_registration(
    place: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    module = place.rpartition("__in__")[2]
    nets = f"""
    import own_net
    from {"." if place.startswith("own") else ""}{module} import ARCH_REGISTRY
    @ARCH_REGISTRY.register
    class Net(own_net.Net): pass
    def make(): return ARCH_REGISTRY["Net"]()
    """
    write(own__in____init__="from . import nets", own__in__nets=nets, **{place: REGISTRY})
    assert read("own.nets:make", tmp_path).assumed == ()


def test_what_a_module_does_to_torch_is_done_once(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported anew in this process, it would multiply by four."""
    monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.relu)
    code = "import torch.nn.functional as F\nfrom own_net import Net\nold = F.relu\nF.relu = lambda x: old(x) * 2"
    write(patching=code)
    teacher = read("patching:Net", tmp_path)
    assert torch.nn.functional.relu(torch.ones(1)) == 2
    state = weights()
    x = torch.nn.functional.conv2d(torch.ones(1, 3, 5, 5), state["a.weight"], state["a.bias"], padding=1)
    y = torch.nn.functional.conv2d(x.clamp(min=0) * 2, state["tail.weight"], state["tail.bias"], padding=1)
    with torch.no_grad():
        assert torch.allclose(teacher.module(torch.ones(1, 3, 5, 5)), torch.pixel_shuffle(y, 2), atol=1e-5)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_factory_in_an_installed_package(
    drawn: bool, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    inside = f"import torch\nfrom own_net import Net\nK = {'torch.Generator().seed() % 1000' if drawn else 3}"
    write(**{"site-packages__in__installed_nets": f"{inside}\ndef make(): return Net(float(K))"})
    if drawn:
        with pytest.raises(InvalidInput, match="computes with random numbers"):
            read("installed_nets:make", tmp_path)
    else:
        assert read("installed_nets:make", tmp_path).assumed == ()


def test_what_cannot_be_done_twice_is_told(write: Write, tmp_path: Path) -> None:
    code = f"import os\nfrom own_net import Net\nos.mkdir({str(tmp_path / 'made')!r})\nmake = Net"
    write(making=code)
    (told,) = read("making:make", tmp_path).assumed
    assert told.startswith("making:make computes with no numbers that it draws as it is built (building it twice does")
    assert "in another process: cannot be imported (FileExistsError: " in told
    assert "\n" not in told


def test_what_ends_or_never_ends_in_another_process_is_told(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anew, "_PATIENCE", 1.0)
    code = "import multiprocessing, os, time\nfrom own_net import Net\nif multiprocessing.parent_process():\n    {}\n"
    write(ending=code.format("os._exit(3)") + "make = Net", waiting=code.format("time.sleep(60)") + "make = Net")
    (told,) = read("ending:make", tmp_path).assumed
    assert "in another process: gives no answer" in told
    (told,) = read("waiting:make", tmp_path).assumed
    assert "in another process: is not done in time" in told


def test_what_code_starts_in_another_process_ends_with_it(write: Write, tmp_path: Path) -> None:
    """A program that a module starts as it is imported went on there, beside the one that it started here."""
    started = tmp_path / "started"
    write(
        starting=f"""
        import subprocess, sys
        from own_net import Net as make
        PROGRAM = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        with open({str(started)!r}, "a") as file:
            print(PROGRAM.pid, file=file)
        """
    )
    assert read("starting:make", tmp_path).assumed == ()
    program = sys.modules["starting"].PROGRAM
    try:
        assert program.poll() is None
        (other,) = {int(line) for line in started.read_text().split()} - {program.pid}
        for _ in range(100):
            if _has_ended(other):
                break
            time.sleep(0.1)
        assert _has_ended(other)
    finally:
        program.kill()
        program.wait()


def _has_ended(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # of which nobody has asked yet how it ended


def test_modules_that_were_imported_before(write: Write, tmp_path: Path) -> None:
    """What was set in them meanwhile may be why they give another result: it is told, not refused."""
    write(
        settings="FACTOR = 1.0",
        configured="import settings\nfrom own_net import Net\ndef make():\n    return Net(settings.FACTOR)",
    )
    settings, configured = importlib.import_module("settings"), importlib.import_module("configured")
    assert read("configured:make", tmp_path).assumed == ()
    settings.FACTOR = 2.0  # type: ignore[attr-defined]
    (told,) = read("configured:make", tmp_path).assumed
    assert "its modules, imported anew, compute something else than they do as they were imported before" in told
    assert sys.modules["settings"] is settings and sys.modules["configured"] is configured
    assert isinstance(configured.make(), sys.modules["own_net"].Net)


def test_by_command_line(write: Write, tmp_path: Path) -> None:
    """In a process with threads of its own, without this one's settings."""
    write(
        drawing="import secrets\nfrom own_net import Net\nK = secrets.randbelow(999)\ndef make(): return Net(1.0 * K)"
    )
    torch.save(weights(), tmp_path / "weights.pt")
    words = ["convert", "weights.pt", "--arch", "drawing:make", "--input-range", "0", "1", "--no-probe"]
    ended = subprocess.run(
        [sys.executable, "-m", "memsr_compiler", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "computes with random numbers" in ended.stderr
