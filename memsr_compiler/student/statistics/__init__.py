"""Sums over images and pixels, in float64 and bounded memory."""
