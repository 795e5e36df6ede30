"""The page of an HTML report: self-contained, no script, no font, nothing fetched; its parts, named as tags are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from memsr_compiler.reports.drawing import Drawing
from memsr_compiler.reports.text import escape

_NUMBER = ' class="number"'
_CSP = "default-src 'none'; style-src 'unsafe-inline'"
_CSP_WITH_IMAGES = f"{_CSP}; img-src data:"


def write_page(title: str, sections: Iterable[str], *, with_images: bool = False) -> str:
    """Text of a page of ready sections.

    with_images   pictures may stand in it, as data: URIs
    """
    style = (files("memsr_compiler.reports") / "report.css").read_text("utf-8")
    csp = _CSP_WITH_IMAGES if with_images else _CSP
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(csp)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def section(title: str, *content: str) -> str:
    """Ready content under a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(content)}</section>\n"


def note(text: str) -> str:
    """A paragraph in small grey letters; `text` may hold ready HTML."""
    return f'<p class="note">{text}</p>\n'


def facts(rows: Mapping[str, str]) -> str:
    """A list of names and values, both ready HTML, one pair a line."""
    lines = "".join(f"<dt>{name}</dt><dd>{value}</dd>\n" for name, value in rows.items())
    return f'<dl class="facts">\n{lines}</dl>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int]) -> str:
    """A table of ready cells under those headings, in a box that scrolls if it is too wide."""
    heads = "".join(
        f'<th scope="col"{_NUMBER if i in numeric else ""}>{escape(name)}</th>' for i, name in enumerate(columns)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    whole = f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
    return f'<div class="scroll table" role="region" aria-label="table" tabindex="0">{whole}</div>\n'


def picture(drawing: Drawing, label: str) -> str:
    """A box that scrolls sideways, with the keyboard too; where it is too narrow for the drawing, a line says so."""
    return (
        f'<div class="drawing" style="--wide: {drawing.width:g}px">\n'
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0"><div>{drawing.svg()}'
        f'{drawing.axis_svg()}</div></div>\n<p class="hint" aria-hidden="true">← scrolls sideways →</p>\n</div>\n'
    )


def folded_table(summary: str, table: str) -> str:
    """A table, folded away, that says what the tooltips of a drawing say: for a keyboard, a touch screen, a voice."""
    return f'<details class="numbers">\n<summary>{escape(summary)}</summary>\n{table}</details>\n'


def legend(prefix: str, names: Sequence[str], shown: Sequence[str]) -> str:
    """A list of those `names` that are `shown`, each with its colour."""
    items = (f'<li><i class="{prefix}{i}"></i>{escape(n)}</li>' for i, n in enumerate(names) if n in shown)
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def head_cell(text: str) -> str:
    """The cell that heads a row."""
    return f'<th scope="row">{escape(text)}</th>'


def cell(text: str) -> str:
    """A cell of text."""
    return f"<td>{escape(text)}</td>"


def number(text: str) -> str:
    """A cell of a number, right-aligned."""
    return f"<td{_NUMBER}>{escape(text)}</td>"


def folded_hash(sha256: str) -> str:
    """The first digits of a hash; unfolded, all of them."""
    return (
        f'<details class="hash"><summary><code title="SHA-256 {escape(sha256)}">{escape(sha256[:12])}</code></summary>'
        f"<code>{escape(sha256)}</code></details>"
    )
