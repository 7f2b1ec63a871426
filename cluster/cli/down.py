"""`mesaform down`: plan, question, removal, proof and receipt. It may be repeated at any time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import (
    DEFAULT_FILE,
    EndOtherOption,
    FileOption,
    JsonOption,
    WaitOption,
    with_options,
)
from mesaform.common.errors import BadInput, Exit, NotOwned
from mesaform.common.progress import Report
from mesaform.provision.lock import HeldLock
from mesaform.teardown.execute import Outcome
from mesaform.teardown.plan import Plan, TeardownRequest
from mesaform.teardown.receipt import Receipt
from mesaform.teardown.survey import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class DownOptions:
    """Command line of `mesaform down`."""

    file: FileOption = DEFAULT_FILE
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            "-y",
            help="Do not ask. On aws, type the cluster's name or give it with --confirm as well.",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan and end. The default on aws without --yes."),
    ] = False
    agents_only: Annotated[
        bool,
        typer.Option("--agents-only", help="Remove only the agents; masters and network stay."),
    ] = False
    images: Annotated[
        bool,
        typer.Option(
            "--images",
            help="Remove baked images and their snapshots too; they serve all clusters of the"
            " account.",
        ),
    ] = False
    keep_local: Annotated[
        bool, typer.Option("--keep-local", help="Leave the local cloud running.")
    ] = False
    confirm: Annotated[
        str, typer.Option("--confirm", help="The cluster's name, instead of typing it.")
    ] = ""
    deployment: Annotated[
        str,
        typer.Option(
            help="The deployment's id (the tag mesaform:deployment), if the folder that created it"
            " is lost; none for resources without an id."
        ),
    ] = ""
    end_other: EndOtherOption = False
    wait: WaitOption = False
    as_json: JsonOption = False

    @property
    def request(self) -> TeardownRequest:
        """What the plan removes."""
        return TeardownRequest(agents_only=self.agents_only, images=self.images)

    def is_dry_run(self, target: str) -> bool:
        """Whether the verb only prints the plan: on aws also without `--yes`."""
        return self.dry_run or (target == "aws" and not self.yes)


def register(app: typer.Typer) -> None:
    app.command(help="Take the cluster down, prove that nothing is left, print the receipt.")(
        with_options(DownOptions, down)
    )


def down(options: DownOptions) -> None:
    """Take the cluster down."""
    from mesaform.cli import interrupt

    context = open_context(options.file)
    _require_consistent(context, options)
    options = replace(options, dry_run=options.is_dry_run(context.spec.target))
    if not _is_anything_here(context):
        text = f"There is nothing of {context.spec.name} here: no local cloud was ever started."
        typer.echo(
            json.dumps({"cluster": context.spec.name, "left": []}) if options.as_json else text
        )
        return
    try:
        is_clean = _take_down(context, options)
    except KeyboardInterrupt:
        again = "" if options.file == DEFAULT_FILE else f" --file {options.file}"
        interrupt.end(f"interrupted; what is removed stays removed. Continue: mesaform down{again}")
    if not is_clean:
        raise typer.Exit(Exit.FAILED)


def _require_consistent(context: Context, options: DownOptions) -> None:
    """Check options against each other and against the cluster file.

    Raises:
        BadInput: they contradict each other.

    """
    if options.agents_only and options.images:
        raise BadInput(
            "--agents-only and --images together",
            where="mesaform down",
            fix="masters need their image: take the cluster down first",
        )
    if options.confirm and options.confirm != context.spec.name:
        raise BadInput(
            f"--confirm {options.confirm} is not this cluster's name",
            where=str(context.file),
            fix=f"its name is {context.spec.name}",
        )


def _take_down(context: Context, options: DownOptions) -> bool:
    """Survey, plan, ask, remove; all under the locks of the cluster. Whether nothing is left.

    A dry run changes nothing and does not wait for the locks.
    """
    from mesaform.cli.bake import remove_leftovers_of_bakes
    from mesaform.cli.progress import reporter
    from mesaform.cli.turn import TurnOptions, cluster_turn

    def open_reporter() -> AbstractContextManager[Report]:
        return reporter(as_json=options.as_json)

    turn = TurnOptions(ends_other=options.end_other, waits=options.wait)
    with ExitStack() as locks:
        held: HeldLock | None = None
        if not options.dry_run:
            held = locks.enter_context(cluster_turn(context, "mesaform down", open_reporter, turn))
        _enter(context)
        with open_reporter() as report:
            surveyed = _survey(context, options, report)
        if held is not None:
            remove_leftovers_of_bakes(context)
        return _carry_out(context, options, surveyed, held)


def _is_anything_here(context: Context) -> bool:
    """Whether there is a cloud to look at: False when the target is local and never had one.

    Raises:
        NotOwned: there is no local cloud although Terraform's state lists resources.

    """
    if context.spec.target != "local":
        return True
    from mesaform.localcloud import daemon

    if daemon.find(context.local_dir) or any((context.local_dir / "account").glob("*")):
        return True
    _require_no_state(context)
    return False


def _enter(context: Context) -> None:
    """Reach the cloud. A local cloud that was stopped is started to be emptied."""
    if context.spec.target == "local":
        from mesaform.localcloud import daemon

        daemon.start(context.local_dir, kind=context.spec.local.machines)
    context.enter_cloud()


def _require_no_state(context: Context) -> None:
    from mesaform.provision.terraform_state import stack_ids

    if stacks := stack_ids(context.cluster_dir):
        raise NotOwned(
            f"Terraform's state lists resources ({', '.join(stacks)}), but there is no local cloud"
            f" in {context.local_dir}: this proves nothing",
            where=str(context.cluster_dir),
            fix="nothing was removed. If the local cloud was deleted by hand, delete the *.tfstate"
            " files as well",
        )


def _survey(context: Context, options: DownOptions, report: Report) -> Survey:
    """Look once at the cloud, the state and the engine."""
    import asyncio

    from mesaform.cli.teardown_run import survey_cluster
    from mesaform.common.progress import stage

    with stage(report, "Survey the cluster") as under_way:
        surveyed = asyncio.run(survey_cluster(context, options.deployment))
        inventory = surveyed.inventory
        under_way.outcome = (
            f"{len(inventory.machines)} machines, {len(inventory.resources)} other resources,"
            f" engine: {surveyed.engine_text}"
        )
    return surveyed


def _carry_out(
    context: Context, options: DownOptions, surveyed: Survey, held: HeldLock | None
) -> bool:
    """Plan, ask, run. Whether nothing is left that the plan removes."""
    from mesaform.cli import interrupt
    from mesaform.cli.progress import reporter
    from mesaform.cli.teardown_run import run_teardown
    from mesaform.teardown.account import baked_images
    from mesaform.teardown.plan import plan

    planned = plan(surveyed.inventory, options.request)
    if options.dry_run or held is None:
        _show_plan(planned, options, surveyed.inventory.is_empty)
        return True
    if not options.as_json:
        _show_plan(planned, options, surveyed.inventory.is_empty)
    if not surveyed.inventory.is_empty:
        _confirm(context, options)
    images = baked_images(context.spec.region, context.spec.name, to_remove=options.request.images)
    with reporter(as_json=options.as_json) as report:
        outcome, receipt, path = interrupt.run(
            lambda: run_teardown(context, surveyed, planned, report, images, held),
            stopping="stopping in order; this may take some seconds",
        )
    _finish(context, options, outcome, receipt, str(path))
    return outcome.swept.is_clean


def _confirm(context: Context, options: DownOptions) -> None:
    """Ask on the terminal: on aws for the cluster's name, on the local target for a yes.

    Raises:
        BadInput: standard input is no terminal.
        typer.Exit: the answer was no.

    """
    from mesaform.provision.deployment import identify_caller

    name, is_aws = context.spec.name, context.spec.target == "aws"
    if options.confirm if is_aws else options.yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(
            "standard input is no terminal, so nobody can confirm; nothing was removed",
            where="mesaform down",
            fix=f"add --confirm {name}" if is_aws else "add --yes",
        )
    caller = identify_caller(context.spec.region)
    account = f"the AWS account {caller.account_id} ({context.spec.region}) as {caller.arn}"
    if not _is_confirmed(name, account, is_aws=is_aws):
        typer.echo("Nothing was removed.", err=True)
        raise typer.Exit(Exit.FAILED)


def _is_confirmed(name: str, account: str, *, is_aws: bool) -> bool:
    if is_aws:
        question = f"Type the cluster's name ({name}) to take it down in {account}"
        typed = typer.prompt(question, err=True)
        return bool(typed == name)
    return typer.confirm(f"Take {name} down?", err=True)


def _show_plan(planned: Plan, options: DownOptions, empty: bool) -> None:
    from mesaform.cli.receipts import plan_parts
    from mesaform.cli.tables import console

    if options.as_json:
        typer.echo(json.dumps({"dry_run": True, "plan": asdict(planned)}, indent=2))
        return
    out = console()
    for part in plan_parts(planned, empty=empty):
        out.print(part)
    if options.dry_run:
        out.print(
            "This was a dry run: nothing was removed. Do it: [bold]mesaform down --yes[/bold]"
        )


def _finish(
    context: Context, options: DownOptions, outcome: Outcome, receipt: Receipt, path: str
) -> None:
    from mesaform.cli.receipts import receipt_parts
    from mesaform.cli.tables import console
    from mesaform.cli.teardown_run import stop_local_cloud

    stopped = (
        stop_local_cloud(context)
        if outcome.swept.is_clean and not options.keep_local and not options.request.agents_only
        else ""
    )
    if options.as_json:
        document: Mapping[str, object] = {
            "receipt": receipt.as_record(),
            "troubles": outcome.troubles,
            "file": path,
            "local_cloud": stopped,
        }
        typer.echo(json.dumps(document, indent=2))
        return
    out = console()
    for part in receipt_parts(receipt, outcome.troubles):
        out.print(part)
    out.print(f"[dim]{path}[/dim]", soft_wrap=True)
    if stopped:
        out.print(stopped)
