"""First fit of demand onto nodes that exist or are booting. Depends on the model only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NAMES, Shape, how_often, minus, times
from mesaform.autoscaler.model.supply import Node
from mesaform.autoscaler.packing.model import Placement
from mesaform.placement.constraints import InstanceCounts, is_grouped, room


def decreasing_order(units: Sequence[DemandItem]) -> list[int]:
    """Indices of items: constrained ones first, then by the largest share of total demand."""
    totals = [sum(unit.shape[d] * unit.count for unit in units) or 1 for d in range(len(NAMES))]

    def weight(index: int) -> tuple[bool, float, float, int]:
        parts = [amount / total for amount, total in zip(units[index].shape, totals, strict=True)]
        return (not units[index].constraints, -max(parts), -sum(parts), index)

    return sorted(range(len(units)), key=weight)


def place(units: Sequence[DemandItem], nodes: Iterable[Node], usage: InstanceCounts) -> Placement:
    """Put demand onto existing nodes, in the nodes' order. `usage` is updated."""
    result = Placement(
        left={index: unit.count for index, unit in enumerate(units) if not unit.blocked}
    )
    free = [(node, node.free) for node in nodes]
    for index in decreasing_order(units):
        if index in result.left:
            _place_item(index, units[index], free, usage, result)
    return result


def _place_item(
    index: int,
    unit: DemandItem,
    free: list[tuple[Node, Shape]],
    usage: InstanceCounts,
    result: Placement,
) -> None:
    """Place one item in rounds: with GROUP_BY a node that was refused may be allowed later."""
    while result.left[index]:
        placed = _round(index, unit, free, usage, result)
        if not placed or not is_grouped(unit.constraints):
            break


def _round(
    index: int,
    unit: DemandItem,
    free: list[tuple[Node, Shape]],
    usage: InstanceCounts,
    result: Placement,
) -> int:
    """One pass over the nodes; how many pieces were placed."""
    before = result.left[index]
    for position, (node, capacity) in enumerate(free):
        if not result.left[index]:
            break
        if node.name in unit.refused_by:
            continue
        count = min(result.left[index], how_often(unit.shape, capacity))
        if count and (count := min(count, room(unit.name, unit.constraints, node, usage))):
            free[position] = (node, minus(capacity, times(unit.shape, count)))
            usage.add(unit.name, unit.constraints, node, count)
            result.left[index] -= count
            where = result.placed.setdefault(index, {})
            where[node.name] = where.get(node.name, 0) + count
    return before - result.left[index]
