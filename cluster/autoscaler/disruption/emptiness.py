"""Policy "idle": removes machines without a task for `idle_after_s`. It disturbs no task. Pure."""

from __future__ import annotations

from mesaform.autoscaler.disruption.context import Budget, DisruptionContext
from mesaform.autoscaler.disruption.removal_start import start_removal
from mesaform.autoscaler.model.command import Command
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.supply import AgentNode, is_protected


def propose(context: DisruptionContext, budget: Budget) -> tuple[list[Command], Budget]:
    """Idle machines, the dearest first, then the longest idle."""
    idle_after_s = context.snapshot.spec.autoscaler.idle_after_s
    commands = []
    for node in sorted(
        context.supply.agent_nodes, key=lambda node: (-node.usd_per_hour, _since(node, context))
    ):
        idle_s = context.now - _since(node, context)
        if idle_s < idle_after_s or not _is_removable(node, context):
            continue
        if budget.has_spare(node.pool):
            reason = Reason.of(ReasonCode.IDLE, idle_s=idle_s, idle_after_s=idle_after_s)
            commands.append(start_removal(node, "idle", reason, context.now))
            budget = budget.after(node, is_disruptive=False)
    return commands, budget


def _since(node: AgentNode, context: DisruptionContext) -> float:
    return context.idle_since.get(node.name, context.now)


def _is_removable(node: AgentNode, context: DisruptionContext) -> bool:
    if node.state != "idle" or node.removal is not None or not node.is_autoscaled:
        return False
    if node.agent is None or not node.agent.active or is_protected(node):
        return False
    return node.name not in context.needed and node.name not in context.supply.quarantined
