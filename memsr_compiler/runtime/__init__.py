"""Engines that run networks, on whole frames and by bands of rows."""
