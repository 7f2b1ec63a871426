"""What an interrupted run made and Terraform's state does not list is taken over into the state.

Depends on stacks that are synthesized with the folder's deployment id. The caller holds the lock of
Terraform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from mesaform.common.errors import CloudError
from mesaform.common.json_types import as_object
from mesaform.common.progress import Report, stage
from mesaform.provision.adoption import adopt, find_and_search
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import Deployment, read_deployment
from mesaform.provision.disk_tags import tag_disks
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.ownership import AccountView, view_account
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_run import TerraformRunner, open_runner
from mesaform.provision.terraform_state import (
    ManagedResource,
    managed_resources,
    tainted_machines,
)
from mesaform.topology.names import Tag


async def take_over(
    place: ClusterContext, image: BootImages, report: Report, held: HeldLock
) -> None:
    """Adopt declared resources that no state lists, and keep living machines marked as damaged.

    Raises:
        CloudError: AWS did not answer, or Terraform cannot adopt them.

    """
    deployment = read_deployment(place.cluster_dir)
    if deployment is None:
        return
    runner = await open_runner(place, image, held)
    await _forget_ended_machines(place, deployment, runner, report)
    findings = await find_and_search(place, deployment.deployment_id, report)
    if findings.imports:
        await adopt(place, findings.imports, runner, report)
    await _untaint_machines(place, runner, report)
    await asyncio.to_thread(tag_disks, place.spec, deployment.deployment_id)


async def _forget_ended_machines(
    place: ClusterContext, deployment: Deployment, runner: TerraformRunner, report: Report
) -> None:
    """Drop machines that have ended from the state where the account has their successors.

    A killed Terraform may have replaced a machine without writing that down: the state has the old
    machine at the address, and only an address without a machine is adopted.
    """
    view = await asyncio.to_thread(view_account, place.spec.name, place.spec.region)
    ended = find_succeeded(managed_resources(place.cluster_dir), view, deployment.deployment_id)
    if not ended:
        return
    with stage(report, "Forget machines that were replaced") as under_way:
        for resource in ended:
            folder = stack_dir(place.cluster_dir, resource.stack)
            await _change_state(folder, runner, "state", "rm", resource.address)
        under_way.outcome = ", ".join(resource.id for resource in ended)


def find_succeeded(
    resources: Iterable[ManagedResource], view: AccountView, deployment_id: str
) -> tuple[ManagedResource, ...]:
    """Machines of the state that have ended and have a living successor of their name. Pure.

    The successor carries the deployment id, and the state does not list it.
    """
    machines = [item for item in resources if item.kind == "aws_instance"]
    successors = _unlisted_names(view, set(map(attrgetter("id"), machines)), deployment_id)
    living = set(map(attrgetter("instance_id"), view.machines))
    return tuple(
        machine
        for machine in machines
        if machine.id not in living and _name_of(machine) in successors
    )


def _unlisted_names(view: AccountView, known: set[str], deployment_id: str) -> set[str]:
    """Names of living machines of this deployment that the state does not list."""
    unknown = [machine.tags for machine in view.machines if machine.instance_id not in known]
    own = [tags for tags in unknown if tags.get(Tag.DEPLOYMENT) == deployment_id]
    return {tags[Tag.NAME] for tags in own if Tag.NAME in tags}


def _name_of(machine: ManagedResource) -> object:
    return as_object(machine.attributes.get("tags")).get(Tag.NAME)


async def _untaint_machines(place: ClusterContext, runner: TerraformRunner, report: Report) -> None:
    """Keep living machines whose creation was interrupted while Terraform waited for them.

    Terraform marks such a machine as tainted and would replace it. EC2 creates a machine whole, so
    a living one needs no replacement.
    """
    tainted = tainted_machines(place.cluster_dir)
    if not tainted:
        return
    view = await asyncio.to_thread(view_account, place.spec.name, place.spec.region)
    living = {machine.instance_id for machine in view.machines}
    kept = [resource for resource in tainted if resource.id in living]
    with stage(report, "Keep machines of the interrupted run") as under_way:
        for resource in kept:
            folder = stack_dir(place.cluster_dir, resource.stack)
            await _change_state(folder, runner, "untaint", "-no-color", resource.address)
        under_way.outcome = f"{len(kept)} machines"


async def _change_state(folder: Path, runner: TerraformRunner, *arguments: str) -> None:
    await runner.initialize(folder)
    ended = await runner.run(folder, *arguments)
    if ended.code:
        raise CloudError(ended.first_error, where=arguments[-1])
