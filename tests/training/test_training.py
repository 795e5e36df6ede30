"""Training: the loss against its formula, patches by number, runs that are stopped and go on, and the two commands."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import train_in_double
from helpers.command_line import Run
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("accelerate", reason="needs memsr_compiler[train]")
from accelerate.state import AcceleratorState

from memsr_compiler import compile_to_plain, save_plain, shrink
from memsr_compiler.errors import ExportError, InvalidInput, MemsrError
from memsr_compiler.images.files import read_image
from memsr_compiler.plain.load import load_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.training import checkpoints, loop
from memsr_compiler.training.loop import Recipe
from memsr_compiler.training.losses import (
    Distillation,
    Supervised,
    feature_weight,
    initial_maps,
    input_means,
    no_means,
    random_maps,
    restarted,
)
from memsr_compiler.training.models import new_plain
from memsr_compiler.training.patches import Patches, batches, prepared


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth, so that a small network can learn it."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [127 + 100 * np.sin(0.05 * (seed + 1) * x + c) * np.cos(0.07 * y + seed) for c in range(3)]
    return np.stack(channels, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(3):
        Image.fromarray(picture(40 + 4 * i, 50, i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def teacher() -> EDSR:
    return new_teacher()


def new_teacher() -> EDSR:
    torch.manual_seed(0)
    return EDSR(scale=2, blocks=1, channels=8, tail="conv").eval()


@pytest.fixture(scope="module")
def derived() -> PlainNet:
    images = [torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    return shrink(new_teacher(), width=8, calibration=images, refit=0)


@pytest.fixture
def student(derived: PlainNet) -> PlainNet:
    return copy.deepcopy(derived)  # training changes it


@pytest.fixture(scope="module")
def files(derived: PlainNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher.pt and student.safetensors."""
    folder = tmp_path_factory.mktemp("networks")
    torch.save(new_teacher().state_dict(), folder / "teacher.pt")
    save_plain(derived, folder / "student.safetensors")
    return folder


def patches(folder: Path, cache: Path, *, patch: int = 8, seed: int = 0) -> Patches:
    return Patches(prepared(folder, cache, scale=2, patch=patch), scale=2, patch=patch, seed=seed)


# -- the loss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_loss_is_eq_12_to_14(teacher: EDSR, student: PlainNet, share: float) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    maps = random_maps(levels, student, seed=1)
    objective = Distillation(student, levels, maps, weight=0.3, epsilon=1e-5, means=no_means(student))
    low, high = torch.rand(2, 3, 7, 9), torch.rand(2, 3, 14, 18)
    total, pixels, features = objective(low, high, share)

    plain = compile_to_plain(teacher)
    own, values, theirs, known = low, [], [], levels.start(low)
    for layer, level in zip(list(student)[:-1], levels.levels, strict=False):
        own = layer(own)
        values.append(own)
        held = levels.advance(level, known)
        theirs.append(held.after)
        known = held.values
    expected = [
        torch.mean((torch.einsum("or,nrhw->nohw", m[:, :-1].float(), v) + m[:, -1, None, None] - t) ** 2)
        for m, v, t in zip(maps, values, theirs, strict=True)
    ]
    torch.testing.assert_close(features, sum(expected) / len(expected))
    torch.testing.assert_close(pixels, (student(low) - high).abs().mean())
    torch.testing.assert_close(total, pixels + 0.3 * (1e-5**share) * features)
    torch.testing.assert_close(F.pixel_shuffle(levels.output(low), 2), plain(low), rtol=1e-4, atol=1e-5)


def test_the_features_weight_falls_from_lambda_to_epsilon_of_it() -> None:
    assert feature_weight(0, weight=0.3, epsilon=1e-5) == pytest.approx(0.3)
    assert feature_weight(1, weight=0.3, epsilon=1e-5) == pytest.approx(3e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_gradients_are_those_of_finite_differences(teacher: EDSR, student: PlainNet, centred: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    low, high = (torch.rand(1, 3, s, s, generator=generator, dtype=torch.float64) for s in (4, 8))
    means = input_means(student, [low]) if centred else no_means(student)
    levels, net = LeveledTeacher.of(teacher.double(), (0.0, 1.0)), student.double()
    maps = random_maps(levels, net, 1)
    objective = Distillation(net, levels, maps, weight=0.3, epsilon=1e-2, means=means).double()
    objective(low, high, 0.5)[0].backward()
    for name, value in objective.named_parameters():
        if not value.requires_grad:
            continue
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        step, losses = 1e-7, []
        for sign in (1, -1):
            with torch.no_grad():
                value.add_(sign * step * direction)
                losses.append(float(objective(low, high, 0.5)[0]))
                value.sub_(sign * step * direction)
        assert value.grad is not None
        slope = float((value.grad * direction).sum())
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-3, abs=1e-7), name


def test_without_weight_the_teacher_is_not_asked(student: PlainNet, teacher: EDSR) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    objective = Distillation(
        student, levels, random_maps(levels, student, 0), weight=0, epsilon=1, means=no_means(student)
    )
    objective._teacher = ()  # type: ignore[assignment]
    total, pixels, features = objective(torch.rand(1, 3, 5, 5), torch.rand(1, 3, 10, 10), 0.0)
    assert total == pixels and features == 0 and not objective.maps


def test_centred_training_begins_with_the_same_network(teacher: EDSR, student: PlainNet) -> None:
    levels, x = LeveledTeacher.of(teacher, (0.0, 1.0)), torch.rand(1, 3, 1, 3)
    means = input_means(student, [torch.rand(2, 3, 9, 9)])
    before = student(x)
    objective = Distillation(student, levels, random_maps(levels, student, 0), weight=0.3, epsilon=1e-5, means=means)
    torch.testing.assert_close(objective.settled()(x), before, rtol=1e-5, atol=1e-6)
    assert objective(x, x.repeat_interleave(2, 2).repeat_interleave(2, 3), 0.0)[1] >= 0


def test_initial_maps_are_least_squares(teacher: EDSR, student: PlainNet) -> None:
    levels = LeveledTeacher.of(teacher, (0.0, 1.0))
    images = [torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(5))]
    found = initial_maps(levels, student, images)

    def distance(maps: tuple[Tensor, ...]) -> float:
        objective = Distillation(student, levels, maps, weight=1, epsilon=1, means=no_means(student))
        return float(objective(images[0], torch.zeros(2, 3, 40, 40), 0.0)[2].detach())

    best = distance(found)
    assert all(distance(tuple(m + 0.01 * torch.randn(m.shape) for m in found)) > best for _ in range(5))


def test_a_student_of_another_teacher_is_refused(student: PlainNet) -> None:
    other = LeveledTeacher.of(EDSR(scale=2, blocks=3, channels=8, tail="conv"), (0.0, 1.0))
    with pytest.raises(InvalidInput, match="another teacher"):
        random_maps(other, student, 0)


@pytest.mark.parametrize("start", ["he", "xavier"])
def test_new_weights_have_the_variance_of_their_name(start: str) -> None:
    net = new_plain(3, 64, 2)
    restarted(net, start, seed=0)  # type: ignore[arg-type]
    fan_in, fan_out = 64 * 9, 12 * 9
    expected = 2 / fan_in if start == "he" else 2 / (fan_in + fan_out)
    assert float(net[2].weight.detach().var()) == pytest.approx(expected, rel=0.1)
    assert not any(bool(layer.bias.any()) for layer in net if layer.bias is not None)


# -- patches -------------------------------------------------------------------------------------------------


def test_patches_are_the_same_for_any_workers_processes_and_first_step(photographs: Path, tmp_path: Path) -> None:
    source = patches(photographs, tmp_path)
    whole = list(batches(source, size=4, first=0, last=3))
    working = list(batches(source, size=4, first=1, last=3, workers=2))
    halves = [list(batches(source, size=4, first=0, last=3, rank=r, processes=2)) for r in (0, 1)]
    for a, b in zip(whole[1:], working, strict=True):
        assert torch.equal(a.low, b.low) and torch.equal(a.high, b.high) and a.names == b.names
    for i, batch in enumerate(whole):
        assert torch.equal(batch.high, torch.cat([halves[0][i].high, halves[1][i].high]))


def test_a_patch_is_a_turned_part_of_photograph_and_small_image(photographs: Path, tmp_path: Path) -> None:
    source = patches(photographs, tmp_path)
    seen = set()
    for i in range(30):
        low, high, name = source[i]
        assert low.shape == (3, 8, 8) and high.shape == (3, 16, 16) and 0 <= float(high.min()) <= float(high.max()) <= 1
        whole, part = torch.from_numpy(read_image(photographs / name)).permute(2, 0, 1), (high * 255).round().byte()
        turned = [torch.rot90(part.flip(2) if flip else part, k, (1, 2)) for k in range(4) for flip in (False, True)]
        windows = whole.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert any(bool((windows == t).flatten(1).all(1).any()) for t in turned)
        assert float((F.avg_pool2d(high[None], 2)[0] - low).abs().mean()) < 0.02
        seen.add(name)
    assert len(seen) == 3


def test_what_is_ready_is_not_made_again_and_bad_files_are_named(photographs: Path, tmp_path: Path) -> None:
    folder, cache, told = tmp_path / "data" / "DIV2K_train_HR", tmp_path / "cache", []
    folder.mkdir(parents=True)
    Image.fromarray(picture(40, 40, 0)).save(folder / "good.png")
    Image.fromarray(picture(9, 9, 0)).save(folder / "small.png")
    (folder / "notes.txt").write_text("no image")
    (folder.parent / "DIV2K_valid_HR").mkdir()
    found = prepared(folder.parent, cache, scale=2, patch=8, warn=told.append)
    assert [p.name for p in found] == ["good.png"]
    assert "notes.txt: not a readable image" in told[0] and "small.png: smaller than a patch" in told[1]
    times = {p: p.stat().st_mtime_ns for p in cache.iterdir()}
    prepared(folder.parent, cache, scale=2, patch=8)
    assert {p: p.stat().st_mtime_ns for p in cache.iterdir()} == times
    with pytest.raises(InvalidInput, match="no photograph of at least 200x200"):
        prepared(folder, cache, scale=2, patch=100)


# -- the loop ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def another_process() -> None:
    """accelerate keeps device and precision for a process's life; every test here stands for a process."""
    AcceleratorState._reset_state(True)


def score(network: nn.Module) -> float:
    with torch.no_grad():
        return -float(network(torch.full((1, 3, 4, 4), 0.5)).sub(0.5).abs().mean())


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"steps": 8, "batch": 2, "every": 2, "rate": 1e-3, **changes})  # type: ignore[arg-type]


def trained(
    photographs: Path, place: Path, how: Recipe, *, resume: Path | None = None, width: int = 6
) -> dict[str, Tensor]:
    torch.manual_seed(3)
    objective = Supervised(new_plain(3, width, 2))
    place.mkdir(exist_ok=True)
    loop.run(objective, patches(photographs, place.parent / "cache"), how, place, validate=score, resume=resume)
    return checkpoints.load(checkpoints.newest(place))["objective"]


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("at", [2, 6])
def test_a_run_goes_on_bit_for_bit(photographs: Path, tmp_path: Path, at: int, average: float) -> None:
    how = recipe(average=average, clip=0.5)
    whole = trained(photographs, tmp_path / "whole", how)
    kept = checkpoints.save_step
    with pytest.MonkeyPatch.context() as patched:

        def stop(state: checkpoints.State, run: Path, step: int) -> None:
            kept(state, run, step)
            if step == at:
                raise KeyboardInterrupt

        patched.setattr(checkpoints, "save_step", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(photographs, tmp_path / "parts", how)
    parts = trained(photographs, tmp_path / "parts", how, resume=tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert [json.loads(line)["psnr"] for line in logs[0]] == [json.loads(line)["psnr"] for line in logs[1]]
    best = [checkpoints.load(tmp_path / n / "best.ckpt") for n in ("whole", "parts")]
    assert best[0]["step"] == best[1]["step"] and best[0]["psnr"] == best[1]["psnr"]


def test_two_checkpoints_are_kept_and_a_damaged_one_names_the_other(photographs: Path, tmp_path: Path) -> None:
    trained(photographs, tmp_path / "run", recipe())
    assert checkpoints.steps(tmp_path / "run") == [6, 8]
    newest = checkpoints.newest(tmp_path / "run")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"step-00000008.ckpt: is damaged.*--resume .*step-00000006.ckpt"):
        trained(photographs, tmp_path / "run", recipe(), resume=tmp_path / "run")
    trained(photographs, tmp_path / "run", recipe(), resume=tmp_path / "run" / "step-00000006.ckpt")
    with pytest.raises(InvalidInput, match="of a run of 8 steps"):
        trained(photographs, tmp_path / "run", recipe(steps=9), resume=tmp_path / "run")
    with pytest.raises(InvalidInput, match="does not fit this run"):
        trained(photographs, tmp_path / "run", recipe(), resume=tmp_path / "run", width=7)


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(a: str, b: str) -> None:
        if Path(b).name == "step-00000004.ckpt":
            raise OSError(28, "No space left on device")
        real(a, b)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(ExportError, match="Free some space"):
        trained(photographs, tmp_path / "run", recipe())
    assert checkpoints.load(checkpoints.newest(tmp_path / "run"))["step"] == 2
    assert not list((tmp_path / "run").glob(".memsr-*"))


def test_a_loss_that_is_no_number_is_told_with_its_images(photographs: Path, tmp_path: Path) -> None:
    objective = Supervised(new_plain(3, 6, 2))
    with torch.no_grad():
        objective.network[0].weight.fill_(torch.nan)  # type: ignore[index]
    (tmp_path / "run").mkdir()
    with pytest.raises(MemsrError, match=r"the loss is nan at step 1, learning rate 4e-05, images \d.png"):
        loop.run(objective, patches(photographs, tmp_path), recipe(), tmp_path / "run", validate=lambda _: 0.0)


def test_weights_that_are_no_numbers_are_told(run: Run, distill: Command) -> None:
    status, _, err = run(*distill("run", "--rate", "1e38", "--every", "1"))
    assert status != 0 and "lower --rate" in err and "Traceback" not in err


def test_overfitting_reaches_45_db(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.fromarray(picture(32, 32, 0)).save(tmp_path / "one" / "0.png")
    source = patches(tmp_path / "one", tmp_path, patch=16)
    low, high = (torch.stack([source[i][k] for i in range(8)]) for k in (0, 1))

    def psnr(network: nn.Module) -> float:
        with torch.no_grad():
            return float(-10 * torch.log10(F.mse_loss(network(low), high)))

    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    how = recipe(steps=1500, batch=8, every=500, rate=6e-3, warm_up=0.1)
    outcome = loop.run(Supervised(new_plain(4, 32, 2)), source, how, tmp_path / "run", validate=psnr)
    assert outcome.start < 20 < 45 < outcome.best


def test_the_best_weights_are_what_is_left(photographs: Path, tmp_path: Path) -> None:
    scores = iter([1.0, 5.0, 2.0, 3.0, 4.0])
    torch.manual_seed(3)
    objective = Supervised(new_plain(3, 6, 2))
    run = tmp_path / "run"
    run.mkdir()
    outcome = loop.run(objective, patches(photographs, tmp_path), recipe(), run, validate=lambda _: next(scores))
    assert (outcome.start, outcome.best, outcome.best_step, outcome.end) == (1, 5, 2, 4)
    best = checkpoints.load(run / "best.ckpt")
    assert all(torch.equal(value, best["network"][name]) for name, value in objective.network.state_dict().items())


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": float("nan")}, {"warm_up": 1.0}, {"average": 1.0}, {"steps": 0}, {"clip": -1.0}]
)
def test_recipes_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        recipe(**wrong)


def test_half_precision_runs(photographs: Path, tmp_path: Path) -> None:
    trained(photographs, tmp_path / "half", recipe(precision="bf16", steps=2))
    assert (tmp_path / "half" / "best.ckpt").exists()


def test_the_average_is_what_is_validated(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(average: float) -> list[Tensor]:
        seen: list[Tensor] = []

        def validate(network: nn.Module) -> float:
            seen.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
            return 0.0

        monkeypatch.setitem(globals(), "score", validate)
        trained(photographs, tmp_path / f"{average}", recipe(average=average, every=1, steps=5))
        return seen

    raw, averaged = weights(0.0), weights(0.3)
    expected = raw[0]
    for step, (now, found) in enumerate(zip(raw, averaged, strict=True)):
        if step:
            decay = min(0.3, (1 + step) / (10 + step))  # reaches 0.3 after step 3
            expected = decay * expected + (1 - decay) * now
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


# -- the commands --------------------------------------------------------------------------------------------

Command = Callable[..., list[str]]


@pytest.fixture
def distill(files: Path, photographs: Path, tmp_path: Path) -> Command:
    def command(out: str, *more: object) -> list[str]:
        given = ["distill", files / "student.safetensors", "--teacher", files / "teacher.pt", "--data", photographs]
        few = ["--steps", 6, "--batch", 2, "--patch", 16, "--every", 2, "--cache", tmp_path / "cache"]
        return [*map(str, [*given, "--out", tmp_path / out, "--val", photographs, *few, *more])]

    return command


def test_a_student_is_distilled_and_written(run: Run, distill: Command, tmp_path: Path) -> None:
    status, out, err = run(*distill("run", "--json"))
    assert status == 0, err
    told = json.loads(out)
    assert set(told["psnr"]) == {"bicubic", "teacher", "student before", "student after"}
    assert told["psnr"]["student after"] >= told["psnr"]["student before"]
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "best.ckpt", "config.yaml", "log.jsonl", "student.onnx", "student.safetensors", "tensorboard", "versions.yaml",
    }  # fmt: skip
    assert load_plain(tmp_path / "run" / "student.safetensors").widths == [3, 8, 8, 8, 8, 12]
    status, _, err = run(*distill("run"))
    assert status == 2 and "holds a run already" in err


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(distill: Command, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "memsr_compiler"]
    longer = ("--steps", 60, "--every", 10)
    subprocess.run([*command, *distill("whole", *longer)], check=True, env=environment, capture_output=True)
    process = subprocess.Popen([*command, *distill("killed", *longer)], env=environment, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "killed").glob("step-*.ckpt")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = [*command, "distill", "--resume", str(tmp_path / "killed")]
    subprocess.run(resumed, check=True, env=environment, capture_output=True)
    ends = [checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("whole", "killed")]
    assert ends[0]["step"] == ends[1]["step"] == 60
    assert all(torch.equal(value, ends[1]["objective"][name]) for name, value in ends[0]["objective"].items())
    files = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_give_what_one_gives(files: Path, photographs: Path, tmp_path: Path) -> None:
    """Sums are taken in another order, so gradients differ by rounding, and by nothing else.

    A gradient is a sum of fewer than 1e5 products that are each below 1 here, so that two orders differ by less than
    1e5 * 2^-53 < 2e-11.  Adam divides by the gradient's size + 1e-8: a step of `rate` at most differs by
    rate * 2e-11 / 1e-8 where the gradient is 0, and by less elsewhere.  A gradient of other patches, or of half the
    batch, would turn steps by about `rate`.
    """
    train_in_double.train(files, photographs, tmp_path / "one")
    script, tests = Path(train_in_double.__file__), Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": path}
    command = [*TORCHRUN, script, files, photographs, tmp_path / "two"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends = [checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("one", "two")]
    assert ends[0]["step"] == ends[1]["step"] == train_in_double.RECIPE.steps
    bound = train_in_double.RECIPE.steps * train_in_double.RECIPE.rate * 2e-11 / 1e-8
    for part in ("objective", "average"):
        for name, value in ends[0][part].items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(value, ends[1][part][name], rtol=0, atol=bound)


def test_two_processes_distil(distill: Command, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*TORCHRUN, "-m", "memsr_compiler", *distill("two", "--json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best_step"] in range(7)  # the first process speaks, and it alone
    assert checkpoints.steps(tmp_path / "two") == [4, 6] and (tmp_path / "two" / "student.onnx").exists()


def test_options_come_from_a_file_and_the_command_line_is_stronger(run: Run, distill: Command, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("steps: 4\nwarm-up: 0.5\nlambda: 0\n")
    status, _, err = run(*distill("run", "--config", tmp_path / "some.yaml", "-q"))
    assert status == 0, err
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "steps: 6\n" in kept and "warm-up: 0.5\n" in kept and "lambda: 0" in kept
    for content, message in (
        ("stepz: 4", "no option of memsrc distill is called stepz"),
        ("- 3", "name: value"),
        ("a: [", "is no YAML"),
        ("clip: much", "Invalid value for '--clip'"),
    ):
        (tmp_path / "bad.yaml").write_text(content)
        status, _, err = run(*distill("other", "--config", tmp_path / "bad.yaml"))
        assert status == 2 and f"{tmp_path / 'bad.yaml'}: " in err and message in err
    _, _, err = run(*distill("other", "--config", tmp_path / "some.yaml", "--clip", "much"))
    assert "Invalid value for '--clip'" in err and "some.yaml" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "15"], "no multiple of the scale"),
        (["--lambda", "-1"], "--lambda -1.0: want"),
        (["--lambda", "inf"], "--lambda inf: want"),
        (["--epsilon", "0"], "--epsilon 0.0: want"),
        (["--warm-up", "1"], "warm-up 1.0: want"),
        (["--ema", "1"], "--ema 1.0: want"),
        (["--clip", "nan"], "clip nan: want"),
        (["--data", "nowhere"], "nowhere: is no folder"),
        (["--val", "nowhere"], "nowhere: is no folder"),
        (["--scale", "3"], "enlarges by 2"),
        (["--maps", "zeros"], "want one of initialised, random"),
        (["--resume", "nowhere"], "there is no such run"),
        (["--rate", "0"], "--rate 0.0: want a learning rate"),
    ],
)
def test_options_that_do_not_fit(run: Run, distill: Command, tmp_path: Path, options: list[str], message: str) -> None:
    status, _, err = run(*distill("run", *options))
    assert status == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_fp16_needs_a_gpu(run: Run, distill: Command) -> None:
    status, _, err = run(*distill("run", "--precision", "fp16"))
    assert status == 2 and "--precision fp16 is for GPUs" in err


def test_a_run_replaces_nothing(run: Run, distill: Command, files: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "student.safetensors").write_bytes((files / "student.safetensors").read_bytes())
    before = (place / "student.safetensors").read_bytes()
    status, _, err = run(*distill("run"))
    assert status == 2 and "holds student.safetensors already" in err
    assert (place / "student.safetensors").read_bytes() == before and len(list(place.iterdir())) == 1
    (tmp_path / "file").write_text("")
    status, _, err = run(*distill("file"))
    assert status == 2 and "is a file" in err


def test_a_run_goes_on_as_it_began_wherever_it_is(
    run: Run, distill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = run(*distill("run", "-q"))
    assert status == 0, err
    config = (tmp_path / "run" / "config.yaml").read_text()
    for wrong in (("--steps", 9), ("--rate", 1e-3), ("--batch", 4), ("--lambda", 0)):
        status, _, err = run("distill", "--resume", tmp_path / "run", *wrong)
        assert status == 2 and f"{wrong[0]} {wrong[1]}" in err and "leave it out" in err, err
        assert (tmp_path / "run" / "config.yaml").read_text() == config
    status, _, err = run("distill", "--resume", tmp_path / "run", "--out", tmp_path / "other")
    assert status == 2 and "leave --out out" in err and not (tmp_path / "other").exists()
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "moved" / "step-00000006.ckpt").unlink()
    (tmp_path / "moved" / "student.onnx").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, _, err = run("distill", "--resume", Path("..", "moved"), "--every", 1, "-q")
    assert status == 0, err
    assert (tmp_path / "moved" / "student.onnx").exists() and not (tmp_path / "run").exists()


def test_a_best_network_that_was_lost_is_found_anew(run: Run, distill: Command, tmp_path: Path) -> None:
    assert run(*distill("run", "-q"))[0] == 0
    (tmp_path / "run" / "best.ckpt").write_bytes(b"x")
    status, _, err = run("distill", "--resume", tmp_path / "run" / "best.ckpt")
    assert status == 2 and "is no state of a run" in err
    assert run("distill", "--resume", tmp_path / "run", "-q") == (0, "", "")
    assert checkpoints.load(tmp_path / "run" / "best.ckpt")["step"] == 6


def test_another_teacher_is_told_and_a_plain_one_will_do(
    run: Run, distill: Command, files: Path, tmp_path: Path
) -> None:
    torch.manual_seed(9)
    torch.save(EDSR(scale=2, blocks=1, channels=8, tail="conv").state_dict(), tmp_path / "other.pt")
    status, _, err = run(*distill("run", "--teacher", tmp_path / "other.pt"))
    assert status == 0 and "was derived from another network" in " ".join(err.split())
    save_plain(compile_to_plain(new_teacher()), tmp_path / "plain.safetensors")
    status, _, err = run(*distill("second", "--teacher", tmp_path / "plain.safetensors"))
    assert status == 0 and "another network" not in err


def test_photographs_made_ready_are_made_again_where_they_are_damaged(photographs: Path, tmp_path: Path) -> None:
    before = patches(photographs, tmp_path / "cache")[3]
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    after = patches(photographs, tmp_path / "cache")[3]
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="choose another --cache"):
        patches(photographs, tmp_path / "file")


def test_batch_norm_learns_what_its_inputs_are(run: Run, photographs: Path, tmp_path: Path) -> None:
    few = ["--steps", "3", "--batch", "2", "--patch", "32", "--every", "3", "--cache", tmp_path, "--val", photographs]
    small = ["--arch", "srresnet", "--arch-args", "blocks=1,channels=8", "--scale", "2"]
    status, _, err = run("train", *small, "--data", photographs, "--out", tmp_path / "run", *few)
    assert status == 0, err
    weights = torch.load(tmp_path / "run" / "network.pt", weights_only=True)
    means = [value for name, value in weights.items() if name.endswith("running_mean")]
    assert means and all(mean.abs().max() > 0 for mean in means)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (["--arch", "plain-s", "--blocks", "1"], "takes no arguments"),
        (["--arch", "teacher-s", "--arch-args", "foo=1"], "--arch teacher-s: got an unexpected keyword"),
        (["--arch", "teacher-s", "--arch-args", "blocks=abc"], "--arch teacher-s: does not build"),
        (["--arch", "fsrcnn"], "does not take RGB"),
        (["--arch", "vdsr"], "of the size that it is given"),
        (["--arch", "edsr", "--arch-args", "scale=4,blocks=1,channels=4"], "which is not RGB enlarged by 2"),
        (["--arch", "no.such:thing"], "cannot be imported"),
        (["--arch", "resnet"], "no such family"),
    ],
)
def test_networks_that_cannot_be_trained(
    run: Run, photographs: Path, tmp_path: Path, arch: list[str], message: str
) -> None:
    status, _, err = run("train", *arch, "--scale", "2", "--data", photographs, "--out", tmp_path / "run")
    assert status == 2 and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()


def test_a_network_of_ones_own_code_is_trained(
    run: Run, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_own.py").write_text(
        "from memsr_compiler.teachers.families.edsr import EDSR\n\n\n"
        "def small(scale, blocks=1):\n    return EDSR(scale=scale, blocks=blocks, channels=4)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path, "--val", photographs]
    own = ["--arch", "mine_own:small", "--scale", "2"]
    status, _, err = run("train", *own, "--data", photographs, "--out", tmp_path / "run", *few)
    assert status == 0 and (tmp_path / "run" / "plain.onnx").exists(), err


@pytest.mark.parametrize(
    ("arch", "written"),
    [
        (["--arch", "edsr", "--blocks", "1", "--channels", "4"], {"network.pt", "plain.onnx"}),
        (["--arch", "plain-s"], {"network.safetensors", "network.onnx"}),
        (["--arch", "rfdn", "--arch-args", "channels=16,blocks=1"], {"network.pt"}),
    ],
)
def test_networks_are_trained(run: Run, photographs: Path, tmp_path: Path, arch: list[str], written: set[str]) -> None:
    few = ["--steps", "2", "--batch", "2", "--patch", "32", "--every", "1", "--cache", tmp_path, "--val", photographs]
    status, out, err = run(
        "train", *arch, "--scale", "2", "--data", photographs, "--out", tmp_path / "run", *few, "--json"
    )
    assert status == 0, err
    assert {Path(name).name for name in json.loads(out)["written"]} == written
    assert all((tmp_path / "run" / name).exists() for name in written)
