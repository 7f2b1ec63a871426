"""`mesaform extend 4h`: a cluster with `ttl` in its file ends later."""

from __future__ import annotations

import json

import typer

from mesaform.cli.context import open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption


def register(app: typer.Typer) -> None:
    app.command("extend", help="End a cluster with ttl later: mesaform extend 4h.")(extend)


def extend(
    by: str = typer.Argument(help="By how much, such as 30m or 4h; at most 31 days."),
    file: FileOption = DEFAULT_FILE,
    json_: JsonOption = False,
) -> None:
    """Move the end. The machines read it within 15 s."""
    from mesaform.cli.override_client import seconds
    from mesaform.cli.wiring import wire
    from mesaform.provision import expiry

    context = open_context(file)
    moved = expiry.extend(context, wire(context).control, seconds(by))
    if json_:
        typer.echo(json.dumps({"until": moved.until}, indent=2))
    else:
        typer.echo(f"{expiry.describe_end(moved)}.")
