"""`mesaform run`: run a command as tasks on the cluster, with their output and exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, with_options

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec
    from mesaform.mesos.run_framework import Reporter
    from mesaform.mesos.run_state import Job

HELP = """Run a command on the cluster and end with its exit code.

Several words run as they are; a single word is a line of shell. States go to standard error, the
tasks' own output to standard output and error. While no agent has the resources, the command prints
the reason and waits for the autoscaler. Exit codes: that of the first failing task, 128 + n for
signal n, 124 after --timeout, 130 after Ctrl-C.
"""


def register(app: typer.Typer) -> None:
    app.command(help=HELP)(with_options(RunOptions, run))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Command line of `mesaform run`."""

    command: Annotated[
        list[str],
        typer.Argument(
            help="The command and its arguments, after --.", metavar="-- COMMAND [ARGS]…"
        ),
    ]
    name: Annotated[
        str, typer.Option(help="Of the framework and its tasks: letters, digits, dots, hyphens.")
    ] = "run"
    cpus: Annotated[float, typer.Option(min=0.001, help="Cores for each task.")] = 0.5
    mem: Annotated[float, typer.Option(min=1, help="MiB of memory for each task.")] = 64
    disk: Annotated[float, typer.Option(min=0, help="MiB of disk for each task.")] = 0
    instances: Annotated[int, typer.Option(min=1, max=10_000, help="How many tasks.")] = 1
    role: Annotated[str, typer.Option(help="The role whose offers are used.")] = "*"
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the tasks; may be repeated.")
    ] = None
    user: Annotated[
        str | None,
        typer.Option(help="The user of the tasks, which agents must have (default: tasks.user)."),
    ] = None
    arch: Annotated[
        str,
        typer.Option(help="The agents' architecture, x86_64 or arm64 (default: the cluster's)."),
    ] = ""
    instance_type: Annotated[
        str, typer.Option(help="The agents' EC2 types, with commas between them.")
    ] = ""
    capacity_type: Annotated[
        str, typer.Option(help="Of the agents: spot or on-demand (default: any).")
    ] = ""
    max_wait: Annotated[
        str,
        typer.Option(help="How long to wait for agents that exist before any is bought: 90s, 10m."),
    ] = ""
    label: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the framework and its tasks; may be repeated."),
    ] = None
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds after which the tasks are killed.")
    ] = None
    file: FileOption = DEFAULT_FILE
    as_json: JsonOption = False


def run(options: RunOptions) -> None:
    """Check the options, run the job, and exit with its code."""
    import asyncio

    from mesaform.cli.run_report import JsonReporter, TextReporter

    context = open_context(options.file)
    job = _job(options, context.spec)
    reporter: Reporter = (
        JsonReporter() if options.as_json else TextReporter(many=options.instances > 1)
    )
    code = asyncio.run(_run(context, job, reporter, options.timeout))
    reporter.ended(code)
    raise typer.Exit(code)


def _job(options: RunOptions, spec: ClusterSpec) -> Job:
    """Return the job that the options describe on a cluster.

    Raises:
        BadInput: a name or a variable is malformed.

    """
    import re

    from mesaform.common.errors import BadInput
    from mesaform.common.resources import Resources
    from mesaform.mesos.run_state import Job, environment

    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", options.name):
        raise BadInput(
            f"{options.name!r} is not a name",
            where="--name",
            fix="use letters, digits, dots, hyphens and underscores",
        )
    try:
        variables = environment(options.env or [])
    except ValueError as error:
        raise BadInput(f"{str(error)!r} is not NAME=VALUE", where="--env") from None
    return Job(
        options.name,
        tuple(options.command),
        Resources.of(cpus=options.cpus, mem_mib=options.mem, disk_mib=options.disk),
        options.instances,
        options.role,
        variables,
        _user(options, spec),
        _labels(options),
    )


def _labels(options: RunOptions) -> dict[str, str]:
    """Return the labels of the tasks, those that options stand for included.

    Raises:
        BadInput: a label is malformed, or has no value that it may have.

    """
    from mesaform.common.architecture import ARCH_LABEL
    from mesaform.common.errors import BadInput
    from mesaform.mesos.run_state import environment
    from mesaform.placement import task_labels

    try:
        labels = environment(options.label or [])
    except ValueError as error:
        raise BadInput(f"{str(error)!r} is not NAME=VALUE", where="--label") from None
    by_option = {
        "--arch": (ARCH_LABEL, options.arch),
        "--instance-type": (task_labels.INSTANCE_TYPE_LABEL, options.instance_type),
        "--capacity-type": (task_labels.CAPACITY_TYPE_LABEL, options.capacity_type),
        "--max-wait": (task_labels.MAX_WAIT_LABEL, options.max_wait),
    }
    labels.update(pair for pair in by_option.values() if pair[1])
    option_of = {name: option for option, (name, value) in by_option.items() if value}
    for label, problem in task_labels.read_labels(labels).problems:
        raise BadInput(problem, where=option_of.get(label, f"--label {label}"))
    return labels


def _user(options: RunOptions, spec: ClusterSpec) -> str:
    """Return the user of the tasks.

    Raises:
        BadInput: the cluster does not let tasks run as root.

    """
    from mesaform.common.errors import BadInput

    user = options.user or spec.tasks.user
    if user == "root" and not spec.tasks.allow_root:
        raise BadInput(
            "tasks may not run as root on this cluster",
            where="--user",
            fix="name another user, or set tasks.allow_root: true in the cluster file and run"
            " mesaform up",
        )
    return user


async def _run(context: Context, job: Job, reporter: Reporter, timeout_s: float | None) -> int:
    import asyncio
    import signal
    import uuid

    from mesaform.cli.wiring import Wiring
    from mesaform.mesos.run_framework import Runner

    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    wiring = Wiring(context)
    async with wiring.open_session() as session:
        leader, sandboxes = wiring.operator(session).leader, wiring.sandboxes(session)
        runner = Runner(
            job,
            uuid.uuid4().hex[:12],
            leader,
            sandboxes,
            session,
            reporter,
            timeout_s,
            is_gone=lambda: asyncio.to_thread(_is_gone, context),
            hides_executor_log=context.spec.engine == "mesos",
        )
        return await runner.run(interrupted)


def _is_gone(context: Context) -> bool:
    """Whether the cloud answers and lists no living master, or the local cloud was stopped."""
    from mesaform.cli.wiring import Wiring
    from mesaform.common.errors import MesaformError, MissingPrerequisite
    from mesaform.topology.names import Tag

    try:
        context.enter_cloud()
        machines = Wiring(context).fleet.machines(context.spec.name)
    except MissingPrerequisite:
        return context.spec.target == "local"
    except MesaformError:
        return False
    return not any(
        machine.tags.get(Tag.ROLE) == "master" and machine.state in {"pending", "running"}
        for machine in machines
    )
