"""The order of things in `shrink`.  The things themselves are in the files beside this one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from memsr_compiler.analysis.cost import cost_of_teacher
from memsr_compiler.checks import require_align, require_choice, require_listener, require_whole
from memsr_compiler.errors import InvalidInput
from memsr_compiler.lowering.freezing import trace_or_freeze
from memsr_compiler.lowering.stopwatch import Stopwatch
from memsr_compiler.plain.balance import balance_channels
from memsr_compiler.plain.info import PlainInfo, require_range
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.proof.guarantee import count_replacements
from memsr_compiler.quantities import Amount, count, size_in_bytes
from memsr_compiler.student.calibration_images import (
    CalibrationImages,
    calibration_inputs,
    require_images,
    sample_inputs,
)
from memsr_compiler.student.crops import batches, count_pixels, default_samples
from memsr_compiler.student.data_aware import PREFERENCE, derive_data_aware
from memsr_compiler.student.levels import LeveledTeacher, Outside
from memsr_compiler.student.lower import lower_kernels
from memsr_compiler.student.maps import describe_layers, follow_scales
from memsr_compiler.student.paper.initialise import derive_memsr
from memsr_compiler.student.paper.options import PAPER, PaperOptions, require_paper_options
from memsr_compiler.student.refit import refit_to_output
from memsr_compiler.student.report import Derived, Mode, ShrinkReport
from memsr_compiler.student.statistics.survey import Survey, require_finite, survey
from memsr_compiler.student.widths.budget import (
    Budget,
    choose_widths,
    list_shapes,
    require_affordable,
    require_widths,
    student_cost,
)
from memsr_compiler.student.widths.latency import LatencyModel, Timer, fit_latency, random_stack
from memsr_compiler.student.widths.share_limit import Widths, narrow_stepwise, output_errors
from memsr_compiler.student.widths.trial import find_best_widths, find_depth, find_levels, find_preference
from memsr_compiler.teachers.teacher import Teacher, TeacherLike, as_teacher
from memsr_compiler.torch_helpers import full_float32, one_thread, torch_device
from memsr_compiler.version import VERSION

REFIT_STEPS = 120
REFIT_MACS = 3e12  # multiply-adds that the joint refit may take unless told how many steps: about a CPU minute
REFIT_LEAST = 24  # steps: where there is time for fewer, the student is left as derived layer by layer
RUNS_PER_STEP = 4  # of the student: forward, twice as much back, and forward again to see how far to go
REFIT_SAMPLES = 4  # times as many crops as for the layers: a step needs only a few of them

CORRECTIONS = 3  # times that a student above a limit on latency is narrowed

OnStep = Callable[[str], None]


def shrink(
    model: TeacherLike,
    *,
    theta: float | None = None,
    width: int | None = None,
    widths: Sequence[int] | None = None,
    max_params: Amount | None = None,
    max_macs: Amount | None = None,
    max_memory: Amount | None = None,
    max_latency: float | None = None,
    timer: Timer | None = None,
    size: tuple[int, int] = (960, 540),
    layers: int | None = None,
    image_skip: Outside | None = None,
    calibration: CalibrationImages | None = None,
    init: Mode = "data-aware",
    refit: int | None = None,
    mean_shift: float = 3.0,
    paper: PaperOptions = PAPER,
    samples: int | None = None,
    seed: int = 0,
    align: int = 8,
    input_range: tuple[float, float] | None = None,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> PlainNet:
    """Derive a narrow plain student from a teacher and a few images; it works before any training.

    model         a Teacher, a module as for compile_to_plain, a plain network, or the file of one of these; never
                  modified
    theta         each level as narrow as keeps MemSR's Eq. 15, the relative error of its features, below this (0..1)
    width         the same width everywhere (where the teacher has as many);   widths   one for each inner level
    max_params, max_macs, max_memory, max_latency
                  the best depth and widths found with at most so many parameters, multiply-adds, bytes of live feature
                  maps (numbers, or "1.2M", "40MB"), milliseconds, all but the first for an input of `size` (width,
                  height) pixels; give exactly one of these seven
    timer         for max_latency: a function that times a plain network, `memsr_compiler.runtime.timing.make_timer()`
                  on this machine, or your own
    layers        how many, the last included; fewer than the teacher's plain form has: each stands for several of its
                  levels, and which are kept is chosen by what the output would miss; None: as many as that has, or
                  what a limit is best spent on
    image_skip    "nearest": the nearest-neighbour image is added outside, and the layers are derived from the teacher
                  less it; "none": the layers carry the image; None: "nearest" where the output is an enlarged image,
                  "none" for "memsr".  An image that the teacher itself adds outside by interpolation stays there
    calibration   images: tensors (N, C, H, W) as the network is given them, in `input_range`; photographs, as uint8
                  arrays (H, W, 3), files or a folder, which are made smaller first; None: the photographs that come
                  with scikit-image
    init          "data-aware", or "memsr": Algorithm 1 of the paper
    refit         steps of the joint refit to the teacher's output, each on four crops; None: as many as take one or
                  two minutes of one core, at most 120, none if that is less than 24; for "memsr" none
    mean_shift    beta of the paper's mode;   paper   where its text and its authors' code part, which to follow
    samples       crops that are cut from the images; None: 12 to 36, by the teacher's size;   seed   of where
    align         all widths are rounded up to a multiple of it
    input_range   lowest and highest input value; None: what the teacher says, 0 to 1 for a module of yours
    device        "cpu" or "cuda": where teacher and student run; the student is on the CPU in the end
    on_step       hears what is being done

    Returns a PlainNet in float32, its channels balanced (`plain.balance`), with `.report`, a ShrinkReport: per layer
    widths, singular values, errors and the maps M_i.  It has no certificate: it is not equivalent to its teacher.

    A teacher that has no plain form is frozen first, as compile_to_plain(approximate=...) does with the calibration
    images; the refit is to the output of the teacher itself.

    Raises UnsupportedModel as that does; InvalidInput for options that do not fit, too few pixels.
    Source: MemSR (Wu, Lee, Ma, ICML 2022), Sec. 3.3 and 3.5; the data-aware mode beyond it.
    """
    each = tuple(widths) if isinstance(widths, Iterable) else widths
    limits = (
        max_params if not isinstance(max_params, str) else count("max_params", max_params),
        max_macs if not isinstance(max_macs, str) else count("max_macs", max_macs),
        max_memory if not isinstance(max_memory, str) else size_in_bytes("max_memory", max_memory),
    )
    budget = Budget(theta, width, each, *limits, size, max_latency)
    _check_options(init, refit, mean_shift, samples, seed, align, input_range)
    _check_shape(layers, image_skip, init)
    if max_latency is not None and timer is None:
        raise InvalidInput(
            "max_latency needs a timer; memsr_compiler.runtime.timing.make_timer() times on this machine"
        )
    require_paper_options(paper)
    require_listener("on_step", on_step, "a text")
    require_listener("timer", timer, "a network", "its image's size")
    if calibration is not None:
        require_images(calibration)
    place = torch_device(device)
    watch = Stopwatch()
    teacher = as_teacher(model, input_range=input_range, plain=True)
    teacher, traced = trace_or_freeze(
        teacher, lambda takes: _prepare_images(calibration, takes.scale, takes.channels, takes.input_range), on_step
    )
    with one_thread():
        outside = "none" if init == "memsr" and image_skip is None else image_skip
        leveled = LeveledTeacher.of(
            teacher.module, teacher.input_range, image_skip=outside, frozen=teacher.frozen, traced=traced
        )
    teacher_cost = cost_of_teacher(traced.graph, teacher.convertible)
    if timer is not None and max_latency is not None:
        if on_step is not None:
            on_step("timing plain stacks")
        budget = replace(budget, latency=_fit(timer, leveled, size))
    _check_widths(leveled, budget, layers, align, paper, init)
    if on_step is not None:
        on_step("reading the calibration images")
    source = leveled.input
    images = _prepare_images(calibration, leveled.scale, source.channels, (source.low, source.high))
    number = default_samples(teacher_cost.macs_per_pixel) if samples is None else samples
    crops = _Crops(tuple(images), number, seed, place)
    inputs = crops.cut()
    watch.lap("reading")
    with full_float32(place):
        require_finite(leveled, inputs[0], str(teacher.path or type(teacher.module).__name__))
        if init == "memsr":
            derived = _derive_memsr(leveled, inputs, budget, align, mean_shift, paper, on_step)
        else:
            leveled, derived = _derive_data_aware(leveled, inputs, crops, budget, layers, align, refit, timer, on_step)
    stack = [
        PlainLayer(weight.float(), bias.float(), relu=not last, shuffle=leveled.scale if last else 1)
        for i, (weight, bias) in enumerate(derived.kernels)
        for last in [i == len(derived.kernels) - 1]
    ]
    raw = PlainNet(stack, _describe(leveled, init, teacher, traced.assumed)).eval()
    net = balance_channels(raw)  # in its teacher's units training wrecks it, and half precision loses more
    net.report = ShrinkReport(
        mode=init,
        layers=follow_scales(derived.layers, raw, net),
        pixels=count_pixels(inputs),
        images=sum(len(x) for x in inputs),
        fidelity=derived.fidelity,
        choice=derived.choice,
        milliseconds=derived.milliseconds,
        cost=student_cost(leveled, [len(bias) for _, bias in derived.kernels[:-1]]),
        teacher_cost=teacher_cost,
        seconds={**watch.seconds, **derived.seconds},
        frozen=teacher.frozen,
    )
    return net


@dataclass(frozen=True)
class _Crops:
    """A source of crops: the images that they are cut from, and the device that they go to."""

    images: Sequence[Tensor]
    count: int
    seed: int
    device: torch.device

    def cut(self, *, times: int = 1, turned: bool = False) -> list[Tensor]:
        cut = batches(self.images, samples=times * self.count, seed=self.seed, turned=turned)
        return [batch.to(self.device) for batch in cut]


def _check_options(
    init: object, refit: object, mean_shift: object, samples: object, seed: object, align: object, input_range: object
) -> None:
    require_choice("init", init, ("data-aware", "memsr"))
    if refit is not None:
        require_whole("refit", refit, 0, f"{refit} steps of refit are not possible; 0 is none")
    if samples is not None:
        require_whole("samples", samples, 1, f"{samples} samples are none; 30 is usual")
    require_whole("seed", seed, 0, f"a seed of {seed} is negative; 0 is usual")
    require_align(align)
    if not isinstance(mean_shift, (int, float)) or not (math.isfinite(mean_shift) and mean_shift >= 0):
        raise InvalidInput(f"a mean shift of {mean_shift} is not possible; the paper's is 3")
    if input_range is not None:
        require_range(input_range)


def _check_shape(layers: object, image_skip: object, init: Mode) -> None:
    if layers is not None:
        require_whole("layers", layers, 1, f"a student of {layers} layers is none; give 1 or more, 6 say")
        if init == "memsr":
            raise InvalidInput("layers are chosen for the data-aware mode; MemSR's Algorithm 1 takes all of them")
    if image_skip not in (None, "nearest", "none"):
        raise InvalidInput(f"image_skip={image_skip!r}: want 'nearest' or 'none'")


def _fit(timer: Timer, teacher: LeveledTeacher, size: tuple[int, int]) -> LatencyModel:
    """Fit a model of the time that students of this teacher take."""
    out = teacher.levels[-1].channels
    return fit_latency(timer, size, channels=teacher.input.channels, scale=teacher.scale, out=out)


def _check_widths(
    teacher: LeveledTeacher, budget: Budget, layers: int | None, align: int, paper: PaperOptions, init: Mode
) -> None:
    """Raise InvalidInput for a depth and widths that this teacher cannot have, before anything is computed."""
    most = len(teacher.levels)
    if layers is not None and layers > most:
        raise InvalidInput(f"layers={layers}: the teacher's plain form has {most}; give at most so many")
    require_widths(teacher, budget, align)
    if budget.limit is None:
        if budget.theta is None:
            choose_widths(teacher.widest(layers or most), None, budget, align)
        return
    fewest = layers or (most if init == "memsr" else min(most, 2))
    require_affordable(teacher.widest(fewest), budget, align)
    if init == "memsr" and paper.kept:
        raise InvalidInput(f"{paper.kept} levels keep the teacher's width, which no limit allows for; say the widths")


def _prepare_images(
    calibration: CalibrationImages | None, scale: int, channels: int, input_range: tuple[float, float]
) -> list[Tensor]:
    """Prepare calibration images as a network is given them; tensors may have any channels, photographs not."""
    if calibration is None:
        return sample_inputs(scale=scale, channels=channels, input_range=input_range)
    return calibration_inputs(calibration, scale=scale, channels=channels, input_range=input_range)


def _derive_memsr(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    budget: Budget,
    align: int,
    mean_shift: float,
    paper: PaperOptions,
    on_step: OnStep | None,
) -> Derived:
    """Derive a student in the paper's way."""
    watch = Stopwatch()
    widths = None
    if budget.limit is not None:
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
    watch.lap("layers")
    return Derived(derived.kernels, derived.layers, seconds=watch.seconds)


def _derive_data_aware(
    teacher: LeveledTeacher,
    inputs: Sequence[Tensor],
    crops: _Crops,
    budget: Budget,
    layers: int | None,
    align: int,
    refit: int | None,
    timer: Timer | None,
    on_step: OnStep | None,
) -> tuple[LeveledTeacher, Derived]:
    """Derive a student layer by layer from what it computes itself, and refit all layers together.

    The teacher that is returned has the levels that the student's layers stand for.
    """
    watch = Stopwatch()
    seen = survey(teacher, inputs, on_step)
    watch.lap("survey")
    count = None if layers is None else layers - 1
    if budget.limit is not None and count is None:
        count = find_depth(teacher, inputs, seen, budget, align, on_step)
        watch.lap("depth")
    choice = None
    if count is not None and count < len(teacher.levels) - 1:
        choice = find_levels(teacher, inputs, seen, count, budget, align, on_step)
        teacher, seen = teacher.keep(choice.kept), seen.keep(choice.kept)
        watch.lap("levels")
    milliseconds = None
    if budget.limit is None:
        widths = choose_widths(teacher, seen, budget, align)
    else:
        widths = find_best_widths(teacher, inputs, seen, budget, align, refitted=refit != 0, on_step=on_step)
        if timer is not None and budget.max_latency is not None:
            widths, milliseconds = _meet_latency(timer, teacher, seen, widths, budget, align)
        watch.lap("widths")
    steps = _refit_steps(teacher, widths, inputs) if refit is None else refit
    relus = find_preference(teacher, inputs, seen, widths, on_step) if steps else PREFERENCE
    student = derive_data_aware(teacher, inputs, seen, widths, preference=relus, on_step=on_step)
    watch.lap("layers")
    others = crops.cut(times=REFIT_SAMPLES, turned=True) if steps else inputs
    lowered = lower_kernels(student.kernels, inputs)
    fitted = refit_to_output(teacher, student.kernels, others, steps, lowered=lowered, seed=crops.seed, on_step=on_step)
    peak = teacher.input.high - teacher.input.low
    fidelity = tuple(10 * math.log10(peak**2 / max(loss, 1e-30)) for loss in fitted.losses)
    watch.lap("refit")
    described = describe_layers(teacher, fitted.kernels, student.relus, inputs, seen)
    watch.lap("maps")
    return teacher, Derived(fitted.kernels, described, fidelity, watch.seconds, choice, milliseconds)


def _meet_latency(
    timer: Timer, teacher: LeveledTeacher, seen: Survey, widths: Widths, budget: Budget, align: int
) -> tuple[Widths, float]:
    """Time a student of these widths; narrow it where that is above the limit, by what the model was off.

    Raises InvalidInput where the narrowest is too slow.
    """
    assert budget.latency is not None and budget.max_latency is not None, "a limit on latency comes with a model"
    for _ in range(CORRECTIONS):
        milliseconds = timer(random_stack(list_shapes(teacher, widths), teacher.scale), budget.size)
        if milliseconds <= budget.max_latency:
            break
        model = budget.latency.scaled(milliseconds / budget.measure(teacher, widths))
        budget = replace(budget, latency=model)
        widths = narrow_stepwise(teacher, output_errors(seen), budget, align)
    else:
        milliseconds = timer(random_stack(list_shapes(teacher, widths), teacher.scale), budget.size)
    return widths, milliseconds


def _refit_steps(teacher: LeveledTeacher, widths: Sequence[int], inputs: Sequence[Tensor]) -> int:
    """Steps that the time allows; none for a student that is its teacher already."""
    if (
        teacher.truth is None
        and teacher.whole
        and all(w >= level.channels for w, level in zip(widths, teacher.levels, strict=False))
    ):
        return 0
    batch = count_pixels(inputs) / len(inputs)
    steps = int(REFIT_MACS / (RUNS_PER_STEP * student_cost(teacher, widths).macs_per_pixel * batch))
    return 0 if steps < REFIT_LEAST else min(steps, REFIT_STEPS)


def _describe(leveled: LeveledTeacher, mode: Mode, teacher: Teacher, assumed: tuple[str, ...]) -> PlainInfo:
    """Description of a student, for its file; `assumed`: of its teacher's code."""
    frozen = teacher.frozen
    way = f"; derived from it with {count_replacements(frozen.replacements)} replaced" if frozen else ""
    return PlainInfo(
        scale=leveled.scale,
        channels=leveled.input.channels,
        input_range=(leveled.input.low, leveled.input.high),
        carry=mode,
        guarantee=f"a student, narrower than its teacher and not equivalent to it{way}",
        teacher_sha256=leveled.sha256,
        receptive_field=sum(kernel // 2 for kernel in leveled.kernels),
        image_skip=leveled.image_skip.mode if leveled.image_skip else "",
        tool=f"memsr_compiler {VERSION}",
        assumed=(*teacher.assumed, *assumed),
        levels=() if leveled.whole else tuple(accumulate(level.spans for level in leveled.levels[:-1])),
    )
