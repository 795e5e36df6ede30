"""memsrc: the command line.  Options and help here, work in `memsr_compiler.commands`.

Exit status: 0 done; 1 `verify` found the networks different or the certificate wrong; 2 wrong input, or a network that
cannot be converted; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from memsr_compiler.errors import CertificateError, ExportError, MemsrError, NotEquivalent
from memsr_compiler.version import VERSION

INTERRUPTED = 130  # exit status, as shells have it
SETTINGS = "memsr_compiler.settings"  # where a context remembers the YAML file of its options

app = typer.Typer(
    name="memsrc",
    help="Turn a trained super-resolution network into an equivalent plain one: convolution, ReLU, one pixel shuffle.",
    epilog="Exit status: 0 done, 1 not equivalent (verify), 2 wrong input or not convertible, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PROVIDERS = ("cpu", "cuda", "tensorrt")  # as in `runtime`, which waits for torch

Teacher = Annotated[
    Path, typer.Argument(help="The trained network: .pt, .pth, .ckpt, .safetensors, .onnx, .pt2", metavar="TEACHER")
]
PlainOrTeacher = Annotated[
    Path,
    typer.Argument(
        help="The trained network: .pt, .pth, .ckpt, .safetensors, .onnx, .pt2; or a plain one that convert wrote",
        metavar="TEACHER",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="Architecture: a known name (edsr), or package.module:factory for your own code; default: by the keys",
        metavar="NAME",
    ),
]
ArchArgs = Annotated[
    list[str] | None, typer.Option(help="Arguments for it, NAME=VALUE, may be repeated", metavar="NAME=VALUE")
]
Scale = Annotated[int | None, typer.Option(help="Scale factor, where the file does not tell (FSRCNN, IDN)", min=1)]
InputRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        help="Smallest and largest input value: 0 1 or 0 255; default: what the family expects", metavar="LOW HIGH"
    ),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Execute what the file asks for; only for files you trust")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print what each pass did")]
Size = Annotated[str, typer.Option(help="Input size for which cost is counted", metavar="WxH")]
Align = Annotated[
    int, typer.Option(help="Pad widths to a multiple of this; engines run multiples of 8 at full speed", min=1)
]
Init = Annotated[
    str, typer.Option(help="How a student is derived: data-aware, or memsr (the paper's Algorithm 1)", metavar="MODE")
]
Beta = Annotated[float, typer.Option(help="Mean shift of --init memsr, the paper's beta")]
Paper = Annotated[
    list[str] | None,
    typer.Option(
        help="For --init memsr, where the paper's text and its authors' code part: text (default), code, or one choice "
        "such as kept=1, see docs/paper_mode.md; may be given again",
        metavar="CHOICE",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Images to derive from, any photographs; default: those that ship", metavar="DIR"),
]
Samples = Annotated[int | None, typer.Option(help="Crops to take from them; more take longer", metavar="N")]
Seed = Annotated[int, typer.Option(help="For the places of the crops", min=0)]
Refit = Annotated[
    int | None,
    typer.Option(help="Steps of the joint refit, 0: none; default: 2-3 minutes' worth, 40 to 200 or none", metavar="N"),
]
AlignStudent = Annotated[
    int, typer.Option(help="Round widths up to a multiple of this; engines run multiples of 8 at full speed", min=1)
]

Provider = Annotated[
    str,
    typer.Option(
        help="What ONNX Runtime runs on: cpu, cuda, or tensorrt; refused where it is not to be had", metavar="NAME"
    ),
]
Threads = Annotated[int | None, typer.Option(help="Threads of the processor; default: the engine's choice", min=1)]


def _settings(context: typer.Context, path: Path | None) -> Path | None:
    """Options of a YAML file become defaults, before the others are read."""
    if path is not None:
        from memsr_compiler.commands.config_file import read_settings

        known = {option: p.name for p in context.command.params for option in (p.name, *p.opts) if option and p.name}
        found = read_settings(path, known, f"memsrc {context.info_name}")
        context.default_map = {**(context.default_map or {}), **found}
        context.meta[SETTINGS] = path
    return path


def _resumed(context: typer.Context, place: Path | None) -> Path | None:
    """A run goes on with the options it began with, where it is now."""
    if place is not None:
        from memsr_compiler.errors import InvalidInput

        if not place.exists():
            raise InvalidInput(f"{place}: there is no such run; give a run's folder, or one of its checkpoints")
        folder = place.parent if place.is_file() else place
        _settings(context, folder / "config.yaml")
        context.default_map = {**(context.default_map or {}), "out": str(folder)}
    return place


Data = Annotated[
    Path, typer.Option(help="High-resolution photographs; or a folder with one named ..HR, as DIV2K's", metavar="DIR")
]
RunFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder for the run and its result", metavar="RUN")]
Config = Annotated[
    Path | None,
    typer.Option(help="Options from a YAML file, name: value", metavar="RUN.yaml", is_eager=True, callback=_settings),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        help="Go on with a run, or from one of its checkpoints, with the options it began with",
        metavar="RUN",
        is_eager=True,
        callback=_resumed,
    ),
]
Validation = Annotated[
    Path | None,
    typer.Option("--val", help="Images to validate on, HR alone or HR and LR; default: those that ship", metavar="DIR"),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Where photographs made ready are kept; default: the user's cache folder", metavar="DIR"),
]
Steps = Annotated[int, typer.Option(help="Optimizer steps", min=1)]
BatchSize = Annotated[int, typer.Option(help="Patches in a step, of all processes together", min=1)]
Patch = Annotated[int, typer.Option(help="Side of a patch of the photograph, in pixels", min=1)]
Rate = Annotated[float, typer.Option(help="Peak of the one-cycle learning rate; MemSR's is 2e-4")]
WarmUp = Annotated[float, typer.Option(help="Part of the steps until the peak, 0 to 1")]
Every = Annotated[int, typer.Option(help="Steps between validations, each with a checkpoint", min=1)]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient, 0: any")]
Average = Annotated[float, typer.Option("--ema", help="Decay of the moving average of weights, 0: none")]
Mixed = Annotated[str, typer.Option("--precision", help="Mixed precision: no, bf16, fp16", metavar="NAME")]
Compiled = Annotated[bool, typer.Option("--compile/--no-compile", help="Use torch.compile")]
Workers = Annotated[int, typer.Option(help="Processes that cut patches, 0: this one", min=0)]
TrainingSeed = Annotated[int, typer.Option("--seed", help="Of patches and new weights; MemSR's are 233 to 236", min=0)]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="On errors, print Python's traceback too")
    ] = False,
) -> None:
    if version:
        typer.echo(f"memsrc {VERSION}")
        raise typer.Exit


def _talk(as_json: bool = False, quiet: bool = False, verbose: bool = False) -> Any:
    from memsr_compiler.commands.output import Talk

    return Talk(quiet=quiet, verbose=verbose, as_json=as_json)


def _choice(option: str, value: str, *known: str) -> Any:
    from memsr_compiler.errors import InvalidInput

    if value not in known:
        raise InvalidInput(f"--{option} {value}: want one of {', '.join(known)}")
    return value


def _size(text: str) -> tuple[int, int]:
    from memsr_compiler.errors import InvalidInput

    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise InvalidInput(f"--size {text}: want WIDTHxHEIGHT, as in --size 480x270")
    return int(width), int(height)


def _one_of(budgets: dict[str, Any]) -> tuple[str, Any]:
    """The one that was given."""
    from memsr_compiler.errors import InvalidInput

    given = [(name, value) for name, value in budgets.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name, _ in given) or "none of them"
        raise InvalidInput(f"{found}: want exactly one of {', '.join(f'--{name}' for name in budgets)}")
    return given[0]


@app.command(epilog="Example: memsrc convert teacher.pt --out plain.onnx --report report.html")
def convert(
    teacher: Teacher,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="What to write: .onnx (and .cert.json beside it) or .safetensors")
    ],
    carry: Annotated[
        str, typer.Option(help="How values pass ReLUs: auto (free, else split), split, or shift (x + C)")
    ] = "auto",
    constant: Annotated[
        float | None, typer.Option(help="C for --carry shift, in the network's own units (paper: 1000)")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Images to measure C on, without --constant; default: sample photographs", metavar="DIR"),
    ] = None,
    margin: Annotated[float, typer.Option(help="Measured constants are widened by this", min=1.0)] = 3.0,
    tail: Annotated[
        str, typer.Option(help="Layers above the input's resolution: fold them down, or keep them as stages")
    ] = "fold",
    input_range: InputRange = None,
    dtype: Annotated[str, typer.Option(help="Precision of the ONNX file: float32 or float16")] = "float32",
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report", metavar="FILE.html")] = None,
    align: Align = 8,
    image_skip: Annotated[
        str,
        typer.Option(help="An interpolated image added at the end: refuse it, or keep it outside the plain network"),
    ] = "refuse",
    max_weights: Annotated[
        float, typer.Option(help="Refuse plain networks with more weights than this, in GiB of float32")
    ] = 4.0,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    scale: Scale = None,
    allow_pickle: AllowPickle = False,
    size: Size = "480x270",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile a trained network into an equivalent plain network, with a certificate."""
    chosen = {
        "carry": _choice("carry", carry, "auto", "shift", "split"),
        "tail": _choice("tail", tail, "fold", "keep"),
        "dtype": _choice("dtype", dtype, "float32", "float16"),
        "image_skip": _choice("image-skip", image_skip, "refuse", "outside"),
    }
    talk = _talk(as_json, quiet, verbose)
    pixels = _size(size)
    from memsr_compiler.commands.convert import ConvertOptions, run
    from memsr_compiler.commands.teachers import TeacherOptions

    options = ConvertOptions(
        out=out, constant=constant, calibration=calibration, margin=margin, align=align,
        max_weights=int(max_weights * 2**30), report=report, size=pixels, **chosen,
    )  # fmt: skip
    run(TeacherOptions(teacher, arch, tuple(arch_args or ()), scale, input_range, allow_pickle), options, talk)


@app.command(epilog="Example: memsrc inspect teacher.pt")
def inspect(
    teacher: Teacher,
    tail: Annotated[str, typer.Option(help="Predict for --tail fold or keep")] = "fold",
    align: Align = 8,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    scale: Scale = None,
    allow_pickle: AllowPickle = False,
    size: Size = "480x270",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a network layer by layer, whether it can be converted (or why not), and what its plain form would cost."""
    chosen = _choice("tail", tail, "fold", "keep")
    talk = _talk(as_json, quiet, verbose)
    pixels = _size(size)
    from memsr_compiler.commands import inspect as command
    from memsr_compiler.commands.teachers import TeacherOptions

    options = TeacherOptions(teacher, arch, tuple(arch_args or ()), scale, input_range, allow_pickle)
    command.run(options, tail=chosen, align=align, size=pixels, talk=talk)


@app.command(epilog="Example: memsrc verify teacher.pt plain.onnx")
def verify(
    teacher: Teacher,
    plain: Annotated[
        Path, typer.Argument(help="The plain network: .onnx or .safetensors, as convert wrote it", metavar="PLAIN")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Also run both on the images in this folder", metavar="DIR")
    ] = None,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    scale: Scale = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check the certificate and run both networks; exit status 1 if the plain one is not the teacher."""
    talk = _talk(as_json, quiet, verbose)
    from memsr_compiler.commands import verify as command
    from memsr_compiler.commands.teachers import TeacherOptions

    options = TeacherOptions(teacher, arch, tuple(arch_args or ()), scale, input_range, allow_pickle)
    command.run(options, plain, images, talk)


@app.command(epilog="Example: memsrc shrink teacher.pt --theta 0.05 --out student.onnx --report report.html")
def shrink(
    teacher: PlainOrTeacher,
    out: Annotated[Path, typer.Option("--out", "-o", help="What to write: .onnx or .safetensors")],
    theta: Annotated[
        float | None, typer.Option(help="Widths by the error they allow: MemSR Eq. 15; main values 0.05 and 0.14")
    ] = None,
    width: Annotated[int | None, typer.Option(help="One width for all layers but the last", metavar="R")] = None,
    widths: Annotated[
        str | None, typer.Option(help="A width for every layer but the last", metavar="R1,R2,...")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(help="The best widths with at most so many parameters, say 400K", metavar="N")
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option(help="The same for multiply-adds at an input of --size, say 30G", metavar="N")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="The same for feature maps in float32 at --size, say 40MB", metavar="SIZE")
    ] = None,
    size: Size = "960x540",
    init: Init = "data-aware",
    beta: Beta = 3.0,
    paper: Paper = None,
    calibration: Calibration = None,
    samples: Samples = None,
    seed: Seed = 0,
    refit: Refit = None,
    align: AlignStudent = 8,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report", metavar="FILE.html")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Also write the student as .safetensors", metavar="FILE.safetensors")
    ] = None,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    scale: Scale = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Derive a much narrower plain student from a few images, untrained.  Give one of --theta to --max-memory."""
    mode = _choice("init", init, "data-aware", "memsr")
    talk = _talk(as_json, quiet, verbose)
    pixels = _size(size)
    budget = _one_of(
        {
            "theta": theta, "width": width, "widths": widths,
            "max-params": max_params, "max-macs": max_macs, "max-memory": max_memory,
        }
    )  # fmt: skip
    from memsr_compiler.commands.shrink import ShrinkOptions, run
    from memsr_compiler.commands.student_common import StudentOptions, parsed_budget
    from memsr_compiler.commands.teachers import TeacherOptions

    student = StudentOptions(mode, beta, tuple(paper or ()), calibration, samples, seed, refit, align, pixels)
    options = ShrinkOptions(out, parsed_budget(*budget), student, save, report)
    run(TeacherOptions(teacher, arch, tuple(arch_args or ()), scale, input_range, allow_pickle), options, talk)


@app.command(epilog="Example: memsrc sweep teacher.pt --theta 0.02,0.05,0.1,0.14 --data Set5 --plot curve.svg")
def sweep(
    teacher: PlainOrTeacher,
    theta: Annotated[
        str | None, typer.Option(help="A student for each theta, as in shrink", metavar="T1,T2,...")
    ] = None,
    width: Annotated[
        str | None, typer.Option(help="A student for each width, as in shrink", metavar="R1,R2,...")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images to measure PSNR on, or folders HR and LR; default: calibration images", metavar="DIR"
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the curve as a table", metavar="FILE.csv")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the curve", metavar="FILE.svg")] = None,
    size: Size = "960x540",
    init: Init = "data-aware",
    beta: Beta = 3.0,
    paper: Paper = None,
    calibration: Calibration = None,
    samples: Samples = None,
    seed: Seed = 0,
    refit: Refit = None,
    align: AlignStudent = 8,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    scale: Scale = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Derive students of several widths: PSNR against multiply-adds and memory.  Give --theta or --width."""
    mode = _choice("init", init, "data-aware", "memsr")
    talk = _talk(as_json, quiet, verbose)
    pixels = _size(size)
    option, listed = _one_of({"theta": theta, "width": width})
    from memsr_compiler.commands.student_common import StudentOptions, parsed_budgets
    from memsr_compiler.commands.sweep import SweepOptions, run
    from memsr_compiler.commands.teachers import TeacherOptions

    student = StudentOptions(mode, beta, tuple(paper or ()), calibration, samples, seed, refit, align, pixels)
    options = SweepOptions(parsed_budgets(option, listed), student, data, csv, plot)
    run(TeacherOptions(teacher, arch, tuple(arch_args or ()), scale, input_range, allow_pickle), options, talk)


@app.command("eval", epilog="Example: memsrc eval bicubic teacher.pt student.onnx --data Set5/x2")
def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(help="Networks: .onnx, plain .safetensors, a teacher; or the word bicubic", metavar="MODEL..."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="HR images, or folders HR and LR; default: the photographs that ship", metavar="DIR"),
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Scale factor, where no network has one of its own (VDSR, bicubic)", min=1)
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(help="edsr: 8-bit RGB in and out; srcnn: Y alone, made smaller without rounding", metavar="NAME"),
    ] = "edsr",
    csv: Annotated[Path | None, typer.Option(help="Also write every score", metavar="FILE.csv")] = None,
    provider: Provider = "cpu",
    threads: Threads = None,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score networks on test images, side by side: PSNR and SSIM on Y."""
    chosen = _choice("protocol", protocol, "edsr", "srcnn")
    place = _choice("provider", provider, *PROVIDERS)
    talk = _talk(as_json, quiet, verbose)
    from memsr_compiler.commands.evaluate import EvalOptions, run
    from memsr_compiler.commands.teachers import TeacherOptions

    teacher = TeacherOptions(Path(), arch, tuple(arch_args or ()), None, input_range, allow_pickle)
    run(EvalOptions(tuple(model), teacher, data, scale, chosen, csv, place, threads), talk)


@app.command(epilog="Example: memsrc bench teacher.pt plain.onnx student.onnx --size 960x540 --plot figure.svg")
def bench(
    model: Annotated[
        list[Path], typer.Argument(help="Networks: .onnx, plain .safetensors, a teacher", metavar="MODEL...")
    ],
    size: Annotated[str, typer.Option(help="Size of the image to enlarge", metavar="WxH")] = "960x540",
    provider: Provider = "cpu",
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(help="Rounds; in each one every network runs once", min=1)] = 5,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images for PSNR: HR, or folders HR and LR; default: the photographs that ship", metavar="DIR"
        ),
    ] = None,
    scale: Annotated[int | None, typer.Option(help="Scale factor, where no network has one of its own", min=1)] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table", metavar="FILE.csv")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw it: PSNR, latency, memory as area", metavar="FILE.svg|FILE.png")
    ] = None,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure networks side by side on this machine: latency, memory, multiply-adds, PSNR."""
    place = _choice("provider", provider, *PROVIDERS)
    talk = _talk(as_json, quiet, verbose)
    pixels = _size(size)
    from memsr_compiler.commands.bench import BenchOptions, run
    from memsr_compiler.commands.teachers import TeacherOptions

    teacher = TeacherOptions(Path(), arch, tuple(arch_args or ()), None, input_range, allow_pickle)
    run(BenchOptions(tuple(model), teacher, pixels, place, threads, repeats, data, scale, csv, plot), talk)


@app.command(epilog="Example: memsrc upscale photos/ large/ --model student.onnx --max-memory 256MB")
def upscale(
    source: Annotated[
        str, typer.Argument(help="An image, a folder, or a pattern in quotes: 'photos/*.jpg'", metavar="IN")
    ],
    target: Annotated[Path, typer.Argument(help="The result: a file, or a folder for several", metavar="OUT")],
    model: Annotated[
        Path, typer.Option(help="The network: a plain one, .onnx or .safetensors; any with --tile off", metavar="FILE")
    ],
    max_memory: Annotated[
        str | None,
        typer.Option(help="What an image may take beyond network, decoder and encoder: 256MB", metavar="SIZE"),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            help="auto: bands of rows, and columns only where those are too wide; off: whole; N: columns of N pixels",
            metavar="auto|off|N",
        ),
    ] = "auto",
    scale: Annotated[
        int | None, typer.Option(help="Scale factor, where the network has none of its own (VDSR)", min=2, max=16)
    ] = None,
    max_pixels: Annotated[
        str, typer.Option(help="Refuse images with more pixels than this", metavar="N")
    ] = "268435456",
    threads: Annotated[int | None, typer.Option(help="Default: one for each core, at most 8", min=1)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there already")] = False,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Enlarge image files, of any size in bounded memory.  Alpha, ICC profile, EXIF and 16 bits are kept.

    A folder that was begun goes on where it stopped.
    """
    talk = _talk(as_json, quiet)
    from memsr_compiler.commands.quantities import count, size_in_bytes
    from memsr_compiler.commands.teachers import TeacherOptions
    from memsr_compiler.commands.upscale import UpscaleOptions, run
    from memsr_compiler.errors import InvalidInput

    if tile not in ("auto", "off") and not (tile.isascii() and tile.isdigit() and int(tile)):
        raise InvalidInput(f"--tile {tile}: want auto, off, or a number of pixels")
    limit = size_in_bytes("max-memory", max_memory) if max_memory is not None else None
    network = TeacherOptions(model, arch, tuple(arch_args or ()), None, input_range, allow_pickle)
    most = count("max-pixels", max_pixels)
    run(UpscaleOptions(source, target, network, tile, limit, scale, most, threads, overwrite), talk)


@app.command(epilog="Example: memsrc quantize student.onnx --out student-int8.onnx --data Set5/x2")
def quantize(
    model: Annotated[
        Path, typer.Argument(help="A float32 network: .onnx, plain or any that enlarges images", metavar="MODEL.onnx")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="What to write: .onnx")],
    calibration: Annotated[
        Path | None,
        typer.Option(help="Images to measure ranges on, any photographs; default: those that ship", metavar="DIR"),
    ] = None,
    samples: Annotated[int, typer.Option(help="Crops to take from them", min=1)] = 36,
    seed: Seed = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images to measure PSNR on, or folders HR and LR; default: calibration images", metavar="DIR"
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="Input size that is timed", metavar="WxH")] = "480x270",
    input_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Smallest and largest input value; for files that are not ours, default 0 1", metavar="LOW HIGH"
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn a float32 ONNX network into one of 8-bit integers; prints what it costs in PSNR and gains in time."""
    talk = _talk(as_json, quiet, verbose)
    pixels = _size(size)
    from memsr_compiler.commands.quantize import QuantizeOptions, run

    run(QuantizeOptions(model, out, calibration, samples, seed, data, pixels, input_range), talk)


@app.command(
    epilog="Examples: memsrc distill student.safetensors --teacher teacher.pt --data DIV2K --out run/; "
    "memsrc distill --resume run/"
)
def distill(
    context: typer.Context,
    student: Annotated[Path, typer.Argument(help="A plain student, as shrink wrote it", metavar="STUDENT")],
    teacher: Annotated[Path, typer.Option(help="The trained network that it was derived from", metavar="TEACHER")],
    data: Data,
    out: RunFolder,
    val: Validation = None,
    scale: Annotated[int | None, typer.Option(help="Scale factor; default: the student's", min=1)] = None,
    steps: Steps = 10_000,
    batch: BatchSize = 16,
    patch: Patch = 192,
    rate: Rate = 5e-5,
    warm_up: WarmUp = 0.3,
    weight: Annotated[float, typer.Option("--lambda", help="Weight of the features' distance, Eq. 14; 0: none")] = 0.3,
    epsilon: Annotated[float, typer.Option(help="What is left of that at the end, Eq. 14")] = 1e-5,
    maps: Annotated[
        str, typer.Option(help="The maps M_i at the start: initialised (least squares), or random", metavar="HOW")
    ] = "initialised",
    init: Annotated[
        str, typer.Option(help="The student's weights at the start: as-is; or new ones, he or xavier", metavar="HOW")
    ] = "as-is",
    centred: Annotated[
        bool, typer.Option("--centred/--as-published", help="Train kernels on features without their mean")
    ] = True,
    every: Every = 500,
    clip: Clip = 0.0,
    ema: Average = 0.0,
    precision: Mixed = "no",
    compiled: Compiled = False,
    workers: Workers = 0,
    seed: TrainingSeed = 233,
    cache: Cache = None,
    resume: Resume = None,
    config: Config = None,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune a student on photographs, under its teacher (MemSR Eq. 12 to 14).

    On several processes: torchrun --nproc-per-node 2 -m memsr_compiler distill ..., or accelerate launch -m.
    """
    how = _choice("maps", maps, "initialised", "random")
    start = _choice("init", init, "as-is", "he", "xavier")
    mixed = _choice("precision", precision, "no", "bf16", "fp16")
    talk = _talk(as_json, quiet, verbose)
    recipe = {
        "steps": steps, "batch": batch, "rate": rate, "warm_up": warm_up, "every": every, "clip": clip, "average": ema,
        "precision": mixed, "compiled": compiled, "workers": workers,
    }  # fmt: skip
    from memsr_compiler.commands.distill import DistillOptions, run
    from memsr_compiler.commands.teachers import TeacherOptions
    from memsr_compiler.commands.training_common import TrainingOptions

    training = TrainingOptions(data, out, val, cache, patch, seed, recipe, resume, _given(context))
    options = TeacherOptions(teacher, arch, tuple(arch_args or ()), None, input_range, allow_pickle)
    run(DistillOptions(student, options, training, weight, epsilon, how, start, centred, scale), talk)


@app.command(
    epilog="Example: memsrc train --arch edsr --arch-args blocks=16,channels=64 --scale 2 --data DIV2K --out run/"
)
def train(
    context: typer.Context,
    scale: Annotated[int, typer.Option(help="Scale factor", min=2)],
    data: Data,
    out: RunFolder,
    arch: Annotated[
        str, typer.Option(help="teacher-s, -m, -l, plain-s, -m, -l (MemSR's), or a family such as edsr", metavar="NAME")
    ] = "teacher-s",
    arch_args: ArchArgs = None,
    blocks: Annotated[int | None, typer.Option(help="Residual blocks, where the family has them", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Channels, where the family has them", min=1)] = None,
    val: Validation = None,
    steps: Steps = 10_000,
    batch: BatchSize = 16,
    patch: Patch = 192,
    rate: Rate = 2e-4,
    warm_up: WarmUp = 0.3,
    every: Every = 500,
    clip: Clip = 0.0,
    ema: Average = 0.0,
    precision: Mixed = "no",
    compiled: Compiled = False,
    workers: Workers = 0,
    seed: TrainingSeed = 233,
    cache: Cache = None,
    resume: Resume = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network from new weights: a teacher, or a plain network for comparison.

    On several processes: torchrun --nproc-per-node 2 -m memsr_compiler train ..., or accelerate launch -m.
    """
    mixed = _choice("precision", precision, "no", "bf16", "fp16")
    talk = _talk(as_json, quiet, verbose)
    recipe = {
        "steps": steps, "batch": batch, "rate": rate, "warm_up": warm_up, "every": every, "clip": clip, "average": ema,
        "precision": mixed, "compiled": compiled, "workers": workers,
    }  # fmt: skip
    from memsr_compiler.commands.teachers import parsed
    from memsr_compiler.commands.train import TrainOptions, run
    from memsr_compiler.commands.training_common import TrainingOptions

    named = {name: value for name, value in (("blocks", blocks), ("channels", channels)) if value is not None}
    training = TrainingOptions(data, out, val, cache, patch, seed, recipe, resume, _given(context))
    run(TrainOptions(arch, {**parsed(arch_args or ()), **named}, scale, training), talk)


@app.command(epilog="Example: memsrc similarity teacher.pt student.safetensors --data Set5/x2/HR --plot cka.svg")
def similarity(
    first: Annotated[Path, typer.Argument(help="A network: a teacher, or a plain one", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Another that takes the same images", metavar="B")],
    data: Annotated[
        Path | None, typer.Option(help="Photographs to compare on; default: those that ship", metavar="DIR")
    ] = None,
    samples: Annotated[int, typer.Option(help="Crops to take from them", min=1)] = 16,
    csv: Annotated[Path | None, typer.Option(help="Also write all pairs of layers", metavar="FILE.csv")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw them", metavar="FILE.svg")] = None,
    input_range: InputRange = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare what the layers of two networks hold: linear CKA, 0 to 1."""
    talk = _talk(as_json, quiet, verbose)
    from memsr_compiler.commands.similarity import SimilarityOptions, run
    from memsr_compiler.commands.teachers import TeacherOptions

    teacher = TeacherOptions(Path(), arch, tuple(arch_args or ()), None, input_range, allow_pickle)
    run(SimilarityOptions((first, second), teacher, data, samples, csv, plot), talk)


def _given(context: typer.Context) -> dict[str, Any]:
    """All options of a run by their names, for its record; not how it talks, nor where options came from."""
    left_out = ("resume", "config", "as_json", "quiet", "verbose")
    names = {p.name: p.opts[0].lstrip("-") for p in context.command.params if p.name not in left_out}
    values = {names[name]: value for name, value in context.params.items() if name in names and value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def main() -> None:
    """The entry point: messages instead of tracebacks, and the exit status."""
    warnings.simplefilter("ignore")  # torch's deprecations are for its programmers
    before = signal.signal(
        signal.SIGINT, lambda *_: os._exit(INTERRUPTED)
    )  # until torch is imported: it cannot be interrupted
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # typer has caught it
            _fail("interrupted", INTERRUPTED)
        sys.exit(status)
    except typer.TyperException as error:
        _fail(_usage(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except (NotEquivalent, CertificateError) as error:
        _fail(str(error), 1)
    except MemsrError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(str(ExportError(f"{error.filename or 'standard output'}: {error.strerror or error}")), 2)
    finally:
        signal.signal(signal.SIGINT, before)


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the command line, on one line."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if not message:  # no arguments at all: typer has printed the help
        sys.exit(2)
    context, param = getattr(error, "ctx", None), getattr(error, "param", None)
    if context and param:
        source = context.get_parameter_source(param.name)
        if source is not None and source.name == "DEFAULT_MAP":
            message = f"{context.meta[SETTINGS]}: {message}"
    return f"{message}; see {context.command_path if context else 'memsrc'} --help"


def _fail(message: str, status: int) -> None:
    if "--traceback" in sys.argv:
        traceback.print_exc()
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": message, "exit_status": status}))
    typer.secho(f"memsrc: {message}", err=True, fg="red")
    sys.exit(status)
