"""Preference for small machines among those that cost the same for the same work. Pure.

Prices within a family are linear in size, so several small machines often cost what one large one
does. Small ones can be removed one by one; a large one is paid until its last task ends. Packing
weighs a machine slightly dearer the more pieces it holds; purchases have the true prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.packing import Limits, Packing, Template

SIZE_PENALTY = 0.002
"""Added part of the price for each e-fold of average pieces held: enough to decide among equals."""

MIN_FREE_SLOTS_SHARE = 0.5
"""Pools with fewer free slots than this share of their max are not filled with small machines."""

CPUS_AND_MEMORY = (0, 1)
"""Dimensions of a shape that the average piece is measured in."""


def weigh(
    templates: Sequence[Template],
    items: Sequence[DemandItem],
    left: Mapping[int, int],
    limits: Limits,
    maxima: Mapping[str, int],
) -> list[Template]:
    """The templates at the prices that packing weighs; unchanged under a cost cap.

    `maxima` is each pool's max, in machines.
    """
    count = sum(left.values())
    if limits.usd_per_hour is not None or count <= 0:
        return list(templates)
    mean = [
        sum(items[index].shape[dimension] * pieces for index, pieces in left.items()) / count
        for dimension in CPUS_AND_MEMORY
    ]
    return [
        _penalize(template, mean, count)
        if limits.slots.get(template.pool, -1)
        >= MIN_FREE_SLOTS_SHARE * maxima.get(template.pool, 0)
        else template
        for template in templates
    ]


def _penalize(template: Template, mean: Sequence[float], count: int) -> Template:
    pieces = min(
        (
            template.shape[dimension] / mean[dimension]
            for dimension in CPUS_AND_MEMORY
            if mean[dimension]
        ),
        default=1.0,
    )
    factor = 1 + SIZE_PENALTY * log(max(1.0, min(pieces, count)))
    return replace(template, usd_per_hour=template.usd_per_hour * factor)


def restore_prices(
    packing: Packing, weighed: Sequence[Template], templates: Sequence[Template]
) -> Packing:
    """The packing with true templates and prices, and a lower bound that holds for them."""
    true = {_key(template): template for template in templates}
    nodes = tuple(replace(node, template=true[_key(node.template)]) for node in packing.nodes)
    largest_factor = max(
        (
            template.usd_per_hour / true[_key(template)].usd_per_hour
            for template in weighed
            if template.usd_per_hour > 0
        ),
        default=1.0,
    )
    usd = round(sum(node.template.usd_per_hour for node in nodes), 9)
    bound_usd = min(usd, packing.bound_usd_per_hour / largest_factor)
    return replace(packing, nodes=nodes, usd_per_hour=usd, bound_usd_per_hour=bound_usd)


def _key(template: Template) -> tuple[str, str, str, str]:
    return (template.pool, template.instance_type, template.zone, template.capacity)
