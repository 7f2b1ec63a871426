"""Preview of a deployment: what Terraform would add, change, replace and destroy.

Runs `terraform plan` for each synthesized stack that has resources, side by side, and reads the
plans that change something (`terraform show -json`). The plan changes nothing. Of a stack without
resources everything that it declares is created. Depends on a synthesis that is newer than the
cluster file; the caller holds the lock of Terraform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from mesaform.common.json_types import JsonObject
from mesaform.common.progress import Report, stage
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.data_volumes import find_losses
from mesaform.provision.image import BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.machine_changes import (
    MachineChange,
    ResourceCounts,
    changed_templates,
    changes_of,
    count_changes,
    count_declared,
    declared_machines,
    replaces_ground,
)
from mesaform.provision.outdated import (
    find_outdated,
    known_machines,
    read_declared_stack,
    replacement_of,
)
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


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deployment would do.

    `unplanned` are stacks for which Terraform could not plan before others are deployed: their
    machines may be replaced; `errors` are Terraform's reasons. `unchanged` are stacks that are as
    they should be, like all that they depend on. `is_synthesized` says that the stacks need not be
    synthesized again. `replaces_network` says that the VPC or a subnet goes; `lost_volumes` are
    phrases about data volumes that would be lost. `counts` are numbers of resources by stack.
    `outdated` are running machines that would boot another image, or with other user data, if they
    were created now: only `mesaform upgrade` replaces them. `incompatible` are those of them that
    do not work together with machines that boot now. `changed_templates` are names of launch
    templates that change. `autoscaled` are agents of the autoscaler that are replaced afterwards.
    """

    changes: tuple[MachineChange, ...] = ()
    unplanned: tuple[str, ...] = ()
    unchanged: frozenset[str] = frozenset()
    is_synthesized: bool = False
    replaces_network: bool = False
    lost_volumes: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, ResourceCounts] = field(default_factory=dict)
    outdated: tuple[MachineChange, ...] = ()
    incompatible: tuple[MachineChange, ...] = ()
    changed_templates: frozenset[str] = frozenset()
    autoscaled: tuple[MachineChange, ...] = ()

    @property
    def masters_known(self) -> bool:
        """Whether Terraform could plan the masters."""
        return "masters" not in self.errors

    @property
    def masters(self) -> tuple[MachineChange, ...]:
        """The changes of masters."""
        return tuple(change for change in self.changes if change.role == "master")

    @property
    def agents(self) -> tuple[MachineChange, ...]:
        """The changes of agents."""
        return tuple(change for change in self.changes if change.role == "agent")

    @property
    def disruptive(self) -> tuple[MachineChange, ...]:
        """The changes that take a running machine out of service."""
        terraform = tuple(change for change in self.changes if change.is_disruptive)
        return (*terraform, *self.autoscaled)

    @property
    def total(self) -> ResourceCounts:
        """Numbers of resources of all stacks."""
        return sum(self.counts.values(), ResourceCounts())

    def for_role(self, role: str) -> Preview:
        """The part of the preview that concerns machines of a role and their stack."""
        stack = f"{role}s"
        return replace(
            self,
            changes=tuple(change for change in self.changes if change.role == role),
            outdated=tuple(change for change in self.outdated if change.role == role),
            counts={name: counts for name, counts in self.counts.items() if name == stack},
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all would change."""
        return not (self.unplanned or self.total or self.changes or self.autoscaled)


async def preview_changes(
    place: ClusterContext, image: BootImages, report: Report, held: HeldLock
) -> Preview:
    """Plan the synthesized stacks.

    Raises:
        MissingPrerequisite: terraform is missing.

    """
    runner = await open_runner(place, image, held)
    with stage(report, "Plan the changes") as under_way:
        planned = await plan_stacks(place.cluster_dir, runner)
        preview = read_preview(place.cluster_dir, planned)
        under_way.outcome = _summary(preview)
    return preview


async def plan_stacks(folder: Path, runner: TerraformRunner) -> dict[str, Planned]:
    """Plan the stacks that have resources. The others have no plan."""
    present = sorted({resource.stack for resource in managed_resources(folder)})
    plans = await asyncio.gather(*(_plan(runner, stack_dir(folder, name)) for name in present))
    return dict.fromkeys(STACKS, Planned(None)) | dict(zip(present, plans, strict=True))


def read_preview(folder: Path, planned: Mapping[str, Planned]) -> Preview:
    """What the plans of all stacks would do to a cluster, from the folder's synthesis and state."""
    documents = {name: plan.document for name, plan in planned.items() if plan.document is not None}
    present = {resource.stack for resource in managed_resources(folder)}
    failed = planned.keys() - documents.keys()
    errors = {stack: planned[stack].error for stack in sorted(failed & present)}
    first = sorted(failed - present, key=STACKS.index)
    declared = {name: read_declared_stack(folder, name) for name in first}
    changes = (*changes_of(documents.values()), *chain(*map(declared_machines, declared.values())))
    replaces_network = any(map(replaces_ground, documents.values()))
    return Preview(
        tuple(_every_machine(folder)) if replaces_network else changes,
        tuple(errors),
        _unchanged(folder, planned),
        is_synthesized=True,
        replaces_network=replaces_network,
        lost_volumes=tuple(find_losses(documents.values())),
        errors=errors,
        counts=_counts(documents, declared),
        outdated=find_outdated(folder, {change.instance_id for change in changes}),
        changed_templates=frozenset(changed_templates(documents.values())),
    )


def _counts(
    plans: Mapping[str, JsonObject], declared: Mapping[str, JsonObject]
) -> dict[str, ResourceCounts]:
    counts = {stack: count_changes(document) for stack, document in plans.items()}
    return counts | {stack: count_declared(document) for stack, document in declared.items()}


def preview_first(folder: Path) -> Preview:
    """What the first deployment creates: everything that the synthesized stacks declare."""
    nothing = {stack: Planned(None) for stack in STACKS}
    return read_preview(folder, nothing)


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


def _every_machine(folder: Path) -> Iterator[MachineChange]:
    for resource in known_machines(folder):
        yield replacement_of(resource, resource.attributes, ("network",))


def _summary(preview: Preview) -> str:
    disruptive = len(preview.disruptive)
    changes = "1 machine changes" if disruptive == 1 else f"{disruptive} machines change"
    parts = [changes if disruptive else "no machine is replaced"]
    if preview.unplanned:
        parts.append(f"not known yet for {', '.join(preview.unplanned)}")
    return "; ".join(parts)
