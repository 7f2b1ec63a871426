"""Free capacity of the nodes after demand was placed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, how_often, minus, plus, times
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing import Placement, decreasing_order
from mesaform.placement.constraints import InstanceCounts, is_grouped, room


class FreeCapacity:
    """What is free on each node after demand was placed. `fit` takes from it.

    Free capacity only shrinks in a pass. For each shape the nodes that hold it are therefore listed
    once, and removed from the list as they fill: a question about a full cluster costs nothing.
    """

    def __init__(self, supply: Supply, items: Sequence[DemandItem], placement: Placement) -> None:
        used = _used(items, placement)
        self._nodes = [node for node in supply.nodes if node.kind != "leaving"]
        self._free = [
            minus(node.free, used[node.name]) if node.name in used else node.free
            for node in self._nodes
        ]
        self._arriving = {node.name for node in self._nodes if node.kind == "coming"}
        self._large_enough: dict[Shape, list[int]] = {}
        self._usage = supply.usage
        self.hosts: set[str] = set()
        """Names of nodes that `fit` took capacity of. They must stay."""

    def fit(
        self, items: Sequence[DemandItem], without: Collection[str], *, use_arriving: bool = False
    ) -> set[str] | None:
        """Place all items on nodes other than `without`, and take the capacity.

        Returns the names of the nodes used. None, and nothing is taken, when they do not all fit.
        Machines that are ordered or boot are used only with `use_arriving`.
        """
        trial = self._trial(items, without, use_arriving=use_arriving)
        for index in decreasing_order(items):
            if self._place(items[index], trial):
                return None
        return self._take(trial)

    def remaining(self, items: Sequence[DemandItem], without: Collection[str]) -> dict[int, int]:
        """Pieces of each item (by index) that fit nowhere. Nothing is taken."""
        trial = self._trial(items, without, use_arriving=False)
        left = {index: self._place(items[index], trial) for index in decreasing_order(items)}
        return dict(sorted(left.items()))

    def _trial(
        self, items: Sequence[DemandItem], without: Collection[str], *, use_arriving: bool
    ) -> _Trial:
        usage = self._usage.of((item.name, item.constraints) for item in items)
        closed = without
        if self._arriving and not use_arriving:
            closed = {*without, *self._arriving}
        return _Trial(usage, closed)

    def _take(self, trial: _Trial) -> set[str]:
        for number, free in trial.free.items():
            self._free[number] = free
        for shape, numbers in self._large_enough.items():
            self._large_enough[shape] = [
                number
                for number in numbers
                if number not in trial.free or contains(self._free[number], shape)
            ]
        self._usage.absorb(trial.usage)
        names = {self._nodes[number].name for number in trial.free}
        self.hosts |= names
        return names

    def _place(self, item: DemandItem, trial: _Trial) -> int:
        """Place pieces in `trial`; returns how many fit nowhere."""
        left, placed = item.count, 1
        while left and placed:
            placed = self._place_once(item, left, trial)
            left -= placed
            if not is_grouped(item.constraints):
                break
            # A value that reached the level of the others makes full nodes usable again.
        return left

    def _place_once(self, item: DemandItem, left: int, trial: _Trial) -> int:
        """Go over the nodes once; returns how many pieces were placed."""
        placed = 0
        for number in self._nodes_for(item.shape):
            node = self._nodes[number]
            if node.name in trial.closed:
                continue
            free = trial.free.get(number, self._free[number])
            count = min(left - placed, how_often(item.shape, free))
            if count and item.constraints:
                count = min(count, room(item.name, item.constraints, node, trial.usage))
            if not count:
                continue
            trial.free[number] = minus(free, times(item.shape, count))
            trial.usage.add(item.name, item.constraints, node, count)
            placed += count
            if placed == left:
                break
        return placed

    def _nodes_for(self, shape: Shape) -> list[int]:
        """Numbers of the nodes that hold at least one piece of a shape, in their order."""
        if shape not in self._large_enough:
            self._large_enough[shape] = [
                number for number, free in enumerate(self._free) if contains(free, shape)
            ]
        return self._large_enough[shape]


def _used(items: Sequence[DemandItem], placement: Placement) -> dict[str, Shape]:
    """Resources that the placement takes, by node name."""
    used: dict[str, Shape] = {}
    for index, counts in placement.placed.items():
        for name, count in counts.items():
            used[name] = plus(used.get(name, NOTHING), times(items[index].shape, count))
    return used


@dataclass(slots=True)
class _Trial:
    """A placement that may be given up.

    `free` is the free capacity of nodes that it uses, `usage` where the instances of its apps are.
    Nothing is placed on nodes whose names are in `closed`.
    """

    usage: InstanceCounts
    closed: Collection[str]
    free: dict[int, Shape] = field(default_factory=dict)
