"""Free capacity of the nodes after demand was placed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.model.constraints import Usage, is_grouped, room
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, how_often, minus, plus, times
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing import Placement, decreasing_order


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
        for index in decreasing_order(units):
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
            for index in decreasing_order(units)
        }
        return dict(sorted(left.items()))

    def _place(
        self, unit: DemandItem, left: int, without: Collection[str], trial: _Trial, *, coming: bool
    ) -> int:
        """How many pieces find no place; those that do take it in `trial`."""
        grouped = is_grouped(unit.constraints)
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
