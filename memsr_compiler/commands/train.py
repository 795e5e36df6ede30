"""memsrc train: a network trained from new weights on photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from memsr_compiler.commands.output import Talk, is_first, silenced
from memsr_compiler.commands.training_common import (
    TrainingOptions,
    begin,
    bench,
    check,
    done_before,
    patches,
    recipe,
    shown,
    told,
)
from memsr_compiler.errors import MemsrError
from memsr_compiler.files import atomic_write
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.training.losses import Supervised
from memsr_compiler.training.models import new_network


@dataclass(frozen=True)
class TrainOptions:
    """As given on the command line."""

    arch: str
    arguments: Mapping[str, object]
    scale: int
    training: TrainingOptions


def run(options: TrainOptions, talk: Talk) -> None:
    """Build, train, write the best."""
    talk = silenced(talk)
    training = options.training
    how = recipe(training)
    check(training, how)
    network, input_range = new_network(options.arch, options.arguments, scale=options.scale, seed=training.seed)
    takes = Takes(options.scale, 3, input_range)
    talk.say(f"network      {options.arch}, {sum(p.numel() for p in network.parameters()):,} parameters")
    source = patches(training, takes, talk)
    judged = bench(training, takes, talk)
    begin(training)
    before = judged.score(network.eval())
    from memsr_compiler.training.loop import run as train

    with shown(talk, how.steps, done_before(training.resume)) as on_step:
        outcome = train(
            Supervised(network),
            source,
            how,
            training.out,
            validate=judged.psnr,
            resume=training.resume,
            on_step=on_step,
        )
    if not is_first():
        return
    written = _written(network.eval(), input_range, training.out, talk)
    rows = {
        "bicubic": judged.bicubic,
        "network before": before,
        "network after": judged.score(network),
    }
    told(outcome, rows, judged.words, written, talk)


def _written(network: nn.Module, input_range: tuple[float, float], out: Path, talk: Talk) -> list[Path]:
    """The weights, and the network as a plain one."""
    if isinstance(network, PlainNet):
        save_plain(network, out / "network.safetensors")
        export_onnx(network, out / "network.onnx")
        return [out / "network.safetensors", out / "network.onnx"]
    with atomic_write(out / "network.pt") as file:
        torch.save(network.state_dict(), file)
    try:
        export_onnx(compile_to_plain(network, input_range=input_range), out / "plain.onnx")
    except MemsrError as error:
        talk.warn(f"no plain network was made of it: {error}")
        return [out / "network.pt"]
    return [out / "network.pt", out / "plain.onnx"]
