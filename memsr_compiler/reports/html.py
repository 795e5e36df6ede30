"""The frame of the HTML reports: one self-contained page, no script, no font, nothing fetched; and its tables."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

_NUMBER = ' class="number"'
_CSP = "default-src 'none'; style-src 'unsafe-inline'"
_CSP_WITH_IMAGES = f"{_CSP}; img-src data:"


def document(title: str, sections: Iterable[str], *, with_images: bool = False) -> str:
    """A page of ready sections.

    with_images   pictures may stand in it, as data: URIs
    """
    style = (files("memsr_compiler.reports") / "report.css").read_text("utf-8")
    csp = _CSP_WITH_IMAGES if with_images else _CSP
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escaped(csp)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Text for HTML, in an attribute too.  Names come from foreign files; half a surrogate pair is no UTF-8."""
    return html.escape(text.encode("utf-8", "replace").decode())


def section(title: str, *content: str) -> str:
    """Ready content under a heading."""
    return f"<section>\n<h2>{escaped(title)}</h2>\n{''.join(content)}</section>\n"


def note(text: str) -> str:
    """A paragraph in small grey letters; `text` may hold ready HTML."""
    return f'<p class="note">{text}</p>\n'


def facts(rows: Mapping[str, str]) -> str:
    """What is what, both ready HTML, one a line."""
    lines = "".join(f"<dt>{what}</dt><dd>{how}</dd>\n" for what, how in rows.items())
    return f'<dl class="facts">\n{lines}</dl>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int]) -> str:
    """A table of ready cells under those headings, in a box that scrolls if it is too wide."""
    heads = "".join(
        f'<th scope="col"{_NUMBER if i in numeric else ""}>{escaped(name)}</th>' for i, name in enumerate(columns)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    whole = f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
    return f'<div class="scroll table" role="region" aria-label="table" tabindex="0">{whole}</div>\n'


def scrolling(content: str, label: str) -> str:
    """A box that scrolls sideways, with the keyboard too."""
    return f'<div class="scroll" role="region" aria-label="{escaped(label)}" tabindex="0">{content}</div>\n'


def legend(prefix: str, names: Sequence[str], shown: Sequence[str]) -> str:
    """A list of those `names` that are `shown`, each with its colour."""
    items = (f'<li><i class="{prefix}{i}"></i>{escaped(n)}</li>' for i, n in enumerate(names) if n in shown)
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def head_cell(text: str) -> str:
    return f'<th scope="row">{escaped(text)}</th>'


def cell(text: str) -> str:
    return f"<td>{escaped(text)}</td>"


def number(text: str) -> str:
    return f"<td{_NUMBER}>{escaped(text)}</td>"


def short_hash(sha256: str) -> str:
    return f'<code title="SHA-256 {escaped(sha256)}">{escaped(sha256[:12])}</code>'


def time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
