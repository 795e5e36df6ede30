"""PSNR and SSIM on luma, by the two protocols behind the published tables of super-resolution.

edsr   (the default: EDSR, RCAN, IMDN, ...) the RGB output is rounded to 8 bits, its Y is not.
srcnn  (SRCNN, VDSR, and the published bicubic rows) the networks work on Y: the HR image's Y is rounded to 8
       bits first, degraded without further rounding, and the result is rounded to 8 bits.

Both shave `scale` pixels off each side. The bicubic row of a table is, by the first,
`resize(low, scale, rounding=False) / 255` and, by the second, `srcnn_input(high, scale)`: 0.02 dB apart.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import InvalidInput, say_missing
from memsr_compiler.images.files import crop_to_multiple, to_uint8
from memsr_compiler.images.resize import resize
from memsr_compiler.quantities import say_count

Protocol = Literal["edsr", "srcnn"]


def luma(image: NDArray[Any]) -> NDArray[np.float64]:
    """Y of ITU-R BT.601 in studio range, 16..235, unrounded: (H, W, 3) -> float64 (H, W).

    image  uint8, or floating in 0..1, which is rounded to 8 bits first; (H, W) or (H, W, 1) is taken to be Y
           already, which is how protocol "srcnn" scores the grey files of the benchmarks

    Raises InvalidInput for another shape, and for NaN.
    """
    pixels = to_uint8(image).astype(np.float64)
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise InvalidInput(f"image of shape {image.shape} has no luma. Give (H, W, 3), (H, W, 1) or (H, W).")
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    # Pixel by pixel: a product of matrices rounds by how the image lies in memory, and equal images must be equal.
    red, green, blue = (pixels[..., i] * (weight / 255) for i, weight in enumerate((65.481, 128.553, 24.966)))
    result: NDArray[np.float64] = 16 + (red + green + blue)
    return result


def psnr(output: NDArray[Any], reference: NDArray[Any], *, scale: int, protocol: Protocol = "edsr") -> float:
    """Peak signal-to-noise ratio on Y in dB, peak 255; infinite for equal images.

    output     (H, W, 3), (H, W, 1) or (H, W); uint8, or floating in 0..1
    reference  the HR image, of the same height and width
    scale      pixels shaved off each side

    Raises InvalidInput if the sizes differ, or nothing is left after shaving.
    """
    y, y_reference = _compared_luma(output, reference, scale, protocol)
    error = float(np.mean((y - y_reference) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(output: NDArray[Any], reference: NDArray[Any], *, scale: int, protocol: Protocol = "edsr") -> float:
    """Structural similarity on Y, at most 1, in its authors' 11x11 Gaussian window; arguments as for `psnr`.

    Raises InvalidInput as `psnr` does, and if less than 11x11 pixels are left or scikit-image is missing.
    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004).
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise InvalidInput(say_missing("scikit-image", "computes SSIM")) from error
    y, y_reference = _compared_luma(output, reference, scale, protocol)
    if min(y.shape) < 11:
        raise InvalidInput(f"SSIM: {y.shape} pixels left after shaving {scale}. Give images with 11x11 or more.")
    similarity = structural_similarity(
        y, y_reference, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def srcnn_input(reference: NDArray[Any], scale: int) -> NDArray[np.float64]:
    """HR's Y shrunk and enlarged again: the input of SRCNN and VDSR, and the bicubic row of their tables.

    reference  the HR image, cropped here to multiples of `scale`
    returns    float64 (H, W), about 0..1, neither rounded nor clipped; `psnr` takes it as an output
    """
    y = np.round(luma(crop_to_multiple(reference, scale))) / 255
    return resize(resize(y, 1 / scale, border="mirror"), scale, border="mirror")


def _compared_luma(
    output: NDArray[Any], reference: NDArray[Any], scale: int, protocol: Protocol
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both images' Y as the protocol compares them, shaved."""
    if protocol not in ("edsr", "srcnn"):
        raise InvalidInput(f"protocol {protocol!r}. Choose 'edsr' or 'srcnn'.")
    if output.shape[:2] != reference.shape[:2]:
        raise InvalidInput(f"output {output.shape}, reference {reference.shape}: sizes differ. Crop one of them.")
    height, width = output.shape[:2]
    if min(height, width) <= 2 * scale or scale < 0:
        raise InvalidInput(
            f"nothing left of {height}x{width} after shaving {say_count(scale, 'pixel')}. Give larger images."
        )
    pair = luma(output), luma(reference)
    if protocol == "srcnn":
        pair = np.round(pair[0]), np.round(pair[1])
    window = slice(scale, height - scale), slice(scale, width - scale)
    return pair[0][window], pair[1][window]
