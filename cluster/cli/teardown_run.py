"""A teardown with the real ports, for `mesaform down`: survey, execution and receipt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mesaform.aws.resources.owned import OwnedResource
from mesaform.cli.context import Context
from mesaform.common.errors import NotOwned
from mesaform.common.progress import Report, Silent, stage
from mesaform.provision.lock import HeldLock
from mesaform.teardown.execute import Outcome, Teardown
from mesaform.teardown.plan import Plan
from mesaform.teardown.receipt import KeptRecord, Receipt, ReceiptFacts
from mesaform.teardown.survey import Survey, TeardownPorts, survey
from mesaform.topology.names import Tag
from mesaform.topology.ports import Port

if TYPE_CHECKING:
    import aiohttp

    from mesaform.cli.wiring import Wiring


async def survey_cluster(context: Context, deployment: str = "") -> Survey:
    """One survey through the real ports.

    Args:
        context: the cluster.
        deployment: the deployment's id where the folder's record is lost; "none" stands for
            resources that are older than ids.

    Raises:
        NotOwned: the account is not the one that holds the cluster.
        CloudError: the cloud did not answer.

    """
    from mesaform import provision
    from mesaform.cli.wiring import Wiring
    from mesaform.provision.deployment import read_deployment
    from mesaform.provision.shared_state import open_shared_state
    from mesaform.teardown.account_check import require_listed_state, require_proof
    from mesaform.teardown.journal import seen_before

    caller = await asyncio.to_thread(provision.require_pinned_account, context)
    if shared := await asyncio.to_thread(open_shared_state, context):
        await asyncio.to_thread(shared.pull)
    async with Wiring(context).open_session() as session:
        surveyed = await survey(await asyncio.to_thread(_world, context, session, deployment))
    where = f"the AWS account {caller.account_id} ({context.spec.region})"
    require_listed_state(
        surveyed.inventory,
        seen=seen_before(context.cluster_dir),
        where=where,
        folder=context.cluster_dir,
    )
    has_record = bool(deployment) or read_deployment(context.cluster_dir) is not None
    require_proof(
        surveyed.inventory, has_record=has_record, where=where, folder=context.cluster_dir
    )
    return surveyed


async def run_teardown(
    context: Context,
    surveyed: Survey,
    planned: Plan,
    report: Report,
    images: Sequence[OwnedResource],
    held: HeldLock,
) -> tuple[Outcome, Receipt, Path]:
    """Carry out a plan; returns its outcome, and the receipt with its file.

    Args:
        context: the cluster.
        surveyed: the survey that the plan was made from.
        planned: the plan.
        report: receives progress.
        images: baked images of the account, which are kept unless the plan removes them.
        held: the lock of Terraform.

    """
    from mesaform.cli.wiring import Wiring
    from mesaform.teardown import account
    from mesaform.teardown.journal import Journal

    spec = context.spec
    async with Wiring(context).open_session() as session:
        world = await asyncio.to_thread(
            _world, context, session, surveyed.inventory.deployment_id, report, held
        )
        journal = Journal(context.cluster_dir, spec.name, time.time())
        if journal.is_resumed:
            with stage(report, "Continue an earlier teardown") as under_way:
                under_way.outcome = f"its last step: {journal.last_step or 'none'}"
        teardown = Teardown(world, journal, report, drain_grace_s=spec.autoscaler.drain_grace_s)
        outcome = await teardown.run(surveyed, planned)
        if planned.request.images and outcome.swept.is_clean:
            images = await asyncio.to_thread(account.remove_images, spec.region, spec.name, report)
        outcome = Outcome(outcome.swept, (*outcome.kept, *images), outcome.troubles)
        facts = ReceiptFacts(
            spec.name,
            spec.target,
            spec.region,
            time.time(),
            stopped_usd_per_hour=0.0,
            also_kept=await asyncio.to_thread(_kept_in_s3, spec.region, spec.name),
        )
        receipt = await asyncio.to_thread(teardown.receipt, surveyed, outcome, facts)
        path = journal.close(receipt.as_record(), facts.now)
        return Outcome(outcome.swept, outcome.kept, teardown.troubles), receipt, path


def _kept_in_s3(region: str, cluster: str) -> list[KeptRecord]:
    """What the account keeps in S3 after the teardown."""
    from mesaform.teardown import account

    return [*account.kept_bucket(region), *account.kept_snapshots(region, cluster)]


def stop_local_cloud(context: Context) -> str:
    """Stop the local cloud unless machines of other clusters run in it; a sentence on the result.

    Does nothing on aws.
    """
    if context.spec.target != "local":
        return ""
    from mesaform.localcloud import daemon
    from mesaform.teardown.account import present_machines

    if others := present_machines(context.spec.region):
        return f"The local cloud stays: {len(others)} machines of others run in it."
    daemon.stop(context.local_dir)
    return "The local cloud is stopped."


def _world(
    context: Context,
    session: aiohttp.ClientSession,
    deployment_id: str,
    report: Report | None = None,
    held: HeldLock | None = None,
) -> TeardownPorts:
    """The ports of a teardown. Blocks: asks STS for the account and EC2 for the masters."""
    from mesaform import provision
    from mesaform.aws.pricing.cluster_cost import machine_costs, standing_items
    from mesaform.aws.resources.sweep import Sweep, resource_kinds
    from mesaform.cli.wiring import Wiring
    from mesaform.mesos.operator import OperatorClient
    from mesaform.provision.terraform_state import stack_ids
    from mesaform.teardown.account import bucket_exists

    spec, wiring = context.spec, Wiring(context)
    has_bucket = bucket_exists(wiring.bucket, spec.region)
    masters = _running_masters(wiring)
    prices = wiring.prices

    async def destroy(stacks: tuple[str, ...]) -> None:
        await provision.destroy(context, report or Silent(), stacks, held)

    return TeardownPorts(
        cluster=spec.name,
        fleet=wiring.fleet,
        sweep=Sweep(resource_kinds(spec.name, spec.region), spec.name),
        control=wiring.control if has_bucket else None,
        ledger=wiring.ledger if has_bucket else None,
        operator=OperatorClient(masters, session) if masters else None,
        stacks=lambda: stack_ids(context.cluster_dir),
        destroy=destroy,
        forget=lambda: provision.forget_deployment(context),
        deployment_id=_deployment_id(context, deployment_id),
        costs=lambda machines: machine_costs(spec, machines, prices),
        standing_usd_per_hour=sum(item.usd_per_hour for item in standing_items(spec, prices.rates)),
    )


def _deployment_id(context: Context, given: str) -> str:
    """The id of the folder's deployment, or the given one; empty if it is older than ids.

    Raises:
        NotOwned: the folder has another deployment than the given one.

    """
    from mesaform.provision.deployment import read_deployment
    from mesaform.teardown.account_check import NO_ID

    record = read_deployment(context.cluster_dir)
    if record is None:
        return "" if given == NO_ID else given
    if given and given != record.deployment_id:
        raise NotOwned(
            f"this folder's deployment is {record.deployment_id}, not {given}",
            where=str(context.cluster_dir),
            fix="nothing was removed; leave --deployment out",
        )
    return record.deployment_id


def _running_masters(wiring: Wiring) -> list[str]:
    """Base URLs of the masters that EC2 lists as running; needs no Terraform state."""
    from mesaform.status.view import reachable

    spec = wiring.context.spec
    scheme = "https" if spec.tls else "http"
    addresses = [
        reachable(machine.private_address, machine.public_address, spec.target)
        for machine in wiring.fleet.machines(spec.name)
        if machine.tags.get(Tag.ROLE) == "master" and machine.state == "running"
    ]
    return [f"{scheme}://{address}:{Port.ENGINE_MASTER}" for address in addresses]
