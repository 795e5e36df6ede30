"""memsrc inspect: what is in a teacher, and what its plain form would be."""

from __future__ import annotations

from dataclasses import asdict

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.commands.options import InspectOptions, TeacherOptions
from memsr_compiler.commands.output import Talk, mebibytes, thousands, widths_text
from memsr_compiler.commands.teachers import describe, read
from memsr_compiler.lowering.inspection import Inspection, inspect


def run(teacher_options: TeacherOptions, options: InspectOptions, talk: Talk) -> None:
    """Read, predict, show."""
    path, size = teacher_options.teacher, options.size
    teacher, input_range = read(teacher_options, talk)
    with talk.progress() as step:
        step("reading the network")
        found = inspect(teacher.module, input_range=input_range, align=options.align, tail=options.tail)
    talk.json({"teacher": str(path), "sha256": teacher.sha256, "size": size, **_plain_data(found, size)})
    talk.say(f"{path}: {describe(teacher, input_range)}\n")
    rows = [
        (
            layer.name,
            layer.kind,
            f"{layer.channels} x{layer.scale}" if layer.channels else "",
            f"{layer.parameters:,}",
            ", ".join(layer.reads),
        )
        for layer in found.layers
    ]
    talk.table("Layers", ("module", "op", "channels, resolution", "parameters", "reads"), rows)
    if found.reason:
        talk.say(f"Not convertible: {found.reason}")
    if found.teacher is not None and found.predictions:
        costs = [("teacher", found.teacher, "")]
        costs += [(f"plain, --carry {p.carry}", p.cost, widths_text(p.widths)) for p in found.predictions]
        talk.table(
            f"Cost at a {size[0]}x{size[1]} input (predicted)", COLUMNS, [(*_row(n, c, size), w) for n, c, w in costs]
        )
        talk.say(f"Convertible: {found.reason or 'yes'}.  Values carried past ReLUs: {len(found.carries)}")


COLUMNS = ("", "parameters", "multiply-adds", "feature maps", "widest", "widths")


def _row(name: str, cost: Cost, size: tuple[int, int]) -> tuple[str, ...]:
    width, height = size
    macs = cost.macs_per_pixel * width * height
    return (
        name,
        thousands(cost.parameters),
        f"{macs / 1e9:,.1f} G",
        mebibytes(cost.memory(height, width)),
        str(cost.widest),
    )


def _plain_data(found: Inspection, size: tuple[int, int]) -> dict[str, object]:
    data = asdict(found)
    for cost in [data["teacher"], *(p["cost"] for p in data["predictions"])]:
        if cost is not None:
            cost["macs"] = cost["macs_per_pixel"] * size[0] * size[1]
            cost["feature_map_bytes"] = 4 * cost["floats_per_pixel"] * size[0] * size[1]
    return data
