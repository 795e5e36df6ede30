"""Teachers that have no plain form: the frozen network is the teacher with numbers put in by hand, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from helpers.gated import POOLED, SPATIAL, Bend, Constant, Gated, Lattice, Pixels, Squeeze, gated, images
from torch import Tensor, nn

from memsr_compiler.errors import CertificateError, InvalidInput, UnsupportedModel
from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.trace.approximate import freeze as freezing
from memsr_compiler.trace.approximate.freeze import Frozen, find_places, freeze, psnr_between, rebuild
from memsr_compiler.trace.trace import trace


def column(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).expand(8)


@torch.no_grad()
def require_same(frozen: Frozen, by_hand: nn.Module) -> None:
    for x in images(2):
        expected = copy_module(by_hand, torch.float64)(x)
        torch.testing.assert_close(frozen.module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gate", [*POOLED, *SPATIAL])
def test_the_frozen_network_is_the_one_with_the_constants_put_in(gate: Callable[[], nn.Module]) -> None:
    network = gated(gate)
    with pytest.raises(UnsupportedModel):
        trace(network)
    frozen = freeze(network, images())
    assert [r.name for r in frozen.replacements] == ["body.0.3.gate", "body.1.3.gate"]
    for block, r in zip(network.blocks, frozen.replacements, strict=True):
        block[3] = Constant(column(r.scale), column(r.shift))
    require_same(frozen, network)


@pytest.mark.parametrize("gate", POOLED)
def test_gates_of_pooled_features_are_frozen_at_their_means(gate: Callable[[], nn.Module]) -> None:
    network = gated(gate)
    frozen = freeze(network, images())
    attention = network.blocks[0][3]
    inputs: list[Tensor] = []
    attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
    with torch.no_grad():
        for x in images():
            network(x.float())
        gates = torch.stack([attention.gate(x)[0, :, 0, 0].double() for x in inputs])
    pixels = torch.tensor([x[0, 0].numel() for x in inputs], dtype=torch.float64)
    mean = (gates * pixels[:, None]).sum(0) / pixels.sum()
    assert frozen.replacements[0].kind == "gate"
    torch.testing.assert_close(column(frozen.replacements[0].scale), mean, rtol=1e-4, atol=0)


@pytest.mark.parametrize("gate", SPATIAL)
def test_gates_that_differ_from_pixel_to_pixel_become_the_best_line(gate: Callable[[], nn.Module]) -> None:
    network = gated(gate, blocks=1)
    frozen = freeze(network, images())
    r = frozen.replacements[0]
    assert r.kind == "spatial gate"
    inputs: list[Tensor] = []
    network.blocks[0][3].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        for x in images():
            network(x.float())
        x = torch.cat([x.flatten(2)[0].double() for x in inputs], dim=1)
        y = torch.cat([(network.blocks[0][3].gate(x) * x).flatten(2)[0].double() for x in inputs], dim=1)
    best, line = (y - r.evaluate(x[None, :, None])[0, :, 0]).square().mean(), Constant(column(r.scale), column(r.shift))
    for change in (1.05, 0.95):
        other = Constant(line.scale * change, line.shift)
        assert best < (y - other(x[None, :, None])[0, :, 0]).square().mean()
    mean = torch.stack([(y / x).nanmean(dim=1)], dim=1)
    assert best <= (y - mean * x).square().mean()


def test_lattice_blocks_combine_two_branches() -> None:
    network = gated(Lattice, blocks=1)
    frozen = freeze(network, images())
    coefficient = column(frozen.replacements[0].scale)

    class ByHand(nn.Module):
        def __init__(self, conv: nn.Module) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> Tensor:
            return x + coefficient[None, :, None, None] * F.relu(self.conv(x))

    network.blocks[0][3] = ByHand(network.blocks[0][3].conv)
    require_same(frozen, network)


WRITTEN_OUT = {
    "swish": lambda x: x * torch.sigmoid(1.5 * x),
    "gelu": lambda x: 0.5 * x * (1.0 + torch.erf(x / 2**0.5)),
    "hard swish": lambda x: x * F.relu6(x + 3) / 6,
    "square": lambda x: x * x,
    "in place": lambda x: F.silu(x + 0, inplace=True),
}
ACTIVATIONS = (nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Mish, nn.ELU)


@pytest.mark.parametrize(
    "act", [*ACTIVATIONS, *WRITTEN_OUT.values()], ids=[*(a.__name__ for a in ACTIVATIONS), *WRITTEN_OUT]
)
def test_smooth_activations_become_straight_pieces(act: Callable[[Tensor], Tensor]) -> None:
    make = act if isinstance(act, type) else lambda: Bend(act)
    network = gated(nn.Identity, act=make)
    with pytest.raises(UnsupportedModel):
        trace(network)
    frozen = freeze(network, images())
    assert len(frozen.replacements) == 2 and all(r.knots for r in frozen.replacements)
    assert frozen.psnr > 35
    for block, r in zip(network.blocks, frozen.replacements, strict=True):
        block[1] = Bend(r.evaluate)
    require_same(frozen, network)


def test_a_gate_and_an_activation_and_what_each_costs() -> None:
    network = gated(Squeeze, act=nn.GELU)
    frozen = freeze(network, images())
    assert [r.kind for r in frozen.replacements] == ["gelu", "gate", "gelu", "gate"]
    block = network.blocks[1]
    for position, r, cost in ((1, *pick(frozen, 2)), (3, *pick(frozen, 3))):
        kept = block[position]
        with torch.no_grad():
            expected = [network(x.float()) for x in images()]
            block[position] = Bend(r.evaluate)
            pairs = zip(images(), expected, strict=True)
            errors = [(network(x.float()) - y).double().square().flatten() for x, y in pairs]
        block[position] = kept
        assert cost == pytest.approx(-10 * torch.cat(errors).mean().log10().item(), abs=0.01)
    assert frozen.psnr < min(frozen.costs)


def pick(frozen: Frozen, i: int) -> tuple[Replacement, float]:
    return frozen.replacements[i], frozen.costs[i]


class Chain(nn.Module):
    """A gate of a gated value, then an activation, both times changing in place what goes by another name too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Squeeze(), Pixels()

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        x.mul_(self.first.gate(x))
        x.mul_(self.second.gate(x))
        F.silu(x, inplace=True)
        return x


def test_a_replacement_of_what_was_replaced_is_of_what_stands_there_now() -> None:
    network = gated(Chain, blocks=1)
    frozen = freeze(network, images())
    names = ["body.0.3.gate", "body.0.3.gate:2", "body.0.3.silu"]
    assert [r.name for r in frozen.replacements] == names
    network.blocks[0][3] = nn.Sequential(*(Bend(r.evaluate) for r in frozen.replacements))
    require_same(frozen, network)


class Assigns(nn.Module):
    """A mean shift that is made anew at every call (SPAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.gate = torch.full((1, 8, 1, 1), 0.25), Squeeze()

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean.type_as(x)
        result: Tensor = self.gate(x - self.mean)
        return result


def test_code_that_assigns_attributes_is_followed() -> None:
    network = gated(Assigns)
    frozen = freeze(network, images())
    assert [r.kind for r in frozen.replacements] == ["gate", "gate"]
    for block, r in zip(network.blocks, frozen.replacements, strict=True):
        block[3] = Constant(column(r.scale), column(r.scale) * -0.25)
    require_same(frozen, network)


def test_what_is_random_is_no_gate() -> None:
    network = gated(lambda: Bend(lambda x: x * torch.sigmoid(torch.rand_like(x[:, :, :1, :1]))))
    with pytest.raises(InvalidInput, match="Gated draws random numbers as it runs; take out what draws them"):
        freeze(network, images())


@pytest.mark.parametrize(
    "does",
    [
        lambda x: x + 1 if torch.is_tensor(x) else x,
        lambda x: x * 2 if isinstance(x, Tensor) else x,
        lambda x: x - 1 if hasattr(x, "quantiser") else x,
    ],
)
def test_code_that_asks_what_a_tensor_is_is_not_taken_for_another(does: Callable[[Tensor], Tensor]) -> None:
    """Under torch.fx none is a tensor: the other network was frozen, and called 105 dB near."""
    network = gated(lambda: nn.Sequential(Squeeze(), Bend(does)))
    with pytest.raises(UnsupportedModel, match=r"as torch\.fx sees it, differs from itself .* what a tensor is"):
        freeze(network, images())


def test_code_for_float32_is_taken_as_in_float64() -> None:
    """A cast, and a kernel that forward makes."""

    def smooth(x: Tensor) -> Tensor:
        return F.conv2d(x.float(), torch.ones(8, 1, 1, 1) / 2, groups=8)

    def half(x: Tensor) -> Tensor:
        return x / 2

    frozen = freeze(gated(lambda: nn.Sequential(Squeeze(), Bend(smooth))), images())
    same = freeze(gated(lambda: nn.Sequential(Squeeze(), Bend(half))), images())
    assert [r.scale for r in frozen.replacements] == [r.scale for r in same.replacements]
    assert frozen.psnr == pytest.approx(same.psnr, abs=0.01)


def test_weights_of_a_parametrisation_are_exact() -> None:
    network = gated(Squeeze)
    torch.nn.utils.parametrizations.weight_norm(network.blocks[0][0])
    frozen = freeze(network, images())
    assert frozen.psnr == pytest.approx(psnr_between(frozen.module, network, images(), (0.0, 1.0)), abs=0.01)


def test_a_forward_that_was_put_into_the_network_is_the_one_that_is_read() -> None:
    """As accelerate does; torch.fx looks at the class's."""
    network = gated(Squeeze)
    network.forward = MethodType(lambda self, x: Gated.forward(self, x) * 2, network)  # type: ignore[method-assign]
    frozen = freeze(network, images())
    assert frozen.psnr == pytest.approx(psnr_between(frozen.module, network, images(), (0.0, 1.0)), abs=0.01)


class Pooled(nn.Module):
    """Channels times a function of their means."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return x * self.act(x.mean((2, 3), keepdim=True))


class ComputesItsWeights(nn.Module):
    """As SPAN's convolutions: `forward` writes weights past torch, and what the file has of them is old."""

    def __init__(self) -> None:
        super().__init__()
        self.trained, self.used = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.used.bias is not None and self.trained.bias is not None
        self.used.weight.data, self.used.bias.data = self.trained.weight.data * 2, self.trained.bias.data * 2
        return self.used(x)  # type: ignore[no-any-return]


def test_weights_that_forward_computes_are_those_that_are_frozen_and_rebuilt() -> None:
    network = gated(lambda: nn.Sequential(Squeeze(), ComputesItsWeights()))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = freeze(network, images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert rebuild(network, frozen.replacements).graph.sha256() == frozen.traced.graph.sha256()
    assert frozen.psnr == pytest.approx(psnr_between(frozen.module, network, images(), (0.0, 1.0)), abs=0.01)
    network(images()[0].float())
    assert freeze(network, images()).teacher_sha256 == frozen.teacher_sha256


def test_single_costs_are_of_few_images_where_there_are_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    network = gated(Squeeze)
    all_of_them = freeze(network, images())
    pixels = [x[0, 0].numel() for x in images()]
    weights = sum(p.numel() for p in network.parameters())
    monkeypatch.setattr(freezing, "ONE_BY_ONE", 2 * weights * (pixels[0] + pixels[1]))
    few = freeze(network, images())
    assert (few.images, few.cost_images) == (3, 2) and (all_of_them.images, all_of_them.cost_images) == (3, 3)
    assert few.psnr == all_of_them.psnr and few.costs != all_of_them.costs


def test_a_network_is_rebuilt_from_its_numbers() -> None:
    network = gated(Squeeze, act=nn.SiLU)
    frozen = freeze(network, images())
    assert rebuild(network, frozen.replacements).graph.sha256() == frozen.traced.graph.sha256()
    first, *others = frozen.replacements
    with pytest.raises(
        CertificateError, match=r"of this teacher have to be replaced body\.0\.1 \(silu\), body\.0\.3\.gate"
    ):
        rebuild(network, others)
    with pytest.raises(CertificateError, match=r"does not fit the teacher: body\.0\.1: 5 numbers for 8 channels"):
        rebuild(network, [Replacement(first.name, first.kind, (1.0,) * 5), *others])


def test_the_teacher_is_known_by_the_weights_of_its_gates_too() -> None:
    network = gated(Squeeze)
    before = freeze(network, images()).teacher_sha256
    with torch.no_grad():
        network.blocks[0][3].first.weight[0, 0] += 1
    assert freeze(network, images()).teacher_sha256 != before


def test_the_teacher_is_known_by_what_its_gates_compute() -> None:
    """Labels are kept by it: with the same weights, those of another network were taken."""
    hashes = [freeze(gated(partial(Pooled, act)), images()).teacher_sha256 for act in (torch.sigmoid, torch.tanh)]
    assert hashes[0] != hashes[1]


def test_code_that_torch_fx_cannot_follow_is_named() -> None:
    network = gated(lambda: nn.Sequential(Squeeze(), Bend(lambda x: x if x.mean() > 0 else -x)))
    with pytest.raises(UnsupportedModel, match=r"body\.0\.3\.1 \(.*: return self.function\(x\)\): torch\.fx, by which"):
        freeze(network, images())


def test_it_is_not_changed_and_the_numbers_do_not_depend_on_how_images_are_ordered() -> None:
    network = gated(Squeeze, act=nn.GELU)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = freeze(network, images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    other = freeze(network, images()[::-1])
    for a, b in zip(frozen.replacements, other.replacements, strict=True):
        torch.testing.assert_close(a.scale, b.scale, rtol=1e-3, atol=1e-3)


class Attention(nn.Module):
    """Attention between pixels: no gate, and what it adds is no number."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        result: Tensor = (torch.softmax(flat.mT @ flat, dim=-1) @ flat.mT).mT.view_as(x)
        return result


class Two(nn.Module):
    """A product of two feature maps neither of which is a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.a(x) * self.b(x)
        return result


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Attention, r"body\.0\.3: (flatten|mT|matmul|getattr)"),
        (Two, r"body\.0\.3: mul: two feature maps are multiplied"),
        (lambda: nn.InstanceNorm2d(8), r"body\.0\.3: InstanceNorm2d: it divides by how large values are"),
        (lambda: nn.MaxPool2d(3, 1, 1), r"body\.0\.3: max_pool2d"),
    ],
)
def test_what_is_no_gate_is_refused_for_its_reason(make: Callable[[], nn.Module], reason: str) -> None:
    network = gated(make)
    assert find_places(network) == ()
    with pytest.raises(UnsupportedModel, match=reason):
        freeze(network, images())


def test_places_are_found_without_running_the_network() -> None:
    assert find_places(gated(Squeeze, act=nn.GELU, blocks=1)) == ("body.0.1", "body.0.3.gate")
    assert find_places(gated(nn.Identity)) == ()


class Times(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x * self.number


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_network_whose_output_is_no_number_is_infinitely_far(number: float) -> None:
    """As the numbers of a certificate can make it, which are read from a file."""
    assert psnr_between(Times(number), Times(1.0), images(1), (0.0, 1.0)) == -float("inf")


def test_images_of_other_channels_than_the_network_takes() -> None:
    class Colours(nn.Module):
        """Takes grey too."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x.expand(-1, 3, -1, -1))
            return F.pixel_shuffle(y * torch.sigmoid(y), 2)

    with pytest.raises(InvalidInput, match="the images have 4 channels, and the network takes 3 or 1; give others"):
        freeze(Colours().eval(), [torch.rand(1, 4, 48, 48)])


class Grey(nn.Module):
    """Takes grey too, and asks its tensors for their channels, in all ways there are."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.net = nn.Parameter(torch.full((1, 3, 1, 1), 0.25)), gated(Squeeze)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("gain", torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.repeat(1, 3, 1, 1)
        if self.mean.shape[1] == x.shape[1]:
            x = x - self.mean
        x = self.norm(x) * self.gain
        _, c, _, _ = x.size()
        y: Tensor = self.net(x) if c % 2 and x.size(1) == 3 and x.size(dim=1) > 2 else x
        return y if x.dim() == 4 and len(x.shape) == 4 and len(x.size()) > 3 else y[0]


@pytest.mark.parametrize("channels", [3, 1])
def test_a_decision_by_the_number_of_channels_has_one_answer(channels: int) -> None:
    network = Grey().eval()
    frozen = freeze(network, images(channels=channels))
    assert [r.name for r in frozen.replacements] == ["net.body.0.3.gate", "net.body.1.3.gate"]
    assert frozen.traced.graph.input.channels == channels
    for block, r in zip(network.net.blocks, frozen.replacements, strict=True):
        block[3] = Constant(column(r.scale), column(r.shift))
    for x in images(2, channels):
        torch.testing.assert_close(frozen.module(x), network.double()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("does", "what"),
    [
        (lambda x: x if x.shape[2] > 3 else -x, "control flow"),
        (lambda x: x if x.permute(0, 2, 3, 1).shape[1] > 3 else -x, "an axis that hangs on the size"),
        (lambda x: x if x.shape[0] < 3 else -x, "control flow"),
        (lambda x: x if x.size(dim=2) > 3 else -x, "control flow"),
        (lambda x: x if x.dtype == torch.float64 else -x, "a decision by the type"),
    ],
)
def test_a_decision_by_anything_else_is_none(does: Callable[[Tensor], Tensor], what: str) -> None:
    network = gated(lambda: nn.Sequential(Squeeze(), Bend(does)))
    with pytest.raises(UnsupportedModel, match=what):
        freeze(network, images())


def test_who_computes_with_the_number_of_images_is_told_so() -> None:
    network = gated(lambda: nn.Sequential(Squeeze(), Bend(lambda x: x / x.shape[0])))
    with pytest.raises(UnsupportedModel, match="it computes with the number of images in a batch"):
        freeze(network, images())


@pytest.mark.parametrize(
    "does",
    [
        lambda x: x * (x.shape[2] / 48),
        lambda x: x * torch.ones_like(x).sum((2, 3), keepdim=True),
        lambda x: x * torch.ones_like(x).cumsum(2),
    ],
)
def test_a_factor_made_of_the_size_is_no_gate(does: Callable[[Tensor], Tensor]) -> None:
    network = gated(lambda: nn.Sequential(Squeeze(), Bend(does)))
    with pytest.raises(UnsupportedModel, match="mul: it computes with the height or width of the image"):
        freeze(network, images())


@pytest.mark.parametrize(
    "gate",
    [
        lambda x: x * torch.sigmoid(x * x.shape[-1]),
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True) * x.shape[2]),
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])),
        lambda x: x * torch.sigmoid(x + x.shape[3] / 48),
        lambda x: x * torch.sigmoid(x.sum((2, 3), keepdim=True) / x.shape[2] ** 0.5),
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True) * torch.ones_like(x).sum((2, 3), keepdim=True)),
        lambda x: x * (torch.sigmoid(x) * x.shape[2]),
        lambda x: x * torch.sigmoid(x.sum((2, 3), keepdim=True) * 0.001),
        lambda x: x * torch.sigmoid(x.square().sum((2, 3), keepdim=True).sqrt()),
        lambda x: x * torch.sigmoid(x.norm(dim=(2, 3), keepdim=True)),
        lambda x: x * torch.sigmoid(torch.einsum("bchw->bc", x)[:, :, None, None]),
        lambda x: x * torch.sigmoid(x.flatten(2) @ x.flatten(2).transpose(1, 2)).mean(2)[:, :, None, None],
        lambda x: x / (1 + x.abs().sum((2, 3), keepdim=True)),
        lambda x: x * torch.sigmoid(torch.softmax(x.flatten(2), 2).amax(2)[:, :, None, None]),
    ],
)
def test_nor_is_what_it_makes_of_pixels(gate: Callable[[Tensor], Tensor]) -> None:
    """It was measured at the size of the images, and stayed so at all others."""
    assert find_places(gated(lambda: Bend(gate), blocks=1)) == ()


@pytest.mark.parametrize("factor", [lambda x: x * x.shape[-1], lambda x: x.sum((2, 3), keepdim=True) * 0.01])
def test_and_is_refused_in_these_words(factor: Callable[[Tensor], Tensor]) -> None:
    network = gated(lambda: Bend(lambda x: x * torch.sigmoid(factor(x))), blocks=1)
    with pytest.raises(UnsupportedModel, match=r"body\.0\.3: mul: it computes with the height or width of the image"):
        freeze(network, images(1))


def global_response(x: Tensor) -> Tensor:
    """ConvNeXt V2's (Woo et al. 2023)."""
    length: Tensor = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
    return x * (length / (length.mean(dim=1, keepdim=True) + 1e-6))


def channel_transformation(x: Tensor) -> Tensor:
    """GCT's (Yang et al. 2020)."""
    embedding = (x.pow(2).sum((2, 3), keepdim=True) + 1e-5).pow(0.5) * 0.7
    norm = 0.3 / (embedding.pow(2).mean(dim=1, keepdim=True) + 1e-5).pow(0.5)
    return x * (1.0 + torch.tanh(embedding * norm + 0.1))


def deviation(x: Tensor) -> Tensor:
    """As torch.std, but for a single pixel."""
    pixels = x.shape[2] * x.shape[3]
    off = torch.linalg.vector_norm(x - x.mean((2, 3), keepdim=True), dim=(2, 3), keepdim=True)
    return x * torch.sigmoid(off / (pixels - 1 + (pixels == 1)) ** 0.5)


def context(x: Tensor) -> Tensor:
    """GCNet's: the mean of pixels by weights that sum to one (Cao et al. 2019)."""
    b, c, h, w = x.shape
    weights = torch.softmax(x.mean(1).view(b, 1, h * w), dim=2).unsqueeze(-1)
    return x * torch.sigmoid(torch.matmul(x.view(b, 1, c, h * w), weights).view(b, c, 1, 1))


@pytest.mark.parametrize(
    "gate",
    [
        lambda x: x * torch.sigmoid(x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])),
        lambda x: x * torch.sigmoid(x.sum(2, keepdim=True).sum(3, keepdim=True) * 2 / x.shape[2] / x.shape[3]),
        lambda x: x * torch.sigmoid(x.sum((2, 3), keepdim=True) * (1 / (x.shape[2] * x.shape[3]))),
        lambda x: x * torch.sigmoid(x.sum((2, 3), keepdim=True) / torch.ones_like(x).sum((2, 3), keepdim=True)),
        lambda x: x * (torch.ones_like(x) - torch.sigmoid(x.mean((2, 3), keepdim=True)) / x.shape[1]),
        lambda x: x * F.interpolate(torch.sigmoid(F.avg_pool2d(x, 3, 2)), size=x.shape[2:]),
        lambda x: x * torch.sigmoid(F.avg_pool2d(x, (x.shape[2], x.shape[3])) / (x.std() + 1).shape.numel()),
        global_response,
        channel_transformation,
        deviation,
        context,
        lambda x: x * torch.sigmoid(x.norm(3, (2, 3), True) / (x.shape[2] * x.shape[3]) ** (1 / 3)),
        lambda x: x * torch.sigmoid(torch.einsum("bchw -> bc", x)[:, :, None, None] / (x.shape[2] * x.shape[3])),
        lambda x: x * torch.sigmoid(torch.einsum("...hw", x).mean((2, 3))[:, :, None, None]),
        lambda x: (
            x * torch.sigmoid(torch.einsum("c...,cd->d...", x.mean((0, 2, 3)), torch.eye(8).to(x))[:, None, None])
        ),
        lambda x: x * (x.sum((2, 3), keepdim=True) / (1e-6 + x.sum((1, 2, 3), keepdim=True))),
        lambda x: x * torch.sigmoid((torch.exp(x) / torch.exp(x).sum((2, 3), True) * x).sum((2, 3), True)),
    ],
)
def test_means_may_be_written_out(gate: Callable[[Tensor], Tensor]) -> None:
    assert find_places(gated(lambda: Bend(gate), blocks=1)) == ("body.0.3.gate",)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = gated(Squeeze, blocks=1)
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("mean").copy_(x.mean((0, 2, 3), keepdim=True))
        y: Tensor = self.network(x)
        return y * 2 if self.get_buffer("mean").max() < 0.1 else y


def test_what_is_kept_of_the_image_is_refused_here_too() -> None:
    with pytest.raises(UnsupportedModel, match="it writes something of the image into a tensor that the network keeps"):
        freeze(Remembers().eval(), images())


class Part(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x)[:2]
        return result


def test_a_part_of_a_batch_is_no_result() -> None:
    with pytest.raises(UnsupportedModel, match="it takes a part of the batch"):
        freeze(Part(gated(POOLED[0], blocks=1)), images())


def test_networks_may_list_their_weights_otherwise() -> None:
    """As an optimiser wants them: the weights were counted by that list."""
    network, other = gated(POOLED[0]), gated(POOLED[0])
    other.load_state_dict(network.state_dict())
    vars(other)["parameters"] = lambda: [{"params": [], "lr": 1e-4}]
    assert freeze(other, images(2)).replacements == freeze(network, images(2)).replacements
