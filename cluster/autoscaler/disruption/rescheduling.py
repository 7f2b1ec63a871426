"""Tasks of machines that leave, as demand, and the capacity reserved for them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import is_terminating
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.placement.constraints import Constraint


def work_of(
    agent: Agent, app_constraints: Mapping[str, tuple[Constraint, ...]] | None
) -> list[DemandItem]:
    """An agent's tasks as demand items; tasks of one name and shape are one item."""
    counts = Counter((task.name, task.shape, task.constraints) for task in agent.work)
    constraints = app_constraints or {}
    return [
        DemandItem(
            "displaced",
            name,
            shape,
            count,
            (Reason.of(ReasonCode.DEMAND_DISPLACED, app=name, instance_id=agent.instance_id),),
            (*constraints.get(name, ()), *own),
        )
        for (name, shape, own), count in counts.items()
    ]


@dataclass(frozen=True, slots=True)
class Reservations:
    """Capacity reserved for tasks of machines that leave.

    `hosts` are the nodes that it is on; they do not count as idle. `unschedulable` are machines
    with tasks that fit nowhere.
    """

    hosts: frozenset[str] = frozenset()
    unschedulable: frozenset[str] = frozenset()


def reserve(snapshot: Snapshot, supply: Supply, free_capacity: FreeCapacity) -> Reservations:
    """Reserve capacity for the tasks of machines that are emptied or wait for a replacement.

    Tasks that leave because of an announced end are demand already and are left out. Only tasks
    that wait for a replacement may use machines that still boot.
    """
    waiting = _being_replaced(snapshot)
    leaving = moving(snapshot, supply)
    hosts: set[str] = set()
    unschedulable: set[str] = set()
    for node in supply.agent_nodes:
        if node.name not in leaving or node.agent is None or not node.agent.work:
            continue
        if is_terminating(snapshot.state, node.name, 0.0):
            continue
        work = work_of(node.agent, snapshot.app_constraints)
        used = free_capacity.fit(work, leaving, use_arriving=node.name in waiting)
        if used is None:
            unschedulable.add(node.name)
        else:
            hosts |= used
    return Reservations(frozenset(hosts), frozenset(unschedulable))


def moving(snapshot: Snapshot, supply: Supply) -> set[str]:
    """Machines that are emptied or wait for their replacement."""
    emptied = {
        node.name
        for node in supply.agent_nodes
        if node.removal is not None and node.removal.is_disruptive
    }
    return emptied | _being_replaced(snapshot)


def _being_replaced(snapshot: Snapshot) -> set[str]:
    return {
        name
        for replacement in snapshot.state.replacements.values()
        for name in replacement.old_instance_ids
    }


def names_of(items: Iterable[DemandItem]) -> tuple[str, ...]:
    """Count and name of each item: `3 x /web`."""
    return tuple(f"{item.count} x {item.name}" for item in items)
