"""memsrc inspect: what is in a teacher, and what its plain form would be."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from memsr_compiler.commands.given.teachers import describe, read
from memsr_compiler.commands.interface.options import InspectOptions, TeacherOptions
from memsr_compiler.commands.interface.output import Talk, mebibytes, thousands, widths_text

if TYPE_CHECKING:
    from memsr_compiler.analysis.cost import Cost
    from memsr_compiler.lowering.inspection import Inspection, LayerInfo, Prediction


def run(teacher_options: TeacherOptions, options: InspectOptions, talk: Talk) -> None:
    """Read a network, predict its plain form, show whether it can be converted, the costs, then the layers."""
    path, size = teacher_options.teacher, options.size
    teacher, input_range = read(teacher_options, talk, say=False)
    from memsr_compiler.lowering.inspection import inspect  # not before the file is one that can be read

    with talk.progress() as step:
        step("reading the network")
        inspection = inspect(teacher, input_range=input_range, align=options.align, tail=options.tail)
    assumed = (*teacher.assumed, *inspection.assumed)
    facts = {"teacher": str(path), "sha256": teacher.sha256, "input_range": input_range, "size": size}
    talk.json({**facts, **_plain_data(inspection, size), "assumed": assumed})
    talk.say(f"{path}: {describe(teacher, input_range)}")
    if teacher.assumed:  # of its code it has been told
        talk.say(f"{path}: assumed: {', '.join(teacher.assumed)}")
    if not inspection.reason:
        talk.say(f"Convertible: yes.  Values carried past ReLUs: {len(inspection.carries)}\n")
    elif inspection.predictions:
        talk.say(f"Convertible: {inspection.reason}.  Values carried past ReLUs: {len(inspection.carries)}\n")
    else:
        talk.say(f"Not convertible: {inspection.reason}\n")
    if inspection.teacher is not None and inspection.predictions:
        rows = [_row("teacher", inspection.teacher, size)]
        rows += [_row(f"plain, {_name_form(p)}", p.cost, size) for p in inspection.predictions]
        talk.table(f"Cost at a {size[0]}x{size[1]} input (predicted: at most)", COLUMNS, rows)
        for p in inspection.predictions:
            talk.say(f"widths, {_name_form(p)}: {widths_text(p.widths)}")
        talk.say("")
    talk.table("Layers", LAYER_COLUMNS, [_layer_row(layer) for layer in inspection.layers])


def _name_form(p: Prediction) -> str:
    """The options of `convert` that make this form."""
    return "--activation prelu" if p.carry == "pass" else f"--carry {p.carry}"


LAYER_COLUMNS = ("module", "op", "channels, resolution", "parameters", "reads")
COLUMNS = ("", "parameters", "multiply-adds", "feature maps", "widest")


def _layer_row(layer: LayerInfo) -> tuple[str, ...]:
    channels = f"{layer.channels} x{layer.scale}" if layer.channels else ""
    return layer.name, layer.kind, channels, f"{layer.parameters:,}", ", ".join(layer.reads)


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


def _plain_data(inspection: Inspection, size: tuple[int, int]) -> dict[str, object]:
    data = asdict(inspection)
    for cost in [data["teacher"], *(p["cost"] for p in data["predictions"])]:
        if cost is not None:
            cost["macs"] = cost["macs_per_pixel"] * size[0] * size[1]
            cost["feature_map_bytes"] = 4 * cost["floats_per_pixel"] * size[0] * size[1]
    return data
