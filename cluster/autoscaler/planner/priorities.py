"""Packing of a pass's demand by rank, where pools or the cost cap do not allow all of it. Pure.

Ranks, served in this order: work that waits in queues, of frameworks with an adapter too,
frameworks whose need is inferred, hints,
predictions (calendar, past weeks), headroom. All of one rank is served before any of the next.
Within a rank, packing serves the most work for the money. Pools' minima and replacements of
machines are bought only from what demand leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesaform.autoscaler.model.demand_item import DemandItem, Source
from mesaform.autoscaler.model.shape import contains, minus, plus, times
from mesaform.autoscaler.model.supply import Node
from mesaform.autoscaler.packing import Limits, NewNode, Packing, Template, place, solve
from mesaform.placement.constraints import InstanceCounts, is_grouped

RANKS: Mapping[Source, int] = {
    "services": 0,
    "reported": 0,
    "framework": 1,
    "hint": 2,
    "calendar": 3,
    "profile": 3,
    "headroom": 4,
}
"""Rank of each source of demand; others have 0. Demand of the highest rank is cut first."""

MAX_REPACKINGS = 4
"""Repetitions of a packing that limits cut short; each time fewer pieces are left."""


def pack_by_rank(
    items: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: InstanceCounts,
    limits: Limits,
) -> Packing:
    """New machines for the pieces in `left` (by index of `items`).

    All ranks are packed together; where limits do not allow that, rank by rank, and what was served
    is packed together once more.
    """
    if not any(left.values()):
        return Packing()
    together = solve(items, left, templates, usage, limits)
    ranks = _ranks(items, left)
    if len(ranks) < 2 or not _is_limited(items, left, templates, together, limits):
        return _spread_evenly(items, left, templates, usage, limits, together)
    ranked = _RankedPacking(items, templates, usage.copy(), limits.copy())
    for pieces in ranks:
        ranked.serve(pieces)
    served = load_of(ranked.nodes)
    together = solve(items, served, templates, usage, limits)
    if load_of(together.nodes) == served:
        return together
    usd = round(sum(node.template.usd_per_hour for node in ranked.nodes), 9)
    bound_usd = min(usd, together.bound_usd_per_hour)
    return Packing(tuple(ranked.nodes), usd, bound_usd, together.method)


def load_of(nodes: Iterable[NewNode]) -> dict[int, int]:
    """Pieces of each item (by index) that the machines hold."""
    load: dict[int, int] = {}
    for node in nodes:
        for index, count in node.load.items():
            load[index] = load.get(index, 0) + count
    return load


def _ranks(items: Sequence[DemandItem], left: Mapping[int, int]) -> list[dict[int, int]]:
    """The pieces in `left` by rank, the first rank first."""
    by_rank: dict[int, dict[int, int]] = {}
    for index, count in left.items():
        if count > 0:
            by_rank.setdefault(RANKS.get(items[index].source, 0), {})[index] = count
    return [by_rank[rank] for rank in sorted(by_rank)]


def _spread_evenly(
    items: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    usage: InstanceCounts,
    limits: Limits,
    packing: Packing,
) -> Packing:
    """The packing, repeated for the pieces served where GROUP_BY items were cut short.

    Packing spreads the pieces it is asked for; pieces cut off afterwards leave the spread uneven.
    """
    for _ in range(MAX_REPACKINGS):
        served = load_of(packing.nodes)
        if not any(is_grouped(items[index].constraints) for index in _unserved(left, served)):
            break
        left, packing = served, solve(items, served, templates, usage, limits)
    return packing


def _unserved(left: Mapping[int, int], served: Mapping[int, int]) -> Iterator[int]:
    return (index for index, count in left.items() if count > served.get(index, 0))


def _is_limited(
    items: Sequence[DemandItem],
    left: Mapping[int, int],
    templates: Sequence[Template],
    packing: Packing,
    limits: Limits,
) -> bool:
    """Whether pieces are left over for want of slots or dollars."""
    remaining = limits.copy()
    for node in packing.nodes:
        remaining.take(node.template, 1)
    for index in _unserved(left, load_of(packing.nodes)):
        shape = items[index].shape
        large_enough = [template for template in templates if contains(template.shape, shape)]
        if large_enough and not any(map(remaining.how_many, large_enough)):
            return True
    return False


@dataclass(slots=True)
class _RankedPacking:
    """Machines bought rank by rank. `usage` and `limits` change with each rank served."""

    items: Sequence[DemandItem]
    templates: Sequence[Template]
    usage: InstanceCounts
    limits: Limits
    nodes: list[NewNode] = field(default_factory=list)

    def serve(self, pieces: Mapping[int, int]) -> None:
        """Place one rank's pieces on the machines so far, then on machines of their own."""
        left = self._place_on_nodes(pieces)
        packing = solve(self.items, left, self.templates, self.usage, self.limits)
        for node in packing.nodes:
            self.limits.take(node.template, 1)
            self._count_usage(node)
            self.nodes.append(node)

    def _place_on_nodes(self, pieces: Mapping[int, int]) -> dict[int, int]:
        """Pieces that fit on no machine so far."""
        indices = list(pieces)
        parts = [replace(self.items[index], count=count) for index, count in pieces.items()]
        free = [_as_node(number, node, used=True) for number, node in enumerate(self.nodes)]
        placement = place(parts, free, self.usage)
        self.nodes = [NewNode(node.template, dict(node.load), node.used) for node in self.nodes]
        for part, counts in placement.placed.items():
            index = indices[part]
            for name, count in counts.items():
                node = self.nodes[int(name)]
                node.load[index] = node.load.get(index, 0) + count
                node.used = plus(node.used, times(parts[part].shape, count))
        return {indices[part]: count for part, count in placement.left.items() if count}

    def _count_usage(self, node: NewNode) -> None:
        location = _as_node(len(self.nodes), node, used=False)
        for index, count in node.load.items():
            item = self.items[index]
            self.usage.add(item.name, item.constraints, location, count)


def _as_node(number: int, node: NewNode, *, used: bool) -> Node:
    """A machine to buy as a place for pieces, with its free capacity (all of it unless `used`)."""
    template = node.template
    free = minus(template.shape, node.used) if used else template.shape
    return Node(
        str(number),
        "coming",
        f"new-{number}",
        template.attributes,
        free,
        template.pool,
        template.ports,
    )
