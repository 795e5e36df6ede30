"""Plain networks read from files, as numbers: running one takes no torch, which is most of a process's memory.

No format protects weights by itself: half of all damage to a file loads without complaint and computes
something else. So every byte counts here. A .safetensors file is a header, which must be the one that its own
metadata lead to and holds a hash of itself, and tensors with a hash each. An .onnx file ends with a hash of
all before it, and its graph must be the one that `build_skeleton` builds from its metadata, so nothing in it
is interpreted. Hashes show damage and later changes; they are no signature.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from memsr_compiler.errors import CertificateError, InvalidInput, first_line
from memsr_compiler.files import DIGEST_KEY, NO_DIGEST, open_file, read_file
from memsr_compiler.plain.manifest import PLAIN_FORMAT_KEY, QUANTIZED_KEY, REGAIN, Manifest, Numbers, certificate_path
from memsr_compiler.plain.onnx_model import OPSETS, build_skeleton
from memsr_compiler.plain.seal import CHANGED, STILL, is_sealed
from memsr_compiler.tflite.model import IDENTIFIER

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_SAFETENSORS_DTYPE = {"float32": "F32", "float16": "F16", "float64": "F64"}
_MAX_HEADER = 100_000_000  # bytes; the safetensors library reads no longer one
_LONGEST_NAME = 255  # bytes; no file system that we know has longer ones
_NETWORK = "the network"
_MAKE_ONE = "Make a plain one of it with memsrc convert or memsrc shrink."


@dataclass(frozen=True)
class PlainFile:
    """Content of a file of ours, each tensor as it was written.

    tensors       by the names of Manifest.shapes, in the dtype they are stored in
    certificate   its text, as it was written; None if there is none
    """

    manifest: Manifest
    tensors: Mapping[str, Numbers]
    certificate: str | None


def read_plain_file(path: str | PathLike[str], *, require_certificate: bool = True) -> PlainFile:
    """Read a plain network from its file, as numbers: see `load.load_plain`."""
    if not isinstance(path, (str, PathLike)):
        raise InvalidInput(f"the path of a plain network's file is wanted, not {type(path).__name__}")
    path = Path(path)
    try:
        with open_file(path, _NETWORK) as file:
            start = file.read(9)
            file.seek(0)
            content = _read_safetensors(file) if _looks_like_safetensors(start) else None
        content = content or _read_onnx(path, require_certificate)
        content.manifest.check_stack()
        _check_certificate(content)
    except (InvalidInput, CertificateError) as error:
        raise type(error)(f"{path}: {error}") from error
    return content


def _check_certificate(file: PlainFile) -> None:
    text, digest = file.certificate, file.manifest.certificate_sha256
    _require_short(len(text or ""), file.manifest)
    if text is not None and hashlib.sha256(text.encode()).hexdigest() != digest:
        raise CertificateError(f"its certificate was changed or damaged, its SHA-256 differs. {REGAIN}")


def _require_short(size: int, manifest: Manifest) -> None:
    most = manifest.largest_certificate
    if size > most:
        raise CertificateError(
            f"its certificate is too long, {size:,} bytes where a network of this size has {most:,} at most. {REGAIN}"
        )


def is_plain(path: str | PathLike[str]) -> bool:
    """Whether a file claims to be a plain network of ours; load_plain tells if that is true. Never raises."""
    return _claims(Path(path), PLAIN_FORMAT_KEY.encode())


def is_quantized(path: str | PathLike[str]) -> bool:
    """Whether a file claims to be a network that `quantize` wrote.  Never raises."""
    return _claims(Path(path), QUANTIZED_KEY.encode())


def _claims(path: Path, key: bytes) -> bool:
    """Whether the metadata of a file of ours have an entry."""
    with contextlib.suppress(OSError, ValueError, InvalidInput), open_file(path, _NETWORK) as file:
        start = file.read(9)
        if _looks_like_safetensors(start):
            return key in file.read(min(_MAX_HEADER, int.from_bytes(start[:8], "little")))
        if start[:1] == b"\x08":  # a ModelProto starts with its ir_version; its metadata end it
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.rfind(key) >= 0
    return False


def build_header(manifest: Manifest) -> bytes:
    """All that comes before the weights, the header's length included; the hash of the header is inside."""
    names: dict[str, object] = {"__metadata__": manifest.to_strings() | {"header_sha256": NO_DIGEST}}
    offset, sizes = 0, manifest.sizes
    for name, shape in manifest.shapes.items():
        end = offset + sizes[name]
        names[name] = {
            "dtype": _SAFETENSORS_DTYPE[manifest.dtype],
            "shape": shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(names, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blank = f'"header_sha256":"{NO_DIGEST}"'.encode()
    digest = hashlib.sha256(text).hexdigest()
    text = text.replace(blank, blank.replace(NO_DIGEST.encode(), digest.encode()))
    return len(text).to_bytes(8, "little") + text


def _size(file: BinaryIO) -> int:
    at = file.tell()
    end = file.seek(0, 2)
    file.seek(at)
    return end


# -- safetensors ---------------------------------------------------------------------------------------------


def _looks_like_safetensors(start: bytes) -> bool:
    return len(start) == 9 and start[4:8] == bytes(4) and start[8:] == b"{"


def _read_safetensors(file: BinaryIO) -> PlainFile:
    size = _size(file)
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, _MAX_HEADER):
        raise InvalidInput(f"is cut off or damaged: {size:,} bytes, of which {length:,} should be the header. {REGAIN}")
    text = file.read(length)
    try:
        parsed = json.loads(text)
        metadata = {str(key): str(value) for key, value in parsed.get("__metadata__", {}).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"its header is damaged ({first_line(error)}). {REGAIN}") from None
    if PLAIN_FORMAT_KEY not in metadata:
        raise InvalidInput(f"is no plain network of ours; perhaps it is a teacher. {_MAKE_ONE}")
    metadata.pop("header_sha256", None)
    manifest = Manifest.from_strings(metadata)
    if build_header(manifest) != length.to_bytes(8, "little") + text:
        raise InvalidInput(f"its header {CHANGED} {REGAIN}")
    held, due = size - 8 - length, sum(manifest.sizes.values())
    if held != due:
        raise InvalidInput(f"is cut off or damaged: {held:,} bytes of weights where {due:,} are due. {REGAIN}")
    return PlainFile(
        manifest, _read_tensors(file, manifest), manifest.certificate if manifest.certificate_sha256 else None
    )


def _read_tensors(file: BinaryIO, manifest: Manifest) -> dict[str, Numbers]:
    """The weights from here on; the file has been found to hold as many bytes."""
    tensors, sizes = {}, manifest.sizes
    for name in manifest.shapes:
        content = bytearray(sizes[name])
        if file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise InvalidInput(f"{name}: is cut off. {REGAIN}")
        tensors[name] = manifest.numbers(name, content)
    return tensors


# -- ONNX ----------------------------------------------------------------------------------------------------


def _read_onnx(path: Path, require_certificate: bool) -> PlainFile:
    model = _parse_model(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata.pop(DIGEST_KEY, None)
    manifest = Manifest.from_strings(metadata)
    weights = model.graph.initializer[: len(manifest.shapes)]
    location = next((e.value for t in weights for e in t.external_data if e.key == "location"), "")
    contents = [] if location else [_take_out(t) for t in weights]
    _require_skeleton(model, manifest, location)
    del model
    tensors = _read_beside(path, location, manifest) if location else _from_contents(contents, manifest)
    return PlainFile(
        manifest, tensors, manifest.certificate or _certificate_beside(path, manifest, require_certificate)
    )


def _parse_model(path: Path) -> ModelProto:
    """The model in a file that is as it was written; others are not even parsed."""
    content = read_file(path, _NETWORK)
    if content[4:8] == IDENTIFIER:
        raise InvalidInput(
            "is a TFLite file, for LiteRT to run. Give the plain network that it was written of, .onnx or "
            ".safetensors, or make one of it with memsrc convert."
        )
    if QUANTIZED_KEY.encode() in content:
        raise InvalidInput(
            "is a network in 8 bits, which is no plain network any more and has no certificate. "
            "Give the float32 file that it was made from; memsrc eval says how close the two are."
        )
    if PLAIN_FORMAT_KEY.encode() not in content:
        raise InvalidInput(f"is no plain network of ours, or cut off; perhaps it is a teacher. {_MAKE_ONE}")
    if not is_sealed(io.BytesIO(content)):
        raise InvalidInput(f"{CHANGED} {REGAIN} ({STILL})")
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise InvalidInput(f"is no ONNX model. {REGAIN}") from None
    return model


def _take_out(tensor: TensorProto) -> bytes:
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    return content


def _require_skeleton(model: ModelProto, manifest: Manifest, location: str) -> None:
    """Raises InvalidInput unless the model, weights taken out, is what export writes for this manifest."""
    opset = model.opset_import[0].version if model.opset_import else 0
    same = opset in OPSETS and model.metadata_props[-1].key == DIGEST_KEY
    if same:
        model.metadata_props[-1].value = NO_DIGEST
        try:
            skeleton = build_skeleton(manifest, opset, location)
            if not model.graph.value_info:  # as it was written before the sizes of all values were told
                del skeleton.graph.value_info[:]
            written = skeleton.SerializeToString(deterministic=True)
        except ValueError as error:  # protobuf reads text that is none, and does not write it
            raise InvalidInput(f"its metadata are damaged ({first_line(error)}). {REGAIN}") from None
        same = model.SerializeToString(deterministic=True) == written
    if not same:
        raise InvalidInput(f"its graph is not the one that its metadata describe. {REGAIN}")


def _from_contents(contents: list[bytes], manifest: Manifest) -> dict[str, Numbers]:
    """Tensors of raw_data; each is given back as soon as its tensor is made."""
    tensors = {}
    contents.reverse()
    for name, size in manifest.sizes.items():
        content = contents.pop()
        if len(content) != size:
            raise InvalidInput(f"{name}: {len(content):,} bytes where {size:,} are due. {REGAIN}")
        tensors[name] = manifest.numbers(name, bytearray(content))
    return tensors


def _read_beside(path: Path, location: str, manifest: Manifest) -> dict[str, Numbers]:
    """The weights in a file of their own, which lies in the model's folder and is no link out of it."""
    beside = path.parent / location
    named = Path(location).name == location and len(os.fsencode(location)) <= _LONGEST_NAME
    if not named or "\\" in location or beside.is_symlink():
        raise InvalidInput(
            f"its weights are in '{location[:80]}', not in a file beside it. Put them there, or export again."
        )
    if not beside.exists():
        raise InvalidInput(f"its weights, {location}, are missing beside it. Copy them along, or export again.")
    try:
        with open_file(beside, "the weights") as file:
            held, due = _size(file), sum(manifest.sizes.values())
            if held != due:
                raise InvalidInput(f"is cut off or damaged: {held:,} bytes where {due:,} are due. {REGAIN}")
            return _read_tensors(file, manifest)
    except InvalidInput as error:
        raise InvalidInput(f"{location}: {error}") from error


def _certificate_beside(path: Path, manifest: Manifest, required: bool) -> str | None:
    """The text of the certificate that the manifest speaks of; None if there is none."""
    beside = certificate_path(path)
    if not manifest.certificate_sha256 or not (required or beside.exists()):
        return None
    if not beside.exists():
        raise CertificateError(
            f"its certificate, {beside.name}, is missing beside it. Copy it along, or export again with the "
            "certificate inside."
        )
    try:
        with open_file(beside, "the certificate") as file:
            _require_short(_size(file), manifest)
            return file.read().decode()
    except InvalidInput as error:
        raise CertificateError(f"{beside.name}: {error}") from error
    except UnicodeDecodeError:
        raise CertificateError(f"{beside.name} {CHANGED} {REGAIN}") from None
