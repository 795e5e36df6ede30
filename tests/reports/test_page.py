"""The frame of the HTML reports."""

from __future__ import annotations

from helpers.html_outline import outline

from memsr_compiler.reports import page
from memsr_compiler.reports.text import escape, format_seconds


def test_a_legend_shows_what_is_there() -> None:
    assert page.legend("k", ["a", "<b>"], ["<b>"]) == '<ul class="legend"><li><i class="k1"></i>&lt;b&gt;</li></ul>\n'


def test_text_cannot_leave_its_place() -> None:
    assert escape("<a b=\"c\" d='e'>&\ud800") == "&lt;a b=&quot;c&quot; d=&#x27;e&#x27;&gt;&amp;?"


def test_a_page_allows_pictures_only_where_it_has_some() -> None:
    for with_images in (False, True):
        found = outline(page.write_page("<title>", ["<p>x</p>"], with_images=with_images))
        policy = next(a["content"] or "" for tag, a in found.seen if tag == "meta" and "http-equiv" in a)
        assert policy.startswith("default-src 'none';")
        assert ("img-src data:" in policy) == with_images
        assert "<title>" in found.text


def test_a_table_has_headings_for_columns_and_rows() -> None:
    found = outline(page.table(["", "n"], [[page.head_cell("a<"), page.number("1")]], numeric=(1,)))
    scopes = [attributes.get("scope") for tag, attributes in found.seen if tag == "th"]
    assert scopes == ["col", "col", "row"]
    assert found.text == "n a< 1"


def test_times_are_read_at_a_glance() -> None:
    assert [format_seconds(t) for t in (0.00012, 0.0999, 0.1, 12.345)] == ["0.1 ms", "99.9 ms", "0.10 s", "12.35 s"]
