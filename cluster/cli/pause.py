"""`mesaform pause`: the autoscaler buys and removes nothing for a while. It goes on by itself."""

from __future__ import annotations

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION, open_context
from mesaform.cli.override_client import (
    FOR_OPTION,
    REASON_OPTION,
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
    file: str = FILE_OPTION,
    for_: str = FOR_OPTION,
    reason: str = REASON_OPTION,
    json_: bool = JSON_OPTION,
) -> None:
    """Pause; a pause in force is replaced."""
    override = new_override("pause", for_, reason)
    print_override(
        open_client(open_context(file)).give(override, lambda other: other.kind == "pause"), json_
    )
