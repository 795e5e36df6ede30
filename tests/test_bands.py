"""By bands and columns, every network gives what it gives for the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memsr_compiler import Upscaler, compile_to_plain, save_plain
from memsr_compiler.bands import live_bytes, reach, run_bands, stages
from memsr_compiler.errors import InvalidInput
from memsr_compiler.families.edsr import EDSR
from memsr_compiler.families.vdsr import VDSR
from memsr_compiler.plain import PlainInfo, PlainLayer, PlainNet

INFO = PlainInfo(1, 3, (0.0, 1.0), "", "", "", 0, "", "")


def network(seed: int, kernels: list[int], shuffles: list[int]) -> PlainNet:
    """A random plain network in float64; 3 channels in and out."""
    generator = torch.Generator().manual_seed(seed)
    layers, channels, scale = [], 3, 1
    for i, (kernel, shuffle) in enumerate(zip(kernels, shuffles, strict=True)):
        last = i == len(kernels) - 1
        made = 3 if last else int(torch.randint(1, 5, (), generator=generator))
        weight = torch.randn(made * shuffle**2, channels, kernel, kernel, generator=generator, dtype=torch.float64)
        bias = torch.randn(made * shuffle**2, generator=generator, dtype=torch.float64)
        layers.append(PlainLayer(weight / kernel, bias, relu=not last, shuffle=shuffle))
        channels, scale = made, scale * shuffle
    return PlainNet(layers, PlainInfo(**{**INFO.__dict__, "scale": scale}))


@st.composite
def networks(draw: st.DrawFn) -> PlainNet:
    depth = draw(st.integers(1, 5))
    kernels = draw(st.lists(st.sampled_from([1, 3, 5]), min_size=depth, max_size=depth))
    shuffles = draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=depth, max_size=depth))
    return network(draw(st.integers(0, 1000)), kernels, shuffles)


def whole(net: PlainNet, image: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = net(image)
    return result


def image(height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)


@settings(max_examples=150, deadline=None)
@given(networks(), st.integers(1, 14), st.integers(1, 9), st.data())
def test_bands_of_any_height_give_the_whole(net: PlainNet, height: int, width: int, data: st.DataObject) -> None:
    x = image(height, width)
    cuts = sorted(data.draw(st.sets(st.integers(1, height), max_size=6)) | {height})
    bands = [x[:, :, top:end] for top, end in zip([0, *cuts], cuts, strict=False)]
    for layers, given_, back in (
        (stages(net), bands, False),
        (tuple(s.turned() for s in stages(net)), [image_.transpose(2, 3) for image_ in [x]], True),
    ):
        made = torch.cat(list(run_bands(layers, given_[0].shape[3], given_)), dim=2)
        made = made.transpose(2, 3) if back else made
        torch.testing.assert_close(made, whole(net, x), rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 20), st.integers(1, 20), st.floats(0, 1))
def test_any_limit_gives_the_whole(net: PlainNet, height: int, width: int, share: float) -> None:
    single = net.float()
    layers = stages(single)
    least = live_bytes(layers, 2 * reach(layers) + 1, 1)
    limit = least + int(share * live_bytes(layers, max(height, width), max(height, width)))
    pixels = image(height, width)[0].permute(1, 2, 0).float().numpy()
    with Upscaler(single, max_memory=limit) as upscale:
        made = upscale(pixels)
    expected = whole(single, torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=2e-4 * max(1.0, float(np.abs(expected).max())))


def test_what_is_held_is_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor that a stream holds or makes, counted as it runs."""
    net = network(3, [3, 5, 3, 3], [1, 1, 2, 1]).float()
    layers, width, rows = stages(net), 11, 8
    from memsr_compiler import bands as module

    held: list[int] = []

    class Counting(module.Stream):
        def _step(self, i: int, rows: Tensor) -> Tensor:
            before = sum(k.numel() for k in self._kept)
            read = self._kept[i].numel() + rows.numel()
            made = super()._step(i, rows)
            twice = 1 + (self._layers[i].shuffle > 1)
            held.append(4 * (before + max(rows.numel() + read, read + made.numel() * twice)))
            return made

    monkeypatch.setattr(module, "Stream", Counting)
    x = image(24, width).float()
    for height in (1, 3, rows):
        held.clear()
        list(run_bands(layers, width, x.split(height, 2)))
        assert 0.5 * live_bytes(layers, width, height) < max(held) <= live_bytes(layers, width, height)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_keep_their_dtype(dtype: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())
    save_plain(net, tmp_path / "plain.safetensors")
    peak = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels = (np.random.default_rng(0).random((30, 41, 3)) * peak).astype(dtype)
    with Upscaler(tmp_path / "plain.safetensors") as upscale:
        made = upscale(pixels)
        together = np.concatenate(list(upscale.bands(pixels)))
    assert made.dtype == dtype and made.shape == (60, 82, 3)
    x = torch.from_numpy(pixels.astype(np.float32) / peak).permute(2, 0, 1)[None]
    expected = whole(net, x)[0].permute(1, 2, 0).numpy()
    expected = expected if dtype is np.float32 else np.clip(expected, 0, 1) * peak
    tolerance = 1e-5 if dtype is np.float32 else 0.51 + 1e-5 * peak  # half a level, and rounding
    assert np.abs(made.astype(np.float64) - expected).max() < tolerance
    assert np.abs(together.astype(np.float64) - made.astype(np.float64)).max() <= max(2e-5 * peak, 1e-5)


def test_the_network_that_is_given_stays_as_it_is() -> None:
    net = network(0, [3, 3], [1, 2])
    Upscaler(net)
    assert net[0].weight.dtype == torch.float64


def test_networks_on_luma_take_flat_images() -> None:
    torch.manual_seed(0)
    net = compile_to_plain(VDSR(blocks=2, channels=4).eval())
    pixels = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    made = Upscaler(net)(pixels)
    assert made.shape == (9, 7)
    np.testing.assert_allclose(made, whole(net, torch.from_numpy(pixels)[None, None])[0, 0], atol=1e-5)


def test_what_upscaler_refuses() -> None:
    net = network(0, [3, 3], [1, 2]).float()
    with pytest.raises(InvalidInput, match="too few: a column of one pixel and its halo take"):
        Upscaler(net, max_memory=100)(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(InvalidInput, match="do not fit"):
        list(Upscaler(net, max_memory=live_bytes(stages(net), 20, 1)).bands(np.zeros((50, 50, 3), np.uint8)))
    for wrong in (np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(InvalidInput, match=r"the network takes \(H, W, 3\)"):
            Upscaler(net)(wrong)
    with pytest.raises(InvalidInput, match="dtype int64"):
        Upscaler(net)(np.zeros((5, 5, 3), np.int64))
    skipping = PlainNet(list(net), PlainInfo(**{**net.info.__dict__, "image_skip": "bicubic"}))
    with pytest.raises(InvalidInput, match="bicubic enlargement"):
        Upscaler(skipping)
