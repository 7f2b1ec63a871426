"""`mesaform up`: raise a cluster until it answers. It may be repeated at any time and repairs."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
from mesaform.common.errors import MesaformError, MissingPrerequisite
from mesaform.common.progress import Report, stage
from mesaform.config.schema import ClusterSpec
from mesaform.provision.lock import HeldLock
from mesaform.status.ready import Missing
from mesaform.status.view import Sources, Status

POLL_S = 0.5
STOPPING = "stopping Terraform in order; this may take some seconds"
Reporter = Callable[[], AbstractContextManager[Report]]
FindMissing = Callable[[Status, Sources], Awaitable[tuple[Missing, ...]]]
TIMEOUT_S = {"local": 180.0, "aws": 900.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Command line of `mesaform up`."""

    file: FileOption = DEFAULT_FILE
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds to wait for the cluster to answer; 0 is 180 locally and 900 on aws.",
            min=0,
        ),
    ] = 0.0
    end_other: EndOtherOption = False
    wait: WaitOption = False
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    app.command(help="Raise the cluster, or carry on raising it; ends when it answers.")(
        with_options(UpOptions, up)
    )


def up(options: UpOptions) -> None:
    """Raise the cluster: local cloud or credentials, image, stacks, and the wait for answers."""
    from mesaform.cli import interrupt
    from mesaform.cli.image_contents import require_contents
    from mesaform.cli.progress import reporter
    from mesaform.cli.turn import TurnOptions, cluster_turn

    context = open_context(options.file)
    require_contents(context)
    began = time.monotonic()

    def open_reporter() -> AbstractContextManager[Report]:
        return reporter(as_json=options.as_json)

    turn = TurnOptions(ends_other=options.end_other, waits=options.wait)
    try:
        holding = cluster_turn(context, "mesaform up", open_reporter, turn, creates_bucket=True)
        with holding as held:
            picture = _raise(context, open_reporter, held, options)
    except KeyboardInterrupt:
        again = "" if options.file == DEFAULT_FILE else f" --file {options.file}"
        interrupt.end(f"interrupted. Carry on: mesaform up{again}    Go back: mesaform down{again}")
    _remove_old_images(context)
    _print(context, picture, time.monotonic() - began, as_json=options.as_json)
    _hint_at_snapshots(context, picture)


def _hint_at_snapshots(context: Context, picture: Status) -> None:
    """Say if the ensemble is empty although snapshots of its state exist."""
    import asyncio

    from mesaform.cli.restore import deployment_id
    from mesaform.cli.snapshot_client import restore_hint
    from mesaform.cli.wiring import Wiring

    wiring = Wiring(context)
    hint = asyncio.run(
        restore_hint(picture, wiring.snapshots, deployment_id(context), wiring.open_session)
    )
    if hint:
        typer.echo(hint, err=True)


def _raise(context: Context, reporter: Reporter, held: HeldLock, options: UpOptions) -> Status:
    """Check, bake, plan, ask, deploy and wait. Questions are asked while no progress is shown."""
    from mesaform import provision
    from mesaform.cli import interrupt
    from mesaform.cli.confirm_changes import confirm_changes
    from mesaform.cli.doctor import check_account
    from mesaform.status.tls_switch import TlsSwitch

    timeout_s = options.timeout or TIMEOUT_S[context.spec.target]
    with reporter() as report:
        _prerequisites(context, report)
        _cloud(context, report)
        context = _with_zones(context, report)
        _ownership(context, report)
        check_account(context, report)
        _addresses(context, report)
        _image(context, report, yes=options.yes)
        preview = interrupt.run(lambda: provision.prepare(context, report, held), stopping=STOPPING)
    confirm_changes(context, preview, yes=options.yes)
    with reporter() as report:
        switch = TlsSwitch(context.spec)

        async def wait_until_whole() -> None:
            await wait_until_up(context, report, timeout_s, switch.missing)

        async def deploy_and_wait() -> Status:
            await provision.replace_masters(context, report, held, preview, wait_until_whole)
            await provision.deploy(context, report, held, preview)
            return await wait_until_up(context, report, timeout_s, every_part(context.spec))

        return interrupt.run(deploy_and_wait, stopping=STOPPING)


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


def _with_zones(context: Context, report: Report) -> Context:
    """Choose the zones from the account, unless the file or the deployment's record has them."""
    from dataclasses import replace

    from mesaform.provision.zones import settle

    settled = settle(context.spec, context.cluster_dir)
    if settled == context.spec:
        return context
    with stage(report, "Choose zones") as under_way:
        under_way.outcome = ", ".join(settled.zones)
    return replace(context, spec=settled)


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
    """Bake the images of this program's recipe that the region lacks.

    On aws the builder costs some cents, so the user is asked.
    """
    from mesaform.cli import interrupt
    from mesaform.cli.bake import bake_each, remove_leftovers_of_bakes
    from mesaform.provision.lock import BAKE_LOCK, hold
    from mesaform_images.lookup import images_of, recipe_digest

    spec = context.spec
    recipe = recipe_digest()
    missing = [name for name in spec.architectures if not images_of(recipe, spec.region, name)]
    if not missing:
        with stage(report, "Image") as under_way:
            remove_leftovers_of_bakes(context)
            under_way.outcome = f"recipe {recipe}"
        return
    question = (
        f"No {' and '.join(missing)} image of recipe {recipe} in {spec.region}."
        " Bake (each builder runs for about five minutes, some cents)?"
    )
    if spec.target == "aws" and not yes and not typer.confirm(question, err=True):
        raise MissingPrerequisite(
            f"no {' and '.join(missing)} image of recipe {recipe}",
            where=spec.region,
            fix="bake, then go on: mesaform bake",
        )
    # The builder costs money, whatever ends this process.
    with interrupt.raised(), hold(context.state_dir / BAKE_LOCK, "mesaform up"):
        remove_leftovers_of_bakes(context, is_alone=True)
        bake_each(context, report, missing)


def _remove_old_images(context: Context) -> None:
    from mesaform.cli.bake import remove_old_images

    remove_old_images(context)


def _ownership(context: Context, report: Report) -> None:
    """Check that the account holds nothing of this name that belongs to another folder."""
    from mesaform import provision

    with stage(report, "Check who owns the cluster") as under_way:
        caller = provision.require_ownership(context)
        under_way.outcome = f"account {caller.account_id}"


def every_part(spec: ClusterSpec) -> FindMissing:
    """Finds the missing parts of a whole cluster."""
    from mesaform.status.ready import missing

    async def find(picture: Status, sources: Sources) -> tuple[Missing, ...]:
        return missing(picture, spec, sorted(sources.masters_up), sorted(sources.services_up))

    return find


async def wait_until_up(
    context: Context, report: Report, timeout_s: float, find_missing: FindMissing
) -> Status:
    """Look until nothing is missing. Lifts the freeze of an unfinished `down` on the way.

    Raises:
        MesaformError: the time is up; it names what is missing and where its log is.

    """
    import asyncio

    from mesaform.cli.teardown_rollback import TeardownRollback
    from mesaform.cli.wiring import Wiring
    from mesaform.status.gather import Gatherer
    from mesaform.status.view import join

    spec = context.spec
    wiring = Wiring(context)
    fleet, control = wiring.fleet, wiring.control
    began = time.monotonic()
    with stage(report, "Wait for the cluster to answer") as under_way:
        async with wiring.open_session() as session:
            gatherer = Gatherer(spec, session, fleet, control, outputs=wiring.outputs_reader)
            freeze = await asyncio.to_thread(control.frozen_reason)
            prices = await asyncio.to_thread(lambda: wiring.prices)
            teardown = TeardownRollback(control, wiring.operator(session), freeze)
            while True:
                sources = await gatherer.gather()
                if gatherer.expired is not None:
                    raise gatherer.expired
                picture = join(spec, sources, prices)
                lacking = await find_missing(picture, sources)
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
    """The end of the console and of the log of the machine that lacks a part."""
    if not item.machine:
        return ""
    from mesaform.cli.machine_console import explain

    return explain(context, item.machine, item.service)


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
