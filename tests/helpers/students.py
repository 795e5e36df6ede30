"""A student that nobody derived, with a report made up, for tests of what is made of reports."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from memsr_compiler.analysis.cost import Cost
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.reports.side_by_side import Picture
from memsr_compiler.reports.student import Row, report_student
from memsr_compiler.student.report import LayerShrunk, ShrinkReport


def student(widths: tuple[int, ...] = (3, 16, 24, 24, 8, 12), scale: int = 2) -> PlainNet:
    """A plain network of those widths, its weights zeros, and the report of its derivation."""
    last = len(widths) - 2
    layers = [
        PlainLayer(
            torch.zeros(after, before, 3, 3), torch.zeros(after), relu=i < last, shuffle=scale if i == last else 1
        )
        for i, (before, after) in enumerate(pairwise(widths))
    ]
    info = PlainInfo(scale, widths[0], (0.0, 1.0), "none", "none: it approximates", "0" * 64, 5, "", "a test")
    net: Any = PlainNet(layers, info)
    shrunk = [
        LayerShrunk(
            number=number,
            holds=(f"body.{number}.relu", "head <b>"),
            teacher_width=3 * width,
            width=width,
            relus=width // 3,
            singular_values=torch.logspace(1, -3, 3 * width, dtype=torch.float64),
            lost=0.02 * number,
            own_error=0.03 * number,
            map=torch.zeros(3 * width, width + 1),
        )
        for number, width in enumerate(widths[1:-1], 1)
    ]
    net.report = ShrinkReport(
        mode="data-aware",
        layers=tuple(shrunk),
        pixels=163840,
        images=40,
        fidelity=(38.2, 41.5),
        cost=Cost(100_000, 99_000, 120, 72),
        teacher_cost=Cost(400_000, 390_000, 300, 256),
        seconds={"features": 1.5, "kernels": 0.02},
    )
    return net  # type: ignore[no-any-return]


def picture(name: str = "photograph 1") -> Picture:
    """A gradient with noise."""
    noise = np.random.default_rng(0).integers(0, 60, (160, 256, 3))
    whole = (np.linspace(0, 195, 256)[None, :, None] + noise).astype(np.uint8)
    crop = whole[40:96, 100:156]
    crops = [("original", crop, None), *((who, crop, 30.0 + i) for i, who in enumerate(WHO))]
    return Picture(name, whole, (100 / 256, 40 / 160, 56 / 256, 56 / 160), crops)


WHO = ("bicubic", "teacher", "plain", "student")


def student_page(net: PlainNet | None = None, *, name: str = "teacher.pt", pictures: int = 3) -> str:
    """The page on a student."""
    net = net or student()
    report: Any = net.report
    rows = [
        Row("bicubic", None, 30.0),
        Row("teacher", report.teacher_cost, 34.25),
        Row("plain", Cost(900_000, 880_000, 500, 256), 34.25),
        Row("student", report.cost, 33.5),
    ]
    return report_student(
        net,
        teacher_name=name,
        rows=rows,
        size=(960, 540),
        images="the 5 photographs it is derived from",
        pictures=[picture(f"photograph {i + 1}") for i in range(pictures)],
    )
