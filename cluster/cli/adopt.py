"""`mesaform adopt`: rebuild a lost Terraform state from tagged resources of the account."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import (
    DEFAULT_FILE,
    EndOtherOption,
    FileOption,
    JsonOption,
    WaitOption,
    YesOption,
    with_options,
)
from mesaform.common.errors import BadInput, Exit
from mesaform.common.progress import Report

if TYPE_CHECKING:
    from mesaform.provision.adoption import Findings, Remainder
    from mesaform.provision.cluster_context import ClusterContext
    from mesaform.provision.lock import HeldLock

HELP = """Rebuild a lost or damaged Terraform state from what the account holds.

Searches the deployment's resources by their tags, shows them, and imports those that the state does
not list. No machine is created, replaced or removed. May be repeated; continues where it stopped.
"""
STOPPING = "stopping Terraform in order; this may take some seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptOptions:
    """Command line of `mesaform adopt`."""

    file: FileOption = DEFAULT_FILE
    yes: YesOption = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be adopted, and end.")
    ] = False
    deployment: Annotated[
        str,
        typer.Option(
            help="The deployment's id (the tag mesaform:deployment), if deployment.json is lost."
        ),
    ] = ""
    end_other: EndOtherOption = False
    wait: WaitOption = False
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(with_options(AdoptOptions, adopt))


def adopt(options: AdoptOptions) -> None:
    """Search, show, ask, import, compare, ask, settle. Nothing is asked with `--yes`."""
    from mesaform.cli import interrupt
    from mesaform.cli.progress import reporter
    from mesaform.cli.turn import TurnOptions, cluster_turn

    context = open_context(options.file)

    def open_reporter() -> AbstractContextManager[Report]:
        return reporter(as_json=options.as_json)

    if options.dry_run:
        _print_result(_rehearse(context, options), (), options)
        return
    turn = TurnOptions(ends_other=options.end_other, waits=options.wait)
    try:
        with cluster_turn(context, "mesaform adopt", open_reporter, turn) as held:
            context.enter_cloud()
            findings, remaining = _adopt(context, options, held)
    except KeyboardInterrupt:
        interrupt.end("interrupted; what is adopted stays adopted. Continue: mesaform adopt")
    _print_result(findings, remaining, options)


def _rehearse(context: Context, options: AdoptOptions) -> Findings:
    """Search as an adoption does, in a copy of the cluster's folder, which is removed.

    Nothing is written beside the cluster file or in the account, and no lock is taken.
    """
    from mesaform.provision.lock import hold_terraform
    from mesaform.provision.rehearsal import rehearsal
    from mesaform.provision.shared_state import open_shared_state

    context.enter_cloud()
    with rehearsal(context) as copy, hold_terraform(copy.cluster_dir, "mesaform adopt") as held:
        if shared := open_shared_state(copy):
            shared.pull()
        return _find(copy, options, held)


def _find(place: ClusterContext, options: AdoptOptions, held: HeldLock) -> Findings:
    """Search the account, and show what was found."""
    from mesaform import provision
    from mesaform.cli import interrupt
    from mesaform.cli.progress import reporter

    with reporter(as_json=options.as_json) as report:
        if options.deployment:
            provision.restore_deployment(place, options.deployment)
        findings = interrupt.run(
            lambda: provision.plan_adoption(place, report, held), stopping=STOPPING
        )
    if not options.as_json:
        _show(findings)
    return findings


def _adopt(
    context: Context, options: AdoptOptions, held: HeldLock
) -> tuple[Findings, tuple[Remainder, ...]]:
    from mesaform import provision
    from mesaform.cli import interrupt
    from mesaform.cli.progress import reporter

    findings = _find(context, options, held)
    if findings.imports:
        _confirm(context, findings, options)

    def run(to_do: Findings, *, may_update: bool) -> tuple[Remainder, ...]:
        with reporter(as_json=options.as_json) as report:
            return interrupt.run(
                lambda: provision.adopt(context, to_do, report, held, may_update=may_update),
                stopping=STOPPING,
            )

    remaining = run(findings, may_update=options.yes)
    if remaining and not options.yes and _may_settle(remaining):
        remaining = run(replace(findings, imports=()), may_update=True)
    return findings, remaining


def _may_settle(remaining: tuple[Remainder, ...]) -> bool:
    """Ask whether settings that exist only in the configuration are applied; no without a person.

    No machine and no launch template changes in any case.
    """
    if not sys.stdin.isatty():
        return False
    for item in remaining:
        typer.echo(f"  {item.stack}: {', '.join(item.changes)}", err=True)
    return typer.confirm("Apply updates of stacks that differ in nothing else?", err=True)


def _show(findings: Findings) -> None:
    from mesaform.cli.tables import console, sheet

    out = console()
    table = sheet("stack", "resource", "found", wraps=["found"])
    for entry in findings.imports:
        table.add_row(entry.declared.stack, entry.declared.address, entry.import_id)
    if findings.imports:
        out.print(table)
    out.print(
        f"{len(findings.imports)} resources to adopt, {findings.known} known already,"
        f" {len(findings.absent)} absent from the account."
    )
    for declared in findings.absent:
        out.print(f"  absent: {declared.stack}: {declared.address}")


def _confirm(context: Context, findings: Findings, options: AdoptOptions) -> None:
    """Ask on the terminal.

    Raises:
        BadInput: standard input is no terminal.
        typer.Exit: the answer was no.

    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(
            "standard input is no terminal, so nobody can confirm; nothing was changed",
            where="mesaform adopt",
            fix="add --yes",
        )
    question = f"Adopt {len(findings.imports)} resources of {context.spec.name}?"
    if not typer.confirm(question, err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(Exit.FAILED)


def _print_result(
    findings: Findings, remaining: tuple[Remainder, ...], options: AdoptOptions
) -> None:
    if options.as_json:
        document = {
            "adopted": [
                {
                    "stack": entry.declared.stack,
                    "resource": entry.declared.address,
                    "id": entry.import_id,
                }
                for entry in findings.imports
            ],
            "known": findings.known,
            "absent": [f"{item.stack}: {item.address}" for item in findings.absent],
            "differences": {item.stack: list(item.changes) for item in remaining},
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for item in remaining:
        typer.echo(f"mesaform up would change {item.stack}: {', '.join(item.changes)}")
    if not remaining and not options.dry_run:
        typer.echo("Terraform's plan is empty: the state is complete.")
