"""The command line as a function."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""What the fixture `run` gives: arguments -> exit status, standard output, standard error."""
