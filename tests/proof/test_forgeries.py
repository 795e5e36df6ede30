"""Networks that are not their teacher, with certificates that say they are, every hash as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.command_line import Run
from helpers.forged import Draft, DraftLayer, furthest, must_be_refused, reading_once
from torch import Tensor, nn

from memsr_compiler import PlainNet, check_certificate, check_equivalence, compile_to_plain, read_teacher, save_plain
from memsr_compiler.errors import CertificateError, MemsrError, UnsupportedModel
from memsr_compiler.ir import Meaning, Part
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.torch_helpers import enlarge

Forge = Callable[[Draft], None]
HIDDEN = "body.0.body.0"  # its ReLU is body.0.body.1, and body.0.body.2 reads that


@dataclass(frozen=True)
class Case:
    """A teacher, in its file, and its honest plain network, carried in two halves."""

    network: EDSR
    teacher: Path
    honest: PlainNet

    def draft(self) -> Draft:
        return Draft(self.network, self.honest)


def network(dead_tap: float = 0.0) -> EDSR:
    """A small EDSR, whose last hidden unit is dead on images from 0 to 1, and is read with this weight."""
    torch.manual_seed(0)
    made = EDSR(scale=2, blocks=1, channels=4).eval()
    before, after = made.get_submodule("body.0.body.0"), made.get_submodule("body.0.body.2")
    with torch.no_grad():
        before.bias[-1] = -10.0  # type: ignore[operator]
        if dead_tap:
            after.weight[:, -1] = dead_tap  # type: ignore[operator]
    return made


@pytest.fixture(scope="module", autouse=True)
def _reading_once() -> Iterator[None]:
    with reading_once():
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made, path = network(), tmp_path_factory.mktemp("case") / "teacher.pt"
    torch.save(made.state_dict(), path)
    return Case(made, path, compile_to_plain(read_teacher(path, probe=False)))


@pytest.fixture(scope="module")
def shifted(case: Case) -> Case:
    """The same, raised by C = 8."""
    return replace(case, honest=compile_to_plain(read_teacher(case.teacher, probe=False), carry="shift", constant=8.0))


def test_the_honest_networks_pass(run: Run, case: Case, shifted: Case, tmp_path: Path) -> None:
    for honest in (case.draft().net(), shifted.draft().net()):
        check_certificate(read_teacher(case.teacher, probe=False), honest)
        save_plain(honest, tmp_path / "honest.safetensors")
        status, out, err = run("verify", case.teacher, tmp_path / "honest.safetensors", "--no-probe")
        assert status == 0 and "equivalent" in out, err


# -- the two of the issue --------------------------------------------------------------------------------------------


def test_a_channel_that_nobody_reads_does_not_free_the_biases(run: Run, case: Case, tmp_path: Path) -> None:
    """2.6 more in a bias, a channel beside those that it reads being raised by 1e15."""
    draft = case.draft()
    made, reader, unit = draft.layers[1], draft.layers[2], draft.meaning(2, "value").positions[0]
    draft.add_channel(2, Meaning("shifted", (0,), HIDDEN, (0,), 1e15), made.weight[unit], 1e15)
    row = draft.meaning(3, "positive", "body.0.body.2").positions[0]
    reader.bias[row] += 2.6
    assert f"bias {row}" in must_be_refused(run, case.teacher, draft.net(), tmp_path)


def test_a_large_tap_does_not_free_those_beside_it(run: Run, tmp_path: Path) -> None:
    """All taps but those on a dead channel, 1e13, change their sign."""
    made = network(dead_tap=1e13)
    torch.save(made.state_dict(), tmp_path / "teacher.pt")
    draft = Draft(made, compile_to_plain(read_teacher(tmp_path / "teacher.pt", probe=False)))
    reader, dead = draft.layers[2].weight, draft.meaning(2, "value").positions[-1]
    rows = [p for kind in ("positive", "negative") for p in draft.meaning(3, kind, "body.0.body.2").positions]
    kept = reader[rows, dead].clone()
    assert kept.abs().max() > 1e12
    reader[rows] *= -1
    reader[rows, dead] = kept
    assert "the teacher's is" in must_be_refused(run, tmp_path / "teacher.pt", draft.net(), tmp_path)


# -- numbers ---------------------------------------------------------------------------------------------------------


def constants_that_cancel(d: Draft) -> None:
    """1e10 in the bias and -1e10 from the channel of ones: 0 in float64, and at run time whatever is left."""
    reader, one = d.layers[1], d.meaning(1, "one").positions[0]
    reader.bias[0] += 1e10
    reader.weight[0, one, 1, 1] -= 1e10


def constants_in_halves(d: Draft) -> None:
    """Half of a bias on the channel of ones: harmless, but no number is the exact one."""
    reader, one = d.layers[1], d.meaning(1, "one").positions[0]
    reader.bias[5] /= 2
    reader.weight[5, one, 1, 1] = reader.bias[5]


def taps_on_padding(d: Draft) -> None:
    """Weights on channels that are always zero, unless somebody fills them later."""
    d.layers[2].weight[:, d.meaning(2, "zero").positions[0]] = 5


def another_border(d: Draft) -> None:
    """A corner tap on the channel of ones, made up for in the bias: the same inside an image."""
    reader, one = d.layers[1], d.meaning(1, "one").positions[0]
    reader.weight[5, one, 0, 0] += 0.25
    reader.bias[5] -= 0.25


def no_border(d: Draft) -> None:
    """MemSR's Eq. 3 left out: all that the channel of ones gives, as a bias."""
    reader, one = d.layers[1], d.meaning(1, "one").positions[0]
    reader.bias += reader.weight[:, one].sum((1, 2))
    reader.weight[:, one] = 0


def not_a_number(d: Draft) -> None:
    d.layers[1].weight[0, 0, 0, 0] = float("nan")


def endless(d: Draft) -> None:
    d.layers[1].bias[0] = float("inf")


def denormal_weights(d: Draft) -> None:
    """Weights that some engines take for zero, and some do not."""
    d.layers[1].weight[8:10] *= 1e-40


def denormal_biases(d: Draft) -> None:
    d.layers[3].bias[:] = 1e-40


def next_numbers(d: Draft) -> None:
    """Each weight of a layer as the next number of float32."""
    d.layers[1].weight = torch.nextafter(d.layers[1].weight, torch.tensor(2.0))


def rounded_to_float16(d: Draft) -> None:
    """A network of float16 that says it is one of float32."""
    for layer in d.layers:
        layer.weight, layer.bias = layer.weight.half().float(), layer.bias.half().float()


def noise_in_float64(d: Draft) -> None:
    """Numbers of float64, each a billionth off."""
    for layer in d.layers:
        layer.weight, layer.bias = layer.weight.double() * (1 + 1e-9), layer.bias.double()


def turned_signs(d: Draft) -> None:
    d.layers[3].weight *= -1


def a_row_of_nothing(d: Draft) -> None:
    d.layers[1].weight[9], d.layers[1].bias[9] = 0, 0


def an_impure_one(d: Draft) -> None:
    """The channel of ones reads a little of the image."""
    d.layers[0].weight[d.meaning(1, "one").positions[0], 0, 1, 1] = 0.01


def nearly_one(d: Draft) -> None:
    d.layers[0].bias[d.meaning(1, "one").positions[0]] = 0.999


# -- layers ----------------------------------------------------------------------------------------------------------


def a_larger_kernel(d: Draft) -> None:
    """A ring of small taps around a 3x3 kernel."""
    d.layers[3].weight = torch.nn.functional.pad(d.layers[3].weight, (1,) * 4, value=1e-3)


def a_smaller_kernel(d: Draft) -> None:
    d.layers[2].weight = d.layers[2].weight[..., 1:2, 1:2].clone()


def another_order_of_pixels(d: Draft) -> None:
    """Sub-pixels as TensorFlow orders them."""
    order = torch.arange(12).reshape(3, 2, 2).transpose(1, 2).flatten()
    d.layers[-1].weight, d.layers[-1].bias = d.layers[-1].weight[order], d.layers[-1].bias[order]


def the_output_permuted(d: Draft) -> None:
    """Colours the other way round, and the certificate says so."""
    order = torch.arange(12).reshape(3, 4).flip(0).flatten()
    d.layers[-1].weight, d.layers[-1].bias = d.layers[-1].weight[order], d.layers[-1].bias[order]
    d.levels[-1] = [replace(d.levels[-1][0], channels=tuple(order.tolist()))]


def a_missing_relu(d: Draft) -> None:
    d.layers[1].relu = False


def a_relu_at_the_end(d: Draft) -> None:
    d.layers[-1].relu = True


def shuffled_before_the_end(d: Draft) -> None:
    """The pixel shuffle one layer early, its reader as wide as it then has to be."""
    d.layers[-1].shuffle, d.layers[-2].shuffle = 1, 2
    d.layers[-1].weight, d.layers[-1].bias = d.layers[-1].weight[:3, :8], d.layers[-1].bias[:3]


def a_layer_twice(d: Draft) -> None:
    """What is carried is carried once more, by the same numbers."""
    d.layers.insert(2, d.layers[2])
    d.levels.insert(3, d.levels[3])


# -- claims ----------------------------------------------------------------------------------------------------------


def permuted_channels(d: Draft) -> None:
    m = d.meaning(2, "value")
    d.swap(2, m, replace(m, channels=m.channels[::-1]))


def permuted_positions(d: Draft) -> None:
    m = d.meaning(2, "value")
    d.swap(2, m, replace(m, positions=m.positions[::-1]))


def swapped_halves(d: Draft) -> None:
    m, n = d.meaning(1, "positive"), d.meaning(1, "negative")
    d.levels[1] = [replace(m, kind="negative"), replace(n, kind="positive")]


def another_tensor(d: Draft) -> None:
    m = d.meaning(4, "positive", "add")
    d.swap(4, m, replace(m, tensor="head.0"))


def no_such_relu(d: Draft) -> None:
    m = d.meaning(2, "value")
    d.swap(2, m, replace(m, tensor=f"{m.tensor}#0"))


def a_nameless_tensor(d: Draft) -> None:
    m = d.meaning(2, "value")
    d.swap(2, m, replace(m, tensor="#16"))


def half_a_value_for_all(d: Draft) -> None:
    """Of a signed tensor one half is carried, which is said to be all of it."""
    m, n = d.meaning(4, "positive"), d.meaning(4, "negative")
    d.levels[4] = [replace(m, kind="value")]
    d.layers[3].weight, d.layers[3].bias = d.layers[3].weight[: n.positions[0]], d.layers[3].bias[: n.positions[0]]
    d.layers[4].weight = d.layers[4].weight[:, : n.positions[0]]


def a_half_left_out(d: Draft) -> None:
    """Of a signed tensor one half is carried, the other said to be always zero."""
    half_a_value_for_all(d)
    m = replace(d.levels[4][0], kind="positive")
    d.levels[4] = [m, replace(m, kind="negative", positions=(-1,) * len(m.positions))]


def a_living_channel_left_out(d: Draft) -> None:
    m = d.meaning(4, "negative")
    d.swap(4, m, replace(m, positions=(*m.positions[:-1], -1)))
    d.layers[3].weight, d.layers[3].bias = d.layers[3].weight[:-1], d.layers[3].bias[:-1]
    d.layers[4].weight = d.layers[4].weight[:, :-1]


def a_position_below_none(d: Draft) -> None:
    """-2 is no position, and no way to say that a channel was left out."""
    a_half_left_out(d)
    d.levels[4][1] = replace(d.levels[4][1], positions=(-2,) * len(d.levels[4][1].positions))


def a_zero_that_hides_the_last_channel(d: Draft) -> None:
    d.levels[4].append(Meaning("zero", (-1,)))
    d.layers[4].weight[:, -1] = 5


def nothing_for_a_living_channel(d: Draft) -> None:
    m = d.meaning(2, "value")
    d.swap(2, m, Meaning("zero", m.positions))


def a_level_of_nothing(d: Draft) -> None:
    """A level without channels: all that it holds is left out."""
    d.levels[4] = [replace(m, positions=(-1,) * len(m.positions)) for m in d.levels[4]]


def a_level_without_claims(d: Draft) -> None:
    d.levels[4] = []


def a_tensor_twice(d: Draft) -> None:
    """A second channel of the same unit is a little off, and read in the first one's place."""
    unit = d.meaning(2, "value").positions[0]
    claim = replace(d.meaning(2, "value"), channels=(0,))
    again = d.add_channel(2, claim, d.layers[1].weight[unit] * 1.01, float(d.layers[1].bias[unit]))
    reader = d.layers[2].weight
    reader[:, again], reader[:, unit] = reader[:, unit].clone(), 0


def a_part_that_overlaps(d: Draft) -> None:
    m = d.meaning(4, "positive")
    d.swap(4, m, replace(m, part=Part("add", ("head.0", "body.0.body.2"), ("head.0",))))


def a_part_for_the_whole(d: Draft) -> None:
    """add = head + body is said to be all that comes from head, and nothing else."""
    for kind in ("positive", "negative"):
        m = d.meaning(4, kind)
        d.swap(4, m, replace(m, part=Part("add", ("head.0",), ())))


def another_base(d: Draft) -> None:
    d.certificate = replace(d.certificate, stages=(replace(d.certificate.stages[0], base=2),))


def no_stages_at_all(d: Draft) -> None:
    d.levels, d.certificate = [], replace(d.certificate, stages=())


def a_stage_too_many(d: Draft) -> None:
    d.certificate = replace(d.certificate, stages=(*d.certificate.stages, *d.certificate.stages))


def a_smaller_constant(d: Draft) -> None:
    """Raised by 8, said to be raised by 4."""
    for level in d.levels:
        level[:] = [replace(m, constant=m.constant / 2) for m in level]


def a_constant_below_zero(d: Draft) -> None:
    m = d.meaning(1, "shifted")
    d.swap(1, m, replace(m, constant=-m.constant))


def another_range(d: Draft) -> None:
    d.certificate = replace(d.certificate, input_range=(0.0, 255.0))


def a_negative_zero_range(d: Draft) -> None:
    """Equal to the teacher's, but not the same."""
    d.certificate = replace(d.certificate, input_range=(-1.0, 1.0))
    d.info = replace(d.info, input_range=(-1.0, 1.0))


def a_channel_scaled_by_its_certificate_alone(d: Draft) -> None:
    stage = d.certificate.stages[0]
    d.certificate = replace(d.certificate, stages=(replace(stage, scaled=((2, 8, 1),)),))


def scaled_till_nothing_is_left(d: Draft) -> None:
    """A channel of a float16 network 2^-17 of what it means: of its weights a bit or two remain."""
    for layer in d.layers:
        layer.weight, layer.bias = layer.weight.half(), layer.bias.half()
    d.layers[1].weight[8], d.layers[1].bias[8] = d.layers[1].weight[8] * 2.0**-17, d.layers[1].bias[8] * 2.0**-17
    d.layers[2].weight[:, 8] *= 2.0**17
    stage = d.certificate.stages[0]
    d.certificate = replace(d.certificate, stages=(replace(stage, scaled=((2, 8, 17),)),))


SPLIT = (
    taps_on_padding, not_a_number, endless, denormal_weights, denormal_biases, next_numbers, rounded_to_float16,
    noise_in_float64, turned_signs, a_row_of_nothing, a_larger_kernel, a_smaller_kernel, another_order_of_pixels,
    the_output_permuted, a_missing_relu, a_relu_at_the_end, shuffled_before_the_end, a_layer_twice, permuted_channels,
    permuted_positions, swapped_halves, another_tensor, no_such_relu, a_nameless_tensor, half_a_value_for_all,
    a_half_left_out, a_living_channel_left_out, a_position_below_none, a_zero_that_hides_the_last_channel,
    nothing_for_a_living_channel, a_level_of_nothing, a_level_without_claims, a_tensor_twice, a_part_that_overlaps,
    a_part_for_the_whole, another_base, no_stages_at_all, a_stage_too_many, another_range, a_negative_zero_range,
    a_channel_scaled_by_its_certificate_alone, scaled_till_nothing_is_left,
)  # fmt: skip
SHIFTED = (
    constants_that_cancel, constants_in_halves, another_border, no_border, an_impure_one, nearly_one,
    a_smaller_constant, a_constant_below_zero,
)  # fmt: skip


@pytest.mark.parametrize("forge", SPLIT, ids=lambda f: f.__name__)
def test_a_forged_network_is_refused(forge: Forge, run: Run, case: Case, tmp_path: Path) -> None:
    draft = case.draft()
    forge(draft)
    must_be_refused(run, case.teacher, draft.net(), tmp_path)


@pytest.mark.parametrize("forge", SHIFTED, ids=lambda f: f.__name__)
def test_a_forged_network_with_shifts_is_refused(forge: Forge, run: Run, shifted: Case, tmp_path: Path) -> None:
    draft = shifted.draft()
    forge(draft)
    must_be_refused(run, shifted.teacher, draft.net(), tmp_path)


# -- several stages --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Enlarged by 4 in two stages, each with its pixel shuffle, and a third at the end."""
    torch.manual_seed(0)
    made, path = EDSR(scale=4, blocks=1, channels=4).eval(), tmp_path_factory.mktemp("kept") / "teacher.pt"
    torch.save(made.state_dict(), path)
    return Case(made, path, compile_to_plain(read_teacher(path, probe=False), tail="keep"))


def change_stage(d: Draft, number: int, **changes: object) -> None:
    """Other facts about a stage that is not the first."""
    stages = list(d.certificate.stages)
    stages[number] = replace(stages[number], **changes)  # type: ignore[arg-type]
    d.certificate = replace(d.certificate, stages=tuple(stages))


def shuffling(d: Draft) -> list[int]:
    """The layers that end the stages above which there is another."""
    return [i for i, layer in enumerate(d.layers) if layer.shuffle > 1]


def another_shuffle_between_stages(d: Draft) -> None:
    """Sub-pixels of the first stage as TensorFlow orders them."""
    last = d.layers[shuffling(d)[0]]
    order = torch.arange(len(last.bias)).reshape(4, -1).t().flatten()
    last.weight, last.bias = last.weight[order], last.bias[order]


def channels_between_stages_permuted(d: Draft) -> None:
    """What the first stage ends with the other way round, and its reader and the certificate likewise."""
    at = shuffling(d)[0]
    last, reader, end = d.layers[at], d.layers[at + 1], d.levels[-1][0]
    order = torch.arange(len(last.bias)).reshape(-1, 4).flip(0).flatten()
    last.weight, last.bias = last.weight[order], last.bias[order]
    reader.weight = reader.weight.flip(1)
    d.levels[-1] = [replace(end, channels=tuple(order.tolist()))]
    start = d.certificate.stages[1].levels[0][0]
    turned = replace(start, channels=start.channels[::-1])
    change_stage(d, 1, levels=((turned,), *d.certificate.stages[1].levels[1:]))


def a_stage_at_another_resolution(d: Draft) -> None:
    change_stage(d, 1, base=4)


def stages_by_four_and_one(d: Draft) -> None:
    """The first stage enlarges by 4 at once."""
    first, second = shuffling(d)[:2]
    d.layers[first].shuffle, d.layers[second].shuffle = 4, 1


def a_stage_left_out(d: Draft) -> None:
    """The second stage is not there at all; what it reads and makes has as many channels."""
    first, second = shuffling(d)[:2]
    del d.layers[first + 1 : second + 1]
    d.certificate = replace(d.certificate, stages=(d.certificate.stages[0], *d.certificate.stages[2:]))


def stages_in_another_order(d: Draft) -> None:
    d.certificate = replace(d.certificate, stages=(d.certificate.stages[0], *d.certificate.stages[:0:-1]))


def a_stage_from_another_tensor(d: Draft) -> None:
    start = d.certificate.stages[1].levels[0][0]
    change_stage(d, 1, levels=((replace(start, tensor="head.0"),), *d.certificate.stages[1].levels[1:]))


def a_stage_ends_with_less(d: Draft) -> None:
    """The last channel of what goes up is no longer spoken of."""
    end = d.levels[-1][0]
    d.levels[-1] = [replace(end, positions=end.positions[:-4], channels=end.channels[:-4])]


def another_bias_above(d: Draft) -> None:
    d.layers[-1].bias[0] += 1e-3


def another_weight_before_a_shuffle(d: Draft) -> None:
    d.layers[shuffling(d)[1]].weight[-1, -1, 0, 0] += 1e-3


def the_end_of_a_stage_scaled(d: Draft) -> None:
    """Half of what a stage ends with, and twice as much read of it: no ReLU is between, but no level is scalable."""
    at = shuffling(d)[0]
    d.layers[at].weight[:4] *= 0.5
    d.layers[at].bias[:4] *= 0.5
    d.layers[at + 1].weight[:, 0] *= 2
    stage = d.certificate.stages[0]
    scaled = tuple((len(stage.levels) - 1, channel, 1) for channel in range(4))
    d.certificate = replace(d.certificate, stages=(replace(stage, scaled=scaled), *d.certificate.stages[1:]))
    change_stage(d, 1, scaled=((0, 0, 1),))


def the_image_scaled(d: Draft) -> None:
    change_stage(d, 0, scaled=((0, 0, 1),))
    d.layers[0].weight[:, 0] *= 2


def a_level_that_there_is_not_scaled(d: Draft) -> None:
    change_stage(d, 1, scaled=((99, 0, 1),))


def a_level_below_the_first_scaled(d: Draft) -> None:
    change_stage(d, 1, scaled=((-1, 0, 1),))


KEPT = (
    another_shuffle_between_stages, channels_between_stages_permuted, a_stage_at_another_resolution,
    stages_by_four_and_one, a_stage_left_out, stages_in_another_order, a_stage_from_another_tensor,
    a_stage_ends_with_less, another_bias_above, another_weight_before_a_shuffle, the_end_of_a_stage_scaled,
    the_image_scaled, a_level_that_there_is_not_scaled, a_level_below_the_first_scaled,
)  # fmt: skip


@pytest.mark.parametrize("forge", KEPT, ids=lambda f: f.__name__)
def test_a_forged_network_of_several_stages_is_refused(forge: Forge, run: Run, kept: Case, tmp_path: Path) -> None:
    draft = kept.draft()
    forge(draft)
    must_be_refused(run, kept.teacher, draft.net(), tmp_path)


# -- powers of two ---------------------------------------------------------------------------------------------------


def scale_channel(d: Draft, k: int, *entries: tuple[int, int, int]) -> int:
    """A channel of level 2 made 2^-k of what it means, read 2^k times as much, and these entries.  Returns it."""
    channel = d.meaning(2, "value").positions[0]
    d.layers[1].weight[channel] *= 2.0**-k
    d.layers[1].bias[channel] *= 2.0**-k
    d.layers[2].weight[:, channel] *= 2.0**k
    stage = d.certificate.stages[0]
    d.certificate = replace(d.certificate, stages=(replace(stage, scaled=entries or ((2, channel, k),)),))
    return channel


@pytest.mark.parametrize("k", [1, -1, 3])
def test_a_scaled_channel_is_honest(k: int, case: Case) -> None:
    draft = case.draft()
    scale_channel(draft, k)
    check_certificate(read_teacher(case.teacher, probe=False), draft.net())


def scaled_by_less_than_it_says(d: Draft) -> None:
    channel = d.meaning(2, "value").positions[0]
    scale_channel(d, 1, (2, channel, 2))


def another_channel_is_scaled(d: Draft) -> None:
    scale_channel(d, 1, (2, d.meaning(2, "value").positions[1], 1))


def scaled_twice_over(d: Draft) -> None:
    """Two entries of one channel, of which the first is wrong or the last."""
    channel = d.meaning(2, "value").positions[0]
    scale_channel(d, 1, (2, channel, 1), (2, channel, 3))


def scaled_by_too_much(d: Draft) -> None:
    channel = d.meaning(2, "value").positions[0]
    scale_channel(d, 0, (2, channel, 65))


def a_channel_that_there_is_not_scaled(d: Draft) -> None:
    scale_channel(d, 0, (2, -1, 1), (2, 999, 1))


def scaled_where_it_is_made_alone(d: Draft) -> None:
    channel = scale_channel(d, 1)
    d.layers[2].weight[:, channel] /= 2


def scaled_where_it_is_read_alone(d: Draft) -> None:
    channel = scale_channel(d, 1)
    d.layers[1].weight[channel] *= 2
    d.layers[1].bias[channel] *= 2


def a_bias_that_is_not_scaled(d: Draft) -> None:
    channel = scale_channel(d, 1)
    d.layers[1].bias[channel] *= 2


SCALED = (
    scaled_by_less_than_it_says, another_channel_is_scaled, scaled_twice_over, scaled_by_too_much,
    a_channel_that_there_is_not_scaled, scaled_where_it_is_made_alone, scaled_where_it_is_read_alone,
    a_bias_that_is_not_scaled,
)  # fmt: skip


@pytest.mark.parametrize("forge", SCALED, ids=lambda f: f.__name__)
def test_a_forged_scale_is_refused(forge: Forge, run: Run, case: Case, tmp_path: Path) -> None:
    draft = case.draft()
    forge(draft)
    must_be_refused(run, case.teacher, draft.net(), tmp_path)


def ones_scaled(d: Draft) -> None:
    """The channel of ones, whose half no bias is."""
    one = d.meaning(1, "one").positions[0]
    d.layers[0].bias[one] /= 2
    d.layers[1].weight[:, one] *= 2
    d.certificate = replace(d.certificate, stages=(replace(d.certificate.stages[0], scaled=((1, one, 1),)),))


def shifts_scaled(d: Draft) -> None:
    at = d.meaning(1, "shifted").positions[0]
    d.layers[0].weight[at] /= 2
    d.layers[0].bias[at] /= 2
    d.layers[1].weight[:, at] *= 2
    d.certificate = replace(d.certificate, stages=(replace(d.certificate.stages[0], scaled=((1, at, 1),)),))


@pytest.mark.parametrize("forge", [ones_scaled, shifts_scaled], ids=lambda f: f.__name__)
def test_constants_are_never_scaled(forge: Forge, run: Run, shifted: Case, tmp_path: Path) -> None:
    draft = shifted.draft()
    forge(draft)
    assert "cannot be scaled" in must_be_refused(run, shifted.teacher, draft.net(), tmp_path)


# -- the image beside the network ------------------------------------------------------------------------------------


class Beside(nn.Module):
    """A pixel shuffle, to which the enlarged image is added."""

    def __init__(self, mode: str, scale: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mode, self.scale = mode, scale
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    def forward(self, x: Tensor) -> Tensor:
        image = enlarge(x, self.scale, self.mode)
        y: Tensor = self.body(x) + image
        return y


@pytest.mark.parametrize("mode", ["nearest", "bicubic", "bilinear"])
def test_another_image_beside_the_network_is_refused(mode: str) -> None:
    """Told by the file alone, and by the teacher: the graphs without the image are the same."""
    teacher = Beside(mode).eval()
    honest = compile_to_plain(teacher, image_skip="outside")
    assert honest.info.image_skip == mode
    check_certificate(teacher, honest)
    for lie in {"", "nearest", "bilinear", "bicubic"} - {mode}:
        draft = Draft(teacher, honest)
        draft.info = replace(draft.info, image_skip=lie)
        with pytest.raises(CertificateError, match=r"says its image skip is|is for another teacher"):
            check_certificate(teacher, draft.net())
        if lie:
            with pytest.raises(CertificateError):
                check_certificate(Beside(lie).eval(), honest)
    without = teacher.body.eval()
    with pytest.raises(CertificateError):
        check_certificate(without, honest)
    with pytest.raises(CertificateError):
        check_certificate(teacher, compile_to_plain(without))


@pytest.mark.parametrize("scale", [3, 4])
def test_another_factor_is_refused(scale: int) -> None:
    honest = compile_to_plain(Beside("bicubic").eval(), image_skip="outside")
    with pytest.raises(CertificateError):
        check_certificate(Beside("bicubic", scale).eval(), honest)
    draft = Draft(Beside("bicubic").eval(), honest)
    draft.info = replace(draft.info, scale=scale)
    with pytest.raises(MemsrError, match="scale"):
        check_certificate(Beside("bicubic").eval(), draft.net())


# -- what a file says of itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"guarantee": "exact for every image, and for sounds"},
        {"receptive_field": 1},
        {"image_skip": "bicubic"},
        {"teacher_sha256": "0" * 64},
    ],
)
def test_what_a_network_says_of_itself_is_true(lie: dict[str, object], run: Run, case: Case, tmp_path: Path) -> None:
    net = case.draft().net()
    net.info = replace(net.info, **lie)  # type: ignore[arg-type]
    must_be_refused(run, case.teacher, net, tmp_path)


class Larger(nn.Module):
    """max(x, relu(a x)), which is never negative, and x of it may be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.tail = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.tail(torch.maximum(x, self.a(x).relu())), 2)


def test_a_part_of_what_is_never_negative_may_be_the_image() -> None:
    """relu(x), as that part of the maximum that comes from x: right for images without negative values only."""
    teacher = Larger().eval()
    honest = compile_to_plain(teacher, align=1)
    draft = Draft(teacher, honest)
    part = Part("maximum", ("input",), ("maximum#0",))
    image = draft.meaning(1, "value", "input")
    at = image.positions[0]
    for level in (1, 2):
        draft.swap(level, draft.meaning(level, "value", "input"), replace(image, tensor="maximum", part=part))
    made, reader = draft.layers[0], draft.layers[1]
    plus = draft.add_channel(1, Meaning("positive", (0,), "input", (0,)), made.weight[at], 0.0)
    minus = draft.add_channel(1, Meaning("negative", (0,), "input", (0,)), -made.weight[at], 0.0)
    larger = draft.meaning(2, "value", "maximum#0").positions[0]
    reader.weight[larger, plus], reader.weight[larger, minus] = reader.weight[larger, at], -reader.weight[larger, at]
    reader.weight[larger, at] = 0
    forged = draft.net()
    check_certificate(teacher, forged)
    assert forged.info.guarantee == honest.info.guarantee == "exact for every image without negative values"


def test_shifts_are_told(run: Run, shifted: Case, tmp_path: Path) -> None:
    net = shifted.draft().net()
    net.info = replace(net.info, carry="split")
    assert "says its carry is 'split'" in must_be_refused(run, shifted.teacher, net, tmp_path)


def test_another_network_with_this_one_s_certificate(run: Run, case: Case, tmp_path: Path) -> None:
    """The two are built alike, so that every claim is one that the other could make."""
    torch.manual_seed(1)
    other = EDSR(scale=2, blocks=1, channels=4).eval()
    draft = Draft(other, compile_to_plain(other))
    draft.certificate = replace(draft.certificate, teacher_sha256=case.draft().certificate.teacher_sha256)
    draft.info = case.honest.info
    assert "the teacher's is" in must_be_refused(run, case.teacher, draft.net(), tmp_path)


def test_constants_that_leave_nothing(run: Run, case: Case, tmp_path: Path) -> None:
    """Every number is the exact one rounded, and the network is off by all that rounding takes."""
    net = compile_to_plain(read_teacher(case.teacher, probe=False), carry="shift", constant=1e9)
    assert "rounding the constants of shifts" in must_be_refused(run, case.teacher, net, tmp_path)


def test_a_carry_that_drifts(run: Run, case: Case, tmp_path: Path) -> None:
    """A hundred copies of one level, each with a constant of its own: each loses half a step of 30,000, all alike.

    22 grey levels, of which no single layer loses more than a level.
    """
    draft = Draft(case.network, compile_to_plain(case.network, carry="shift", constant=1000.0, align=1))
    level, carry, width = draft.levels[1], draft.meaning(1, "shifted"), len(draft.layers[0].bias)
    step, constants = 2.0**-9, [carry.constant]
    for i in range(100):
        constants.append(constants[-1] + (30000 + 0.51 * step if i % 2 == 0 else -30000 - 0.49 * step))
    constants.append(carry.constant)
    for before, after in reversed(list(pairwise(constants))):
        bias = torch.zeros(width)
        bias[list(carry.positions)] = after - before
        draft.layers.insert(1, DraftLayer(torch.eye(width)[:, :, None, None], bias, True, 1))
        draft.levels.insert(2, [replace(m, constant=after) if m == carry else m for m in level])
    assert furthest(network(), draft.net(), [torch.rand(1, 3, 8, 8)]) > 20 / 255
    assert "is shifted by 1000 and by" in must_be_refused(run, case.teacher, draft.net(), tmp_path)


def test_losses_of_many_tensors_are_added_up(run: Run, case: Case, tmp_path: Path) -> None:
    """Each tensor loses a little less than it may, and all of them could lose in the same direction."""
    net = compile_to_plain(case.network, carry="shift", constant=8000.0)
    assert "and in all, tensor by tensor" in must_be_refused(run, case.teacher, net, tmp_path)


class LargeAside(nn.Module):
    """A carried tensor, and each that reads it, has a channel of a million, of which the output takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(1, 4, 3, padding=1)
        self.first, self.second, self.tail = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        with torch.no_grad():
            for layer in (self.head, self.first):
                layer.weight[0] *= 1e6
            for layer in (self.first, self.second, self.tail):
                layer.weight[:, 0] = 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        return nn.functional.pixel_shuffle(self.tail((self.second(self.first(y).relu()) + y).relu()), 2)


def test_a_large_channel_does_not_free_the_constants_of_those_beside_it() -> None:
    """Each tensor loses little for its largest channel, and its others lose all: 900 grey levels."""
    teacher = LargeAside().eval()
    check_certificate(teacher, compile_to_plain(teacher, carry="shift", constant=1e4))
    forged = compile_to_plain(teacher, carry="shift", constant=1e9)
    with pytest.raises(CertificateError, match=r"constants of shifts moves the output by up to .* smaller constants"):
        check_certificate(teacher, forged)


class Clamped(nn.Module):
    """Values that a clamp lets through as they are, its bounds being far away."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high = low, high
        self.head, self.body, self.tail = (nn.Conv2d(*c, 3, padding=1) for c in ((3, 4), (4, 4), (4, 12)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.head(x).clamp(self.low, self.high)).relu()
        return nn.functional.pixel_shuffle(self.tail(y), 2)


@pytest.mark.parametrize("bounds", [(-1e6, 1e6), (-1e6, float("inf")), (-float("inf"), 1e6), (-1e10, 1.0)])
def test_bounds_of_a_clamp_that_leave_nothing(bounds: tuple[float, float]) -> None:
    """clamp(x) = low + relu(x - low) - relu(x - high): of x beside a bound of 1e6, float32 keeps 4 bits."""
    teacher = Clamped(*bounds).eval()
    with pytest.raises(MemsrError, match="rounding the constants of shifts"):
        check_certificate(teacher, compile_to_plain(teacher))


@pytest.mark.parametrize(
    ("bounds", "dtype"),
    [
        ((-1.0, 1.0), torch.float16),
        ((0.0, 6.0), torch.float16),
        ((-100.0, 100.0), torch.float32),
        ((-float("inf"), 1000.0), torch.float32),
        ((-1e6, 1e6), torch.float64),
    ],
)
def test_bounds_of_a_clamp_that_leave_enough(bounds: tuple[float, float], dtype: torch.dtype) -> None:
    teacher = Clamped(*bounds).eval()
    check_certificate(teacher, compile_to_plain(teacher).to(dtype))


@pytest.mark.parametrize("bounds", [(float("inf"), float("inf")), (-float("inf"), -float("inf"))])
def test_bounds_of_a_clamp_between_which_there_is_no_number(bounds: tuple[float, float]) -> None:
    """Both are infinite, and yet it is no identity: of clamp(x, max=-inf) a ReLU leaves 0, and of x more."""
    with pytest.raises(UnsupportedModel, match=r"clamp: nothing but -?inf is within its bounds"):
        compile_to_plain(Clamped(*bounds).eval())
    honest = compile_to_plain(Clamped(-float("inf"), float("inf")).eval())
    with pytest.raises(UnsupportedModel):
        check_certificate(Clamped(*bounds).eval(), honest)


class Collision(nn.Module):
    """y = c(act(a x) + relu#0(b x)): a module has the name that a ReLU of another one would have."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(*channels, 1) for channels in ((1, 2), (1, 2), (2, 1)))
        self.act = nn.LeakyReLU(0.25)
        self.add_module("act#0", nn.ReLU())
        self.add_module("act~minus", nn.ReLU())
        self.add_module("act@1", nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        others = [self.get_submodule(f"act{mark}")(self.b(x)) for mark in ("#0", "~minus", "@1")]
        y: Tensor = self.c(self.act(self.a(x)) + others[0] + 2 * others[1] + 3 * others[2])
        return y


def test_names_that_look_like_ours() -> None:
    """The honest network passes; one whose ReLU is the other one's does not."""
    torch.manual_seed(0)
    teacher = Collision().eval()
    honest = compile_to_plain(teacher, align=1)
    check_certificate(teacher, honest)
    draft = Draft(teacher, honest)
    names = {m.tensor for level in draft.levels for m in level}
    assert "act#0" in names and "act-0" in names
    level = next(i for i, level in enumerate(draft.levels) if any(m.tensor == "act#0" for m in level))
    real, other = draft.meaning(level, "value", "act#0"), draft.meaning(level, "value", "act-0")
    draft.swap(level, real, replace(real, tensor="act-0"))
    draft.swap(level, other, replace(other, tensor="act#0"))
    with pytest.raises(CertificateError):
        check_certificate(teacher, draft.net())


class Adds(nn.Module):
    """Values to which the teacher itself adds a constant before a ReLU, and takes it away after."""

    def __init__(self, constant: float, *, by_maximum: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.constant, self.by_maximum = constant, by_maximum
        self.head, self.body, self.tail = (nn.Conv2d(*c, 3, padding=1) for c in ((3, 4), (4, 4), (4, 12)))

    def forward(self, x: Tensor) -> Tensor:
        y, c = self.head(x), self.constant
        y = torch.maximum(0 * y - c, y) if self.by_maximum else (y + c).relu() - c
        return nn.functional.pixel_shuffle(self.tail(self.body(y).relu()), 2)


@pytest.fixture
def _read_whatever_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reader take constants that round, which it refuses, so that the proof has to."""
    monkeypatch.setattr("memsr_compiler.trace.trace.require_small_constants", lambda graph, outside: None)


@pytest.mark.usefixtures("_read_whatever_rounds")
@pytest.mark.parametrize("by_maximum", [False, True])
def test_constants_of_the_teacher_s_own_that_leave_nothing(by_maximum: bool) -> None:
    """relu(x + 1e6) - 1e6 loses as much as clamp(x, -1e6) does, up to 5 grey levels in exact arithmetic."""
    teacher = Adds(1e6, by_maximum=by_maximum).eval()
    with pytest.raises(CertificateError, match=r"rounding the constants of shifts .* or the teacher a constant"):
        check_certificate(teacher, compile_to_plain(teacher))
    enough = Adds(100.0, by_maximum=by_maximum).eval()
    check_certificate(enough, compile_to_plain(enough))


def small_inside(scale: float) -> nn.Sequential:
    """Values of a thousand, read by small weights, and those by large ones."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for at, factor in (("0", 1e3), ("2", scale), ("4", 50 / scale / 1e3)):
            layer = made.get_submodule(at)
            layer.weight.mul_(factor)  # type: ignore[operator]
            layer.bias.zero_()  # type: ignore[operator]
    return made


def test_numbers_too_small_for_their_dtype() -> None:
    """Every number is the exact one rounded, which in float16 is nothing, or has no digits left."""
    for scale, right in ((1.0, True), (1e-5, False), (1e-6, False)):
        teacher = small_inside(scale)
        check_certificate(teacher, compile_to_plain(teacher))
        halves = compile_to_plain(teacher).half()
        if right:
            check_certificate(teacher, halves)
            continue
        with pytest.raises(CertificateError, match=r"keeping fewer digits, of numbers too small .* in a wider dtype"):
            check_certificate(teacher, halves)


class Cancels(nn.Module):
    """Constants of 1e12 that cancel, beside a tap of 1e8 that reads what is always zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body, self.tail = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 4, 1)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.bias[-1] = -100.0
            self.body.weight[-1], self.body.weight[:, -1] = 0.0, 0.0
            self.body.weight[-1, -1] = 1e8

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.head(x).relu()) + 1e12
        return nn.functional.pixel_shuffle(self.tail((y - 1e12).relu()), 2)


@pytest.mark.usefixtures("_read_whatever_rounds")
def test_what_cancels_is_not_measured_by_a_tap_that_reads_nothing() -> None:
    """Biases are known to 0.02 only, of tensors of about 1: 7 grey levels."""
    teacher = Cancels().eval()
    draft = Draft(teacher, compile_to_plain(teacher))
    draft.layers[1].bias += 0.02
    with pytest.raises(CertificateError, match="large ones that cancel"):
        check_certificate(teacher, draft.net())


class SmallBeside(nn.Module):
    """What is read by small weights, beside a channel of a thousand, of which the output takes next to nothing."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner = small_inside(scale)
        with torch.no_grad():
            self.inner.get_submodule("2").weight[0] *= 1 / scale  # type: ignore[index, operator]
            self.inner.get_submodule("4").weight[:, 0] = 1e-7  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y


def test_a_large_channel_does_not_free_the_digits_of_those_beside_it() -> None:
    """Each tensor loses little for its largest channel, and its others lose all that float16 has no digits for."""
    check_certificate(SmallBeside(1.0).eval(), compile_to_plain(SmallBeside(1.0).eval()).half())
    teacher = SmallBeside(1e-6).eval()
    halves = compile_to_plain(teacher).half()
    assert check_equivalence(teacher, halves).deviation > 20 / 255
    with pytest.raises(CertificateError, match=r"keeping fewer digits, .* moves the output by up to .* a wider dtype"):
        check_certificate(teacher, halves)


class CancelsBeside(Cancels):
    """The same, and a channel of 1e6, of which the output takes next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.body.weight[0] *= 1e7
            self.tail.weight[:, 0] = 1e-12


@pytest.mark.usefixtures("_read_whatever_rounds")
def test_a_large_channel_does_not_free_what_cancels_beside_it() -> None:
    teacher = CancelsBeside().eval()
    draft = Draft(teacher, compile_to_plain(teacher))
    draft.layers[1].bias += 0.02
    forged = draft.net()
    assert furthest(CancelsBeside().double().eval(), forged, [torch.rand(1, 1, 8, 8)]) > 2 / 255
    with pytest.raises(CertificateError, match="large ones that cancel"):
        check_certificate(teacher, forged)


class Difference(nn.Module):
    """1,000 times the difference of two channels that are nearly alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.Conv2d(16, 4, 1)
        with torch.no_grad():
            self.head.weight[8:] = self.head.weight[:8] * 1.001
            self.tail.weight[:, 8:] = self.tail.weight[:, :8] * 1000
            self.tail.weight[:, :8] = -self.tail.weight[:, 8:]

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.tail(self.head(x).relu()), 2)


def test_what_common_rounding_leaves_of_a_difference_is_measured() -> None:
    """No number of it loses more than any other does."""
    teacher = Difference().eval()
    check_certificate(teacher, compile_to_plain(teacher))
    halves = compile_to_plain(teacher).half()
    with pytest.raises(CertificateError, match=r"its stored numbers alone take it .* off the teacher .* a wider dtype"):
        check_certificate(teacher, halves)


class Carried(nn.Module):
    """relu(b(y)) + y of single pixels; the image is carried, which has negative values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.tail = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return nn.functional.pixel_shuffle(self.tail(self.b(y).relu() + y), 2)


def test_a_shift_that_its_values_pass_is_told() -> None:
    """Exact numbers for C = 1/8, where values reach more: right where |x| <= C, which the probes are not."""
    teacher = Carried().double().eval()
    honest = compile_to_plain(teacher, carry="shift", constant=8.0, align=1, input_range=(-1.0, 1.0))
    draft = Draft(teacher, honest)
    first, last = draft.layers
    at = list(draft.meaning(1, "shifted").positions)
    first.bias[at] -= 7.875
    last.bias += 7.875 * last.weight[:, at].sum((1, 2, 3))
    for level in draft.levels:
        level[:] = [replace(m, constant=0.125) if m.kind == "shifted" else m for m in level]
    with pytest.raises(CertificateError, match=r"its stored numbers .* beyond the shift's C = 0\.125"):
        check_certificate(teacher, draft.net())


def test_claims_that_are_true_and_cost_time_are_counted_in_all(run: Run, case: Case, tmp_path: Path) -> None:
    """Levels that copy the image, with claims that nothing of it comes from elsewhere: few of each, and many in all."""
    draft = case.draft()
    image, shares = draft.levels[0][0], list(draft.graph.structure)[1:]
    last = draft.graph[draft.graph.output].inputs[0]
    below = draft.graph[last].inputs[0]
    for i in range(24):
        rest = (below, image.tensor)[: 1 + i % 2]  # what the level below claims too would be a copy
        nothing = [Meaning("positive", (-1,), last, (0,), part=Part(last, (s,), rest)) for s in shares if s != below]
        draft.layers.insert(0, DraftLayer(torch.eye(3)[:, :, None, None], torch.zeros(3), True, 1))
        draft.levels.insert(1, [image, *nothing])
    assert "take far more work" in must_be_refused(run, case.teacher, draft.net(), tmp_path)
