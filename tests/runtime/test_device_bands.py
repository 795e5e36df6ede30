"""Bands on a device, whose kept rows stay there: run on the processor here, which holds values in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.bounds import likely_rounding
from helpers.random_plain import image, network, networks, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from memsr_compiler import Upscaler
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime import ort, upscaler
from memsr_compiler.runtime.bands import Rows
from memsr_compiler.runtime.device_bands import DeviceBands, build_part, device_bytes, least_rows
from memsr_compiler.runtime.upscaler import SLACK, layers_of


def cut(x: Rows, tops: list[int]) -> Iterator[Rows]:
    """An image (C, H, W) by bands, each in the same memory, which the next one takes."""
    buffer = np.empty_like(x)
    for top, below in zip([0, *tops], [*tops, x.shape[1]], strict=True):
        band = buffer[:, : below - top]
        band[:] = x[:, top:below]
        yield band


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 30), st.integers(1, 9), st.data())
def test_bands_of_any_height_give_the_whole(net: PlainNet, height: int, width: int, data: st.DataObject) -> None:
    """Empty ones too, and images of fewer rows than a first band needs."""
    x = image(height, width)
    net = net.float()
    expected, bound = whole(net, x.float())[0], likely_rounding(net, x.float(), torch.float32)[0]
    tops = sorted(data.draw(st.lists(st.integers(0, height), max_size=6)))
    bands = DeviceBands(layers_of(net), image_skip=bool(net.info.image_skip), provider="cpu")
    for _ in range(2):  # sessions are used again
        made = np.concatenate(list(bands.run(cut(x[0].float().numpy(), tops))), axis=1)
        assert made.dtype == np.float32
        assert bool(((torch.from_numpy(made) - expected).abs() <= bound).all())


def test_no_rows_give_none() -> None:
    assert list(DeviceBands(layers_of(network(0, [3], [1]).float()), provider="cpu").run([])) == []


def test_what_is_kept_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every band only the image goes to the device, and only the result comes back."""
    sent: list[tuple[int, ...]] = []
    send = onnxruntime.OrtValue.ortvalue_from_numpy

    def record(array: Any, *place: Any) -> Any:
        sent.append(array.shape)
        return send(array, *place)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", record)
    x = image(40, 5)[0].float().numpy()
    bands = DeviceBands(layers_of(network(0, [3, 1, 3], [1, 1, 2]).float()), provider="cpu")
    made = [rows.shape for rows in bands.run(cut(x, [10, 20, 30]))]
    assert sent == [(1, 3, 10, 5)] * 4
    assert [rows for _, rows, _ in made] == [16, 20, 20, 24]


@pytest.mark.parametrize("number", [np.float16, np.float32])
def test_halves_stay_halves(number: Any) -> None:
    layers = [layer.astype(number) for layer in layers_of(network(0, [3, 3], [1, 2]))]
    model = onnx.load_from_string(build_part(layers, "middle", image_skip=True))
    onnx.checker.check_model(model, full_check=True)
    values = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in values} == {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(number))}
    assert {t.data_type for t in model.graph.initializer} - {onnx.TensorProto.INT64} == {
        values[0].type.tensor_type.elem_type
    }
    (made,) = DeviceBands(layers, provider="cpu").run([image(9, 9)[0].float().numpy()])
    exact = whole(network(0, [3, 3], [1, 2]), image(9, 9))[0].numpy()
    assert np.abs(made - exact).max() < (0.05 if number == np.float16 else 1e-5) * np.abs(exact).max()


def test_bytes_are_those_of_the_maps_that_are_alive() -> None:
    """3 -> 4 channels by 3x3, then 4 -> 12 and a shuffle by 2: bands of 10 rows of 7 pixels, counted by hand."""
    layers = [layer.to_float32() for layer in layers_of(network(5, [3, 3], [1, 2]))]
    inner = len(layers[0].bias)
    kept = 2 * (3 + inner) * 2 * 7
    largest = (2 * inner * (12 + 2) + 2 * 12 * 12) * 7
    ends = 3 * 7 * (10 + 40)
    assert device_bytes(layers, 7, 10) == 4 * (kept + largest + ends)
    waiting = 2 * 3 * 7 * (2 + 10) + ends
    assert device_bytes(layers, 7, 10, image_skip=True) == 4 * (kept + largest + ends + waiting)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is the processor."""
    monkeypatch.setattr(upscaler, "require_provider", lambda provider: None)
    monkeypatch.setattr(ort, "device_of", lambda provider: "cpu")
    start = ort.start_session
    monkeypatch.setattr(ort, "start_session", lambda model, options, provider, **_: start(model, options, "cpu"))


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("skip", ["", "nearest"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (50, 9), (9, 50), (3, 40)])
def test_an_upscaler_there_gives_what_it_gives_here(skip: str, height: int, width: int) -> None:
    net = network(1, [3, 3, 3], [1, 1, 2]).float()
    net.info = replace(net.info, image_skip=skip)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = Upscaler(net)(pixels)
    least = Upscaler(net, provider="cuda").needed(7, 6)
    for limit in (None, least, least + 20_000):
        with Upscaler(net, provider="cuda", max_memory=limit) as upscale:
            made = upscale(pixels)
            assert np.abs(made.astype(int) - expected).max() <= 1
            if limit is None and height >= width:
                assert np.array_equal(np.concatenate(list(upscale.bands(pixels))), made)


@pytest.mark.usefixtures("on_device")
def test_bands_are_as_high_as_the_memory_allows() -> None:
    net = network(1, [3, 3, 3], [1, 1, 2]).float()
    least = least_rows(layers_of(net))
    limit = Upscaler(net, provider="cuda").needed(100, 200)
    assert Upscaler(net, provider="cuda", max_memory=limit).rows(100) == 200
    assert Upscaler(net, provider="cuda").rows(100) == upscaler.DEVICE_ROWS
    assert not Upscaler(net, provider="cuda", max_memory=limit).streams(10_000)
    with pytest.raises(InvalidInput, match="too few"):
        Upscaler(net, provider="cuda", max_memory=SLACK + 100)(np.zeros((50, 50, 3), np.uint8))
    assert least == 6


@pytest.mark.usefixtures("on_device")
def test_a_network_in_float16_is_run_so_there() -> None:
    half = network(1, [3, 3, 3], [1, 1, 2]).half()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 3), np.uint8)
    assert {layer.weight.dtype for layer in Upscaler(half, provider="cuda")._layers} == {np.dtype(np.float16)}
    assert {layer.weight.dtype for layer in Upscaler(half)._layers} == {np.dtype(np.float32)}
    wide = network(1, [3, 3, 3], [1, 1, 2]).float()
    halves, floats = (Upscaler(net, provider="cuda").needed(100, 100) - SLACK for net in (half, wide))
    assert 2 * halves == floats
    assert Upscaler(half, provider="cuda")(pixels).shape == (40, 18, 3)
