"""Drives the real `cdktf` and reads what Terraform knows. Used by the command line; imports nothing heavy until called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesaform.common.progress import Report
    from mesaform.provision.cluster_context import ClusterContext
    from mesaform.provision.terraform_state import Outputs


async def deploy(place: ClusterContext, report: Report) -> Outputs:
    """Bring all stacks to what the spec says. Idempotent; carries on where an earlier run stopped.

    The environment must point at the cloud (`Context.enter_cloud`).

    Raises:
        MissingPrerequisite: no image of this checkout's recipe, or a program is missing.
        Busy: Terraform of an earlier run is still at work.
        CloudError: Terraform failed: the first cause, with its resource.

    """
    import asyncio

    from mesaform.provision import cdktf_driver, image, orphans
    from mesaform.provision.state_folders import STACKS
    from mesaform.provision.terraform_state import Outputs
    from mesaform.provision.terraform_state import outputs as read

    found = await asyncio.to_thread(image.look_up, place.spec.region)
    await orphans.clear(place, report)
    place.cluster_dir.mkdir(parents=True, exist_ok=True)
    orphans.unfinished(place.cluster_dir).touch()
    await cdktf_driver.run(place, "deploy", STACKS, found, report)
    orphans.unfinished(place.cluster_dir).unlink()
    return read(place) or Outputs()


async def destroy(
    place: ClusterContext, report: Report, stacks: tuple[str, ...] | None = None
) -> None:
    """Destroy the stacks that have state, agents before masters before the network. Idempotent; needs no image.

    Args:
        place: the cluster.
        report: told of progress.
        stacks: only these; None means all. The network takes with it whatever is left in it.

    Raises:
        Busy: Terraform of an earlier run is still at work.
        CloudError: Terraform failed: the first cause, with its resource.

    """
    import asyncio

    from mesaform.provision import cdktf_driver
    from mesaform.provision.image import NOTHING_TO_BOOT
    from mesaform.provision.state_folders import STACKS, state_file
    from mesaform.provision.synthesis import order_for_destruction

    present = [stack for stack in STACKS if state_file(place.cluster_dir, stack).exists()]
    wanted = tuple(stack for stack in present if stacks is None or stack in stacks)
    if not wanted:
        return
    if not await asyncio.to_thread(order_for_destruction, place.cluster_dir):
        await cdktf_driver.run(place, "synth", (), NOTHING_TO_BOOT, report)
        await asyncio.to_thread(order_for_destruction, place.cluster_dir)
    await cdktf_driver.run(place, "destroy", wanted, NOTHING_TO_BOOT, report)


def outputs(place: ClusterContext) -> Outputs | None:
    """What the stacks made, as Terraform's state has it; None if there is nothing."""
    from mesaform.provision.terraform_state import outputs as read

    return read(place)


def terraform_instance_ids(place: ClusterContext) -> set[str]:
    """The EC2 instances that Terraform knows."""
    from mesaform.provision.terraform_state import terraform_instance_ids as read

    return read(place)


def check_prerequisites(place: ClusterContext) -> None:
    """Check what must be installed.

    Raises:
        MissingPrerequisite: something is missing or too old; a line for each.

    """
    from mesaform.provision.prerequisites import check

    check(place)
