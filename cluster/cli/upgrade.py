"""`mesaform upgrade masters|agents`: machines take the new image, one after another."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from mesaform.cli.context import open_context
from mesaform.cli.options import DEFAULT_FILE, ChangeOptions, with_options
from mesaform.common.progress import Report

Role = Literal["master", "agent"]
HELP = """Replace machines that boot an older image or older settings.

`mesaform up` leaves such machines as they are; it names them. A run that was interrupted continues
with the same command.
"""
MASTERS_HELP = """Replace the masters one at a time, each only while all others serve.

Before each master goes, every ZooKeeper follows or leads, the engine has a leader, and its registry
can be read. The new master attaches the data volume of the old one. Tasks go on.
"""
AGENTS_HELP = """Drain and replace the agents, one batch at a time.

Terraform's agents are drained and replaced, and the new ones must register before the next batch.
The launch templates take the image. Then the autoscaler drains its machines of older templates, one
batch at a time, and buys others where there is work.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeOptions(ChangeOptions):
    """Command line of `mesaform upgrade masters`."""

    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds to wait for each machine; 0 is 180 locally and 900 on aws.", min=0
        ),
    ] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentUpgradeOptions(UpgradeOptions):
    """Command line of `mesaform upgrade agents`."""

    batch: Annotated[
        int, typer.Option(help="How many agents are replaced at the same time.", min=1)
    ] = 1


def register(app: typer.Typer) -> None:
    upgrade = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode="rich")
    upgrade.command("masters", help=MASTERS_HELP)(with_options(UpgradeOptions, masters))
    upgrade.command("agents", help=AGENTS_HELP)(with_options(AgentUpgradeOptions, agents))
    app.add_typer(upgrade, name="upgrade")


def masters(options: UpgradeOptions) -> None:
    """Replace the masters in turn."""
    _upgrade("master", options, batch_size=1)


def agents(options: AgentUpgradeOptions) -> None:
    """Replace Terraform's agents, then those of the autoscaler."""
    _upgrade("agent", options, batch_size=options.batch)


def _upgrade(role: Role, options: UpgradeOptions, batch_size: int) -> None:
    from mesaform.cli import interrupt
    from mesaform.cli.change_run import ChangeRequest, ChangeRun
    from mesaform.cli.progress import reporter
    from mesaform.cli.turn import TurnOptions, cluster_turn
    from mesaform.cli.up import check_and_bake, print_outcome

    context = open_context(options.file)
    began = time.monotonic()
    verb = f"mesaform upgrade {role}s"
    request = ChangeRequest(
        verb,
        upgraded_roles=frozenset({role}),
        only_role=role,
        may_change_masters=role == "master",
        yes=options.yes,
        dry_run=options.dry_run,
        as_json=options.as_json,
        batch_size=batch_size,
        timeout_s=options.timeout,
    )

    def open_reporter() -> AbstractContextManager[Report]:
        return reporter(as_json=options.as_json)

    turn = TurnOptions(ends_other=options.end_other, waits=options.wait)
    try:
        with cluster_turn(context, verb, open_reporter, turn) as held:
            with open_reporter() as report:
                context = check_and_bake(context, report, yes=options.yes, dry_run=options.dry_run)
            outcome = ChangeRun(context, open_reporter, held, request).run()
    except KeyboardInterrupt:
        again = "" if options.file == DEFAULT_FILE else f" --file {options.file}"
        interrupt.end(f"interrupted. Carry on: {verb}{again}")
    print_outcome(context, outcome, time.monotonic() - began, as_json=options.as_json)
