"""Offerings of a pool as the planner and the simulator weigh them. Pure.

The price has all parts of a machine (`cluster_cost`), the resources are those that the pool's
agents offer of a type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mesaform.aws.ports import Offering
from mesaform.aws.pricing import cluster_cost
from mesaform.aws.pricing.prices import Prices
from mesaform.common.resources import Resources
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.topology.burstable import offered_vcpus


def complete(
    offered: Sequence[Offering], pool: Pool, spec: ClusterSpec, prices: Prices
) -> list[Offering]:
    """The offerings of a pool with what a machine costs besides the instance."""
    extras: dict[str, float] = {}
    for name in {offering.instance_type for offering in offered}:
        machine = cluster_cost.priced_agent(spec, name, "", "on-demand", pool)
        extras[name] = cluster_cost.extras_usd_per_hour(machine, prices.rates)
    return [
        replace(
            offering,
            usd_per_hour=round(
                offering.usd_per_hour + extras[offering.instance_type], cluster_cost.DIGITS
            ),
        )
        for offering in offered
    ]


def with_offered_cpus(offered: Sequence[Offering], pool: Pool) -> list[Offering]:
    """The offerings with the cpus that the pool's agents offer: fewer of T types without burst."""
    return [_with_offered_cpus(offering, pool) for offering in offered]


def _with_offered_cpus(offering: Offering, pool: Pool) -> Offering:
    resources = offering.resources
    vcpus = resources.milli.get("cpus", 0)
    cpus = round(offered_vcpus(offering.instance_type, vcpus, has_burst=pool.burst))
    if cpus == vcpus:
        return offering
    return replace(
        offering, resources=Resources({**resources.milli, "cpus": cpus}, resources.ports)
    )
