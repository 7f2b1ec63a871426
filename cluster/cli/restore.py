"""`mesaform restore`: write a snapshot of the state into an empty ensemble, or list snapshots."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, YesOption, with_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mesaform.cli.snapshot_client import Listed

HELP = """Restore apps, tasks and deployments from an hourly snapshot, into an empty ensemble.

The leader of services writes a snapshot to the account's bucket each hour. If ZooKeeper has lost
its data, [bold]mesaform restore[/bold] writes the newest one back, and with
[bold]--snapshot 2026-11-27[/bold] the last one of that day. The snapshot is validated whole before
anything is written. Where there is a state, nothing is written: it is named, and the exit code
is 4.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Command line of `mesaform restore`."""

    file: FileOption = DEFAULT_FILE
    snapshot: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            help="The start of a snapshot's name: a day, an hour, or the whole name.",
        ),
    ] = ""
    list_: Annotated[bool, typer.Option("--list", help="List the snapshots, and end.")] = False
    any_deployment: Annotated[
        bool,
        typer.Option(
            "--any-deployment", help="Also take a snapshot of an earlier cluster of this name."
        ),
    ] = False
    yes: YesOption = False
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(with_options(RestoreOptions, restore))


def restore(options: RestoreOptions) -> None:
    """List, or choose, validate, ask and restore."""
    from mesaform.cli.snapshot_client import SnapshotClient
    from mesaform.cli.wiring import wire

    context = open_context(options.file)
    wiring = wire(context)
    client = SnapshotClient(
        wiring.snapshots, wiring.control, context.spec.name, deployment_id(context)
    )
    if options.list_:
        _print_list(client.list(), as_json=options.as_json)
        return
    chosen = client.choose(options.snapshot, any_deployment=options.any_deployment)
    counts = client.validate(chosen, any_deployment=options.any_deployment)
    _require_empty(context)
    age = describe_age(time.time() - chosen.at)
    if not options.as_json:
        typer.echo(f"{chosen}, {age} old: {describe_counts(counts)}")
    if not options.yes:
        typer.confirm("Restore it?", abort=True, err=True)
    restored = client.restore(chosen, any_deployment=options.any_deployment)
    if options.as_json:
        typer.echo(json.dumps({"snapshot": str(chosen), "restored": restored}, indent=2))
        return
    typer.echo(f"restored: {describe_counts(restored)}")


def deployment_id(context: Context) -> str:
    """The id of this folder's deployment; empty without one."""
    from mesaform.provision.deployment import read_deployment
    from mesaform.provision.state_folders import cluster_dir

    deployment = read_deployment(cluster_dir(context.file, context.spec.name))
    return deployment.deployment_id if deployment else ""


def _require_empty(context: Context) -> None:
    """Check that services know nothing.

    Raises:
        Busy: there is a state; the message names it.
        ClusterUnreachable: services do not answer.

    """
    import asyncio

    from mesaform.cli.snapshot_client import read_present_state
    from mesaform.cli.status import look
    from mesaform.cli.wiring import Wiring
    from mesaform.common.errors import Busy, ClusterUnreachable

    async def read() -> dict[str, int] | None:
        return await read_present_state(await look(context), Wiring(context).open_session)

    present = asyncio.run(read())
    if present is None:
        raise ClusterUnreachable(
            "services do not answer", where=context.spec.name, fix="run mesaform up, then again"
        )
    if present:
        raise Busy(
            f"the ensemble is not empty: {describe_counts(present)}",
            where=context.spec.name,
            fix="nothing was written; a snapshot is restored only where there is no state",
        )


def describe_counts(counts: dict[str, int]) -> str:
    """How many records of each kind, for people."""
    names = {
        "apps": "apps",
        "instances": "tasks",
        "deployments": "deployments",
        "framework_id": "framework id",
        "autoscaler": "state of the autoscaler",
    }
    parts = [f"{counts[kind]} {name}" for kind, name in names.items() if counts.get(kind)]
    return ", ".join(parts) or "nothing"


def describe_age(seconds: float) -> str:
    """An age in the largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _print_list(listed: Sequence[Listed], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": str(item.name),
                "at": item.name.at,
                "deployment": item.name.deployment,
                "is_own": item.is_own,
            }
            for item in listed
        ]
        typer.echo(json.dumps({"snapshots": rows}, indent=2))
        return
    if not listed:
        typer.echo("There is no snapshot. The first one follows an hour after the first app.")
        return
    for item in listed:
        age = describe_age(time.time() - item.name.at)
        origin = "" if item.is_own else "   of another deployment: --any-deployment"
        typer.echo(f"{item.name}   {age} old{origin}")
