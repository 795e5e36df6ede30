"""Files that a command takes or writes where none is named."""

from __future__ import annotations

from pathlib import Path

from memsr_compiler.commands.interface.example import Incomplete, find_teacher
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.files import describe_folder
from memsr_compiler.plain.read import is_plain, read_plain_file

HERE = Path()


def name_beside(path: Path, suffix: str) -> Path:
    """teacher.pt, .plain.onnx -> teacher.plain.onnx;  teacher.plain.onnx, .student.onnx -> teacher.student.onnx

    Raises InvalidInput for a folder, beside which nothing is written.
    """
    if path.is_dir():
        raise InvalidInput(f"{path}: {describe_folder(path, 'the weights')}")
    return path.with_name(path.stem.removesuffix(".plain") + suffix)


def find_plain_network() -> Path:
    """The only plain network in this folder that `convert` left.  Raises Incomplete for none, and for several."""
    paths = [path for path in sorted(HERE.iterdir()) if is_plain(path) and _is_converted(path)]
    if len(paths) == 1:
        return paths[0]
    if paths:
        names = ", ".join(map(str, paths))
        raise Incomplete(f"there are several plain networks here, {names}; name one", arguments=[str(paths[0])])
    raise Incomplete("no plain network of convert's is here; name a network", arguments=[find_teacher()])


def _is_converted(path: Path) -> bool:
    """Whether a plain network is equivalent to a teacher: students have no certificate."""
    try:
        return read_plain_file(path, require_certificate=False).manifest.certificate_sha256 != ""
    except MemsrError:
        return False
