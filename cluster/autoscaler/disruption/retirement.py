"""Policies "retirement" and "rebalance": empty machines that AWS announced something about. Pure.

AWS will stop, restart or retire the machine at a later time, or recommends to leave it.
`interruption` takes over once the machine is deactivated: capacity for its tasks is bought, then it
drains.
"""

from __future__ import annotations

from math import inf

from mesaform.autoscaler.disruption.context import Budget, DisruptionContext
from mesaform.autoscaler.disruption.eligibility import movable
from mesaform.autoscaler.disruption.removal_start import start_removal
from mesaform.autoscaler.model.command import Command
from mesaform.autoscaler.model.notice import Notice, is_near, reason_of
from mesaform.autoscaler.model.removal import PolicyName
from mesaform.autoscaler.model.supply import AgentNode, is_protected


def propose(context: DisruptionContext, budget: Budget) -> tuple[list[Command], Budget]:
    """Announced machines, the soonest end first. Machines without tasks cost no disruption."""
    commands = []
    for node, notice in _announced(context):
        if not _is_removable(node, notice, context, budget):
            continue
        is_disruptive = node.agent is not None and not node.agent.is_empty
        if is_disruptive and budget.disruptions <= 0:
            continue
        policy: PolicyName = "rebalance" if notice.kind == "rebalance" else "retirement"
        reason = reason_of(notice, context.now)
        commands.append(start_removal(node, policy, reason, context.now))
        budget = budget.after(node, is_disruptive=is_disruptive)
    return commands, budget


def _announced(context: DisruptionContext) -> list[tuple[AgentNode, Notice]]:
    notices = context.snapshot.state.notices
    announced = [
        (node, notice)
        for node in context.supply.agent_nodes
        if (notice := notices.get(node.name)) is not None
    ]
    return sorted(announced, key=lambda pair: pair[1].ends_at or inf)


def _is_removable(
    node: AgentNode, notice: Notice, context: DisruptionContext, budget: Budget
) -> bool:
    if node.agent is None or node.removal is not None or is_near(notice, context.now):
        return False
    if node.name in budget.taken or node.name in context.supply.quarantined:
        return False
    if context.is_cooling_down(node):
        return False
    if notice.kind == "scheduled":
        ahead_s = context.snapshot.spec.autoscaler.interruption.retire_ahead_s
        return notice.ends_at - context.now <= ahead_s
    return _follows_advice(node, context)


def _follows_advice(node: AgentNode, context: DisruptionContext) -> bool:
    """Whether a rebalance recommendation is followed.

    The spec says so, and the machine is autoscaled, has paid back, and its tasks may move.
    """
    if context.snapshot.spec.autoscaler.interruption.on_rebalance != "replace":
        return False
    if node.agent is None or not node.is_autoscaled or is_protected(node):
        return False
    if context.now - node.machine.launched_at < context.settings.payback_s:
        return False
    return node.agent.is_empty or movable(node.agent, context.snapshot)
