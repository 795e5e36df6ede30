"""Colours of pictures that stand alone; those in pages have theirs from report.css."""

INK, SOFT, GRID, PAPER = "#1d1f21", "#5b6168", "#dcdedf", "#fdfdfc"
SERIES = ("#1f5fa8", "#b8452f", "#2f7d4f", "#8a5aa8", "#a87b1f", "#3f7f8c")
