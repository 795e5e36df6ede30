"""benchmark and memsrc bench: fair in time, honest about memory, the same numbers as elsewhere, wrong input is told."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import onnx
import onnxruntime
import pytest
import torch
from helpers.bounds import PSNR_ROUNDING
from helpers.command_line import Run
from helpers.image_pairs import write_pairs
from helpers.teachers import write_teacher
from PIL import Image
from torch import Tensor, nn

from memsr_compiler import benchmark, compile_to_plain, export_onnx, save_plain
from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.evaluation import bench
from memsr_compiler.evaluation import memory as footprint
from memsr_compiler.evaluation.bench import time_in_turns
from memsr_compiler.evaluation.image_sets import TestImage
from memsr_compiler.images.files import sample_photographs
from memsr_compiler.plain.load import load_plain
from memsr_compiler.runtime.open import NetworkFile, count_cost, open_runner
from memsr_compiler.runtime.runners import TorchNetwork
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.imdn import IMDN
from memsr_compiler.teachers.families.vdsr import VDSR
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.trace import trace

MIB = 2**20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small teacher, its plain network in all formats, others, and images."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    teacher = EDSR(scale=2, blocks=1, channels=8).eval()
    write_teacher(teacher, folder / "teacher.pt")
    net = compile_to_plain(teacher)
    export_onnx(net, folder / "plain.onnx")
    export_onnx(net, folder / "half.onnx", dtype="float16")
    save_plain(net, folder / "plain.safetensors")
    write_teacher(VDSR(blocks=1, channels=8), folder / "vdsr.pt")
    write_teacher(IMDN(scale=2, blocks=1, channels=16), folder / "attention.pt")
    write_teacher(EDSR(scale=3, blocks=1, channels=8), folder / "x3.pt")
    write_pairs(folder / "data")
    return folder


@pytest.fixture
def memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in this process: one for each network would import torch, which takes two seconds."""

    def measure(file: NetworkFile, shape: tuple[int, int, int], **options: Any) -> footprint.Memory | None:
        return footprint.measure_run(open_runner(file, **options), shape)

    monkeypatch.setattr(bench, "peak_memory", measure)


# -- time


def test_networks_take_turns() -> None:
    order: list[str] = []
    now = iter(range(100))
    seconds = time_in_turns([lambda: order.append("A"), lambda: order.append("B")], 3, clock=lambda: next(now))
    assert "".join(order) == "ABABABAB"  # the first round does not count
    assert seconds == [(1, 1, 1), (1, 1, 1)]


# -- memory


def test_memory_is_what_the_network_holds() -> None:
    """In a process of its own: one that has run much else gives memory back meanwhile, which counts against it."""
    told = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True).stdout
    (found, at_least), (more, more_at_least) = (map(int, line.split()) for line in told.splitlines())
    if at_least:
        pytest.skip("this system does not forget the highest amount of memory")
    expected = 64 * 500 * 600 * 4
    assert 0.98 * expected < found < 1.5 * expected + 4 * MIB
    assert more_at_least
    assert 2 * expected < more < 4 * 1.5 * expected + 4 * MIB  # part was reached before


HOLDS = """
from pathlib import Path

from torch import nn

from memsr_compiler.evaluation import memory
from memsr_compiler.runtime.runners import TorchNetwork


class Wide(nn.Module):
    # Holds 64 numbers for every pixel at one moment, and leaves nothing behind.
    def forward(self, x):
        return x + x[:, :1].repeat(1, 64, 1, 1).amax()


network = TorchNetwork(Wide(), threads=1)
found = memory.measure_run(network, (3, 500, 600))
memory._CLEAR = Path("/nowhere/clear_refs")
more = memory.measure_run(network, (3, 1000, 1200))
for each in (found, more):
    print(each.bytes, int(each.at_least))
"""


def test_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(footprint, "_CLEAR", Path("/nowhere/clear_refs"))
    monkeypatch.setattr(footprint, "_STATUS", Path("/nowhere/status"))
    monkeypatch.setattr(sys, "platform", "linux")
    highest = iter([100, 350])  # KiB
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=next(highest)))
    found = footprint.measure_run(TorchNetwork(nn.Identity()), (3, 8, 8))
    assert found == footprint.Memory(250 << 10, at_least=True)


def test_memory_of_a_gpu_is_what_the_device_has_less_of(monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([(900, 1000), (650, 1000)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: next(free))
    network = TorchNetwork(nn.Identity())
    assert footprint.measure_run(network, (3, 8, 8), provider="cuda") == footprint.Memory(250)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert footprint.measure_run(network, (3, 8, 8), provider="cuda") is None


def test_memory_of_a_process_of_its_own(models: Path) -> None:
    file = NetworkFile(models / "plain.onnx")
    small, large = (footprint.peak_memory(file, (3, side, side), threads=1) for side in (128, 512))
    assert small is not None and large is not None
    _, cost = count_cost(file)
    assert cost is not None
    assert 0.5 * cost.memory(512, 512) < large.bytes < 3 * cost.memory(512, 512)
    assert small.bytes < large.bytes
    (models / "broken.onnx").write_bytes(b"\x08no network")
    with pytest.raises(MemsrError, match=r"broken\.onnx: the process that measures memory failed: .*cannot load"):
        footprint.peak_memory(NetworkFile(models / "broken.onnx"), (3, 8, 8))


def test_a_killed_process_is_explained(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: real(["/bin/sh", "-c", "kill -9 $$"], **options))
    with pytest.raises(MemsrError, match=r"killed .* smaller --size"):
        footprint.peak_memory(NetworkFile(models / "plain.onnx"), (3, 8, 8))


# -- all together


def test_the_same_network_four_times(models: Path, memory_here: None) -> None:
    names = ("teacher.pt", "plain.onnx", "plain.safetensors", "half.onnx")
    images = [TestImage.of("a", sample_photographs()[0][:48, :60], 2)]
    found = benchmark(
        [models / name for name in names], size=(40, 30), repeats=3, threads=1, images=lambda scale: images
    )
    assert [m.engine for m in found] == ["torch, cpu", *["ONNX Runtime, cpu"] * 3]
    assert [m.name for m in found] == list(names)
    teacher, plain, stored, half = found
    assert teacher.score and plain.score and half.score
    assert plain.score.psnr == pytest.approx(teacher.score.psnr, abs=PSNR_ROUNDING)
    # Eleven bits: 2^-11 of values near 1, all of one sign, beside an RMSE of 0.05 or more are 0.09 dB.
    assert half.score.psnr == pytest.approx(teacher.score.psnr, abs=0.1)
    assert stored.score == plain.score and stored.cost == plain.cost
    assert teacher.ratio == 1.0 and all(len(m.seconds) == 3 and min(m.seconds) > 0 for m in found)
    assert all(m.quartiles[0] <= m.median <= m.quartiles[1] for m in found)
    assert plain.macs == plain.cost.macs_per_pixel * 1200 if plain.cost else False
    assert half.feature_maps and half.feature_maps * 2 == plain.feature_maps
    assert teacher.parameters == sum(p.numel() for p in EDSR(scale=2, blocks=1, channels=8).parameters())


def test_networks_on_enlarged_images_get_them_enlarged(models: Path, memory_here: None) -> None:
    teacher, vdsr = benchmark(
        [models / "teacher.pt", models / "vdsr.pt"], size=(16, 12), repeats=1, threads=1, images=None
    )
    assert (teacher.size, vdsr.size) == ((16, 12), (32, 24))
    assert vdsr.score is None and vdsr.cost and vdsr.macs == vdsr.cost.macs_per_pixel * 32 * 24


def test_what_has_no_graph_is_counted_by_a_run(models: Path, memory_here: None) -> None:
    (found,) = benchmark([models / "attention.pt"], size=(16, 12), repeats=1, threads=1, images=None)
    network = IMDN(scale=2, blocks=1, channels=16)
    assert found.cost is None and found.feature_maps is None
    assert found.parameters == sum(p.numel() for p in network.parameters())
    without = cost_of_graph(trace(IMDN(scale=2, blocks=1, channels=16, attention=False).eval()).graph)
    gate = sum(p.numel() for name, p in network.named_parameters() if "cca" in name and name.endswith("weight"))
    assert found.macs == without.macs_per_pixel * 16 * 12 + gate
    assert found.median > 0


class Decides(nn.Module):
    """Looks at values, so that it has neither graph nor count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = nn.functional.pixel_shuffle(self.conv(x), 2)
        return -y if float(y.mean()) > 1e6 else y


def test_what_cannot_be_counted_is_measured_all_the_same() -> None:
    (found,) = benchmark([Decides()], size=(16, 12), repeats=1, threads=1, images=None)
    assert found.cost is None and found.macs is None and found.feature_maps is None
    assert found.parameters == 12 * 27 + 12
    assert found.median > 0


def test_nothing_to_measure(models: Path) -> None:
    wrong: tuple[tuple[dict[str, object], str], ...] = (
        ({"models": []}, "there are no networks to compare"),
        ({"models": None}, "models: one NoneType; give a list"),
        ({"models": {models / "plain.onnx"}}, "models: one set; give a list"),
        ({"repeats": 0}, "0 repeats measure nothing"),
        ({"repeats": "3"}, "repeats='3': want a whole number"),
        ({"repeats": True}, "repeats=True: want a whole number"),
        ({"size": (0, 5)}, "an image of 0x5 pixels has no pixel"),
        ({"size": (8,)}, r"size=\(8,\): want \(width, height\)"),
        ({"size": "8x8"}, "size='8x8': want"),
        ({"size": (8.5, 8)}, r"size=8\.5: want a whole number"),
        ({"threads": 0}, "threads=0: want a whole number from 1 up"),
        ({"threads": 10**9}, "threads=1000000000: want 1024 or fewer"),
        ({"provider": "gpu"}, "provider 'gpu' is none of cpu, cuda, tensorrt"),
        ({"provider": None}, "provider 'None' is none of"),
    )
    for arguments, reason in wrong:
        with pytest.raises(InvalidInput, match=reason):
            benchmark(**{"models": [models / "plain.onnx"], **arguments})  # type: ignore[arg-type]


# -- the command


def test_table_csv_and_plot(run: Run, models: Path, tmp_path: Path) -> None:
    files = [models / "teacher.pt", models / "plain.onnx"]
    common = ("--size", "24x16", "--threads", "1", "--repeats", "2")
    status, out, err = run("bench", *files, *common, "--csv", tmp_path / "b.csv", "--plot", tmp_path / "b.svg")
    assert status == 0, err
    for words in ("teacher.pt", "torch, cpu", "ONNX Runtime, cpu", "multiply-adds", "MiB", "ratio", "dB", "b.svg"):
        assert words in out
    rows = list(csv.DictReader((tmp_path / "b.csv").open()))
    assert [row["network"] for row in rows] == [str(file) for file in files]
    assert rows[0]["arithmetic"] == "float32, by torch on the CPU"
    assert "plain.onnx: float32, by ONNX Runtime on the CPU" in out
    assert float(rows[0]["ratio"]) == 1.0 and int(rows[1]["parameters"]) > 0
    labels = ElementTree.parse(tmp_path / "b.svg").getroot().itertext()
    assert any("plain.onnx" in text for text in labels)


def test_json_and_png(run: Run, models: Path, tmp_path: Path) -> None:
    status, out, err = run(
        "bench", models / "plain.safetensors", "--size", "24x16", "--threads", "1", "--repeats", "2",
        "--data", models / "data", "--plot", tmp_path / "b.png", "--json",
    )  # fmt: skip
    assert status == 0, err
    told = json.loads(out)
    (found,) = told["models"]
    assert told["size"] == [24, 16] and told["provider"] == "cpu" and len(found["seconds"]) == 2
    assert found["arithmetic"] == "float32, by ONNX Runtime on the CPU"
    assert found["engine"] == "ONNX Runtime, cpu" and found["peak_memory_bytes"] >= 0
    status, out, _ = run("eval", models / "plain.safetensors", "--data", models / "data", "--threads", 1, "--json")
    (score,) = json.loads(out)["models"].values()
    assert found["psnr_y_db"] == pytest.approx(score["average"]["psnr"], abs=PSNR_ROUNDING)
    assert Image.open(tmp_path / "b.png").size == (1280, 840)


def test_a_teacher_in_code_of_the_user(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the process that measures memory has to find as well."""
    (tmp_path / "bench_own_code.py").write_text(
        "from torch import nn\n\ndef build(channels):\n"
        "    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), "
        "nn.Conv2d(channels, 12, 3, padding=1), nn.PixelShuffle(2))\n"
    )
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3))
    write_teacher(net, tmp_path / "own.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    status, out, err = run(
        "bench", "own.pt", "--arch", "bench_own_code:build", "--arch-args", "channels=8", "--size", "16x12", "--json",
        "--repeats", "1", "--threads", "1",
    )  # fmt: skip
    assert status == 0, err
    (found,) = json.loads(out)["models"]
    assert found["parameters"] == sum(p.numel() for p in net.parameters()) and found["peak_memory_bytes"] >= 0


def test_how_weights_are_read_says_nothing_of_graphs_beside_them(models: Path) -> None:
    """As `bench own.pt other.onnx --arch ...` has it."""
    graph = onnx.load(models / "plain.onnx")
    del graph.metadata_props[:]  # as a foreign file
    onnx.save(graph, models / "foreign.onnx")
    file = NetworkFile(models / "foreign.onnx", arch="edsr", arch_args={"blocks": 1}, prefix="generator.")
    parameters, cost = count_cost(file)
    plain = count_cost(NetworkFile(models / "plain.onnx"))
    assert cost is not None and plain[1] is not None
    assert (parameters, cost.macs_per_pixel) == (plain[0], plain[1].macs_per_pixel)


@pytest.mark.parametrize(
    ("takes", "gives", "what"),
    [(3, 4, "takes 3 channels and gives 4; for photographs"), (2, 2, "the network takes 2 channels; photographs have")],
)
def test_networks_that_are_not_for_photographs_are_named(takes: int, gives: int, what: str, tmp_path: Path) -> None:
    """And not the file that is made of them to be run."""
    net = compile_to_plain(nn.Sequential(nn.Conv2d(takes, 4 * gives, 3, padding=1), nn.PixelShuffle(2)).eval())
    save_plain(net, tmp_path / "a.safetensors")
    for given, name in ((net, "PlainNet"), (tmp_path / "a.safetensors", str(tmp_path / "a.safetensors"))):
        with pytest.raises(InvalidInput, match=f"^{re.escape(name)}: {what}"):
            benchmark([given], size=(8, 8), images=None)


def test_teachers_modules_and_files_are_measured_alike(models: Path, memory_here: None) -> None:
    teacher = read_teacher(models / "teacher.pt")
    net = load_plain(models / "plain.safetensors")
    few = {"size": (24, 16), "repeats": 1, "threads": 1}
    found = benchmark(
        [models / "teacher.pt", teacher, teacher.module, net],
        images=models / "data",
        **few,  # type: ignore[arg-type]
    )
    assert [m.name for m in found] == ["teacher.pt", "teacher.pt", "EDSR", "PlainNet"]
    assert [m.path for m in found] == [models / "teacher.pt", models / "teacher.pt", None, None]
    assert len({m.parameters for m in found[:3]}) == 1 and len({m.cost for m in found[:3]}) == 1
    assert [m.engine for m in found] == ["torch, cpu"] * 3 + ["ONNX Runtime, cpu"]
    for m in found:
        assert m.score is not None and found[0].score is not None and m.memory is not None and m.parameters
        assert m.score.psnr == pytest.approx(found[0].score.psnr, abs=PSNR_ROUNDING)
    assert found[1].memory is not None and found[1].memory.at_least  # in this process
    assert net[0].weight.dtype == load_plain(models / "plain.safetensors")[0].weight.dtype
    (bare,) = benchmark([net], images=None, **few)  # type: ignore[arg-type]
    assert bare.score is None
    for wrong in (net, "a.onnx", models / "plain.onnx"):
        with pytest.raises(InvalidInput, match="give a list of networks"):
            benchmark(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="a teacher is wanted"):
        benchmark([3])  # type: ignore[list-item]


def test_wrong_input_to_bench(run: Run, models: Path, tmp_path: Path) -> None:
    plain = models / "plain.onnx"
    (tmp_path / "text.onnx").write_text("no network")
    wrong: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        ((plain, models / "x3.pt"), ("enlarge differently", "x3.pt x3")),
        ((plain, "--scale", "3"), ("--scale 3", "enlarges by 2")),
        ((models / "vdsr.pt",), ("--scale",)),
        ((plain, plain), ("twice",)),
        ((tmp_path / "absent.onnx",), ("absent.onnx", "no such file")),
        ((tmp_path / "text.onnx",), ("text.onnx",)),
        ((plain, "--size", "big"), ("--size big",)),
        ((plain, "--repeats", "0"), ("repeats",)),
        ((plain, "--provider", "tpu"), ("--provider tpu", "cpu, cuda, tensorrt")),
        ((plain, "--data", tmp_path / "absent"), ("absent", "is no folder")),
        ((plain, "--plot", tmp_path / "b.pdf"), ("b.pdf", ".svg or .png")),
        ((plain, "--csv", plain), ("plain.onnx",)),
    ]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        wrong.append(((plain, "--provider", "cuda"), ("CUDAExecutionProvider", "memsr_compiler[gpu]")))
    for arguments, words in wrong:
        status, out, err = run("bench", *arguments)
        assert status == 2 and out == "" and err.count("\n") == 1, (arguments, err)
        assert all(word in err for word in words), err
