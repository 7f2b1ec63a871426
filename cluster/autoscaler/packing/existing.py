"""Demand onto machines that exist or are on their way, before anything is bought."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesaform.autoscaler.model.constraints import Usage, room
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NAMES, Shape, how_often, minus, times
from mesaform.autoscaler.model.supply import Node
from mesaform.autoscaler.packing.model import Placement


def decreasing_order(units: Sequence[DemandItem]) -> list[int]:
    """Unit indices, the most demanding shape first (by its largest part of all that is asked), constrained ones before free ones."""
    totals = [sum(unit.shape[d] * unit.count for unit in units) or 1 for d in range(len(NAMES))]

    def weight(index: int) -> tuple[bool, float, float, int]:
        parts = [amount / total for amount, total in zip(units[index].shape, totals, strict=True)]
        return (not units[index].constraints, -max(parts), -sum(parts), index)

    return sorted(range(len(units)), key=weight)


def place(units: Sequence[DemandItem], nodes: Iterable[Node], usage: Usage) -> Placement:
    """Put demand onto existing nodes, in the nodes' order. `usage` is updated."""
    result = Placement(
        left={index: unit.count for index, unit in enumerate(units) if not unit.blocked}
    )
    free = [(node, node.free) for node in nodes]
    for index in (index for index in decreasing_order(units) if index in result.left):
        while (
            result.left[index]
            and _round(index, units[index], free, usage, result)
            and _grouped(units[index])
        ):
            pass  # a level that rose makes room on nodes that were full before
    return result


def _grouped(unit: DemandItem) -> bool:
    return any(constraint.operator.upper() == "GROUP_BY" for constraint in unit.constraints)


def _round(
    index: int, unit: DemandItem, free: list[tuple[Node, Shape]], usage: Usage, result: Placement
) -> int:
    """Once over the nodes; how many pieces were placed."""
    before = result.left[index]
    for position, (node, capacity) in enumerate(free):
        if not result.left[index]:
            break
        count = min(result.left[index], how_often(unit.shape, capacity))
        if count and (count := min(count, room(unit.name, unit.constraints, node, usage))):
            free[position] = (node, minus(capacity, times(unit.shape, count)))
            usage.add(unit.name, unit.constraints, node, count)
            result.left[index] -= count
            where = result.placed.setdefault(index, {})
            where[node.name] = where.get(node.name, 0) + count
    return before - result.left[index]
