"""Cost of a cluster before and after planned changes, by the price function of every verb. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mesaform.aws.ports import Machine
from mesaform.aws.pricing.cluster_cost import ClusterCost, cluster_cost
from mesaform.aws.pricing.prices import Prices
from mesaform.config.schema import ClusterSpec
from mesaform.provision.machine_changes import MachineChange
from mesaform.topology.names import Tag


@dataclass(frozen=True, slots=True)
class CostChange:
    """What the cluster costs now, and after the changes."""

    before: ClusterCost
    after: ClusterCost

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Types of both without a known price."""
        return tuple(sorted({*self.before.unpriced, *self.after.unpriced}))


def cost_change(
    spec: ClusterSpec,
    machines: Sequence[Machine],
    changes: Iterable[MachineChange],
    prices: Prices,
) -> CostChange:
    """The cost of a cluster before and after changes.

    Args:
        spec: the cluster.
        machines: every machine of the cluster that EC2 lists.
        changes: what a deployment would do to them.
        prices: the prices of the region.

    """
    after = _machines_after(spec, machines, changes)
    return CostChange(cluster_cost(spec, machines, prices), cluster_cost(spec, after, prices))


def _machines_after(
    spec: ClusterSpec, machines: Sequence[Machine], changes: Iterable[MachineChange]
) -> list[Machine]:
    by_id = {machine.instance_id: machine for machine in machines}
    for number, change in enumerate(changes):
        if change.action == "add":
            by_id[f"new-{number}"] = _new_machine(spec, change)
        elif change.action == "destroy":
            by_id.pop(change.instance_id, None)
        elif change.instance_id in by_id and change.type_after:
            changed = replace(by_id[change.instance_id], instance_type=change.type_after)
            by_id[change.instance_id] = changed
    return list(by_id.values())


def _new_machine(spec: ClusterSpec, change: MachineChange) -> Machine:
    """The machine that a change adds; Terraform's machines are on demand in every zone."""
    return Machine(
        instance_id="",
        instance_type=change.type_after,
        zone=spec.zones[0],
        capacity="on-demand",
        state="running",
        private_address="",
        public_address="",
        launched_at=0.0,
        tags={Tag.ROLE: change.role, Tag.POOL: change.pool},
    )
