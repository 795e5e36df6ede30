"""MemSR's Figure 1: PSNR against time, memory as area, of networks whose trained weights are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from memsr_compiler import Takes, compile_to_plain
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.reports.scatter import Dot, draw_scatter_svg
from memsr_compiler.teachers.teacher import as_teacher
from paper.kept import digest
from paper.pairs import SCALE, find_pair
from paper.quality import derive, list_sets, list_students, load_trained, score_network
from paper.rivals import choose_rivals
from paper.settings import Settings
from paper.speed import Contender, Speed, measure_speed
from paper.table import Numbers, Row, Table

COLUMNS = ("", "PSNR", "time / the teacher's", "milliseconds", "peak memory, MiB")
NARROWER = (0.5, 0.75, 1)
"""Widths of students derived in our way, as parts of the pair's."""

NOTES = (
    "Each network is timed in turns with the teacher: its time by the teacher's is the median of the ratios of the "
    "rounds. So is the teacher, with itself: what it is off 1 comes of other work on the machine.",
    "Peak memory is as in Table 11.",
)


@dataclass(frozen=True)
class Entry:
    """A network of the figure: what it takes, and the key of its weights."""

    network: nn.Module
    takes: Takes
    key: str


def make(settings: Settings) -> Iterator[Table]:
    """Figure 1, after each of its networks."""
    width, height = settings.size
    (test, folder), *_ = list_sets(settings, SCALE).items()
    entries = _list_entries(settings)
    first = _contender(next(iter(entries.values())), settings)
    dots: list[tuple[Dot, Speed]] = []
    for name, entry in entries.items():
        speed = measure_speed(_contender(entry, settings), first, settings)
        score = score_network(entry.network, entry.takes, entry.key, folder, settings)
        dots.append((Dot(name, speed.seconds, score["psnr"], speed.memory), speed))
        machines = "; ".join(dict.fromkeys(speed.machine for _, speed in dots))
        yield Table(
            name=f"figure1-{settings.pair}",
            title="Figure 1: PSNR against time, memory as area",
            columns=COLUMNS,
            rows=tuple(_row(dot, speed) for dot, speed in dots),
            caption=(
                f"PSNR-Y on {test}; {width // SCALE}x{height // SCALE} to {width}x{height}, x2, one thread where it is "
                f"a processor, measured on {machines}. The paper's figure is of other networks on a GTX 1080 Ti; its "
                "numbers are in no text that we could read. Students are as derived, where no steps are named.",
            ),
            notes=NOTES,
            picture=draw_scatter_svg([dot for dot, _ in dots], f"x2, {width // SCALE}x{height // SCALE} input"),
        )


def _list_entries(settings: Settings) -> dict[str, Entry]:
    """The networks, the pair's teacher first."""
    pair = find_pair(settings)
    key = digest(pair.teacher)
    teacher = as_teacher(pair.teacher)
    entries = {"teacher": Entry(teacher.module, teacher.takes, key)}
    students = {name: Entry(net, teacher.takes, own) for name, (net, own) in list_students(settings).items()}
    if settings.smoke:
        return entries | students
    plain = compile_to_plain(teacher)
    entries["teacher, made plain"] = Entry(plain, teacher.takes, f"{key} plain")
    for rival in choose_rivals(settings, SCALE):
        trained = load_trained(rival.name, SCALE, settings)
        if trained is not None and trained[2] != key:
            entries[rival.name] = Entry(*trained)
    for width in (max(round(pair.width * part), 1) for part in NARROWER):
        net, own = derive(settings, "--width", str(width), "--image-skip", "nearest")
        entries[f"student of {width}, the image outside"] = Entry(net, teacher.takes, own)
    return entries | students


def _contender(entry: Entry, settings: Settings) -> Contender:
    """A network as time and memory depend on it: plain ones by their widths."""
    width, height = settings.size
    key = entry.key
    if isinstance(entry.network, PlainNet):
        key = f"plain {entry.network.widths} {entry.network.info.image_skip}"
    return Contender(key, entry.network, (entry.takes.channels, height // SCALE, width // SCALE))


def _row(dot: Dot, speed: Speed) -> Row:
    assert dot.memory is not None, "it was measured"
    numbers = ((dot.psnr, 3), (speed.ratio, 3), (dot.seconds * 1000, 1), (dot.memory / 2**20, 1))
    return Row(dot.label, tuple(Numbers((value,), digits=digits) for value, digits in numbers))
