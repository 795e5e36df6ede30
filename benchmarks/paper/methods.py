"""The ways to get a student that tables compare: the paper's, its rivals', and ours."""

from __future__ import annotations

from paper.runs import Method

PUBLISHED = ("--as-published",)
BALANCED = ("--optimizer", "adam", "--rate", "2e-4", "--ema", "0")
"""The paper's optimizer and rate, with channels balanced and inputs centred."""

PHOTOGRAPHS = ("--labels", "photographs")
ALONE = ("--lambda", "0")
DISTILLED = ("--lambda", "0.3", "--epsilon", "1e-5")

DERIVED = ("--init", "memsr")
UNSHIFTED = (*DERIVED, "--beta", "0")
OURS = ("--image-skip", "none")  # the paper's form, of the teacher's depth


def both_ways(name: str, *options: str, shrink: tuple[str, ...] = DERIVED) -> tuple[Method, Method]:
    """A way to train as published, and the same with its channels balanced.

    options   what the two have in common; the labels are photographs where nothing is said of them
    """
    labels = () if "fakd" in options else PHOTOGRAPHS
    return (
        Method(name, shrink, (*PUBLISHED, *options)),
        Method(f"{name}, balanced", shrink, (*BALANCED, *labels, *options)),
    )


HE = both_ways("new weights, He", "--init", "he", *ALONE)
HE_UNIFORM = both_ways("new weights, He, uniform", "--init", "he-uniform", *ALONE)
XAVIER = both_ways("new weights, Xavier", "--init", "xavier", *ALONE)
XAVIER_UNIFORM = both_ways("new weights, Xavier, uniform", "--init", "xavier-uniform", *ALONE)
IDENTITY = both_ways("identity-like weights (PNNH)", "--init", "identity", *ALONE)
HE_DISTILLED = both_ways("new weights, He, distilled", "--init", "he", "--maps", "random", *DISTILLED)
NO_SHIFT = both_ways("initialised, no mean shift", *ALONE, shrink=UNSHIFTED)
INITIALISED = both_ways("initialised", *ALONE)
MAPS_RANDOM = both_ways("initialised, distilled, M random", "--maps", "random", *DISTILLED)
WHOLE = both_ways("initialised, distilled: MemSR", *DISTILLED)
NO_SHIFT_DISTILLED = both_ways("initialised, distilled, no mean shift", *DISTILLED, shrink=UNSHIFTED)

SRKD = both_ways("SRKD", "--init", "he", "--method", "srkd")
FAKD = both_ways("FAKD", "--init", "he", "--method", "fakd")
PISR = both_ways("PISR", "--init", "he", "--method", "pisr")
REPVGG = Method("RepVGG", DERIVED, branches="repvgg")
REPVGG_BN_FREE = Method("RepVGG, no batch norm", DERIVED, branches="repvgg-bn-free")

OUR_START = both_ways("our data-aware student", *ALONE, shrink=OURS)
OUR_WAY = Method("our data-aware student, trained our way", OURS, ())
PAPER_OUR_WAY = Method("initialised, trained our way", DERIVED, ())


def _weigh(weight: str, epsilon: str) -> Method:
    """The whole method with another lambda and epsilon, as published."""
    name = f"initialised, distilled, lambda {weight}, epsilon {epsilon}"
    return Method(name, DERIVED, (*PUBLISHED, "--lambda", weight, "--epsilon", epsilon))


WEIGHTED = (_weigh("0.03", "1e-5"), _weigh("3", "1e-5"), _weigh("0.3", "1e-2"), _weigh("0.3", "1"))
