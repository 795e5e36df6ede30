"""Paper mode against a reference of a few lines (SVD of all features, lstsq), its invariants, each of its options."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.levels import chain, features, image_batch, paper_teacher
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.paper import initialise
from memsr_compiler.student.paper.initialise import derive_memsr
from memsr_compiler.student.paper.level_kernels import level_kernel
from memsr_compiler.student.paper.options import AUTHORS, PAPER, PaperOptions
from memsr_compiler.student.report import Derived
from memsr_compiler.student.statistics.moments import pixels
from memsr_compiler.student.statistics.spill import Spool

BETA = 3.0


def run(derived: Derived, x: Tensor) -> list[Tensor]:
    """Values that the student's layers hold, the output last."""
    held = [x]
    for i, (weight, bias) in enumerate(derived.kernels):
        y = F.conv2d(held[-1], weight, bias, padding=weight.shape[-1] // 2)
        held.append(y if i == len(derived.kernels) - 1 else y.relu())
    return held[1:]


def algorithm_1(feature: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """M (C, r), gamma (r, 1) and the corrected bias (C, 1), by SVD of the feature (C, N) itself."""
    mean = feature.mean(1, keepdim=True)
    u, s, vh = torch.linalg.svd(feature - mean, full_matrices=False)
    sign = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    m, own = (u * sign)[:, :r], (sign.T * s[:, None] * vh)[:r]
    gamma = torch.stack([-BETA * row[row < 0].mean() for row in own])[:, None]
    return m, gamma, mean - m @ gamma


@pytest.mark.parametrize("kernels", [(3, 3, 3), (5, 1, 3), (1, 3, 1)])
def test_the_student_is_what_svd_and_least_squares_give(kernels: tuple[int, ...]) -> None:
    net, x = chain(kernels=kernels), image_batch()
    widths = [5, 4]
    derived = derive_memsr(LeveledTeacher.of(net, (0.0, 1.0)), [x], widths=widths, mean_shift=BETA)

    convs, below = [m for m in net if isinstance(m, nn.Conv2d)], x
    m_below, constant_below = torch.eye(3, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    ones_below = 0
    for i, conv in enumerate(convs):
        assert conv.bias is not None
        k, bias, middle = conv.weight.detach(), conv.bias.detach(), kernels[i] // 2
        target = torch.einsum("omij,mr->orij", k, torch.cat([constant_below, m_below], 1))  # K * [constant, M]
        target[:, 0, middle, middle] += bias
        if i < len(widths):
            below = conv(below).relu().detach()
            ones = int(kernels[i + 1] > 1)
            m, _, constant = algorithm_1(pixels(below), widths[i] - ones)
            target[:, 0, middle, middle] -= constant[:, 0]
            student = torch.linalg.lstsq(m, target.flatten(1)).solution.reshape(-1, *target.shape[1:])
        else:
            ones, student, m, constant = 0, target, m_below, constant_below
        weight, got_bias = derived.kernels[i]
        if ones:
            assert torch.equal(weight[0], torch.zeros_like(weight[0])) and float(got_bias[0]) == 1
        weight, got_bias = weight[ones:], got_bias[ones:]
        # an SVD of the features here, eigenvectors of their covariance there: squaring halves the digits that are left
        torch.testing.assert_close(weight[:, ones_below:], student[:, 1:], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(got_bias, student[:, 0, middle, middle], rtol=1e-8, atol=1e-8)
        if ones_below:
            student[:, 0, middle, middle] = 0
            torch.testing.assert_close(weight[:, 0], student[:, 0], rtol=1e-8, atol=1e-8)
        if i < len(widths):
            torch.testing.assert_close(derived.layers[i].map[:, ones:-1], m, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(derived.layers[i].map[:, -1:], constant, rtol=1e-8, atol=1e-8)
        m_below, constant_below, ones_below = m, constant, ones


def test_spectra_and_eq_15_are_those_of_the_features_with_skips_too() -> None:
    teacher, x = paper_teacher(), image_batch()
    derived = derive_memsr(teacher, [x], widths=[5] * (len(teacher.levels) - 1))
    for layer, (_, _, after) in zip(derived.layers, features(teacher, x), strict=False):
        f = pixels(after)
        f = f - f.mean(1, keepdim=True)
        _, s, _ = torch.linalg.svd(f, full_matrices=False)
        largest = float(s[0])
        kept = int((layer.map[:, :-1] != 0).any(0).sum())
        torch.testing.assert_close(layer.singular_values * f.shape[1] ** 0.5, s, rtol=1e-8, atol=1e-6 * largest)
        m = layer.map[:, :-1]
        torch.testing.assert_close(layer.lost, float((f - m @ (m.T @ f)).norm() / f.norm()), rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(layer.lost, float(s[kept:].norm() / s.norm()), rtol=1e-7, atol=1e-7)


def test_where_no_relu_clips_a_student_of_full_width_is_the_teacher_up_to_the_border() -> None:
    net, x = chain(), image_batch()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    teacher = LeveledTeacher.of(net, (0.0, 1.0))
    want = net(x).detach()
    exact = derive_memsr(teacher, [x], widths=[7, 6], mean_shift=50.0)
    torch.testing.assert_close(run(exact, x)[-1], want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run(exact, x[:, :, :2, :1])[-1], net(x[:, :, :2, :1]).detach(), rtol=1e-9, atol=1e-9)
    folded = derive_memsr(teacher, [x], widths=[6, 5], mean_shift=50.0, options=replace(PAPER, constant="bias"))
    got = run(folded, x)[-1]
    torch.testing.assert_close(got[:, :, 2:-2, 2:-2], want[:, :, 2:-2, 2:-2], rtol=1e-9, atol=1e-9)
    assert float((got - want)[:, :, 0].abs().max()) > 0.1


def test_a_width_above_the_teachers_is_padded_with_zeros() -> None:
    teacher, x = LeveledTeacher.of(chain(), (0.0, 1.0)), image_batch()
    narrow = derive_memsr(teacher, [x], widths=[7, 6])
    wide = derive_memsr(teacher, [x], widths=[16, 8])
    assert [layer.width for layer in wide.layers] == [16, 8]
    assert [len(bias) for _, bias in wide.kernels] == [16, 8, 4]
    torch.testing.assert_close(run(wide, x)[-1], run(narrow, x)[-1], rtol=1e-12, atol=1e-12)
    assert not wide.kernels[0][0][7:].any() and not wide.kernels[1][0][:, 7:].any()


def test_a_single_channel_is_a_direction_and_not_the_constant() -> None:
    teacher, x = paper_teacher(), image_batch()
    derived = derive_memsr(teacher, [x], widths=[1] * (len(teacher.levels) - 1))
    assert all(layer.map[:, 0].norm() == pytest.approx(1) and layer.lost < 1 for layer in derived.layers)


def test_constant_images_give_a_student_and_no_nan() -> None:
    teacher = LeveledTeacher.of(chain(kernels=(1, 1, 1)), (0.0, 1.0))
    x = torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64)
    derived = derive_memsr(teacher, [x], widths=[3, 2])
    torch.testing.assert_close(run(derived, x)[-1], teacher.output(x), rtol=1e-9, atol=1e-9)
    assert all(layer.lost == 0 and layer.own_error < 1e-3 for layer in derived.layers)


def test_own_error_is_that_of_the_student_as_it_runs() -> None:
    teacher, x = paper_teacher(blocks=1), image_batch()
    derived = derive_memsr(teacher, [x[:2], x[2:]], widths=[6] * (len(teacher.levels) - 1))
    for layer, held, (_, _, after) in zip(derived.layers, run(derived, x), features(teacher, x), strict=False):
        f, own = pixels(after), pixels(held)
        error = (layer.map[:, :-1] @ own + layer.map[:, -1:] - f).norm() / (f - f.mean(1, keepdim=True)).norm()
        assert layer.own_error == pytest.approx(float(error), rel=1e-3, abs=1e-5)


def test_eq_15_falls_as_the_width_grows() -> None:
    teacher, x = paper_teacher(blocks=1), image_batch()
    inner = len(teacher.levels) - 1
    lost = [[layer.lost for layer in derive_memsr(teacher, [x], widths=[w] * inner).layers] for w in (2, 4, 6, 9, 24)]
    for narrow, wide in itertools.pairwise(lost):
        assert all(b <= a for a, b in zip(narrow, wide, strict=True))
    assert max(lost[-1]) < 1e-6 and min(lost[0]) > 0


def test_neither_batch_size_nor_order_matters() -> None:
    teacher, x = paper_teacher(blocks=1), image_batch()
    widths = [6] * (len(teacher.levels) - 1)
    one = derive_memsr(teacher, [x], widths=widths)
    other = derive_memsr(teacher, [x[3:5].flip(0), x[5:], x[:3]], widths=widths)
    for (weight, bias), (weight2, bias2) in zip(one.kernels, other.kernels, strict=True):
        torch.testing.assert_close(weight, weight2, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bias, bias2, rtol=1e-9, atol=1e-9)
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.own_error == pytest.approx(b.own_error, rel=1e-4)


def test_features_that_are_kept_on_disk_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, x = paper_teacher(blocks=1), image_batch()
    widths = [6] * (len(teacher.levels) - 1)
    batches = [x[:2], x[2:]]
    in_memory = derive_memsr(teacher, batches, widths=widths)
    monkeypatch.setattr(initialise, "Spool", lambda: Spool(in_memory=0))
    on_disk = derive_memsr(teacher, batches, widths=widths)
    for a, b in zip(in_memory.kernels, on_disk.kernels, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("relative_to", ["centred", "uncentred"])
def test_theta_gives_the_smallest_width(relative_to: str) -> None:
    teacher, x = paper_teacher(blocks=1), image_batch()
    options = PaperOptions(relative_to=relative_to)  # type: ignore[arg-type]
    found = derive_memsr(teacher, [x], theta=0.1, align=1, options=options)
    widths = [layer.width for layer in found.layers]
    assert all(layer.lost < 0.1 for layer in found.layers)
    for i, width in enumerate(widths):
        ones = int(teacher.levels[i + 1].kernel > 1)
        if width > 1 + ones:
            less = derive_memsr(teacher, [x], widths=[*widths[:i], width - 1, *widths[i + 1 :]], options=options)
            assert less.layers[i].lost >= 0.1


def test_finding_the_width_leaves_the_bias_as_it_is() -> None:
    teacher, x = paper_teacher(blocks=1), image_batch()
    found = derive_memsr(teacher, [x], theta=0.05, align=1)
    given = derive_memsr(teacher, [x], widths=[layer.width for layer in found.layers])
    for a, b in zip(found.kernels, given.kernels, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_widths_by_theta_are_aligned_and_end_at_the_teachers() -> None:
    teacher, x = paper_teacher(), image_batch()
    for theta in (1e-9, 0.1, 0.9):
        for level, layer in zip(teacher.levels, derive_memsr(teacher, [x], theta=theta).layers, strict=False):
            assert layer.width % 8 == 0 and layer.width <= -(-(level.channels + 1) // 8) * 8


def test_the_report_says_what_each_layer_stands_for() -> None:
    teacher, x = paper_teacher(), image_batch()
    steps: list[str] = []
    derived = derive_memsr(teacher, [x], widths=[6] * (len(teacher.levels) - 1), on_step=steps.append)
    assert len(steps) == len(derived.layers) == len(teacher.levels) - 1 and len(derived.kernels) == len(teacher.levels)
    for level, layer in zip(teacher.levels, derived.layers, strict=False):
        assert (layer.number, layer.holds, layer.teacher_width) == (level.number, level.held, level.channels)
        assert layer.width == 6 and layer.relus == 0 and layer.map.shape == (level.channels, 7)
        assert layer.singular_values.shape == (level.channels,)


def student(teacher: LeveledTeacher, **options: object) -> Derived:
    return derive_memsr(
        teacher,
        [image_batch()],
        widths=[6] * (len(teacher.levels) - 1),
        options=replace(PAPER, **options),  # type: ignore[arg-type]
    )


def test_relative_to_what() -> None:
    teacher, x = paper_teacher(), image_batch()
    centred, uncentred = student(teacher), student(teacher, relative_to="uncentred")
    for a, b, (_, _, after) in zip(centred.layers, uncentred.layers, features(teacher, x), strict=False):
        f = pixels(after)
        ratio = float((f - f.mean(1, keepdim=True)).norm() / f.norm())
        assert b.lost == pytest.approx(a.lost * ratio, rel=1e-9)
    wide, narrow = (
        derive_memsr(teacher, [x], theta=0.1, align=1, options=options)
        for options in (PAPER, replace(PAPER, relative_to="uncentred"))
    )
    assert sum(layer.width for layer in narrow.layers) < sum(layer.width for layer in wide.layers)


def test_shift_over_all_entries_is_smaller() -> None:
    teacher = LeveledTeacher.of(chain(), (0.0, 1.0))
    negative, every = student(teacher), student(teacher, shift_over="all")
    held = pixels(features(teacher, image_batch())[0][2])
    m, gamma, _ = algorithm_1(held, 5)
    own = m.T @ (held - held.mean(1, keepdim=True))
    difference = negative.kernels[0][1][1:] - every.kernels[0][1][1:]
    share = (own < 0).double().mean(1)
    torch.testing.assert_close(difference, gamma[:, 0] * (1 - share), rtol=1e-8, atol=1e-10)


def test_linear_levels_are_free_of_clipping_if_asked() -> None:
    teacher, x = paper_teacher(), image_batch()
    clipped, free = student(teacher), student(teacher, linear_levels="free")
    for level, a, b in zip(teacher.levels, clipped.layers, free.layers, strict=False):
        if not level.relu.any():
            assert not torch.equal(a.map, b.map)
    first = run(free, x)[1]  # linear, as all below it: nothing has been clipped yet
    assert not teacher.levels[1].relu.any() and float(first.min()) > 0 >= float(run(clipped, x)[1].min())


def test_kept_levels_have_the_teachers_channels_and_its_tail() -> None:
    teacher = paper_teacher(tail="edsr")
    derived = student(teacher, kept=2)
    assert [layer.width for layer in derived.layers[-3:]] == [6, 9, 33]
    for layer, level in zip(derived.layers[-2:], teacher.levels[-3:-1], strict=True):
        assert torch.equal(layer.map[:, 1:-1], torch.eye(level.channels, dtype=torch.float64))
        assert layer.lost == 0
    for level, (weight, _) in zip(teacher.levels[-2:], derived.kernels[-2:], strict=True):
        rows = weight[1:] if level is not teacher.levels[-1] else weight
        torch.testing.assert_close(rows[:, 1:], level_kernel(teacher, level)[:, 1:], rtol=1e-12, atol=1e-12)
    aligned = derive_memsr(teacher, [image_batch()], theta=0.1, options=replace(PAPER, kept=1))
    assert aligned.layers[-1].width == 40


def test_the_authors_choices_together() -> None:
    teacher, x = paper_teacher(), image_batch()
    derived = derive_memsr(teacher, [x], widths=[6] * (len(teacher.levels) - 1), options=AUTHORS)
    assert derived.layers[-1].width == 9
    assert bool(torch.isfinite(run(derived, x)[-1]).all())


def test_refusals() -> None:
    teacher, x = paper_teacher(), image_batch()
    inner = len(teacher.levels) - 1
    with pytest.raises(InvalidInput, match="one of the two"):
        derive_memsr(teacher, [x])
    with pytest.raises(InvalidInput, match="one of the two"):
        derive_memsr(teacher, [x], widths=[6] * inner, theta=0.1)
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        derive_memsr(teacher, [x], theta=1.0)
    with pytest.raises(InvalidInput, match=f"give {inner}, all but the last's"):
        derive_memsr(teacher, [x], widths=[6])
    with pytest.raises(InvalidInput, match="a width of 0 is no layer"):
        derive_memsr(teacher, [x], widths=[0] * inner)
    with pytest.raises(InvalidInput, match="give at least 11 more"):
        derive_memsr(teacher, [x[:1, :, :3, :3]], widths=[6] * inner)
    with pytest.raises(InvalidInput, match="kept=-1"):
        derive_memsr(teacher, [x], theta=0.1, options=PaperOptions(kept=-1))
