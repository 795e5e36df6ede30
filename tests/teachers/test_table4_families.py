"""SRCNN, LatticeNet and SwinIR-S as they were published: parameters, sizes of images, gradients, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from memsr_compiler import compile_to_plain, read_teacher
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.images.files import sample_photographs, to_tensor
from memsr_compiler.images.resize import resize
from memsr_compiler.teachers.families.latticenet import LatticeNet
from memsr_compiler.teachers.families.srcnn import SRCNN
from memsr_compiler.teachers.families.swinir import (
    APART,
    SwinIR,
    infer,
    mask_strangers,
    mirror_to_multiple,
    number_pairs,
)

SIZES = ((1, 1), (1, 9), (7, 3), (8, 8), (13, 17))
SMALL_SWIN = {"blocks": 1, "layers": 2, "channels": 12, "heads": 2, "window": 4}
SMALL: dict[str, Callable[[int], nn.Module]] = {
    "srcnn": lambda scale: SRCNN(scale=scale, channels=8, narrow=4, colours=3),
    "latticenet": lambda scale: LatticeNet(scale=scale, blocks=2, channels=8, narrow=6, hidden=8),
    "swinir": lambda scale: SwinIR(scale=scale, **SMALL_SWIN),
}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("middle", "parameters"), [(1, 8_129), (3, 24_513), (5, 57_281)])
def test_srcnn_has_the_parameters_of_the_paper(middle: int, parameters: int) -> None:
    """8,032, 24,416 and 57,184 weights in TPAMI 2016, and 97 biases."""
    assert count(SRCNN(middle=middle)) == parameters


@pytest.mark.parametrize(("scale", "thousands"), [(2, 756), (3, 765), (4, 777)])
def test_latticenet_has_the_parameters_that_are_published(scale: int, thousands: int) -> None:
    assert round(count(LatticeNet(scale=scale)) / 1000) == thousands


@pytest.mark.parametrize(("scale", "thousands"), [(2, 878), (3, 886), (4, 897)])
def test_swinir_has_the_parameters_that_are_published_and_a_convolution_more(scale: int, thousands: int) -> None:
    """What the paper prints is less by exactly the convolution after the body, which the authors' files have."""
    network = SwinIR(scale=scale)
    assert round((count(network) - count(network.conv_after_body)) / 1000) == thousands
    assert count(network.conv_after_body) == 60 * 60 * 9 + 60


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_images_of_any_size_are_enlarged(name: str, scale: int) -> None:
    torch.manual_seed(0)
    network = SMALL[name](scale).eval()
    for height, width in SIZES:
        with torch.no_grad():
            y = network(torch.rand(2, 3, height, width))
        assert y.shape == (2, 3, scale * height, scale * width)
        assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("flat", [False, True])
def test_gradients_reach_every_weight(name: str, flat: bool) -> None:
    """Of a flat image too, whose deviation is 0."""
    torch.manual_seed(0)
    network = SMALL[name](2)
    image = torch.full((1, 3, 9, 6), 0.5) if flat else torch.rand(1, 3, 9, 6)
    network(image).square().mean().backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), key
            assert flat or bool(parameter.grad.any()), key


def test_srcnn_enlarges_as_the_protocols_do_inside_the_image() -> None:
    pixels = sample_photographs()[0][:24, :32]
    network = SRCNN(scale=3, colours=3)
    seen: list[Tensor] = []
    network.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(to_tensor(pixels / 255))
    expected = to_tensor(resize(pixels, 3, rounding=False) / 255)
    torch.testing.assert_close(seen[0][..., 6:-6, 6:-6], expected[..., 6:-6, 6:-6], rtol=0, atol=1e-6)


def test_an_image_goes_on_as_its_mirror_image() -> None:
    x = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert mirror_to_multiple(x, 4).tolist() == [[[[0.0, 1.0, 2.0, 2.0]] * 4]]
    assert mirror_to_multiple(x, 8)[0, 0, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    assert torch.equal(mirror_to_multiple(x, 1), x)


def test_swinir_gives_of_a_mirrored_image_what_it_gives_of_the_image() -> None:
    torch.manual_seed(0)
    network = SwinIR(scale=2, **SMALL_SWIN).eval()
    x = torch.rand(1, 3, 5, 7)
    whole = torch.cat([x, x.flip(2)[:, :, :3]], 2)
    whole = torch.cat([whole, whole.flip(3)[:, :, :, :1]], 3)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(whole)[:, :, :10, :14])


def test_pairs_and_strangers_of_a_window() -> None:
    """By hand: windows of 2 pixels a side, an image of 2 x 4."""
    assert number_pairs(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    mask = mask_strangers(torch.zeros(1, 1, 2, 4), 2)
    rows = [[p // 2 == q // 2 for q in range(4)] for p in range(4)]  # one row of windows, whose halves are apart
    assert mask[0].tolist() == [[0 if same else APART for same in row] for row in rows]
    assert mask[1].tolist() == [[0 if p == q else APART for q in range(4)] for p in range(4)]


def test_srcnn_on_the_enlarged_image_is_plain() -> None:
    torch.manual_seed(0)
    network = SRCNN(channels=8, narrow=4).eval()
    plain = compile_to_plain(network)
    x = torch.rand(1, 1, 11, 7)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x), rtol=0, atol=1e-5)
    assert plain.info.scale == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("srcnn", r"^the network: interpolate: .* enlarge the image before the network"),
        (
            "latticenet",
            r"^body_unit1\.fea_ca1: mean: every output pixel depends on the whole image.*remove the pooling",
        ),
        (
            "swinir",
            r"^layers\.0\.residual_group\.blocks\.0\.attn: matmul: it is a product of two feature maps.*piecewise "
            r"linear; remove attention and retrain; eval, bench and upscale --tile off run",
        ),
    ],
)
def test_what_cannot_be_plain_is_refused(name: str, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        compile_to_plain(SMALL[name](2).eval())


def test_keys_of_swinir_that_describe_a_network_of_quadratic_size_are_none() -> None:
    """A hundred groups, of which the first has a hundred layers: 20 KB that built ten thousand."""
    shapes = {name: value.shape for name, value in SwinIR(scale=2, **SMALL_SWIN).state_dict().items()}
    assert infer(shapes) is not None
    for number in range(100):
        shapes[f"layers.{number}.conv.weight"] = shapes["layers.0.conv.weight"]
        shapes[f"layers.0.residual_group.blocks.{number}.norm1.weight"] = torch.Size([4])
    assert infer(shapes) is None


def test_a_table_of_a_large_window_is_not_believed_before_its_pairs_are_there(tmp_path: Path) -> None:
    """Of a window of 300 pixels they would take 65 GB."""
    state = dict(SwinIR(scale=2, **SMALL_SWIN).state_dict())
    for name in [name for name in state if name.endswith("bias_table")]:
        state[name] = torch.zeros(599**2, state[name].shape[1])
        state[name.replace("bias_table", "index")] = torch.zeros(4, 4, dtype=torch.int64)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match="numbers pairs of pixels in another way than SwinIR does"):
        read_teacher(tmp_path / "a.pth", probe=False)
