"""Words of commands on a teacher that was frozen, since it has no plain form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memsr_compiler.commands.interface.output import Talk, finite
from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.quantities import say_count
from memsr_compiler.reports.approximation import COLUMNS, list_rows
from memsr_compiler.trace.approximate.freeze import Frozen

FAR = 30.0  # dB; of IMDN's frozen networks 43 and more


def tell_frozen(frozen: Frozen | None, talk: Talk) -> None:
    """Print what was replaced and what it costs, if anything was."""
    if frozen is None:
        return
    single = "" if frozen.cost_images == frozen.images else f", single ones on {frozen.cost_images}"
    talk.table(
        f"Replaced, since it has no plain form; measured on {say_count(frozen.images, 'image')}{single}",
        COLUMNS,
        list_rows(frozen),
    )
    if frozen.psnr < FAR:
        talk.warn(
            f"what is derived from is {frozen.psnr:.2f} dB from the teacher: its gates or activations are too much of "
            "it; compare what comes of it with the teacher on images of your own"
        )


def frozen_data(frozen: Frozen | None) -> dict[str, Any] | None:
    """The same for JSON."""
    if frozen is None:
        return None
    costs = [{"psnr": finite(cost)} for cost in frozen.costs]
    rows = [row | cost for row, cost in zip(replacement_data(frozen.replacements), costs, strict=True)]
    return {"replaced": rows, "psnr": finite(frozen.psnr), "images": frozen.images, "cost_images": frozen.cost_images}


def replacement_data(replacements: Sequence[Replacement]) -> list[dict[str, Any]]:
    """Names and kinds of replacements for JSON; their numbers are in the certificate."""
    return [{"name": r.name, "kind": r.kind} for r in replacements]
