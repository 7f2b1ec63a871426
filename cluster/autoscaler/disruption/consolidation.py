"""Policy "replace": one cheaper machine takes the place of one or several. Pure.

The new machine is bought first; the old ones leave once it has registered (`replacements`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from mesaform.autoscaler.disruption.context import (
    CONSOLIDATION_NUMBER,
    Budget,
    DisruptionContext,
)
from mesaform.autoscaler.disruption.eligibility import (
    disturbable,
    disturbance_usd,
    is_rested,
    pays,
    saves_enough,
    saving_lasts_s,
)
from mesaform.autoscaler.disruption.replacements import replace_command
from mesaform.autoscaler.disruption.rescheduling import names_of, work_of
from mesaform.autoscaler.model.command import Command, Purchase
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.supply import AgentNode

OVERLAP_S = 180.0
"""Seconds that old and new machines are paid side by side: booting, then draining (estimate)."""

MAX_GROUP_SIZE = 8
"""Machines replaced together: each further one disturbs more and saves less often."""

MAX_PAIRED = 12
"""Number of the most easily moved machines of which every pair is tried."""


@dataclass(frozen=True, slots=True)
class _Option:
    """A possible replacement; `profit_usd` is its expected saving less its cost."""

    profit_usd: float
    group: tuple[AgentNode, ...]
    purchase: Purchase
    reason: Reason


def propose(context: DisruptionContext, budget: Budget) -> tuple[list[Command], Budget]:
    """At most one replacement a pass: the value of the next depends on how this one ends."""
    if context.snapshot.state.replacements:
        return [], budget
    options = list(_options(context, budget))
    if not options:
        return [], budget
    best = max(options, key=lambda option: (option.profit_usd, -len(option.group)))
    for number, node in enumerate(best.group):
        budget = budget.after(node, is_disruptive=number == 0)
    candidates = tuple(sorted(best.group, key=lambda node: node.name))
    return [replace_command(best.purchase, candidates, "replace", best.reason)], budget


def _options(context: DisruptionContext, budget: Budget) -> Iterator[_Option]:
    by_pool: dict[str, list[AgentNode]] = {}
    for node in disturbable(context, budget):
        by_pool.setdefault(node.pool, []).append(node)
    for nodes in by_pool.values():
        for group in _groups(nodes):
            option = _option(group, context, budget)
            if option is not None:
                yield option


def _groups(nodes: Sequence[AgentNode]) -> Iterator[tuple[AgentNode, ...]]:
    """Each machine, pairs of the most easily moved ones, and these together in growing number."""
    for node in nodes:
        yield (node,)
    yield from combinations(nodes[:MAX_PAIRED], 2)
    for size in range(3, min(len(nodes), MAX_GROUP_SIZE) + 1):
        yield tuple(nodes[:size])


def _option(
    group: tuple[AgentNode, ...], context: DisruptionContext, budget: Budget
) -> _Option | None:
    pool = group[0].pool
    if not _may_save(group, context) or not budget.has_spare(pool, len(group) - 1):
        return None
    if not is_rested(group, context):
        return None
    work = _work_of(group, context)
    closed = {*context.closed_to_tasks(budget), *(node.name for node in group)}
    left = context.free_capacity.remaining(work, closed)
    purchase = context.find_replacement(
        pool,
        work,
        left,
        excluded_types={node.machine.instance_type for node in group},
        number=CONSOLIDATION_NUMBER,
    )
    return None if purchase is None else _profitable(group, purchase, work, context)


def _may_save(group: Sequence[AgentNode], context: DisruptionContext) -> bool:
    """Whether the cheapest machine of another type would save enough.

    It costs at most what a replacement costs, so that no work needs to be placed if it would not.
    """
    types = {node.machine.instance_type for node in group}
    least_usd = context.least_usd_per_hour(group[0].pool, types)
    old_usd = sum(node.usd_per_hour for node in group)
    return saves_enough(old_usd - least_usd, old_usd, context.settings)


def _work_of(group: Sequence[AgentNode], context: DisruptionContext) -> list[DemandItem]:
    return [
        item
        for node in group
        if node.agent is not None
        for item in work_of(node.agent, context.snapshot.app_constraints)
    ]


def _profitable(
    group: tuple[AgentNode, ...],
    purchase: Purchase,
    work: Sequence[DemandItem],
    context: DisruptionContext,
) -> _Option | None:
    """The option when it pays."""
    old_usd = sum(node.usd_per_hour for node in group)
    saving_usd = old_usd - purchase.usd_per_hour
    cost_usd = disturbance_usd(group, context) + purchase.usd_per_hour * OVERLAP_S / 3600
    lasts_s = saving_lasts_s(group, context)
    if not pays(saving_usd, old_usd, cost_usd, lasts_s, context.settings):
        return None
    offering = purchase.request.offerings[0]
    reason = Reason.of(
        ReasonCode.REPLACED_CHEAPER,
        instance_type=offering.instance_type,
        usd_per_hour=offering.usd_per_hour,
        replaced=_counts(group),
        replaced_usd_per_hour=old_usd,
        apps=names_of(work),
        saving_usd_per_hour=saving_usd,
        cost_usd=cost_usd,
    )
    return _Option(saving_usd * lasts_s / 3600 - cost_usd, group, purchase, reason)


def _counts(group: Sequence[AgentNode]) -> tuple[str, ...]:
    """Machines of each type: `2 x m5.large`."""
    types = [node.machine.instance_type for node in group]
    return tuple(f"{types.count(name)} x {name}" for name in sorted(set(types)))
