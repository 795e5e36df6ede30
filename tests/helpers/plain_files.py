"""A small plain network, the files that it is written to, and whether two networks are one."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch

from memsr_compiler.plain import write as export
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.teachers.families.edsr import EDSR


def teacher() -> EDSR:
    torch.manual_seed(7)
    return EDSR(scale=2, blocks=1, channels=4, colours=1, tail="conv").eval()


def tiny(skip: str = "", scale: int = 2) -> PlainNet:
    """A plain network that is nobody's: two layers, grey, with an image skip or not."""
    torch.manual_seed(6)
    layers = [
        PlainLayer(torch.randn(5, 1, 3, 3), torch.randn(5), relu=True),
        PlainLayer(torch.randn(scale**2, 5, 1, 1), torch.randn(scale**2), relu=False, shuffle=scale),
    ]
    info = PlainInfo(scale, 1, (0.0, 255.0), "auto", "none", "", 1, skip, "memsr_compiler test")
    return PlainNet(layers, info).eval()


def uncertified(net: PlainNet) -> PlainNet:
    """A copy that tests may change."""
    twin = copy.deepcopy(net)
    twin.certificate = None
    return twin


def same(left: PlainNet, right: PlainNet) -> bool:
    """Whether two networks compute the same and say the same about themselves."""
    said = (left.info, left.certificate) == (right.info, right.certificate)
    return said and left.sha256() == right.sha256() and left[0].weight.dtype == right[0].weight.dtype


def save(net: PlainNet, folder: Path) -> Path:
    save_plain(net, folder / "net.safetensors")
    return folder / "net.safetensors"


def export_with_certificate(net: PlainNet, folder: Path) -> Path:
    return export_onnx(net, folder / "net.onnx", certificate="inside").path


def export_beside(net: PlainNet, folder: Path) -> Path:
    return export_onnx(net, folder / "net.onnx").path


def export_half(net: PlainNet, folder: Path) -> Path:
    return export_onnx(net, folder / "net.onnx", dtype="float16", certificate="inside").path


def export_external(net: PlainNet, folder: Path) -> Path:
    before = export._INLINE_BYTES
    export._INLINE_BYTES = 0
    try:
        return export_beside(net, folder)
    finally:
        export._INLINE_BYTES = before


def reseal(content: bytes) -> bytes:
    """The content with the hash that such a file has to end with: what a determined editor could do."""
    body = content[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()
