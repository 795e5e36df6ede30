"""A plain network that gives another kind of image than it takes is equivalent, and nothing for photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.command_line import Run
from torch import nn

from memsr_compiler import Upscaler, compile_to_plain, export_onnx, load_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import sample_photographs, write_image
from memsr_compiler.quantities import say_count

COMMANDS = (
    "eval NET --data IMAGES",
    "bench NET --size 20x20",
    "upscale IMAGES/a.png out.png --model NET",
    "upscale IMAGES/a.png out.png --model NET --tile off",
    "quantize NET --out q.onnx --calibration IMAGES",
    "distill NET --teacher TEACHER --data IMAGES --out run --steps 1 --no-probe",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "images").mkdir()
    write_image(folder / "images" / "a.png", sample_photographs()[0][:64, :64])
    torch.manual_seed(0)
    for takes, gives in ((3, 1), (1, 3), (3, 3), (1, 1)):
        layers = (nn.Conv2d(takes, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4 * gives, 3, padding=1))
        export_onnx(
            compile_to_plain(nn.Sequential(*layers, nn.PixelShuffle(2)).eval()), folder / f"{takes}{gives}.onnx"
        )
    return folder


@pytest.mark.parametrize("name", ["31.onnx", "13.onnx"])
def test_in_python_too(name: str, folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"channels? and gives"):
        Upscaler(folder / name)
    with pytest.raises(InvalidInput, match=r"channels? and gives"):
        Upscaler(load_plain(folder / name, require_certificate=False))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("takes", "gives"), [(3, 1), (1, 3)])
def test_it_is_refused_by_name(
    command: str, takes: int, gives: int, run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = folder / f"{takes}{gives}.onnx"
    words = command.replace("NET", str(net)).replace("IMAGES", str(folder / "images"))
    status, _, err = run(*words.replace("TEACHER", str(folder / f"{takes}{takes}.onnx")).split())
    assert status == 2 and f"{net}: takes {say_count(takes, 'channel')} and gives {gives}; " in err, err
    assert not list(tmp_path.iterdir())
