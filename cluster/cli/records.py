"""`mesaform records`: stored records that could not be read and were set aside.

Depends on `record_stores`; rich is imported only when a table is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, YesOption

if TYPE_CHECKING:
    from mesaform.cli.context import Context
    from mesaform.cli.record_stores import FileRecords, RecordStore
    from mesaform.common.set_aside import SetAside

HELP = """List, show, restore and remove stored records that were set aside.

A program that cannot read a record (damaged, too large, or written by a newer version) moves it
aside and goes on without it: an app's tasks run on and nothing is started for it, a launch is not
repeated, a freeze stays in force. Nothing is deleted unless you remove it here.

[bold]mesaform records list[/bold] names each record, why it could not be read and where it was.
[bold]mesaform records show apps/%2Fweb[/bold] prints it. After an upgrade or a repair
[bold]mesaform records restore apps/%2Fweb[/bold] puts it back; a record that still cannot be read
is set aside again. Each kind's recovery: docs/operations.md.
"""

RecordArgument = Annotated[
    str, typer.Argument(help="The record's id, as `mesaform records list` prints it.")
]
records = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(records, name="records")


@records.command("list")
def list_(file: FileOption = DEFAULT_FILE, json_: JsonOption = False) -> None:
    """List the records that were set aside."""
    import msgspec

    stores, problems = _stores(file)
    entries = [entry for store in stores for entry in store.entries()]
    if json_:
        document = msgspec.to_builtins(
            {
                "records": [{"id": entry.id, **msgspec.to_builtins(entry)} for entry in entries],
                "unreachable": problems,
            }
        )
        typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    _print(entries)
    for problem in problems:
        typer.echo(f"not listed: {problem}", err=True)


@records.command("show")
def show(record: RecordArgument, file: FileOption = DEFAULT_FILE) -> None:
    """Print a record's bytes."""
    import sys

    from mesaform.cli.record_stores import find

    store, entry = find(_stores(file)[0], record)
    sys.stdout.buffer.write(store.content(entry))
    sys.stdout.buffer.flush()


@records.command("restore")
def restore(
    record: RecordArgument,
    file: FileOption = DEFAULT_FILE,
    replace: bool = typer.Option(False, "--replace", help="Also over a new record of this name."),
) -> None:
    """Put a record back where it was."""
    from mesaform.cli.record_stores import FileRecords, find

    store, entry = find(_stores(file)[0], record)
    if isinstance(store, FileRecords):
        _restore_file(file, store, entry, replace=replace)
    else:
        store.restore(entry, replace=replace)
    typer.echo(f"restored: {entry.place}")


@records.command("remove")
def remove(
    record: RecordArgument,
    file: FileOption = DEFAULT_FILE,
    yes: YesOption = False,
) -> None:
    """Delete a record for good. The tasks of an app are then killed, as if it were deleted."""
    from mesaform.cli.record_stores import find

    store, entry = find(_stores(file)[0], record)
    if not yes:
        typer.confirm(f"Delete {entry.id} ({entry.size_bytes} bytes, {entry.problem})?", abort=True)
    store.remove(entry)
    typer.echo(f"removed: {entry.id}")


def _restore_file(file: str, store: FileRecords, entry: SetAside, *, replace: bool) -> None:
    """Put a file back while no verb and no Terraform works on the cluster.

    A state of a cluster on aws is stored in the bucket as well.

    Raises:
        Occupied: a verb or a Terraform is at work.

    """
    from mesaform.cli.context import open_context
    from mesaform.provision.lock import hold_cluster
    from mesaform.provision.shared_lock import hold_shared
    from mesaform.provision.state_folders import stack_of_state

    verb, context = "mesaform records restore", open_context(file)
    with hold_cluster(context.cluster_dir, verb), hold_shared(context, verb) as shared:
        store.restore(entry, replace=replace)
        stack = stack_of_state(context.cluster_dir, entry.place)
        if shared is not None and stack:
            shared.push_state(stack)


def _stores(file: str) -> tuple[list[RecordStore], list[str]]:
    """The stores that can be reached, and why others cannot."""
    from mesaform.cli.context import open_context
    from mesaform.cli.record_stores import FileRecords
    from mesaform.common.errors import MesaformError

    context = open_context(file)
    stores: list[RecordStore] = [FileRecords(context.state_dir)]
    try:
        stores += _cloud_stores(context)
    except MesaformError as error:
        return stores, [f"ZooKeeper and S3: {error}".partition("\n")[0]]
    return stores, []


def _cloud_stores(context: Context) -> list[RecordStore]:
    from mesaform.cli.record_stores import ClusterRecords, ObjectRecords
    from mesaform.cli.wiring import wire

    wiring = wire(context)
    return [ClusterRecords(wiring.control), ObjectRecords(wiring.set_aside)]


def _print(entries: Sequence[SetAside]) -> None:
    from datetime import UTC, datetime

    if not entries:
        typer.echo("No record is set aside.")
        return
    for entry in entries:
        when = f"{datetime.fromtimestamp(entry.at, UTC):%Y-%m-%d %H:%M:%S UTC}"
        typer.echo(f"{entry.id}  {entry.problem}, {entry.size_bytes} bytes, {when}")
        typer.echo(f"    was {entry.place}")
        typer.echo(f"    {entry.detail}")
    typer.echo("Show, restore or remove one: mesaform records show ID")
