"""The width of each level of a student."""
