"""memsrc bench: networks side by side on this machine, as table, CSV and picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memsr_compiler.arithmetic import join_arithmetics
from memsr_compiler.commands.given.networks import network_file
from memsr_compiler.commands.given.teachers import say_assumed
from memsr_compiler.commands.interface.check_outputs import check_outputs, write_page
from memsr_compiler.commands.interface.options import BenchOptions, ReadingOptions
from memsr_compiler.commands.interface.output import Talk, finite, mebibytes, thousands
from memsr_compiler.errors import InvalidInput
from memsr_compiler.evaluation.bench import Measured, benchmark
from memsr_compiler.evaluation.image_sets import SSIM_WINDOW, read_test_images
from memsr_compiler.files import atomic_write
from memsr_compiler.reports.scatter import Dot, draw_scatter_png, draw_scatter_svg

COLUMNS = (
    "network", "engine", "width", "height", "parameters", "multiply_adds", "median_ms", "lower_quartile_ms",
    "upper_quartile_ms", "ratio", "peak_memory_bytes", "feature_map_bytes", "psnr_y_db", "ssim_y",
    "arithmetic",
)  # fmt: skip


def run(options: BenchOptions, reading: ReadingOptions, talk: Talk) -> None:
    """Measure networks, show and write the numbers."""
    files = _check_files(options)
    networks = [network_file(reading.of(path), talk) for path in options.model]
    with talk.progress() as step:
        measured = benchmark(
            networks,
            size=options.size,
            scale=options.scale,
            provider=options.provider,
            threads=options.threads,
            repeats=options.repeats,
            images=lambda scale: read_test_images(options.data, scale, window=SSIM_WINDOW, warn=talk.warn),
            on_step=step,
        )
    for note in filter(None, (m.note for m in measured)):
        talk.warn(note)
    for m in measured:
        say_assumed(m.path or Path(m.name), m.assumed, talk)
    where = str(options.data) if options.data else "the photographs that ship"
    title = f"{options.size[0]}x{options.size[1]} input, {options.provider}; PSNR on {where}, protocol edsr"
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(as_csv(measured).encode(errors="backslashreplace"))  # names of files are any bytes
    if options.plot is not None:
        _write_plot(options.plot, [_dot(m) for m in measured], title)
    talk.json(
        {
            "written": [str(path) for path in files],
            "size": list(options.size),
            "provider": options.provider,
            "threads": options.threads,
            "repeats": options.repeats,
            "data": where,
            "protocol": "edsr",
            "models": [{**_values(m), "seconds": list(m.seconds), "assumed": m.assumed} for m in measured],
        }
    )
    talk.table(
        f"{title}; median of {options.repeats} rounds, quartiles in brackets",
        ("", "engine", "parameters", "multiply-adds", "time", "", "ratio", "peak memory", "feature maps", "PSNR-Y"),
        [_row(m) for m in measured],
    )
    talk.say("peak memory: of a process, beyond network and image, result included; feature maps: the least in theory")
    talk.say(f"computed in  {join_arithmetics({m.name: m.arithmetic for m in measured})}")
    if files:
        talk.say(f"written      {', '.join(map(str, files))}")


def _write_plot(path: Path, dots: Sequence[Dot], title: str) -> None:
    if path.suffix.lower() == ".svg":
        write_page(path, draw_scatter_svg(dots, title))
        return
    with atomic_write(path) as file:
        file.write(draw_scatter_png(dots, title))


def as_csv(measured: Sequence[Measured]) -> str:
    """One line for each network; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(_values(m) for m in measured)
    return text.getvalue()


def _check_files(options: BenchOptions) -> list[Path]:
    """Check the options, and list the files that will be written.  Raises InvalidInput."""
    if len(set(options.model)) < len(options.model):
        raise InvalidInput("a network is named twice; name each once")
    if options.plot is not None and options.plot.suffix.lower() not in (".svg", ".png"):
        raise InvalidInput(f"{options.plot}: a plot is written as .svg or .png; name it so")
    files = [path for path in (options.csv, options.plot) if path is not None]
    check_outputs(files, reads=options.model, images=[options.data], overwrite=options.overwrite)
    return files


def _values(m: Measured) -> dict[str, Any]:
    """Values of a network for CSV and JSON."""
    lower, upper = m.quartiles
    return {
        "network": str(m.path or m.name),
        "engine": m.engine,
        "width": m.size[0],
        "height": m.size[1],
        "parameters": m.parameters,
        "multiply_adds": m.macs,
        "median_ms": round(m.median * 1000, 3),
        "lower_quartile_ms": round(lower * 1000, 3),
        "upper_quartile_ms": round(upper * 1000, 3),
        "ratio": round(m.ratio, 4),
        "peak_memory_bytes": None if m.memory is None else m.memory.bytes,
        "peak_memory_is_at_least": None if m.memory is None else m.memory.at_least,
        "feature_map_bytes": m.feature_maps,
        "psnr_y_db": None if m.score is None else finite(m.score.psnr),
        "ssim_y": None if m.score is None else m.score.ssim,
        "arithmetic": m.arithmetic,
    }


def _row(m: Measured) -> tuple[str, ...]:
    lower, upper = m.quartiles
    return (
        m.name,
        m.engine,
        "" if m.parameters is None else thousands(m.parameters),
        "" if m.macs is None else f"{m.macs / 1e9:,.1f} G",
        f"{m.median * 1000:,.1f} ms",
        f"({lower * 1000:,.1f} to {upper * 1000:,.1f})",
        f"{m.ratio:.2f}",
        "" if m.memory is None else f"{'over ' if m.memory.at_least else ''}{mebibytes(m.memory.bytes)}",
        "" if m.feature_maps is None else mebibytes(m.feature_maps),
        "" if m.score is None else f"{m.score.psnr:.3f} dB",
    )


def _dot(m: Measured) -> Dot:
    return Dot(
        m.name,
        m.median,
        math.nan if m.score is None else m.score.psnr,
        None if m.memory is None else m.memory.bytes,
    )
