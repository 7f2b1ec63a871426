"""`mesaform resume`: ends a pause, or with `--all` every order in force."""

from __future__ import annotations

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION, open_context
from mesaform.cli.override_client import open_client


def register(app: typer.Typer) -> None:
    app.command(
        "resume", help="End a pause; with --all every order in force, with --order one of them."
    )(resume)


def resume(
    file: str = FILE_OPTION,
    all_: bool = typer.Option(False, "--all", help="Bounds, hints and drains as well."),
    order: str = typer.Option(
        "", "--order", help="Only the order with this id (see `mesaform plan --json`)."
    ),
    json_: bool = JSON_OPTION,
) -> None:
    """Withdraw orders."""
    import msgspec

    from mesaform.aws.overrides import describe

    def wanted(one: object) -> bool:
        return all_ or (
            getattr(one, "id", "") == order if order else getattr(one, "kind", "") == "pause"
        )

    gone = open_client(open_context(file)).withdraw(wanted)
    if json_:
        typer.echo(msgspec.json.format(msgspec.json.encode({"withdrawn": gone}), indent=2).decode())
        return
    for one in gone:
        typer.echo(f"ended: {describe(one)}")
    if not gone:
        typer.echo("Nothing was paused." if not (all_ or order) else "No such order is in force.")
