"""By which contents a network is known again: the file's, and those of the files that its weights lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import file_digest
from memsr_compiler.trace.onnx.tensors import find_beside, require_text

_SUFFIX = ".onnx"
_KEY = b"location"  # of an entry of external_data, as it stands in the file


def network_digest(path: Path) -> str:
    """SHA-256 of a network's file; of an ONNX model with weights in other files, of all these together.

    torch's exporter writes weights to a file beside the model, which has the same bytes whatever they are.  What is no
    readable model is known by its own file: those who read it refuse it.
    """
    own = file_digest(path)
    beside = _list_beside(path) if path.suffix.lower() == _SUFFIX else []
    if not beside:
        return own
    parts = [own, *(f"{other.name} {file_digest(other)}" for other in beside)]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def _list_beside(path: Path) -> list[Path]:
    content = path.read_bytes()
    if _KEY not in content:
        return []
    try:
        import onnx
        from google.protobuf.message import DecodeError

        model = onnx.ModelProto()
        model.ParseFromString(content)
    except (ImportError, DecodeError, ValueError):
        return []
    found = set[Path]()
    for tensor in _list_tensors(model.graph):
        for entry in tensor.external_data:
            with suppress(InvalidInput):  # told by those who read it
                if require_text(entry.key) == "location":
                    found.add(find_beside(require_text(entry.value), path.parent, path.name))
    return sorted(found)


def _list_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _list_tensors(inner)
