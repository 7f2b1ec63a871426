"""What an interrupted run left in the cloud without Terraform's knowledge, and would now be in the way.

A request that was under way when Terraform was stopped may have been carried out: a launch template or a role of that name
exists, an address is taken, and no state has it. Such a thing is removed before the next run, but only if all of this holds:
the last run from this folder did not end well, this folder's state has the cluster's VPC, the thing carries the cluster's
tag, and neither the autoscaler nor anybody else claims it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mesaform.aws.resources.owned import OwnedResource
from mesaform.common.progress import Report, stage
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.terraform_state import known_names, vpc_is_known
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
    }
)
OTHERS = frozenset({"autoscaler", "bake"})
ROUNDS, PAUSE_S = 60, 1.0


def unfinished(folder: Path) -> Path:
    """Exists from the start of a run until it ends well."""
    return folder / "unfinished"


def is_stray(resource: OwnedResource, known: Iterable[str]) -> bool:
    """Whether a resource of the cluster's is in the way of a run whose state has only `known` ids and names."""
    return (
        resource.kind in IN_THE_WAY
        and resource.id not in set(known)
        and resource.tags.get(Tag.MANAGED_BY) not in OTHERS
    )


async def clear(place: ClusterContext, report: Report) -> None:
    """Remove strays, if the last run did not end well.

    Raises:
        CloudError: the cloud could not be asked.

    """
    if not unfinished(place.cluster_dir).exists() or not vpc_is_known(place):
        return
    from mesaform.aws.resources.sweep import Sweep, resource_kinds

    known = known_names(place)
    with stage(report, "Clear what an interrupted run left") as under_way:
        sweep = Sweep(
            resource_kinds(place.spec.name, place.spec.region),
            place.spec.name,
            rounds=ROUNDS,
            pause_s=PAUSE_S,
        )
        swept = await sweep.run(
            wanted=lambda resource: is_stray(resource, known), report=under_way.advance
        )
        under_way.outcome = (
            ", ".join(f"{count} {kind}" for kind, count in swept.removed_counts().items())
            or "nothing"
        )
