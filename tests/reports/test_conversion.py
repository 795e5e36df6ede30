"""The HTML report of a conversion: what is in it, and that it holds nothing foreign."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.html_outline import outline
from helpers.pages import Hostile, converted, page
from torch import nn

from memsr_compiler import ir
from memsr_compiler.analysis.cost import cost_of_graph
from memsr_compiler.errors import InvalidInput
from memsr_compiler.plain.network import PlainNet
from memsr_compiler.teachers.families.edsr import EDSR


@pytest.fixture(scope="module")
def shifted() -> tuple[PlainNet, list[tuple[str, ir.Graph]]]:
    return converted(EDSR(scale=2, blocks=2, channels=8, mean=(0.4, 0.4, 0.4), rgb_range=1))


@pytest.fixture(scope="module")
def html(shifted: tuple[PlainNet, list[tuple[str, ir.Graph]]]) -> str:
    return page(*shifted, largest_difference="1e-7")


def test_the_page_is_well_formed_and_fetches_nothing(html: str) -> None:
    found = outline(html)
    assert [tag for tag, _ in found.seen if tag in ("script", "link", "img", "iframe", "object")] == []
    assert not re.search(r"https?:|url\(|@import|//[a-z]", html)
    attributes = {name for _, attributes in found.seen for name in attributes}
    assert not attributes & {"src", "href", "xlink:href"}
    assert not any(name.startswith("on") for name in attributes)
    assert ("html", {"lang": "en"}) in found.seen


def test_it_says_what_was_made_and_for_which_inputs(html: str, shifted: Any) -> None:
    net, _ = shifted
    text = outline(html).text
    assert f"teacher.pt as a plain network of {len(net.layers)} layers" in text
    assert net.info.guarantee[1:] in text
    assert net.info.tool in text
    assert net.info.teacher_sha256[:12] in text
    whole = f'<details class="hash"><summary><code title="SHA-256 {net.info.teacher_sha256}">'
    assert whole in html
    assert text.count(net.info.teacher_sha256) == 1  # folded away in those details
    assert net.certificate.plain_sha256[:12] in text
    assert "largest_difference 1e-7" in text
    assert "0 to 1" in text


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_it_says_what_was_assumed(html: str) -> None:
    """A program of torch.export holds what the network's code does to some images alone."""
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    program = torch.export.export(network, (torch.rand(1, 3, 9, 8),)).module()
    words = "it does the same at every size (it was exported for images of 9x8)"
    assert words in outline(page(*converted(program))).text
    assert "exported" not in outline(html).text


def test_costs_stand_side_by_side(html: str, shifted: Any) -> None:
    net, steps = shifted
    cost = cost_of_graph(steps[0][1])
    text = outline(html).text
    row = f"parameters, thousands {cost.parameters / 1e3:,.1f} {net.report.cost.parameters / 1e3:,.1f}"
    assert row in text
    assert f"live feature maps, MiB {cost.memory(270, 480) / 2**20:,.1f}" in text
    assert f"convolutions 10 {len(net.layers)}" in text


def test_every_pass_is_told_with_its_numbers_and_drawn_where_it_changed_something(html: str, shifted: Any) -> None:
    net, steps = shifted
    found = outline(html)
    folds = [attributes.get("class") for tag, attributes in found.seen if tag == "details"]
    assert folds.count("pass") == len(steps) == len(net.report.passes) + 1
    changes = sum(a.text() != b.text() for (_, a), (_, b) in pairwise(steps))
    pictures = [attributes for tag, attributes in found.seen if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) == 1 + 1 + 2 * changes  # the widths, the teacher, then before and after
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in pictures)
    for report in net.report.passes:
        if report.ops_before != report.ops_after:
            assert f"{report.name} {report.ops_before} → {report.ops_after} ops" in found.text
    assert found.text.count("bound") > len(net.report.passes)


def test_carried_tensors_and_seconds_are_listed(html: str, shifted: Any) -> None:
    net, _ = shifted
    text = outline(html).text
    for c in net.report.carried:
        assert f"{c.tensor} {c.channels} {c.form} {c.layers} {c.guarantee}" in text
    assert "trace " in text
    assert "together" in text
    assert net.report.reader in text


def test_stages_are_told_apart() -> None:
    net, steps = converted(EDSR(scale=4, blocks=1, channels=4), tail="keep", carry="shift", constant=50.0)
    text = outline(page(net, steps)).text
    assert "merge-parallel, stage 1" in text
    assert "merge-parallel, stage 3" in text
    assert "dense-conv, stage" not in text
    assert "after, this stage alone" in text
    assert "carried shifted" in text


def test_names_from_foreign_models_stay_text() -> None:
    net, steps = converted(Hostile())
    text = page(net, steps, name='<img src=x onerror="alert(2)">.pt', **{"<b>what</b>": "<i>much</i>\ud800"})
    found = outline(text)
    assert [tag for tag, _ in found.seen if tag in ("script", "img")] == []
    assert "<script>alert(1)</script>" in found.text
    assert '<img src=x onerror="alert(2)">.pt' in found.text
    assert "<b>what</b> <i>much</i>?" in found.text
    text.encode("utf-8")


def test_the_same_conversion_gives_the_same_page(shifted: Any) -> None:
    model = EDSR(scale=2, blocks=1, channels=4)
    pages = [re.sub(r"[\d.]+ m?s\b", "TIME", page(*converted(model))) for _ in range(2)]
    assert pages[0] == pages[1]


def test_a_network_without_its_compilers_report_is_refused(shifted: Any) -> None:
    net, steps = shifted
    bare = PlainNet(list(net), net.info, net.certificate)
    with pytest.raises(InvalidInput, match="just compiled"):
        page(bare, steps)


@pytest.fixture(scope="module")
def large() -> str:
    """EDSR-baseline, narrower: the page depends on its ops, not on its channels."""
    return page(*converted(EDSR(scale=2, blocks=16, channels=8)))


def test_the_page_of_a_long_network_stays_small(large: str) -> None:
    outline(large)
    assert len(large.encode()) < 3_000_000
