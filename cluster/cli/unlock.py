"""`mesaform unlock`: show the locks of a cluster in the account's bucket, and release them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, with_options
from mesaform.common.errors import BadInput, Exit

if TYPE_CHECKING:
    from mesaform.provision.shared_lock import LockNote
    from mesaform.provision.shared_state import SharedState

HELP = """Show who holds the cluster's locks in the account's bucket, and release them.

A verb holds the lock `lock.json`, Terraform one for each state. A lock whose process ended on this
machine is replaced by the next verb. Release others only if their process is gone: two Terraforms
at the same time damage the state. The cluster's name is asked for. On the local target the locks
end with their processes, and there is nothing to release.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockOptions:
    """Command line of `mesaform unlock`."""

    file: FileOption = DEFAULT_FILE
    confirm: Annotated[
        str, typer.Option("--confirm", help="The cluster's name, instead of typing it.")
    ] = ""
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(with_options(UnlockOptions, unlock))


def unlock(options: UnlockOptions) -> None:
    """Show the locks, ask for the cluster's name, and release them."""
    from mesaform.provision.shared_lock import read_locks, release_locks
    from mesaform.provision.shared_state import open_shared_state

    context = open_context(options.file)
    if context.spec.target == "aws":
        context.enter_cloud()
    shared = open_shared_state(context)
    notes = read_locks(shared) if shared else ()
    _show(notes, shared, as_json=options.as_json)
    if shared is None or not notes or not _is_confirmed(context, options):
        return
    release_locks(shared, notes)
    typer.echo(f"Released {len(notes)} locks.", err=options.as_json)


def _show(notes: tuple[LockNote, ...], shared: SharedState | None, *, as_json: bool) -> None:
    if as_json:
        listed = [
            {"object": note.name, "holder": note.holder, "age_s": round(note.age_s)}
            for note in notes
        ]
        typer.echo(json.dumps({"locks": listed}, indent=2))
        return
    for note in notes:
        typer.echo(note.describe())
    if not notes:
        where = shared.objects.where() if shared else "the bucket (target: local has none)"
        typer.echo(f"No lock is held in {where}.")


def _is_confirmed(context: Context, options: UnlockOptions) -> bool:
    """Whether the cluster's name was given or typed.

    Raises:
        BadInput: another name was given.
        typer.Exit: another name was typed.

    """
    name = context.spec.name
    if options.confirm:
        if options.confirm != name:
            raise BadInput(
                f"--confirm {options.confirm} is not this cluster's name",
                where=str(context.file),
                fix=f"nothing was released; its name is {name}",
            )
        return True
    if not sys.stdin.isatty():
        typer.echo(f"Nothing was released; to release them: --confirm {name}", err=True)
        return False
    typed = typer.prompt(f"Type the cluster's name ({name}) to release these locks", err=True)
    if typed != name:
        typer.echo("Nothing was released.", err=True)
        raise typer.Exit(Exit.FAILED)
    return True
