"""Rows by hand: what rounding may do to a number, what it takes from constants, and what is too coarse to be told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from helpers import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler import ir
from memsr_compiler.errors import CertificateError
from memsr_compiler.proof.forms import HeldLevel, Known, LinearForm
from memsr_compiler.proof.rows import Expected, Layer, LayerScale, Rows

WIDTH = 3  # channels of the level below
SPARE = 16 * 2.0**-53  # slack of numbers that took no steps
THIRD = torch.full((1, WIDTH, 1, 1), 1 / 3, dtype=torch.float64)
NOTHING = torch.zeros(1, dtype=torch.float64)


REACH = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)


def held(*kinds: str, constant: float = 0.0, measured: bool = False) -> HeldLevel:
    """A level whose channels are those of an image: as they are, shifted, or the constants 1 and 0.

    measured   they are known to be up to REACH
    """
    tensors = {"value", "shifted"}
    meanings = [
        ir.Meaning(kind, (i,), *(("x", (i,)) if kind in tensors else ()), constant=constant * (kind == "shifted"))  # type: ignore[arg-type, misc]
        for i, kind in enumerate(kinds or ("value",) * WIDTH)
    ]
    graph = graphs.graph(graphs.source(WIDTH, 0.0), graphs.conv("y", "x", 1, WIDTH))
    return HeldLevel(
        Known(graph, frozenset({"x"}), (lambda: {"x": REACH}) if measured else None), 1, meanings, nonnegative=True
    )


def form(kernel: Tensor, bias: Tensor, *, kernel_terms: float = 0.0, bias_terms: float = 0.0) -> LinearForm:
    """Exact rows; the terms of their numbers are the numbers themselves, or as large as this."""
    terms = torch.full_like(kernel, kernel_terms) if kernel_terms else None
    return LinearForm(kernel, bias, torch.full_like(bias, bias_terms) if bias_terms else bias.abs(), terms)


def powers(rows: Sequence[float] = (1.0,), columns: Sequence[float] = (1.0,) * WIDTH) -> LayerScale:
    return LayerScale(torch.tensor(rows).double(), torch.tensor(columns).double())


def rows_of(
    exact: LinearForm,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    below: HeldLevel | None = None,
    scale: LayerScale | None = None,
    dtype: torch.dtype = torch.float32,
    left_out: Sequence[int] = (),
) -> Rows:
    """These exact rows, stored as they are, rounded, or as given; some of them may be left out."""
    count = len(exact.bias)
    kept = [i for i in range(count) if i not in left_out]
    weight = exact.kernel[kept].to(dtype) if weight is None else weight
    bias = exact.bias[kept].to(dtype) if bias is None else bias
    positions = tuple(kept.index(i) if i in kept else -1 for i in range(count))
    m = ir.Meaning("value", positions, "y", tuple(range(count)))
    expected = Expected.behind(exact, 0.0, either=True)
    return Rows(below or held(), Layer(weight, bias, True, 1), m, expected, scale or powers((1.0,) * count), "here")


def check(rows: Rows) -> float:
    return rows.check(float(rows.weight.abs().max()))


# -- rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@settings(max_examples=30)
@given(number=st.floats(1e-3, 1e3), sign=st.sampled_from([-1.0, 1.0]))
def test_a_number_is_rounded_to_the_nearest(dtype: torch.dtype, number: float, sign: float) -> None:
    """Neither of its neighbours is taken, not even the one that is nearly as near."""
    kernel = torch.full((1, WIDTH, 1, 1), sign * number, dtype=torch.float64)
    exact = form(kernel, kernel[:, 0, 0, 0])
    assert check(rows_of(exact, dtype=dtype)) <= 1
    for way in (math.inf, -math.inf):
        weight, bias = kernel.to(dtype), exact.bias.to(dtype)
        beside = torch.nextafter(weight[0, 1, 0, 0], torch.tensor(way, dtype=dtype))
        half_way = abs(abs(float(beside) - sign * number) - abs(float(weight[0, 0, 0, 0]) - sign * number))
        if half_way <= 4 * SPARE * number:
            continue
        weight[0, 1, 0, 0] = beside
        with pytest.raises(CertificateError, match=r"here: weight \[0, 1, 0, 0\] is .*, the teacher's is "):
            check(rows_of(exact, weight, dtype=dtype))
        bias[0] = beside
        with pytest.raises(CertificateError, match=r"here: bias 0 is .*, the teacher's is "):
            check(rows_of(exact, bias=bias, dtype=dtype))


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_what_float64_loses_counts_for_the_number_that_loses_it(way: float) -> None:
    """1e-12 beside a 1: off by what the 1 might be is wrong, by what it might be itself is right."""
    numbers = torch.tensor([[1.0, 1e-12, 0.0]], dtype=torch.float64)
    exact = form(numbers[:, :, None, None], numbers[:, 1])
    for off, right in ((SPARE / 2, False), (SPARE / 2 * 1e-12, True)):
        weight, bias = exact.kernel.clone(), exact.bias.clone()
        weight[0, 1] += way * off
        bias[0] += way * off
        for rows in (rows_of(exact, weight, dtype=torch.float64), rows_of(exact, bias=bias, dtype=torch.float64)):
            if right:
                assert check(rows) == 0
                continue
            with pytest.raises(CertificateError, match="the teacher's is 1e-12"):
                check(rows)


def test_large_terms_leave_what_they_lose() -> None:
    """A number that is the rest of terms of 1000 may be off by what float64 loses of these."""
    for kernel_terms, bias_terms in ((1e3, 0.0), (0.0, 1e3)):
        exact = form(THIRD, THIRD[:, 0, 0, 0], kernel_terms=kernel_terms, bias_terms=bias_terms)
        for off, right in ((0.9 * 1e3 * SPARE, True), (1.1 * 1e3 * SPARE, False)):
            weight, bias = exact.kernel + off * (kernel_terms > 0), exact.bias + off * (bias_terms > 0)
            rows = rows_of(exact, weight, bias)
            if right:
                check(rows)
                continue
            with pytest.raises(CertificateError, match="the teacher's is"):
                check(rows)


# -- what cancels ----------------------------------------------------------------------------------------------------

FEW = 2.0**-24 / SPARE  # so large are terms of which float64 loses 2^-24


@pytest.mark.parametrize("which", ["kernel_terms", "bias_terms"])
def test_where_such_large_terms_cancel_that_nothing_can_be_told_nothing_is(which: str) -> None:
    """Beside a largest weight of 1/3, though the stored numbers are the exact ones."""
    check(rows_of(form(THIRD, THIRD[:, 0, 0, 0], **{which: 0.99 * FEW / 3}), dtype=torch.float64))
    with pytest.raises(CertificateError, match="such large terms cancel that float64 cannot tell"):
        check(rows_of(form(THIRD, THIRD[:, 0, 0, 0], **{which: 1.01 * FEW / 3}), dtype=torch.float64))


def test_what_cancels_is_measured_by_the_largest_number() -> None:
    """Of the layer; for a bias also by the constants that its row takes away again; and by the number itself."""
    exact = form(THIRD, NOTHING, bias_terms=0.99 * FEW)
    rows_of(exact).check(1.0)
    with pytest.raises(CertificateError, match="such large terms cancel"):
        rows_of(exact).check(0.98)
    shifted = held("shifted", "value", "value", constant=9.0)
    rows_of(exact, below=shifted).check(0.1)
    with pytest.raises(CertificateError, match="such large terms cancel"):
        rows_of(exact, below=shifted).check(0.098)
    with pytest.raises(CertificateError, match="such large terms cancel"):  # constants are no matter of weights
        rows_of(form(THIRD, NOTHING, kernel_terms=0.99 * FEW), below=shifted).check(0.5)
    rows_of(form(THIRD, torch.ones(1).double(), bias_terms=0.99 * FEW)).check(0.5)


# -- what rounding takes from the constants of shifts ----------------------------------------------------------------


def kernel_3x3(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, 3, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scaled", [False, True])
def test_what_is_lost_is_what_an_image_of_constants_shows(seed: int, scaled: bool) -> None:
    """t = 0 all over: the channel of ones holds 1, shifted ones C, and everything is 0 beyond the border.

    Images of all shapes: where few pixels are, few taps read.
    """
    below = held("shifted", "one", "value", constant=1000.0)
    kernel = kernel_3x3(2, seed)
    exact = form(kernel, -1000.0 * kernel[:, 0].sum((1, 2)))
    scale = powers((1.0, 0.25) if scaled else (1.0, 1.0), (1.0, 1.0, 0.5 if scaled else 1.0))
    stored = scale.scale(exact)
    weight, bias = stored.kernel.float(), stored.bias.float()
    image = torch.tensor([1000.0, 1.0, 0.0], dtype=torch.float64)[None, :, None, None]
    off = (weight.double() / scale.of_kernel - kernel, bias.double() / scale.rows - exact.bias)
    shapes = [image.expand(1, WIDTH, height, width) for height in range(1, 5) for width in range(1, 5)]
    worst = max(float(F.conv2d(x, *off, padding=1).abs().max()) for x in shapes)
    assert most_lost(rows_of(exact, weight, bias, below=below, scale=scale)) == pytest.approx(worst, rel=1e-5)


def most_lost(rows: Rows) -> float:
    return float(rows.lost().max())


def test_at_the_border_it_may_be_more_than_inside() -> None:
    """0.1 and -0.1 are rounded by as much: inside an image they lose nothing."""
    kernel = torch.zeros(1, WIDTH, 3, 3, dtype=torch.float64)
    kernel[0, 0, 1, 0], kernel[0, 0, 1, 2] = 0.1, -0.1
    lost = most_lost(rows_of(form(kernel, NOTHING), below=held("shifted", "value", "value", constant=1e6)))
    assert lost == pytest.approx(1e6 * abs(float(torch.tensor(0.1)) - 0.1), rel=1e-3)


@pytest.mark.parametrize(("kernel_terms", "bias_terms"), [(0.0, 0.0), (50.0, 0.0), (0.0, 7000.0)])
@pytest.mark.parametrize("left_out", [(), (1,)])
def test_what_float64_loses_is_lost_too(kernel_terms: float, bias_terms: float, left_out: tuple[int, ...]) -> None:
    """Of rows that are stored as exactly as can be, and of those that are not there."""
    kernel = torch.zeros(2, WIDTH, 1, 1, dtype=torch.float64)
    kernel[0, 0], kernel[0, 1] = 0.5, 2.0
    exact = form(kernel, torch.tensor([-500.0, -1.0]).double(), kernel_terms=kernel_terms, bias_terms=bias_terms)
    below = held("shifted", "one", "value", constant=1000.0)
    lost = most_lost(rows_of(exact, below=below, dtype=torch.float64, left_out=left_out))
    of_kernel = 1001.0 * kernel_terms if kernel_terms else 1000.0 * 0.5 + 1.0 * 2.0
    assert lost == pytest.approx(SPARE * (of_kernel + (bias_terms or 500.0)))


def test_of_rows_that_are_not_there_the_worst_counts() -> None:
    kernel = torch.zeros(2, WIDTH, 1, 1, dtype=torch.float64)
    terms = kernel.clone()
    terms[1, 0] = 50.0
    exact = LinearForm(kernel, torch.zeros(2).double(), torch.zeros(2).double(), terms)
    lost = most_lost(rows_of(exact, below=held("shifted", "value", "value", constant=1000.0), left_out=(1,)))
    assert lost == pytest.approx(SPARE * 50000.0)


def test_where_no_constant_of_a_shift_enters_none_is_lost() -> None:
    assert not rows_of(form(THIRD, NOTHING), below=held("one", "value", "zero")).lost().any()


# -- digits that are lost --------------------------------------------------------------------------------------------


def test_digits_of_small_numbers_are_lost() -> None:
    """1e-8 is nothing in float16: each tap loses as much times what its channel reaches, and the bias as it is."""
    small = torch.full((1, WIDTH, 3, 3), 1e-8, dtype=torch.float64)
    for kinds, bias, reach in (
        ((), -1e-8, 9 * 111 + 1),
        (("value", "one", "value"), 0.0, 9 * 102),
        (("one", "value", "shifted"), 0.0, 9 * 111),
    ):
        exact, below = form(small, NOTHING + bias), held(*kinds, measured=True)
        rows = rows_of(exact, dtype=torch.float16, below=below)
        assert rows.check(1.0) <= 1 and rows.lost_digits() == pytest.approx(reach * 1e-8, rel=2e-3)
        assert not rows_of(exact, below=below).lost_digits().any()
    whole = rows_of(form(THIRD, THIRD[:, 0, 0, 0]), dtype=torch.float16, below=held(measured=True))
    assert not whole.lost_digits().any() and not whole.lost().any()


def test_what_float64_cannot_tell_is_lost() -> None:
    """Though the stored number is the exact one as computed: it may be any that is as near."""
    below, common = held(measured=True), torch.finfo(torch.float32).eps / 3
    assert rows_of(form(THIRD, NOTHING, bias_terms=1e9), below=below).lost() == pytest.approx(1e9 * SPARE)
    lost = rows_of(form(THIRD, NOTHING, kernel_terms=1e9), below=below).lost()
    assert lost == pytest.approx(111 * (1e9 * SPARE - common))


def test_where_nobody_measures_no_tap_loses_digits() -> None:
    assert not rows_of(form(THIRD / 1e8, NOTHING), dtype=torch.float16).lost_digits().any()
    assert not rows_of(form(THIRD, NOTHING, kernel_terms=1e9)).lost().any()


# -- powers of two ---------------------------------------------------------------------------------------------------


def test_a_scaled_row_is_scaled_in_all_its_numbers() -> None:
    """A quarter of it; the channel that it reads first is an eighth of what it means."""
    exact, scale = form(THIRD, THIRD[:, 0, 0, 0]), powers((0.25,), (0.125, 1.0, 1.0))
    weight, bias = THIRD.float() * torch.tensor([2.0, 0.25, 0.25])[:, None, None], exact.bias.float() / 4
    assert check(rows_of(exact, weight, bias, scale=scale)) <= 1
    for wrong_weight, wrong_bias in ((THIRD.float(), bias), (weight, exact.bias.float()), (THIRD.float() / 4, bias)):
        with pytest.raises(CertificateError, match="the teacher's is"):
            check(rows_of(exact, wrong_weight, wrong_bias, scale=scale))


@pytest.mark.parametrize(("k", "right"), [(4, True), (8, True), (17, False), (22, False), (64, False)])
def test_scaled_so_far_down_that_digits_are_lost(k: int, right: bool) -> None:
    """Numbers of float16 have fewer digits below 2^-14, and none below 2^-24."""
    exact, scale = form(THIRD, NOTHING), powers((2.0**-k,))
    rows = rows_of(exact, (THIRD * 2.0**-k).half(), dtype=torch.float16, scale=scale)
    if right:
        assert check(rows) <= 1
        return
    with pytest.raises(CertificateError, match="here: is scaled so far down that its numbers lose their digits"):
        check(rows)


def test_a_bias_may_lose_as_much_as_the_largest_weight_of_its_row() -> None:
    """And no more: beside a weight of 2^-10 a bias of 2^-20 has digits to lose, beside one of 1 it has none."""
    for largest, right in ((1.0, True), (2.0**-20, False)):
        kernel = torch.zeros(1, WIDTH, 1, 1, dtype=torch.float64)
        kernel[0, 0] = largest
        exact, scale = form(kernel, torch.tensor([2.0**-12 / 3]).double()), powers((2.0**-8,), (2.0**-8, 1.0, 1.0))
        rows = rows_of(exact, kernel.half(), (exact.bias * 2.0**-8).half(), scale=scale)
        if right:
            check(rows)
            continue
        with pytest.raises(CertificateError, match="lose their digits"):
            check(rows)
