"""What a run trains with where its options leave that open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memsr_compiler.commands.interface.training_options import DistillOptions, TrainOptions
from memsr_compiler.commands.runs.choices import BEST, INTEGERS, PUBLISHED, Choices, choose, settle


def distill(**given: Any) -> DistillOptions:
    return DistillOptions(data=[Path("d")], out=Path("o"), student=Path("s"), teacher=Path("t"), **given)


def test_each_way_of_training_has_its_own_defaults() -> None:
    assert choose(distill()) == BEST == Choices("muon", 2e-3, 0.999, "both", 0.0)
    assert choose(distill(centred=False)) == PUBLISHED == Choices("adam", 2e-4, 0.0, "photographs", 0.3)
    assert choose(distill(int8=True)) == INTEGERS and INTEGERS.optimizer == "adam"
    assert choose(TrainOptions(data=[Path("d")], out=Path("o"), scale=2)) == PUBLISHED


@pytest.mark.parametrize(
    ("method", "weight", "labels"),
    [("srkd", 1.0, "photographs"), ("fakd", 10.0, "both"), ("pisr", 1e-6, "photographs")],
)
def test_other_methods_have_their_authors_weights(method: str, weight: float, labels: str) -> None:
    published = choose(distill(centred=False, method=method))
    assert published == Choices("adam", 2e-4, 0.0, labels, weight, epsilon=1.0)  # type: ignore[arg-type]
    balanced = choose(distill(method=method))
    assert (balanced.optimizer, balanced.weight, balanced.epsilon) == ("muon", weight, 1.0)
    assert choose(distill(method=method, weight=0.0, epsilon=0.5)).weight == 0.0
    assert choose(distill(method=method, epsilon=0.5)).epsilon == 0.5


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({"optimizer": "adam"}, 1e-3),
        ({"optimizer": "muon"}, 2e-3),
        ({"optimizer": "muon", "centred": False}, 2e-3),
        ({"optimizer": "adam", "centred": False}, 2e-4),
        ({"optimizer": "adam", "rate": 3e-5}, 3e-5),
    ],
)
def test_the_rate_is_the_optimizers(given: dict[str, Any], rate: float) -> None:
    assert choose(distill(**given)).rate == rate


@pytest.mark.parametrize(
    ("given", "layers", "rate"),
    [
        ({}, 9, 2e-3),
        ({}, 10, 2e-4),
        ({"optimizer": "adam"}, 10, 2e-4),
        ({"int8": True}, 13, 1e-4),
        ({"rate": 2e-3}, 13, 2e-3),
    ],
)
def test_deep_students_move_slowly(given: dict[str, Any], layers: int, rate: float) -> None:
    assert choose(distill(**given), layers).rate == rate


def test_what_is_given_is_kept_and_all_is_recorded() -> None:
    options = distill(labels="teacher", ema=0.0, weight=0.1)
    settled = settle(options, choose(options))
    assert (settled.labels, settled.ema, settled.weight) == ("teacher", 0.0, 0.1)
    assert (settled.optimizer, settled.rate) == ("muon", 2e-3)
    train = TrainOptions(data=[Path("d")], out=Path("o"), scale=2)
    assert settle(train, choose(train)).rate == 2e-4
