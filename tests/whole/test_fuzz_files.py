"""Damaged files of every kind that a command reads: each is refused by an error of ours, or read as it was.

`MEMSR_MUTATIONS=3000 pytest tests/whole/test_fuzz_files.py` tries more of each kind;
`mutate(content, seed_of(kind, i))` gives a failing one again.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.kinds_of_files import KINDS
from helpers.mutations import mutate

from memsr_compiler.errors import MemsrError

MUTATIONS = int(os.environ.get("MEMSR_MUTATIONS", "300"))
FEWER = {"exported": 30} if "MEMSR_MUTATIONS" not in os.environ else {}  # torch.export takes a second for each
REFUSED, READ, CHANGED = "refused", "read as it was", "read as something else"
PATIENCE = 20.0  # CPU seconds for one file

log = logging.getLogger(__name__)


def seed_of(kind: str, number: int) -> random.Random:
    return random.Random(f"{kind} {number}")


@pytest.mark.filterwarnings("ignore")  # as on the command line
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_a_traceback_or_goes_unnoticed(kind: str, tmp_path: Path) -> None:
    file = KINDS[kind]
    victim = file.make(tmp_path)
    healthy = victim.read_bytes()
    good = file.read(victim)
    outcomes: Counter[str] = Counter()
    for number in range(FEWER.get(kind, MUTATIONS)):
        mutant = file.repair(mutate(healthy, seed_of(kind, number)))
        victim.write_bytes(mutant)
        begun = time.process_time()
        try:
            same = file.read(victim) == good
            outcome = READ if same else CHANGED
        except MemsrError as error:
            outcome = REFUSED if str(error) and "\n" not in str(error) else f"told in other than a line: {error}"
        except Exception as error:
            raise AssertionError(f"{kind}, mutation {number}: a traceback") from error
        assert time.process_time() - begun < PATIENCE, f"{kind}, mutation {number}"
        assert outcome in (REFUSED, READ) or (outcome == CHANGED and not file.protected), (
            f"{kind}, mutation {number}: {outcome}"
        )
        outcomes[outcome] += 1
    log.info("%s: %d mutations: %s", kind, outcomes.total(), dict(outcomes))
    passing_over = ("journal", "journal of a film", "log of a run")  # of which what cannot be read is passed over
    assert outcomes[REFUSED] or kind in passing_over
