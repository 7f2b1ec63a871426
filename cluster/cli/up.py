"""`mesaform up`: raise a cluster until it answers. It may be repeated at any time and repairs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.errors import MesaformError, MissingPrerequisite
from mesaform.common.progress import Report, stage
from mesaform.status.ready import Missing
from mesaform.status.view import Status

YES_OPTION = typer.Option(False, "--yes", "-y", help="Do not ask.")
TIMEOUT_OPTION = typer.Option(
    0.0,
    "--timeout",
    help="Seconds to wait for the cluster to answer; 0 is 180 locally and 900 on aws.",
    min=0,
)
POLL_S = 0.5
STOPPING = "stopping Terraform in order; this may take some seconds"
Reporter = Callable[[], AbstractContextManager[Report]]
TIMEOUT_S = {"local": 180.0, "aws": 900.0}


def register(app: typer.Typer) -> None:
    app.command(help="Raise the cluster, or carry on raising it; ends when it answers.")(up)


def up(
    file: FileOption = DEFAULT_FILE,
    yes: bool = YES_OPTION,
    timeout_s: float = TIMEOUT_OPTION,
    as_json: JsonOption = False,
) -> None:
    """Raise the cluster: local cloud or credentials, image, stacks, and the wait for answers."""
    from mesaform.cli import interrupt
    from mesaform.cli.progress import reporter
    from mesaform.provision.lock import hold

    context = open_context(file)
    began = time.monotonic()
    try:
        with hold(context.cluster_dir / "lock", "mesaform up"):
            picture = _raise(
                context,
                lambda: reporter(as_json=as_json),
                yes=yes,
                timeout_s=timeout_s or TIMEOUT_S[context.spec.target],
            )
    except KeyboardInterrupt:
        again = "" if file == "cluster.yaml" else f" --file {file}"
        interrupt.end(f"interrupted. Carry on: mesaform up{again}    Go back: mesaform down{again}")
    _print(context, picture, time.monotonic() - began, as_json=as_json)


def _raise(context: Context, reporter: Reporter, *, yes: bool, timeout_s: float) -> Status:
    """Check, bake, plan, ask, deploy and wait. Questions are asked while no progress is shown."""
    from mesaform import provision
    from mesaform.cli import interrupt
    from mesaform.cli.confirm_changes import confirm_changes
    from mesaform.provision.lock import hold_terraform

    with ExitStack() as locks:
        with reporter() as report:
            _prerequisites(context, report)
            _cloud(context, report)
            _ownership(context, report)
            _addresses(context, report)
            _image(context, report, yes=yes)
            held = locks.enter_context(hold_terraform(context.cluster_dir, "mesaform up", report))
            preview = interrupt.run(
                lambda: provision.prepare(context, report, held), stopping=STOPPING
            )
        confirm_changes(context, preview, yes=yes)
        with reporter() as report:
            interrupt.run(
                lambda: provision.deploy(context, report, held, preview), stopping=STOPPING
            )
    with reporter() as report:
        return interrupt.run(
            lambda: wait_until_up(context, report, timeout_s), stopping="stopping to wait"
        )


def _prerequisites(context: Context, report: Report) -> None:
    from mesaform import provision
    from mesaform.provision.tools import install_tools

    with stage(report, "Check what must be installed"):
        provision.check_prerequisites(context)
        if context.spec.target == "local":
            from mesaform.provision.addresses import require_network

            require_network(context.spec, context.local_dir)
    install_tools(report)


def _cloud(context: Context, report: Report) -> None:
    """Start the local cloud if it is the target, and check the credentials."""
    from mesaform.cli.wiring import Wiring

    if context.spec.target == "local":
        from mesaform.localcloud import daemon

        with stage(report, "Local cloud") as under_way:
            running = daemon.start(context.local_dir)
            under_way.outcome = f"{running.url}, pid {running.pid}" + (
                "" if running.started else ", was running"
            )
    context.enter_cloud()
    with stage(report, "Credentials") as under_way:
        control = Wiring(context).control
        under_way.outcome = f"{context.spec.target}, {context.spec.region}"
        if reason := control.frozen_reason():
            under_way.outcome += (
                f"; there is a freeze ({reason}), which goes when the cluster answers"
            )


def _addresses(context: Context, report: Report) -> None:
    """Check that no other process of this host listens at the masters' addresses."""
    if context.spec.target != "local":
        return
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.addresses import require_ports

    with stage(report, "Check that the masters' addresses are free"):
        machines = Wiring(context).fleet.machines(context.spec.name)
        require_ports(
            context.spec,
            [machine.private_address for machine in machines if machine.state != "terminated"],
        )


def _image(context: Context, report: Report, *, yes: bool) -> None:
    """Bake the image of this program's recipe if the region has none.

    On aws the builder costs some cents, so the user is asked.
    """
    import signal

    from mesaform_images.bake import bake
    from mesaform_images.lookup import images_of, recipe_digest

    spec = context.spec
    recipe = recipe_digest()
    if images_of(recipe, spec.region):
        with stage(report, "Image") as under_way:
            under_way.outcome = f"recipe {recipe}"
        return
    question = (
        f"No image of recipe {recipe} in {spec.region}."
        " Bake one (a builder runs for about five minutes, some cents)?"
    )
    if spec.target == "aws" and not yes and not typer.confirm(question, err=True):
        raise MissingPrerequisite(
            f"no image of recipe {recipe}",
            where=spec.region,
            fix="bake one, then go on: mesaform bake",
        )
    before = signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a builder must go whatever ends us
    try:
        bake(spec.region, report, log_dir=context.state_dir / "log")
    finally:
        signal.signal(signal.SIGTERM, before)


def _ownership(context: Context, report: Report) -> None:
    """Check that the account holds nothing of this name that belongs to another folder."""
    from mesaform import provision

    with stage(report, "Check who owns the cluster") as under_way:
        caller = provision.require_ownership(context)
        under_way.outcome = f"account {caller.account_id}"


async def wait_until_up(context: Context, report: Report, timeout_s: float) -> Status:
    """Look until nothing is missing.

    Raises:
        MesaformError: the time is up; it names what is missing and where its log is.

    """
    import asyncio

    import aiohttp

    from mesaform.cli.teardown_rollback import TeardownRollback
    from mesaform.cli.wiring import Wiring
    from mesaform.status.gather import Gatherer
    from mesaform.status.ready import missing
    from mesaform.status.view import join

    spec = context.spec
    wiring = Wiring(context)
    fleet, control = wiring.fleet, wiring.control
    began = time.monotonic()
    with stage(report, "Wait for the cluster to answer") as under_way:
        async with aiohttp.ClientSession() as session:
            gatherer = Gatherer(spec, session, fleet, control, outputs=wiring.outputs_reader)
            freeze = await asyncio.to_thread(control.frozen_reason)
            teardown = TeardownRollback(control, wiring.operator(session), freeze)
            while True:
                sources = await gatherer.gather()
                picture = join(
                    spec.name,
                    target=spec.target,
                    region=spec.region,
                    engine=spec.engine,
                    sources=sources,
                )
                lacking = missing(
                    picture, spec, sorted(sources.masters_up), sorted(sources.services_up)
                )
                if picture.leader and not teardown.done:
                    await teardown.step(picture.agents)
                elif not lacking:
                    under_way.outcome = (
                        f"{len(picture.masters)} masters, {len(picture.agents)} agents"
                    )
                    return picture
                if time.monotonic() - began > timeout_s:
                    raise _too_late(context, lacking, timeout_s)
                under_way.advance("; ".join(item.what for item in lacking))
                await asyncio.sleep(POLL_S)


def _too_late(context: Context, lacking: tuple[Missing, ...], timeout_s: float) -> MesaformError:
    lines = [f"    {item.what}{_log_of(context, item)}" for item in lacking]
    return MesaformError(
        f"the cluster does not answer after {timeout_s:.0f} s; missing:\n" + "\n".join(lines),
        where=context.spec.name,
        fix="carry on waiting and repair: mesaform up    go back: mesaform down",
    )


def _log_of(context: Context, item: Missing) -> str:
    if not item.machine:
        return ""
    if context.spec.target == "local":
        machine = context.local_dir / "machines" / item.machine
        for path in (
            machine / "log" / f"{item.service}.log",
            *machine.rglob(f"{item.service}.log"),
            machine / "console.log",
        ):
            if path.exists():
                return f"\n      its log: {path}"
        return f"\n      its logs: {machine}"
    return (
        f"\n      its log: /var/lib/mesaform/log/{item.service}.log on {item.machine}"
        f" (aws ssm start-session --target {item.machine})"
    )


def _print(context: Context, picture: Status, elapsed_s: float, *, as_json: bool) -> None:
    from mesaform.cli.tables import console, show

    if as_json:
        document = {**picture.as_json(), "seconds": round(elapsed_s, 1)}
        typer.echo(json.dumps(document, indent=2))
        return
    out = console()
    for part in show(picture, out.width):
        out.print(part)
    file = "" if context.file.name == "cluster.yaml" else f" --file {context.file.name}"
    out.print(f"\nUp in {elapsed_s:.0f} s. Next:")
    out.print(f"  mesaform run{file} --name hello --cpus 0.5 --mem 64 -- sh -c 'echo hi'")
    out.print(f"  mesaform status{file}    mesaform why{file}    mesaform down{file}")
