"""Where the tasks of a machine would go if it went: its work as demand, and the room that is left once real demand has its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.demand import DemandItem
from mesaform.autoscaler.interruption.notice import is_terminating
from mesaform.autoscaler.model.constraints import Usage, room
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, how_often, minus, plus, times
from mesaform.autoscaler.model.snapshot import Agent, Constraint, Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing import Placement, decreasing


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
            f"{name} would move off {agent.instance_id}",
            known.get(name, ()),
        )
        for (name, shape), count in counts.items()
    ]


class FreeCapacity:
    """What is free on each node after demand was placed. Placing here takes it.

    Room only shrinks in a pass, so for each shape the nodes that hold it are listed once and struck off as they fill: a question about
    a full cluster costs nothing, however many ask.
    """

    def __init__(self, supply: Supply, units: Sequence[DemandItem], placement: Placement) -> None:
        taken: dict[str, Shape] = {}
        for index, names in placement.placed.items():
            for name, count in names.items():
                taken[name] = plus(taken.get(name, NOTHING), times(units[index].shape, count))
        self._nodes = [node for node in supply.nodes if node.kind != "leaving"]
        self._free = [
            minus(node.free, taken[node.name]) if node.name in taken else node.free
            for node in self._nodes
        ]
        self._holding: dict[Shape, list[int]] = {}
        self._usage = supply.usage
        self.hosts: set[str] = set()
        """Nodes that took something: what was promised a place there must find it."""

    def fit(
        self, units: Sequence[DemandItem], without: Collection[str], *, coming: bool = False
    ) -> set[str] | None:
        """Place all of these on nodes other than `without`; the names of those that took some, or None if they do not all fit.

        Nothing is taken then. Machines on their way count only with `coming`; machines on their way out never.
        """
        trial = _Trial(self._usage.of((unit.name, unit.constraints) for unit in units))
        for index in decreasing(units):
            if self._place(units[index], units[index].count, without, trial, coming=coming):
                return None
        for number, free in trial.free.items():
            self._free[number] = free
        for shape, numbers in self._holding.items():
            self._holding[shape] = [
                n for n in numbers if n not in trial.free or contains(self._free[n], shape)
            ]
        self._usage.absorb(trial.usage)
        hosts = {self._nodes[number].name for number in trial.free}
        self.hosts |= hosts
        return hosts

    def remaining(self, units: Sequence[DemandItem], without: Collection[str]) -> dict[int, int]:
        """How many of each unit (by index) find no place; nothing is taken."""
        trial = _Trial(self._usage.of((unit.name, unit.constraints) for unit in units))
        left = {
            index: self._place(units[index], units[index].count, without, trial, coming=False)
            for index in decreasing(units)
        }
        return dict(sorted(left.items()))

    def _place(
        self, unit: DemandItem, left: int, without: Collection[str], trial: _Trial, *, coming: bool
    ) -> int:
        """How many pieces find no place; those that do take it in `trial`."""
        grouped = any(constraint.operator.upper() == "GROUP_BY" for constraint in unit.constraints)
        while left:
            before = left
            for number in self._that_hold(unit.shape):
                node = self._nodes[number]
                if node.name in without or (node.kind == "coming" and not coming):
                    continue
                free = trial.free.get(number, self._free[number])
                count = min(left, how_often(unit.shape, free))
                if count and unit.constraints:
                    count = min(count, room(unit.name, unit.constraints, node, trial.usage))
                if count:
                    trial.free[number] = minus(free, times(unit.shape, count))
                    trial.usage.add(unit.name, unit.constraints, node, count)
                    left -= count
                    if not left:
                        return 0
            if (
                left == before or not grouped
            ):  # a level that rose makes room on nodes that were full before
                return left
        return 0

    def _that_hold(self, shape: Shape) -> list[int]:
        """Nodes that hold at least one piece of a shape, in their order."""
        if shape not in self._holding:
            self._holding[shape] = [
                number for number, free in enumerate(self._free) if contains(free, shape)
            ]
        return self._holding[shape]


@dataclass(slots=True)
class _Trial:
    """A placing that may yet be given up: what would be free, and where the instances of the apps concerned would be."""

    usage: Usage
    free: dict[int, Shape] = field(default_factory=dict)


@dataclass(slots=True)
class Reservations:
    """The places kept for tasks that are on the move: `hosts` are not idle, and the tasks of each of `homeless` fit nowhere."""

    hosts: set[str] = field(default_factory=set)
    unschedulable: set[str] = field(default_factory=set)


def hold(snapshot: Snapshot, supply: Supply, room: FreeCapacity) -> Reservations:
    """Keep room for the tasks of machines that are being emptied, or wait for their replacement."""
    held = Reservations()
    waiting = {
        name for replacement in snapshot.memory.replacements.values() for name in replacement.old
    }
    leaving = moving(snapshot, supply)
    for unit in supply.units:
        name = unit.machine.instance_id
        if (
            name not in leaving
            or unit.agent is None
            or not unit.agent.work
            or is_terminating(snapshot.memory, name, 0.0)
        ):
            continue  # what has to leave an announced end is demand already
        hosts = room.fit(work_of(unit.agent, snapshot.apps), leaving, coming=name in waiting)
        if hosts is None:
            held.unschedulable.add(name)
        else:
            held.hosts |= hosts
    return held


def moving(snapshot: Snapshot, supply: Supply) -> set[str]:
    """Machines that are being emptied, or wait for their replacement."""
    names = {
        unit.machine.instance_id
        for unit in supply.units
        if unit.removal is not None and unit.removal.disturbs
    }
    return names | {
        name for replacement in snapshot.memory.replacements.values() for name in replacement.old
    }


def names_of(units: Iterable[DemandItem]) -> tuple[str, ...]:
    """`3 x /web`, for people."""
    return tuple(f"{unit.count} x {unit.name}" for unit in units)
