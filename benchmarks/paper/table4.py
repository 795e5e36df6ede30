"""MemSR's Table 4: parameters, multiply-adds and quality of its networks and those that it compares them with."""

from __future__ import annotations

from collections.abc import Iterator

from memsr_compiler.analysis.counted_run import count_multiply_adds, count_published
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.runtime.room import least_memory
from memsr_compiler.teachers.teacher import as_teacher
from paper.figure7 import STUDENTS as PLAIN_X
from paper.pairs import SCALE, find_pair
from paper.quality import derive, list_sets, list_students, load_trained, score_bicubic, score_network
from paper.rivals import PAPER, RIVALS, Rival, choose_rivals, choose_scales, count_inner_parameters
from paper.settings import Settings
from paper.table import UNKNOWN, Cell, Numbers, Row, Table

COUNTED = ("parameters, K", "published, K", "multiply-adds, G", "by MemSR's convention, G", "live results, MiB")
OF_PAPER = {rival.name for rival in RIVALS}

NOTES = (
    "In brackets: the paper's, where we know it; ?: it has a number, which is in no text that we could read.",
    "Published: parameters that the network's own paper gives; of plain networks what MemSR counts, the inner "
    "convolutions alone.",
    "Multiply-adds: of convolutions, linear layers, and the products of matrices within attention. By MemSR's "
    "convention: that of thop, the counter in its authors' requirements, which sees modules: convolutions and linear "
    "layers, one for each bias and each leaky ReLU, transposed convolutions at their output, and not the products "
    "within attention.",
    "Live results: bytes of all results that a run in torch, float32, holds at its worst moment, counted from shapes; "
    "what an engine takes is measured in Table 11.",
    "SRCNN is 9-5-5, on the image that bicubic interpolation has enlarged; whether the paper's is on Y or RGB we do "
    "not know. FSRCNN's is on RGB. IDN's own paper counts it on Y; CARN's one network with upsamplers for three "
    "scales. RFDN is the one of the AIM 2020 challenge, 50 channels.",
    "SwinIR-S: its own paper's parameters are less by one 3x3 convolution of 60 channels (32,460), which its files "
    "have. It works on whole windows of 8, and that is counted.",
    "Trained weights: IMDN its authors'; RFDN the challenge's; EDSR-baseline x4 and the EDSR with a one-conv tail at "
    "x2, which is Teacher-M, from 8-bit files of EDSR's authors' group. PSNR-Y in dB and SSIM-Y, protocol edsr.",
    "Students are as derived, before any training, where no steps are named. Plain-X(theta) is that of Sec. 3.5: each "
    "level as narrow as keeps the error of its features below theta.",
)


def make(settings: Settings) -> Iterator[Table]:
    """Table 4, after each of its networks."""
    sets = list(list_sets(settings, SCALE))
    columns = ("", *COUNTED, *(f"{name}, {metric}" for name in sets for metric in ("PSNR", "SSIM")))
    rows: list[Row] = []
    for scale in choose_scales(settings):
        if not settings.rows:
            rows.append(_bicubic(scale, sets, settings))
        for rival in choose_rivals(settings, scale):
            rows.append(
                Row(_name(rival, scale), (*_count(rival, scale, settings), *_score(rival, scale, sets, settings)))
            )
            yield _table(columns, rows, settings)
        if scale == SCALE and not settings.rows:
            rows += _students(sets, settings)
            yield _table(columns, rows, settings)


def _name(rival: Rival, scale: int) -> str:
    return f"{rival.name}, x{scale}" if rival.name in OF_PAPER else rival.name


def _table(columns: tuple[str, ...], rows: list[Row], settings: Settings) -> Table:
    width, height = settings.size
    return Table(
        name="table4",
        title="Table 4: networks, what they count, how good they are",
        columns=columns,
        rows=tuple(rows),
        caption=(
            f"Counted for an output of {width}x{height}, of shapes alone, so the same on every machine. Quality where "
            "trained weights are at hand: `-` where not.",
        ),
        notes=NOTES,
    )


def _count(rival: Rival, scale: int, settings: Settings) -> tuple[Cell, ...]:
    """Cells of what a network counts."""
    net = rival.build(scale).eval()
    shape = (1, *rival.shape(scale, settings.size))
    live = least_memory(net, shape)
    assert live is not None, "these networks look at no values"
    asked = settings.size == (1920, 1080) and rival.name in OF_PAPER
    published = str(rival.published[scale - 2]) if rival.published else ""
    if isinstance(net, PlainNet) and rival.name in OF_PAPER:
        published = f"{count_inner_parameters(net) / 1e3:,.0f}"
    paper = PAPER.get((rival.name, scale), UNKNOWN) if asked else ""
    return (
        Numbers((sum(p.numel() for p in net.parameters()) / 1e3,), digits=0),
        published,
        Numbers((count_multiply_adds(net, shape) / 1e9,), digits=1),
        Numbers((count_published(net, shape) / 1e9,), paper, digits=1),
        Numbers((live / 2**20,), digits=0),
    )


def _bicubic(scale: int, sets: list[str], settings: Settings) -> Row:
    cells: list[Cell] = ["none", "", "", "", ""]
    there = list_sets(settings, scale)
    for name in sets:
        score = score_bicubic(there[name], scale, settings) if name in there else None
        cells += _quality(None if score is None else (score["psnr"], score["ssim"]), UNKNOWN)
    return Row(f"Bicubic, x{scale}", tuple(cells))


def _score(rival: Rival, scale: int, sets: list[str], settings: Settings) -> list[Cell]:
    """Cells of PSNR and SSIM on each test set."""
    paper = UNKNOWN if rival.name in OF_PAPER else ""
    trained = load_trained(rival.name, scale, settings)
    there = list_sets(settings, scale)
    cells: list[Cell] = []
    for name in sets:
        if trained is None or name not in there:
            cells += _quality(None, paper)
            continue
        score = score_network(*trained, there[name], settings)
        cells += _quality((score["psnr"], score["ssim"]), paper)
    return cells


def _students(sets: list[str], settings: Settings) -> Iterator[Row]:
    """Rows of the pair's students."""
    there = list_sets(settings, SCALE)
    words = find_pair(settings).words
    students = list_students(settings) | {name: derive(settings, *options) for name, options in PLAIN_X.items()}
    for name, (net, key) in students.items():
        rival = Rival(f"student of {words}: {name}", lambda scale, net=net: net)  # type: ignore[misc]
        cells: list[Cell] = []
        for test in sets:
            score = score_network(net, as_teacher(net, plain=True).takes, key, there[test], settings)
            cells += _quality((score["psnr"], score["ssim"]), "")
        yield Row(rival.name, (*_count(rival, SCALE, settings), *cells))


def _quality(score: tuple[float, float] | None, paper: str) -> list[Cell]:
    psnr, ssim = ((), ()) if score is None else ((score[0],), (score[1],))
    return [Numbers(psnr, paper), Numbers(ssim, paper, digits=4)]
