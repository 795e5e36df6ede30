"""The choices of paper mode: where MemSR's text and its authors' code part.  See docs/paper_mode.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args, get_type_hints

from memsr_compiler.errors import InvalidInput


@dataclass(frozen=True)
class PaperOptions:
    """Choices where the paper's text and its authors' code part, or the text leaves one.

    relative_to    Eq. 15 as a share of the features with ("uncentred": the text) or without their mean ("centred":
                   the code, whose features contain the constant of the skips; ours never do)
    shift_over     the mean shift averages a channel's negative entries ("negative": the text), or those and zeros for
                   all other entries ("all": the code)
    constant       the student reads the features' mean from a channel of ones ("channel": one_pad, exact up to the
                   border), or has it in the bias ("bias": one direction more, wrong within a kernel's reach of it; a
                   layer of a single channel always has)
    linear_levels  where no channel of the teacher's level has a ReLU, the student has one all the same ("relu": the
                   text's plain network), or is shifted out of its reach ("free": the code has none there)
    kept           so many levels below the output keep the teacher's channels as they are, whatever widths say: with
                   the tail above them copied.  0: they are shrunk like all others; 1: the code, for a tail of one
                   convolution
    """

    relative_to: Literal["centred", "uncentred"] = "centred"
    shift_over: Literal["negative", "all"] = "negative"
    constant: Literal["channel", "bias"] = "channel"
    linear_levels: Literal["relu", "free"] = "relu"
    kept: int = 0


PAPER = PaperOptions()
AUTHORS = PaperOptions("centred", "all", "channel", "free", kept=1)
CHOICES = {name: get_args(kind) for name, kind in get_type_hints(PaperOptions).items() if get_args(kind)}


def parse_paper_options(words: Sequence[str]) -> PaperOptions:
    """Read PaperOptions from "text", "code" and "field=value", the later ones changing what the earlier ones said.

    Raises InvalidInput for an unknown word, field or value.
    """
    options = PAPER
    for word in words:
        name, equals, value = word.partition("=")
        whole = {"text": PAPER, "code": AUTHORS}.get(word)
        if whole is not None:
            options = whole
        elif equals and name == "kept" and value.isdigit():
            options = replace(options, kept=int(value))
        elif equals and value in CHOICES.get(name, ()):
            options = replace(options, **{name: value})  # type: ignore[arg-type]
        else:
            known = ", ".join(f"{field}={'|'.join(values)}" for field, values in CHOICES.items())
            raise InvalidInput(f"paper option '{word}': want text, code, {known} or kept=N")
    return options


def require_paper_options(options: object) -> None:
    """Raise InvalidInput for what is no PaperOptions, or has a value that none of its fields takes."""
    if not isinstance(options, PaperOptions):
        raise InvalidInput(f"paper={options!r}: want PaperOptions, not {type(options).__name__}")
    for name, values in CHOICES.items():
        if getattr(options, name) not in values:
            raise InvalidInput(f"PaperOptions({name}={getattr(options, name)!r}): want {' or '.join(values)}")
    kept: object = options.kept
    if not isinstance(kept, int) or kept < 0:
        raise InvalidInput(f"PaperOptions(kept={kept!r}): want how many levels keep their width, 0 or more")
