"""memsrc verify: it notices another teacher, and believes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import Run
from helpers.onnx_files import model, node, saved
from helpers.trained import Edsr
from helpers.wide_values import WIDE, overflowing

from memsr_compiler import (
    check_certificate,
    check_equivalence,
    compile_to_plain,
    export_onnx,
    load_plain,
    read_teacher,
    save_plain,
)
from memsr_compiler.commands import verify
from memsr_compiler.commands.results import deviations
from memsr_compiler.commands.verify import measure
from memsr_compiler.errors import CertificateError
from memsr_compiler.images.files import write_image
from memsr_compiler.plain import write
from memsr_compiler.plain.probes import probe_images


def test_verify_notices_another_teacher(run: Run, teacher: Path, tmp_path: Path) -> None:
    run("convert", teacher, "--out", tmp_path / "plain.onnx")
    weights = torch.load(teacher, weights_only=True)
    weights["head.0.bias"][0] += 1e-3
    torch.save(weights, tmp_path / "other.pt")
    status, _, err = run("verify", tmp_path / "other.pt", tmp_path / "plain.onnx")
    assert status == 1 and "another teacher" in err and "worst deviation" in err and "channel 2" in err


def test_verify_believes_nothing_that_the_file_says_of_itself(run: Run, teacher: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    run("convert", teacher, "--out", plain, "--carry", "shift", "--constant", "100")
    for change in ({"guarantee": "exact for every image"}, {"image_skip": "bicubic"}, {"input_range": (0.0, 255.0)}):
        net = load_plain(plain)
        net.info = replace(net.info, **change)
        save_plain(net, tmp_path / "lies.safetensors")
        status, out, err = run("verify", teacher, tmp_path / "lies.safetensors")
        assert status == 1 and "equivalent" not in out, (change, out, err)


def test_a_float16_file_whose_values_overflow_is_not_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions wrote it, unscaled: right on ONNX Runtime's CPU, NaN wherever float16 is computed as such."""
    teacher = overflowing()
    monkeypatch.setattr(write, "fit", lambda net, dtype: (net, ()))
    export_onnx(compile_to_plain(teacher, input_range=WIDE), tmp_path / "plain.onnx", dtype="float16")
    net = load_plain(tmp_path / "plain.onnx")
    with pytest.raises(CertificateError, match="too near to 65,504, where float16 ends"):
        check_certificate(teacher, net, input_range=WIDE)
    probes = probe_images(3, WIDE)
    result = measure(teacher, net, tmp_path / "plain.onnx", probes, WIDE, torch.device("cpu"))
    assert not result and result.deviation == float("inf")
    assert "halves stored between layers, sums in float32, by torch on the CPU" in str(result)


def test_an_input_with_large_values_does_not_excuse_the_others(tmp_path: Path) -> None:
    """In float16 an output of 200 may be off by 0.8, and one of 1 by 2 / 255."""
    torch.manual_seed(0)
    teacher = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2)).eval()
    net = compile_to_plain(teacher).half()
    large, small = (value * torch.ones(1, 3, 4, 4, dtype=torch.float64) for value in (200.0, 1.0))
    with torch.no_grad():
        net[0].bias.add_(0.02)
    for inputs in ({"large": large}, {"large": large, "small": small}, {"small": small}):
        result = measure(teacher, net, tmp_path / "plain.safetensors", inputs, (0.0, 1.0), torch.device("cpu"))
        assert bool(result) == ("small" not in inputs) and (not result) == (result.input == "small"), result


def test_a_constant_that_an_image_is_beyond_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

    class Skip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            y: torch.Tensor = x + self.second(x.relu())
            return y

    teacher = Skip().eval()
    net = compile_to_plain(teacher, carry="shift", constant=2.0)
    save_plain(net, tmp_path / "plain.safetensors")
    image = {"a bright image": torch.full((1, 3, 6, 6), 100.0, dtype=torch.float64)}
    place = torch.device("cpu")
    result = measure(teacher, net, tmp_path / "plain.safetensors", image, (0.0, 1.0), place)
    assert not result and "beyond the shift's C = 2, and the network promises nothing" in str(result)


def test_a_network_for_another_range_than_the_teachers_own_is_refused(run: Run, tmp_path: Path) -> None:
    """The mean shift shows that the teacher takes 0..255; a proof for 0..1 is one for images that it is not for."""
    torch.save(Edsr(peak=255.0, mean_shift=True).state_dict(), tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert teacher.input_range == teacher.stated_range == (0.0, 255.0)
    export_onnx(compile_to_plain(teacher.module, input_range=(0.0, 1.0)), tmp_path / "a.onnx")
    files = (tmp_path / "a.pth", tmp_path / "a.onnx")
    for options in ((), ("--no-probe",)):
        status, _, err = run("verify", *files, *options)
        assert status == 1 and "is for images of 0 to 1, and the teacher takes 0 to 255" in err
        assert "--input-range" in err
    with pytest.raises(CertificateError, match="the teacher takes 0 to 255"):
        check_certificate(teacher, tmp_path / "a.onnx")
    assert run("verify", *files, "--no-probe", "--input-range", "0", "1")[0] == 0
    check_certificate(teacher, tmp_path / "a.onnx", input_range=(0.0, 1.0))


def test_a_range_that_only_the_network_says_is_not_believed(run: Run, tmp_path: Path) -> None:
    """Half a level of a range of a million is many of 255, and with small biases photographs are restored in both."""
    torch.save(Edsr(1.0, 255.0).state_dict(), tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert teacher.input_range == (0.0, 255.0) and teacher.stated_range is None
    plain = compile_to_plain(teacher.module, input_range=(0.0, 1e6), carry="shift", constant=1e7)
    save_plain(plain, tmp_path / "wide.safetensors")
    noise = torch.rand(1, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = {"noise": 255 * noise}
    assert check_equivalence(teacher, load_plain(tmp_path / "wide.safetensors"), images=image).deviation > 1
    files = (tmp_path / "a.pth", tmp_path / "wide.safetensors")
    status, out, err = run("verify", *files)
    assert status == 1 and "equivalent" not in out
    assert "is for images of 0 to 1e+06, and the teacher takes 0 to 255" in err
    assert run("verify", *files, "--input-range", "0", "1e6")[0] == 0


class Clamped(torch.nn.Module):
    """conv(clamp(conv(x)))."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 12, 3, padding=1)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.last(self.first(x).clamp(-self.end, self.end))
        return torch.nn.functional.pixel_shuffle(y, 2)


@pytest.mark.parametrize("end", [1.0, 1e2, 1e3])
def test_constants_of_a_wide_clamp_are_rounded_as_those_of_shifts_are(tmp_path: Path, end: float) -> None:
    """clamp(x) is low + relu(x - low) - ...: what convert writes, within half a level, verify accepts."""
    torch.manual_seed(0)
    teacher = Clamped(end).eval()
    net = compile_to_plain(teacher)
    export_onnx(net, tmp_path / "p.onnx")
    result = measure(teacher, net, tmp_path / "p.onnx", probe_images(3), (0.0, 1.0), torch.device("cpu"))
    assert result.equivalent and result.bound <= 0.5 / 255, result


def test_the_teacher_alone_is_run_on_no_photographs(
    run: Run, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice on each it would be, in float32 and float64, which made verify take twice as long."""
    seen: list[str] = []

    def measure_teacher(*given: Any) -> Any:
        seen.extend(given[1])
        return deviations.measure_teacher(*given)

    monkeypatch.setattr(verify, "measure_teacher", measure_teacher)
    (tmp_path / "photographs").mkdir()
    write_image(tmp_path / "photographs" / "a.png", np.zeros((30, 40, 3), np.uint8))
    run("convert", teacher, "--out", tmp_path / "plain.onnx")
    status, out, err = run("verify", teacher, tmp_path / "plain.onnx", "--images", tmp_path / "photographs")
    assert status == 0 and seen and not any("photographs" in name for name in seen), (out, err, seen)


def test_a_teacher_that_rounds_is_told(run: Run, tmp_path: Path) -> None:
    """A sum in one convolution, x + 2**23 relu(x) - 2**23 relu(x), which float32 takes term by term."""
    weights = np.concatenate([factor * np.eye(3) for factor in (1, 2**23, -(2**23))], axis=1).astype(np.float32)
    nodes = [
        node("Relu", "x", "r"),
        node("Concat", "x r r", "c", axis=1),
        node("Conv", "c w", "v"),
        node("Conv", "v k", "d", pads=[1, 1, 1, 1]),
        node("DepthToSpace", "d", "y", blocksize=2, mode="CRD"),
    ]
    kernel = np.kron(np.eye(3), np.ones((4, 1))).astype(np.float32)[:, :, None, None] * np.full((3, 3), 1 / 9, "f")
    teacher = saved(model(nodes, {"w": weights[:, :, None, None], "k": kernel}), tmp_path)
    told = "teacher in float32 deviates by"
    status, _, err = run("convert", teacher, "--out", tmp_path / "plain.onnx")
    assert status == 0 and told in err, err
    status, out, err = run("verify", teacher, tmp_path / "plain.onnx")
    assert status == 0 and "equivalent" in out and told in err and "over half a grey level" in err, (out, err)
