"""The loop: runs that are stopped and go on, checkpoints, averages, several processes."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import train_in_double
from helpers.training import cut_patches, draw_picture, score
from helpers.two_processes import run_two
from PIL import Image
from torch import Tensor, nn

from memsr_compiler.errors import ExportError, InvalidInput, MemsrError
from memsr_compiler.quantization.simulate import IntegerNet
from memsr_compiler.quantization.steps import Steps
from memsr_compiler.training import checkpoints, loop
from memsr_compiler.training.losses import QuantizationAware, Supervised
from memsr_compiler.training.models import new_plain
from memsr_compiler.training.recipe import Recipe


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"steps": 8, "batch": 2, "every": 2, "rate": 1e-3, **changes})  # type: ignore[arg-type]


def train(
    photographs: Path, place: Path, how: Recipe, *, resume: Path | None = None, width: int = 6, seed: int = 3
) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    objective = Supervised(new_plain(3, width, 2))
    place.mkdir(exist_ok=True)
    loop.run(objective, cut_patches(photographs, place.parent / "cache"), how, place, validate=score, resume=resume)
    weights: dict[str, Tensor] = checkpoints.load(checkpoints.newest(place))["objective"]
    return weights


@pytest.mark.parametrize(("average", "optimizer"), [(0.0, "adam"), (0.9, "adam"), (0.9, "muon")])
@pytest.mark.parametrize("at", [2, 6])
def test_a_run_goes_on_bit_for_bit(photographs: Path, tmp_path: Path, at: int, average: float, optimizer: str) -> None:
    how = recipe(average=average, clip=0.5, optimizer=optimizer)
    whole = train(photographs, tmp_path / "whole", how)
    kept = checkpoints.save_step
    with pytest.MonkeyPatch.context() as patched:

        def stop(state: checkpoints.State, run: Path, step: int) -> None:
            kept(state, run, step)
            if step == at:
                raise KeyboardInterrupt

        patched.setattr(checkpoints, "save_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(photographs, tmp_path / "parts", how)
    parts = train(photographs, tmp_path / "parts", how, resume=tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert [json.loads(line)["psnr"] for line in logs[0]] == [json.loads(line)["psnr"] for line in logs[1]]
    best = [checkpoints.load(tmp_path / n / "best.ckpt") for n in ("whole", "parts")]
    assert best[0]["step"] == best[1]["step"] and best[0]["psnr"] == best[1]["psnr"]


def test_steps_of_integers_stay_in_the_last_part(photographs: Path, tmp_path: Path) -> None:
    """Bit for bit: what an optimizer remembers of their gradients does not move them on."""
    torch.manual_seed(3)
    net = new_plain(2, 4, 2, "nearest")
    nn.init.normal_(net[-1].weight, std=0.1)  # new ones are zero
    kernels = [layer.weight.detach().flatten(1).abs().amax(1) / 64 for layer in net]
    objective = QuantizationAware(IntegerNet(net, kernels, [Steps.of(0.0, 1.0), Steps.of(-1.0, 1.0)]))
    loop.run(objective, cut_patches(photographs, tmp_path / "cache"), recipe(steps=10), tmp_path, validate=score)
    before, after = (checkpoints.load(checkpoints.path_of(tmp_path, step))["objective"] for step in (8, 10))
    growths = [name for name in before if "growth" in name]
    assert len(growths) == 3 and any(before[name].any() for name in growths)
    assert all(torch.equal(before[name], after[name]) for name in growths)
    assert not torch.equal(before["network.plain.layers.0.weight"], after["network.plain.layers.0.weight"])


def test_two_checkpoints_are_kept_and_a_damaged_one_names_the_other(photographs: Path, tmp_path: Path) -> None:
    train(photographs, tmp_path / "run", recipe())
    assert checkpoints.steps(tmp_path / "run") == [6, 8]
    newest = checkpoints.newest(tmp_path / "run")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"step-00000008.ckpt: is damaged.*--resume .*step-00000006.ckpt"):
        train(photographs, tmp_path / "run", recipe(), resume=tmp_path / "run")
    train(photographs, tmp_path / "run", recipe(), resume=tmp_path / "run" / "step-00000006.ckpt")
    with pytest.raises(InvalidInput, match="of a run of 8 steps"):
        train(photographs, tmp_path / "run", recipe(steps=9), resume=tmp_path / "run")
    with pytest.raises(InvalidInput, match="does not fit this run"):
        train(photographs, tmp_path / "run", recipe(), resume=tmp_path / "run", width=7)


@pytest.mark.parametrize(
    "other",
    [
        {"step": None},
        {"step": [3]},
        {"step": -1},
        {"step": 10**9},
        {"best_step": "2"},
        {"objective": [1, 2]},
        {"optimizer": None},
        {"optimizer": {"state": {}, "param_groups": 5}},
        {"schedule": "none"},
        {"psnr": [1.0]},
        {"psnr": None},
        {"random": torch.zeros(3)},
        {"random": None},
    ],
)
def test_a_checkpoint_that_holds_something_else_is_none(
    other: dict[str, object], photographs: Path, tmp_path: Path
) -> None:
    """Its SHA-256 is right; whoever wrote it was another program, or of bad will."""
    train(photographs, tmp_path / "run", recipe(steps=2))
    newest = checkpoints.newest(tmp_path / "run")
    checkpoints.save({**checkpoints.load(newest), **other}, newest)
    with pytest.raises(InvalidInput, match="the checkpoint does not fit this run"):
        train(photographs, tmp_path / "run", recipe(steps=2), resume=tmp_path / "run")


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
        train(photographs, tmp_path / "run", recipe())
    assert checkpoints.load(checkpoints.newest(tmp_path / "run"))["step"] == 2
    assert not list((tmp_path / "run").glob(".memsr-*"))


def test_a_loss_that_is_no_number_is_told_with_its_images(photographs: Path, tmp_path: Path) -> None:
    objective = Supervised(new_plain(3, 6, 2))
    with torch.no_grad():
        objective.network[0].weight.fill_(torch.nan)  # type: ignore[index]
    (tmp_path / "run").mkdir()
    with pytest.raises(MemsrError, match=r"the loss is nan at step 1, learning rate 4e-05, images \d.png"):
        loop.run(objective, cut_patches(photographs, tmp_path), recipe(), tmp_path / "run", validate=lambda _: 0.0)


def test_overfitting_reaches_45_db(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.fromarray(draw_picture(32, 32, 0)).save(tmp_path / "one" / "0.png")
    source = cut_patches(tmp_path / "one", tmp_path, patch=16)
    low, high = map(torch.stack, zip(*(source[i][:2] for i in range(8)), strict=True))

    def psnr(network: nn.Module) -> float:
        with torch.no_grad():
            return float(-10 * torch.log10(F.mse_loss(network(low), high[:, 0])))

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
    outcome = loop.run(objective, cut_patches(photographs, tmp_path), recipe(), run, validate=lambda _: next(scores))
    assert (outcome.start, outcome.best, outcome.best_step, outcome.end) == (1, 5, 2, 4)
    best = checkpoints.load(run / "best.ckpt")
    assert all(torch.equal(value, best["network"][name]) for name, value in objective.network.state_dict().items())


def test_half_precision_runs(photographs: Path, tmp_path: Path) -> None:
    train(photographs, tmp_path / "half", recipe(precision="bf16", steps=2))
    assert (tmp_path / "half" / "best.ckpt").exists()


def test_the_average_is_what_is_validated(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(average: float) -> list[Tensor]:
        seen: list[Tensor] = []

        def validate(network: nn.Module) -> float:
            seen.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
            return 0.0

        monkeypatch.setitem(globals(), "score", validate)
        train(photographs, tmp_path / f"{average}", recipe(average=average, every=1, steps=5))
        return seen

    raw, averaged = weights(0.0), weights(0.3)
    expected = raw[0]
    for step, (now, found) in enumerate(zip(raw, averaged, strict=True)):
        if step:
            decay = min(0.3, (1 + step) / (10 + step))  # reaches 0.3 after step 3
            expected = decay * expected + (1 - decay) * now
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_two_processes_give_what_one_gives(networks: Path, photographs: Path, tmp_path: Path) -> None:
    """Sums are taken in another order, so gradients differ by rounding, and by nothing else.

    A gradient is a sum of fewer than 1e5 products that are each below 1 here, so that two orders differ by less than
    1e5 * 2^-53 < 2e-11.  Adam divides by the gradient's size + 1e-8: a step of `rate` at most differs by
    rate * 2e-11 / 1e-8 where the gradient is 0, and by less elsewhere.  A gradient of other patches, or of half the
    batch, would turn steps by about `rate`.
    """
    train_in_double.train(networks, photographs, tmp_path / "one")
    script, tests = Path(train_in_double.__file__), Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    run_two([script, networks, photographs, tmp_path / "two"], ACCELERATE_USE_CPU="true", PYTHONPATH=path)
    ends = [checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("one", "two")]
    assert ends[0]["step"] == ends[1]["step"] == train_in_double.RECIPE.steps
    bound = train_in_double.RECIPE.steps * train_in_double.RECIPE.rate * 2e-11 / 1e-8
    for part in ("objective", "average"):
        for name, value in ends[0][part].items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(value, ends[1][part][name], rtol=0, atol=bound)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for one, two in zip(*logs, strict=True):
        for key in one.keys() & {"loss", "l1", "features"}:  # means of both processes, and of no step before
            assert one[key] == pytest.approx(two[key], rel=2e-6), key  # they are averaged in float32


def test_files_of_another_run_are_not_taken_for_its_own(photographs: Path, tmp_path: Path) -> None:
    """A state of as many steps and weights fits, and was gone on with; so was the best network of the same step."""
    own, other = tmp_path / "own", tmp_path / "other"
    for seed, place in enumerate((own, other)):
        train(photographs, place, recipe(), seed=seed)
    best = checkpoints.load(own / "best.ckpt")
    assert best["step"] == checkpoints.load(other / "best.ckpt")["step"] == 8
    shutil.copy(other / "best.ckpt", own)
    train(photographs, own, recipe(), resume=own)
    again = checkpoints.load(own / "best.ckpt")["network"]
    assert all(torch.equal(value, again[name]) for name, value in best["network"].items())
    shutil.copy(other / "step-00000008.ckpt", own)
    with pytest.raises(InvalidInput, match=r"step-00000008.ckpt: is of another run, or .*log.jsonl is: "):
        train(photographs, own, recipe(), resume=own)


def test_a_best_network_that_is_lost_is_told(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train(photographs, run, recipe(rate=0.3))  # worse from step to step
    assert checkpoints.load(run / "best.ckpt")["step"] < 8
    (run / "best.ckpt").unlink()
    train(photographs, run, recipe(rate=0.3), resume=run)
    assert "best.ckpt: is not of step" in caplog.text and "the best from here on is kept" in caplog.text


@pytest.mark.parametrize(("levels", "best"), [((30.0, 9.0), 8), ((9.0, 30.0), 2)])
def test_psnr_on_other_images_is_not_compared(
    levels: tuple[float, float], best: int, photographs: Path, tmp_path: Path
) -> None:
    """On harder images nothing was ever better than before, on easier ones everything was, whatever it was."""
    run, how = tmp_path / "run", recipe()
    run.mkdir()
    before = iter((0.0, 1.0, 0.5))  # at steps 0, 2, 4
    patches = cut_patches(photographs, tmp_path / "cache")

    def stop_at_6(network: nn.Module) -> float:
        gain = next(before, None)
        if gain is None:
            raise KeyboardInterrupt
        return levels[0] + gain

    with pytest.raises(KeyboardInterrupt):
        loop.run(Supervised(new_plain(3, 6, 2)), patches, how, run, validate=stop_at_6, judged="these")
    kept = checkpoints.load(run / "best.ckpt")
    asked: list[dict[str, Tensor]] = []
    gains = iter((0.0, -1.0, -2.0, 1.0 if best == 8 else -1.0))  # the best one's, then at steps 4, 6, 8

    def after(network: nn.Module) -> float:
        asked.append({name: value.clone() for name, value in network.state_dict().items()})
        return levels[1] + next(gains)

    outcome = loop.run(Supervised(new_plain(3, 6, 2)), patches, how, run, validate=after, judged="those", resume=run)
    assert kept["step"] == 2 and all(torch.equal(value, asked[0][name]) for name, value in kept["network"].items())
    assert outcome.best_step == best and outcome.best == levels[1] + (best == 8)
    assert checkpoints.load(run / "best.ckpt")["step"] == best
    again = loop.run(
        Supervised(new_plain(3, 6, 2)), patches, how, run, validate=lambda _: 1 / 0, judged="those", resume=run
    )
    assert again == outcome


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize(("gain", "best"), [(0.5, 2), (2.0, 4)])
def test_the_best_network_outlives_a_kill_while_it_is_judged_anew(
    kept: int, gain: float, best: int, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file that is written then; the best one on other images is the one before, or the one of now."""
    run, how = tmp_path / "run", recipe()
    run.mkdir()
    patches = cut_patches(photographs, tmp_path / "cache")
    seen: list[float] = []

    def judge(network: nn.Module, level: float, gains: tuple[float, ...]) -> float:
        """By the networks in the order in which they were seen: after steps 0, 2, 4, 6, 8."""
        mark = sum(float(value.double().sum()) for value in network.state_dict().values())
        if mark not in seen:
            seen.append(mark)
        return level + gains[seen.index(mark)]

    def go_on(level: float, gains: tuple[float, ...], judged: str, resume: Path | None = None) -> loop.Outcome:
        objective = Supervised(new_plain(3, 6, 2))
        validate = partial(judge, level=level, gains=gains)
        return loop.run(objective, patches, how, run, validate=validate, judged=judged, resume=resume)

    def stop_after(files: int) -> None:
        left = iter(range(files))

        def save_or_stop(state: checkpoints.State, path: Path) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            save(state, path)

        monkeypatch.setattr(checkpoints, "save", save_or_stop)

    save = checkpoints.save
    stop_after(5)  # states of steps 0, 2, 4, and the best of 0, 2
    with pytest.raises(KeyboardInterrupt):
        go_on(30.0, (0.0, 1.0, 0.5, -1.0, -1.0), "these")
    stop_after(kept)
    with pytest.raises(KeyboardInterrupt):
        go_on(9.0, (0.0, 1.0, gain, -1.0, -1.0), "those", run)
    monkeypatch.setattr(checkpoints, "save", save)
    outcome = go_on(9.0, (0.0, 1.0, gain, -1.0, -1.0), "those", run)
    assert (outcome.best, outcome.best_step) == (9 + max(1.0, gain), best)
    assert checkpoints.load(run / "best.ckpt")["step"] == best
