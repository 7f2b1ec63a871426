"""Offerings that can be bought now, as templates for packing. Pure.

Depends on the model, on launch back-off and on the interruption risk of offerings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler.interruption import risk
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply, attributes_of
from mesaform.autoscaler.packing import Limits, Template
from mesaform.autoscaler.planner import launch_backoff, launch_failures
from mesaform.aws.ports import Capacity, Offering
from mesaform.common.architecture import ARCH, REQUIRES_PIN, architecture_of
from mesaform.config.schema import Pool
from mesaform.placement.constraints import HOSTNAME
from mesaform.placement.task_labels import INSTANCE_TYPE, LIFECYCLE
from mesaform.topology.names import launch_template_name, template_key

ANY_ZONE = HOSTNAME | {"pool", ARCH, REQUIRES_PIN, INSTANCE_TYPE, LIFECYCLE}
"""Constraint fields whose value does not depend on a machine's zone."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What the demand pins: zone, type, architecture, and whether the capacity type.

    An empty field pins nothing.
    """

    zone: str = ""
    instance_type: str = ""
    architecture: str = ""
    has_capacity: bool = False

    def allow(self, offering: Offering) -> bool:
        """Whether a launch for this demand may name an offering."""
        if self.zone and self.zone != offering.zone:
            return False
        if self.instance_type and self.instance_type != offering.instance_type:
            return False
        return self.architecture in ("", architecture_of(offering.instance_type))


NO_PINS = Pins()


def templates(
    snapshot: Snapshot, supply: Supply, now: float, items: Collection[DemandItem]
) -> list[Template]:
    """Templates of every pool's types.

    Zones are templates of their own only where a constraint of `items` depends on the zone.
    Otherwise each type is offered in its cheapest zone.
    """
    by_zone = any(
        constraint.field not in ANY_ZONE for item in items for constraint in item.constraints
    )
    by_capacity = pins_capacity(items)
    chosen: list[Template] = []
    for pool in snapshot.spec.agents:
        offerings = _offerings_of(snapshot, pool, now)
        if by_capacity and 0 < pool.spot_share < 1:
            offerings += _as_dear_spot(usable_offerings(snapshot, pool, "spot", now), offerings)
        if not by_zone:
            offerings = _best_zones(offerings, supply.zones.get(pool.name, {}))
        chosen += [template_of(snapshot, pool, offering) for offering in offerings]
    return chosen


def _offerings_of(snapshot: Snapshot, pool: Pool, now: float) -> list[Offering]:
    """A pool's offerings to size machines by; on-demand ones where no spot offering is usable."""
    capacity = wanted_capacity(pool)
    usable = usable_offerings(snapshot, pool, capacity, now)
    if usable or capacity != "spot":
        return usable
    offered = snapshot.offerings.get(pool.name, ())
    return [o for o in offered if not is_backed_off(snapshot, pool, o, now)]


def pins_capacity(items: Iterable[DemandItem]) -> bool:
    """Whether some of the demand says whether it runs on spot machines."""
    return any(rule.field == LIFECYCLE for item in items for rule in item.constraints)


def _as_dear_spot(spot: Iterable[Offering], on_demand: Iterable[Offering]) -> list[Offering]:
    """Spot offerings of a mixed pool for the demand that asks for spot, at the on-demand price.

    Other demand does not prefer them thereby: its machines keep to the pool's share, and the cost
    cap holds for either capacity type.
    """
    usd = {(o.instance_type, o.zone): o.usd_per_hour for o in on_demand}
    return [
        replace(o, usd_per_hour=max(o.usd_per_hour, usd.get((o.instance_type, o.zone), 0.0)))
        for o in spot
    ]


def may_be_bought(pool: Pool, capacity: Capacity, offered: Iterable[Offering]) -> bool:
    """Whether a pool buys machines of a capacity type; of `offered`, spot if it wants only spot."""
    if pool.spot_share >= 1 and any(offering.capacity == "spot" for offering in offered):
        return capacity == "spot"
    return capacity == "on-demand" or pool.spot_share > 0


def usable_offerings(
    snapshot: Snapshot, pool: Pool, capacity: Capacity, now: float, pins: Pins = NO_PINS
) -> list[Offering]:
    """Offerings of a capacity type that are not backed off and seldom interrupted."""
    offered = [
        offering
        for offering in snapshot.offerings.get(pool.name, ())
        if offering.capacity == capacity
        and not is_backed_off(snapshot, pool, offering, now)
        and pins.allow(offering)
    ]
    return risk.calm(offered, snapshot.state.risks, now)


def is_backed_off(snapshot: Snapshot, pool: Pool, offering: Offering, now: float) -> bool:
    """Whether a recent capacity error, or a missing template, blocks an offering for a pool."""
    return bool(missing_template(snapshot, pool, offering)) or launch_backoff.is_blocked(
        snapshot.state.backoffs, offering, pool.name, now
    )


def missing_template(snapshot: Snapshot, pool: Pool, offering: Offering) -> str:
    """The name of the launch template that an offering needs and that does not exist; else ``."""
    architecture = architecture_of(offering.instance_type)
    is_known = template_key(pool.name, architecture) in snapshot.templates
    if is_known or not snapshot.templates_read:
        return ""
    return launch_template_name(snapshot.spec.name, pool.name, architecture)


def wanted_capacity(pool: Pool) -> Capacity:
    """The capacity type that machines of a pool are sized by."""
    return "spot" if pool.spot_share >= 1 else "on-demand"


def template_of(snapshot: Snapshot, pool: Pool, offering: Offering) -> Template:
    """An offering as a template, with the attributes that its agents will register."""
    attributes = attributes_of(
        snapshot.spec, pool.name, offering.instance_type, offering.zone, offering.capacity
    )
    return Template(
        pool.name,
        offering.instance_type,
        offering.zone,
        offering.capacity,
        offering.usd_per_hour,
        shape_of(offering.resources),
        attributes,
        ports=offering.resources.ports,
    )


def limits_of(snapshot: Snapshot, supply: Supply, now: float) -> Limits:
    """Slots of each pool below its max, fewer after failures, and USD an hour below the cap."""
    slots = {pool.name: _slots_of(pool, snapshot, supply, now) for pool in snapshot.spec.agents}
    cap = snapshot.spec.cost.max_usd_per_hour
    return Limits(slots, None if cap is None else max(0.0, cap - supply.usd_per_hour))


def _slots_of(pool: Pool, snapshot: Snapshot, supply: Supply, now: float) -> int:
    below_max = max(0, pool.max - supply.size(pool.name))
    allowed = launch_failures.slots(snapshot.state, supply, pool.name, now)
    return below_max if allowed is None else min(below_max, allowed)


def _best_zones(offerings: Sequence[Offering], zone_counts: Mapping[str, int]) -> list[Offering]:
    """The best zone of each type and capacity: the cheapest, then the one with fewest machines."""
    best: dict[tuple[str, str], Offering] = {}
    for offering in sorted(
        offerings, key=lambda o: (o.usd_per_hour, zone_counts.get(o.zone, 0), o.zone)
    ):
        best.setdefault((offering.instance_type, offering.capacity), offering)
    return list(best.values())
