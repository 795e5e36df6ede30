"""memsrc: the command line.  Options stand in `memsr_compiler.commands.interface.options`, the work in
`memsr_compiler.commands`; here, what each command is called, and how errors end.

Exit status: 0 done; 1 `verify` found the networks different or the certificate wrong; 2 wrong input, or a network that
cannot be converted; 3 some images of a folder were passed over (`upscale`, `eval`), or a film is damaged; 4 `verify`
found an approximation, as its certificate says; 130 interrupted; 141 nobody reads standard output any more.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from memsr_compiler.commands.interface.command import OnlyApproximate, SomeNotDone, command
from memsr_compiler.commands.interface.config_file import SOURCE
from memsr_compiler.commands.interface.example import Incomplete, complete, suggest
from memsr_compiler.commands.interface.options import (
    BenchOptions,
    ConvertOptions,
    EvalOptions,
    ExportOptions,
    InspectOptions,
    PlainOrTeacherOptions,
    QuantizeOptions,
    ReadingOptions,
    ShrinkOptions,
    ShrinkSource,
    SimilarityOptions,
    SweepOptions,
    TalkOptions,
    TeacherOptions,
    UpscaleOptions,
    VerboseOptions,
    VerifyOptions,
)
from memsr_compiler.commands.interface.training_options import DistillOptions, TrainOptions
from memsr_compiler.errors import (
    CertificateError,
    InvalidInput,
    MemsrError,
    NotEquivalent,
    escape_controls,
    first_line,
    tells_of_memory,
)
from memsr_compiler.version import VERSION

if TYPE_CHECKING:
    from memsr_compiler.commands.interface.output import Talk

INTERRUPTED, PIPE_CLOSED = 130, 141  # exit status, as shells have it
SOME_NOT_DONE, ONLY_APPROXIMATE = 3, 4
PRINTERS = ("click", "typer", "rich", "codecs", "encodings")  # modules that write to standard output
BUG = "a mistake of memsrc itself"
CHOICE = re.compile(r"Invalid value for '(.*)': Value error, '(.*)' is not one of (.*)")  # typer's words
BOUND = re.compile(r"Invalid value for '(.*)': Input should be (greater|less) than or equal to (\S+)")

app = typer.Typer(
    name="memsrc",
    help="Turn a trained super-resolution network into an equivalent plain one: convolution, ReLU, one pixel shuffle.",
    epilog="Networks, reports, tables and charts that memsrc wrote are written anew; another file that is there "
    "already is refused, unless --overwrite; a file that is read is never replaced.\n\n"
    "Exit status: 0 done, 1 not equivalent (verify), 2 wrong input or not convertible, 3 some images of a folder were "
    "passed over (upscale, eval), 4 an approximation of the teacher (verify), 130 interrupted, 141 nobody reads the "
    "output.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


@command(
    app,
    TeacherOptions,
    ConvertOptions,
    VerboseOptions,
    epilog="Example: memsrc convert teacher.pt --report report.html",
)
def convert(teacher: TeacherOptions, options: ConvertOptions, talk: VerboseOptions) -> None:
    """Compile a trained network into an equivalent plain network, with a certificate."""
    from memsr_compiler.commands.convert import run

    run(teacher, options, _begin(talk))


@command(app, TeacherOptions, InspectOptions, VerboseOptions, epilog="Example: memsrc inspect teacher.pt")
def inspect(teacher: TeacherOptions, options: InspectOptions, talk: VerboseOptions) -> None:
    """Show a network layer by layer, whether it can be converted (or why not), and what its plain form would cost."""
    from memsr_compiler.commands.inspect import run

    run(teacher, options, _begin(talk))


@command(app, TeacherOptions, VerifyOptions, VerboseOptions, epilog="Example: memsrc verify teacher.pt plain.onnx")
def verify(teacher: TeacherOptions, options: VerifyOptions, talk: VerboseOptions) -> None:
    """Check the certificate and run both networks; exit status 1 if the plain one is not the teacher, 4 if it is an
    approximation of it."""
    from memsr_compiler.commands.verify import run

    run(teacher, options, _begin(talk))


@command(
    app,
    ShrinkSource,
    ShrinkOptions,
    VerboseOptions,
    epilog="Example: memsrc shrink teacher.pt --theta 0.05 --report report.html",
)
def shrink(teacher: ShrinkSource, options: ShrinkOptions, talk: VerboseOptions) -> None:
    """Derive a much narrower plain student from a few images, untrained.  Say how narrow, for example --theta 0.05."""
    from memsr_compiler.commands.shrink import run

    run(teacher, options, _begin(talk))


@command(
    app,
    PlainOrTeacherOptions,
    SweepOptions,
    VerboseOptions,
    epilog="Example: memsrc sweep teacher.pt --theta 0.02,0.05,0.1,0.14 --data Set5 --plot curve.svg",
)
def sweep(teacher: PlainOrTeacherOptions, options: SweepOptions, talk: VerboseOptions) -> None:
    """Derive students of several widths: PSNR against multiply-adds and memory.  Give --theta or --width."""
    from memsr_compiler.commands.sweep import run

    run(teacher, options, _begin(talk))


@command(
    app,
    EvalOptions,
    ReadingOptions,
    VerboseOptions,
    name="eval",
    epilog="Example: memsrc eval bicubic teacher.pt student.onnx --data Set5/x2\n\n"
    "Exit status: 0 all images scored, 2 none scored, 3 some were passed over.",
)
def evaluate(options: EvalOptions, reading: ReadingOptions, talk: VerboseOptions) -> None:
    """Score networks on test images, side by side: PSNR and SSIM on Y."""
    from memsr_compiler.commands.evaluate import run

    run(options, reading, _begin(talk))


@command(
    app,
    BenchOptions,
    ReadingOptions,
    VerboseOptions,
    epilog="Example: memsrc bench teacher.pt plain.onnx student.onnx --size 960x540 --plot figure.svg",
)
def bench(options: BenchOptions, reading: ReadingOptions, talk: VerboseOptions) -> None:
    """Measure networks side by side on this machine: latency, memory, multiply-adds, PSNR."""
    from memsr_compiler.commands.bench import run

    run(options, reading, _begin(talk))


@command(
    app,
    UpscaleOptions,
    ReadingOptions,
    TalkOptions,
    epilog="Example: memsrc upscale photos/ large/ --model student.onnx --max-memory 256MB\n\n"
    "Exit status: 0 all done, 2 none done, 3 some images were passed over, or a film is damaged, 130 interrupted.",
)
def upscale(options: UpscaleOptions, reading: ReadingOptions, talk: TalkOptions) -> None:
    """Enlarge image files, of any size in bounded memory, or a film.  Alpha, ICC profile, EXIF and 16 bits are kept.

    A folder that was begun goes on where it stopped.  No image stops the others: those that cannot be done are named.
    Several processes share it out: torchrun --nproc-per-node 2 -m memsr_compiler upscale ...
    """
    from memsr_compiler.commands.upscale import run

    run(options, reading, _begin(talk))


@command(app, TalkOptions, epilog="Example: memsrc models --json")
def models(talk: TalkOptions) -> None:
    """List the students that ship: what they reach, what they cost, whose weights they come from."""
    from memsr_compiler.commands.models import run

    run(_begin(talk))


@command(
    app,
    QuantizeOptions,
    VerboseOptions,
    epilog="Example: memsrc quantize student.onnx --out student-int8.onnx --data Set5/x2",
)
def quantize(options: QuantizeOptions, talk: VerboseOptions) -> None:
    """Turn a float32 ONNX network into one of 8-bit integers; prints what it costs in PSNR and gains in time."""
    from memsr_compiler.commands.quantize import run

    run(options, _begin(talk))


@command(
    app,
    ExportOptions,
    VerboseOptions,
    epilog="Example: memsrc export student.onnx --out student.tflite --dtype int8 --calibration photos/",
)
def export(options: ExportOptions, talk: VerboseOptions) -> None:
    """Write a plain network as a TFLite file, for phones: float32, float16, or integers of 8 bits."""
    from memsr_compiler.commands.export import run

    run(options, _begin(talk))


@command(
    app,
    DistillOptions,
    ReadingOptions,
    VerboseOptions,
    epilog="Examples: memsrc distill student.safetensors --teacher teacher.pt --data DIV2K --out run/; "
    "memsrc distill --resume run/",
)
def distill(options: DistillOptions, reading: ReadingOptions, talk: VerboseOptions) -> None:
    """Fine-tune a student on photographs, under its teacher (MemSR Eq. 12 to 14).

    On several processes: torchrun --nproc-per-node 2 -m memsr_compiler distill ..., or accelerate launch -m.
    """
    from memsr_compiler.commands.distill import run

    run(options, reading, _begin(talk))


@command(
    app,
    TrainOptions,
    VerboseOptions,
    epilog="Example: memsrc train --arch edsr --arch-args blocks=16,channels=64 --scale 2 --data DIV2K --out run/",
)
def train(options: TrainOptions, talk: VerboseOptions) -> None:
    """Train a network from new weights: a teacher, or a plain network for comparison.

    On several processes: torchrun --nproc-per-node 2 -m memsr_compiler train ..., or accelerate launch -m.
    """
    from memsr_compiler.commands.train import run

    run(options, _begin(talk))


@command(
    app,
    SimilarityOptions,
    ReadingOptions,
    VerboseOptions,
    epilog="Example: memsrc similarity teacher.pt student.safetensors --data Set5/x2/HR --plot cka.svg",
)
def similarity(options: SimilarityOptions, reading: ReadingOptions, talk: VerboseOptions) -> None:
    """Compare what the layers of two networks hold: linear CKA, 0 to 1."""
    from memsr_compiler.commands.similarity import run

    run(options, reading, _begin(talk))


def _begin(options: TalkOptions) -> Talk:
    """Make what a command talks with; garbage is collected again, as its modules are imported: see `__main__`."""
    from memsr_compiler.commands.interface.output import Talk

    gc.enable()
    return Talk(**vars(options))


def main() -> None:
    """The entry point: messages instead of tracebacks, and the exit status."""
    warnings.simplefilter("ignore")  # torch's deprecations are for its programmers
    before = signal.getsignal(
        signal.SIGINT
    )  # which teachers change, once torch is imported: that cannot be interrupted
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files that it has no letters for: with backslashes
            stream.reconfigure(errors="backslashreplace")
    try:
        _require_folder()
        _require_words(sys.argv[1:])
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # typer has caught it
            _fail("interrupted", INTERRUPTED)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is told here; later it would be a traceback
        sys.exit(status)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich has met it
            _exit(PIPE_CLOSED)
        if who := _name_who_ended(stop):
            _fail(f"{who} ends the process by sys.exit({stop.code!r}); take that out of it, or raise an error there", 2)
        raise
    except BrokenPipeError:
        _exit(PIPE_CLOSED)
    except typer.TyperException as error:
        _fail(_usage(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except (NotEquivalent, CertificateError) as error:
        _fail(str(error), 1)
    except SomeNotDone as error:
        _fail(str(error), SOME_NOT_DONE)
    except OnlyApproximate as error:
        _fail(str(error), ONLY_APPROXIMATE)
    except Incomplete as error:
        _fail(f"{error}{_example(partial(complete, _typed_words(), error.arguments, error.options))}", 2)
    except MemsrError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename or _name_unnamed(error)}: {error.strerror or error}", 2)
    except Exception as error:
        _fail(_explain(error), 2)
    finally:
        signal.signal(signal.SIGINT, before)


def _name_who_ended(stop: SystemExit) -> str:
    """The module, file and line of code that is not ours, such as a teacher's, which called sys.exit; "" for ours."""
    frames = list(traceback.walk_tb(stop.__traceback__))
    frame, line = next(f for f in reversed(frames) if _package_of(f[0]) not in _ENDERS)
    if _package_of(frame) in (*PRINTERS, __package__):
        return ""
    owners = [f.f_locals.get("self") for f, _ in frames]
    network = next((owner for owner in owners if hasattr(owner, "named_modules")), None)
    paths = {id(module): path for path, module in network.named_modules()} if network else {}
    inner = next((owner for owner in reversed(owners) if paths.get(id(owner))), network)
    named = f"{paths.get(id(inner)) or type(inner).__name__} (" if network else ""
    return f"{named}{frame.f_code.co_filename}:{line}{')' if named else ''}"


_ENDERS = ("_sitebuiltins", "argparse")  # Python's own code that ends a process for who calls it: exit(), quit()


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _name_unnamed(error: OSError) -> str:
    """The file that an error does not name: standard output, if it was raised where that is written to."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = str(frame.f_globals.get("__name__"))
    if module.partition(".")[0] in PRINTERS or module in (__name__, "memsr_compiler.commands.interface.output"):
        return "standard output"
    return f"a temporary file (in {os.environ.get('TMPDIR', 'the system folder for them')}; TMPDIR names another)"


def _require_folder() -> None:
    """Raises InvalidInput where the current folder has been removed: torch would end the process."""
    try:
        os.getcwd()
    except OSError:
        raise InvalidInput("the current folder is not there any more; change to another one") from None


_MAY_BE_EMPTY = ("--prefix", "--arch-args")  # options whose empty value is one


def _require_words(words: Sequence[str]) -> None:
    """Raises InvalidInput for an empty argument, which as a path is the current folder: all images of it, say."""
    for before, word in pairwise(["", *words]):
        option, given, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if given and not value and option not in _MAY_BE_EMPTY:
            where = f" for {option}" if option.startswith("--") else ""
            raise InvalidInput(
                f"an argument{where} is empty: a variable of the shell that is not set, perhaps; give it, or leave it "
                f"out (memsrc {words[0]} --help)"
            )


def _explain(error: Exception) -> str:
    """Words on an error that no command has an answer to."""
    reason = first_line(error)
    if tells_of_memory(error):
        return f"there is not enough memory ({reason}); end other programs, or take something smaller"
    if isinstance(error, RecursionError):
        return f"something in a file is nested too deeply ({reason}); it is damaged or hostile"
    return f"{BUG}, {type(error).__name__}: {reason}; please report it with what `memsrc --traceback ...` prints"


def _usage(error: typer.TyperException) -> str:
    """One line on what is wrong with the command line."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if not message:  # no arguments at all: typer has printed the help
        sys.exit(2)
    message = CHOICE.sub(lambda m: f"{m[1]} {m[2]}: want one of {m[3].replace(chr(39), '')}", message)
    message = BOUND.sub(lambda m: f"{m[1]}: want {m[3]} or {'more' if m[2] == 'greater' else 'less'}", message)
    context, param = getattr(error, "ctx", None), getattr(error, "param", None)
    if context and param:
        source = context.get_parameter_source(param.name)
        if source is not None and source.name == "DEFAULT_MAP":
            message = f"{context.meta[SOURCE]}: {message}"
    message += f"; see memsrc {context.info_name if context and context.parent else ''}".rstrip() + " --help"
    if context and context.parent and type(error).__name__ == "MissingParameter":
        message += _example(partial(_complete_line, context))
    return message


def _example(make: Callable[[], str]) -> str:
    """Words on a command line that would run; none where this folder cannot be looked into."""
    try:
        return f"; for example: {make()}"
    except OSError:
        return ""


def _complete_line(context: typer.Context) -> str:
    """The command line that was typed, with example values for what is missing."""
    command, *rest = _typed_words()
    values = {**context.command.make_parser(context).parse_args(list(rest))[0], **(context.default_map or {})}
    missing = [p for p in context.command.params if p.required and not values.get(str(p.name))]
    pieces: dict[bool, list[str]] = {False: [], True: []}
    for p in missing:
        is_option = p.param_type_name == "option"
        pieces[is_option] += [*([p.opts[0]] if is_option else []), suggest(command, str(p.name), values)]
    return complete([command, *rest], pieces[False], pieces[True])


def _typed_words() -> list[str]:
    """The command and what follows it."""
    words = sys.argv[1:]
    return words[next(i for i, word in enumerate(words) if not word.startswith("-")) :]


def _fail(message: str, status: int) -> NoReturn:
    if "--traceback" in sys.argv:
        traceback.print_exc()
    with contextlib.suppress(OSError):  # the error may be that nothing can be written
        if "--json" in sys.argv and status not in (
            SOME_NOT_DONE,
            ONLY_APPROXIMATE,
        ):  # then the result is printed, and tells
            typer.echo(json.dumps({"error": message, "exit_status": status}))
    with contextlib.suppress(OSError):
        typer.secho(f"memsrc: {escape_controls(message)}", err=True, fg="red")
    _exit(status)


def _exit(status: int) -> NoReturn:
    """End, without what could not be written: Python would try it again, and fail loudly."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)
