"""Stage "plan purchases": machines for demand that fits nowhere and for pools' minima. Pure.

Pool bounds, the cost cap, spot shares and launch back-off are respected here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing import Limits, NewNode, Packing, Template
from mesaform.autoscaler.planner import priorities, size_tiebreak, spending_limit
from mesaform.autoscaler.planner.launch_backoff import LaunchQuota
from mesaform.autoscaler.planner.launch_requests import ChosenOffering, RequestBuilder
from mesaform.autoscaler.planner.offerings import limits_of, pins_capacity, templates
from mesaform.aws.ports import Capacity
from mesaform.common.architecture import REQUIRES_PIN
from mesaform.config.schema import Pool

NO_PACKING = Packing()


@dataclass(frozen=True, slots=True)
class PurchasePlan:
    """Purchases of a pass, and the packing that they realise with its lower bound.

    Prices of the packing are those that machines were sized by.
    """

    purchases: tuple[Purchase, ...] = ()
    packing: Packing = NO_PACKING


NO_PURCHASES = PurchasePlan()


def plan_purchases(
    snapshot: Snapshot,
    supply: Supply,
    items: Sequence[DemandItem],
    left: Mapping[int, int],
    now: float,
) -> PurchasePlan:
    """Return purchases for the pieces in `left` (by index of `items`), then for pools' minima."""
    offered = templates(snapshot, supply, now, items)
    limits = limits_of(snapshot, supply, now)
    packing = spending_limit.within(
        _pack(snapshot, supply, items, left, offered, limits), items, snapshot, now
    )
    for node in packing.nodes:
        limits.take(node.template, 1)
    builder = RequestBuilder(
        snapshot, supply, items, now, LaunchQuota(snapshot.state.backoffs, now)
    )
    purchases = [
        purchase
        for pool, chosen, nodes in _groups(snapshot, supply, packing.nodes, items)
        for purchase in builder.build(pool, chosen, nodes)
    ]
    purchases += _plan_minima(builder, offered, limits, packing.nodes)
    return PurchasePlan(tuple(purchases), packing)


def _pack(
    snapshot: Snapshot,
    supply: Supply,
    items: Sequence[DemandItem],
    left: Mapping[int, int],
    offered: Sequence[Template],
    limits: Limits,
) -> Packing:
    """The packing at true prices; among equal prices, small machines are preferred."""
    maxima = {pool.name: pool.max for pool in snapshot.spec.agents}
    weighed = size_tiebreak.weigh(offered, items, left, limits, maxima)
    packing = priorities.pack_by_rank(items, left, weighed, supply.usage, limits)
    return size_tiebreak.restore_prices(packing, weighed, offered)


def _groups(
    snapshot: Snapshot, supply: Supply, nodes: Iterable[NewNode], items: Sequence[DemandItem]
) -> Iterator[tuple[Pool, ChosenOffering, list[NewNode]]]:
    """New machines by pool, type and zone, split by capacity type."""
    pools = {pool.name: pool for pool in snapshot.spec.agents}
    groups: dict[tuple[str, str, str], list[NewNode]] = {}
    for node in nodes:
        template = node.template
        key = (template.pool, template.instance_type, template.zone)
        groups.setdefault(key, []).append(node)
    for (pool_name, instance_type, zone), group in groups.items():
        pool = pools[pool_name]
        for capacity, part in _by_capacity(pool, supply, group, items):
            yield pool, ChosenOffering(instance_type, zone, capacity), part


def _by_capacity(
    pool: Pool, supply: Supply, nodes: list[NewNode], items: Sequence[DemandItem]
) -> list[tuple[Capacity, list[NewNode]]]:
    """Machines by capacity type; a mixed pool's autoscaled machines keep to its spot share.

    Machines whose work pins the capacity type keep it, and count for the share.
    """
    groups: dict[Capacity, list[NewNode]] = {"spot": [], "on-demand": []}
    free: list[NewNode] = []
    for node in nodes:
        if _keeps_capacity(pool, node, items):
            groups["spot" if node.template.capacity == "spot" else "on-demand"].append(node)
        else:
            free.append(node)
    if free:
        wanted = _spot_count(pool, supply, len(nodes)) - len(groups["spot"])
        spot_count = max(0, min(len(free), wanted))
        groups["spot"] += free[:spot_count]
        groups["on-demand"] += free[spot_count:]
    return [(capacity, part) for capacity, part in groups.items() if part]


def _keeps_capacity(pool: Pool, node: NewNode, items: Sequence[DemandItem]) -> bool:
    """Whether a machine is of the capacity type that it was sized by."""
    is_mixed = 0 < pool.spot_share < 1
    return not is_mixed or pins_capacity(items[index] for index in node.load)


def _spot_count(pool: Pool, supply: Supply, new_count: int) -> int:
    """How many of the new machines are spot, so that the pool meets its share."""
    autoscaled = [node for node in supply.in_pool(pool.name) if node.is_autoscaled]
    have = sum(1 for node in autoscaled if node.machine.capacity == "spot")
    want = round(pool.spot_share * (len(autoscaled) + new_count)) - have
    return max(0, min(new_count, want))


def _plan_minima(
    builder: RequestBuilder,
    offered: Sequence[Template],
    limits: Limits,
    nodes: Sequence[NewNode],
) -> list[Purchase]:
    """Purchases that bring pools up to their minimum. `limits` is updated."""
    purchases: list[Purchase] = []
    for pool in builder.snapshot.spec.agents:
        missing = _missing(pool, builder.supply, nodes)
        own = [template for template in offered if template.pool == pool.name]
        if missing <= 0 or not own:
            continue
        # Machines that any task may use come first; others serve only work that pins them.
        cheapest = min(own, key=lambda t: (REQUIRES_PIN in t.attributes, t.usd_per_hour))
        count = min(missing, limits.how_many(cheapest))
        if count <= 0:
            continue
        empty_nodes = [NewNode(cheapest, {}, NOTHING)] * count
        for capacity, part in _by_capacity(pool, builder.supply, empty_nodes, ()):
            chosen = ChosenOffering(cheapest.instance_type, cheapest.zone, capacity)
            purchases += builder.build(pool, chosen, part)
        limits.take(cheapest, count)
    return purchases


def _missing(pool: Pool, supply: Supply, nodes: Iterable[NewNode]) -> int:
    """Machines that a pool lacks to its minimum.

    Terraform's `count` counts as present: Terraform may be creating those machines at this moment.
    """
    autoscaled = sum(
        1 for node in supply.in_pool(pool.name) if node.is_autoscaled and node.removal is None
    )
    ordered = supply.ordered_by_pool.get(pool.name, 0)
    planned = sum(1 for node in nodes if node.template.pool == pool.name)
    return pool.floor - pool.count - autoscaled - ordered - planned
