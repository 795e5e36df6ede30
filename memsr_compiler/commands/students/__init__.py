"""The common part of `shrink`, `sweep` and what else takes a student: one derived, several in turn, their curve."""
