"""Removal of what an interrupted `mesaform up` of this folder left outside Terraform's state.

A request that was under way when Terraform was stopped may have been carried out: a launch template
or a role of that name exists, an address is taken, and no state lists it. It would block the next
run. What the stacks declare is adopted first (`adoption`). The rest is removed only with proof: the
last run from this folder did not end well, the resource carries this folder's deployment id, and
Terraform's state does not list it. A machine must also have been launched after that run began. A
master is never removed. The caller holds the lock of Terraform (`lock.hold_terraform`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from mesaform.aws.resources.owned import OwnedResource
from mesaform.common.files import write_atomically
from mesaform.common.progress import Report, stage
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.deployment import Deployment
from mesaform.provision.ownership import AccountView, FolderKnowledge
from mesaform.provision.terraform_state import known_names
from mesaform.topology.names import Tag

IN_THE_WAY = frozenset(
    {
        "instance",
        "launch template",
        "security group",
        "subnet",
        "instance profile",
        "role",
        "parameter",
        *("elastic address", "flow log", "hosted zone", "listener", "load balancer"),
        *("log group", "nat gateway", "target group", "vpc endpoint"),
    }
)
NETWORK = frozenset(
    {"vpc", "egress-only gateway", "internet gateway", "network interface", "route table"}
)
"""Removed as well while no machine of the cluster is in service."""
OTHER_OWNERS = frozenset({"autoscaler", "bake", "access"})
ROUNDS, PAUSE_S = 60, 1.0


def unfinished(folder: Path) -> Path:
    """The marker of a run: it exists from the start of a run until the run ends well."""
    return folder / "unfinished"


def mark_unfinished(folder: Path, began_at: float) -> None:
    """Write the marker. `began_at` is AWS' clock, seconds since the epoch."""
    write_atomically(unfinished(folder), f"{began_at:.0f}\n".encode(), durable=True)


def interrupted_at(folder: Path) -> float | None:
    """When the run began that did not end well; None if the last run ended well.

    A marker without a time is older than this format and proves nothing about machines: infinity.
    """
    try:
        return float(unfinished(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return float("inf")


def is_orphan(
    resource: OwnedResource,
    *,
    known: Collection[str],
    deployment_id: str,
    leftover_machines: Collection[str],
    kinds: Collection[str] = IN_THE_WAY,
) -> bool:
    """Whether a resource is left from this folder's interrupted run and may be removed.

    Args:
        resource: a resource with the cluster's tag.
        known: ids and names that Terraform's state lists.
        deployment_id: this folder's id.
        leftover_machines: ids of machines that the interrupted run launched.
        kinds: kinds of resources that may be removed.

    """
    if resource.kind not in kinds or resource.id in known:
        return False
    if resource.tags.get(Tag.MANAGED_BY) in OTHER_OWNERS:
        return False
    if resource.tags.get(Tag.DEPLOYMENT) != deployment_id:
        return False
    if resource.kind == "instance" and resource.tags.get(Tag.ROLE) == "master":
        return False
    return resource.kind != "instance" or resource.id in leftover_machines


async def clear_orphans(
    place: ClusterContext, view: AccountView, knowledge: FolderKnowledge, report: Report
) -> None:
    """Remove orphans if the last run did not end well and this folder has a deployment id.

    Raises:
        CloudError: the cloud did not answer.

    """
    if knowledge.interrupted_at is None or knowledge.deployment is None:
        return
    from mesaform.aws.resources.sweep import Sweep, resource_kinds

    is_removable = _orphan_test(place, view, knowledge, knowledge.deployment)
    with stage(report, "Remove what an interrupted run left") as under_way:
        sweep = Sweep(
            resource_kinds(place.spec.name, place.spec.region),
            place.spec.name,
            rounds=ROUNDS,
            pause_s=PAUSE_S,
        )
        swept = await sweep.run(wanted=is_removable, report=under_way.advance)
        removed = [f"{count} {kind}" for kind, count in swept.removed_counts().items()]
        under_way.outcome = ", ".join(removed) or "nothing"


def _orphan_test(
    place: ClusterContext, view: AccountView, knowledge: FolderKnowledge, deployment: Deployment
) -> Callable[[OwnedResource], bool]:
    leftovers = {machine.instance_id for machine in view.machines if knowledge.is_leftover(machine)}
    is_in_service = any(machine.instance_id not in leftovers for machine in view.machines)
    known = known_names(place.cluster_dir)

    def is_removable(resource: OwnedResource) -> bool:
        return is_orphan(
            resource,
            known=known,
            deployment_id=deployment.deployment_id,
            leftover_machines=leftovers,
            kinds=IN_THE_WAY if is_in_service else IN_THE_WAY | NETWORK,
        )

    return is_removable
