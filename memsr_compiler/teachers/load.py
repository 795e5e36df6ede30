"""Reading a teacher from a file, whatever tool wrote it, without trusting the file.

What a file is, is decided by its content. Checkpoints and safetensors files hold weights alone and need a
network to go with them: one of `families`, or the user's own code. Nothing in a file is executed unless
allowed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from memsr_compiler.errors import InvalidInput, RefusedPickle, UnsupportedModel, first_line
from memsr_compiler.files import JOIN_PARTS, read_file
from memsr_compiler.plain.manifest import PLAIN_FORMAT_KEY
from memsr_compiler.plain.read import is_plain, read_plain_file
from memsr_compiler.plain.seal import require_seal, require_tflite_seal
from memsr_compiler.proof.guarantee import APPROXIMATION
from memsr_compiler.teachers import archive, pickle_scan, pt2
from memsr_compiler.teachers.families.registry import find_family
from memsr_compiler.teachers.own_code import build_own
from memsr_compiler.teachers.readings import Readings, choose_reading, read_family, read_module
from memsr_compiler.teachers.remarks import Remarks, read_remarks
from memsr_compiler.teachers.reparametrised import compute_weights
from memsr_compiler.teachers.spandrel import INPUT_RANGE, build_by_spandrel
from memsr_compiler.teachers.state_dict import check_tensors, widen
from memsr_compiler.teachers.teacher import Range, Teacher, remember_range
from memsr_compiler.teachers.wrappers import Misfit, StateDict, UnknownKeys, some, take_prefix, unwrap, without_tools
from memsr_compiler.torch_helpers import one_thread, prepare
from memsr_compiler.trace.fx.casts import range_of_integers

log = logging.getLogger(__name__)
STATE_DIGEST = 64  # letters of the SHA-256 at the start of `training.checkpoints`
_START = 16  # bytes by which kinds of files are told apart


def load_teacher(
    path: str | PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, object] | None = None,
    prefix: str = "",
    allow_pickle: bool = False,
    input_range: Range | None = None,
    probe: bool = True,
) -> nn.Module:
    """The module of `read_teacher`, with the same arguments and errors.

    Functions that take teachers know of this very module the range of its values and what was assumed of the file; of
    a copy, and of a module around it, they assume 0 to 1.
    """
    return read_teacher(
        path,
        arch=arch,
        arch_args=arch_args,
        prefix=prefix,
        allow_pickle=allow_pickle,
        input_range=input_range,
        probe=probe,
    ).module


def read_teacher(
    path: str | PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, object] | None = None,
    prefix: str = "",
    allow_pickle: bool = False,
    input_range: Range | None = None,
    probe: bool = True,
) -> Teacher:
    """The teacher in a .pt, .pth, .ckpt, .safetensors, .pt2, .onnx or .tflite file.

    arch          the name of a family, or `package.module:factory` to call your code; None: recognise the
                  keys
    arch_args     keyword arguments for it; for a family they override what is read off the weights
    prefix        what the keys of the network begin with in a file of several, "generator_ema."; "": the one network
                  there is, its averaged weights if it has such
    allow_pickle  execute the code that a pickled module or a .pt2 archive asks for; what it imports is logged
    input_range   of its values; None: what the file says, else what its family expects, else 0 to 1
    probe         try what the file does not say on a photograph: where the network restores that with another constant
                  or range than the usual, these are taken, and a warning is logged. False: assume the usual, of a
                  network that is not trained yet, say

    What is assumed is listed in the teacher's `assumed`. Weights are loaded strictly. Raises InvalidInput, its
    subclass RefusedPickle if reading would execute code, each saying what is wrong with the file and what to do, also
    where a family's network restores no photograph however it is read; UnsupportedModel for an ONNX or TFLite graph
    that cannot be read.
    """
    path = Path(path)
    try:
        data = read_file(path, "the weights")
        readings = _load(path, data, arch, dict(arch_args or {}), prefix, allow_pickle, input_range)
        teacher = choose_reading(readings, path) if probe else readings.teacher(readings.variants[0])
    except RefusedPickle as error:
        raise RefusedPickle(f"{path}: {error}") from error
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    return remember_range(replace(teacher, sha256=hashlib.sha256(data).hexdigest(), path=path))


@one_thread()
def _load(
    path: Path,
    data: bytes,
    arch: str | None,
    options: dict[str, object],
    prefix: str,
    allow_pickle: bool,
    input_range: Range | None,
) -> Readings:
    kind = _kind(path, data)
    exported: tuple[str, ...] = ()
    if kind in ("pt2", "onnx", "tflite"):
        if arch is not None or prefix:
            option = "--prefix" if arch is None else "--arch"
            raise InvalidInput(f"is {kind}, which holds the network itself. Leave {option} out.")
        if options:
            raise InvalidInput(f"is {kind}, which holds the network itself. Leave {_name_options(options)} out.")
        if kind == "onnx":
            require_seal(io.BytesIO(data))
        if kind == "tflite":
            require_tflite_seal(data)
            network, stated = _load_tflite(data)
            remarks = Remarks(input_range=stated)
        else:
            remarks = _plain_remarks(path)
            network, exported = _load_pt2(data, allow_pickle) if kind == "pt2" else (_load_onnx(path), exported)
            remarks = replace(remarks, input_range=remarks.input_range or range_of_integers(network))
        if input_range is not None and remarks.input_range not in (None, input_range):
            low, high = remarks.input_range
            raise InvalidInput(f"takes values from {low:g} to {high:g}. Leave --input-range out.")
        readings = read_module(network, {}, remarks, input_range)
        return replace(readings, habits=(*readings.habits, *exported))
    content: nn.Module | StateDict
    if kind == "safetensors":
        state = _safetensors(data)
        content, remarks = take_prefix(state, prefix) if prefix else state, read_remarks(_safetensors_metadata(data))
    else:
        loaded = _checkpoint(data, allow_pickle)
        content, remarks = unwrap(loaded, prefix), read_remarks(loaded, prefix)
    if isinstance(content, nn.Module):
        check_tensors(content.state_dict(), len(data))
        return read_module(prepare(content), {}, remarks, input_range)
    check_tensors(content, len(data))
    content = widen(without_tools(content))
    if arch is not None and ":" in arch:
        network, assumed = build_own(arch, options, content)
        readings = read_module(network, options, remarks, input_range)
        return replace(readings, habits=(*readings.habits, *assumed))
    only = None if arch is None else find_family(arch)
    try:
        return read_family(compute_weights(content), only, options, remarks, input_range)
    except UnknownKeys as refusal:
        if only is not None or options:
            raise
        network = _offer_to_spandrel(content, refusal)
        return read_module(prepare(network), {}, remarks, input_range or INPUT_RANGE)


def _offer_to_spandrel(state: StateDict, refusal: UnknownKeys) -> nn.Module:
    """The network as spandrel builds it.  Raises our own refusal where it does not, with what it says."""
    answer = build_by_spandrel(state)
    if isinstance(answer, nn.Module):
        return answer
    raise refusal if isinstance(refusal, Misfit) else UnknownKeys(f"{refusal} {answer}")


def find_graph_kind(path: Path) -> Literal["onnx", "tflite"] | None:
    """The kind of graph that a file which was read holds, by its content, whatever its name; None of other files."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
    except OSError:  # it has vanished since: who needs it will tell
        start = b""
    kind = _kind_by_start(path, start)
    return kind if kind in ("onnx", "tflite") else None


def _kind_by_start(path: Path, start: bytes) -> Literal["tflite", "zip", "torch", "safetensors", "onnx"] | None:
    # Before others: what comes first is an offset, any number.
    if start[4:8] == b"TFL3" or path.suffix.lower() == ".tflite":
        return "tflite"
    if start.startswith(archive.MAGIC):
        return "zip"
    begins_a_header = start[4:9] == b"\0\0\0\0{"  # of safetensors, behind its length, whose first byte may be any
    if start.startswith(b"\x80") and not begins_a_header:
        return "torch"
    if start[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        return "safetensors"
    if start.startswith(b"\x08") or path.suffix.lower() == ".onnx":
        return "onnx"
    return None


def _kind(path: Path, data: bytes) -> str:
    """Kind of content: torch, safetensors, pt2, onnx or tflite.  Raises InvalidInput for anything else."""
    if path.suffix == ".distcp":
        raise InvalidInput(f"is a part of a checkpoint of torch.distributed. {JOIN_PARTS}")
    kind = _kind_by_start(path, data[:_START])
    if kind == "zip":
        return _zip_kind(data)
    if kind == "safetensors" and (len(data) < 8 or int.from_bytes(data[:8], "little") > len(data) - 8):
        raise InvalidInput("is a truncated or damaged safetensors file. Download it again.")
    if kind is not None:
        return kind
    if data[STATE_DIGEST : STATE_DIGEST + len(archive.MAGIC)] == archive.MAGIC and _is_hexadecimal(data[:STATE_DIGEST]):
        raise InvalidInput(
            "is the state of a run of memsrc, which --resume reads. Give the network that the run wrote beside it, "
            "student.* or network.*."
        )
    if data.startswith(b"version https://git-lfs"):
        raise InvalidInput("is a Git LFS pointer, not the weights. Run `git lfs pull` where it came from.")
    if data[:256].lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise InvalidInput("is a web page, not the weights. Download the file behind it.")
    if data[257:262] == b"ustar":
        raise InvalidInput(
            "is a tar archive. Unpack it and give the checkpoint inside; if PyTorch before 0.2 wrote it, load and save "
            "it with a PyTorch from between."
        )
    raise InvalidInput(
        "is in no format known here. Give a PyTorch checkpoint (.pt, .pth, .ckpt), a .safetensors, a .pt2, "
        "an .onnx or a .tflite file."
    )


def _is_hexadecimal(text: bytes) -> bool:
    return all(letter in b"0123456789abcdef" for letter in text)


def _zip_kind(data: bytes) -> str:
    names = archive.check_archive(data)
    if "serialized_exported_program.json" in names:
        raise InvalidInput("is a .pt2 archive of PyTorch 2.7 or older. Export the network again and save it.")
    if any(name.endswith("/archive_format") for name in names):
        return "pt2"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise InvalidInput(
            "is a TorchScript archive, which holds compiled code. Save the state_dict() of the network it "
            "was made from, export that with torch.onnx, or pass the nn.Module from Python."
        )
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise InvalidInput(f"is a zip archive of something else ({some(names)}). Give the checkpoint inside it.")


def _checkpoint(data: bytes, allow_pickle: bool) -> object:
    try:
        foreign = pickle_scan.foreign_imports(data)
    except InvalidInput as error:
        raise InvalidInput(f"is truncated or damaged: {error}. Download or save it again.") from error
    foreign = [name for name in foreign if allow_pickle or name not in pickle_scan.WITH_ATTRIBUTES]
    if pickle_scan.PLAIN in foreign:  # torch.load would execute it, and refuse what comes of it
        raise InvalidInput(
            "is a pickle that torch.save did not write. If you trust it, load it by yourself and save its arrays as "
            "tensors, with torch.save or safetensors."
        )
    if foreign and not allow_pickle:
        raise RefusedPickle(
            f"holds a pickle that would import {some(foreign)}, so reading it executes code. Save "
            "network.state_dict() where it comes from, or use --allow-pickle if you trust it."
        )
    if foreign:
        log.warning("executing a pickle that imports %s", ", ".join(foreign))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # said below if it matters
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=not allow_pickle)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(
            f"needs code that is not installed here ({first_line(error)}). Put it on PYTHONPATH."
        ) from error
    except pickle.UnpicklingError as error:
        raise RefusedPickle(
            "PyTorch's reader of weights does not know its pickle: it is damaged, or of another protocol "
            "than 2. Save it again without pickle_protocol, or use --allow-pickle if you trust it."
        ) from error
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise InvalidInput(f"is truncated or damaged ({first_line(error)}). Download or save it again.") from error


def _safetensors(data: bytes) -> StateDict:
    try:
        state = safetensors.torch.load(data)  # checks that every tensor's bytes are there
        metadata = _safetensors_metadata(data)
    except KeyError as error:  # a type that the format has and its library gives torch no tensors of
        raise InvalidInput(
            f"{_name_of_type(data, error.args[0])}: is stored as {error.args[0]}, a type of quantised numbers that is "
            "not read. Save the network as it was before, in float32 or float16."
        ) from error
    except (SafetensorError, ValueError) as error:
        raise InvalidInput(f"is truncated or damaged ({first_line(error)}). Download it again.") from error
    if PLAIN_FORMAT_KEY in metadata:
        raise InvalidInput("is a plain network, not a teacher. Give it where a plain network is asked for.")
    return state


def _name_of_type(data: bytes, kind: str) -> str:
    """The first tensor of this type in a safetensors file."""
    tensors = ((name, told) for name, told in _safetensors_header(data).items() if name != "__metadata__")
    return next(name for name, told in tensors if told["dtype"] == kind)


def _safetensors_metadata(data: bytes) -> dict[str, str]:
    """The text that a safetensors file holds beside its tensors.  Raises ValueError for a header that is none."""
    metadata: dict[str, str] = _safetensors_header(data).get("__metadata__") or {}  # null is nothing to the library too
    return metadata


def _safetensors_header(data: bytes) -> dict[str, dict[str, Any]]:
    header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


def _plain_remarks(path: Path) -> Remarks:
    """The range that a plain network of ours states, and what it is if not always its teacher; else nothing.

    Raises InvalidInput for one that is not as it was written.
    """
    if not is_plain(path):
        return Remarks()
    try:
        info = read_plain_file(path, require_certificate=False).manifest.info
    except InvalidInput as error:
        raise InvalidInput(str(error).removeprefix(f"{path}: ")) from error
    statement = info.guarantee.partition(";")[0]
    if statement.startswith(APPROXIMATION):
        return Remarks(input_range=info.input_range, instead=statement)
    conditional = statement.startswith("exact while")  # not "without negative values": no image of its range has any
    return Remarks(
        input_range=info.input_range, instead=statement.replace("exact", "exact only", 1) if conditional else ""
    )


def _load_pt2(data: bytes, allow_pickle: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """The network in a .pt2 archive, and what is assumed of it, in words."""
    reasons = pt2.suspicions(data)
    if reasons and not allow_pickle:
        raise RefusedPickle(
            f"loading this .pt2 archive could execute code: it {some(reasons, separator='; ')}. "
            "Use --allow-pickle if you trust it."
        )
    if reasons:
        log.warning("loading a .pt2 archive that %s", "; ".join(reasons))
    network, assumed = pt2.load_exported(data)
    check_tensors(network.state_dict(), len(data))
    return network.float(), assumed


def _load_onnx(path: Path) -> nn.Module:
    """The graph in an ONNX file, or a module of torch where it has gates that can be frozen.

    Raises UnsupportedModel where it is neither.
    """
    from memsr_compiler.trace.approximate.freeze import find_places
    from memsr_compiler.trace.onnx.as_torch import load_onnx_module
    from memsr_compiler.trace.onnx.reader import load_onnx

    try:
        return load_onnx(path).eval()
    except UnsupportedModel as refusal:
        network = load_onnx_module(path, refusal)
        if not find_places(network):
            raise
        return network


def _name_options(options: Mapping[str, object]) -> str:
    """Options by which arguments were said on the command line, where --scale is one of them."""
    return " and ".join(dict.fromkeys("--scale" if name == "scale" else "--arch-args" for name in options))


def _load_tflite(data: bytes) -> tuple[nn.Module, Range | None]:
    from memsr_compiler.trace.tflite.reader import load_tflite

    network, stated = load_tflite(data)
    return network.eval(), stated
