"""Text of pages and pictures: what is foreign made harmless, and numbers in words."""

from __future__ import annotations

import html
import math


def escape(text: str) -> str:
    """Text for HTML and SVG, in an attribute too.  Names come from foreign files; half a surrogate pair is no UTF-8."""
    return html.escape(text.encode("utf-8", "replace").decode())


def format_seconds(seconds: float) -> str:
    """'0.25 s', '12.0 ms'."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"


def format_decibels(value: float | None) -> str:
    """'31.205 dB'; '' where nothing was measured."""
    return "" if value is None else f"{value:.3f} dB"


def format_error(value: float) -> str:
    """A relative error to four places; a dash for none."""
    return f"{value:.4f}" if math.isfinite(value) else "–"
