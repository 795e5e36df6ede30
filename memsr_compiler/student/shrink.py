"""shrink: the order of things.  The things themselves are in the files beside this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.student import crops as calibrations
from memsr_compiler.student.data_aware import PREFERENCE, derive_data_aware
from memsr_compiler.student.levels import LeveledTeacher
from memsr_compiler.student.maps import describe_layers
from memsr_compiler.student.paper.initialise import derive_memsr
from memsr_compiler.student.paper.options import PAPER, PaperOptions
from memsr_compiler.student.refit import refit_to_output
from memsr_compiler.student.report import Kernel, Mode, ShrinkReport
from memsr_compiler.student.statistics.survey import survey
from memsr_compiler.student.widths.budget import Budget, choose_widths, require_affordable, student_cost
from memsr_compiler.student.widths.share_limit import narrow_stepwise, output_errors
from memsr_compiler.student.widths.trial import find_best_widths, find_preference
from memsr_compiler.torch_helpers import one_thread
from memsr_compiler.trace.trace import trace
from memsr_compiler.version import VERSION

REFIT_STEPS = 200
REFIT_MACS = 5e12  # multiply-adds that the joint refit may take unless told how many steps: about two CPU minutes
REFIT_LEAST = 40  # steps: where there is time for fewer, the student is left as derived layer by layer
RUNS_PER_STEP = 4  # of the student: forward, twice as much back, and forward again to see how far to go
REFIT_SAMPLES = 4  # times as many crops as for the layers: a step needs only a few of them


def shrink(
    model: nn.Module,
    *,
    theta: float | None = None,
    width: int | None = None,
    widths: Sequence[int] | None = None,
    max_params: int | None = None,
    max_macs: int | None = None,
    max_memory: int | None = None,
    size: tuple[int, int] = (960, 540),
    calibration: Sequence[Tensor] | None = None,
    init: Mode = "data-aware",
    refit: int | None = None,
    mean_shift: float = 3.0,
    paper: PaperOptions = PAPER,
    samples: int | None = None,
    seed: int = 0,
    align: int = 8,
    input_range: tuple[float, float] = (0.0, 1.0),
    on_step: Callable[[str], None] | None = None,
) -> PlainNet:
    """Derive a narrow plain student from a teacher and a few images; it works before any training.

    model         a trained network as for compile_to_plain, or a plain network; never modified
    theta         each level as narrow as keeps MemSR's Eq. 15, the relative error of its features, below this (0..1)
    width         the same width everywhere (where the teacher has as many);   widths   one for each inner level
    max_params, max_macs, max_memory
                  the best widths found with at most so many parameters, multiply-adds, bytes of live feature maps, the
                  last two for an input of `size` (width, height) pixels; give exactly one of these six
    calibration   images as the network is given them, each (N, C, H, W) in `input_range`; None: the photographs that
                  come with scikit-image, made smaller
    init          "data-aware", or "memsr": Algorithm 1 of the paper
    refit         steps of the joint refit to the teacher's output, each on four crops; None: as many as take two or
                  three minutes of one core, at most 200, none if that is less than 40; for "memsr" none
    mean_shift    beta of the paper's mode;   paper   where its text and its authors' code part, which to follow
    samples       crops that are cut from the images; None: 12 to 36, by the teacher's size;   seed   of where
    align         all widths are rounded up to a multiple of it
    on_step       hears what is being done

    Returns a PlainNet in float32 with `.report`, a ShrinkReport: per layer widths, singular values, errors and the maps
    M_i.  It has no certificate: it is not equivalent to its teacher.

    Raises UnsupportedModel as compile_to_plain does; InvalidInput for options that do not fit, too few pixels.
    Source: MemSR (Wu, Lee, Ma, ICML 2022), Sec. 3.4; the data-aware mode beyond it.
    """
    told = tuple(widths) if widths is not None else None
    budget = Budget(theta, width, told, max_params, max_macs, max_memory, size)
    _check_options(init, refit, mean_shift, samples, seed, align)
    report = ShrinkReport(init)
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        report.seconds[name] = now - clock
        clock = now

    with one_thread():
        teacher = LeveledTeacher.of(model, model.info.input_range if isinstance(model, PlainNet) else input_range)
        report.teacher_cost = cost_of_graph(trace(model, input_range=input_range).graph)
    if budget.limit is not None:
        require_affordable(teacher, budget, align)
    if on_step is not None:
        on_step("reading the calibration images")
    images = _images(teacher, calibration)
    count = calibrations.default_samples(report.teacher_cost.macs_per_pixel) if samples is None else samples
    inputs = calibrations.batches(images, samples=count, seed=seed)
    report.images, report.pixels = sum(len(x) for x in inputs), calibrations.count_pixels(inputs)
    lap("reading")
    if init == "memsr":
        kernels = _paper(teacher, inputs, budget, align, mean_shift, paper, report, on_step)
    else:
        seen = survey(teacher, inputs, on_step)
        lap("survey")
        if budget.limit is None:
            chosen = choose_widths(teacher, seen, budget, align)
        else:
            chosen = find_best_widths(teacher, inputs, seen, budget, align, refitted=refit != 0, on_step=on_step)
            lap("widths")
        steps = _refit_steps(teacher, chosen, inputs) if refit is None else refit
        relus = find_preference(teacher, inputs, seen, chosen, on_step) if steps else PREFERENCE
        student = derive_data_aware(teacher, inputs, seen, chosen, preference=relus, on_step=on_step)
        lap("layers")
        crops = calibrations.batches(images, samples=REFIT_SAMPLES * count, seed=seed, turned=True) if steps else inputs
        fitted = refit_to_output(teacher, student.kernels, crops, steps, seed=seed, on_step=on_step)
        kernels = fitted.kernels
        peak = teacher.input.high - teacher.input.low
        report.fidelity = tuple(10 * math.log10(peak**2 / max(loss, 1e-30)) for loss in fitted.losses)
        lap("refit")
        report.layers = describe_layers(teacher, kernels, student.relus, inputs)
    lap("layers" if init == "memsr" else "maps")
    net = _network(teacher, kernels, report)
    report.cost = student_cost(teacher, net.widths[1:-1])
    return net


def _check_options(init: str, refit: int | None, mean_shift: float, samples: int | None, seed: int, align: int) -> None:
    if init not in ("data-aware", "memsr"):
        raise InvalidInput(f"init '{init}' is neither data-aware nor memsr")
    if refit is not None and refit < 0:
        raise InvalidInput(f"{refit} steps of refit are not possible; 0 is none")
    if samples is not None and samples < 1:
        raise InvalidInput(f"{samples} samples are none; 30 is usual")
    if seed < 0:
        raise InvalidInput(f"a seed of {seed} is negative; 0 is usual")
    if align < 1:
        raise InvalidInput(f"widths cannot be aligned to {align}; take 1 or more")
    if not (math.isfinite(mean_shift) and mean_shift >= 0):
        raise InvalidInput(f"a mean shift of {mean_shift} is not possible; the paper's is 3")


def _images(teacher: LeveledTeacher, calibration: Sequence[Tensor] | None) -> Sequence[Tensor]:
    channels, image = teacher.input.channels, teacher.input
    if calibration is None:
        return calibrations.sample_inputs(scale=teacher.scale, channels=channels, input_range=(image.low, image.high))
    wrong = next((x.shape[1] for x in calibration if x.shape[1] != channels), None)
    if wrong is not None:
        raise InvalidInput(f"the network takes {channels} channels, the calibration images have {wrong}")
    return calibration


def _paper(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    budget: Budget,
    align: int,
    mean_shift: float,
    paper: PaperOptions,
    report: ShrinkReport,
    on_step: Callable[[str], None] | None,
) -> tuple[Kernel, ...]:
    widths = None
    if budget.limit is not None:
        if paper.kept:
            raise InvalidInput(
                f"{paper.kept} levels keep the teacher's width, which no limit allows for; say the widths"
            )
        widths = narrow_stepwise(teacher, output_errors(survey(teacher, inputs, on_step)), budget, align)
    elif budget.theta is None:
        widths = choose_widths(teacher, None, budget, align)
    derived = derive_memsr(
        teacher,
        inputs,
        widths=widths,
        theta=budget.theta,
        align=align,
        mean_shift=mean_shift,
        options=paper,
        on_step=on_step,
    )
    report.layers = derived.layers
    return derived.kernels


def _refit_steps(teacher: LeveledTeacher, widths: Sequence[int], inputs: Sequence[Tensor]) -> int:
    """As many as the time allows; none for a student that is its teacher already."""
    if all(w >= level.channels for w, level in zip(widths, teacher.levels, strict=False)):
        return 0
    batch = calibrations.count_pixels(inputs) / len(inputs)
    steps = int(REFIT_MACS / (RUNS_PER_STEP * student_cost(teacher, widths).macs_per_pixel * batch))
    return 0 if steps < REFIT_LEAST else min(steps, REFIT_STEPS)


def _network(teacher: LeveledTeacher, kernels: Sequence[Kernel], report: ShrinkReport) -> PlainNet:
    layers = [
        PlainLayer(weight.float(), bias.float(), relu=i < len(kernels) - 1, shuffle=teacher.scale if last else 1)
        for i, (weight, bias) in enumerate(kernels)
        for last in [i == len(kernels) - 1]
    ]
    info = PlainInfo(
        scale=teacher.scale,
        channels=teacher.input.channels,
        input_range=(teacher.input.low, teacher.input.high),
        carry=report.mode,
        guarantee="a student, narrower than its teacher and not equivalent to it",
        teacher_sha256=teacher.sha256,
        receptive_field=sum(kernel // 2 for kernel in teacher.kernels),
        image_skip=teacher.image_skip.mode if teacher.image_skip else "",
        tool=f"memsr_compiler {VERSION}",
    )
    return PlainNet(layers, info, None, report).eval()
