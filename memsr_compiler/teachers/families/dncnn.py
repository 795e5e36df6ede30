"""DnCNN: a straight stack of convolutions that predicts the noise in an image.

Key names of KAIR, where the authors publish their weights: all layers in one sequence `model.N`; batch
normalisation, where there is any, counts as a layer of its own. IRCNN, FFDNet and anybody's stack have the same keys,
whatever their dilation, activation or skip.
"""

from __future__ import annotations

import re
from functools import partial

from torch import Tensor, nn

from memsr_compiler.teachers.families.base import Family, Shapes, conv, has_kernels, leaving_open


class DnCNN(nn.Module):
    """x minus the noise that `layers` convolutions find in it: (N, colours, H, W), same shape, in [0, 1].

    batch_norm  between each inner convolution and its ReLU; the published weights have it folded in already
    eps         what that adds to variances: KAIR's own, ten times torch's
    Source: Zhang et al., "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising"
    (TIP 2017).
    """

    def __init__(
        self, *, layers: int = 17, channels: int = 64, colours: int = 1, batch_norm: bool = False, eps: float = 1e-4
    ) -> None:
        super().__init__()
        model: list[nn.Module] = [conv(colours, channels), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            norm = [nn.BatchNorm2d(channels, eps=eps)] if batch_norm else []
            model += [conv(channels, channels), *norm, nn.ReLU(inplace=True)]
        self.model = nn.Sequential(*model, conv(channels, colours))

    def forward(self, x: Tensor) -> Tensor:
        """The image without its noise, not clipped to [0, 1]."""
        result: Tensor = x - self.model(x)
        return result


def infer(shapes: Shapes) -> dict[str, object] | None:
    """The arguments of DnCNN without batch normalisation for a state dict of these shapes; None if it is another's."""
    return _infer(shapes, batch_norm=False)


def _infer(shapes: Shapes, *, batch_norm: bool) -> dict[str, object] | None:
    if batch_norm != any(key.endswith(".running_mean") for key in shapes):
        return None
    if not has_kernels(shapes, "model.0.weight", "model.2.weight"):
        return None
    if not all(re.fullmatch(r"model\.\d+\.\w+", key) for key in shapes):
        return None
    channels, colours = shapes["model.0.weight"][:2]
    return {
        "layers": sum(len(shape) == 4 for shape in shapes.values()),
        "channels": channels,
        "colours": colours,
        "batch_norm": batch_norm,
    }


FAMILY = Family(
    name="dncnn",
    build=DnCNN,
    infer=infer,
    source="Zhang et al., Beyond a Gaussian Denoiser: Residual Learning of Deep CNN, TIP 2017",
    description="DnCNN denoiser (scale 1), with or without batch normalisation; to be named, many stacks have its keys",
    habits=("no dilation", "ReLU between layers", "subtracted from the image"),
    only_named=True,
    dialects=(leaving_open("KAIR, with batch normalisation", partial(_infer, batch_norm=True), {"eps": (1e-4, 1e-5)}),),
)
