"""Policy "underused": removes a little-used machine whose tasks fit on machines that stay. Pure."""

from __future__ import annotations

from mesaform.autoscaler.disruption.context import Budget, DisruptionContext
from mesaform.autoscaler.disruption.eligibility import (
    disturbable,
    disturbance_usd,
    pays,
    saving_lasts_s,
)
from mesaform.autoscaler.disruption.removal_start import start_removal
from mesaform.autoscaler.disruption.rescheduling import names_of, work_of
from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.command import Command
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.supply import AgentNode


def share_used(agent: Agent) -> float:
    """The used share of an agent's cpus or memory, whichever is greater, 0 to 1."""
    pairs = zip(agent.allocated[:2], agent.total[:2], strict=True)
    return max((used / total for used, total in pairs if total), default=0.0)


def propose(context: DisruptionContext, budget: Budget) -> tuple[list[Command], Budget]:
    """Machines that were underused for `underused_after_s`, the cheapest disturbance first."""
    commands = []
    for node in disturbable(context, budget):
        if budget.disruptions <= 0:
            break
        # A machine that tasks were just placed on stays: they would move twice.
        if not budget.has_spare(node.pool) or node.name in context.free_capacity.hosts:
            continue
        command = _command(node, context, budget)
        if command is not None:
            commands.append(command)
            budget = budget.after(node, is_disruptive=True)
    return commands, budget


def _command(node: AgentNode, context: DisruptionContext, budget: Budget) -> Command | None:
    since, agent = context.underused_since.get(node.name), node.agent
    if agent is None or since is None or context.now - since < context.settings.underused_after_s:
        return None
    cost_usd, price = disturbance_usd([node], context), node.usd_per_hour
    if not pays(price, price, cost_usd, saving_lasts_s([node], context), context.settings):
        return None
    work = work_of(agent, context.snapshot.app_constraints)
    if context.free_capacity.fit(work, {*context.closed_to_tasks(budget), node.name}) is None:
        return None
    reason = Reason.of(
        ReasonCode.UNDERUSED,
        used_percent=share_used(agent) * 100,
        underused_s=context.now - since,
        underused_percent=context.settings.underused_percent,
        apps=names_of(work),
        cost_usd=cost_usd,
    )
    return start_removal(node, "underused", reason, context.now)
