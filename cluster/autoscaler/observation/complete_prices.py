"""Prices of a pass with all their parts: of machines and of the cluster. Pure.

Depends on `aws.pricing.cluster_cost`, as every verb does. `aws.pricing.pool_offerings` prices what
can be bought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesaform.aws.ports import Machine
from mesaform.aws.pricing import cluster_cost
from mesaform.aws.pricing.prices import Prices
from mesaform.config.schema import ClusterSpec


@dataclass(frozen=True, slots=True)
class Costs:
    """USD an hour of machines by instance id, and of the cluster besides them."""

    machines: Mapping[str, float] = field(default_factory=dict)
    standing: float = 0.0


def costs_of(spec: ClusterSpec, machines: Sequence[Machine], prices: Prices) -> Costs:
    """What the machines cost, as far as prices are known, and what the cluster costs besides."""
    costs = cluster_cost.machine_costs(spec, machines, prices)
    known = {
        machine.instance_id: cost.usd_per_hour
        for machine, cost in zip(machines, costs, strict=True)
        if cost.usd_per_hour is not None
    }
    items = cluster_cost.standing_items(spec, prices.rates) if machines else ()
    return Costs(known, sum(item.usd_per_hour for item in items))
