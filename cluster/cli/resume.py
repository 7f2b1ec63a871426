"""`mesaform resume`: ends a pause, or with `--all` all overrides in force."""

from __future__ import annotations

import typer

from mesaform.cli.context import open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.cli.override_client import open_client


def register(app: typer.Typer) -> None:
    app.command(
        "resume",
        help="End a pause; with --all all overrides in force, with --override one of them.",
    )(resume)


def resume(
    file: FileOption = DEFAULT_FILE,
    all_: bool = typer.Option(False, "--all", help="Bounds, hints and drains as well."),
    override: str = typer.Option(
        "", "--override", help="Only the override with this id (see `mesaform plan --json`)."
    ),
    json_: JsonOption = False,
) -> None:
    """Withdraw overrides."""
    import msgspec

    from mesaform.aws.overrides import Override, describe

    def is_wanted(other: Override) -> bool:
        is_named = other.id == override if override else other.kind == "pause"
        return all_ or is_named

    withdrawn = open_client(open_context(file)).withdraw(is_wanted)
    if json_:
        typer.echo(
            msgspec.json.format(msgspec.json.encode({"withdrawn": withdrawn}), indent=2).decode()
        )
        return
    for other in withdrawn:
        typer.echo(f"ended: {describe(other)}")
    if not withdrawn:
        typer.echo(
            "No pause was in force." if not (all_ or override) else "No such override is in force."
        )
