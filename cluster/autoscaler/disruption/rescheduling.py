"""Tasks of machines that are being removed, as demand, and the capacity reserved for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.autoscaler.model.cluster_view import Agent, Constraint
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import is_terminating
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing.free_capacity import FreeCapacity


def work_of(agent: Agent, apps: Mapping[str, tuple[Constraint, ...]] | None) -> list[DemandItem]:
    """An agent's tasks as units of demand, equal ones together."""
    counts: dict[tuple[str, Shape], int] = {}
    for work in agent.work:
        counts[work.name, work.shape] = counts.get((work.name, work.shape), 0) + 1
    known = apps or {}
    return [
        DemandItem(
            "displaced",
            name,
            shape,
            count,
            (Reason.of(ReasonCode.DEMAND_DISPLACED, app=name, instance_id=agent.instance_id),),
            known.get(name, ()),
        )
        for (name, shape), count in counts.items()
    ]


@dataclass(slots=True)
class Reservations:
    """The places kept for tasks that are on the move: `hosts` are not idle, and the tasks of each of `homeless` fit nowhere."""

    hosts: set[str] = field(default_factory=set)
    unschedulable: set[str] = field(default_factory=set)


def hold(snapshot: Snapshot, supply: Supply, room: FreeCapacity) -> Reservations:
    """Keep room for the tasks of machines that are being emptied, or wait for their replacement."""
    held = Reservations()
    waiting = {
        name
        for replacement in snapshot.state.replacements.values()
        for name in replacement.old_instance_ids
    }
    leaving = moving(snapshot, supply)
    for unit in supply.agent_nodes:
        name = unit.machine.instance_id
        if (
            name not in leaving
            or unit.agent is None
            or not unit.agent.work
            or is_terminating(snapshot.state, name, 0.0)
        ):
            continue  # what has to leave an announced end is demand already
        hosts = room.fit(
            work_of(unit.agent, snapshot.app_constraints), leaving, coming=name in waiting
        )
        if hosts is None:
            held.unschedulable.add(name)
        else:
            held.hosts |= hosts
    return held


def moving(snapshot: Snapshot, supply: Supply) -> set[str]:
    """Machines that are being emptied, or wait for their replacement."""
    names = {
        unit.machine.instance_id
        for unit in supply.agent_nodes
        if unit.removal is not None and unit.removal.is_disruptive
    }
    return names | {
        name
        for replacement in snapshot.state.replacements.values()
        for name in replacement.old_instance_ids
    }


def names_of(units: Iterable[DemandItem]) -> tuple[str, ...]:
    """`3 x /web`, for people."""
    return tuple(f"{unit.count} x {unit.name}" for unit in units)
