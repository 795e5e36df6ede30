"""Replacements in a teacher that has no plain form, and their cost: rows for tables, and a section of a page."""

from __future__ import annotations

from memsr_compiler.ir.approximation import Replacement
from memsr_compiler.quantities import say_count
from memsr_compiler.reports import page
from memsr_compiler.reports.text import escape
from memsr_compiler.trace.approximate.freeze import Frozen

COLUMNS = ("replaced", "what it was", "in its place", "PSNR to the teacher")


def list_rows(frozen: Frozen) -> list[tuple[str, str, str, str]]:
    """A row of `COLUMNS` for each replacement, and one for all together."""
    rows = [
        (r.name, r.kind, describe_numbers(r), _decibels(cost))
        for r, cost in zip(frozen.replacements, frozen.costs, strict=True)
    ]
    return [*rows, ("all together", "", "", _decibels(frozen.psnr))]


def describe_numbers(r: Replacement) -> str:
    """'0.21 to 0.83' of a gate, '3 pieces' of an activation."""
    if r.knots:
        return f"{len(r.knots) + 1} straight pieces"
    low, high = min(r.scale), max(r.scale)
    line = "" if r.shift == (0.0,) else " times the value, and a constant"
    return f"{low:.3g} to {high:.3g}{line}"


def write_replacements(frozen: Frozen | None) -> str:
    """Section on them; empty where the teacher is taken as it is."""
    if frozen is None:
        return ""
    rows = [
        [page.head_cell(name), page.cell(escape(kind)), page.cell(escape(numbers)), page.number(cost)]
        for name, kind, numbers, cost in list_rows(frozen)
    ]
    return page.section(
        "What was replaced",
        page.table(COLUMNS, rows, numeric=(3,)),
        page.note(
            "The teacher has no plain form. Gates are frozen at their means on "
            f"{say_count(frozen.images, 'image')}, those that "
            "differ from pixel to pixel at the best line; smooth activations are straight pieces where their inputs "
            "lie. The PSNR is of the teacher with that one replacement to the teacher as it is, on "
            f"{'those images' if frozen.cost_images == frozen.images else f'the first {frozen.cost_images} of them'}."
        ),
    )


def _decibels(value: float) -> str:
    return f"{value:.2f} dB"
