"""Command-line options as data: shared options, and commands that take one object of options.

Typer declares an option per parameter of a function. `with_options` lets a command take a frozen
dataclass instead: each field is a parameter, its `Annotated` type declares the option. Depends on
typer.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DEFAULT_FILE = "cluster.yaml"
DEFAULT_DURATION = "30m"

FileOption = Annotated[
    str,
    typer.Option("--file", "-f", envvar="MESAFORM_CLUSTER_FILE", help="The cluster's description."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines instead of tables for people.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show what would change and what it costs, and end without changing it."
    ),
]
EndOtherOption = Annotated[
    bool,
    typer.Option(
        "--end-other",
        help="End another run, or the Terraform of one, that is at work on this cluster.",
    ),
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for another run at work instead of ending with 4.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ForOption = Annotated[str, typer.Option("--for", help="For how long: 90s, 30m, 2h, 1d.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why: shown with the override.")]

OptionsT = TypeVar("OptionsT", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOptions:
    """Options of the verbs that plan changes, ask, and change a cluster."""

    file: FileOption = DEFAULT_FILE
    yes: YesOption = False
    dry_run: DryRunOption = False
    end_other: EndOtherOption = False
    wait: WaitOption = False
    as_json: JsonOption = False


def with_options(
    options: type[OptionsT], command: Callable[[OptionsT], None]
) -> Callable[..., None]:
    """Return a function for typer whose parameters are the fields of `options`.

    It builds the object from its arguments and calls `command`. A field without a default is a
    required option or argument; arguments keep the order of the fields.
    """

    @wraps(command)
    def run(**arguments: object) -> None:
        command(options(**arguments))

    signature = inspect.Signature(list(_parameters(options)))
    run.__signature__ = signature  # type: ignore[attr-defined] # typer reads it
    return run


def _parameters(options: type[DataclassInstance]) -> Iterator[inspect.Parameter]:
    types = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=types[field.name],
        )


def _default(field: dataclasses.Field[Any]) -> object:
    """Return the default of a field; `Parameter.empty` when it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty
