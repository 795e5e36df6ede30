"""Plain networks in files: written as .safetensors, read from that and from the .onnx files of `export`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from memsr_compiler.errors import CertificateError, ExportError
from memsr_compiler.files import atomic_write, file_digest
from memsr_compiler.plain.manifest import REGAIN, Manifest
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.read import header, read_plain_file
from memsr_compiler.plain.stored import TORCH, describe, named_tensors, raw, stored
from memsr_compiler.proof.certificate import Certificate


def save_plain(net: PlainNet, path: str | Path) -> None:
    """Write a plain network, its info and its certificate to a .safetensors file, in the weights' own dtype.

    The file appears whole or not at all. Raises ExportError where it cannot be written, for weights that are
    not finite or not in float16, float32 or float64, and for a certificate of other weights.
    """
    path = Path(path)
    own = net[0].weight.dtype
    dtype = next((name for name, known in TORCH.items() if known == own), None)
    if dtype is None:
        raise ExportError(f"{path}: weights of {own} are not stored, only {', '.join(TORCH)}. Use net.float().")
    manifest, _, _ = describe(net, dtype, certificate_inside=True)
    start = header(manifest)
    digest = hashlib.sha256(start)
    with atomic_write(path) as file:
        file.write(start)
        for name, given in named_tensors(net):
            content = raw(stored(name, given, dtype))
            digest.update(content)
            file.write(content)
        file.flush()
        if file_digest(Path(file.name)) != digest.hexdigest():
            raise ExportError(
                f"{path}: what was read back is not what was written. The disk is failing; write elsewhere."
            )


def load_plain(path: str | Path, *, require_certificate: bool = True) -> PlainNet:
    """The plain network in a file of save_plain or export_onnx, in the dtype it is stored in, without report.

    require_certificate  False: an .onnx whose certificate beside it is missing is read without one

    What the file is, is decided by its content. Raises InvalidInput, or CertificateError if the certificate
    is at fault, for anything that is not exactly as it was written. Declared sizes are compared with the
    file's before memory is taken.
    """
    file = read_plain_file(path, require_certificate=require_certificate)
    try:
        certificate = None if file.certificate is None else _certified(file.manifest, file.certificate)
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error
    layers = [
        PlainLayer(
            torch.from_numpy(file.tensors[f"layers.{i}.weight"]),
            torch.from_numpy(file.tensors[f"layers.{i}.bias"]),
            relu=layer.relu,
            shuffle=layer.shuffle,
        )
        for i, layer in enumerate(file.manifest.layers)
    ]
    return PlainNet(layers, file.manifest.info, certificate).eval()


def _certified(manifest: Manifest, text: str) -> Certificate:
    """The certificate in its text.  Raises CertificateError unless it is this network's."""
    try:
        certificate = Certificate.from_json(text)
    except (RecursionError, OverflowError) as error:
        raise CertificateError(f"not a certificate ({type(error).__name__}). {REGAIN}") from None
    if (certificate.plain_sha256, certificate.teacher_sha256) != (manifest.plain_sha256, manifest.info.teacher_sha256):
        raise CertificateError(f"its certificate belongs to another network. {REGAIN}")
    return certificate
