"""`mesaform pause`: the autoscaler buys and removes nothing for a while. It goes on by itself."""

from __future__ import annotations

import typer

from mesaform.cli.context import open_context
from mesaform.cli.options import (
    DEFAULT_DURATION,
    DEFAULT_FILE,
    FileOption,
    ForOption,
    JsonOption,
    ReasonOption,
)
from mesaform.cli.override_client import (
    new_override,
    open_client,
    print_override,
)


def register(app: typer.Typer) -> None:
    app.command(
        "pause",
        help="Buy and remove nothing for a while; ends by itself, or with `mesaform resume`.",
    )(pause)


def pause(
    file: FileOption = DEFAULT_FILE,
    for_: ForOption = DEFAULT_DURATION,
    reason: ReasonOption = "",
    json_: JsonOption = False,
) -> None:
    """Pause; a pause in force is replaced."""
    override = new_override("pause", for_, reason)
    print_override(
        open_client(open_context(file)).give(override, lambda other: other.kind == "pause"), json_
    )
