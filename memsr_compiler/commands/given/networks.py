"""Networks as commands are given them, ready to run."""

from __future__ import annotations

from memsr_compiler.commands.given.teachers import say_assumed, set_up, teacher_arguments
from memsr_compiler.commands.interface.options import TeacherOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.errors import InvalidInput
from memsr_compiler.runtime.open import Model, NetworkFile, open_model
from memsr_compiler.runtime.runners import Provider


def open_network(options: TeacherOptions, talk: Talk, *, provider: Provider, threads: int | None) -> Model:
    """Open a network to run it, and say what there is to say on the sizes that its file fixes.

    Raises InvalidInput for a file that is no network, or one that does not work on photographs.
    """
    model = open_model(network_file(options, talk), provider=provider, threads=threads)
    say_assumed(options.teacher, model.assumed, talk)
    if model.network.note:
        talk.warn(model.network.note)
    return model


def network_file(options: TeacherOptions, talk: Talk) -> NetworkFile:
    """The network's file, and how it is to be read.  Raises InvalidInput if it is not there."""
    if not options.teacher.is_file():
        what = "is a folder" if options.teacher.is_dir() else "there is no such file"
        raise InvalidInput(f"{options.teacher}: {what}; give a network")
    set_up(options, talk)
    arguments = teacher_arguments(options)
    return NetworkFile(
        options.teacher,
        arch=options.arch,
        arch_args=arguments,
        prefix=options.prefix,
        allow_pickle=options.allow_pickle,
        input_range=options.input_range,
        probe=not options.no_probe,
    )
