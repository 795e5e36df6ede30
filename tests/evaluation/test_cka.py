"""Linear CKA against its formula on all pixels at once, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers.command_line import Run
from helpers.teachers import write_teacher
from PIL import Image
from torch import Tensor

from memsr_compiler import compile_to_plain, save_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.cka import linear_cka
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR


def network(seed: int, *, blocks: int = 1, channels: int = 6) -> EDSR:
    torch.manual_seed(seed)
    return EDSR(scale=2, blocks=blocks, channels=channels, tail="conv").eval()


def features(levels: LeveledTeacher, x: Tensor) -> list[Tensor]:
    found, values = [], levels.start(x)
    for level in levels.levels[:-1]:
        held = levels.advance(level, values)
        values = held.values
        found.append(held.after.transpose(0, 1).flatten(1).double())
    return found


def test_it_is_kornblith_s_formula_on_gram_matrices() -> None:
    a, b = (LeveledTeacher.of(network(s, blocks=s), (0.0, 1.0)) for s in (1, 2))
    x = torch.rand(2, 3, 8, 9)
    found = linear_cka(a, b, [x[:1], x[1:]])
    centring = torch.eye(144, dtype=torch.float64) - 1 / 144

    def grams(levels: LeveledTeacher) -> list[Tensor]:
        with torch.no_grad():
            return [centring @ (f.T @ f) @ centring for f in features(levels, x)]

    for i, k in enumerate(grams(a)):
        for j, m in enumerate(grams(b)):
            # Sums are float64; features are float32, and of two images at once may be rounded otherwise than of each.
            assert float(found[i, j]) == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())), rel=1e-5)


def test_a_network_is_itself_and_its_plain_form() -> None:
    teacher = network(0)
    levels, plain = LeveledTeacher.of(teacher, (0.0, 1.0)), LeveledTeacher.of(compile_to_plain(teacher), (0.0, 1.0))
    x = [torch.rand(1, 3, 20, 20)]
    torch.testing.assert_close(linear_cka(levels, levels, x).diagonal(), torch.ones(4, dtype=torch.float64))
    assert float(linear_cka(levels, plain, x).diagonal().min()) > 0.99


def test_networks_that_take_other_images_are_refused() -> None:
    with pytest.raises(InvalidInput, match="another range"):
        linear_cka(LeveledTeacher.of(network(0), (0.0, 1.0)), LeveledTeacher.of(network(0), (0.0, 255.0)), [])


def test_a_device_that_is_not_there_is_refused() -> None:
    levels = LeveledTeacher.of(network(0), (0.0, 1.0))
    with pytest.raises(InvalidInput, match="want cpu or cuda"):
        linear_cka(levels, levels, [], device="tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_processor_gives() -> None:
    a, b = (LeveledTeacher.of(network(s), (0.0, 1.0)) for s in (1, 2))
    x = [torch.rand(2, 3, 20, 20)]
    # features in float32, a few dozen terms a sum: some 1e-6 of themselves apart
    torch.testing.assert_close(linear_cka(a, b, x, device="cuda"), linear_cka(a, b, x), rtol=0, atol=1e-4)


def test_the_command_has_a_table_a_file_and_a_plot(run: Run, tmp_path: Path) -> None:
    write_teacher(network(0), tmp_path / "a.pt")
    save_plain(compile_to_plain(network(1, blocks=2)), tmp_path / "b.safetensors")
    (tmp_path / "photographs").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photographs" / "0.png")
    given = ["similarity", tmp_path / "a.pt", tmp_path / "b.safetensors", "--data", tmp_path / "photographs"]
    more = ["--csv", tmp_path / "cka.csv", "--plot", tmp_path / "cka.svg"]
    status, out, err = run(*given, *more, "--json")
    assert status == 0, err
    values = json.loads(out)["cka"]
    assert len(values) == 4 and len(values[0]) == 6 and all(0 <= v <= 1 for row in values for v in row)
    assert len((tmp_path / "cka.csv").read_text().splitlines()) == 5
    root = ElementTree.fromstring((tmp_path / "cka.svg").read_text())
    cells = [e for e in root.iter() if e.tag.endswith("rect") and len(e)]  # each with the title of its two layers
    assert len(cells) == 24
    status, out, _ = run(*given)
    assert status == 0 and "most like layer" in out
    assert run(*given, "--arch", "edsr", "--quiet") == (0, "", "")  # for the teacher; the plain file needs none
    status, _, err = run(*given, "--plot", tmp_path / "cka.pdf")
    assert status == 2 and ".svg" in err
