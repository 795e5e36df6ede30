"""Commands from dataclasses: a dataclass of options is their declaration, and what the command is given."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand
from typer.models import OptionInfo

from memsr_compiler.commands.interface.quantities import Size
from memsr_compiler.errors import InvalidInput, MemsrError

# The panels of --help, in the order in which they are shown.
WIDTHS = "How narrow: give one of these"
NETWORK = "Network"
RUN = "The run"
CONVERSION = "Conversion"
OUTPUT = "Output"
COSTS = "Costs"
IMAGES = "Images"
FILMS = "Films"
TRAINING = "Training"
STUDENT = "How the student is made"
ENGINE = "Where it runs"
READING = "How a network's file is read"
MESSAGES = "Messages"
_TOO_LARGE = 2**63
PANELS = (WIDTHS, NETWORK, RUN, CONVERSION, OUTPUT, COSTS, IMAGES, FILMS, TRAINING, STUDENT, ENGINE, READING, MESSAGES)


class SomeNotDone(MemsrError):
    """Files of a folder that were passed over and told, while the others were done; the command line exits with 3."""


class OnlyApproximate(MemsrError):
    """A plain network that is what its certificate says: an approximation; the command line exits with 4."""


def option(help: str, *names: str, panel: str, **settings: Any) -> Any:
    """Describe an option, for `Annotated`; without names it is called like its field."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def command(
    app: typer.Typer, *groups: type, name: str | None = None, epilog: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function of dataclasses, whose annotations are types, as a command with their fields as parameters.

    Arguments come in their order, options by their panels.
    """

    def attach(function: Callable[..., None]) -> Callable[..., None]:
        declared = [(group, field, hint) for group in groups for field, hint in _list_fields(group)]
        parameters = sorted(declared, key=lambda parameter: _place(parameter[2]))

        def run(**values: Any) -> None:
            for _, field, hint in parameters:
                _check_size(_option_name(field, hint), values[field.name])
            function(*(group(**{f.name: values[f.name] for g, f, _ in parameters if g is group}) for group in groups))

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {field.name: hint for _, field, hint in parameters}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [_parameter(field, hint) for _, field, hint in parameters]
        )
        app.command(name, cls=_Command, epilog=epilog)(run)
        return function

    return attach


def option_values(options: object) -> dict[str, Any]:
    """Every value of a dataclass of options by its name on the command line, without dashes in front."""
    return {_option_name(field, hint): getattr(options, field.name) for field, hint in _list_fields(type(options))}


def option_defaults(group: type) -> dict[str, Any]:
    """Every default of a dataclass of options by the option's name, of those that have one."""
    fields = ((field, hint) for field, hint in _list_fields(group) if field.default is not dataclasses.MISSING)
    return {_option_name(field, hint): field.default for field, hint in fields}


def _list_fields(group: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    return ((field, field.type) for field in dataclasses.fields(group))


def _check_size(name: str, value: object) -> None:
    """Raises InvalidInput for a whole number that no library takes."""
    if isinstance(value, int) and not -_TOO_LARGE < value < _TOO_LARGE:
        raise InvalidInput(f"--{name} {value}: want a number below 2^63")


def _place(hint: Any) -> int:
    """Place of a parameter in --help."""
    (info,) = hint.__metadata__
    return PANELS.index(info.rich_help_panel) if isinstance(info, OptionInfo) else -1


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    if isinstance(default, Size):
        default = str(default)  # as it is typed, and shown
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _option_name(field: dataclasses.Field[Any], hint: Any) -> str:
    (info,) = hint.__metadata__
    named = (info.default, *(info.param_decls or ())) if isinstance(info, OptionInfo) else ()
    long = [name for name in named if isinstance(name, str) and name.startswith("--")]
    return long[0].partition("/")[0].lstrip("-") if long else field.name.replace("_", "-")


class _Command(TyperCommand):
    """A command whose --help stands at the end, with the other options on what is printed."""

    def get_help_option(self, ctx: Any) -> Any:
        help_option = super().get_help_option(ctx)
        if help_option is not None:
            help_option.rich_help_panel = MESSAGES
        return help_option
