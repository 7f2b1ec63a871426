"""Buying: which machines, from which offerings.

Bounds, budget, the spot share and offerings that lately had no capacity are respected here. Nothing is called from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.interruption import risk
from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.constraints import HOSTNAME, Usage
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, plus, shape_of, times
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Node, Supply, attributes_of
from mesaform.autoscaler.packing import Limits, NewNode, Packing, Template, place
from mesaform.autoscaler.planner import launch_backoff, priorities, size_tiebreak
from mesaform.autoscaler.planner.launch_backoff import LaunchQuota
from mesaform.aws.ports import Capacity, LaunchRequest, LaunchResult, Offering
from mesaform.config.schema import Pool

DEARER_AT_MOST = 1.5
"""A launch also names types that hold the same load for up to this many times the price, so that one type's shortage costs no pass."""

MOST_OVERRIDES = 60

ANY_ZONE = HOSTNAME | {"pool"}
TYPE_FIELD = "instance_type"
"""Fields whose value does not depend on a machine's zone or type."""


NO_PACKING = Packing()


@dataclass(frozen=True, slots=True)
class Bought:
    """What a pass buys, and the packing that says for how much at least. Its prices are those that machines were sized by."""

    purchases: tuple[Purchase, ...] = ()
    packing: Packing = NO_PACKING


def templates(
    snapshot: Snapshot, supply: Supply, now: float, units: Sequence[DemandItem]
) -> list[Template]:
    """What can be bought now: each pool's types, by zone only where some demand asks for a zone or where zones differ in price."""
    by_zone = any(
        constraint.field not in ANY_ZONE for unit in units for constraint in unit.constraints
    )
    found: list[Template] = []
    for pool in snapshot.spec.agents:
        spot = wanted_capacity(pool)
        offered = [o for o in snapshot.offerings.get(pool.name, ()) if o.capacity == spot]
        usable = risk.calm(
            (o for o in offered if not _backed_off(o, pool, snapshot.state, now)),
            snapshot.state.risks,
            now,
        )
        if not usable and spot == "spot":
            usable = [
                o
                for o in snapshot.offerings.get(pool.name, ())
                if not _backed_off(o, pool, snapshot.state, now)
            ]
        chosen = usable if by_zone else _one_zone_each(usable, supply.zones.get(pool.name, {}))
        found += [template_of(snapshot, pool, offering) for offering in chosen]
    return found


def buy(
    snapshot: Snapshot,
    supply: Supply,
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    now: float,
) -> Bought:
    """What to buy for the pieces that are left, and to bring each pool up to its floor."""
    choice = templates(snapshot, supply, now, units)
    limits = limits_of(snapshot, supply)
    seen = size_tiebreak.seen_by_packing(
        choice, units, left, limits, {pool.name: pool.max for pool in snapshot.spec.agents}
    )
    packing = size_tiebreak.at_true_prices(
        priorities.packed(units, left, seen, supply.usage, limits), seen, choice
    )
    nodes = packing.nodes
    for node in nodes:
        limits.take(node.template, 1)
    purchases: list[Purchase] = []
    allowance = LaunchQuota(snapshot.state.backoffs, now)
    for (pool_name, instance_type, zone), group in _grouped(nodes).items():
        pool = next(pool for pool in snapshot.spec.agents if pool.name == pool_name)
        for capacity, part in _by_capacity(pool, supply, group):
            purchases += _purchase(
                snapshot,
                supply,
                units,
                pool,
                (instance_type, zone, capacity),
                part,
                allowance,
                len(purchases),
            )
    purchases += _floors(snapshot, supply, choice, limits, nodes, allowance, len(purchases))
    return Bought(tuple(purchases), packing)


def limits_of(snapshot: Snapshot, supply: Supply) -> Limits:
    """What may still be bought."""
    slots = {pool.name: max(0, pool.max - supply.size(pool.name)) for pool in snapshot.spec.agents}
    most = snapshot.spec.cost.max_usd_per_hour
    return Limits(slots, None if most is None else max(0.0, most - supply.usd_per_hour))


@dataclass(frozen=True, slots=True)
class ReplacementSearch:
    """Finds replacements on one snapshot: a `disruption.policy.ReplacementFinder`."""

    snapshot: Snapshot
    supply: Supply
    now: float

    def __call__(
        self,
        pool: str,
        work: Sequence[DemandItem],
        left: Mapping[int, int],
        *,
        number: int,
        excluded_types: Collection[str] = (),
    ) -> Purchase | None:
        """See `ReplacementFinder`."""
        return _replacement_for(
            self.snapshot, self.supply, pool, work, left, excluded_types, self.now, number
        )


def _replacement_for(
    snapshot: Snapshot,
    supply: Supply,
    pool_name: str,
    work: Sequence[DemandItem],
    left: Mapping[int, int],
    not_types: Collection[str],
    now: float,
    number: int,
) -> Purchase | None:
    """The cheapest one machine of a pool that holds all the work that is left; None if there is none, or nothing is left."""
    pool = next((pool for pool in snapshot.spec.agents if pool.name == pool_name), None)
    asked = [(work[index], count) for index, count in left.items() if count > 0]
    if pool is None or not asked:
        return None
    used = NOTHING
    for unit, count in asked:
        used = plus(used, times(unit.shape, count))
    offered = templates(snapshot, supply, now, [unit for unit, _ in asked])
    choice = [
        t
        for t in offered
        if t.pool == pool_name and t.instance_type not in not_types and contains(t.shape, used)
    ]
    if not choice:  # nearly always, and asked for every machine in every pass
        return None
    pieces, limits = (
        [replace(unit, count=count) for unit, count in asked],
        limits_of(snapshot, supply),
    )
    allowance = LaunchQuota(snapshot.state.backoffs, now)
    for template in sorted(choice, key=lambda t: (t.usd_per_hour, t.instance_type, t.zone)):
        node = Node(
            "the replacement",
            "coming",
            template.hostname,
            template.attributes,
            template.shape,
            pool_name,
        )
        if limits.how_many(template) < 1 or any(
            place(pieces, [node], _usage_of(pieces, supply)).left.values()
        ):
            continue
        new = NewNode(template, dict(enumerate(piece.count for piece in pieces)), used)
        capacity: Capacity = "spot" if template.capacity == "spot" else "on-demand"
        bought = _purchase(
            snapshot,
            supply,
            pieces,
            pool,
            (template.instance_type, template.zone, capacity),
            [new],
            allowance,
            number,
        )
        if bought:
            return _without_types(bought[0], not_types)
    return None


def _usage_of(pieces: Sequence[DemandItem], supply: Supply) -> Usage:
    return supply.usage.of((piece.name, piece.constraints) for piece in pieces)


def _without_types(purchase: Purchase, not_types: Collection[str]) -> Purchase:
    offerings = tuple(
        o
        for o in purchase.request.offerings
        if o.instance_type not in not_types and o.usd_per_hour <= purchase.usd_per_hour
    )
    return replace(
        purchase,
        request=replace(purchase.request, offerings=offerings or purchase.request.offerings[:1]),
        load={},
    )


def absorb_result(
    memory: PlannerState, request: LaunchRequest, result: LaunchResult, now: float
) -> PlannerState:
    """Remember which offerings had capacity, and which had not."""
    return replace(memory, backoffs=launch_backoff.absorb(memory.backoffs, request, result, now))


def absorb_refusal(memory: PlannerState, request: LaunchRequest, now: float) -> PlannerState:
    """Remember that the cloud refused the whole request: none of its offerings is asked for a while."""
    return replace(memory, backoffs=launch_backoff.refused(memory.backoffs, request, now))


def wanted_capacity(pool: Pool) -> Capacity:
    """The capacity type to size machines by."""
    return "spot" if pool.spot_share >= 1 else "on-demand"


def _backed_off(offering: Offering, pool: Pool, memory: PlannerState, now: float) -> bool:
    return launch_backoff.blocked(memory.backoffs, offering, pool.name, now)


def _one_zone_each(offerings: Sequence[Offering], zone_counts: Mapping[str, int]) -> list[Offering]:
    """The best zone of each type and capacity: cheapest, then the one with the fewest machines."""
    best: dict[tuple[str, str], Offering] = {}
    for offering in sorted(
        offerings, key=lambda o: (o.usd_per_hour, zone_counts.get(o.zone, 0), o.zone)
    ):
        best.setdefault((offering.instance_type, offering.capacity), offering)
    return list(best.values())


def template_of(snapshot: Snapshot, pool: Pool, offering: Offering) -> Template:
    attributes = attributes_of(
        snapshot.spec, pool.name, offering.instance_type, offering.zone, offering.capacity
    )
    shape = shape_of(offering.resources)
    return Template(
        pool.name,
        offering.instance_type,
        offering.zone,
        offering.capacity,
        offering.usd_per_hour,
        shape,
        attributes,
    )


def _grouped(nodes: Sequence[NewNode]) -> dict[tuple[str, str, str], list[NewNode]]:
    groups: dict[tuple[str, str, str], list[NewNode]] = {}
    for node in nodes:
        groups.setdefault(
            (node.template.pool, node.template.instance_type, node.template.zone), []
        ).append(node)
    return groups


def _by_capacity(
    pool: Pool, supply: Supply, nodes: list[NewNode]
) -> list[tuple[Capacity, list[NewNode]]]:
    """Split what is bought into on-demand and spot so that the pool's autoscaled machines keep to its spot share."""
    if pool.spot_share <= 0 or pool.spot_share >= 1:
        groups: dict[Capacity, list[NewNode]] = {}
        for node in nodes:
            groups.setdefault(
                "spot" if node.template.capacity == "spot" else "on-demand", []
            ).append(node)
        return list(groups.items())
    ours = [unit for unit in supply.in_pool(pool.name) if unit.is_autoscaled]
    have = sum(1 for unit in ours if unit.machine.capacity == "spot")
    want = round(pool.spot_share * (len(ours) + len(nodes))) - have
    cut = max(0, min(len(nodes), want))
    parts: list[tuple[Capacity, list[NewNode]]] = [
        ("spot", nodes[:cut]),
        ("on-demand", nodes[cut:]),
    ]
    return [part for part in parts if part[1]]


def _purchase(
    snapshot: Snapshot,
    supply: Supply,
    units: Sequence[DemandItem],
    pool: Pool,
    offering: tuple[str, str, Capacity],
    nodes: list[NewNode],
    allowance: LaunchQuota,
    number: int,
) -> list[Purchase]:
    """The calls that buy these machines, as their launch budgets allow; none when the offering is no longer in the catalogue."""
    instance_type, zone, capacity = offering
    now, most = allowance.now, NOTHING
    load = priorities.load_of(nodes)
    for node in nodes:
        used = tuple(max(a, b) for a, b in zip(most, node.used, strict=True))
        most = (used[0], used[1], used[2], used[3], used[4])
    fields = {constraint.field for index in load for constraint in units[index].constraints}
    only = _Only(
        zone="" if fields <= ANY_ZONE else zone,
        instance_type=instance_type if TYPE_FIELD in fields else "",
    )
    found = _alternatives(snapshot, supply, pool, offering, most, now, only)
    if not found and capacity == "spot":
        found = _alternatives(
            snapshot, supply, pool, (instance_type, zone, "on-demand"), most, now, only
        )
    if not found:
        return []
    purchases: list[Purchase] = []
    for count, named in allowance.split(len(nodes), found, pool.name):
        request = LaunchRequest(
            snapshot.spec.name,
            pool.name,
            count,
            named,
            _token(snapshot, pool.name, now, number + len(purchases)),
        )
        purchases.append(
            Purchase(request, priorities.load_of(nodes[:count]), named[0].usd_per_hour * count)
        )
        nodes = nodes[count:]
    return purchases


@dataclass(frozen=True, slots=True)
class _Only:
    """What the work's own constraints pin: EC2 must not be offered anything else. Empty means free."""

    zone: str
    instance_type: str

    def allows(self, offering: Offering) -> bool:
        return self.zone in {"", offering.zone} and self.instance_type in {
            "",
            offering.instance_type,
        }


def _alternatives(
    snapshot: Snapshot,
    supply: Supply,
    pool: Pool,
    offering: tuple[str, str, Capacity],
    load: Shape,
    now: float,
    only: _Only,
) -> tuple[Offering, ...]:
    """The chosen offering first, then every zone and type that holds the same load for a little more, cheapest first."""
    instance_type, zone, capacity = offering
    candidates = [
        o
        for o in snapshot.offerings.get(pool.name, ())
        if o.capacity == capacity
        and not _backed_off(o, pool, snapshot.state, now)
        and only.allows(o)
    ]
    candidates = risk.calm(candidates, snapshot.state.risks, now)
    chosen = next((o for o in candidates if o.instance_type == instance_type), None)
    if chosen is None:
        return ()
    ceiling = (
        chosen.usd_per_hour
        * (DEARER_AT_MOST if snapshot.spec.cost.max_usd_per_hour is None and not only.zone else 1.0)
        + 1e-9
    )
    zones = supply.zones.get(pool.name, {})
    usable = [
        o
        for o in candidates
        if o.instance_type == instance_type
        or (contains(shape_of(o.resources), load) and o.usd_per_hour <= ceiling)
    ]
    usable.sort(
        key=lambda o: (
            o.usd_per_hour,
            o.instance_type != instance_type,
            o.zone != zone,
            zones.get(o.zone, 0),
            o.zone,
        )
    )
    usable.sort(key=lambda o: o.instance_type != instance_type)
    return tuple(usable[:MOST_OVERRIDES])


def _token(snapshot: Snapshot, pool: str, now: float, number: int) -> str:
    """A client token: the same pass gives the same, every other pass another."""
    return (
        "ms-"
        + hashlib.sha256(f"{snapshot.spec.name}/{pool}/{now!r}/{number}".encode()).hexdigest()[:24]
    )


def _floors(
    snapshot: Snapshot,
    supply: Supply,
    choice: Sequence[Template],
    limits: Limits,
    nodes: Sequence[NewNode],
    allowance: LaunchQuota,
    number: int,
) -> list[Purchase]:
    """What pools need to reach their floor. Terraform's machines count as there: they may be being made this moment."""
    purchases: list[Purchase] = []
    for pool in snapshot.spec.agents:
        ours = sum(
            1 for unit in supply.in_pool(pool.name) if unit.is_autoscaled and unit.removal is None
        )
        ours += supply.ordered_by_pool.get(pool.name, 0) + sum(
            1 for node in nodes if node.template.pool == pool.name
        )
        cheap = min(
            (t for t in choice if t.pool == pool.name), key=lambda t: t.usd_per_hour, default=None
        )
        if cheap is None or pool.floor - pool.count - ours <= 0:
            continue
        count = min(pool.floor - pool.count - ours, limits.how_many(cheap))
        if count > 0:
            parts = _by_capacity(pool, supply, [NewNode(cheap, {}, NOTHING)] * count)
            for capacity, part in parts:
                offering = (cheap.instance_type, cheap.zone, capacity)
                purchases += _purchase(
                    snapshot, supply, (), pool, offering, part, allowance, number + len(purchases)
                )
            limits.take(cheap, count)
    return purchases
