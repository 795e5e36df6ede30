"""A training for 8 bits starts from what `quantize` makes, and is not stuck there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.plain_nets import build, draw_image

from memsr_compiler import export_onnx, quantize
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.quantization.start_integers import start_integers
from memsr_compiler.runtime.runners import OrtNetwork


@pytest.mark.parametrize(
    "net",
    [
        build([8, 8], [3, 3, 3]),
        build([8, 8], [3, 3, 3], image_skip="nearest"),
        build([9, 5], [5, 1, 3], scale=3, channels=1, image_skip="nearest", input_range=(0.0, 255.0)),
        build([6], [3, 3], scale=1, input_range=(-1.0, 1.0)),
    ],
    ids=["x2", "image outside", "grey, 0 to 255", "x1"],
)
def test_the_start_is_what_quantize_makes(net: PlainNet, tmp_path: Path) -> None:
    with torch.no_grad():  # so that the result is an image
        net[-1].weight.mul_(0.2)
        net[-1].bias.mul_(0.2).add_(0 if net.info.image_skip else sum(net.info.input_range) / 2)
    images = [draw_image(net, 24, 24, seed) for seed in range(3)]
    low, high = net.info.input_range
    export_onnx(net, tmp_path / "net.onnx")
    quantize(
        tmp_path / "net.onnx", tmp_path / "int8.onnx", images, takes=Takes(net.scale, net.info.channels, (low, high))
    )
    integers, reference = start_integers(net, images).eval(), OrtNetwork(tmp_path / "int8.onnx")
    for size in ((1, 1), (5, 8), (20, 33)):
        x = draw_image(net, *size, seed=9)
        with torch.no_grad():
            levels = ((integers(x) - reference(x).clamp(low, high)) * (255 / (high - low))).abs()
        assert float(levels.max()) <= 1.01
        assert float((levels > 0.5).float().mean()) <= 0.01


def test_weights_start_between_the_middle_of_a_step_and_its_edge() -> None:
    net = build([8, 8], [3, 3, 3], image_skip="nearest")
    integers = start_integers(net, [draw_image(net, 24, 24, seed) for seed in range(3)])
    for i, layer in enumerate(integers.plain):
        counts, _, steps, _ = integers.layer_integers(i)
        off = (layer.weight.detach() / steps[:, None, None, None] - counts).abs()
        assert float(off.max()) < 0.26 and float(off.mean()) > 0.1


def test_what_has_no_integers_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no interpolated image"):
        start_integers(build([4], [3, 3], image_skip="bicubic"), [torch.rand(1, 3, 8, 8)])
