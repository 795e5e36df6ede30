"""Pieces of files that libvips does not write: before the pixels, on colours; and a PNG through a pipe."""
