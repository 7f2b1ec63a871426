"""`mesaform status`: state, tasks, demand and present cost of a cluster.

Depends on `mesaform.status`; rich is imported only when a table is printed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.errors import Exit, MesaformError, MissingPrerequisite
from mesaform.status.view import Status, Unreachable

if TYPE_CHECKING:
    from mesaform.cli.wiring import Wiring
    from mesaform.common.set_aside import SetAside


def register(app: typer.Typer) -> None:
    app.command(help="Show leader, masters, agents, tasks, demand and dollars per hour.")(status)


def status(file: FileOption = DEFAULT_FILE, as_json: JsonOption = False) -> None:
    """Print the cluster's state; the exit code is 1 when no master leads."""
    import asyncio

    context = open_context(file)
    picture = asyncio.run(look(context))
    if as_json:
        from mesaform.cli.framework_lines import with_texts

        typer.echo(json.dumps(with_texts(picture.as_json()), indent=2))
    else:
        _print(picture, context)
    if picture.leader is None:
        raise typer.Exit(Exit.FAILED)


def _set_aside(wiring: Wiring, context: Context) -> list[SetAside]:
    """The records that were set aside in S3 and in files of this machine."""
    from mesaform.cli.record_stores import FileRecords

    return [*wiring.set_aside.all(), *FileRecords(context.state_dir).entries()]


def _print(picture: Status, context: Context) -> None:
    from rich.markup import escape

    from mesaform.cli.framework_lines import framework_lines
    from mesaform.cli.tables import console, show
    from mesaform.status.ready import describe_set_aside, describe_snapshot, describe_unattended

    out = console()
    if picture.is_nothing:
        out.print(_nothing(picture, context))
        return
    for part in show(picture, out.width):
        out.print(part)
    lacking = _missing_parts(picture, context)
    for what in lacking:
        out.print(f"[yellow]missing[/yellow]: {what}")
    verdicts = map(escape, framework_lines(picture.autoscaler.frameworks))
    for line in (*verdicts, *map(escape, describe_set_aside(picture))):
        out.print(line)
    if line := describe_snapshot(picture):
        out.print(line)
    if unattended := describe_unattended(picture, context.spec):
        out.print(unattended)
    if lacking:
        out.print("If this persists for a minute, run `mesaform up`.")


def _nothing(picture: Status, context: Context) -> str:
    """Why there is no cluster to show, and what to do."""
    name, where = f"[bold]{picture.cluster}[/bold]", f"({picture.target}, {picture.region})"
    if (
        picture.target == "local"
        and picture.unreachable
        and (context.local_dir / "account" / "account.json").exists()
    ):
        return (
            f"{name} {where}: the local cloud is stopped."
            " `mesaform up` restarts its machines; `mesaform down` deletes them."
        )
    if picture.ends_at:
        return (
            f"{name} {where} has no machines: its ttl ended, or it was taken down."
            " `mesaform up` raises it; `mesaform down` removes what remains."
        )
    return f"{name} {where} does not exist. Create it with `mesaform up`."


def _missing_parts(picture: Status, context: Context) -> list[str]:
    """The parts that an answering cluster has and this one lacks."""
    from mesaform.status.ready import missing

    if not picture.masters or "EC2" in {silent.source for silent in picture.unreachable}:
        return []
    masters = picture.masters
    up = [master.address for master in masters if master.state in {"leading", "standby"}]
    parts = missing(picture, context.spec, up, [master.address for master in masters])
    return [part.what for part in parts]


async def look(context: Context) -> Status:
    """Read every source and join the answers; unreachable sources are named in the result."""
    import asyncio

    from mesaform.cli.wiring import wire
    from mesaform.status.gather import Gatherer
    from mesaform.status.view import Sources, join

    spec = context.spec
    try:
        wiring = wire(context)
        fleet, control = wiring.fleet, wiring.control
    except MesaformError as error:
        if isinstance(error, MissingPrerequisite) and spec.target == "local":
            silent = Unreachable("local cloud", error.what)
            return join(spec, Sources(at=0, machines=(), unreachable=(silent,)))
        raise
    async with wiring.open_session() as session:
        gatherer = Gatherer(
            spec,
            session,
            fleet,
            control,
            outputs=wiring.outputs_reader,
            set_aside=lambda: _set_aside(wiring, context),
            snapshots=wiring.snapshots.names,
        )
        sources, prices = await asyncio.gather(
            gatherer.gather(), asyncio.to_thread(lambda: wiring.prices)
        )
    return join(spec, sources, prices)
