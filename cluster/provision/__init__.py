"""Deployment and destruction of a cluster's stacks with `cdktf`, and reading of their state.

Used by the command line. Imports nothing heavy until a function is called.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mesaform.common.progress import Report
    from mesaform.provision.cluster_context import ClusterContext
    from mesaform.provision.deployment import Caller
    from mesaform.provision.lock import HeldLock
    from mesaform.provision.ownership import AccountView, FolderKnowledge
    from mesaform.provision.preview import Preview
    from mesaform.provision.terraform_state import Outputs


def require_ownership(place: ClusterContext) -> Caller:
    """Check that this folder may change what the account holds of the cluster's name. Blocks.

    Returns whose credentials are in use. Changes nothing. The environment must point at the cloud.

    Raises:
        NotOwned: the account is another one than at the first `mesaform up`, it holds machines or
            a VPC of this name that this folder did not create, or Terraform's state is damaged.
        CloudError: the cloud did not answer.

    """
    return _look_at_account(place)[0]


async def prepare(place: ClusterContext, report: Report, held: HeldLock) -> Preview:
    """Check ownership, remove what an interrupted run left, and plan changes of running machines.

    The plan is made only where Terraform's state lists machines. Creates nothing.

    Args:
        place: the cluster.
        report: receives progress.
        held: the lock of Terraform.

    Raises:
        NotOwned: as for `require_ownership`.
        MissingPrerequisite: no image of this recipe, or a program is missing.
        CloudError: the cloud did not answer.

    """
    import asyncio

    from mesaform.provision import cdktf_driver, image, orphans
    from mesaform.provision.preview import Preview, preview_changes

    boot_image = await asyncio.to_thread(image.look_up, place.spec.region)
    _, view, knowledge = await asyncio.to_thread(_look_at_account, place)
    await orphans.clear_orphans(place, view, knowledge, report)
    if not terraform_instance_ids(place):
        return Preview()
    await cdktf_driver.synthesize(place, boot_image, report, held)
    return await preview_changes(place, boot_image, report)


async def deploy(
    place: ClusterContext,
    report: Report,
    held: HeldLock | None = None,
    preview: Preview | None = None,
) -> Outputs:
    """Bring all stacks to what the spec says. Idempotent; carries on where an earlier run stopped.

    The environment must point at the cloud (`Context.enter_cloud`).

    Args:
        place: the cluster.
        report: receives progress.
        held: the lock of Terraform, if the caller holds it.
        preview: the result of `prepare`, if the caller has run it under that lock.

    Raises:
        NotOwned: as for `require_ownership`.
        MissingPrerequisite: no image of this recipe, or a program is missing.
        Busy: Terraform of an earlier run is still at work.
        CloudError: Terraform failed: the first cause, with its resource.

    """
    import asyncio

    from mesaform.provision import cdktf_driver, image, orphans
    from mesaform.provision.deployment import establish_deployment
    from mesaform.provision.preview import Preview
    from mesaform.provision.state_folders import STACKS
    from mesaform.provision.terraform_driver import StacksRun
    from mesaform.provision.terraform_state import Outputs, outputs

    boot_image = await asyncio.to_thread(image.look_up, place.spec.region)
    with _terraform_turn(place, held) as turn:
        caller, view, knowledge = await asyncio.to_thread(_look_at_account, place)
        if preview is None:
            await orphans.clear_orphans(place, view, knowledge, report)
        establish_deployment(place.cluster_dir, caller, place.spec.region)
        orphans.mark_unfinished(place.cluster_dir, caller.cloud_time_s)
        known = preview if preview and knowledge.deployment else Preview()
        if not known.is_synthesized:
            await cdktf_driver.synthesize(place, boot_image, report, turn)
        wanted = [stack for stack in STACKS if stack not in known.unchanged]
        await StacksRun(place, boot_image, report, turn).run("apply", wanted)
        orphans.unfinished(place.cluster_dir).unlink()
    return outputs(place) or Outputs()


def _terraform_turn(
    place: ClusterContext, held: HeldLock | None
) -> AbstractContextManager[HeldLock]:
    from mesaform.provision.lock import hold_terraform

    return nullcontext(held) if held else hold_terraform(place.cluster_dir, "cdktf")


def _look_at_account(place: ClusterContext) -> tuple[Caller, AccountView, FolderKnowledge]:
    """The caller, what the account holds, and what this folder can prove, once they agree."""
    from mesaform.provision import deployment, ownership
    from mesaform.provision.orphans import interrupted_at
    from mesaform.provision.terraform_state import read_states

    spec, folder = place.spec, place.cluster_dir
    caller = deployment.identify_caller(spec.region)
    record = deployment.read_deployment(folder)
    deployment.require_account(record, caller, spec.region, place.file)
    view = ownership.view_account(spec.name, spec.region)
    knowledge = ownership.FolderKnowledge(read_states(folder), record, interrupted_at(folder))
    where = f"the AWS account {caller.account_id} ({spec.region})"
    ownership.require_ownership(view, knowledge, spec.name, where, folder)
    return caller, view, knowledge


async def destroy(
    place: ClusterContext,
    report: Report,
    stacks: tuple[str, ...] | None = None,
    held: HeldLock | None = None,
) -> None:
    """Destroy the stacks that have state, agents before masters before the network. Idempotent.

    Needs no image.

    Args:
        place: the cluster.
        report: receives progress.
        stacks: only these; None means all. The network takes with it whatever is left in it.
        held: the lock of Terraform, if the caller holds it.

    Raises:
        NotOwned: the account is another one than at the first `mesaform up`.
        Busy: Terraform of an earlier run is still at work.
        CloudError: Terraform failed: the first cause, with its resource.

    """
    import asyncio

    from mesaform.provision import cdktf_driver
    from mesaform.provision.image import NOTHING_TO_BOOT
    from mesaform.provision.stack_order import is_synthesized
    from mesaform.provision.state_folders import STACKS, state_file
    from mesaform.provision.terraform_driver import StacksRun

    present = [stack for stack in STACKS if state_file(place.cluster_dir, stack).exists()]
    wanted = tuple(stack for stack in present if stacks is None or stack in stacks)
    if not wanted:
        return
    with _terraform_turn(place, held) as turn:
        await asyncio.to_thread(require_pinned_account, place)
        if not await asyncio.to_thread(is_synthesized, place.cluster_dir):
            await cdktf_driver.synthesize(place, NOTHING_TO_BOOT, report, turn)
        await StacksRun(place, NOTHING_TO_BOOT, report, turn).run("destroy", wanted)


def require_pinned_account(place: ClusterContext) -> Caller:
    """Check that the credentials reach the account in which this folder's cluster lives. Blocks.

    Raises:
        NotOwned: account or region differ from those of the first `mesaform up`.
        CloudError: the cloud did not answer.

    """
    from mesaform.provision import deployment

    caller = deployment.identify_caller(place.spec.region)
    record = deployment.read_deployment(place.cluster_dir)
    deployment.require_account(record, caller, place.spec.region, place.file)
    return caller


def forget_deployment(place: ClusterContext) -> None:
    """Set aside what this folder knows of a cluster that is proven gone; the next `up` is a first.

    States that still list resources are renamed, and the record of the deployment is removed.
    """
    from mesaform.provision.deployment import release_deployment
    from mesaform.provision.orphans import unfinished
    from mesaform.provision.terraform_state import set_states_aside

    set_states_aside(place.cluster_dir)
    unfinished(place.cluster_dir).unlink(missing_ok=True)
    release_deployment(place.cluster_dir)


def outputs(place: ClusterContext) -> Outputs | None:
    """The outputs of the stacks, as Terraform's state lists them; None if there is nothing."""
    from mesaform.provision.terraform_state import outputs as read

    return read(place)


def terraform_instance_ids(place: ClusterContext) -> set[str]:
    """The ids of the EC2 instances that Terraform knows."""
    from mesaform.provision.terraform_state import terraform_instance_ids as read

    return read(place)


def check_prerequisites(place: ClusterContext) -> None:
    """Check what must be installed.

    Raises:
        MissingPrerequisite: something is missing or too old; a line for each.

    """
    from mesaform.provision.prerequisites import check

    check(place)
