"""Search for one machine that replaces others. Pure.

Consolidation and drift ask it through `disruption.policy.ReplacementFinder`, for nearly every
machine in every pass. Templates are therefore made once a pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, plus, times
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Node, Supply, pool_of
from mesaform.autoscaler.packing import NewNode, Template, place
from mesaform.autoscaler.planner.launch_backoff import LaunchQuota
from mesaform.autoscaler.planner.launch_requests import ChosenOffering, RequestBuilder
from mesaform.autoscaler.planner.offerings import (
    ANY_ZONE,
    limits_of,
    pins_capacity,
    templates,
)
from mesaform.aws.ports import Capacity
from mesaform.config.schema import Pool


@dataclass(frozen=True, slots=True)
class ReplacementSearch:
    """Finds replacements on one snapshot."""

    snapshot: Snapshot
    supply: Supply
    now: float
    _templates: dict[tuple[bool, bool], list[Template]] = field(default_factory=dict)

    def __call__(
        self,
        pool: str,
        work: Sequence[DemandItem],
        left: Mapping[int, int],
        *,
        number: int,
        excluded_types: Collection[str] = (),
    ) -> Purchase | None:
        """See `disruption.context.ReplacementFinder`."""
        spec = pool_of(self.snapshot.spec, pool)
        pieces = _pieces(work, left)
        if spec is None or not pieces:
            return None
        used = _total(pieces)
        large_enough = self._large_enough(pool, pieces, used, excluded_types)
        if not large_enough:  # nearly always: this is asked for every machine in every pass
            return None
        items = [replace(item, count=count) for item, count in pieces]
        purchases = (
            self._purchase(spec, template, items, used, number)
            for template in self._cheapest_first(large_enough, items)
        )
        purchase = next(filter(None, purchases), None)
        return None if purchase is None else _without_types(purchase, excluded_types)

    def _large_enough(
        self,
        pool: str,
        pieces: Sequence[tuple[DemandItem, int]],
        used: Shape,
        excluded_types: Collection[str],
    ) -> list[Template]:
        """Templates of the pool whose resources hold all pieces."""
        return [
            template
            for template in self._offered([item for item, _ in pieces])
            if template.pool == pool
            and template.instance_type not in excluded_types
            and contains(template.shape, used)
        ]

    def _cheapest_first(
        self, large_enough: Sequence[Template], items: Sequence[DemandItem]
    ) -> Iterator[Template]:
        """Templates that the limits and the items' constraints allow."""
        for template in sorted(self._within_limits(large_enough), key=_price_order):
            if self._holds(template, items):
                yield template

    def _within_limits(self, choice: Sequence[Template]) -> list[Template]:
        limits = limits_of(self.snapshot, self.supply, self.now)
        return [template for template in choice if limits.how_many(template) >= 1]

    def _offered(self, pieces: Sequence[DemandItem]) -> list[Template]:
        by_zone = any(
            constraint.field not in ANY_ZONE for piece in pieces for constraint in piece.constraints
        )
        key = (by_zone, pins_capacity(pieces))
        if key not in self._templates:
            self._templates[key] = templates(self.snapshot, self.supply, self.now, pieces)
        return self._templates[key]

    def _holds(self, template: Template, pieces: Sequence[DemandItem]) -> bool:
        """Whether constraints, too, allow all pieces on one machine of this template."""
        node = Node(
            "replacement",
            "coming",
            template.hostname,
            template.attributes,
            template.shape,
            template.pool,
        )
        usage = self.supply.usage.of((piece.name, piece.constraints) for piece in pieces)
        return not any(place(pieces, [node], usage).left.values())

    def _purchase(
        self,
        pool: Pool,
        template: Template,
        pieces: Sequence[DemandItem],
        used: Shape,
        number: int,
    ) -> Purchase | None:
        quota = LaunchQuota(self.snapshot.state.backoffs, self.now)
        builder = RequestBuilder(self.snapshot, self.supply, pieces, self.now, quota, number)
        capacity: Capacity = "spot" if template.capacity == "spot" else "on-demand"
        chosen = ChosenOffering(template.instance_type, template.zone, capacity)
        node = NewNode(template, {index: piece.count for index, piece in enumerate(pieces)}, used)
        return next(iter(builder.build(pool, chosen, [node])), None)


def _price_order(template: Template) -> tuple[float, str, str]:
    return (template.usd_per_hour, template.instance_type, template.zone)


def _pieces(work: Sequence[DemandItem], left: Mapping[int, int]) -> list[tuple[DemandItem, int]]:
    """Return the items of which something is left, each with the number of its pieces."""
    return [(work[index], count) for index, count in left.items() if count > 0]


def _total(pieces: Sequence[tuple[DemandItem, int]]) -> Shape:
    total = NOTHING
    for item, count in pieces:
        total = plus(total, times(item.shape, count))
    return total


def _without_types(purchase: Purchase, excluded_types: Collection[str]) -> Purchase:
    """A purchase that names no excluded type and no dearer offering than planned."""
    offerings = tuple(
        offering
        for offering in purchase.request.offerings
        if offering.instance_type not in excluded_types
        and offering.usd_per_hour <= purchase.usd_per_hour
    )
    request = replace(purchase.request, offerings=offerings or purchase.request.offerings[:1])
    return replace(purchase, request=request, load={})
