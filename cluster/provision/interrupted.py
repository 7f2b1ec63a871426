"""What an interrupted run made and Terraform's state does not list is taken over into the state.

Depends on stacks that are synthesized with the folder's deployment id. The caller holds the lock of
Terraform.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from mesaform.common.errors import CloudError
from mesaform.common.progress import Report, stage
from mesaform.provision.adoption import adopt, find_and_search
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import read_deployment
from mesaform.provision.disk_tags import tag_disks
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.ownership import view_account
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_run import TerraformRunner, open_runner
from mesaform.provision.terraform_state import tainted_machines


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
    findings = await find_and_search(place, deployment.deployment_id, report)
    if findings.imports:
        await adopt(place, findings.imports, runner, report)
    await _untaint_machines(place, runner, report)
    await asyncio.to_thread(tag_disks, place.spec, deployment.deployment_id)


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
            await _untaint(stack_dir(place.cluster_dir, resource.stack), resource.address, runner)
        under_way.outcome = f"{len(kept)} machines"


async def _untaint(folder: Path, address: str, runner: TerraformRunner) -> None:
    await runner.initialize(folder)
    ended = await runner.run(folder, "untaint", "-no-color", address)
    if ended.code:
        raise CloudError(ended.first_error, where=address)
