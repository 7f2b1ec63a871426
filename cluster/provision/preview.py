"""Preview of a deployment: which running machines Terraform would replace, destroy or stop.

Runs `terraform plan` for each synthesized stack, side by side, and reads the plans that change
something (`terraform show -json`). The plan changes nothing. Depends on a synthesis that is newer
than the cluster file; the caller holds the lock of Terraform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.common.progress import Report, stage
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.data_volumes import find_losses
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.stack_order import creation_order
from mesaform.provision.state_folders import STACKS, stack_dir
from mesaform.provision.terraform_run import (
    NO_CHANGES,
    Planned,
    TerraformRunner,
    forget_plan,
    open_runner,
)
from mesaform.provision.terraform_state import managed_resources
from mesaform.topology.names import Tag

Action = Literal["replace", "destroy", "stop and start"]
GROUND = frozenset({"aws_vpc", "aws_subnet"})
"""Resources below every machine: whoever replaces one replaces the machines."""


@dataclass(frozen=True, slots=True)
class MachineChange:
    """A running machine that the deployment would take out of service. `why` names attributes.

    `address` is Terraform's address within the machine's stack.
    """

    instance_id: str
    name: str
    role: str
    action: Action
    why: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deployment would do to machines.

    `unplanned` are stacks for which Terraform could not plan before others are deployed: their
    machines may be replaced; `errors` are Terraform's reasons. `unchanged` are stacks that are as
    they should be, like all that they depend on. `is_synthesized` says that the stacks need not be
    synthesized again. `replaces_network` says that the VPC or a subnet goes; `lost_volumes` are
    phrases about data volumes that would be lost.
    """

    changes: tuple[MachineChange, ...] = ()
    unplanned: tuple[str, ...] = ()
    unchanged: frozenset[str] = frozenset()
    is_synthesized: bool = False
    replaces_network: bool = False
    lost_volumes: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def masters_known(self) -> bool:
        """Whether Terraform could plan the masters."""
        return "masters" not in self.errors

    @property
    def masters(self) -> tuple[MachineChange, ...]:
        """The changes of masters."""
        return tuple(change for change in self.changes if change.role == "master")


async def preview_changes(
    place: ClusterContext, image: BootImages, report: Report, held: HeldLock
) -> Preview:
    """Plan the synthesized stacks.

    Raises:
        MissingPrerequisite: terraform is missing.

    """
    runner = await open_runner(place, image, held)
    with stage(report, "Plan the changes") as under_way:
        folders = [stack_dir(place.cluster_dir, stack) for stack in STACKS]
        plans = await asyncio.gather(*(_plan(runner, folder) for folder in folders))
        planned = dict(zip(STACKS, plans, strict=True))
        known = [plan.document for plan in plans if plan.document is not None]
        changes = tuple(read_changes(known))
        replaces_network = any(map(replaces_ground, known))
        if replaces_network:
            changes = _every_machine(place)
        errors = {stack: plan.error for stack, plan in planned.items() if plan.document is None}
        under_way.outcome = _summary(changes, tuple(errors))
    return Preview(
        changes,
        tuple(errors),
        _unchanged(place.cluster_dir, planned),
        is_synthesized=True,
        replaces_network=replaces_network,
        lost_volumes=tuple(find_losses(known)),
        errors=errors,
    )


async def _plan(runner: TerraformRunner, folder: Path) -> Planned:
    try:
        return await runner.plan(folder)
    finally:
        forget_plan(folder)


def _unchanged(folder: Path, planned: Mapping[str, Planned]) -> frozenset[str]:
    """The stacks that are as they should be, like all that they depend on."""
    same = {stack for stack, plan in planned.items() if plan.document == NO_CHANGES}
    order = creation_order(folder, STACKS)
    return frozenset(stack for stack in same if order[stack] <= same)


def read_changes(plans: Iterable[JsonObject]) -> Iterator[MachineChange]:
    """Machines that plans (`terraform show -json`) replace, destroy, or stop and start."""
    for address, change in _resource_changes(plans, {"aws_instance"}):
        before, after = as_object(change.get("before")), as_object(change.get("after"))
        if (action := _action(change, before, after)) is None:
            continue
        tags = as_object(before.get("tags_all") or before.get("tags"))
        yield MachineChange(
            str(before.get("id")),
            str(tags.get(Tag.NAME) or before.get("id")),
            str(tags.get(Tag.ROLE, "")),
            action,
            tuple(_changed_attributes(change, before, after)) if action != "destroy" else (),
            address,
        )


def replaces_ground(plan: JsonObject) -> bool:
    """Whether a plan deletes or replaces the VPC or a subnet."""
    return any(
        "delete" in as_list(change.get("actions"))
        for _, change in _resource_changes([plan], GROUND)
    )


def _resource_changes(
    plans: Iterable[JsonObject], kinds: Collection[str]
) -> Iterator[tuple[str, JsonObject]]:
    for plan in plans:
        for resource in map(as_object, as_list(plan.get("resource_changes"))):
            if str(resource.get("type")) in kinds:
                yield str(resource.get("address", "")), as_object(resource.get("change"))


def _action(change: JsonObject, before: JsonObject, after: JsonObject) -> Action | None:
    actions = as_list(change.get("actions"))
    if "delete" in actions:
        return "replace" if "create" in actions else "destroy"
    if "update" in actions and before.get("instance_type") != after.get("instance_type"):
        return "stop and start"
    return None


def _changed_attributes(change: JsonObject, before: JsonObject, after: JsonObject) -> Iterator[str]:
    """The attributes that force the change; those that differ where Terraform names none."""
    paths = [".".join(map(str, as_list(path))) for path in as_list(change.get("replace_paths"))]
    if paths:
        yield from paths
        return
    if before.get("instance_type") != after.get("instance_type"):
        yield "instance_type"


def _every_machine(place: ClusterContext) -> tuple[MachineChange, ...]:
    machines = [
        resource
        for resource in managed_resources(place.cluster_dir)
        if resource.kind == "aws_instance" and resource.id
    ]
    tags = [as_object(machine.attributes.get("tags")) for machine in machines]
    return tuple(
        MachineChange(
            machine.id,
            str(tag.get(Tag.NAME) or machine.id),
            str(tag.get(Tag.ROLE, "")),
            "replace",
            ("network",),
        )
        for machine, tag in zip(machines, tags, strict=True)
    )


def _summary(changes: tuple[MachineChange, ...], unplanned: tuple[str, ...]) -> str:
    parts = [f"{len(changes)} machines change" if changes else "no machine is replaced"]
    if unplanned:
        parts.append(f"not known yet for {', '.join(unplanned)}")
    return "; ".join(parts)
