"""Networks as commands are given them: a plain network or any other ONNX file, or a teacher, ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from memsr_compiler.commands.console import Talk
from memsr_compiler.commands.teachers import TeacherOptions, read
from memsr_compiler.errors import InvalidInput
from memsr_compiler.modules import copied
from memsr_compiler.plain import PlainInfo
from memsr_compiler.quantization import takes_of
from memsr_compiler.runtime import OrtNetwork
from memsr_compiler.scoring import Network, Takes
from memsr_compiler.storage import is_plain, load_plain

TRIED = 32  # pixels a side, of the image by which an unknown network shows its scale


@dataclass(frozen=True)
class Model:
    """A network, what it takes, and what to call it."""

    name: str
    network: Network
    takes: Takes


def open_model(options: TeacherOptions, talk: Talk) -> Model:
    """.onnx runs in ONNX Runtime, all else in torch, in float32.

    Raises InvalidInput for a file that is no network, or one that does not work on photographs.
    """
    path = options.path
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no such file; give a network, or the word bicubic")
    plain = is_plain(path)
    if plain and path.suffix != ".onnx":
        net = load_plain(path, require_certificate=False).float()
        return Model(path.name, net, _takes(net.info))
    if path.suffix == ".onnx":
        session = OrtNetwork(path)
        if plain:
            return Model(path.name, session, _takes(load_plain(path, require_certificate=False).info))
        return Model(
            path.name, session, _told(session, path) or _found_out(session, path, options.input_range or (0.0, 1.0))
        )
    teacher, input_range = read(options, talk)
    module = copied(teacher.module, torch.float32).eval()
    return Model(path.name, module, _found_out(module, path, input_range))


def _takes(info: PlainInfo) -> Takes:
    return Takes(info.scale, info.channels, info.input_range)


def _told(session: OrtNetwork, path: Path) -> Takes | None:
    """What a network in 8 bits says it takes; None if it does not."""
    try:
        return takes_of(session.metadata)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def _found_out(network: Network, path: Path, input_range: tuple[float, float]) -> Takes:
    """By the channels that it accepts, and the size of what it makes of an image; it need not be convertible."""
    for channels in (3, 1):
        try:
            with torch.no_grad():
                output = network(torch.full((1, channels, TRIED, TRIED), sum(input_range) / 2))
        except (InvalidInput, RuntimeError):  # torch's, for another number of channels
            continue
        scale, left = divmod(output.shape[-1], TRIED)
        if (
            output.ndim == 4
            and output.shape[1] == channels
            and output.shape[2] == output.shape[3]
            and scale
            and not left
        ):
            return Takes(scale, channels, input_range)
    raise InvalidInput(f"{path}: does not enlarge images by a whole factor; a super-resolution network is wanted")
