"""CreateFleet calls for machines that were chosen. Pure.

A call names the chosen offering first, then alternatives that hold the same load. The launch quota
of the pass splits a purchase into several calls. Depends on offerings and launch back-off.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, maximum, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing import NewNode
from mesaform.autoscaler.planner import priorities
from mesaform.autoscaler.planner.launch_backoff import LaunchQuota
from mesaform.autoscaler.planner.offerings import ANY_ZONE, Pins, usable_offerings
from mesaform.autoscaler.planner.zone_balance import machines_by_zone
from mesaform.aws.ports import Capacity, LaunchRequest, Offering
from mesaform.common.architecture import ARCH, architecture_of
from mesaform.config.schema import Pool
from mesaform.placement.task_labels import INSTANCE_TYPE, LIFECYCLE

MAX_PRICE_RATIO = 1.5
"""Price limit of alternatives, as a multiple of the chosen offering's price.

Alternatives keep a shortage of one type from costing a pass.
"""

MAX_OFFERINGS = 60
"""Offerings named in one CreateFleet call."""

PRICE_TOLERANCE_USD = 1e-9
"""Slack of price comparisons, for rounding."""


@dataclass(frozen=True, slots=True)
class ChosenOffering:
    """The offering that machines were sized by."""

    instance_type: str
    zone: str
    capacity: Capacity


@dataclass(slots=True)
class RequestBuilder:
    """Builds the CreateFleet calls of a pass.

    `quota` is what may still be requested of each offering; `number` counts the calls, so that each
    has its own client token. Both change with every call built.
    """

    snapshot: Snapshot
    supply: Supply
    items: Sequence[DemandItem]
    now: float
    quota: LaunchQuota
    number: int = 0
    _planned: dict[tuple[str, str], int] = field(default_factory=dict)

    def build(self, pool: Pool, chosen: ChosenOffering, nodes: list[NewNode]) -> list[Purchase]:
        """Calls that buy machines of a pool; none when the catalogue no longer has the offering.

        Machines that the launch quota does not allow are in no call. Machines whose work pins no
        zone are spread over zones.
        """
        located = self._located(pool, chosen, nodes)
        return [
            purchase
            for zone, part in located.items()
            for purchase in self._build_in(pool, replace(chosen, zone=zone), part)
        ]

    def _located(
        self, pool: Pool, chosen: ChosenOffering, nodes: Sequence[NewNode]
    ) -> dict[str, list[NewNode]]:
        """The machines by zone: the chosen one where work pins it, else by `zone_balance`."""
        pinned: list[NewNode] = []
        free: list[NewNode] = []
        for node in nodes:
            (pinned if self._pins(chosen, [node]).zone else free).append(node)
        located: dict[str, list[NewNode]] = {}
        # The spread is lazy: it counts the pinned machines as planned.
        for zone, part in chain([(chosen.zone, pinned)], self._spread(pool, chosen, free)):
            if part:
                located.setdefault(zone, []).extend(part)
                self._planned[pool.name, zone] = self._planned.get((pool.name, zone), 0) + len(part)
        return located

    def _spread(
        self, pool: Pool, chosen: ChosenOffering, nodes: list[NewNode]
    ) -> Iterator[tuple[str, list[NewNode]]]:
        """Machines that may be in any zone, by zone."""
        if not nodes:
            return
        offered = self._offerings_by_zone(pool, chosen, nodes)
        percent = self.snapshot.spec.autoscaler.zone_balance_percent
        counts = machines_by_zone(len(nodes), offered, self._zone_counts(pool), percent)
        for zone, count in (counts or {chosen.zone: len(nodes)}).items():
            yield zone, nodes[:count]
            nodes = nodes[count:]

    def _zone_counts(self, pool: Pool) -> dict[str, int]:
        """Machines of a pool by zone: those that stay, ordered ones and those of this pass."""
        counts = dict(self.supply.zones.get(pool.name, {}))
        for (name, zone), count in self._planned.items():
            if name == pool.name:
                counts[zone] = counts.get(zone, 0) + count
        return counts

    def _offerings_by_zone(
        self, pool: Pool, chosen: ChosenOffering, nodes: Sequence[NewNode]
    ) -> list[Offering]:
        """Offerings of the chosen type, none dearer than the chosen one under a cost cap."""
        pins = self._pins(chosen, nodes)
        usable = usable_offerings(self.snapshot, pool, chosen.capacity, self.now, pins)
        same_type = _of_type(usable, chosen)
        if self.snapshot.spec.cost.max_usd_per_hour is None:
            return same_type
        own_usd = (o.usd_per_hour for o in same_type if o.zone == chosen.zone)
        most_usd = min(own_usd, default=math.inf) + PRICE_TOLERANCE_USD
        return [o for o in same_type if o.usd_per_hour <= most_usd]

    def _build_in(self, pool: Pool, chosen: ChosenOffering, nodes: list[NewNode]) -> list[Purchase]:
        """Calls for machines of which the chosen zone is the first choice."""
        offerings = self._offerings(pool, chosen, nodes)
        if not offerings:
            return []
        purchases: list[Purchase] = []
        for count, named in self.quota.split(len(nodes), offerings, pool.name):
            request = LaunchRequest(
                self.snapshot.spec.name, pool.name, count, named, self._token(pool.name)
            )
            load = priorities.load_of(nodes[:count])
            purchases.append(Purchase(request, load, named[0].usd_per_hour * count))
            nodes = nodes[count:]
        return purchases

    def _offerings(
        self, pool: Pool, chosen: ChosenOffering, nodes: Sequence[NewNode]
    ) -> tuple[Offering, ...]:
        """Offerings of the chosen capacity type; on-demand where no spot is usable."""
        load = NOTHING
        for node in nodes:
            load = maximum(load, node.used)
        pins = self._pins(chosen, nodes)
        offerings = self._alternatives(pool, chosen, load, pins)
        if not offerings and chosen.capacity == "spot" and not pins.has_capacity:
            offerings = self._alternatives(pool, replace(chosen, capacity="on-demand"), load, pins)
        return offerings

    def _pins(self, chosen: ChosenOffering, nodes: Sequence[NewNode]) -> Pins:
        fields = {
            constraint.field
            for index in priorities.load_of(nodes)
            for constraint in self.items[index].constraints
        }
        is_portable = self.snapshot.spec.tasks.architecture == "any" and ARCH not in fields
        return Pins(
            zone="" if fields <= ANY_ZONE else chosen.zone,
            instance_type=chosen.instance_type if INSTANCE_TYPE in fields else "",
            architecture="" if is_portable else architecture_of(chosen.instance_type),
            has_capacity=LIFECYCLE in fields,
        )

    def _alternatives(
        self, pool: Pool, chosen: ChosenOffering, load: Shape, pins: Pins
    ) -> tuple[Offering, ...]:
        """Offerings of the chosen type, then types that hold `load`, cheapest first."""
        candidates = usable_offerings(self.snapshot, pool, chosen.capacity, self.now, pins)
        same_type = self._ranked(pool, chosen, _of_type(candidates, chosen))
        if not same_type:
            return ()
        most_usd = same_type[0].usd_per_hour * self._price_ratio(pins) + PRICE_TOLERANCE_USD
        others = [
            o
            for o in candidates
            if o.instance_type != chosen.instance_type
            and o.usd_per_hour <= most_usd
            and contains(shape_of(o.resources), load)
        ]
        same_type.sort(key=lambda offering: offering.zone != chosen.zone)
        ranked = same_type + self._ranked(pool, chosen, others)
        return tuple(ranked[:MAX_OFFERINGS])

    def _price_ratio(self, pins: Pins) -> float:
        """Alternatives may cost more only without a cost cap and without a pinned zone."""
        is_capped = self.snapshot.spec.cost.max_usd_per_hour is not None
        return 1.0 if is_capped or pins.zone else MAX_PRICE_RATIO

    def _ranked(
        self, pool: Pool, chosen: ChosenOffering, offerings: Sequence[Offering]
    ) -> list[Offering]:
        zone_counts = self._zone_counts(pool)
        return sorted(
            offerings,
            key=lambda o: (
                o.usd_per_hour,
                o.zone != chosen.zone,
                zone_counts.get(o.zone, 0),
                o.zone,
            ),
        )

    def _token(self, pool: str) -> str:
        """A client token, unique by pass and call. The same pass gives the same tokens."""
        text = f"{self.snapshot.spec.name}/{pool}/{self.now!r}/{self.number}"
        self.number += 1
        return "ms-" + hashlib.sha256(text.encode()).hexdigest()[:24]


def _of_type(offerings: Sequence[Offering], chosen: ChosenOffering) -> list[Offering]:
    return [o for o in offerings if o.instance_type == chosen.instance_type]
