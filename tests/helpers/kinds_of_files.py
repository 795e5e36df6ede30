"""Every kind of file that a command reads: how a small one is made, how it is read, and what then was in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.plain_files import reseal, teacher, tiny
from PIL import Image, features
from safetensors.torch import save_file
from torch import nn

from memsr_compiler.commands.interface import config_file
from memsr_compiler.commands.runs import resume, run_folder
from memsr_compiler.commands.runs.resume import Journal
from memsr_compiler.images.files import read_image
from memsr_compiler.images.streams import RowFile
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.tflite_model import export_tflite
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.quantization.quantize import cost_of_quantized, quantize
from memsr_compiler.quantization.tflite import export_integers
from memsr_compiler.runtime.litert import LiteRTNetwork
from memsr_compiler.runtime.runners import OrtNetwork
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.trace.trace import trace
from memsr_compiler.training import checkpoints, progress

MOST_PIXELS = 1 << 22
SIDE = 16  # of the images
IMAGES = (
    *("png", "jpg", "webp", "tif", "bmp", "gif", "tga", "ppm"),
    *(ending for ending, feature in (("jp2", "jpg_2000"), ("avif", "avif")) if feature in features.get_supported()),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    make        writes one into a folder, and gives its path
    read        what is in it, to be compared
    protected   whether every change of that can be told, by a checksum or a hash
    repair      makes hashes fit again, as somebody would who changes a file on purpose
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    protected: bool
    repair: Callable[[bytes], bytes] = bytes


class Exported(nn.Module):
    """What an exported network may hold: weights, a buffer and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.gain: torch.Tensor
        self.register_buffer("gain", torch.full((1,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.conv(x) * self.gain, 2)


def _make_file(name: str, write: Callable[[Path], object], folder: Path) -> Path:
    write(folder / name)
    return folder / name


def _kind(name: str, write: Callable[[Path], object], read: Callable[[Path], object], *, protected: bool) -> Kind:
    return Kind(partial(_make_file, name, write), read, protected)


# -- teachers


def _read_state(path: Path) -> object:
    read = read_teacher(path, probe=False)
    digest = hashlib.sha256()
    for name, value in read.module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    return digest.hexdigest(), read.family, sorted(read.hyper.items()), read.input_range


def _read_graph(path: Path) -> object:
    return trace(read_teacher(path, probe=False).module).graph.sha256()


def _export(path: Path) -> None:
    torch.manual_seed(2)
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    torch.export.save(torch.export.export(Exported().eval(), (torch.rand(2, 1, 6, 7),), dynamic_shapes=(free,)), path)


def _wrapped() -> dict[str, Any]:
    state = teacher().state_dict()
    return {"epoch": 3, "params": {key: value * 2 for key, value in state.items()}, "params_ema": state}


def _without_metadata(path: Path) -> None:
    """A network for anybody's reader, with names and numbers alone."""
    import onnx

    export_onnx(tiny(), path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def _write_tflite(path: Path) -> None:
    from helpers.tflite_files import TfliteGraph

    graph = TfliteGraph(metadata={"memsr": b"input_range=0.0 255.0"})
    numbers = np.random.default_rng(5).normal(0, 0.4, (40, 3, 3, 4)).astype(np.float32)
    x = graph.conv(0, numbers[:4, ..., :3], numbers[:4, 0, 0, 0], FusedActivationFunction=1)
    half = graph.op("DEQUANTIZE", graph.constant(numbers[4:16].astype(np.float16)), table="DequantizeOptions")
    bias = graph.constant(numbers[:12, 0, 0, 1])
    y = graph.op("CONV_2D", x, half, bias, table="Conv2DOptions", Padding=0, StrideW=1, StrideH=1)
    image = graph.op("CONCATENATION", 0, 0, 0, 0, table="ConcatenationOptions", Axis=3)
    total = graph.op("ADD", y, image, table="AddOptions")
    graph.op("DEPTH_TO_SPACE", total, table="DepthToSpaceOptions", BlockSize=2)
    graph.write(path)


# -- networks of ours


def _read_plain(path: Path) -> object:
    net = load_plain(path)
    return net.sha256(), net.info, net.certificate


def _certified_plain(folder: Path) -> Path:
    return export_onnx(compile_to_plain(teacher(), align=4), folder / "net.onnx").path


def _run_onnx(path: Path) -> object:
    network = OrtNetwork(path)
    return sorted(network.metadata.items()), network(torch.full((1, 1, 4, 4), 0.5)).tolist()


def _read_as_teacher(path: Path) -> object:
    read = read_teacher(path, probe=False)
    return read.input_range, trace(read.module).graph.sha256()


def _certificate(folder: Path) -> Path:
    return _certified_plain(folder).with_suffix(".cert.json")


def _quantized(path: Path) -> None:
    source = path.with_name("source.onnx")
    net = compile_to_plain(teacher(), align=4)
    export_onnx(net, source)
    torch.manual_seed(3)
    quantize(source, path, images=[torch.rand(1, 1, 12, 12)], takes=Takes(2, 1, (0.0, 1.0)))


def _read_quantized(path: Path) -> object:
    return cost_of_quantized(path), _run_onnx(path)


def _float_tflite(path: Path) -> None:
    export_tflite(tiny("nearest"), path)


def _quantized_tflite(path: Path) -> None:
    _quantized(path.with_name("q.onnx"))
    export_integers(path.with_name("q.onnx"), path)


def _run_tflite(path: Path) -> object:
    network = LiteRTNetwork(path, threads=1)
    return sorted(network.metadata.items()), network(torch.full((1, 1, 4, 4), 0.5)).tolist()


# -- what runs leave


def _read_checkpoint(path: Path) -> object:
    state = checkpoints.load(path)
    return state["step"], state["objective"]["weight"].tolist()


def _write_journal(path: Path) -> None:
    lines = [
        json.dumps({"work": "x2", "done": {"a.png": ["/a.png", 1, 2, 3]}}),
        json.dumps(["b.png", ["/b.png", 4, 5, 6]]),
    ]
    path.write_text("\n".join(lines) + "\n")


def _read_journal(path: Path) -> object:
    with Journal(path.parent, "x2") as journal:
        return repr(journal._done)


DATA = {"photographs": {"a.png": [120, 17], "b.png": [130, 18]}, "test images": {"c.png": [9, 1]}}
LOG = "".join(f'{{"step": {step}, "psnr": 30.{step}, "loss": 0.02}}\n' for step in range(0, 40, 4))


def _read_log(path: Path) -> object:
    return [progress._step_of(line) <= 20 for line in path.read_bytes().splitlines()]


def _read_options(path: Path) -> object:
    known = {name: name for name in ("steps", "rate", "data", "arch_args", "quiet")}
    return config_file.read_settings(path, known, "memsrc train")


OPTIONS = "# a run\nsteps: 400\nrate: 2e-4\ndata: 'folder/photographs'\narch_args: [blocks=1, channels=4]\nquiet: yes\n"


# -- images


def _draw(path: Path, **options: Any) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def _read_whole(path: Path) -> object:
    return read_image(path, most_pixels=MOST_PIXELS).tobytes()


def _read_rows(path: Path) -> object:
    file = RowFile.open(path, most_pixels=MOST_PIXELS)
    return b"".join(rows.tobytes() for rows in file.bands(8)), file.width, file.channels


# -- films


def _film(ending: str, **options: Any) -> Kind:
    def write(path: Path) -> None:
        from helpers.films import write_film

        write_film(path, frames=4, width=SIDE * 2, height=SIDE * 2, **options)

    return _kind(f"f.{ending}", write, _read_film, protected=False)


def _read_film(path: Path) -> object:
    from memsr_compiler.video.film import Film
    from memsr_compiler.video.frames import Notes, Scene, read_frames

    film = Film.open(path, most_pixels=MOST_PIXELS)
    notes = Notes()
    frames = [(frame.time, frame.pixels.tobytes()) for frame in read_frames(film, Scene(), 0, notes)]
    return frames, notes.tell()


def _write_parts(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    part = {"name": "000000.mkv", "times": [0, 40], "lengths": [40, 40], "order": [0, 1]}
    (path.parent / "000000.mkv").touch()
    path.write_text("".join(json.dumps(line) + "\n" for line in ({"work": "x2"}, {"part": part})))


def _read_parts(path: Path) -> object:
    from memsr_compiler.video import parts

    return [vars(part) for part in parts._read(path.parent, "x2", print)[0].all]


FILMS: dict[str, Kind] = {}
if find_spec("av") is not None:
    FILMS = {
        "film in .mp4": _film("mp4"),
        "film in .mkv": _film("mkv", codec="mpeg4", sound="mp3"),
        "film in .ts": _film("ts"),
        "film of ffv1": _film("mkv", codec="ffv1"),
        "journal of a film": _kind("f.mkv.parts/journal.jsonl", _write_parts, _read_parts, protected=False),
    }

KINDS: dict[str, Kind] = {
    **FILMS,
    "state dict": _kind("t.pt", lambda p: torch.save(teacher().state_dict(), p), _read_state, protected=True),
    "wrapped state dict": _kind("t.pth", lambda p: torch.save(_wrapped(), p), _read_state, protected=True),
    "legacy state dict": _kind(
        "t.pt",
        lambda p: torch.save(teacher().state_dict(), p, _use_new_zipfile_serialization=False),
        _read_state,
        protected=False,
    ),
    "safetensors": _kind("t.safetensors", lambda p: save_file(teacher().state_dict(), p), _read_state, protected=False),
    "exported": _kind("t.pt2", _export, _read_graph, protected=True),
    "foreign onnx": _kind("t.onnx", _without_metadata, _read_graph, protected=False),
    "tflite": _kind("t.tflite", _write_tflite, _read_as_teacher, protected=False),
    "plain safetensors": _kind("n.safetensors", lambda p: save_plain(tiny("bicubic"), p), _read_plain, protected=True),
    "plain onnx": Kind(_certified_plain, _read_plain, True),
    "plain onnx, sealed again": Kind(_certified_plain, _read_plain, False, reseal),
    "plain onnx, run": Kind(_certified_plain, _run_onnx, True),
    "plain onnx as a teacher": Kind(_certified_plain, _read_as_teacher, True),
    "certificate": Kind(_certificate, lambda p: _read_plain(p.parent / "net.onnx"), True),
    "network in 8 bits": _kind("q.onnx", _quantized, _read_quantized, protected=True),
    "tflite of ours as a teacher": _kind("f.tflite", _float_tflite, _read_as_teacher, protected=True),
    "tflite in 8 bits": _kind("q.tflite", _quantized_tflite, _run_tflite, protected=True),
    "checkpoint": _kind(
        "step-00000004.ckpt",
        lambda p: checkpoints.save({"step": 4, "objective": nn.Linear(3, 3).state_dict()}, p),
        _read_checkpoint,
        protected=True,
    ),
    "journal": _kind(resume.NAME, _write_journal, _read_journal, protected=False),
    "data of a run": _kind(
        "data.json", lambda p: p.write_text(json.dumps(DATA)), run_folder._read_data, protected=False
    ),
    "log of a run": _kind("log.jsonl", lambda p: p.write_text(LOG), _read_log, protected=False),
    "options": _kind("a.yaml", lambda p: p.write_text(OPTIONS), _read_options, protected=False),
    **{
        f"{ending}, {how}": _kind(f"i.{ending}", _draw, read, protected=ending == "png")
        for ending in IMAGES
        for how, read in (("whole", _read_whole), ("by rows", _read_rows))
    },
}
