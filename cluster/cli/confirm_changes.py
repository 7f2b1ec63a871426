"""Question of `mesaform up` before running machines are replaced, destroyed or stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import typer

from mesaform.cli.context import Context
from mesaform.common.errors import BadInput, Exit
from mesaform.provision.preview import MachineChange, Preview


def confirm_changes(context: Context, preview: Preview, *, yes: bool) -> None:
    """Show the machines that would be taken out of service, and ask.

    Nothing is asked if no master changes and the agents that change run no task, or with `yes`.

    Raises:
        BadInput: standard input is no terminal.
        typer.Exit: the answer was no.

    """
    tasks = count_tasks(context) if preview.changes and not yes else {}
    if yes or not needs_confirmation(preview, tasks):
        return
    lines = describe_changes(preview, tasks)
    if not sys.stdin.isatty():
        raise BadInput(
            "the deployment takes running machines out of service:\n" + "\n".join(lines),
            where=context.spec.name,
            fix="nothing was changed; to go on without a question: mesaform up --yes",
        )
    typer.echo("\n".join(lines), err=True)
    if not typer.confirm(f"Change these machines of {context.spec.name}?", err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(Exit.FAILED)


def needs_confirmation(preview: Preview, tasks: Mapping[str, int] | None) -> bool:
    """Whether a master changes, or an agent that runs tasks or may run some.

    Args:
        preview: what would change.
        tasks: running tasks by instance id; None if no master answers.

    """
    if preview.unplanned:
        return True
    return any(
        change.role != "agent" or tasks is None or tasks.get(change.instance_id, 0) > 0
        for change in preview.changes
    )


def describe_changes(preview: Preview, tasks: Mapping[str, int] | None) -> list[str]:
    """A line for each machine that changes, and one for each stack that cannot be planned yet."""
    lines = [f"  {_describe(change, tasks)}" for change in preview.changes]
    masters = sum(change.role == "master" for change in preview.changes)
    if masters > 1:
        lines.append(f"  {masters} masters change, one at a time: each only while all others serve")
    lines += [
        f"  the stack {stack} cannot be planned before others are deployed: its machines may be"
        " replaced"
        for stack in preview.unplanned
    ]
    return lines


def _describe(change: MachineChange, tasks: Mapping[str, int] | None) -> str:
    text = f"{change.action} {change.role or 'machine'} {change.name} ({change.instance_id})"
    if change.why:
        text += f" because of {', '.join(change.why)}"
    if change.role != "agent":
        return text
    if tasks is None:
        return f"{text}; no master answers, so its tasks are not known"
    count = tasks.get(change.instance_id, 0)
    return f"{text}; {count} task{'' if count == 1 else 's'} run there"


def count_tasks(context: Context) -> dict[str, int] | None:
    """Running tasks by EC2 instance id; None if no leading master answers."""
    import asyncio

    return asyncio.run(_count_tasks(context))


async def _count_tasks(context: Context) -> dict[str, int] | None:
    from mesaform.cli.wiring import Wiring
    from mesaform.teardown.survey import read_engine

    wiring = Wiring(context)
    async with wiring.open_session() as session:
        load = await read_engine(wiring.operator(session))
    if load.agents is None:
        return None
    return {
        instance_id: load.tasks.get(agent_id, 0) for instance_id, agent_id in load.agents.items()
    }
