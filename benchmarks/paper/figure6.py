"""MemSR's Figure 6: PSNR on the way of each run of Table 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memsr_compiler.errors import InvalidInput
from paper.curves import Curve, draw_curves
from paper.runs import Outcome
from paper.settings import Settings
from paper.table import Numbers, Row, Table
from paper.table1 import ROWS
from paper.training_table import describe, run_all

WORDS = (
    "PSNR on the photographs that ship, on the way of the runs of Table 1; lines are the means of the seeds, "
    "dashed ones are balanced."
)


def make(settings: Settings) -> Iterator[Table]:
    """Figure 6, after each of its runs."""
    for outcomes in run_all([line.method for line in ROWS], settings):
        done = {method.name: known for method, known in outcomes.items() if known}
        if not done:
            raise InvalidInput("figure6: no run of Table 1 is done; leave --done out")
        steps = [step for step, _ in max((known[0].curve for known in done.values()), key=len)]
        curves = [_mean_curve(name, known) for name, known in done.items()]
        title = f"Figure 6: {settings.steps:,} steps of training"
        yield Table(
            name=f"figure6-{settings.pair}",
            title=title,
            columns=("step", *(f"{step:,}" for step in steps)),
            rows=tuple(Row(name, tuple(_cell(known, step) for step in steps)) for name, known in done.items()),
            caption=(WORDS, describe(outcomes, settings)),
            picture=draw_curves(curves, title),
        )


def _mean_curve(name: str, known: Sequence[Outcome]) -> Curve:
    """The mean over the seeds, as far as all have come."""
    shortest = min((outcome.curve for outcome in known), key=len)
    points = tuple(
        (step, sum(outcome.curve[i][1] for outcome in known) / len(known)) for i, (step, _) in enumerate(shortest)
    )
    return Curve(name, points, dashed=name.endswith("balanced"))


def _cell(known: Sequence[Outcome], step: int) -> Numbers:
    return Numbers(tuple(dict(outcome.curve)[step] for outcome in known if step in dict(outcome.curve)))
