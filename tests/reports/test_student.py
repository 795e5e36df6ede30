"""The HTML report of a student: what is in it, and that it holds nothing foreign."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.html_outline import outline
from helpers.students import WHO, picture, student, student_page
from PIL import Image

from memsr_compiler.errors import InvalidInput
from memsr_compiler.images.files import png
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.reports.student import Row, report_student
from memsr_compiler.student.report import ShrinkReport


@pytest.fixture(scope="module")
def html() -> str:
    return student_page()


def test_the_page_is_well_formed_and_fetches_nothing(html: str) -> None:
    found = outline(html)
    assert [tag for tag, _ in found.seen if tag in ("script", "link", "iframe", "object")] == []
    without_pictures = re.sub(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", html)
    assert "src=" not in without_pictures
    assert not re.search(r"https?:|url\(|@import|//[a-z]", without_pictures)
    assert not any(name.startswith("on") for _, attributes in found.seen for name in attributes)
    policy = next(a["content"] for tag, a in found.seen if tag == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_it_says_what_was_made_and_how(html: str) -> None:
    text = outline(html).text
    assert "A student of teacher.pt: 5 layers, up to 24 channels" in text
    assert "up to 72 channels" in text
    assert "data-aware" in text
    assert "40 crops, 163,840 input pixels" in text
    assert student().sha256()[:12] in text
    assert "after 100% of the joint refit 41.500 dB" in text
    assert "features 1.50 s kernels 20.0 ms together 1.52 s" in text


def test_costs_stand_side_by_side_with_psnr(html: str) -> None:
    text = outline(html).text
    assert "bicubic 30.000 dB" in text
    assert "teacher 34.250 dB 400.0 ×1.00 202.2 ×1.00 593.3 ×1.00" in text
    assert "student 33.500 dB 100.0 ×0.25 51.3 ×0.25 237.3 ×0.40" in text
    assert "960×540" in text
    assert "the 5 photographs it is derived from" in text


def test_every_layer_has_its_row_and_stands_in_three_charts(html: str) -> None:
    found = outline(html)
    assert "3 72 24 8 0.0600 0.0900 body.3.relu, head <b>" in found.text
    labels = [attributes["aria-label"] for tag, attributes in found.seen if tag == "svg" and "aria-label" in attributes]
    assert labels == [
        "Widths of the student's layers: 16, 24, 24, 8",
        "singular values, layer by layer",
        "relative errors, layer by layer",
    ]
    assert "layer 3: 24 of 72 channels" in found.text


def test_pictures_are_inside_and_are_what_was_given(html: str) -> None:
    images = [attributes for tag, attributes in outline(html).seen if tag == "img"]
    assert len(images) == 3 * (1 + 5)
    assert [image["alt"] for image in images[1:6]] == [f"photograph 1, {who}" for who in ("original", *WHO)]
    data = base64.b64decode((images[1]["src"] or "").partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture().crops[0][1])
    assert (images[1]["width"], images[1]["height"]) == ("56", "56")


def test_grey_pictures_are_png_too() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for image in (grey, grey[..., None]):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), grey)


def test_names_from_elsewhere_stay_text() -> None:
    text = student_page(name='<script>alert(1)</script>"\ud800')
    found = outline(text)
    assert found.count("script") == 0
    assert '<script>alert(1)</script>"?' in found.text
    text.encode("utf-8")


def test_the_same_student_gives_the_same_page(html: str) -> None:
    assert student_page() == html


def test_a_student_with_nothing_to_show_has_a_page() -> None:
    net: Any = student((3, 12))
    cost = net.report.cost
    net.report = ShrinkReport(
        mode="memsr", layers=(), pixels=0, images=0, fidelity=(), cost=cost, teacher_cost=cost, seconds={}
    )
    found = outline(report_student(net, teacher_name="t", rows=[Row("student")], size=(9, 5), images="nothing"))
    assert found.count("svg") == found.count("img") == 0
    assert "MemSR" in found.text


def test_numbers_that_are_none_are_no_numbers_on_the_page() -> None:
    net: Any = student()
    zero = torch.zeros(5, dtype=torch.float64)
    first = net.report.layers[0]
    fields = {**vars(first), "singular_values": zero, "lost": float("nan"), "own_error": float("nan")}
    net.report = replace(net.report, layers=(type(first)(**fields), *net.report.layers[1:]))
    found = outline(student_page(net))
    assert "1 48 16 5 – – body.1.relu" in found.text
    assert "nan" not in student_page(net, pictures=0)


def test_a_network_that_was_not_just_derived_is_refused() -> None:
    net = student()
    bare = PlainNet(list(net), net.info)
    with pytest.raises(InvalidInput, match="just derived"):
        report_student(bare, teacher_name="t", rows=[], size=(1, 1), images="")
