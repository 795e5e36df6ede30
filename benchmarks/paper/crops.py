"""Crops of photographs as several systems enlarge them, as one SVG with PNGs in it: MemSR's Figure 4 and 8."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from numpy.typing import NDArray
from torch import nn

from memsr_compiler import Takes
from memsr_compiler.commands.results.pictures import CROP, draw_pictures
from memsr_compiler.evaluation.image_sets import TestImage
from memsr_compiler.evaluation.scores import enlarge_bicubic, image_psnr
from memsr_compiler.images.files import png, to_uint8
from memsr_compiler.images.resize import resize
from memsr_compiler.reports.colours import INK, PAPER, SERIES, SOFT
from memsr_compiler.reports.side_by_side import Picture
from memsr_compiler.reports.text import escape, format_decibels
from paper.pairs import SCALE
from paper.quality import enlarge_all, read_set
from paper.runs import SHIPPED
from paper.settings import ROOT, Settings
from paper.table import Cell, Numbers, Row, Table

SET = "B100"
PHOTOGRAPHS = 3
TIMES = 3  # that crops are enlarged in the picture
SIDE, PAD, TEXT, TOP = CROP * TIMES, 8, 47, 44
LINE, CHARACTERS = 13, 28  # pixels from one line of text to the next, and as many letters as stand below a crop


@dataclass(frozen=True)
class System:
    """A network that enlarges, and what it takes."""

    network: nn.Module
    takes: Takes


def make_crops(number: int, scale: int, systems: Mapping[str, System], settings: Settings) -> Iterator[Table]:
    """The figure at a scale, after each system: crops where bicubic is worst, PSNR of whole photographs."""
    images, source = _choose_images(scale, settings)
    outputs: dict[str, list[NDArray[Any]]] = {}
    for name, system in systems.items():
        outputs[name] = enlarge_all(system.network, system.takes, images, settings.device)
        pictures = draw_pictures(images, outputs, grey=False)
        title = f"Figure {number}: crops at x{scale}"
        yield Table(
            name=f"figure{number}" if scale != SCALE else f"figure{number}-{settings.pair}",
            title=title,
            columns=("", *(picture.name for picture in pictures)),
            rows=tuple(_row(name, pictures, place) for place, name in enumerate(["bicubic", *outputs], 1)),
            caption=(
                f"{source}; crops of {CROP}x{CROP} pixels, {TIMES} times as large, where bicubic interpolation is "
                "furthest from the original. PSNR-Y in dB of the whole photograph. Systems whose trained weights "
                "are at hand; the paper's crops are in no text that we could read.",
            ),
            picture=_draw(pictures, title),
        )


def _choose_images(scale: int, settings: Settings) -> tuple[list[TestImage], str]:
    """Photographs for the crops, and what they are in words.

    Those of B100 are not for this repository: they are taken only where the picture is written elsewhere.
    """
    outside = ROOT / "docs" not in settings.out.resolve().parents
    if settings.tests is not None and outside and (settings.tests / SET / f"x{scale}").is_dir():
        hard = read_set(settings.tests / SET / f"x{scale}", scale, settings)
        return _choose_hardest(hard), f"Photographs of {SET}, those that bicubic interpolation does worst"
    return read_set(None, scale, settings)[:PHOTOGRAPHS], f"The {SHIPPED} that ship"


def _choose_hardest(images: Sequence[TestImage]) -> list[TestImage]:
    return sorted(images, key=lambda image: image_psnr(image, enlarge_bicubic(image)))[:PHOTOGRAPHS]


def _row(name: str, pictures: Sequence[Picture], place: int) -> Row:
    cells: list[Cell] = []
    for picture in pictures:
        psnr = picture.crops[place][2]
        assert psnr is not None, "all but the original have one"
        cells.append(Numbers((psnr,), digits=2))
    return Row(name, tuple(cells))


def _draw(pictures: Sequence[Picture], title: str) -> str:
    """A line for each photograph: itself, with the crop's place, and the crops."""
    columns = max(len(picture.crops) for picture in pictures) + 1
    width, height = PAD + columns * (SIDE + PAD), TOP + len(pictures) * (SIDE + TEXT + PAD)
    parts = []
    for line, picture in enumerate(pictures):
        y = TOP + line * (SIDE + TEXT + PAD)
        parts.append(_draw_whole(picture, PAD, y))
        for column, (name, pixels, psnr) in enumerate(picture.crops, 1):
            x = PAD + column * (SIDE + PAD)
            parts.append(_embed(pixels, x, y, SIDE, SIDE, f"{picture.name}, {name}"))
            parts.append(_write_below(name, "" if psnr is None else format_decibels(psnr), x, y + SIDE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/><g fill="{INK}">'
        f'<text x="{PAD}" y="24" font-size="13" font-weight="600">{escape(title)}</text>{"".join(parts)}</g></svg>\n'
    )


def _write_below(name: str, decibels: str, x: int, y: int) -> str:
    """A name, in lines as wide as a crop, and its PSNR."""
    lines = [*((line, INK) for line in wrap(name, CHARACTERS)), (decibels, SOFT)]
    return "".join(
        f'<text x="{x}" y="{y + LINE * number}" fill="{colour}">{escape(line)}</text>'
        for number, (line, colour) in enumerate(lines, 1)
    )


def _draw_whole(picture: Picture, x: int, y: int) -> str:
    """The photograph, small, with a frame where the crop is."""
    whole = to_uint8(resize(picture.whole, min(1.0, SIDE / max(picture.whole.shape))))
    tall, wide = whole.shape[:2]
    left, top, part_wide, part_tall = picture.place
    frame = (
        f'<rect x="{x + left * wide:.1f}" y="{y + top * tall:.1f}" width="{part_wide * wide:.1f}" '
        f'height="{part_tall * tall:.1f}" fill="none" stroke="{SERIES[1]}" stroke-width="2"/>'
    )
    image = _embed(whole, x, y, wide, tall, picture.name)
    return f'{image}{frame}<text x="{x}" y="{y + SIDE + LINE}">{escape(picture.name)}</text>'


def _embed(pixels: NDArray[Any], x: int, y: int, wide: int, tall: int, label: str) -> str:
    data = base64.b64encode(png(pixels)).decode()
    return (
        f'<image x="{x}" y="{y}" width="{wide}" height="{tall}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"><title>{escape(label)}</title></image>'
    )
