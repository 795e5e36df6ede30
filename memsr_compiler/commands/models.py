"""Networks as commands are given them, ready to run."""

from __future__ import annotations

from memsr_compiler.commands.output import Talk
from memsr_compiler.commands.teachers import TeacherOptions, set_up, teacher_arguments
from memsr_compiler.errors import InvalidInput
from memsr_compiler.runtime.open import Model, NetworkFile, open_model
from memsr_compiler.runtime.runners import Provider


def opened(options: TeacherOptions, talk: Talk, *, provider: Provider, threads: int | None) -> Model:
    """Raises InvalidInput for a file that is no network, or one that does not work on photographs."""
    return open_model(network_file(options, talk), provider=provider, threads=threads)


def network_file(options: TeacherOptions, talk: Talk) -> NetworkFile:
    """The file, and how it is to be read.  Raises InvalidInput if it is not there."""
    if not options.path.is_file():
        raise InvalidInput(f"{options.path}: there is no such file; give a network")
    set_up(options, talk)
    arguments = teacher_arguments(options)
    return NetworkFile(options.path, options.arch, arguments, options.allow_pickle, options.input_range)
