"""`mesaform up`: raise a cluster until it answers. It may be repeated at any time and repairs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, ChangeOptions, with_options
from mesaform.common.errors import MissingPrerequisite
from mesaform.common.progress import Report, stage
from mesaform.provision.lock import HeldLock

if TYPE_CHECKING:
    from mesaform.cli.change_run import Outcome
    from mesaform.status.view import Status

Reporter = Callable[[], AbstractContextManager[Report]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions(ChangeOptions):
    """Command line of `mesaform up`."""

    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds to wait for the cluster to answer; 0 is 180 locally and 900 on aws.",
            min=0,
        ),
    ] = 0.0
    upgrade: Annotated[
        bool,
        typer.Option(
            "--upgrade",
            help="Also replace running masters, one at a time, and drained agents, where they"
            " differ in image or settings.",
        ),
    ] = False


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
            outcome = _raise(context, open_reporter, held, options)
    except KeyboardInterrupt:
        again = "" if options.file == DEFAULT_FILE else f" --file {options.file}"
        interrupt.end(f"interrupted. Carry on: mesaform up{again}    Go back: mesaform down{again}")
    if outcome.picture is not None:
        _remove_old_images(context)
    print_outcome(context, outcome, time.monotonic() - began, as_json=options.as_json)
    if outcome.picture is not None:
        _hint_at_snapshots(context, outcome.picture)


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


def _raise(context: Context, reporter: Reporter, held: HeldLock, options: UpOptions) -> Outcome:
    """Check and bake, then plan, ask, deploy and wait."""
    from mesaform.cli.change_run import ChangeRequest, ChangeRun

    with reporter() as report:
        context = check_and_bake(context, report, yes=options.yes, dry_run=options.dry_run)
    request = ChangeRequest(
        "mesaform up",
        upgraded_roles=frozenset({"master", "agent"}) if options.upgrade else frozenset(),
        may_change_masters=options.upgrade,
        yes=options.yes,
        dry_run=options.dry_run,
        as_json=options.as_json,
        timeout_s=options.timeout,
    )
    return ChangeRun(context, reporter, held, request).run()


def check_and_bake(
    context: Context, report: Report, *, yes: bool, dry_run: bool = False
) -> Context:
    """Check what a run needs, enter the cluster's cloud, and bake the images that are missing.

    A dry run bakes nothing. Returns the context with the zones of the account. The digest of the
    recipe, most of a second of parsing, is made while the local cloud starts and answers.
    """
    from concurrent.futures import ThreadPoolExecutor

    from mesaform_images.lookup import recipe_digest

    with ThreadPoolExecutor(1, "recipe") as beside:
        recipe = beside.submit(recipe_digest)
        context = _check(context, report)
        if not dry_run:
            _image(context, report, recipe.result(), yes=yes)
    return context


def _check(context: Context, report: Report) -> Context:
    """Check what a run needs, and enter the cluster's cloud; the context with its zones."""
    from mesaform.cli.doctor import check_account

    _prerequisites(context, report)
    _cloud(context, report)
    context = _with_zones(context, report)
    _ownership(context, report)
    check_account(context, report)
    _addresses(context, report)
    return context


def _prerequisites(context: Context, report: Report) -> None:
    from mesaform import provision

    with stage(report, "Check what must be installed"):
        provision.check_prerequisites(context)
        if context.spec.target == "local":
            from mesaform.provision.addresses import require_network

            require_network(context.spec, context.local_dir)


def _cloud(context: Context, report: Report) -> None:
    """Start the local cloud if it is the target, and check the credentials."""
    from mesaform.cli.wiring import Wiring

    if context.spec.target == "local":
        from mesaform.localcloud import daemon

        with stage(report, "Local cloud") as under_way:
            running = daemon.start(context.local_dir, kind=context.spec.local.machines)
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
    if not context.spec.has_loopback_machines:
        return
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.addresses import require_ports

    with stage(report, "Check that the masters' addresses are free"):
        machines = Wiring(context).fleet.machines(context.spec.name)
        require_ports(
            context.spec,
            [machine.private_address for machine in machines if machine.state != "terminated"],
        )


def _image(context: Context, report: Report, recipe: str, *, yes: bool) -> None:
    """Bake the images of this program's recipe that the region lacks.

    On aws the builder costs some cents, so the user is asked.
    """
    from mesaform.cli import interrupt
    from mesaform.cli.bake import bake_each, remove_leftovers_of_bakes
    from mesaform.provision.lock import BAKE_LOCK, hold
    from mesaform_images.lookup import images_of

    spec = context.spec
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


def print_outcome(context: Context, outcome: Outcome, elapsed_s: float, *, as_json: bool) -> None:
    """Print the cluster as it is after the run, as tables or as JSON; nothing after a dry run."""
    from mesaform.cli.tables import console, show

    picture = outcome.picture
    if picture is None:
        return
    if as_json:
        document = {
            **picture.as_json(),
            "changes": outcome.changes.as_json(),
            "seconds": round(elapsed_s, 1),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    out = console()
    for part in show(picture, out.width):
        out.print(part)
    file = "" if context.file.name == "cluster.yaml" else f" --file {context.file.name}"
    out.print(f"\nUp in {elapsed_s:.0f} s. Next:")
    out.print(f"  mesaform run{file} --name hello --cpus 0.5 --mem 64 -- sh -c 'echo hi'")
    out.print(f"  mesaform status{file}    mesaform why{file}    mesaform down{file}")
