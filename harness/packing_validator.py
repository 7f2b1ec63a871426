"""Rules of a packing, checked piece by piece without the packer, as engine and services place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.packing import Limits, NewNode
from mesaform.common.resources import Range
from mesaform.placement.constraints import InstanceCounts, room


@dataclass(frozen=True)
class Host:
    hostname: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Range, ...] = ()


def faults(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    nodes: Sequence[NewNode],
    usage: InstanceCounts,
    limits: Limits,
    *,
    complete: bool = False,
) -> list[str]:
    """Every rule that is broken; `complete` also asks that nothing is left over."""
    wrong = [
        *_overfull(units, nodes),
        *_bounds(nodes, limits),
        *_counts(units, left, nodes, complete=complete),
    ]
    return wrong + _constraints(units, nodes, usage)


def _overfull(units: Sequence[DemandItem], nodes: Sequence[NewNode]) -> list[str]:
    wrong = []
    for number, node in enumerate(nodes):
        if not any(count > 0 for count in node.load.values()):
            wrong.append(f"machine {number} is for nothing")
        for dimension in range(5):
            used = sum(units[index].shape[dimension] * count for index, count in node.load.items())
            if used > node.template.shape[dimension]:
                wrong.append(
                    f"machine {number} holds {used} of dimension {dimension},"
                    f" has {node.template.shape[dimension]}"
                )
            if used != node.used[dimension]:
                wrong.append(
                    f"machine {number} says it uses {node.used[dimension]}"
                    f" of dimension {dimension}, not {used}"
                )
    return wrong


def _bounds(nodes: Sequence[NewNode], limits: Limits) -> list[str]:
    wrong = [
        f"pool {pool} gets {count} machines, may have {limits.slots.get(pool, 0)}"
        for pool, count in Counter(node.template.pool for node in nodes).items()
        if count > limits.slots.get(pool, 0)
    ]
    usd = sum(node.template.usd_per_hour for node in nodes)
    if limits.usd_per_hour is not None and usd > limits.usd_per_hour + 1e-6:
        wrong.append(f"${usd} an hour, allowed {limits.usd_per_hour}")
    return wrong


def _counts(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    nodes: Sequence[NewNode],
    *,
    complete: bool,
) -> list[str]:
    served: Counter[int] = Counter()
    for node in nodes:
        served.update(node.load)
    wrong = [
        f"{units[index].name} is served {count} times, asked for {left.get(index, 0)}"
        for index, count in served.items()
        if count > left.get(index, 0)
    ]
    if complete:
        wrong += [
            f"{units[index].name} is served {served[index]} of {count}"
            for index, count in left.items()
            if served[index] < count
        ]
    return wrong


def _constraints(
    units: Sequence[DemandItem], nodes: Sequence[NewNode], usage: InstanceCounts
) -> list[str]:
    """Whether some order of placement allows every piece of an app with constraints."""
    hosts = [
        Host(f"new-{number}", node.template.attributes, node.template.ports)
        for number, node in enumerate(nodes)
    ]
    waiting: dict[str, list[list[int]]] = {}
    for number, node in enumerate(nodes):
        for index, count in node.load.items():
            if units[index].constraints:
                waiting.setdefault(units[index].name, []).append([index, number, count])
    seen = usage.copy()
    return [
        problem
        for name, pieces in waiting.items()
        if (problem := _one_by_one(units, name, pieces, hosts, seen))
    ]


def _one_by_one(
    units: Sequence[DemandItem],
    name: str,
    pieces: list[list[int]],
    hosts: Sequence[Host],
    seen: InstanceCounts,
) -> str:
    while pieces:
        moved = False
        for piece in pieces:
            index, number, count = piece
            if count and room(name, units[index].constraints, hosts[number], seen) > 0:
                seen.add(name, units[index].constraints, hosts[number], 1)
                piece[2] -= 1
                moved = True
        if not moved:
            return f"{name} may not have a piece on {hosts[pieces[0][1]].hostname}"
        pieces[:] = [piece for piece in pieces if piece[2]]
    return ""
