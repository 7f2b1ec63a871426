"""Packing what a pass buys, and the written order of degrading: what goes without when pools or the dollar cap do not allow everything.

Demand is given up from the last rank on, all of a rank before any of the next: headroom, then what is foreseen (calendar, past weeks), then
hints, then frameworks whose need is inferred; work that waits in queues comes first, and of it the most work for the money. Before any
demand goes without, pools are not brought up to their `min` and nothing is bought to replace machines. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler.model.constraints import Usage
from mesaform.autoscaler.model.demand_item import DemandItem, Source
from mesaform.autoscaler.model.shape import contains, minus, plus, times
from mesaform.autoscaler.model.supply import Node
from mesaform.autoscaler.packing import Limits, NewNode, Packing, Template, place, solve

RANKS: Mapping[Source, int] = {
    "services": 0,
    "jobs": 0,
    "framework": 1,
    "hint": 2,
    "calendar": 3,
    "profile": 3,
    "headroom": 4,
}
"""The order of degrading: where bounds or the dollar cap do not allow everything, the highest rank goes without first."""


LEVEL_TRIES = 4
"""How often what was cut short is packed again; each time fewer pieces are left to be dealt out."""


def packed(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    choice: Sequence[Template],
    usage: Usage,
    limits: Limits,
) -> Packing:
    """All new machines together; where limits do not allow that, only what they allow of the first ranks (`RANKS`), together."""
    if not any(left.values()):
        return Packing()
    whole = solve(units, left, choice, usage, limits)
    ranks = sorted(
        {RANKS.get(units[index].source, 0) for index, count in left.items() if count > 0}
    )
    if len(ranks) < 2 or not _limited(units, left, choice, whole, limits):
        return _levelled(units, left, choice, usage, limits, whole)
    nodes: list[NewNode] = []
    before, usage, limits_left = usage, usage.copy(), limits.copy()
    for rank in ranks:
        wanted = {
            index: count
            for index, count in left.items()
            if count > 0 and RANKS.get(units[index].source, 0) == rank
        }
        nodes = _with_rank(units, wanted, choice, usage, limits_left, nodes)
    served = load_of(nodes)
    together = solve(units, served, choice, before, limits)
    if load_of(together.nodes) == served:
        return together
    usd = round(sum(node.template.usd_per_hour for node in nodes), 9)
    return Packing(tuple(nodes), usd, min(usd, together.bound_usd_per_hour), together.method)


def _levelled(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    choice: Sequence[Template],
    usage: Usage,
    limits: Limits,
    packing: Packing,
) -> Packing:
    """What was cut short and must be spread evenly is packed again as so many pieces as there are: dealt out anew, it is even."""
    for _ in range(LEVEL_TRIES):
        served = load_of(packing.nodes)
        uneven = (
            index
            for index, count in left.items()
            if count > served.get(index, 0) and _is_grouped(units[index])
        )
        if next(uneven, None) is None:
            break
        left, packing = served, solve(units, served, choice, usage, limits)
    return packing


def _is_grouped(unit: DemandItem) -> bool:
    return any(constraint.operator.upper() == "GROUP_BY" for constraint in unit.constraints)


def _limited(
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    choice: Sequence[Template],
    packing: Packing,
    limits: Limits,
) -> bool:
    """Whether something is left over for want of slots or dollars."""
    rest, served = limits.copy(), load_of(packing.nodes)
    for node in packing.nodes:
        rest.take(node.template, 1)
    over = [units[index].shape for index, count in left.items() if count > served.get(index, 0)]
    holding = [
        [template for template in choice if contains(template.shape, shape)] for shape in over
    ]
    return any(
        found and not any(rest.how_many(template) for template in found) for found in holding
    )


def _with_rank(
    units: Sequence[DemandItem],
    wanted: Mapping[int, int],
    choice: Sequence[Template],
    usage: Usage,
    limits: Limits,
    nodes: Sequence[NewNode],
) -> list[NewNode]:
    """One rank's pieces onto what was bought for those before it, then onto machines of their own. `usage` and `limits` are updated."""
    whose = list(wanted)
    pieces = [replace(units[index], count=wanted[index]) for index in whose]
    places = [
        Node(
            str(n),
            "coming",
            f"new-{n}",
            node.template.attributes,
            minus(node.template.shape, node.used),
            node.template.pool,
        )
        for n, node in enumerate(nodes)
    ]
    onto = place(pieces, places, usage)
    nodes = [NewNode(node.template, dict(node.load), node.used) for node in nodes]
    for index, where in onto.placed.items():
        for name, count in where.items():
            node = nodes[int(name)]
            node.load[whose[index]] = node.load.get(whose[index], 0) + count
            node.used = plus(node.used, times(pieces[index].shape, count))
    more = solve(
        units,
        {whose[index]: count for index, count in onto.left.items() if count},
        choice,
        usage,
        limits,
    ).nodes
    for n, node in enumerate(more, start=len(nodes)):
        limits.take(node.template, 1)
        for index, count in node.load.items():
            at = Node(
                str(n),
                "coming",
                f"new-{n}",
                node.template.attributes,
                node.template.shape,
                node.template.pool,
            )
            usage.add(units[index].name, units[index].constraints, at, count)
    return [*nodes, *more]


def load_of(nodes: Iterable[NewNode]) -> dict[int, int]:
    """The pieces of each unit that these machines are for."""
    load: dict[int, int] = {}
    for node in nodes:
        for index, count in node.load.items():
            load[index] = load.get(index, 0) + count
    return load
