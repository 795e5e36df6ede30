"""The exceptions a user can meet.  Every message says what, where, why and what to do."""


class MemsrError(Exception):
    """Base of everything this package raises on purpose; the command line prints it and exits with 2."""


class InvalidInput(MemsrError):
    """A file or an option that cannot be used: missing, damaged, contradictory."""


class RefusedPickle(InvalidInput):
    """A file that could only be read by executing the pickle inside it."""


class UnsupportedModel(MemsrError):
    """The teacher uses something that no plain network can express, or that we do not read."""


class InvalidGraph(MemsrError):
    """An IR graph that does not type-check."""


class PassError(MemsrError):
    """A pass met, or left behind, something that its contract excludes."""


class NotEquivalent(MemsrError):
    """Two networks that should compute the same do not."""


class CertificateError(MemsrError):
    """A certificate that is malformed, belongs to other weights, or whose proof does not go through."""


class ExportError(MemsrError):
    """An artefact that could not be written, or does not say what it was meant to say."""
