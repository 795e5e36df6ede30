"""The section that shows places of photographs as several networks make them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.images.files import png
from memsr_compiler.reports import page
from memsr_compiler.reports.text import escape, format_decibels


@dataclass(frozen=True)
class Picture:
    """One place in one photograph, made by several networks.

    whole     the photograph, small;   place   (left, top, width, height) of the crop in it, as fractions of its size
    crops     (by whom, pixels, PSNR of what was enlarged, in dB, or None), the original first; all of one size
    """

    name: str
    whole: NDArray[np.uint8]
    place: tuple[float, float, float, float]
    crops: Sequence[tuple[str, NDArray[np.uint8], float | None]]


def write_pictures(pictures: Sequence[Picture]) -> str:
    """The section; nothing without pictures."""
    if not pictures:
        return ""
    return page.section(
        "Side by side",
        page.note(
            "Where enlarging is hardest: the part of each photograph that bicubic gets most wrong, with its pixels "
            "enlarged. PSNR is that of all pixels of the image that were looked at."
        ),
        *map(_write_picture, pictures),
    )


def _write_picture(picture: Picture) -> str:
    left, top, width, height = (f"{100 * part:.2f}%" for part in picture.place)
    tall, wide = picture.whole.shape[:2]
    frame = (
        f'<svg class="place" viewBox="0 0 {wide} {tall}" aria-hidden="true"><rect x="{left}" y="{top}" '
        f'width="{width}" height="{height}"/></svg>'
    )
    crops = "".join(
        f"<figure>{_embed_image(pixels, f'{picture.name}, {name}', 'crop')}<figcaption>{escape(name)}"
        f"<span>{format_decibels(psnr)}</span></figcaption></figure>\n"
        for name, pixels, psnr in picture.crops
    )
    whole = _embed_image(picture.whole, picture.name, "whole")
    return (
        f'<div class="pictures">\n<figure class="whole"><div>{whole}{frame}</div>'
        f"<figcaption>{escape(picture.name)}</figcaption></figure>\n"
        f'<div class="crops">\n{crops}</div>\n</div>\n'
    )


def _embed_image(pixels: NDArray[np.uint8], label: str, kind: str) -> str:
    height, width = pixels.shape[:2]
    data = base64.b64encode(png(pixels)).decode()
    return (
        f'<img class="{kind}" alt="{escape(label)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )
