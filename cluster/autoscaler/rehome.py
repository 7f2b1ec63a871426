"""Where the tasks of a machine would go if it went: its work as demand, and the room that is left once real demand has its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.autoscaler.demand import Unit
from cluster.autoscaler.model import Agent, Constraint, Snapshot
from cluster.autoscaler.packing import Placement, place
from cluster.autoscaler.shape import Shape, minus, times
from cluster.autoscaler.supply import Supply


def work_of(agent: Agent, apps: Mapping[str, tuple[Constraint, ...]] | None) -> list[Unit]:
    """An agent's tasks as units of demand, equal ones together."""
    counts: dict[tuple[str, Shape], int] = {}
    for work in agent.work:
        counts[work.name, work.shape] = counts.get((work.name, work.shape), 0) + 1
    known = apps or {}
    return [
        Unit("displaced", name, shape, count, f"{name} would move off {agent.instance_id}", known.get(name, ()))
        for (name, shape), count in counts.items()
    ]


class Room:
    """What is free on each node after demand was placed. Placing here takes it."""

    def __init__(self, supply: Supply, units: Sequence[Unit], placement: Placement) -> None:
        taken: dict[str, Shape] = {}
        for index, nodes in placement.placed.items():
            for name, count in nodes.items():
                before = taken.get(name, (0, 0, 0, 0, 0))
                load = times(units[index].shape, count)
                taken[name] = (before[0] + load[0], before[1] + load[1], before[2] + load[2], before[3] + load[3], before[4] + load[4])
        self._nodes = {
            node.name: replace(node, free=minus(node.free, taken[node.name])) if node.name in taken else node for node in supply.nodes
        }
        self._usage = supply.usage

    def fit(self, units: Sequence[Unit], without: Collection[str], *, coming: bool = False) -> set[str] | None:
        """Place all of these on nodes other than `without`; the names of those that took some, or None if they do not all fit.

        Nothing is taken then. Machines on their way count only with `coming`; machines on their way out never.
        """
        kinds = {"settled", "idle", "coming"} if coming else {"settled", "idle"}
        usage = self._usage.copy()
        nodes = [node for node in self._nodes.values() if node.kind in kinds and node.name not in without]
        placement = place(units, nodes, usage)
        if any(placement.left.values()):
            return None
        self._take(units, placement)
        self._usage = usage
        return {name for names in placement.placed.values() for name in names}

    def remaining(self, units: Sequence[Unit], without: Collection[str]) -> dict[int, int]:
        """How many of each unit (by index) find no place; nothing is taken."""
        nodes = [node for node in self._nodes.values() if node.kind in {"settled", "idle"} and node.name not in without]
        return place(units, nodes, self._usage.copy()).left

    def _take(self, units: Sequence[Unit], placement: Placement) -> None:
        for index, names in placement.placed.items():
            for name, count in names.items():
                node = self._nodes[name]
                self._nodes[name] = replace(node, free=minus(node.free, times(units[index].shape, count)))


@dataclass(slots=True)
class Held:
    """The places kept for tasks that are on the move: `hosts` are not idle, and the tasks of each of `homeless` fit nowhere."""

    hosts: set[str] = field(default_factory=set)
    homeless: set[str] = field(default_factory=set)


def hold(snapshot: Snapshot, supply: Supply, room: Room) -> Held:
    """Keep room for the tasks of machines that are being emptied, or wait for their replacement."""
    held = Held()
    waiting = {name for replacement in snapshot.memory.replacements.values() for name in replacement.old}
    leaving = moving(snapshot, supply)
    for unit in supply.units:
        name = unit.machine.instance_id
        if name not in leaving or unit.agent is None or not unit.agent.work:
            continue
        hosts = room.fit(work_of(unit.agent, snapshot.apps), leaving, coming=name in waiting)
        if hosts is None:
            held.homeless.add(name)
        else:
            held.hosts |= hosts
    return held


def moving(snapshot: Snapshot, supply: Supply) -> set[str]:
    """Machines that are being emptied, or wait for their replacement."""
    names = {unit.machine.instance_id for unit in supply.units if unit.removal is not None and unit.removal.disturbs}
    return names | {name for replacement in snapshot.memory.replacements.values() for name in replacement.old}


def names_of(units: Iterable[Unit]) -> tuple[str, ...]:
    """`3 x /web`, for people."""
    return tuple(f"{unit.count} x {unit.name}" for unit in units)
