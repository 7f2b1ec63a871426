"""Planned changes are shown, and the question whether to make them is asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from mesaform.cli.context import Context
from mesaform.common.errors import BadInput, Exit
from mesaform.provision.preview import Preview

if TYPE_CHECKING:
    from mesaform.cli.change_run import ChangeRequest
    from mesaform.cli.change_view import ChangeView

Tasks = Mapping[str, Sequence[str]]
"""Names of running tasks by EC2 instance id."""


def confirm_changes(context: Context, preview: Preview, request: ChangeRequest) -> ChangeView:
    """Show what would change, and ask where `needs_confirmation` says so; returns what was shown.

    Raises:
        BadInput: standard input is no terminal.
        typer.Exit: the answer was no.

    """
    moves = any(item.role == "agent" for item in preview.disruptive)
    tasks = running_tasks(context) if moves else {}
    view = view_changes(context, preview, tasks)
    if request.dry_run:
        show_result(view, as_json=request.as_json)
        return view
    _ask(context, view, request)
    return view


def _ask(context: Context, view: ChangeView, request: ChangeRequest) -> None:
    preview, target = view.preview, context.spec.target
    asks = not request.yes and needs_confirmation(preview, view.tasks, target)
    if asks and not sys.stdin.isatty():
        raise BadInput(
            "the deployment must be confirmed:\n" + "\n".join(view.lines()),
            where=context.spec.name,
            fix=f"nothing was changed; to go on without a question: {request.verb} --yes",
        )
    if not preview.is_empty or preview.outdated:
        typer.echo("\n".join(view.lines()), err=True)
    if asks and not typer.confirm(f"Make these changes to {context.spec.name}?", err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(Exit.FAILED)


def show_result(view: ChangeView, *, as_json: bool) -> None:
    """Print the changes as the result of a dry run."""
    if as_json:
        typer.echo(json.dumps({"changes": view.as_json()}, indent=2))
    else:
        typer.echo("\n".join(view.lines()))


def needs_confirmation(preview: Preview, tasks: Tasks | None, target: str) -> bool:
    """Whether a person must agree.

    On aws every change is asked about. On the local cloud, which costs nothing, only those that
    take a master out of service, or an agent that runs tasks or may run some.

    Args:
        preview: what would change.
        tasks: running tasks; None if no master answers.
        target: the cluster's target.

    """
    if preview.unplanned:
        return True
    if target == "aws" and not preview.is_empty:
        return True
    return any(
        change.role != "agent" or tasks is None or bool(tasks.get(change.instance_id))
        for change in preview.disruptive
    )


def view_changes(context: Context, preview: Preview, tasks: Tasks | None) -> ChangeView:
    """The changes with what they cost. Asks EC2 for the cluster's machines."""
    from mesaform.cli.change_costs import cost_change
    from mesaform.cli.change_view import ChangeView
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.deployment import read_deployment

    spec = context.spec
    deployment = read_deployment(context.cluster_dir)
    account = f"account {deployment.account_id}, " if deployment else ""
    wiring = Wiring(context)
    costs = cost_change(spec, wiring.fleet.machines(spec.name), preview.changes, wiring.prices)
    return ChangeView(
        f"{spec.name} ({account}{spec.target}, {spec.region})",
        preview,
        tasks,
        costs,
    )


def running_tasks(context: Context) -> dict[str, list[str]] | None:
    """Names of running tasks by EC2 instance id; None if no leading master answers."""
    import asyncio

    return asyncio.run(_running_tasks(context))


async def _running_tasks(context: Context) -> dict[str, list[str]] | None:
    import asyncio

    from mesaform.cli.wiring import Wiring
    from mesaform.common.errors import MesaformError
    from mesaform.common.json_types import as_list, as_object
    from mesaform.provision.agent_changes import read_registered
    from mesaform.teardown.survey import ENGINE_S, agent_of_task

    wiring = Wiring(context)
    async with wiring.open_session() as session:
        try:
            operator = wiring.operator(session)
            async with asyncio.timeout(ENGINE_S):
                registered = read_registered(await operator.get_agents())
                running = as_list((await operator.get_tasks()).get("tasks"))
        except (MesaformError, TimeoutError):
            return None
    instance_ids = {agent.agent_id: instance_id for instance_id, agent in registered.items()}
    names: dict[str, list[str]] = {}
    for task in map(as_object, running):
        instance_id = instance_ids.get(agent_of_task(task), "")
        task_id = str(as_object(task.get("task_id")).get("value"))
        names.setdefault(instance_id, []).append(task_id)
    return names
