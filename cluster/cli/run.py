"""`mesaform run`: run a command as tasks on the cluster, with their output and exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION, Context, open_context

if TYPE_CHECKING:
    from mesaform.mesos.run_framework import Reporter
    from mesaform.mesos.run_state import Job

HELP = """Run a command on the cluster and end with its exit code.

Several words run as they are; a single word is a line of shell. States go to standard error, the
tasks' own output to standard output and error. While no agent has the resources, the command prints
the reason and waits for the autoscaler. Exit codes: that of the first failing task, 128 + n for
signal n, 124 after --timeout, 130 after Ctrl-C.
"""


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(run)


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            help="The command and its arguments, after --.", metavar="-- COMMAND [ARGS]…"
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Of the framework and its tasks: letters, digits, dots, hyphens.")
    ] = "run",
    cpus: Annotated[float, typer.Option(min=0.001, help="Cores for each task.")] = 0.5,
    mem: Annotated[float, typer.Option(min=1, help="MiB of memory for each task.")] = 64,
    disk: Annotated[float, typer.Option(min=0, help="MiB of disk for each task.")] = 0,
    instances: Annotated[int, typer.Option(min=1, max=10_000, help="How many tasks.")] = 1,
    role: Annotated[str, typer.Option(help="The role whose offers are used.")] = "*",
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the tasks; may be repeated.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds after which the tasks are killed.")
    ] = None,
    file: str = FILE_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check the words, run, and exit with the job's code."""
    import asyncio
    import re

    from mesaform.cli.run_report import JsonReporter, TextReporter
    from mesaform.common.errors import BadInput
    from mesaform.common.resources import Resources
    from mesaform.mesos.run_state import Job, environment

    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise BadInput(
            f"{name!r} is not a name",
            where="--name",
            fix="use letters, digits, dots, hyphens and underscores",
        )
    try:
        variables = environment(env or [])
    except ValueError as error:
        raise BadInput(f"{str(error)!r} is not NAME=VALUE", where="--env") from None
    job = Job(
        name,
        tuple(command),
        Resources.of(cpus=cpus, mem_mib=mem, disk_mib=disk),
        instances,
        role,
        variables,
    )
    reporter: Reporter = JsonReporter() if as_json else TextReporter(many=instances > 1)
    code = asyncio.run(_run(open_context(file), job, reporter, timeout))
    reporter.ended(code)
    raise typer.Exit(code)


async def _run(context: Context, job: Job, reporter: Reporter, timeout_s: float | None) -> int:
    import asyncio
    import signal
    import uuid

    import aiohttp

    from mesaform.cli.wiring import Wiring
    from mesaform.mesos.run_framework import Runner

    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    async with aiohttp.ClientSession() as session:
        wiring = Wiring(context)
        leader, sandboxes = wiring.operator(session).leader, wiring.sandboxes(session)
        runner = Runner(job, uuid.uuid4().hex[:12], leader, sandboxes, session, reporter, timeout_s)
        return await runner.run(interrupted)
