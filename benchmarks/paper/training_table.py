"""Tables of runs: a row for each method, PSNR at the start and after the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from memsr_compiler.errors import InvalidInput
from memsr_compiler.files import list_files
from paper.pairs import find_pair
from paper.runs import SETS, SHIPPED, Method, Outcome, run_method, score, test_sets
from paper.settings import Settings
from paper.table import UNKNOWN, Cell, Numbers, Row, Table

UNKNOWNS = dict.fromkeys(SETS, UNKNOWN)

Outcomes = Mapping[Method, Sequence[Outcome]]
"""The outcomes of each method so far, by seed."""


@dataclass(frozen=True)
class Line:
    """A row: a method, and the paper's numbers, as they are printed there, by test set."""

    method: Method
    paper: Mapping[str, str] = field(default_factory=dict)


def lines(*ways: Sequence[Method]) -> tuple[Line, ...]:
    """Rows of which the paper's numbers are not known: of each way to train the first is the paper's."""
    return tuple(Line(method, UNKNOWNS if method is way[0] else {}) for way in ways for method in way)


def ours(*methods: Method) -> tuple[Line, ...]:
    """Rows that the paper does not have."""
    return tuple(Line(method) for method in methods)


def run_all(methods: Sequence[Method], settings: Settings) -> Iterator[Outcomes]:
    """The outcomes so far, after each run; one seed after the other, so that all methods soon have one.

    Raises InvalidInput where a row is to be trained that is not among these.
    """
    names = [method.name for method in methods]
    for name in (name for name in settings.rows if name not in names):
        raise InvalidInput(f"--row {name}: is no row here; there are {'; '.join(names)}")
    outcomes: dict[Method, list[Outcome]] = {method: [] for method in dict.fromkeys(methods)}
    for seed in settings.all_seeds:
        for method, known in outcomes.items():
            chosen = not settings.rows or method.name in settings.rows
            outcome = run_method(method, seed, settings if chosen else replace(settings, done=True))
            known += [] if outcome is None else [outcome]
            yield outcomes


def make_table(
    number: int, title: str, rows: Sequence[Line], words: Sequence[str], settings: Settings
) -> Iterator[Table]:
    """The table as far as its runs are done, after each.

    words   paragraphs of its own
    """
    sets = test_sets(settings)
    columns = ("", "at the start", f"after {settings.steps:,} steps", *sets)
    pair = find_pair(settings)
    teacher = Row("the teacher", ("", *(Numbers((score(pair.teacher, settings, name),)) for name in (SHIPPED, *sets))))
    for outcomes in run_all([line.method for line in rows], settings):
        yield Table(
            name=f"table{number}-{settings.pair}",
            title=title,
            columns=columns,
            rows=(teacher, *(_row(line, outcomes[line.method], sets) for line in rows)),
            caption=(*words, describe(outcomes, settings)),
            notes=NOTES,
        )


ASSIGNED = (
    "The paper's text could not be read: which rows this table of its has is our guess by what it is about, and its "
    "numbers are not known ([rows](rows.md))."
)

NOTES = (
    "In brackets: the paper's, Plain-M at x4 after 10^6 steps on DIV2K; ?: it has a number, which is in no text that "
    "we could read.",
    "The first two columns are on the photographs that ship with scikit-image. All is after the last step: nothing is "
    "chosen by any image. ±: half of the distance between the lowest and the highest of the seeds.",
    "As published: MemSR's optimizer, rate and loss, on the weights as they are. Balanced: the same on the same "
    "function with its channels balanced and inputs centred ([training](../../training.md)). Our way: the "
    "defaults of `memsrc distill`.",
)


def describe(outcomes: Outcomes, settings: Settings) -> str:
    """The paragraph on machine, data, steps and seeds."""
    pair = find_pair(settings)
    machines = {outcome.machine for known in outcomes.values() for outcome in known}
    done = min((len(known) for known in outcomes.values() if known), default=0)
    photographs = "the photographs that ship"
    if settings.data is not None:
        photographs = f"the {len(list_files(settings.data)):,} photographs in {settings.data.name}"
    seeds = f"seeds: {settings.seeds}" if done == settings.seeds else f"seeds done: {done} of {settings.seeds}"
    return (
        f"The teacher: {pair.words}; students of width {pair.width}, x2. {settings.steps:,} steps of {settings.batch} "
        f"patches of {settings.patch}x{settings.patch} pixels of {photographs}, the same patches in the same order for "
        f"all rows; {seeds}. PSNR-Y in dB. Trained on {'; '.join(sorted(machines)) or 'nothing yet'}."
    )


def _row(line: Line, known: Sequence[Outcome], sets: Sequence[str]) -> Row:
    if not known:
        return Row(line.method.name, ("not run", *("" for _ in range(len(sets) + 1))))
    failures = [outcome for outcome in known if outcome.failure]
    start = Numbers(tuple(outcome.curve[0][1] for outcome in known), digits=2)
    if failures:
        word = f"diverged after step {max(outcome.curve[-1][0] for outcome in failures):,}"
        return Row(line.method.name, (start, word, *("" for _ in sets)))
    end = Numbers(tuple(outcome.curve[-1][1] for outcome in known))
    return Row(line.method.name, (start, end, *(_cell(line, known, name) for name in sets)))


def _cell(line: Line, known: Sequence[Outcome], name: str) -> Cell:
    return Numbers(tuple(outcome.scores[name] for outcome in known), line.paper.get(name, ""))
