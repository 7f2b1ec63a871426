"""Which of machines that cost the same for the same work: the smaller ones. A large machine is paid until its last task ends. Pure.

Prices of families are linear in size, so several small machines often cost what one large one does; the small ones go one by one.
Packing sees machines a trifle dearer the more pieces they hold; what is bought is the true machine at its true price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.packing import Limits, Packing, Template

SIZE_PENALTY = 0.002
"""By what part a machine seems dearer for each e-fold of average pieces that it holds: enough to decide among equals, no more."""

FULL_SHARE = 0.5
"""A pool that has less than this part of the machines it may have left to buy is not filled with small ones."""


def seen_by_packing(
    templates: Sequence[Template],
    units: Sequence[DemandItem],
    left: Mapping[int, int],
    limits: Limits,
    most: Mapping[str, int],
) -> list[Template]:
    """The templates as packing is to weigh them; `most` is each pool's max. Under a dollar cap they stay as they are."""
    count = sum(left.values())
    if limits.usd_per_hour is not None or count <= 0:
        return list(templates)
    mean = [
        sum(units[index].shape[d] * number for index, number in left.items()) / count
        for d in (0, 1)
    ]
    roomy = {
        pool for pool, slots in limits.slots.items() if slots >= FULL_SHARE * most.get(pool, 0)
    }
    return [
        _seen(template, mean, count) if template.pool in roomy else template
        for template in templates
    ]


def _seen(template: Template, mean: Sequence[float], count: int) -> Template:
    pieces = min((template.shape[d] / mean[d] for d in (0, 1) if mean[d]), default=1.0)
    return replace(
        template,
        usd_per_hour=template.usd_per_hour * (1 + SIZE_PENALTY * log(max(1.0, min(pieces, count)))),
    )


def at_true_prices(
    packing: Packing, seen: Sequence[Template], templates: Sequence[Template]
) -> Packing:
    """What packing chose, with the true templates, prices and a bound that holds for them."""
    true = {_key(template): template for template in templates}
    nodes = tuple(replace(node, template=true[_key(node.template)]) for node in packing.nodes)
    dearer = max(
        (one.usd_per_hour / true[_key(one)].usd_per_hour for one in seen if one.usd_per_hour > 0),
        default=1.0,
    )
    usd = round(sum(node.template.usd_per_hour for node in nodes), 9)
    return replace(
        packing,
        nodes=nodes,
        usd_per_hour=usd,
        bound_usd_per_hour=min(usd, packing.bound_usd_per_hour / dearer),
    )


def _key(template: Template) -> tuple[str, str, str, str]:
    return (template.pool, template.instance_type, template.zone, template.capacity)
