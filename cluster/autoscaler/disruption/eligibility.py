"""Which machines may be disturbed, and what disturbing them costs. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from mesaform.autoscaler.disruption.context import Budget, DisruptionContext
from mesaform.autoscaler.forecasting.lifetimes import ends_within_s, lasts_s
from mesaform.autoscaler.model.cluster_view import Agent, RunningTask
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, is_protected
from mesaform.config.schema import Consolidation

PAYBACK_FACTOR = 3.0
"""How many times a saving repays its cost: the cost is certain, the saving's duration is not."""

MIN_PRICE_USD = 1e-9
"""Divisor for machines without a price."""


def movable(agent: Agent, snapshot: Snapshot) -> bool:
    """Whether all tasks of an agent may move.

    Every task is known and unprotected, its framework starts it elsewhere, and the constraints of
    its app are known.
    """
    constraints = snapshot.app_constraints
    if constraints is None or len(agent.work) != agent.tasks:
        return False
    frameworks = snapshot.spec.autoscaler.consolidation.frameworks
    return all(
        task.framework in frameworks and not task.protected and task.name in constraints
        for task in agent.work
    )


def disturbable(context: DisruptionContext, budget: Budget) -> list[AgentNode]:
    """Busy machines that may be emptied now, the cheapest disturbance per dollar first."""
    if not context.settings.enabled or budget.disruptions <= 0:
        return []
    costs = {
        node.name: (cost, node.name, node)
        for node in _not_excluded(context, budget)
        if _is_steady(node, context) and (cost := _cost_of_move(node, context)) is not None
    }
    return [node for *_, node in sorted(costs.values(), key=lambda item: item[:2])]


def _cost_of_move(node: AgentNode, context: DisruptionContext) -> float | None:
    """The cost per dollar of emptying a machine; None if its tasks may not move now."""
    costs = context.costs_of_moves
    if node.name not in costs:
        may_move = _may_move_now(node, context)
        costs[node.name] = _cost_per_dollar(node, context) if may_move else None
    return costs[node.name]


def _not_excluded(context: DisruptionContext, budget: Budget) -> list[AgentNode]:
    """Machines that no other command, demand or purchase of this time concerns."""
    young = _young_types(context)
    excluded = (
        context.moving
        | budget.taken
        | context.needed
        | context.supply.quarantined.keys()
        | context.free_capacity.hosts
    )
    return [
        node
        for node in context.supply.agent_nodes
        if node.name not in excluded and (node.pool, node.machine.instance_type) not in young
    ]


def _is_steady(node: AgentNode, context: DisruptionContext) -> bool:
    """Whether a machine is autoscaled, runs tasks, stays, and may be disturbed."""
    if is_protected(node) or context.is_cooling_down(node):
        return False
    if node.state != "busy" or node.removal is not None or not node.is_autoscaled:
        return False
    return node.agent is not None and node.agent.active


def _may_move_now(node: AgentNode, context: DisruptionContext) -> bool:
    agent = node.agent
    if agent is None or not movable(agent, context.snapshot):
        return False
    return not _ends_soon(agent, context) and is_rested([node], context)


def _cost_per_dollar(node: AgentNode, context: DisruptionContext) -> float:
    return disturbance_usd([node], context) / max(node.usd_per_hour, MIN_PRICE_USD)


def _young_types(context: DisruptionContext) -> set[tuple[str, str]]:
    """Pools and types of machines that were bought too lately to have paid back.

    Removing a machine of such a type would undo a purchase.
    """
    since = context.now - context.settings.payback_s
    young = {
        (node.pool, node.machine.instance_type)
        for node in context.supply.agent_nodes
        if node.is_autoscaled and node.machine.launched_at > since
    }
    ordered = {
        (intent.request.pool, offering.instance_type)
        for intent in context.snapshot.intents
        for offering in intent.request.offerings
    }
    return young | ordered


def _ends_soon(agent: Agent, context: DisruptionContext) -> bool:
    """Whether all tasks end before moving them would have paid back."""
    deadline = context.now + context.settings.payback_s
    return all(_expected_end(task, context) <= deadline for task in agent.work)


def _expected_end(task: RunningTask, context: DisruptionContext) -> float:
    """When a task ends (epoch seconds): as it said, else as tasks of its name did, else never."""
    if task.ends_at:
        return task.ends_at
    history = context.snapshot.state.lifetimes.get(task.name)
    within_s = ends_within_s(history, context.age_s(task))
    return math.inf if within_s is None else context.now + within_s


def is_rested(nodes: Iterable[AgentNode], context: DisruptionContext) -> bool:
    """Whether each app has at most as many moves in `MOVE_INTERVAL_S` as it has tasks.

    The machines are different ones of the supply.
    """
    recent = context.recent_moves
    if not recent:  # nearly always; no machines have more tasks than there are
        return True
    counts = Counter(
        task.name for node in nodes if node.agent is not None for task in node.agent.work
    )
    return all(
        counts[name] + moves <= context.task_counts[name]
        for name, moves in recent.items()
        if name in counts
    )


def saving_lasts_s(nodes: Iterable[AgentNode], context: DisruptionContext) -> float:
    """Seconds that a saving may be counted on.

    Each machine would stay for its most lasting task; the shortest of these times counts. A task of
    months is worth moving once, a task of minutes ends by itself.
    """
    stays = [
        max((_remaining_s(task, context) for task in node.agent.work), default=0.0)
        for node in nodes
        if node.agent is not None
    ]
    return min(stays, default=0.0)


def _remaining_s(task: RunningTask, context: DisruptionContext) -> float:
    if task.ends_at:
        return max(0.0, task.ends_at - context.now)
    if not task.since:
        return context.settings.payback_s
    history = context.snapshot.state.lifetimes.get(task.name)
    return lasts_s(history, context.now - task.since)


def disturbance_usd(nodes: Iterable[AgentNode], context: DisruptionContext) -> float:
    """The cost of moving all tasks of these machines, in USD. Older tasks lose more work."""
    per_task, per_hour = context.settings.usd_per_task, context.settings.usd_per_task_hour
    return sum(
        per_task + per_hour * context.age_s(task) / 3600
        for node in nodes
        if node.agent is not None
        for task in node.agent.work
    )


def pays(
    saving: float, replaced: float, cost: float, lasts_s: float, settings: Consolidation
) -> bool:
    """Whether a saving is worth its cost.

    `saving` and the `replaced` price are USD an hour, `cost` is USD. The saving must be large
    enough by itself and as a share of the price, last for `payback_s`, and repay its cost.
    """
    return (
        saves_enough(saving, replaced, settings)
        and lasts_s >= settings.payback_s
        and cost * PAYBACK_FACTOR <= saving * lasts_s / 3600
    )


def saves_enough(saving: float, replaced: float, settings: Consolidation) -> bool:
    """Whether a saving is large enough by itself and as a share of the price (USD an hour)."""
    least = max(settings.min_saving_usd_per_hour, replaced * settings.min_saving_percent / 100)
    return saving > 0 and saving >= least
