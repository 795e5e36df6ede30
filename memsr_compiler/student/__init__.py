"""shrink: a trained network in, a much narrower plain network out, from a few images.  See docs/shrink.md."""

from memsr_compiler.student.shrink import shrink

__all__ = ["shrink"]
