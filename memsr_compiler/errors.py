"""The exceptions a user can meet.  Every message says what, where, why and what to do.

Messages are for people.  What a program may want to know is in the exception's type and attributes.
"""

import math
import re

_NO_MEMORY = re.compile("can't allocate memory|failed to allocate|out of memory|Available memory of", re.IGNORECASE)


def first_line(error: object) -> str:
    """The first line of what another library's error, or its text, says; its type where it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__


def tells_of_memory(error: object) -> bool:
    """Whether another library's error, or its text, says that there is not enough memory."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def escape_controls(text: str) -> str:
    """Text in one line, in which no file's name moves a terminal's cursor: control characters as \\n and the like."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: match[0].encode("unicode_escape").decode(), text)


class MemsrError(Exception):
    """Base of everything this package raises on purpose; the command line prints it and exits with 2."""


class InvalidInput(MemsrError):
    """A file or an option that cannot be used: missing, damaged, contradictory."""


class RefusedPickle(InvalidInput):
    """A file that could only be read by executing the pickle inside it."""


class UnsupportedModel(MemsrError):
    """The teacher uses something that no plain network can express, or that we do not read."""


class StagesCannotBeKept(UnsupportedModel):
    """A teacher that cannot be cut where its resolution rises (`tail="keep"`); folding (`tail="fold"`) reads it."""


class InvalidGraph(MemsrError):
    """An IR graph that does not type-check."""


class PassError(MemsrError):
    """A pass met, or left behind, something that its contract excludes.

    pass_name   "fuse-1x1", once it is known which pass it was
    """

    pass_name: str = ""


class NotEquivalent(MemsrError):
    """Two networks that should compute the same do not.

    deviation         by how much, where it is largest; infinite where the results differ in shape, or are no numbers
    bound             by how much they may, rounding being what it is
    probe, at         there: the name of the input, and (image, channel, y, x)
    expected, found   there: the two values
    pass_name         the pass after which it was noticed, "insert-relu"; "" if that is not known
    clipped           a tensor of which a ReLU took something, its shift's constant being too small; "" if there is none
    """

    def __init__(
        self,
        message: str,
        *,
        deviation: float = math.inf,
        bound: float = 0.0,
        probe: str = "",
        at: tuple[int, ...] = (),
        expected: float = math.nan,
        found: float = math.nan,
        pass_name: str = "",
        clipped: str = "",
    ) -> None:
        super().__init__(message)
        self.deviation, self.bound, self.probe, self.at = deviation, bound, probe, at
        self.expected, self.found, self.pass_name, self.clipped = expected, found, pass_name, clipped


class CertificateError(MemsrError):
    """A certificate that is malformed, belongs to other weights, or whose proof does not go through."""


class ExportError(MemsrError):
    """An artefact that could not be written, or does not say what it was meant to say."""


def say_missing(package: str, purpose: str, extra: str = "cpu") -> str:
    """Words on a package that is not installed: what it is for, and the extra that brings it."""
    either = " (or [gpu], never both)" if extra == "cpu" else ""
    return f"{package} is not installed, which {purpose}; pip install 'memsr_compiler[{extra}]'{either}"
