"""The composition of a teardown: the real ports behind `mesaform.teardown`, for `mesaform down`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mesaform.aws.ports import Machine
from mesaform.aws.resources.owned import OwnedResource
from mesaform.cli.context import Context
from mesaform.common.errors import CloudError, NotFound, NotOwned
from mesaform.common.progress import Report, Silent, stage
from mesaform.provision.lock import HeldLock
from mesaform.teardown.execute import Outcome, Teardown
from mesaform.teardown.plan import Plan, Wish
from mesaform.teardown.receipt import Facts, Receipt
from mesaform.teardown.survey import Survey, World, survey
from mesaform.topology.names import Tag
from mesaform.topology.ports import Port

USD_PER_GIB_MONTH_S3 = 0.023


async def look(context: Context) -> Survey:
    """One survey through the real ports.

    Raises:
        NotOwned: the account is not the one that holds the cluster.
        CloudError: the cloud did not answer.

    """
    import aiohttp

    from mesaform import provision
    from mesaform.provision.deployment import read_deployment
    from mesaform.teardown.account_check import require_listed_state

    caller = await asyncio.to_thread(provision.require_pinned_account, context)
    async with aiohttp.ClientSession() as session:
        surveyed = await survey(await asyncio.to_thread(_world, context, session, None))
    require_listed_state(
        surveyed.inventory,
        is_pinned=read_deployment(context.cluster_dir) is not None,
        where=f"the AWS account {caller.account_id} ({context.spec.region})",
        folder=context.cluster_dir,
    )
    return surveyed


async def run(
    context: Context,
    found: Survey,
    planned: Plan,
    report: Report,
    also_kept: Sequence[OwnedResource],
    held: HeldLock,
) -> tuple[Outcome, Receipt, Path]:
    """Carry out a plan; returns its outcome, and the receipt with its file.

    `held` is the lock of Terraform.
    """
    import aiohttp

    from mesaform.teardown.journal import Journal

    async with aiohttp.ClientSession() as session:
        world = await asyncio.to_thread(_world, context, session, report, held)
        journal = Journal(context.cluster_dir, context.spec.name, time.time())
        if journal.is_resumed:
            with stage(report, "Carry on an earlier teardown") as under_way:
                under_way.outcome = f"it was last at: {journal.last_step or 'the beginning'}"
        teardown = Teardown(
            world, journal, report, drain_grace_s=context.spec.autoscaler.drain_grace_s
        )
        outcome = await teardown.run(found, planned)
        if planned.wish.images and outcome.swept.is_clean:
            also_kept = await asyncio.to_thread(_remove_images, context, report)
        spec = context.spec
        outcome = Outcome(outcome.swept, (*outcome.kept, *also_kept), outcome.troubles)
        facts = Facts(
            spec.name,
            spec.target,
            spec.region,
            time.time(),
            stopped_usd_per_hour=0.0,
            also_kept=await asyncio.to_thread(_bucket, context),
        )
        receipt = await asyncio.to_thread(teardown.receipt, found, outcome, facts)
        path = journal.close(receipt.as_record(), facts.now)
        return Outcome(outcome.swept, outcome.kept, teardown.troubles), receipt, path


def _world(
    context: Context, session: Any, report: Report | None, held: HeldLock | None = None
) -> World:
    """The ports. Blocks: asks STS who we are, and EC2 for the masters."""
    from mesaform.aws import client
    from mesaform.aws.ledger import S3Ledger
    from mesaform.aws.resources.sweep import Sweep, resource_kinds
    from mesaform.cli.status import cloud_ports
    from mesaform.mesos.operator import OperatorClient
    from mesaform.provision.deployment import read_deployment
    from mesaform.provision.terraform_state import stack_ids
    from mesaform.status.view import reachable

    spec = context.spec
    deployment = read_deployment(context.cluster_dir)
    fleet, control = cloud_ports(context)
    bucket = client.account_bucket(spec.region)
    has_bucket = _has_bucket(bucket, spec.region)
    masters = [
        machine
        for machine in fleet.machines(spec.name)
        if machine.tags.get(Tag.ROLE) == "master" and machine.state == "running"
    ]
    bases = [
        f"http://{reachable(m.private_address, m.public_address, spec.target)}:{Port.ENGINE_MASTER}"
        for m in masters
    ]

    async def destroy(stacks: tuple[str, ...]) -> None:
        from mesaform import provision

        await provision.destroy(context, report or Silent(), stacks, held)

    return World(
        cluster=spec.name,
        fleet=fleet,
        sweep=Sweep(resource_kinds(spec.name, spec.region), spec.name),
        control=control if has_bucket else None,
        ledger=S3Ledger(bucket, spec.name, spec.region) if has_bucket else None,
        operator=OperatorClient(bases, session) if bases else None,
        stacks=lambda: stack_ids(context.cluster_dir),
        destroy=destroy,
        forget=lambda: forget_deployment(context.cluster_dir),
        deployment_id=deployment.deployment_id if deployment else "",
    )


def _has_bucket(bucket: str, region: str) -> bool:
    from mesaform.aws import client
    from mesaform.aws.errors import translate_errors

    try:
        with translate_errors(f"s3://{bucket}"):
            client.client("s3", region).head_bucket(Bucket=bucket)
    except NotFound:
        return False
    return True


def forget_deployment(folder: Path) -> None:
    """Set aside what this folder knows of a cluster that is proven gone; the next `up` begins anew."""
    from mesaform.provision.deployment import release_deployment
    from mesaform.provision.orphans import unfinished
    from mesaform.provision.terraform_state import set_states_aside

    set_states_aside(folder)
    unfinished(folder).unlink(missing_ok=True)
    release_deployment(folder)


def keep_account(context: Context, wish: Wish) -> list[OwnedResource]:
    """What the account keeps for all clusters: baked images.

    Raises:
        NotOwned: they were asked for, but machines of other clusters run from such images.

    """
    from mesaform.aws import client
    from mesaform.aws.resources.ec2_storage import BakedImages

    spec = context.spec
    if wish.images and (
        others := sorted({machine.tags[Tag.CLUSTER] for machine in _machines_of_others(context)})
    ):
        raise NotOwned(
            f"the images also serve {', '.join(others)}",
            where="--images",
            fix="take those clusters down first, or leave --images out",
        )
    return BakedImages(client.client("ec2", spec.region), spec.name).list()


def _remove_images(context: Context, report: Report) -> list[OwnedResource]:
    """Remove the baked images; returns those that would not go."""
    from mesaform.aws import client
    from mesaform.aws.resources.ec2_storage import BakedImages

    lister = BakedImages(client.client("ec2", context.spec.region), context.spec.name)
    with stage(report, "Remove baked images") as under_way:
        found = lister.list()
        for image in found:
            lister.remove(image)
        under_way.outcome = f"{len(found)} images and their snapshots"
        return lister.list()


def _running_machines(context: Context) -> list[Machine]:
    """Every machine of the account that is not terminated, whosever it is."""
    from mesaform.aws import client
    from mesaform.aws.resources.kind import pages, tag_map

    states = ["pending", "running", "shutting-down", "stopping", "stopped"]
    filters = [{"Name": "instance-state-name", "Values": states}]
    listed = pages(
        client.client("ec2", context.spec.region),
        "describe_instances",
        "listing machines",
        Filters=filters,
    )
    return [
        Machine(
            raw["InstanceId"],
            raw["InstanceType"],
            "",
            "on-demand",
            raw["State"]["Name"],
            "",
            "",
            0.0,
            tag_map(raw.get("Tags")),
        )
        for page in listed
        for reservation in page["Reservations"]
        for raw in reservation["Instances"]
    ]


def _machines_of_others(context: Context) -> list[Machine]:
    return [
        m
        for m in _running_machines(context)
        if m.tags.get(Tag.CLUSTER, context.spec.name) != context.spec.name
    ]


def _bucket(context: Context) -> list[Mapping[str, Any]]:
    """The bucket that outlives the clusters, with what it costs."""
    from mesaform.aws import client
    from mesaform.aws.errors import translate_errors

    region = context.spec.region
    try:
        bucket = client.account_bucket(region)
        if not _has_bucket(bucket, region):
            return []
        with translate_errors(f"s3://{bucket}"):
            listed = (
                client.client("s3", region).get_paginator("list_objects_v2").paginate(Bucket=bucket)
            )
            size = sum(item["Size"] for page in listed for item in page.get("Contents", ()))
    except CloudError:
        return []
    per_hour = size / 2**30 * USD_PER_GIB_MONTH_S3 / 730
    return [
        {
            "kind": "bucket",
            "id": bucket,
            "name": f"{size / 2**20:.1f} MiB of bundles and ledgers",
            "usd_per_hour": per_hour,
        }
    ]


def stop_local(context: Context) -> str:
    """Stop the local cloud unless machines of others run in it; says what was done. Nothing on aws."""
    if context.spec.target != "local":
        return ""
    from mesaform.localcloud import daemon

    if others := _running_machines(context):
        return f"The local cloud stays: {len(others)} machines of others run in it."
    daemon.stop(context.local_dir)
    return "The local cloud is stopped."
