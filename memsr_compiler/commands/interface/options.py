"""Every option of every command, once: its name, help, type, default, and the panel of --help that it stands in.

Those of `train` and `distill` are in `training_options`.

A dataclass here is both the declaration (`command` makes parameters of its fields) and what the command is given.
Nothing here waits for torch, so --help does not either.  Annotations are evaluated, once, and not kept as text as
elsewhere: to evaluate them for each command takes as long as all else that the command line loads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from memsr_compiler.checks import MOST_THREADS
from memsr_compiler.commands.given.named import find_network, find_networks
from memsr_compiler.commands.interface.command import (
    CONVERSION,
    COSTS,
    ENGINE,
    FILMS,
    IMAGES,
    MESSAGES,
    NETWORK,
    OUTPUT,
    READING,
    STUDENT,
    WIDTHS,
    option,
)
from memsr_compiler.commands.interface.example import Incomplete
from memsr_compiler.commands.interface.quantities import (
    Size,
    check_number,
    check_range,
    parse_bytes,
    parse_count,
    parse_fractions,
    parse_size,
    parse_tile,
    parse_whole_numbers,
)
from memsr_compiler.errors import InvalidInput
from memsr_compiler.models.catalogue import DEFAULT

SMALL, MIDDLE = Size(480, 270), Size(960, 540)
check_seed = check_number("a number below 2^63", lambda x: x < 2**63)  # torch's generators take no larger one

# -- single options that several commands have --------------------------------------------------------------------

Device = Annotated[
    Literal["cpu", "cuda"], option("What torch runs networks on; refused where it is not to be had", panel=ENGINE)
]
Provider = Annotated[
    Literal["cpu", "cuda", "tensorrt"],
    option("What ONNX Runtime runs on; refused where it is not to be had", panel=ENGINE),
]
Threads = Annotated[
    int | None,
    option(
        "Threads of the processor; default: the engine's choice", panel=ENGINE, metavar="N", min=1, max=MOST_THREADS
    ),
]
CostSize = Annotated[
    Size, option("Input size for which costs are counted", panel=COSTS, metavar="WxH", parser=parse_size)
]
Tail = Annotated[
    Literal["fold", "keep"],
    option("Layers above the input's resolution: fold them down, or keep them as stages", panel=CONVERSION),
]
Align = Annotated[
    int | None,
    option(
        "Round widths up to a multiple of this; default: 8, which engines run at full speed, or 4 with PReLUs",
        panel=CONVERSION,
        metavar="N",
        min=1,
        max=1024,
    ),
]
Seed = Annotated[int, option("For the places of the crops", panel=IMAGES, metavar="N", min=0, callback=check_seed)]
Overwrite = Annotated[
    bool,
    option("Also replace files that memsrc did not write; its own it always does", "--overwrite", panel=OUTPUT),
]
Report = Annotated[Path | None, option("Also write an HTML report", panel=OUTPUT, metavar="FILE.html")]
ScoredData = Annotated[
    Path | None,
    option("Images to score on: HR, or folders HR and LR; default: those that ship", panel=IMAGES, metavar="DIR"),
]
CommonScale = Annotated[
    int | None,
    option(
        "Scale factor, where no network has one of its own (VDSR; bicubic, in eval)",
        panel=IMAGES,
        metavar="N",
        min=1,
        max=16,
    ),
]
Csv = Annotated[Path | None, option("Also write the numbers as a table", panel=OUTPUT, metavar="FILE.csv")]
PlotSvg = Annotated[Path | None, option("Also draw them", panel=OUTPUT, metavar="FILE.svg")]


# -- what is printed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TalkOptions:
    """Choices of how a command talks."""

    as_json: Annotated[bool, option("Print one JSON object instead of tables", "--json", panel=MESSAGES)] = False
    quiet: Annotated[bool, option("Print errors only", "--quiet", "-q", panel=MESSAGES)] = False


@dataclass(frozen=True, kw_only=True)
class VerboseOptions(TalkOptions):
    """Choices of how a command talks that has more to tell."""

    verbose: Annotated[bool, option("Also print what each step did", "--verbose", "-v", panel=MESSAGES)] = False


# -- how files of networks are read -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Ways to read those of the files that are teachers."""

    input_range: Annotated[
        tuple[float, float] | None,
        option(
            "Smallest and largest input value: 0 1 or 0 255; default: what the family expects",
            panel=READING,
            metavar="LOW HIGH",
            callback=check_range,
        ),
    ] = None
    arch: Annotated[
        str | None,
        option(
            "Architecture: a known name (edsr), or package.module:factory for your own code; default: by the keys",
            panel=READING,
            metavar="NAME",
        ),
    ] = None
    arch_args: Annotated[
        list[str] | None,
        option("Arguments for it, NAME=VALUE, may be repeated", panel=READING, metavar="NAME=VALUE"),
    ] = None
    prefix: Annotated[
        str,
        option(
            "What its keys begin with in a file of several networks: generator_ema.; default: the only network's",
            panel=READING,
            metavar="PREFIX",
        ),
    ] = ""
    allow_pickle: Annotated[
        bool, option("Execute what the file asks for; only for files you trust", "--allow-pickle", panel=READING)
    ] = False

    no_probe: Annotated[
        bool,
        option(
            "Do not try on a photograph what a file does not say: the network is not trained, or restores none",
            "--no-probe",
            panel=READING,
        ),
    ] = False

    def of(self, path: Path) -> "TeacherOptions":
        """These options for one file."""
        return TeacherOptions(
            teacher=path,
            no_probe=self.no_probe,
            input_range=self.input_range,
            arch=self.arch,
            arch_args=self.arch_args,
            prefix=self.prefix,
            allow_pickle=self.allow_pickle,
        )


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(ReadingOptions):
    """A teacher's file, and how to read it."""

    teacher: Annotated[
        Path,
        typer.Argument(
            help="The trained network: .pt, .pth, .ckpt, .safetensors, .onnx, .pt2, .tflite",
            metavar="TEACHER",
            callback=find_network,
        ),
    ]
    scale: Annotated[
        int | None,
        option("Scale factor, where the file does not tell (FSRCNN, IDN)", panel=READING, metavar="N", min=1, max=16),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PlainOrTeacherOptions(TeacherOptions):
    """A teacher's file or a plain network's, and how to read it."""

    teacher: Annotated[
        Path,
        typer.Argument(
            help="The trained network: .pt, .pth, .ckpt, .safetensors, .onnx, .pt2, .tflite; or a plain one that "
            "convert wrote",
            metavar="TEACHER",
            callback=find_network,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class ShrinkSource(PlainOrTeacherOptions):
    """A teacher's file or a plain network's; by default the only plain network in this folder."""

    teacher: Annotated[
        Path,
        typer.Argument(
            help="The trained network: .pt, .pth, .ckpt, .safetensors, .onnx, .pt2, .tflite; or a plain one that "
            "convert wrote",
            metavar="TEACHER",
            callback=find_network,
            show_default="the only plain network in this folder",
        ),
    ] = Path()


# -- a command each -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `convert`.  constant: C, in the network's own units;  max_weights: GiB."""

    out: Annotated[
        Path | None,
        option(
            "What to write: .onnx (and .cert.json beside it), .safetensors or .tflite; default: beside the input, "
            "teacher.plain.onnx",
            "--out",
            "-o",
            panel=OUTPUT,
            metavar="FILE",
        ),
    ] = None
    overwrite: Overwrite = False
    report: Report = None
    dtype: Annotated[Literal["float32", "float16"], option("Precision of the ONNX file", panel=OUTPUT)] = "float32"
    activation: Annotated[
        Literal["relu", "prelu"],
        option(
            "What follows a convolution: relu, or prelu, with a slope of 0, 1 or the teacher's own in each channel, "
            "which carries every value in one",
            panel=CONVERSION,
        ),
    ] = "relu"
    carry: Annotated[
        Literal["auto", "shift", "split"],
        option("How values pass ReLUs: auto (free, else split), split, or shift (x + C)", panel=CONVERSION),
    ] = "auto"
    constant: Annotated[
        float | None,
        option(
            "C for --carry shift, in the network's own units (paper: 1000)",
            panel=CONVERSION,
            metavar="C",
            callback=check_number("a positive number; 1000 is the paper's", lambda x: x > 0),
        ),
    ] = None
    approximate: Annotated[
        bool,
        option(
            "Replace what has no plain form by numbers (gates by their means, smooth activations by straight pieces): "
            "not the teacher any more, and its certificate says so",
            "--approximate",
            panel=CONVERSION,
        ),
    ] = False
    calibration: Annotated[
        Path | None,
        option(
            "Images to measure C on, without --constant, and the numbers of --approximate; default: sample photographs",
            panel=CONVERSION,
            metavar="DIR",
        ),
    ] = None
    margin: Annotated[
        float,
        option(
            "Measured constants are widened by this",
            panel=CONVERSION,
            metavar="FACTOR",
            min=1.0,
            callback=check_number("a finite number from 1 on"),
        ),
    ] = 3.0
    tail: Tail = "fold"
    align: Align = None
    image_skip: Annotated[
        Literal["refuse", "outside"],
        option(
            "An enlarged image added at the end: keep it outside the plain network, or refuse an interpolated one",
            panel=CONVERSION,
        ),
    ] = "refuse"
    device: Device = "cpu"
    max_weights: Annotated[
        float,
        option(
            "Refuse plain networks with more weights than this, in GiB of float32",
            panel=CONVERSION,
            metavar="GIB",
            callback=check_number("a positive number of GiB", lambda x: x > 0),
        ),
    ] = 4.0
    size: CostSize = SMALL


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Options of `inspect`: the plain form that it predicts."""

    tail: Tail = "fold"
    align: Align = None
    size: CostSize = SMALL


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `verify`: the network and the images that the teacher is compared with and on."""

    plain: Annotated[
        Path,
        typer.Argument(
            help="The plain network: .onnx or .safetensors, as convert wrote it", metavar="PLAIN", callback=find_network
        ),
    ]
    images: Annotated[
        Path | None, option("Also run both on the images in this folder", panel=IMAGES, metavar="DIR")
    ] = None
    device: Device = "cpu"


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """Choices of how `shrink` and `sweep` derive a student; None: the library's own."""

    calibration: Annotated[
        Path | None,
        option("Images to derive from, any photographs; default: those that ship", panel=IMAGES, metavar="DIR"),
    ] = None
    samples: Annotated[
        int | None,
        option("Crops to take from them; more take longer", panel=IMAGES, metavar="N", min=1),
    ] = None
    seed: Seed = 0
    init: Annotated[
        Literal["data-aware", "memsr"],
        option("How it is derived: data-aware, or memsr (the paper's Algorithm 1)", panel=STUDENT),
    ] = "data-aware"
    layers: Annotated[
        int | None,
        option(
            "Layers, the last included; fewer than the plain form's, and each stands for several of its levels",
            panel=STUDENT,
            metavar="N",
            min=1,
            max=1024,
        ),
    ] = None
    image_skip: Annotated[
        Literal["nearest", "none"] | None,
        option(
            "What is added to the layers' output: the nearest-neighbour image, or none; default: nearest where the "
            "output is an enlarged image, none for --init memsr",
            panel=STUDENT,
        ),
    ] = None
    refit: Annotated[
        int | None,
        option(
            "Steps of the joint refit, 0: none; default: 1-2 minutes' worth, 24 to 120 or none",
            panel=STUDENT,
            metavar="N",
            min=0,
        ),
    ] = None
    align: Annotated[
        int,
        option(
            "Round widths up to a multiple of this; engines run multiples of 8 at full speed",
            panel=STUDENT,
            metavar="N",
            min=1,
            max=1024,
        ),
    ] = 8
    mean_shift: Annotated[
        float,
        option(
            "Mean shift of --init memsr, the paper's beta",
            "--beta",
            panel=STUDENT,
            metavar="BETA",
            callback=check_number("a finite number, since a mean shift of nan or inf is none; 3 is the paper's"),
        ),
    ] = 3.0
    paper: Annotated[
        list[str] | None,
        option(
            "For --init memsr, where the paper's text and its authors' code part: text (default), code, or one choice "
            "such as kept=1, see docs/paper_mode.md; may be given again",
            panel=STUDENT,
            metavar="CHOICE",
        ),
    ] = None
    size: CostSize = MIDDLE
    device: Device = "cpu"


@dataclass(frozen=True, kw_only=True)
class ShrinkOptions(StudentOptions):
    """Options of `shrink`: how narrow, and where to."""

    theta: Annotated[
        float | None,
        option(
            "The error that each layer may have: MemSR Eq. 15; 0.05 and 0.14 are the paper's main values",
            panel=WIDTHS,
            metavar="ERROR",
            callback=check_number("a number between 0 and 1, as in 0.05", lambda x: 0 < x < 1),
        ),
    ] = None
    width: Annotated[int | None, option("One width for all layers but the last", panel=WIDTHS, metavar="R", min=1)] = (
        None
    )
    widths: Annotated[
        Sequence[int] | None,
        option("A width for every layer but the last", panel=WIDTHS, metavar="R1,R2,...", parser=parse_whole_numbers),
    ] = None
    max_params: Annotated[
        int | None,
        option(
            "The best widths with at most so many parameters, say 400K", panel=WIDTHS, metavar="N", parser=parse_count
        ),
    ] = None
    max_macs: Annotated[
        int | None,
        option(
            "The same for multiply-adds at an input of --size, say 30G", panel=WIDTHS, metavar="N", parser=parse_count
        ),
    ] = None
    max_memory: Annotated[
        int | None,
        option(
            "The same for feature maps in float32 at --size, say 40MB",
            panel=WIDTHS,
            metavar="SIZE",
            parser=parse_bytes,
        ),
    ] = None
    max_latency: Annotated[
        float | None,
        option(
            "The same for milliseconds at --size, in ONNX Runtime on this machine",
            panel=WIDTHS,
            metavar="MS",
            callback=check_number("a positive number of milliseconds", lambda x: x > 0),
        ),
    ] = None
    provider: Provider = "cpu"
    threads: Threads = None
    out: Annotated[
        Path | None,
        option(
            "What to write: .onnx, .safetensors or .tflite; default: beside the input, teacher.student.onnx",
            "--out",
            "-o",
            panel=OUTPUT,
            metavar="FILE",
        ),
    ] = None
    overwrite: Overwrite = False
    save: Annotated[
        Path | None, option("Also write the student as .safetensors", panel=OUTPUT, metavar="FILE.safetensors")
    ] = None
    report: Report = None

    def __post_init__(self) -> None:
        require_one(self._budgets)

    @property
    def _budgets(self) -> dict[str, Any]:
        names = ("theta", "width", "widths", "max_params", "max_macs", "max_memory", "max_latency")
        return {name: getattr(self, name) for name in names}

    @property
    def budget(self) -> dict[str, Any]:
        """The budget that was given, as an argument of `shrink`."""
        return {name: value for name, value in self._budgets.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SweepOptions(StudentOptions):
    """Options of `sweep`: how narrow each student, and where the curve goes to."""

    theta: Annotated[
        Sequence[float] | None,
        option("A student for each theta, as in shrink", panel=WIDTHS, metavar="T1,T2,...", parser=parse_fractions),
    ] = None
    width: Annotated[
        Sequence[int] | None,
        option("A student for each width, as in shrink", panel=WIDTHS, metavar="R1,R2,...", parser=parse_whole_numbers),
    ] = None
    data: Annotated[
        Path | None,
        option(
            "Images to measure PSNR on, or folders HR and LR; default: calibration images", panel=IMAGES, metavar="DIR"
        ),
    ] = None
    csv: Csv = None
    overwrite: Overwrite = False
    plot: PlotSvg = None

    def __post_init__(self) -> None:
        require_one({"theta": self.theta, "width": self.width})

    @property
    def budgets(self) -> list[dict[str, float]]:
        """An argument of `shrink` for each student."""
        return [
            {name: value} for name, values in (("theta", self.theta), ("width", self.width)) for value in values or ()
        ]


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Networks that are scored, and the images for it.  model: files, or "bicubic";  scale: None: the networks' own."""

    model: Annotated[
        list[str],
        typer.Argument(
            help="Networks: .onnx, .tflite, plain .safetensors, a teacher, one that ships (x2-small); or bicubic",
            metavar="MODEL...",
            callback=find_networks,
        ),
    ]
    data: ScoredData = None
    scale: CommonScale = None
    protocol: Annotated[
        Literal["edsr", "srcnn"],
        option("edsr: 8-bit RGB in and out; srcnn: Y alone, made smaller without rounding", panel=IMAGES),
    ] = "edsr"
    provider: Provider = "cpu"
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        option("What torch runs teachers and .safetensors on; default: as --provider", panel=ENGINE),
    ] = None
    threads: Threads = None
    csv: Csv = None
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Networks that are measured, and the images for it."""

    model: Annotated[
        list[Path],
        typer.Argument(
            help="Networks: .onnx, .tflite, plain .safetensors, a teacher, one that ships (x2-small)",
            metavar="MODEL...",
            callback=find_networks,
        ),
    ]
    size: Annotated[Size, option("Size of the image to enlarge", panel=IMAGES, metavar="WxH", parser=parse_size)] = (
        MIDDLE
    )
    data: ScoredData = None
    scale: CommonScale = None
    provider: Provider = "cpu"
    threads: Threads = None
    repeats: Annotated[int, option("Rounds; in each one every network runs once", panel=ENGINE, metavar="N", min=1)] = 5
    csv: Csv = None
    overwrite: Overwrite = False
    plot: Annotated[
        Path | None,
        option("Also draw it: PSNR, latency, memory as area", panel=OUTPUT, metavar="FILE.svg|FILE.png"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """Images that `upscale` enlarges, where to, and in how much memory.  max_memory: bytes."""

    source: Annotated[
        str, typer.Argument(help="An image, a film, a folder, or a pattern in quotes: 'photos/*.jpg'", metavar="IN")
    ]
    target: Annotated[Path, typer.Argument(help="The result: a file, or a folder for several", metavar="OUT")]
    model: Annotated[
        Path,
        option(
            "The network: one that ships (memsrc models), a plain one, .onnx or .safetensors; any with --tile off",
            panel=NETWORK,
            metavar="NAME|FILE",
            callback=find_network,
        ),
    ] = Path(DEFAULT)
    overwrite: Annotated[bool, option("Also replace images that are there already", "--overwrite", panel=OUTPUT)] = (
        False
    )
    scale: Annotated[
        int | None,
        option("Scale factor, where the network has none of its own (VDSR)", panel=NETWORK, metavar="N", min=2, max=16),
    ] = None
    max_pixels: Annotated[
        int, option("Refuse images with more pixels than this", panel=OUTPUT, metavar="N", parser=parse_count)
    ] = 1 << 28
    max_memory: Annotated[
        int | None,
        option(
            "What an image may take beyond network, decoder and encoder: 256MB",
            panel=ENGINE,
            metavar="SIZE",
            parser=parse_bytes,
        ),
    ] = None
    tile: Annotated[
        str,
        option(
            "auto: bands of rows, and columns only where those are too wide; off: whole; N: columns of N pixels",
            panel=ENGINE,
            metavar="auto|off|N",
            parser=parse_tile,
        ),
    ] = "auto"
    provider: Provider = "cpu"
    threads: Annotated[
        int | None, option("Default: one for each core, at most 8", panel=ENGINE, metavar="N", min=1, max=MOST_THREADS)
    ] = None
    codec: Annotated[
        str | None,
        option(
            "libx264 (default; .webm: libvpx-vp9), libx265, libsvtav1, prores_ks, mpeg4, ffv1 (nothing is lost)",
            panel=FILMS,
            metavar="NAME",
        ),
    ] = None
    quality: Annotated[
        int | None,
        option(
            "The encoder's own number, less is better: of libx264 0 to 51, default 17",
            panel=FILMS,
            metavar="N",
            min=0,
            max=63,
        ),
    ] = None
    frames: Annotated[
        str | None,
        option("A scene: from frame A up to, but without, frame B; either may be left out", panel=FILMS, metavar="A:B"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """The network that becomes one of 8 bits, and the images that it is measured on."""

    model: Annotated[
        Path,
        typer.Argument(
            help="A float32 network: .onnx, plain or any that enlarges images",
            metavar="MODEL.onnx",
            callback=find_network,
        ),
    ]
    out: Annotated[Path, option("What to write: .onnx or .tflite", "--out", "-o", panel=OUTPUT, metavar="FILE")]
    overwrite: Overwrite = False
    calibration: Annotated[
        Path | None,
        option("Images to measure ranges on, any photographs; default: those that ship", panel=IMAGES, metavar="DIR"),
    ] = None
    samples: Annotated[int, option("Crops to take from them", panel=IMAGES, metavar="N", min=1)] = 36
    seed: Seed = 0
    data: Annotated[
        Path | None,
        option(
            "Images to measure PSNR on, or folders HR and LR; default: calibration images", panel=IMAGES, metavar="DIR"
        ),
    ] = None
    size: Annotated[Size, option("Input size that is timed", panel=IMAGES, metavar="WxH", parser=parse_size)] = SMALL
    input_range: Annotated[
        tuple[float, float] | None,
        option(
            "Smallest and largest input value; for files that are not ours, default 0 1",
            panel=READING,
            metavar="LOW HIGH",
            callback=check_range,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The plain network that is written as TFLite; for 8 bits, the images that it is measured on."""

    model: Annotated[
        Path,
        typer.Argument(
            help="A plain network: .onnx or .safetensors, one that quantize wrote, or one that ships (x2-small)",
            metavar="MODEL",
            callback=find_network,
        ),
    ]
    out: Annotated[Path, option("What to write: .tflite", "--out", "-o", panel=OUTPUT, metavar="FILE.tflite")]
    overwrite: Overwrite = False
    dtype: Annotated[
        Literal["float32", "float16", "int8"] | None,
        option("Precision of the weights, in int8 of everything; default: float32, or MODEL's int8", panel=OUTPUT),
    ] = None
    io: Annotated[
        Literal["int8", "float32"], option("Of an int8 network: what goes in and comes out", panel=OUTPUT)
    ] = "int8"
    size: Annotated[
        Size | None,
        option("Take images of this size only; default: any", panel=OUTPUT, metavar="WxH", parser=parse_size),
    ] = None
    calibration: Annotated[
        Path | None,
        option("For int8: images to measure ranges on; default: those that ship", panel=IMAGES, metavar="DIR"),
    ] = None
    samples: Annotated[int, option("Crops to take from them", panel=IMAGES, metavar="N", min=1)] = 36
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions:
    """Networks that are compared, and the images for it."""

    first: Annotated[
        Path, typer.Argument(help="A network: a teacher, or a plain one", metavar="A", callback=find_network)
    ]
    second: Annotated[
        Path, typer.Argument(help="Another that takes the same images", metavar="B", callback=find_network)
    ]
    data: Annotated[
        Path | None, option("Photographs to compare on; default: those that ship", panel=IMAGES, metavar="DIR")
    ] = None
    samples: Annotated[int, option("Crops to take from them", panel=IMAGES, metavar="N", min=1)] = 16
    device: Device = "cpu"
    csv: Annotated[Path | None, option("Also write all pairs of layers", panel=OUTPUT, metavar="FILE.csv")] = None
    overwrite: Overwrite = False
    plot: PlotSvg = None


def require_one(values: dict[str, Any]) -> None:
    """Raises InvalidInput unless exactly one of them was given."""
    options = {f"--{name.replace('_', '-')}": value for name, value in values.items()}
    names = [name for name, value in options.items() if value is not None]
    message = f"{' and '.join(names) or 'nothing says how narrow'}: want exactly one of {', '.join(options)}"
    if not names:
        raise Incomplete(message, options=["--theta", "0.05"])
    if len(names) > 1:
        raise InvalidInput(message)
