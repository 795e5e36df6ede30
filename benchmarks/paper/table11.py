"""MemSR's Table 11, as we dealt its columns out: latency and peak memory of the networks of Table 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paper.rivals import BASELINE, RIVALS, Rival, choose_rivals, choose_scales
from paper.settings import Settings
from paper.speed import ROUNDS, Contender, Speed, measure_speed, require_room
from paper.table import UNKNOWN, Numbers, Row, Table

COLUMNS = ("", "time / EDSR-baseline's", "milliseconds", "peak memory, MiB", "engine")
OF_PAPER = {rival.name for rival in RIVALS}

NOTES = (
    "Random weights but for the students that ship: time and memory do not depend on them. Each network is timed in "
    "turns with EDSR-baseline at the same scale, the median of the ratios of the rounds: compare these. Milliseconds "
    "are of a moment, and where other work is on the machine they are more.",
    "Peak memory on a processor: of a process of its own, beyond network and image, the result included; SwinIR runs "
    "in torch there, as its windows are numbered by the size of the image. On a GPU: what torch had at most, beyond "
    "weights and image; all run in torch, float32 with TF32.",
    "?: the paper has a number, of a GTX 1080 Ti in torch, which is in no text that we could read. Whether it stands "
    "in Table 4 or in Table 11 is not known to us either.",
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 11, after each of its networks.  Raises InvalidInput where memory is not enough for one of them."""
    baseline = next(rival for rival in RIVALS if rival.name == BASELINE)
    chosen = [(rival, scale) for scale in choose_scales(settings) for rival in choose_rivals(settings, scale)]
    require_room([_contender(rival, scale, settings) for rival, scale in chosen], settings)
    measured: list[tuple[str, Speed]] = []
    for rival, scale in chosen:
        beside = _contender(baseline, scale, settings)
        speed = measure_speed(_contender(rival, scale, settings), beside, settings)
        measured.append((f"{rival.name}, x{scale}" if rival.name in OF_PAPER else rival.name, speed))
        yield _table(measured, settings)


def _contender(rival: Rival, scale: int, settings: Settings) -> Contender:
    return Contender(f"{rival.name} x{scale}", rival.build(scale).eval(), rival.shape(scale, settings.size))


def _table(measured: Sequence[tuple[str, Speed]], settings: Settings) -> Table:
    width, height = settings.size
    machines = "; ".join(dict.fromkeys(speed.machine for _, speed in measured))
    threads = "one thread, " if settings.device == "cpu" else ""
    return Table(
        name=f"table11-{settings.device}",
        title=f"Table 11: time and memory, {settings.device.upper().replace('CUDA', 'GPU')}",
        columns=COLUMNS,
        rows=tuple(_row(name, speed, settings) for name, speed in measured),
        caption=(
            f"An image of {width}x{height} made from one smaller by the scale; {threads}{ROUNDS[settings.device]} "
            f"rounds after one that does not count. Measured on {machines}.",
        ),
        notes=NOTES,
    )


def _row(name: str, speed: Speed, settings: Settings) -> Row:
    paper = UNKNOWN if name.split(", x")[0] in OF_PAPER and settings.size == (1920, 1080) else ""
    cells = (
        Numbers((speed.ratio,), digits=3),
        Numbers((speed.seconds * 1000,), paper, digits=1),
        Numbers((speed.memory / 2**20,), paper, digits=1),
        speed.engine,
    )
    return Row(name, cells)
