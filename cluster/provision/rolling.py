"""Replacement of masters one at a time, each only while all others serve.

A master's disk goes with its machine; the new one has the data on its volume, or copies ZooKeeper's
data from the others where there was no volume yet. Two masters at a time would leave no majority.
The caller holds the lock of Terraform; the stacks are synthesized.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from mesaform.common.errors import BadInput, CloudError
from mesaform.common.progress import Report, stage
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.preview import MachineChange, Preview, preview_changes, read_changes
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_run import TerraformRunner, forget_plan, open_runner


async def preview_safely(
    place: ClusterContext, image: BootImages, report: Report, held: HeldLock
) -> Preview:
    """Plan the stacks, and check that masters can change one at a time.

    Where the masters cannot be planned before the network is up to date, the network is brought up
    to date first, unless that would remove the VPC or a subnet.

    Raises:
        BadInput: the VPC or a subnet below living masters, or a volume with their data, would go.
        CloudError: Terraform cannot plan the masters.

    """
    preview = await preview_changes(place, image, report, held)
    _require_same_network(preview)
    _require_volumes(preview)
    if preview.masters_known:
        return preview
    await apply_network(place, await open_runner(place, image, held), report)
    preview = await preview_changes(place, image, report, held)
    _require_same_network(preview)
    _require_volumes(preview)
    if not preview.masters_known:
        raise CloudError(
            f"Terraform cannot plan the masters: {preview.errors['masters']}",
            where="masters",
            fix="no machine was changed; correct it and run the same command again",
        )
    return preview


def _require_same_network(preview: Preview) -> None:
    if preview.replaces_network and preview.masters:
        raise BadInput(
            "the VPC or a subnet below the masters would be replaced, and all masters with it:"
            " ZooKeeper's data, with all app definitions, would be lost",
            where="network",
            fix="nothing was changed; restore network and zones in cluster.yaml, or begin anew:"
            " mesaform down, then mesaform up",
        )


def _require_volumes(preview: Preview) -> None:
    if preview.lost_volumes:
        raise BadInput(
            f"the data of masters would be lost: {'; '.join(preview.lost_volumes)}",
            where="masters.data_volume",
            fix="nothing was changed; restore zones, kms_key_id and size_gib in cluster.yaml, or"
            " begin anew: mesaform down, then mesaform up",
        )


async def replace_one_by_one(
    place: ClusterContext,
    masters: Sequence[MachineChange],
    runner: TerraformRunner,
    report: Report,
    wait_until_whole: Callable[[], Awaitable[None]],
) -> None:
    """Bring the network up to date, then replace each master and wait until all serve again.

    Raises:
        MesaformError: a master did not come back: the others were not touched.
        CloudError: Terraform failed, or its plan would take another machine along.

    """
    await wait_until_whole()
    await apply_network(place, runner, report)
    for number, master in enumerate(masters, 1):
        name = f"{master.action.capitalize()} {master.name} ({number} of {len(masters)})"
        with stage(report, name, ", ".join(master.why)):
            await _replace(place, master, runner)
        await wait_until_whole()


async def apply_network(place: ClusterContext, runner: TerraformRunner, report: Report) -> None:
    """Apply the network's changes, which the new masters may need."""
    folder = stack_dir(place.cluster_dir, "network")
    with stage(report, "Update network"):
        planned = await runner.plan(folder)
        if planned.document is None:
            raise CloudError(planned.error, where="network")
        ended = await runner.apply(folder)
        if ended.code:
            raise CloudError(ended.first_error, where="network")


async def _replace(place: ClusterContext, master: MachineChange, runner: TerraformRunner) -> None:
    folder = stack_dir(place.cluster_dir, "masters")
    try:
        planned = await runner.plan(folder, f"-target={master.address}")
        if planned.document is None:
            raise CloudError(planned.error, where=master.address)
        changed = {change.instance_id for change in read_changes([planned.document])}
        if changed - {master.instance_id}:
            others = ", ".join(sorted(changed - {master.instance_id}))
            raise CloudError(
                f"the replacement of {master.name} would take {others} along",
                where=master.address,
                fix="nothing more was changed",
            )
        ended = await runner.apply(folder)
        if ended.code:
            raise CloudError(ended.first_error, where=master.address)
    finally:
        forget_plan(folder)
