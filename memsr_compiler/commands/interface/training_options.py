"""Every option of `train` and `distill`, once; see `options`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from memsr_compiler.commands.given.named import find_network
from memsr_compiler.commands.interface.command import NETWORK, RUN, TRAINING, option
from memsr_compiler.commands.interface.config_file import resume_run, use_config_file
from memsr_compiler.commands.interface.options import check_seed
from memsr_compiler.commands.interface.quantities import check_number

OptimizerName = Literal["adam", "muon"]
Labels = Literal["photographs", "teacher", "both"]
Method = Literal["memsr", "srkd", "fakd", "pisr"]
Zoom = Literal["none", "out", "in", "both"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """A run on photographs, for `train` and `distill`."""

    data: Annotated[
        list[Path],
        option(
            "High-resolution photographs; or a folder with one named ..HR, as DIV2K's; may be repeated",
            panel=RUN,
            metavar="DIR",
        ),
    ]
    out: Annotated[Path, option("Folder for the run and its result", "--out", "-o", panel=RUN, metavar="RUN")]
    overwrite: Annotated[
        bool, option("Begin anew in a folder that holds a run, which is lost", "--overwrite", panel=RUN)
    ] = False
    val: Annotated[
        Path | None,
        option("Images to validate on, HR alone or HR and LR; default: those that ship", panel=RUN, metavar="DIR"),
    ] = None
    cache: Annotated[
        Path | None,
        option("Where photographs made ready are kept; default: the user's cache folder", panel=RUN, metavar="DIR"),
    ] = None
    resume: Annotated[
        Path | None,
        option(
            "Go on with a run, or from one of its checkpoints, with the options it began with",
            panel=RUN,
            metavar="RUN",
            is_eager=True,
            callback=resume_run,
        ),
    ] = None
    allow_changed_data: Annotated[
        bool,
        option(
            "Go on though photographs, validation images or networks are not those that the run began with",
            "--allow-changed-data",
            panel=RUN,
        ),
    ] = False
    config: Annotated[
        Path | None,
        option(
            "Options from a YAML file, name: value",
            panel=RUN,
            metavar="RUN.yaml",
            is_eager=True,
            callback=use_config_file,
        ),
    ] = None
    steps: Annotated[int, option("Optimizer steps", panel=TRAINING, metavar="N", min=1)] = 10_000
    batch: Annotated[
        int, option("Patches in a step, of all processes together", panel=TRAINING, metavar="N", min=1)
    ] = 16
    patch: Annotated[
        int, option("Side of a patch of the photograph, in pixels", panel=TRAINING, metavar="N", min=1)
    ] = 192
    rate: Annotated[
        float | None,
        option(
            "Peak of the one-cycle learning rate; default: MemSR's 2e-4; of distill 2e-3 for muon, 1e-3 for adam, 2e-4 "
            "for students of 10 layers or more",
            panel=TRAINING,
            metavar="RATE",
            callback=check_number("a learning rate above 0, at most 3e38; 2e-4 is MemSR's", lambda x: 0 < x <= 3e38),
        ),
    ] = None
    warm_up: Annotated[
        float,
        option(
            "Part of the steps until the peak, 0 to 1",
            panel=TRAINING,
            metavar="PART",
            callback=check_number("a number between 0 and 1", lambda x: 0 < x < 1),
        ),
    ] = 0.3
    every: Annotated[
        int, option("Steps between validations, each with a checkpoint", panel=TRAINING, metavar="N", min=1)
    ] = 500
    clip: Annotated[
        float,
        option(
            "Largest norm of the gradient, 0: any",
            panel=TRAINING,
            metavar="NORM",
            callback=check_number("a number from 0 on", lambda x: x >= 0),
        ),
    ] = 0.0
    ema: Annotated[
        float | None,
        option(
            "Decay of the moving average of weights, 0: none; default: none, of distill 0.999",
            panel=TRAINING,
            metavar="DECAY",
            callback=check_number("a number from 0 to below 1", lambda x: 0 <= x < 1),
        ),
    ] = None
    optimizer: Annotated[
        OptimizerName | None,
        option(
            "adam, as MemSR; or muon, whose steps move all directions of a kernel alike; default: of distill muon",
            panel=TRAINING,
        ),
    ] = None
    precision: Annotated[Literal["no", "bf16", "fp16"], option("Mixed precision", panel=TRAINING)] = "no"
    compiled: Annotated[bool, option("Use torch.compile", "--compile/--no-compile", panel=TRAINING)] = False
    workers: Annotated[
        int, option("Processes that cut patches, 0: a thread of this one", panel=TRAINING, metavar="N", min=0, max=1024)
    ] = 0
    seed: Annotated[
        int,
        option(
            "Of patches and new weights; MemSR's are 233 to 236",
            panel=TRAINING,
            metavar="N",
            min=0,
            callback=check_seed,
        ),
    ] = 233


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainingOptions):
    """A student, its teacher, and how much the teacher's features count.  scale: None: the student's."""

    student: Annotated[
        Path,
        typer.Argument(
            help="A plain student, as shrink wrote it, or one that ships", metavar="STUDENT", callback=find_network
        ),
    ]
    teacher: Annotated[
        Path,
        option("The trained network that it was derived from", panel=NETWORK, metavar="TEACHER", callback=find_network),
    ]
    scale: Annotated[
        int | None, option("Scale factor; default: the student's", panel=NETWORK, metavar="N", min=1, max=16)
    ] = None
    labels: Annotated[
        Labels | None,
        option(
            "What the student is to give: the photographs, the teacher's output, or both; default: both",
            panel=TRAINING,
        ),
    ] = None
    zoom: Annotated[
        Zoom,
        option(
            "Train on photographs made smaller by two as well, on their own pixels, which the teacher alone enlarges, "
            "or on both",
            panel=TRAINING,
        ),
    ] = "none"
    ensemble: Annotated[
        bool,
        option(
            "The teacher's output is its mean over the eight ways to turn and mirror an image",
            "--self-ensemble",
            panel=TRAINING,
        ),
    ] = False
    int8: Annotated[
        bool,
        option(
            "Train for 8-bit integers, whose rounding is simulated; student.int8.onnx is written, and no student.onnx",
            "--int8",
            panel=TRAINING,
        ),
    ] = False
    method: Annotated[
        Method,
        option(
            "How features are compared: memsr, with trained maps; srkd, their statistics; fakd, which pixels are "
            "alike; pisr, with an auto-encoder of photographs that the first half of the steps trains",
            panel=TRAINING,
        ),
    ] = "memsr"
    weight: Annotated[
        float | None,
        option(
            "Weight of the features' distance, lambda of Eq. 14; default: 0, none; srkd 1, fakd 10, pisr 1e-6",
            "--lambda",
            panel=TRAINING,
            metavar="WEIGHT",
            callback=check_number("a number from 0 on; 0.3 is the paper's", lambda x: x >= 0),
        ),
    ] = None
    epsilon: Annotated[
        float | None,
        option(
            "What is left of that at the end, Eq. 14; default: 1e-5; of other methods 1, all of it",
            panel=TRAINING,
            metavar="PART",
            callback=check_number("a number above 0, at most 1; 1e-5 is the paper's", lambda x: 0 < x <= 1),
        ),
    ] = None
    maps: Annotated[
        Literal["initialised", "random"],
        option("The maps M_i at the start: initialised (least squares), or random", panel=TRAINING),
    ] = "initialised"
    init: Annotated[
        Literal["as-is", "he", "he-uniform", "xavier", "xavier-uniform", "identity"],
        option(
            "The student's weights at the start: as-is; or new ones, normal, uniform, or such that it begins as the "
            "nearest-neighbour image",
            panel=TRAINING,
        ),
    ] = "as-is"
    centred: Annotated[
        bool,
        option(
            "Balance channels, and train kernels on features without their mean; or train as MemSR did: neither, and "
            "what else is not given is adam, 2e-4, photographs, lambda 0.3 (of memsr), no average",
            "--centred/--as-published",
            panel=TRAINING,
        ),
    ] = True


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """A network from new weights."""

    scale: Annotated[int, option("Scale factor", panel=NETWORK, metavar="N", min=2, max=16)]
    arch: Annotated[
        str,
        option(
            "teacher-s, -m, -l, plain-s, -m, -l (MemSR's); plain, with --layers and --width; or a family such as edsr",
            panel=NETWORK,
            metavar="NAME",
        ),
    ] = "teacher-s"
    arch_args: Annotated[
        list[str] | None, option("Arguments for it, NAME=VALUE, may be repeated", panel=NETWORK, metavar="NAME=VALUE")
    ] = None
    blocks: Annotated[
        int | None, option("Residual blocks, where the family has them", panel=NETWORK, metavar="N", min=1)
    ] = None
    channels: Annotated[
        int | None, option("Channels, where the family has them", panel=NETWORK, metavar="N", min=1)
    ] = None
    layers: Annotated[
        int | None, option("Layers of plain, the last included", panel=NETWORK, metavar="N", min=2, max=1024)
    ] = None
    width: Annotated[
        int | None, option("Channels between the layers of plain", panel=NETWORK, metavar="N", min=1, max=1 << 16)
    ] = None
    image_skip: Annotated[
        Literal["nearest", "none"] | None,
        option(
            "Of plain: what is added to the layers' output, the nearest-neighbour image or nothing; default: nearest",
            panel=NETWORK,
        ),
    ] = None
    init: Annotated[
        Literal["he", "he-uniform", "xavier", "xavier-uniform", "identity"] | None,
        option(
            "Of plain networks: new weights, normal, uniform, or such that it begins as the nearest-neighbour image; "
            "default: he",
            panel=TRAINING,
        ),
    ] = None
    branches: Annotated[
        Literal["none", "repvgg", "repvgg-bn-free"] | None,
        option(
            "Of plain networks: train 1x1 convolutions and identities beside every layer, with batch norm or without, "
            "that are one convolution at the end; default: none",
            panel=TRAINING,
        ),
    ] = None
