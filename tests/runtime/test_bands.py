"""By bands and columns, every network gives what it gives for the whole image."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.bounds import likely_rounding
from helpers.random_plain import INFO, image, network, networks, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from memsr_compiler import Upscaler, compile_to_plain, save_plain
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.runtime.bands import Rows, live_bytes, reach, run_bands
from memsr_compiler.runtime.ort_layers import Layer, OrtLayers
from memsr_compiler.runtime.upscaler import ROWS, SLACK, layers_of, to_pixels
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.vdsr import VDSR


def require_close(net: PlainNet, x: Tensor, made: np.ndarray[Any, Any]) -> None:
    """What was made of an image, (H, W, C), is what float32 may make of it."""
    difference = (torch.from_numpy(made.copy()).permute(2, 0, 1)[None].double() - whole(net, x).double()).abs()
    assert bool((difference <= likely_rounding(net, x, torch.float32)).all())


class InFloat64:
    """torch as the engine, so that the bands' own mistakes are far above its rounding."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers

    def __call__(self, number: int, read: Rows, made: Rows) -> None:
        layer = self.layers[number]
        weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
        y = F.conv2d(torch.from_numpy(read)[None], weight, bias, padding=(0, layer.kernel_size // 2))
        if layer.slope is not None:
            y = F.prelu(y, torch.from_numpy(layer.slope).flatten())
        made[:] = F.pixel_shuffle(y.relu() if layer.relu else y, layer.shuffle)[0].numpy()

    def reserve(self, numbers: int) -> None:
        assert numbers > 0


@settings(max_examples=150, deadline=None)
@given(networks(), st.integers(1, 14), st.integers(1, 9), st.booleans(), st.data())
def test_bands_of_any_height_give_the_whole(
    net: PlainNet, height: int, width: int, turned: bool, data: st.DataObject
) -> None:
    x = image(height, width)
    cuts = sorted(data.draw(st.sets(st.integers(1, height), max_size=6)) | {height})
    bands = [x[0, :, top:end].numpy() for top, end in zip([0, *cuts], cuts, strict=False)]
    highest = max(band.shape[1] for band in bands)
    layers, seen = layers_of(net), x.transpose(2, 3) if turned else x
    expected, bound = whole(net, seen)[0], likely_rounding(net, seen, torch.float64)[0]
    if turned:
        layers = tuple(layer.transpose() for layer in layers)
        expected, bound = expected.transpose(1, 2), bound.transpose(1, 2)
    results = run_bands(layers, InFloat64(layers), width, highest, bands, image_skip=bool(net.info.image_skip))
    made = np.concatenate([rows.copy() for rows in results], axis=1)
    assert bool(((torch.from_numpy(made) - expected).abs() <= bound).all())


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.none() | st.integers(1, 25))
def test_any_limit_and_columns_give_the_whole(
    net: PlainNet, height: int, width: int, share: float, columns: int | None
) -> None:
    single = net.float()
    layers = layers_of(single)
    needed = Upscaler(single).needed
    limit = needed(2 * reach(layers) + 1, 1) + int(share * needed(max(height, width), max(height, width)))
    pixels = image(height, width)[0].permute(1, 2, 0).sigmoid().float().numpy()
    with Upscaler(single, max_memory=limit, columns=columns) as upscale:
        made = upscale(pixels)
    require_close(single, torch.from_numpy(pixels).permute(2, 0, 1)[None], made)


PEAK = """
import sys, numpy as np
from pathlib import Path
from memsr_compiler import Upscaler

def status(key):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) << 10

file, height, width, limit = sys.argv[1], *map(int, sys.argv[2:])
upscale = Upscaler(file, max_memory=limit or None, threads=1)
image = np.zeros((height, width, 3), np.uint8)
upscale(np.zeros((2 * height // max(height, width) + 1, 2 * width // max(height, width) + 1, 3), np.uint8))
result = np.ones((2 * height, 2 * width, 3), np.uint8)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
upscale(image, out=result)
print(status("VmHWM") - before, upscale.needed(min(height, width), 32))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak memory")
@pytest.mark.parametrize(
    ("widths", "height", "width", "limit", "slope"),
    [
        ([48] * 9, 300, 500, 0, None),
        ([48] * 9, 900, 301, 0, 0.25),
        ([40] * 9, 1200, 400, 12 << 20, None),
        ([48] * 9, 300, 2000, 6 << 20, None),  # has to be cut into columns
        ([48] * 9, 300, 2000, 6 << 20, 0.25),
        ([24, 40, 72, 104, 72, 64, 256], 400, 500, 60 << 20, None),  # the arena has to serve all sizes
    ],
)
def test_the_process_takes_no_more_than_was_said(
    widths: list[int], height: int, width: int, limit: int, slope: float | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shapes = [*zip(widths, [3, *widths], strict=False), (12, widths[-1])]
    layers = [
        PlainLayer(
            torch.randn(o, i, 3, 3) / i,
            torch.zeros(o),
            relu=o > 12 and slope is None,
            shuffle=1 if o > 12 else 2,
            slope=None if slope is None or o == 12 else torch.full((o, 1, 1), slope),
        )
        for o, i in shapes
    ]
    save_plain(PlainNet(layers, PlainInfo(**{**INFO.__dict__, "scale": 2})), tmp_path / "net.safetensors")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "net.safetensors"), str(height), str(width), str(limit)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    peak, said = int(told[0]), limit or int(told[1])
    assert 0.25 * said < peak <= said


GROWING = """
upscale = Upscaler(file, max_memory=limit, threads=1)
upscale(np.zeros((2, 2, 3), np.uint8))
upscale(np.zeros((2, 3, 3), np.uint8))
images = [np.zeros((side, side + 7 * (i % 3 - 1), 3), np.uint8) for i, side in enumerate(range(40, 321, 40))]
results = [np.ones((2 * len(image), 2 * image.shape[1], 3), np.uint8) for image in images]
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
for image, result in zip(images, results):
    upscale(image, out=result)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak memory")
def test_nor_do_images_that_grow_add_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_plain(compile_to_plain(EDSR(scale=2, blocks=4, channels=32).eval()), tmp_path / "net.safetensors")
    limit = 40 << 20
    code = PEAK.partition("upscale = ")[0] + GROWING
    command = [sys.executable, "-c", code, str(tmp_path / "net.safetensors"), "0", "0", str(limit)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.25 * limit < peak <= limit


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_keep_their_dtype(dtype: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())
    save_plain(net, tmp_path / "plain.safetensors")
    peak = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels: Any = (np.random.default_rng(0).random((30, 41, 3)) * peak).astype(dtype)
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


def test_the_engine_is_torch_to_rounding() -> None:
    net = network(5, [3, 1, 5, 3], [1, 1, 2, 1]).float()
    layers = layers_of(net)
    engine, magnitudes = (
        OrtLayers(layers, threads=2),
        InFloat64([replace(layer, weight=np.abs(layer.weight), bias=np.abs(layer.bias)) for layer in layers]),
    )
    for i, layer in enumerate(layers):
        read = np.random.default_rng(i).standard_normal(
            (layer.weight.shape[1], 7 + layer.kernel_size - 1, 11), np.float32
        )
        made = [np.empty((layer.out_channels, 7 * layer.shuffle, 11 * layer.shuffle), np.float32) for _ in range(3)]
        engine(i, read, made[0])
        InFloat64(layers)(i, read, made[1])
        magnitudes(i, np.abs(read), made[2])
        terms = layer.weight[0].size + 1
        assert (np.abs(made[0] - made[1]) <= np.finfo(np.float32).eps * terms * made[2]).all()


def test_networks_on_luma_take_flat_images() -> None:
    torch.manual_seed(0)
    net = compile_to_plain(VDSR(blocks=2, channels=4).eval())
    pixels = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    made = Upscaler(net)(pixels)
    assert made.shape == (9, 7)
    require_close(net, torch.from_numpy(pixels)[None, None], made[..., None])


def test_the_result_goes_where_it_is_wanted() -> None:
    net, pixels = network(0, [3, 3], [1, 2]).float(), np.random.default_rng(0).random((9, 14, 3), np.float32)
    expected = Upscaler(net)(pixels)
    backwards = np.zeros_like(expected)[::-1]
    assert Upscaler(net)(pixels, out=backwards) is backwards and np.array_equal(backwards, expected)


def test_the_result_may_lie_over_the_image() -> None:
    """Pixels were read that had been written over."""
    net, pixels = network(0, [3, 3], [1, 2]).float(), np.random.default_rng(0).random((40, 14, 3), np.float32)
    expected = Upscaler(net)(pixels)
    place = np.zeros_like(expected)
    image = place[:40, :14]
    image[:] = pixels
    upscale = Upscaler(net, max_memory=SLACK + 60_000)
    assert np.array_equal(upscale(image, out=place), expected)


def test_what_upscaler_refuses() -> None:
    net = network(0, [3, 3], [1, 2]).float()
    with pytest.raises(InvalidInput, match="too few: a column of one pixel and its halo take"):
        Upscaler(net, max_memory=SLACK + 100)(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(InvalidInput, match=r"rows of 50 pixels take .* bytes: give the whole image at once"):
        list(Upscaler(net, max_memory=live_bytes(layers_of(net), 20, 1) + SLACK).bands(np.zeros((50, 50, 3), np.uint8)))
    for wrong in (np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(InvalidInput, match=r"the network takes \(H, W, 3\)"):
            Upscaler(net)(wrong)
    with pytest.raises(InvalidInput, match="rows of 50 pixels are cut at 7"):
        list(Upscaler(net, columns=7).bands(np.zeros((50, 50, 3), np.uint8)))
    options: list[dict[str, Any]] = [{"columns": 0}, {"columns": -5}, {"threads": 0}, {"max_memory": 1.5}]
    for option in options:
        with pytest.raises(InvalidInput, match="want a whole number from 1 up"):
            Upscaler(net, **option)
    for out in (np.zeros((20, 5, 3), np.uint8), np.zeros((10, 10, 3), np.float32), np.zeros((10, 10), np.uint8)):
        with pytest.raises(InvalidInput, match=r"the result is uint8 \(10, 10, 3\)"):
            Upscaler(net)(np.zeros((5, 5, 3), np.uint8), out=out)
    with pytest.raises(InvalidInput, match="dtype int64"):
        Upscaler(net)(np.zeros((5, 5, 3), np.int64))
    skipping = PlainNet(list(net), PlainInfo(**{**net.info.__dict__, "image_skip": "bicubic"}))
    with pytest.raises(InvalidInput, match="bicubic enlargement"):
        Upscaler(skipping)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_repeated_image_is_added_in_bounded_memory(mode: str) -> None:
    """Its rows wait in three channels, as many as the network reaches: what is counted grows by them and no more."""
    net = network(0, [3, 3, 3], [1, 1, 2]).float()
    repeating, resized = (PlainNet(list(net), replace(net.info, image_skip=s)) for s in ("nearest", mode))
    with Upscaler(net) as alone, Upscaler(repeating) as with_image:
        assert with_image.needed(100, 8) - alone.needed(100, 8) == 4 * 3 * (3 + 8) * 100
    with pytest.raises(InvalidInput, match=f"{mode} enlargement"):
        Upscaler(resized)


def test_images_as_people_have_them() -> None:
    net = network(0, [3, 3], [1, 2]).float()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    picture: Any = Image.fromarray(pixels)
    upscale = Upscaler(net)
    expected = upscale(pixels)
    assert np.array_equal(upscale(picture), expected)
    lists = upscale((pixels / 255).tolist())
    assert lists.dtype == np.float64 and np.array_equal(lists, upscale(pixels / 255))
    assert upscale((pixels / 255).astype(np.float16)).dtype == np.float16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, r"the image is a NoneType; give an array \(H, W, 3\) of uint8, uint16, or floating 0\.\.1"),
        ("photograph.png", "the image is a str; give an array"),
        (torch.zeros(1, 3, 4, 4), r"a torch tensor; give an array .*: x\[0\]\.permute\(1, 2, 0\)\.cpu\(\)\.numpy\(\)"),
        ([[1.0, 2.0], [3.0]], "the image is no array"),
        (object(), "image of dtype object; give an array"),
        (np.full((5, 5, 3), 200.0), r"floating pixels from 200 to 200; give them in 0\.\.1, those of 0\.\.255 divided"),
        (np.full((5, 5, 3), np.nan, np.float32), "floating pixels from nan to nan"),
        (np.zeros((5, 5, 3), bool), "image of dtype bool; give an array"),
        (
            np.zeros((3, 8, 9)),
            r"shape \(3, 8, 9\); the network takes \(H, W, 3\); its channels come first: image\.trans",
        ),
        (np.zeros((1, 3, 8, 9)), r"image of shape \(1, 3, 8, 9\); the network takes \(H, W, 3\)$"),
        (0.5, r"image of shape \(\); the network takes \(H, W, 3\)$"),
    ],
)
def test_what_is_no_image(wrong: Any, message: str) -> None:
    upscale = Upscaler(network(0, [3, 3], [1, 2]).float())
    with pytest.raises(InvalidInput, match=message):
        upscale(wrong)
    with pytest.raises(InvalidInput, match=message):
        list(upscale.bands(wrong))


def test_networks_on_luma_say_which_shapes_they_take() -> None:
    torch.manual_seed(0)
    upscale = Upscaler(compile_to_plain(VDSR(blocks=1, channels=4).eval()))
    with pytest.raises(InvalidInput, match=r"image of shape \(5, 5, 3\); the network takes \(H, W\) or \(H, W, 1\)"):
        upscale(np.zeros((5, 5, 3)))


def test_a_limit_as_people_write_it(tmp_path: Path) -> None:
    net = network(0, [3, 3], [1, 2]).float()
    pixels = np.zeros((6, 5, 3), np.uint8)
    assert np.array_equal(Upscaler(net, max_memory="24MB")(pixels), Upscaler(net)(pixels))
    with pytest.raises(InvalidInput, match=r"^4,194,404 bytes are too few"):
        Upscaler(net, max_memory=f"{SLACK + 100}B")(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(InvalidInput, match=r"max_memory '24XB': want a whole number from 1 up, or a size such as 40MB"):
        Upscaler(net, max_memory="24XB")


@pytest.mark.parametrize("wrong", [None, 3, torch.nn.Identity()])
def test_what_is_no_plain_network(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=f"a plain network is wanted, or its file, not {type(wrong).__name__}"):
        Upscaler(wrong)


def test_the_result_has_to_fit_into_an_array() -> None:
    with pytest.raises(InvalidInput, match="out is a list; want an array for the result"):
        Upscaler(network(0, [3, 3], [1, 2]).float())(np.zeros((5, 5, 3), np.uint8), out=[])  # type: ignore[arg-type]


def test_rows_for_which_no_machine_has_memory() -> None:
    """A PNG of 16,000,000 x 16 pixels takes 50 KB on the disk; without a limit, the machine's own is one."""
    upscale = Upscaler(network(0, [3, 3], [1, 2]))
    assert upscale.rows(1000) == ROWS
    with pytest.raises(InvalidInput, match=r"rows of 10,000,000,000,000 pixels take .* bytes: .*allow more"):
        upscale.rows(10**13)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_output_that_is_no_number_makes_no_image(number: float, dtype: type[np.generic]) -> None:
    """NaN became a black pixel, and infinity a white one."""
    rows = np.zeros((12, 4, 5), np.float32)
    rows[7, 2, 3] = number
    with pytest.raises(InvalidInput, match="the network's output is NaN or infinite for this image"):
        to_pixels(rows, (0.0, 255.0), dtype, shuffle=2)
    rows[7, 2, 3] = np.finfo(np.float32).max
    rows[8] = -np.finfo(np.float32).max
    assert to_pixels(rows, (0.0, 255.0), dtype, shuffle=2).shape == (8, 10, 3)
