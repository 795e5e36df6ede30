"""A plain network read from its file, .safetensors or .onnx, as a module for torch."""

from __future__ import annotations

from os import PathLike

import torch

from memsr_compiler.errors import CertificateError
from memsr_compiler.plain.manifest import REGAIN, Manifest
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.read import read_plain_file
from memsr_compiler.proof.certificate import Certificate


def load_plain(path: str | PathLike[str], *, require_certificate: bool = True) -> PlainNet:
    """Read the plain network in a file of save_plain or export_onnx, in the dtype it is stored in, without report.

    require_certificate  False: an .onnx whose certificate beside it is missing is read without one

    What the file is, is decided by its content. Raises InvalidInput, or CertificateError if the certificate
    is at fault, for anything that is not exactly as it was written. Declared sizes are compared with the
    file's before memory is taken.
    """
    file = read_plain_file(path, require_certificate=require_certificate)
    try:
        certificate = None if file.certificate is None else _read_certificate(file.manifest, file.certificate)
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error
    layers = [
        PlainLayer(
            torch.from_numpy(file.tensors[f"layers.{i}.weight"]),
            torch.from_numpy(file.tensors[f"layers.{i}.bias"]),
            relu=layer.relu,
            shuffle=layer.shuffle,
            slope=torch.from_numpy(file.tensors[f"layers.{i}.slope"]) if layer.prelu else None,
        )
        for i, layer in enumerate(file.manifest.layers)
    ]
    return PlainNet(layers, file.manifest.info, certificate).eval()


def _read_certificate(manifest: Manifest, text: str) -> Certificate:
    """The certificate in its text.  Raises CertificateError unless it is this network's."""
    try:
        certificate = Certificate.from_json(text, [(layer.weight[1], layer.weight[0]) for layer in manifest.layers])
    except (RecursionError, OverflowError) as error:
        raise CertificateError(f"not a certificate ({type(error).__name__}). {REGAIN}") from None
    if (certificate.plain_sha256, certificate.teacher_sha256) != (manifest.plain_sha256, manifest.info.teacher_sha256):
        raise CertificateError(f"its certificate belongs to another network. {REGAIN}")
    return certificate
