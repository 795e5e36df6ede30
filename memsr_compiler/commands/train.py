"""memsrc train: a network trained from new weights on photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from memsr_compiler.commands.given.own_code import digest_code
from memsr_compiler.commands.given.teachers import parse_arguments
from memsr_compiler.commands.interface.output import Talk, is_first, silence_others
from memsr_compiler.commands.interface.training_options import TrainOptions
from memsr_compiler.commands.runs.choices import choose, settle
from memsr_compiler.commands.runs.common import read_data, recipe, show_progress, tell
from memsr_compiler.commands.runs.run_folder import hold_run, record_of, steps_taken
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.files import atomic_write
from memsr_compiler.lowering.compile import compile_to_plain
from memsr_compiler.plain.info import Takes
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.plain.write import export_onnx, save_plain
from memsr_compiler.teachers.remarks import attach_remarks
from memsr_compiler.training.branches import Branched
from memsr_compiler.training.losses import Objective, Supervised
from memsr_compiler.training.models import family_of, new_network
from memsr_compiler.training.starts import restart

if TYPE_CHECKING:
    from memsr_compiler.training.recipe import Recipe


def run(options: TrainOptions, talk: Talk) -> None:
    """Build a network, train it, write the best."""
    talk = silence_others(talk)
    choices = choose(options)
    options = settle(options, choices)
    how = recipe(options, choices)
    record = record_of(options)
    with hold_run(options, how, record, talk) as resume:
        _train(options, how, record, resume, talk)


def _train(options: TrainOptions, how: Recipe, record: Mapping[str, Any], resume: Path | None, talk: Talk) -> None:
    network, input_range = new_network(options.arch, _arguments(options), scale=options.scale, seed=options.seed)
    takes = Takes(options.scale, 3, input_range)
    code = digest_code(options.arch)  # what was imported now: photographs take long
    talk.say(f"network      {options.arch}, {sum(p.numel() for p in network.parameters()):,} parameters")
    objective = _objective(network, options)
    source, judged = read_data(options, takes, record, resume, talk, code)
    before = judged.score(objective.settle().eval())
    from memsr_compiler.training.loop import run as train

    with show_progress(talk, how.steps, steps_taken(resume)) as on_step:
        outcome = train(
            objective,
            source,
            how,
            options.out,
            validate=judged.psnr,
            judged=judged.key,
            resume=resume,
            on_step=on_step,
        )
    if not is_first():
        return
    written = _write(network.eval(), input_range, options, talk)
    rows = {
        "bicubic": judged.bicubic,
        "network before": before,
        "network after": judged.score(network),
    }
    tell(outcome, rows, judged, written, talk)


def _objective(network: nn.Module, options: TrainOptions) -> Objective:
    """The network from the new weights that were asked for.  Raises InvalidInput where it is no plain one."""
    branches = options.branches or "none"
    if not isinstance(network, PlainNet):
        if options.init is not None or branches != "none":
            name = "--init" if options.init is not None else "--branches"
            raise InvalidInput(f"{name} is for plain networks; {options.arch} begins with the weights of its family")
        return Supervised(network)
    if options.init == "identity" and branches != "none":
        raise InvalidInput("--init identity with --branches: the branches have identities already; leave one out")
    if options.init not in (None, "he"):  # He's it has already
        restart(network, options.init, options.seed)
    if branches == "none":
        return Supervised(network)
    return Branched(network, normalised=branches == "repvgg", start=options.init or "he", seed=options.seed)


def _arguments(options: TrainOptions) -> dict[str, object]:
    """The arguments that the architecture is called with.  Raises InvalidInput where it has a shape of its own."""
    sizes: dict[str, object] = {"blocks": options.blocks, "channels": options.channels}
    shape = {"layers": options.layers, "width": options.width, "image_skip": options.image_skip}
    if options.arch == "plain":
        sizes |= shape | {"image_skip": "" if options.image_skip == "none" else "nearest"}
    elif wrong := [name for name, value in shape.items() if value is not None]:
        raise InvalidInput(f"--{wrong[0].replace('_', '-')} is for --arch plain; {options.arch} has a shape of its own")
    return parse_arguments(options.arch_args or ()) | {k: v for k, v in sizes.items() if v is not None}


def _write(network: nn.Module, input_range: tuple[float, float], options: TrainOptions, talk: Talk) -> list[Path]:
    """Write the weights, with what they do not say, and the network as a plain one."""
    out = options.out
    if isinstance(network, PlainNet):
        save_plain(network, out / "network.safetensors")
        export_onnx(network, out / "network.onnx")
        return [out / "network.safetensors", out / "network.onnx"]
    state = network.state_dict()
    said = {"scale": options.scale, **_arguments(options)}
    attach_remarks(state, family_of(options.arch), said, input_range)
    with atomic_write(out / "network.pt") as file:
        torch.save(state, file)
    try:
        export_onnx(compile_to_plain(network, input_range=input_range), out / "plain.onnx")
    except MemsrError as error:
        talk.warn(f"no plain network was made of it: {error}")
        return [out / "network.pt"]
    return [out / "network.pt", out / "plain.onnx"]
