"""Transparency from file to file: what is hidden changes nothing that is seen, however the image is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.raw_images import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, write_png
from numpy.typing import NDArray

pytest.importorskip("pyvips", reason="image files by rows need the extra [cpu]")

from memsr_compiler import Upscaler, compile_to_plain
from memsr_compiler.images.streams import RowFile
from memsr_compiler.models.catalogue import find_model
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.upscale_file import ByBands, RowEngine, WholeFrame, enlarge_file
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.vdsr import VDSR

STUDENT = find_model("x2-small").path
PLTE = np.random.default_rng(3).integers(0, 256, (256, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def net() -> PlainNet:
    torch.manual_seed(0)
    return compile_to_plain(EDSR(scale=2, blocks=1, channels=8).eval())


def enlarge(engine: RowEngine, path: Path, target: Path, scale: int = 2) -> NDArray[Any]:
    enlarge_file(engine, RowFile.open(path), target, scale)
    return np.concatenate(list(RowFile.open(target)._read(100)))


def shape_of_alpha(height: int = 40, width: int = 30) -> NDArray[np.bool_]:
    """Visible pixels: a disc, and one alone."""
    y, x = np.mgrid[:height, :width]
    visible: NDArray[np.bool_] = (y - 22) ** 2 + (x - 12) ** 2 < 60
    visible[2, width - 3] = True
    return visible


def levels(seed: int, hidden: int, channels: int, most: int = 256) -> NDArray[Any]:
    """Colours, of which those that are not visible are drawn anew for each `hidden`."""
    visible = shape_of_alpha()
    shown = np.random.default_rng(seed).integers(0, most, (*visible.shape, channels))
    others = np.random.default_rng(1000 + hidden).integers(0, most, shown.shape)
    return np.where(visible[..., None], shown, others)


def with_alpha(channels: int, colour: int, bits: int) -> Callable[[Path, int], None]:
    def write(path: Path, hidden: int) -> None:
        most = 1 << bits
        alpha = np.where(shape_of_alpha(), np.random.default_rng(9).integers(1, most, shape_of_alpha().shape), 0)
        write_png(path, np.dstack([levels(1, hidden, channels, most), alpha]), bits=bits, colour=colour)

    return write


def with_palette(path: Path, hidden: int) -> None:
    """The transparent entry of the palette is what changes."""
    visible = shape_of_alpha()
    indices = np.where(visible, np.random.default_rng(1).integers(1, 256, visible.shape), 0)
    palette = PLTE.copy()
    palette[0] = np.random.default_rng(hidden).integers(0, 256, 3)
    write_png(path, indices, bits=8, colour=PALETTE, before=[(b"PLTE", palette.tobytes()), (b"tRNS", b"\0")])


def with_key(channels: int, colour: int) -> Callable[[Path, int], None]:
    """The colour that is transparent is what changes; visible ones are never that."""

    def write(path: Path, hidden: int) -> None:
        key = np.random.default_rng(hidden).integers(0, 20, channels)
        shown = np.random.default_rng(1).integers(20, 256, (*shape_of_alpha().shape, channels))
        pixels = np.where(shape_of_alpha()[..., None], shown, key)
        write_png(path, pixels, bits=8, colour=colour, before=[(b"tRNS", key.astype(">u2").tobytes())])

    return write


KINDS: dict[str, Callable[[Path, int], None]] = {
    "RGBA": with_alpha(3, RGBA, 8),
    "RGBA of 16 bits": with_alpha(3, RGBA, 16),
    "grey and alpha": with_alpha(1, GREY_ALPHA, 8),
    "palette": with_palette,
    "RGB with a key": with_key(3, RGB),
    "grey with a key": with_key(1, GREY),
}


def by_network(net: PlainNet, tmp_path: Path) -> dict[str, tuple[RowEngine, int]]:
    torch.manual_seed(1)
    vdsr = compile_to_plain(VDSR(blocks=1, channels=4).eval())
    info = net.info
    return {
        "bands": (ByBands(Upscaler(net), tmp_path), 2),
        "columns": (ByBands(Upscaler(net, columns=7), tmp_path), 2),
        "whole": (WholeFrame(net, Takes(info.scale, info.channels, info.input_range)), 2),
        "Y": (ByBands(Upscaler(vdsr), tmp_path), 3),
    }


@pytest.mark.parametrize("engine", ["bands", "columns", "whole", "Y"])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_colours_change_nothing_visible(tmp_path: Path, net: PlainNet, kind: str, engine: str) -> None:
    runs, scale = by_network(net, tmp_path)[engine]
    results = []
    for hidden in range(3):
        KINDS[kind](tmp_path / "in.png", hidden)
        results.append(enlarge(runs, tmp_path / "in.png", tmp_path / "out.png", scale))
    visible = results[0][..., -1] > 0
    assert 0 < visible.sum() < visible.size
    for other in results[1:]:
        assert np.array_equal(other[..., -1], results[0][..., -1])
        assert np.array_equal(other[visible], results[0][visible])


def test_nothing_changes_where_nothing_is_hidden(tmp_path: Path, net: PlainNet) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (30, 20, 4)).astype(np.uint8)
    write_png(tmp_path / "in.png", pixels, bits=8, colour=RGBA)
    made = enlarge(ByBands(Upscaler(net), tmp_path), tmp_path / "in.png", tmp_path / "out.png")
    assert np.abs(made[..., :3].astype(int) - Upscaler(net)(pixels[..., :3])).max() <= 1


def test_hidden_colours_stay_where_alpha_is_left_out(tmp_path: Path, net: PlainNet) -> None:
    """In a JPEG they are seen."""
    write = with_alpha(3, RGBA, 8)
    write(tmp_path / "in.png", 0)
    opaque = RowFile.open(tmp_path / "in.png")
    flat = np.concatenate(list(opaque.bands(9)))
    write_png(tmp_path / "flat.png", flat, bits=8, colour=RGB)
    engine = ByBands(Upscaler(net), tmp_path)
    for name in ("in", "flat"):
        enlarge_file(engine, RowFile.open(tmp_path / f"{name}.png"), tmp_path / f"{name}.jpg", 2)
    assert (tmp_path / "in.jpg").read_bytes() == (tmp_path / "flat.jpg").read_bytes()


@pytest.mark.parametrize("limit", [None, "4900kB", "4700kB"])
def test_the_size_of_bands_changes_nothing(tmp_path: Path, net: PlainNet, limit: str | None) -> None:
    visible = np.random.default_rng(0).random((150, 60)) < 0.02
    pixels = np.random.default_rng(1).integers(0, 256, (150, 60, 4))
    pixels[..., 3] = visible * 255
    write_png(tmp_path / "in.png", pixels, bits=8, colour=RGBA)
    whole = enlarge(ByBands(Upscaler(net), tmp_path), tmp_path / "in.png", tmp_path / "whole.png")
    made = enlarge(ByBands(Upscaler(net, max_memory=limit), tmp_path), tmp_path / "in.png", tmp_path / "out.png")
    assert np.abs(made.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("hidden", [0, 128, 255])
def test_a_white_disc_on_white_stays_white(tmp_path: Path, hidden: int) -> None:
    y, x = np.mgrid[:64, :64]
    alpha = np.clip((20 - np.hypot(y - 31.5, x - 31.5)) * 128, 0, 255)
    colours = np.where(alpha[..., None] > 0, 255, hidden).repeat(3, axis=2)
    write_png(tmp_path / "disc.png", np.dstack([colours, alpha]).astype(np.uint8), bits=8, colour=RGBA)
    made = enlarge(ByBands(Upscaler(STUDENT), tmp_path), tmp_path / "disc.png", tmp_path / "out.png").astype(float)
    opacity = made[..., 3:] / 255
    assert (np.rint(made[..., :3] * opacity + 255 * (1 - opacity)) == 255).all()
