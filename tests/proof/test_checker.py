"""The certificate holds for what the compiler makes, and for nothing else.

An oracle that shares nothing with the checker evaluates each claim on images.  With exact networks there is no
rounding, so a claim is true or false; what is false, and what is not the teacher, the checker must refuse.
"""

from __future__ import annotations

import ast
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from helpers import graphs
from helpers.converted import NETWORKS, Converted, converted, small_edsr
from helpers.networks import random_network
from torch import Tensor, nn

from memsr_compiler import ir
from memsr_compiler.analysis.schedule import Carrying
from memsr_compiler.errors import CertificateError, UnsupportedModel
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.proof import checker, forms, rows
from memsr_compiler.proof.certificate import Certificate, Stage
from memsr_compiler.proof.checker import Layer, check
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.trace.trace import trace

# -- by hand: what each rule of the checker is for -------------------------------------------------------------------


def layer(weight: Tensor, bias: Tensor, *, relu: bool = True) -> Layer:
    return Layer(weight, bias, relu, 1)


def copies(*rows: Sequence[float]) -> Tensor:
    """A 1x1 kernel with these rows."""
    return torch.tensor(rows).double()[:, :, None, None]


def whole(tensor: str, channels: int) -> ir.Meaning:
    return ir.Meaning("value", tuple(range(channels)), tensor, tuple(range(channels)))


def claim(graph: ir.Graph, *levels: Sequence[ir.Meaning], base: int = 1) -> Certificate:
    return Certificate("", "", (graph.input.low, graph.input.high), (Stage(base, tuple(map(tuple, levels))),))


def weights_of(graph: ir.Graph, name: str) -> tuple[Tensor, Tensor]:
    op = graph[name]
    assert isinstance(op, ir.Conv2d)
    return op.weight, op.bias


def two_convolutions() -> ir.Graph:
    return graphs.graph(graphs.source(2, 0.0), graphs.conv("a", "x"), graphs.relu("r", "a"), graphs.conv("b", "r"))


def layers_of_two(graph: ir.Graph) -> list[Layer]:
    return [layer(*weights_of(graph, "a")), layer(*weights_of(graph, "b"), relu=False)]


def test_a_network_starts_from_the_image_and_ends_with_the_output() -> None:
    graph = two_convolutions()
    layers, levels = layers_of_two(graph), ([whole("x", 2)], [whole("r", 2)], [whole("b", 2)])
    check(graph, layers, claim(graph, *levels))
    nothing = layer(copies([1, 0], [0, 1]), torch.zeros(2).double(), relu=False)
    with pytest.raises(CertificateError, match="a stage does not start from what the one before it made"):
        check(graph, [nothing], claim(graph, [whole("b", 2)], [whole("b", 2)]))
    half = [layer(*weights_of(graph, "a"), relu=False)]
    with pytest.raises(CertificateError, match="the last stage does not end with the teacher's output"):
        check(graph, half, claim(graph, levels[0], [whole("a", 2)]))


def test_layers_are_as_many_as_levels_and_relus_where_they_belong() -> None:
    graph = two_convolutions()
    layers, certificate = layers_of_two(graph), claim(graph, [whole("x", 2)], [whole("r", 2)], [whole("b", 2)])
    with pytest.raises(CertificateError, match="more layers than the certificate speaks of"):
        check(graph, [*layers, layers[-1]], certificate)
    with pytest.raises(CertificateError, match="fewer layers than the certificate speaks of"):
        check(graph, layers[:-1], certificate)
    with pytest.raises(CertificateError, match="ReLU or pixel shuffle in the wrong place"):
        check(graph, _with(layers, 1, relu=True), certificate)
    with pytest.raises(CertificateError, match="the slope of channel 0 is 1, what it means asks for 0"):
        check(graph, _with(layers, 0, relu=False), certificate)


@pytest.mark.parametrize("turned", ["positions", "channels"])
def test_the_output_is_in_its_own_order(turned: str) -> None:
    """The rows of the last layer the other way round, and the certificate says so."""
    graph = two_convolutions()
    first, last = layers_of_two(graph)
    swapped = replace(last, weight=last.weight.flip(0), bias=last.bias.flip(0))
    end = replace(whole("b", 2), **{turned: (1, 0)})  # type: ignore[arg-type]
    with pytest.raises(CertificateError, match=r"not where the next stage expects it|must end with whole tensors"):
        check(graph, [first, swapped], claim(graph, [whole("x", 2)], [whole("r", 2)], [end]))


def test_a_stage_is_at_the_resolution_that_is_due() -> None:
    teacher = EDSR(scale=4, blocks=1, channels=2, colours=1).double()
    plain = compile_to_plain(teacher, tail="keep", align=1)
    assert plain.certificate is not None
    for base in (1, 4):
        first, second, *others = plain.certificate.stages
        wrong = replace(plain.certificate, stages=(first, replace(second, base=base), *others))
        with pytest.raises(CertificateError, match=f"stage 1 is at resolution {base}, where 2 is due"):
            check(trace(teacher).graph, plain.checkable(), wrong)


def test_a_row_that_no_meaning_speaks_of_is_refused() -> None:
    here, there = ir.Meaning("value", (0,), "input", (0,)), ir.Meaning("value", (2,), "input", (0,))
    with pytest.raises(CertificateError, match="3 x 1 channels do not fit the certificate"):
        check(*hand_made([here, there], [1, 5, 1], [1, 0, 0]))


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_numbers_that_are_none_are_refused(what: str) -> None:
    graph = two_convolutions()
    layers = layers_of_two(graph)
    endless = replace(layers[1], **{what: getattr(layers[1], what) * math.nan})
    with pytest.raises(CertificateError, match="layer 2: NaN or infinite weights"):
        check(graph, [layers[0], endless], claim(graph, [whole("x", 2)], [whole("r", 2)], [whole("b", 2)]))


def test_what_reads_a_channel_of_zeros_reads_nothing() -> None:
    """What is always zero is weighed by nothing, not as one likes."""
    graph = two_convolutions()
    first, last = layers_of_two(graph)
    wider = layer(torch.cat([first.weight, 0 * first.weight[:1]]), torch.cat([first.bias, torch.zeros(1).double()]))
    levels = ([whole("x", 2)], [whole("r", 2), ir.Meaning("zero", (2,))], [whole("b", 2)])
    for tap in (0.0, 7.0):
        reader = layer(torch.cat([last.weight, torch.full_like(last.weight[:, :1], tap)], dim=1), last.bias, relu=False)
        if tap == 0.0:
            check(graph, [wider, reader], claim(graph, *levels))
            continue
        with pytest.raises(CertificateError, match=r"weight \[0, 2, 0, 0\] is 7, the teacher's is 0"):
            check(graph, [wider, reader], claim(graph, *levels))


def test_every_row_is_looked_at_however_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "PIECE", 1)
    graph = two_convolutions()
    layers, certificate = layers_of_two(graph), claim(graph, [whole("x", 2)], [whole("r", 2)], [whole("b", 2)])
    check(graph, layers, certificate)
    for number in range(2):
        for row in range(2):
            bias = layers[number].bias.clone()
            bias[row] += 1
            with pytest.raises(CertificateError, match="the teacher's is"):
                check(graph, _with(layers, number, bias=bias), certificate)


def test_a_stored_number_is_the_exact_one_rounded_and_no_further_off() -> None:
    """Two units in the last place of float32 are too many."""
    graph = two_convolutions()
    third = replace(graph["a"], weight=weights_of(graph, "a")[0] / 3)  # type: ignore[call-arg]
    graph = ir.Graph(tuple(third if op.name == "a" else op for op in graph), graph.output)
    layers = [replace(v, weight=v.weight.float(), bias=v.bias.float()) for v in layers_of_two(graph)]
    certificate = claim(graph, [whole("x", 2)], [whole("r", 2)], [whole("b", 2)])
    assert 0 < check(graph, layers, certificate).rounding <= 1
    at = tuple(layers[0].weight.nonzero()[0].tolist())
    off = layers[0].weight.clone()
    for _ in range(2):
        off[at] = torch.nextafter(off[at], torch.tensor(math.copysign(math.inf, float(off[at]))))
    with pytest.raises(CertificateError, match="the teacher's is"):
        check(graph, _with(layers, 0, weight=off), certificate)


def test_two_larger_kernels_in_a_row_are_not_one() -> None:
    """b(a(x)) cuts a(x) at the border; no single kernel does, whatever its size."""
    graph = graphs.graph(graphs.source(1, 0.0), graphs.conv("a", "x", 1, 1), graphs.conv("b", "a", 2, 1))
    (a, a_bias), (b, b_bias) = weights_of(graph, "a"), weights_of(graph, "b")
    full = torch.stack([F.conv2d(F.pad(a, (2, 2, 2, 2)), row.flip(1, 2)[None])[0] for row in b])
    for kernel in (b * a[0, 0, 1, 1], full.flip(2, 3), full):
        one = layer(kernel, b_bias + (b.sum((2, 3)) @ a_bias), relu=False)
        with pytest.raises(CertificateError, match=r"b\[0\] needs b, which the level below does not hold"):
            check(graph, [one], claim(graph, [whole("x", 1)], [whole("b", 2)]))


def test_two_tensors_that_are_not_held_do_not_cancel() -> None:
    """y = r - s, of a level that holds neither: said to be nothing at all."""
    minus = ir.Affine(name="m", inputs=("s",), scale=-torch.ones(1).double(), shift=torch.zeros(1).double())
    graph = graphs.graph(
        graphs.source(1, 0.0), graphs.conv("a", "x", 1, 1), graphs.relu("r", "a"), graphs.conv("b", "x", 1, 1),
        graphs.relu("s", "b"), minus, graphs.add("y", "r", "m"),
    )  # fmt: skip
    ones = layer(copies([0]), torch.ones(1).double())
    nothing = layer(copies([0]), torch.zeros(1).double(), relu=False)
    with pytest.raises(CertificateError, match=r"y\[0\] needs r, which the level below does not hold"):
        check(graph, [ones, nothing], claim(graph, [whole("x", 1)], [ir.Meaning("one", (0,))], [whole("y", 1)]))


def test_of_several_channels_each_must_be_known() -> None:
    """y = [x; s] where s is not held: its first channel is known, its second not."""
    both = ir.Concat(name="y", inputs=("x", "s"))
    graph = graphs.graph(graphs.source(1, 0.0), graphs.conv("a", "x", 1, 1), graphs.relu("s", "a"), both)
    carried = layer(copies([1]), torch.zeros(1).double())
    last = layer(copies([1], [0]), torch.zeros(2).double(), relu=False)
    with pytest.raises(CertificateError, match=r"y\[1\] needs s, which the level below does not hold"):
        check(graph, [carried, last], claim(graph, [whole("x", 1)], [whole("x", 1)], [whole("y", 2)]))


@pytest.mark.parametrize(("low", "shift", "right"), [(0.0, 0.0, True), (-1.0, 0.0, False), (0.0, -0.5, False)])
def test_what_passes_a_relu_as_it_is_is_plainly_not_negative(low: float, shift: float, right: bool) -> None:
    """An image that may be negative, and one less a half."""
    less = ir.Affine(name="t", inputs=("x",), scale=torch.ones(1).double(), shift=torch.full((1,), shift).double())
    graph = graphs.graph(graphs.source(1, low), less, graphs.conv("y", "t", 1, 1, 1))
    through = layer(copies([1]), torch.full((1,), shift).double())
    last = layer(*weights_of(graph, "y"), relu=False)
    certificate = claim(graph, [whole("x", 1)], [whole("t", 1)], [whole("y", 1)])
    if right:
        check(graph, [through, last], certificate)
        return
    with pytest.raises(CertificateError, match="t: goes through a ReLU as it is, though it may be negative"):
        check(graph, [through, last], certificate)


def test_what_is_never_negative() -> None:
    def affine(name: str, operand: str, scale: float, shift: float) -> ir.Affine:
        return ir.Affine(
            name=name, inputs=(operand,), scale=torch.full((4,), scale).double(), shift=torch.full((4,), shift).double()
        )

    def prelu(name: str, slope: float, operand: str = "c") -> ir.PRelu:
        return ir.PRelu(name=name, inputs=(operand,), slope=torch.full((4,), slope).double())

    positive = graphs.conv("p", "x", 4, 4, 1)
    positive = replace(positive, weight=positive.weight.abs(), bias=positive.bias.abs())
    ops = (
        graphs.source(4, 0.0), graphs.conv("c", "x", 4, 4), positive,
        replace(positive, name="less", bias=positive.bias - 9), replace(positive, name="of c", inputs=("c",)),
        graphs.relu("r", "c"), affine("up", "r", 2, 1),
        affine("down", "r", 2, -1), affine("turned", "r", -2, 1), affine("up c", "c", 2, 1), prelu("abs", -1.0),
        prelu("leaky", 0.1), prelu("leaky r", 0.1, "r"), ir.Clamp(name="0..1", inputs=("c",), low=0.0, high=1.0),
        ir.Clamp(name="-1..1", inputs=("c",), low=-1.0, high=1.0), ir.Maximum(name="more", inputs=("c", "r")),
        ir.Maximum(name="most", inputs=("c", "up c")), graphs.add("r + p", "r", "p"), graphs.add("r + c", "r", "c"),
        ir.Concat(name="r, c", inputs=("r", "c")), ir.Select(name="some r", inputs=("r",), index=(2, 0)),
        ir.PixelShuffle(name="large r", inputs=("r",), factor=2),
        ir.PixelShuffle(name="large c", inputs=("c",), factor=2),
    )  # fmt: skip
    graph = graphs.graph(*ops)
    sure = {"x", "p", "r", "up", "abs", "leaky r", "0..1", "more", "r + p", "some r", "large r"}
    assert forms.never_negative(graph) == sure
    signed = graphs.graph(graphs.source(4, -1.0), *ops[1:])
    assert forms.never_negative(signed) == sure - {"x", "p", "r + p"}


def test_a_constant_may_stand_on_the_centre_tap_of_ones_instead_of_in_the_bias() -> None:
    graph, teacher = centred()
    *first, (weight, bias) = layers_of(teacher)
    moved = weight.clone()
    moved[:, 2, 1, 1] += bias
    check(graph, *forged(LEVELS, *first, (moved, 0 * bias)))
    with pytest.raises(CertificateError, match="the teacher's is"):  # in both
        check(graph, *forged(LEVELS, *first, (moved, bias)))


def test_channels_of_a_finer_resolution_keep_their_phases_together() -> None:
    """y = scale * s + shift, where each channel of s is four of the layer's."""
    shuffled = ir.PixelShuffle(name="s", inputs=("x",), factor=2)
    scale, shift = torch.tensor([2.0, 3.0]).double(), torch.tensor([0.0, 1.0]).double()
    graph = graphs.graph(
        graphs.source(8, 0.0), shuffled, ir.Affine(name="y", inputs=("s",), scale=scale, shift=shift)
    )  # fmt: skip
    rows = torch.diag(scale.repeat_interleave(4))[:, :, None, None]
    last = Layer(rows, shift.repeat_interleave(4), False, 2)
    check(graph, [last], claim(graph, [whole("x", 8)], [whole("y", 8)]))


def test_pixels_are_unshuffled_the_way_back() -> None:
    """By 4 and half the way back, all in one layer at the resolution of the image."""
    shuffled = ir.PixelShuffle(name="s", inputs=("x",), factor=4)
    graph = graphs.graph(graphs.source(16, 0.0), shuffled, ir.PixelUnshuffle(name="y", inputs=("s",), factor=2))
    numbers = torch.arange(16.0)[None, :, None, None]
    order = F.pixel_unshuffle(F.pixel_shuffle(numbers, 4), 2).flatten().long()
    last = Layer(torch.eye(16).double()[order][:, :, None, None], torch.zeros(16).double(), False, 2)
    check(graph, [last], claim(graph, [whole("x", 16)], [whole("y", 16)]))


def part_of(tensor: str, position: int, sources: Sequence[str], rest: Sequence[str]) -> ir.Meaning:
    return ir.Meaning("value", (position,), tensor, (0,), 0.0, ir.Part(tensor, tuple(sources), tuple(rest)))


def three_channels(*sums: ir.Op) -> ir.Graph:
    """The channels a, b and c of an image, and sums of them."""
    picks = [ir.Select(name=name, inputs=("x",), index=(i,)) for i, name in enumerate("abc")]
    return graphs.graph(graphs.source(3, 0.0), *picks, *sums)


def test_of_parts_that_overlap_one_is_read() -> None:
    """a + b and b + c are held, and c; y = a + b + c has b once."""
    graph = three_channels(graphs.add("y", "a", "b", "c"))
    level = [part_of("y", 0, "ab", "c"), part_of("y", 1, "bc", "a"), ir.Meaning("value", (2,), "c", (0,))]
    first = layer(copies([1, 1, 0], [0, 1, 1], [0, 0, 1]), torch.zeros(3).double())
    last = layer(copies([1, 0, 1]), torch.zeros(1).double(), relu=False)
    check(graph, [first, last], claim(graph, [whole("x", 3)], level, [whole("y", 1)]))


def test_parts_of_one_division_are_read() -> None:
    """y = s + c where s = a + b + c: of its terms 2 c come from c divided into a, b, c, and c divided into s, c."""
    graph = three_channels(graphs.add("s", "a", "b", "c"), graphs.add("y", "s", "c"))
    level = [
        part_of("y", 0, "a", "bc"), part_of("y", 1, "c", "s"), ir.Meaning("value", (2,), "b", (0,)),
        ir.Meaning("value", (3,), "c", (0,)),
    ]  # fmt: skip
    first = layer(copies([1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]), torch.zeros(4).double())
    last = layer(copies([1, 0, 1, 2]), torch.zeros(1).double(), relu=False)
    check(graph, [first, last], claim(graph, [whole("x", 3)], level, [whole("y", 1)]))


@pytest.mark.parametrize(
    ("row", "bias", "right"),
    [(0.0, 0.0, True), (0.0, -1.0, True), (0.0, 1.0, False), (1.0, -1.0, False), (-1.0, 0.0, False)],
)
def test_only_what_is_always_zero_is_left_out(row: float, bias: float, right: bool) -> None:
    """The second channel of r, whose kernel has this number everywhere, with this bias."""
    graph = two_convolutions()
    weight, offset = (v.clone() for v in weights_of(graph, "a"))
    weight[1], offset[1] = row, bias
    a = replace(graph["a"], weight=weight, bias=offset)  # type: ignore[call-arg]
    graph = ir.Graph(tuple(a if op.name == "a" else op for op in graph), graph.output)
    first, last = layers_of_two(graph)
    layers = [
        replace(first, weight=first.weight[:1], bias=first.bias[:1]), replace(last, weight=last.weight[:, :1])
    ]  # fmt: skip
    certificate = claim(graph, [whole("x", 2)], [replace(whole("r", 2), positions=(0, -1))], [whole("b", 2)])
    if right:
        check(graph, layers, certificate)
        return
    with pytest.raises(CertificateError, match="a channel was left out that is not always zero"):
        check(graph, layers, certificate)


def test_a_shift_has_one_constant() -> None:
    """x + 1, and then x + 2: copied as it is, it is still x + 1; and each change could lose something."""
    graph = graphs.graph(graphs.source(1, 0.0), graphs.conv("y", "x", 1, 1, 1))
    weight, bias = weights_of(graph, "y")
    first = layer(copies([1]), torch.ones(1).double())

    def layers_to(constant: float) -> tuple[list[Layer], Certificate]:
        shifts = [replace(whole("x", 1), kind="shifted", constant=c) for c in (1.0, constant)]
        last = layer(weight, bias - constant * weight.sum(), relu=False)
        again = layer(copies([1]), torch.full((1,), constant - 1.0, dtype=torch.float64))
        return [first, again, last], claim(graph, [whole("x", 1)], shifts[:1], shifts[1:], [whole("y", 1)])

    check(graph, *layers_to(1.0))
    with pytest.raises(CertificateError, match="x: is shifted by 1 and by 2"):
        check(graph, *layers_to(2.0))


def test_a_channel_is_scaled_once() -> None:
    """One entry a channel, so that a certificate's entries are no more than there are channels."""
    graph = graphs.graph(graphs.source(1, 0.0), graphs.conv("y", "x", 1, 1, 1))
    weight, bias = weights_of(graph, "y")
    layers = [layer(copies([0.5]), torch.zeros(1).double()), layer(2 * weight, bias, relu=False)]
    levels = tuple((whole(tensor, 1),) for tensor in ("x", "x", "y"))
    certificate = claim(graph, *levels)
    check(graph, layers, replace(certificate, stages=(Stage(1, levels, ((1, 0, 1),)),)))
    with pytest.raises(CertificateError, match="scales channel 0 of level 1 twice"):
        check(graph, layers, replace(certificate, stages=(Stage(1, levels, ((1, 0, 1), (1, 0, 1))),)))


def test_a_level_is_no_wider_than_what_there_is_to_hold() -> None:
    """Channels of padding, each of which every form of every tensor would have a column for."""
    graph = graphs.graph(graphs.source(1, 0.0), graphs.conv("y", "x", 1, 1, 1))
    weight, bias = weights_of(graph, "y")

    def check_with(padding: int) -> None:
        nothing = ir.Meaning("zero", tuple(range(1, 1 + padding)))
        first = layer(torch.eye(1 + padding, 1).double()[:, :, None, None], torch.zeros(1 + padding).double())
        last = layer(torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, padding)), bias, relu=False)
        check(graph, [first, last], claim(graph, [whole("x", 1)], [whole("x", 1), nothing], [whole("y", 1)]))

    check_with(4000)
    with pytest.raises(CertificateError, match="is wider than all that the teacher computes, 5,001"):
        check_with(5000)


def test_cuts_of_a_kernel_are_found() -> None:
    """The most that is left of a kernel at a border, as trying every rectangle around the centre finds it."""
    generator = torch.Generator().manual_seed(0)
    for k in (1, 3, 5, 7):
        taps = torch.randn(4, k, k, dtype=torch.float64, generator=generator)
        bias = torch.randn(4, dtype=torch.float64, generator=generator)
        sides = [slice(i, j) for i in range(k // 2 + 1) for j in range(k // 2 + 1, k + 1)]
        cuts = [(taps[:, y, x].sum((1, 2)) + bias).abs() for y in sides for x in sides]
        most = torch.stack(cuts).amax(0)
        for ring in (0, 1, 60):  # of zeros: by trying, 60 would take hours
            found = rows._most_of_any_cut(F.pad(taps, (ring,) * 4), bias)
            assert torch.allclose(found, most, rtol=1e-12)
    assert torch.equal(rows._most_of_any_cut(torch.zeros(4, 5, 5, dtype=torch.float64), bias), bias.abs())


def test_cuts_of_a_large_kernel_take_no_memory() -> None:
    """By trying all rectangles, a kernel of 4 MiB takes gigabytes and minutes."""
    ones = torch.ones(1, 1023, 1023, dtype=torch.float64)
    assert float(rows._most_of_any_cut(ones, torch.zeros(1).double())) == 1023**2


def test_a_part_of_what_is_never_negative_may_be_negative() -> None:
    """y = relu(x) - relu(x - 1), between 0 and 1: its second term does not pass a ReLU."""
    graph = graphs.graph(graphs.source(1), ir.Clamp(name="y", inputs=("x",), low=0.0, high=1.0))
    relus = [ir.Meaning("value", (k,), f"y#{k}", (0,)) for k in range(2)]
    first = layer(copies([1], [1]), torch.tensor([0.0, -1.0]).double())
    second, last = layer(copies([1, 0], [0, -1]), 0 * first.bias), layer(copies([1, 1]), torch.zeros(1).double())
    levels = ([whole("x", 1)], relus, [relus[0], part_of("y", 1, ["y#1"], ["y#0"])], [whole("y", 1)])
    with pytest.raises(CertificateError, match="y: goes through a ReLU as it is, though it may be negative"):
        check(graph, [first, second, replace(last, relu=False)], claim(graph, *levels))


# -- random networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carry", ["auto", "split", "shift"])
def test_every_claim_is_true(carry: Carrying) -> None:
    kinds, parts = set(), 0
    for seed in NETWORKS:
        c = converted(seed, carry)
        assert c.true(c.layers, c.certificate), random_network(seed)
        meanings = [m for stage in c.certificate.stages for level in stage.levels for m in level]
        kinds |= {m.kind for m in meanings}
        parts += sum(m.part is not None for m in meanings)
    assert kinds >= {"value", "one"} | ({"shifted"} if carry == "shift" else {"positive", "negative"})
    assert parts > 0


# -- mutants of the layers -------------------------------------------------------------------------------------------

Mutant = Callable[[list[Layer], random.Random], list[Layer] | None]


def _nonzero(layers: list[Layer], rng: random.Random) -> tuple[int, tuple[int, ...]]:
    number = rng.choice([i for i, layer in enumerate(layers) if layer.weight.any()])
    return number, tuple(rng.choice(layers[number].weight.nonzero().tolist()))


def _with(layers: list[Layer], number: int, **changes: object) -> list[Layer]:
    return [replace(layer, **changes) if i == number else layer for i, layer in enumerate(layers)]  # type: ignore[arg-type]


def wrong_sign(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    if not any(layer.weight.any() for layer in layers):
        return None
    number, at = _nonzero(layers, rng)
    weight = layers[number].weight.clone()
    weight[at] *= -1
    return _with(layers, number, weight=weight)


def perturbed_weight(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    """By a thousandth, be it zero or not."""
    number = rng.randrange(len(layers))
    weight = layers[number].weight.clone()
    weight.flatten()[rng.randrange(weight.numel())] += 2**-10
    return _with(layers, number, weight=weight)


def perturbed_bias(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    number = rng.randrange(len(layers))
    bias = layers[number].bias.clone()
    bias[rng.randrange(len(bias))] += 2**-10
    return _with(layers, number, bias=bias)


def dropped_channel(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    number = rng.randrange(len(layers))
    weight, bias = layers[number].weight.clone(), layers[number].bias.clone()
    row = rng.randrange(len(bias))
    weight[row], bias[row] = 0, 0
    return _with(layers, number, weight=weight, bias=bias)


def swapped_rows(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    """Concatenated in another order than the next layer reads."""
    number = rng.randrange(len(layers))
    if len(layers[number].bias) < 2:
        return None
    order = list(range(len(layers[number].bias)))
    i, j = rng.sample(order, 2)
    order[i], order[j] = order[j], order[i]
    return _with(layers, number, weight=layers[number].weight[order], bias=layers[number].bias[order])


def wrong_source(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    """One row reads a channel of the level below in place of another: a skip taken from the wrong place."""
    number, at = _nonzero(layers, rng) if any(layer.weight.any() for layer in layers) else (0, (0, 0))
    weight = layers[number].weight.clone()
    if weight.shape[1] < 2:
        return None
    other = rng.choice([c for c in range(weight.shape[1]) if c != at[1]])
    weight[at[0], [at[1], other]] = weight[at[0], [other, at[1]]]
    return _with(layers, number, weight=weight)


def depth_first_shuffle(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    """The channels of the last layer as TensorFlow's depth_to_space (ONNX's DCR mode) wants them."""
    scale, last = layers[-1].shuffle, len(layers) - 1
    if scale == 1:
        return None
    order = torch.arange(len(layers[-1].bias)).reshape(-1, scale**2).T.flatten()
    return _with(layers, last, weight=layers[-1].weight[order], bias=layers[-1].bias[order])


def missing_relu(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    return _with(layers, rng.randrange(len(layers) - 1), relu=False) if len(layers) > 1 else None


def missing_layer(layers: list[Layer], rng: random.Random) -> list[Layer] | None:
    """A carry one layer too short, where the widths allow it."""
    fitting = [i for i, layer in enumerate(layers[:-1]) if layer.weight.shape[0] == layer.weight.shape[1]]
    return [layer for i, layer in enumerate(layers) if i != rng.choice(fitting)] if fitting else None


MUTANTS: tuple[Mutant, ...] = (
    wrong_sign,
    perturbed_weight,
    perturbed_bias,
    dropped_channel,
    swapped_rows,
    wrong_source,
    depth_first_shuffle,
    missing_relu,
    missing_layer,
)


def count_refused(mutant: Mutant, carry: Carrying) -> tuple[int, int]:
    """How many mutants compute something else, all of them refused, and how many turn out to be the teacher."""
    wrong = same = 0
    for seed in NETWORKS:
        c = converted(seed, carry)
        for number in range(3):
            layers = mutant(list(c.layers), random.Random(seed + number))
            if layers is None:
                continue
            if c.changed(layers):
                wrong += 1
                assert c.refused(layers, c.certificate), random_network(seed)
            else:
                same += 1
    return wrong, same


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("carry", ["auto", "shift"])
def test_every_wrong_layer_is_refused(mutant: Mutant, carry: Carrying) -> None:
    wrong, same = count_refused(mutant, carry)
    assert wrong >= 20, f"{wrong} of {wrong + same} mutants are wrong"


def the_one(c: Converted) -> list[tuple[int, int]]:
    """(level, channel) of every channel of ones."""
    levels = enumerate(c.certificate.stages[0].levels)
    return [(i, m.positions[0]) for i, level in levels for m in level if m.kind == "one"]


def test_a_bias_folded_as_if_there_were_no_border_is_refused() -> None:
    """MemSR's Eq. 3 left out: the constant's taps all go to the bias, right inside the image, wrong at its border."""
    found = 0
    for seed in NETWORKS:
        c = converted(seed)
        for level, channel in the_one(c):
            reader = c.layers[level]  # layer `level` reads level `level`, counted from 0
            weight, bias = reader.weight.clone(), reader.bias + reader.weight[:, channel].sum(dim=(1, 2))
            weight[:, channel] = 0
            layers = _with(c.layers, level, weight=weight, bias=bias)
            if c.changed(layers):
                found += 1
                assert c.refused(layers, c.certificate), random_network(seed)
    assert found >= 5


def test_a_lost_channel_of_ones_is_refused() -> None:
    found = 0
    for seed in NETWORKS:
        c = converted(seed)
        for level, channel in the_one(c):
            bias = c.layers[level - 1].bias.clone()
            bias[channel] = 0
            layers = _with(c.layers, level - 1, bias=bias)
            if c.changed(layers):
                found += 1
                assert c.refused(layers, c.certificate), random_network(seed)
    assert found >= 5


# -- forgeries of the certificate ------------------------------------------------------------------------------------

Forgery = Callable[[ir.Meaning, random.Random], ir.Meaning]


def swapped_channels(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    channels = list(m.channels)
    rng.shuffle(channels)
    return replace(m, channels=tuple(channels))


def swapped_positions(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    positions = list(m.positions)
    rng.shuffle(positions)
    return replace(m, positions=tuple(positions))


def moved_positions(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    return replace(m, positions=tuple(p + rng.choice([-1, 1]) for p in m.positions))


def left_out(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    return replace(m, positions=(-1, *m.positions[1:]))


def other_kind(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    kind = rng.choice([k for k in ("value", "positive", "negative") if k != m.kind])
    return replace(m, kind=kind, constant=0.0)  # type: ignore[arg-type]


def other_constant(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    return replace(m, kind="shifted", constant=rng.choice([m.constant / 2, 2 * m.constant, 1.0]))


def anything_else(m: ir.Meaning, rng: random.Random) -> ir.Meaning:
    return ir.Meaning(rng.choice(["one", "zero"]), m.positions)


FORGERIES: tuple[Forgery, ...] = (
    swapped_channels,
    swapped_positions,
    moved_positions,
    left_out,
    other_kind,
    other_constant,
    anything_else,
)


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("carry", ["auto", "shift"])
def test_every_false_claim_is_refused(forgery: Forgery, carry: Carrying) -> None:
    """One meaning changed.  If the oracle finds it false on some image, the checker must refuse it."""
    false = same = 0
    for seed in NETWORKS:
        c = converted(seed, carry)
        levels = c.certificate.stages[0].levels
        for number in range(4):
            rng = random.Random(seed * 7 + number)
            i = rng.randrange(1, len(levels))
            meanings = list(levels[i])
            j = rng.randrange(len(meanings))
            meanings[j] = forgery(meanings[j], rng)
            forged = with_level(c.certificate, i, meanings)
            if c.true(c.layers, forged):
                same += 1
                continue
            false += 1
            assert c.refused(c.layers, forged), f"{random_network(seed)}\n{meanings[j]}"
    assert false >= 40, f"{false} of {false + same} claims are false"


def test_wrong_sources_of_a_part_are_refused() -> None:
    false = 0
    for seed in NETWORKS:
        c = converted(seed)
        for i, level in enumerate(c.certificate.stages[0].levels):
            for j, m in enumerate(level):
                if m.part is None:
                    continue
                sources, rest = m.part.sources, m.part.rest
                for part in (
                    replace(m.part, sources=rest, rest=sources),
                    replace(m.part, sources=(*sources, rest[0])),
                    replace(m.part, sources=(*sources, rest[0]), rest=rest[1:]),
                    replace(m.part, sources=sources[1:]),
                    None,
                ):
                    forged = with_level(c.certificate, i, (*level[:j], replace(m, part=part), *level[j + 1 :]))
                    if not c.true(c.layers, forged):
                        false += 1
                        assert c.refused(c.layers, forged), f"{random_network(seed)}\n{part}"
    assert false >= 10


def with_level(certificate: Certificate, i: int, meanings: Sequence[ir.Meaning]) -> Certificate:
    stage = certificate.stages[0]
    levels = (*stage.levels[:i], tuple(meanings), *stage.levels[i + 1 :])
    return replace(certificate, stages=(replace(stage, levels=levels),))


def test_a_missing_level_or_stage_is_refused() -> None:
    c = small_edsr()
    stage = c.certificate.stages[0]
    for i in range(len(stage.levels)):
        shorter = replace(stage, levels=stage.levels[:i] + stage.levels[i + 1 :])
        assert c.refused(c.layers, replace(c.certificate, stages=(shorter,)))
    for levels in ((), stage.levels[:1], (stage.levels[0], ())):
        assert c.refused(c.layers, replace(c.certificate, stages=(replace(stage, levels=levels),)))
    assert c.refused(c.layers, replace(c.certificate, stages=()))
    assert c.refused(c.layers, replace(c.certificate, stages=(stage, stage)))
    assert c.refused(c.layers, replace(c.certificate, stages=(replace(stage, base=2),)))
    assert c.refused(c.layers[:-1], c.certificate) and c.refused([*c.layers, c.layers[-1]], c.certificate)


@pytest.mark.parametrize("times", [1, 40])
def test_a_claim_is_made_once(times: int) -> None:
    """Each time it was proved anew: one of all channels, 40 times, took twelve seconds in place of two."""
    c = small_edsr()
    stage = c.certificate.stages[0]
    again = replace(
        stage.levels[2][0], positions=stage.levels[2][0].positions[:1], channels=stage.levels[2][0].channels[:1]
    )
    for repeated in (stage.levels[2][0], again):
        levels = (*stage.levels[:2], (*stage.levels[2], *times * (repeated,)), *stage.levels[3:])
        with pytest.raises(CertificateError, match="is claimed twice of one channel"):
            check(c.graph, c.layers, replace(c.certificate, stages=(replace(stage, levels=levels),)))


def test_claims_are_counted_before_they_are_looked_at() -> None:
    """A thousand times the same."""
    c = small_edsr()
    stage = c.certificate.stages[0]
    levels = (*stage.levels[:2], (*stage.levels[2], *1000 * stage.levels[2][:1]), *stage.levels[3:])
    with pytest.raises(CertificateError, match=r"makes 100. claims about"):
        check(c.graph, c.layers, replace(c.certificate, stages=(replace(stage, levels=levels),)))


def test_a_live_channel_left_out_is_refused() -> None:
    """Taken from the layers as well, so that all sizes fit."""
    found = 0
    for seed in NETWORKS:
        c = converted(seed)
        for i in range(1, len(c.layers)):
            made, reader = c.layers[i - 1], c.layers[i]
            for channel in range(len(made.bias)) if len(made.bias) > 1 else ():
                kept = [p for p in range(len(made.bias)) if p != channel]
                layers = _with(c.layers, i - 1, weight=made.weight[kept], bias=made.bias[kept])
                layers = _with(layers, i, weight=reader.weight[:, kept])
                to = {p: kept.index(p) for p in kept} | {channel: -1}
                meanings = [m.renumber(to) for m in c.certificate.stages[0].levels[i]]
                if c.changed(layers):
                    found += 1
                    assert c.refused(layers, with_level(c.certificate, i, meanings)), random_network(seed)
    assert found >= 100


def test_a_channel_may_not_hide_behind_a_zero_that_was_left_out() -> None:
    """Position -1 is no channel; taken for the last one it would make the checker blind for its weights."""
    c = small_edsr()
    levels = c.certificate.stages[0].levels
    blind = with_level(c.certificate, 1, (*levels[1], ir.Meaning("zero", (-1,))))
    weight = c.layers[1].weight.clone()
    weight[:, -1] = 5
    wrong = _with(c.layers, 1, weight=weight)
    assert c.changed(wrong) and c.refused(wrong, blind)
    assert not c.refused(c.layers, blind)  # a zero that is left out is a claim that is true


def identity_network() -> tuple[ir.Graph, nn.Module]:
    """y = relu(conv(x)), the convolution the identity."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1
    last = nn.Conv2d(1, 1, 1)
    nn.init.ones_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    teacher = nn.Sequential(conv, nn.Identity(), last).double()
    return trace(teacher, input_range=(0.0, 1.0)).graph, teacher


def hand_made(
    meanings: Sequence[ir.Meaning], rows: Sequence[float], columns: Sequence[float]
) -> tuple[ir.Graph, list[Layer], Certificate]:
    """y = conv(x) = x by two 1x1 layers with these weights, the level between them said to mean this."""
    graph, _ = identity_network()
    first = Layer(torch.tensor(rows).double()[:, None, None, None], torch.zeros(len(rows)).double(), True, 1)
    second = Layer(torch.tensor(columns).double()[None, :, None, None], torch.zeros(1).double(), False, 1)
    start, end = ir.Meaning("value", (0,), "input", (0,)), ir.Meaning("value", (0,), graph.output, (0,))
    stage = Stage(1, ((start,), tuple(meanings), (end,)))
    return graph, [first, second], Certificate("", "", (0.0, 1.0), (stage,))


def test_what_is_held_twice_is_read_once() -> None:
    once = ir.Meaning("value", (0,), "input", (0,))
    again = ir.Meaning("value", (1,), "input", (0,))
    check(*hand_made([once, again], [1, 1], [1, 0]))  # twice the same: either may be read
    for columns in ([1, 1], [0.5, 1]):
        with pytest.raises(CertificateError):
            check(*hand_made([once, again], [1, 1], columns))
    with pytest.raises(CertificateError, match="has a channel twice"):
        check(*hand_made([replace(once, positions=(0, 1), channels=(0, 0))], [1, 1], [1, 1]))
    half = ir.Meaning("positive", (0,), "input", (0,))
    for order in ([half, again], [again, half]):
        with pytest.raises(CertificateError):
            check(*hand_made(order, [1, 1], [1, 1]))


@pytest.mark.parametrize(
    ("meaning", "message"),
    [
        (ir.Meaning("value", (), "input", ()), "does not say which channel is where"),
        (ir.Meaning("value", (0,), "input", ()), "does not say which channel is where"),
        (ir.Meaning("one", ()), "does not say which channel is where"),
        (ir.Meaning("value", (0,), "", ()), "means 'value'"),
        (ir.Meaning("zero", (0,), "input", (0,)), "means 'zero'"),
        (ir.Meaning("zero", (0, 0)), "has a channel twice"),
        (ir.Meaning("one", (0, 0)), "has a channel twice"),
        (ir.Meaning("value", (0,), "nowhere", (0,)), "is not a tensor of the teacher"),
        (ir.Meaning("value", (0,), "input", (1,)), "has no such channel"),
        (ir.Meaning("value", (0,), "input", (-1,)), "has no such channel"),
        (ir.Meaning("value", (0,), "input#0", (0,)), "needs input#0, which the level below does not hold"),
        (ir.Meaning("shifted", (0,), "input", (0,), 0.0), "is shifted by 0.0, which no value allows"),
        (ir.Meaning("shifted", (0,), "input", (0,), -1.0), "is shifted by -1.0"),
        (ir.Meaning("shifted", (0,), "input", (0,), math.nan), "is shifted by nan"),
        (ir.Meaning("value", (0,), "input", (0,), 0.0, ir.Part("0", ("input",), ())), "is a part of another tensor"),
        (ir.Meaning("value", (0,), "0", (0,), 0.0, ir.Part("0", ("input",), ("input",))), "overlaps the rest of it"),
        (ir.Meaning("value", (0,), "0", (0,), 0.0, ir.Part("0", ("x",), ())), "part of something that is not a tensor"),
        (ir.Meaning("value", (1,), "input", (0,)), "do not fit the certificate"),
        (ir.Meaning("value", (0, -2), "input", (0, 0)), "has position -2"),
        (ir.Meaning("value", (0.5,), "input", (0,)), "does not say which channel is where"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused(meaning: ir.Meaning, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        check(*hand_made([meaning], [1], [1]))


@pytest.mark.parametrize("name", ["c#0", "c#", "#", ""])
def test_no_tensor_has_a_name_that_only_a_relu_of_an_activation_may_have(name: str) -> None:
    clamp = ir.Clamp(name="c", inputs=("x",), low=-1.0, high=1.0)
    graph = graphs.graph(graphs.source(1), clamp, graphs.conv(name, "c", 1, 1, 1))
    with pytest.raises(CertificateError, match="a name that only an activation's ReLU may have"):
        check(graph, [], claim(graph, [whole("x", 1)], [whole(name, 1)]))


def test_a_value_that_may_be_negative_may_not_pass_a_relu_as_it_is() -> None:
    c = small_edsr()
    level = c.certificate.stages[0].levels[1]
    split = next(m for m in level if m.kind == "positive")
    assert not c.true(
        c.layers, with_level(c.certificate, 1, [replace(m, kind="value") if m is split else m for m in level])
    )
    with pytest.raises(CertificateError, match="goes through a ReLU as it is, though it may be negative"):
        check(
            c.graph,
            c.layers,
            with_level(c.certificate, 1, [replace(m, kind="value") if m is split else m for m in level]),
        )


def test_layers_that_are_no_plain_layers_are_refused() -> None:
    graph, layers, certificate = hand_made([ir.Meaning("value", (0,), "input", (0,))], [1], [1])
    check(graph, layers, certificate)
    even = replace(layers[0], weight=F.pad(layers[0].weight, (0, 1, 0, 1)))
    flat = replace(layers[0], weight=F.pad(layers[0].weight, (1, 1, 0, 0)))
    short = replace(layers[0], bias=layers[0].bias[:0])
    endless = replace(layers[0], bias=layers[0].bias + math.nan)
    for wrong in (
        even,
        flat,
        short,
        endless,
        replace(layers[0], shuffle=2),
        replace(layers[0], weight=layers[0].weight[0]),
    ):
        with pytest.raises(CertificateError):
            check(graph, [wrong, layers[1]], certificate)


# -- layers and certificate forged together --------------------------------------------------------------------------

INPUT = ir.Meaning("value", (0,), "input", (0,))
BOTH = ir.Meaning("value", (0, 1), "act", (0, 1))


class Centred(nn.Module):
    """y = tail(relu(head(x - 1/2))): what the checker has to know of borders, in three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.act, self.tail = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)
        generator = torch.Generator().manual_seed(1)
        for p in self.parameters():
            p.data = torch.randint(-4, 5, p.shape, generator=generator) / 4

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tail(self.act(self.head(x - 0.5)))
        return y


def forged(
    levels: Sequence[Sequence[ir.Meaning]], *layers: tuple[Tensor, Tensor]
) -> tuple[Sequence[Layer], Certificate]:
    """Layers and certificate, both as the forger likes them, for `Centred`."""
    last = len(layers) - 1
    plain = [Layer(weight, bias, i != last, 1) for i, (weight, bias) in enumerate(layers)]
    ends = ((INPUT,), *(tuple(level) for level in levels), (ir.Meaning("value", (0,), "tail", (0,)),))
    return plain, Certificate("", "", (0.0, 1.0), (Stage(1, ends),))


def centred() -> tuple[ir.Graph, Centred]:
    teacher = Centred().double()
    return trace(teacher, input_range=(0.0, 1.0)).graph, teacher


def with_one(conv: nn.Conv2d, constant: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias of conv(z + constant) behind a level that holds z and `one`; `constant` is one for each z."""
    weight, bias = conv.weight.detach(), conv.bias.detach().clone()  # type: ignore[union-attr]
    taps = (weight * constant[:, None, None]).sum(1, keepdim=True)
    bias += taps[:, 0, 1, 1]
    taps[:, :, 1, 1] = 0
    return torch.cat([weight, taps], 1), bias


def first_layer(of: float = 1.0) -> tuple[Tensor, Tensor]:
    """`input` (or `of` times it) and `one`."""
    return torch.tensor([of, 0.0]).double()[:, None, None, None], torch.tensor([0.0, 1.0]).double()


def second_level(teacher: Centred) -> tuple[Tensor, Tensor]:
    """`act`, and `one` in a third channel."""
    weight, bias = with_one(teacher.head, torch.tensor([-0.5]).double())
    return torch.cat([weight, 0 * weight[:1]]), torch.cat([bias, torch.ones(1).double()])


def layers_of(teacher: Centred) -> list[tuple[Tensor, Tensor]]:
    return [first_layer(), second_level(teacher), with_one(teacher.tail, torch.zeros(2).double())]


LEVELS = ((INPUT, ir.Meaning("one", (1,))), (BOTH, ir.Meaning("one", (2,))))


def test_a_constant_that_no_relu_adds_is_refused() -> None:
    """ "Holds relu(head), which is act less 7": the reader would take 7 off what has never been added."""
    graph, teacher = centred()
    check(graph, *forged(LEVELS, *layers_of(teacher)))
    reader = with_one(teacher.tail, torch.full((2,), -7.0).double())
    for kind in ("value", "positive"):
        meaning = replace(BOTH, kind=kind, constant=7.0)
        layers, certificate = forged((LEVELS[0], (meaning, LEVELS[1][1])), *layers_of(teacher)[:2], reader)
        with pytest.raises(CertificateError, match=f"means '{kind}' and has a constant"):
            check(graph, layers, certificate)
    text = forged(LEVELS)[1].to_json().replace('"tensor":"act"', '"constant":7.0,"tensor":"act"')
    with pytest.raises(CertificateError, match="has a constant"):
        Certificate.from_json(text)


def test_parts_may_not_cancel_what_is_not_known() -> None:
    """Of head(x - 1/2) nothing comes from x: true only if head(0 - 1/2), unknown without `one`, were the same."""
    graph, teacher = centred()
    part = ir.Part("head", ("input",), ())
    halves = [ir.Meaning(kind, (-1, -1), "head", (0, 1), 0.0, part) for kind in ("positive", "negative")]
    weight, bias = with_one(teacher.head, torch.tensor([-0.5]).double())
    layers, certificate = forged(
        ((*halves, ir.Meaning("one", (0,))), (BOTH,)),
        (torch.zeros(1, 1, 1, 1).double(), torch.ones(1).double()),
        (weight[:, 1:], bias),
        (teacher.tail.weight.detach(), teacher.tail.bias.detach()),  # type: ignore[union-attr]
    )
    with pytest.raises(CertificateError, match=r"head\[0\] needs head, which the level below does not hold"):
        check(graph, layers, certificate)


@pytest.mark.parametrize("wrong", [8.0, math.inf, math.nan])
def test_a_large_bias_and_tap_do_not_widen_what_rounding_is_allowed(wrong: float) -> None:
    graph, teacher = centred()
    layers, certificate = forged(LEVELS, *((w.float(), b.float()) for w, b in layers_of(teacher)))
    check(graph, layers, certificate)
    weight, bias = layers[2].weight.clone(), torch.full_like(layers[2].bias, 1e8 + wrong)
    weight[:, 2, 1, 1] = -1e8
    with pytest.raises(CertificateError):
        check(graph, _with(list(layers), 2, weight=weight, bias=bias), certificate)


@pytest.mark.parametrize("endless", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("kind", ["one", "zero"])
def test_an_endless_weight_is_refused_on_any_column(kind: str, endless: float) -> None:
    graph, teacher = centred()
    levels = (LEVELS[0], (BOTH, ir.Meaning(kind, (2,))))  # type: ignore[arg-type]
    rows, (weight, bias) = layers_of(teacher)[:2], with_one(teacher.tail, torch.zeros(2).double())
    rows[1][1][2] = float(kind == "one")
    check(graph, *forged(levels, *rows, (weight, bias)))
    for spot in ((0, 2, 1, 1), (0, 2, 0, 0)):
        worse = weight.clone()
        worse[spot] = endless
        for wrong_bias in (bias, bias - endless):
            with pytest.raises(CertificateError, match="NaN or infinite"):
                check(graph, *forged(levels, *rows, (worse, wrong_bias)))


def test_endless_weights_of_the_teacher_are_refused() -> None:
    """Within eps / 2 of infinity is everything."""
    for at in ("weight", "bias"):
        graph, teacher = centred()
        tail = replace(graph["tail"], **{at: torch.full_like(getattr(graph["tail"], at), math.inf)})  # type: ignore[arg-type]
        graph = ir.Graph(tuple(tail if op.name == "tail" else op for op in graph), graph.output)
        with pytest.raises(CertificateError, match="NaN, infinite or too large"):
            check(graph, *forged(LEVELS, *layers_of(teacher)))


def test_a_large_row_does_not_widen_what_is_allowed_in_another() -> None:
    graph, teacher = centred()
    head = graph["head"]
    assert isinstance(head, ir.Conv2d)
    huge = torch.tensor([1.0, 2.0**40])
    head = replace(head, weight=head.weight * huge[:, None, None, None], bias=head.bias * huge)
    graph = ir.Graph(tuple(head if op.name == "head" else op for op in graph), graph.output)
    rows = layers_of(teacher)
    scale = torch.tensor([1.0, 2.0**40, 1.0]).double()
    rows[1] = (rows[1][0] * scale[:, None, None, None], rows[1][1] * scale)
    check(graph, *forged(LEVELS, *rows))
    rows[1][0][0, 0, 1, 1] += 1e-3
    with pytest.raises(CertificateError, match="the teacher's is"):
        check(graph, *forged(LEVELS, *rows))


@pytest.mark.parametrize("wrong", [(-1.0, 1.0), (0.0, 2.0), (-math.inf, math.inf), (0.0, math.nan)])
def test_another_range_of_images_is_refused(wrong: tuple[float, float]) -> None:
    graph, teacher = centred()
    layers, certificate = forged(LEVELS, *layers_of(teacher))
    with pytest.raises(CertificateError, match="is for images within"):
        check(graph, layers, replace(certificate, input_range=wrong))


def test_a_certificate_that_claims_nothing_is_refused() -> None:
    graph, teacher = centred()
    layers, certificate = forged(LEVELS, *layers_of(teacher))
    for given in ((), layers):
        with pytest.raises(CertificateError, match="no stages"):
            check(graph, given, replace(certificate, stages=()))


def test_what_is_malformed_is_refused_and_raises_nothing_else() -> None:
    graph, teacher = centred()
    layers, certificate = forged(LEVELS, *layers_of(teacher))
    always = Layer(torch.zeros(1, 1, 1, 1).double(), torch.ones(1).double(), False, 1)
    ends = (ir.Meaning("one", (0,)), ir.Meaning("zero", (0,)), replace(INPUT, tensor="act#0"))
    for end in ends:  # a stage that ends with no tensor of the teacher
        one = always if end.kind == "one" else replace(always, bias=0 * always.bias)
        with pytest.raises(CertificateError):
            check(graph, [one], replace(certificate, stages=(Stage(1, ((INPUT,), (end,))),)))
    with pytest.raises(CertificateError):
        check(graph, [always], replace(certificate, stages=(Stage(0, ((INPUT,), (INPUT,))),)))
    for number in (0, -1):  # a factor that no pixel shuffle has
        with pytest.raises(CertificateError):
            check(graph, _with(list(layers), 2, shuffle=number), certificate)
    with pytest.raises(CertificateError, match="malformed"):
        check(graph, _with(list(layers), 0, weight=layers[0].weight[0, 0, 0]), certificate)
    part = replace(INPUT, tensor="head", part=ir.Part("head", (1,), ()))  # type: ignore[arg-type]
    with pytest.raises(CertificateError, match="malformed"):
        check(graph, layers, with_level(certificate, 1, [part]))


def test_too_little_memory_is_no_fault_of_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 34359738368 bytes.")

    graph, teacher = centred()
    layers, certificate = forged(LEVELS, *layers_of(teacher))
    monkeypatch.setattr(checker, "_check", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        check(graph, layers, certificate)


@pytest.mark.parametrize("module", [checker, forms, rows])
def test_the_checker_imports_nothing_that_it_checks(module: ModuleType) -> None:
    """Its proof is worth something because no pass, schedule, kernel or name of the compiler has a part in it."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in imported if "memsr" in name or "passes" in name}
    own = {name for name in ours if name.startswith(("memsr_compiler.proof.forms.", "memsr_compiler.proof.rows."))}
    assert ours - own <= {
        "memsr_compiler.ir",
        "memsr_compiler.proof.certificate.Certificate",
        "memsr_compiler.proof.certificate.Stage",
        "memsr_compiler.errors.CertificateError",
        "memsr_compiler.errors.UnsupportedModel",
        "memsr_compiler.errors.first_line",
        "memsr_compiler.errors.tells_of_memory",
    }


def test_a_sum_of_sums_without_end_is_no_mistake_of_the_certificate() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = x
            for _ in range(600):
                y = y + x
            result: Tensor = self.conv(y)
            return result

    with pytest.raises(UnsupportedModel, match="more sums and scalings one after another"):
        compile_to_plain(Sums())
