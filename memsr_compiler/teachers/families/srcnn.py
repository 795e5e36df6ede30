"""SRCNN: three convolutions that restore a bicubically enlarged image, the first network for super-resolution.

Key names of the widespread PyTorch version: `conv1`, `conv2`, `conv3`. Dialect: `features.0`, `map.0`,
`reconstruction`. (The authors' own weights are MATLAB and Caffe files.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.base import Family, by_patterns, conv, has_kernels, renaming

FIRST, LAST = 9, 5
"""Kernel sizes of the first and the last convolution, the same in all networks of the paper."""


class SRCNN(nn.Module):
    """(N, colours, H, W) -> (N, colours, scale * H, scale * W), in [0, 1]; usually the Y channel alone.

    scale     factor by which it enlarges the image first, bicubically with a = -0.5 as MATLAB does inside the image;
              1: it is given the enlarged image, as the published weights are
    middle    kernel size of the second convolution: 5 (9-5-5), 3 or 1 (9-1-5)
    channels  width of the first layer     narrow  width of the second
    Raises InvalidInput for an even kernel or a scale below 1.
    Source: Dong et al., "Image Super-Resolution Using Deep Convolutional Networks" (TPAMI 2016), 9-5-5; 9-1-5 is that
    of "Learning a Deep Convolutional Network for Image Super-Resolution" (ECCV 2014).
    """

    def __init__(
        self, *, scale: int = 1, middle: int = 5, channels: int = 64, narrow: int = 32, colours: int = 1
    ) -> None:
        super().__init__()
        if scale < 1 or middle < 1 or middle % 2 == 0:
            raise InvalidInput(f"SRCNN: scale={scale}, middle={middle}. Its scale is 1 or more, its kernels are odd.")
        self.scale = scale
        self.conv1 = conv(colours, channels, FIRST)
        self.conv2 = conv(channels, narrow, middle)
        self.conv3 = conv(narrow, colours, LAST)

    def forward(self, x: Tensor) -> Tensor:
        """The image in the range of the input, not clipped to it."""
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=self.scale, mode="bicubic", antialias=True)  # without it a is -0.75
        result: Tensor = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return result


def infer(shapes: Mapping[str, torch.Size]) -> dict[str, object] | None:
    """The arguments of SRCNN but `scale`, of which there is no trace; None if it is another network's."""
    if not has_kernels(shapes, "conv1.weight", "conv2.weight", "conv3.weight") or "conv4.weight" in shapes:
        return None
    first, second, third = (shapes[f"conv{number}.weight"] for number in (1, 2, 3))
    channels, colours = first[:2]
    narrow, middle = second[0], second[2]
    expected = (
        (channels, colours, FIRST, FIRST),
        (narrow, channels, middle, middle),
        (colours, narrow, LAST, LAST),
    )
    if (first, second, third) != expected or middle % 2 == 0:
        return None
    return {"middle": middle, "channels": channels, "narrow": narrow, "colours": colours}


BY_TASK = renaming(
    "a version with a name for each part",
    by_patterns(
        {
            r"features\.0\.(weight|bias)": r"conv1.\1",
            r"map\.0\.(weight|bias)": r"conv2.\1",
            r"reconstruction\.(weight|bias)": r"conv3.\1",
        }
    ),
    infer,
)

FAMILY = Family(
    name="srcnn",
    build=SRCNN,
    infer=infer,
    activation="ReLU",
    habits=("bicubic enlargement with a -0.5",),  # mmagic's code enlarges with a -0.75, by the same keys
    source="Dong et al., Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016",
    description="SRCNN on the bicubically enlarged image (scale 1), one Y channel; a scale makes it enlarge itself",
    dialects=(BY_TASK,),
)
