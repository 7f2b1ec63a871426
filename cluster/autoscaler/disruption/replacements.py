"""Replacements: machines bought first, whose old machines leave once they have registered. Pure."""

from __future__ import annotations

from dataclasses import replace

from mesaform.autoscaler.disruption.context import Budget, DisruptionContext
from mesaform.autoscaler.disruption.removal_start import start_removal
from mesaform.autoscaler.disruption.rescheduling import Reservations
from mesaform.autoscaler.model.command import Command, Purchase, launch_command
from mesaform.autoscaler.model.lifecycle import REGISTERED
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import PolicyName, Replacement
from mesaform.autoscaler.model.supply import AgentNode
from mesaform.topology.names import Tag


def replace_command(
    purchase: Purchase, candidates: tuple[AgentNode, ...], policy: PolicyName, reason: Reason
) -> Command:
    """Buy machines that replace the candidates."""
    command = launch_command(purchase, (reason,))
    return replace(
        command,
        decision=replace(command.decision, policy=policy),
        candidates=candidates,
        replacement=purchase,
        policy=policy,
    )


def finish_replacements(
    context: DisruptionContext, budget: Budget, reservations: Reservations
) -> tuple[list[Command], Budget]:
    """Begin to remove old machines whose replacement has registered.

    None of a replacement's old machines leaves while a task of one fits nowhere, or while one has
    another command. Those replaced to save money keep to the disruption budget; a replacement of
    which no machine leaves yet has its place in it already.
    """
    commands: list[Command] = []
    left = budget.disruptions + _waiting_count(context)
    for token, replacement in context.snapshot.state.replacements.items():
        old = _old_nodes(replacement, context)
        blocked = reservations.unschedulable | budget.taken
        if not blocked.isdisjoint(node.name for node in old):
            continue
        if not _is_registered(token, replacement, context):
            continue
        saves_money = replacement.policy == "replace"
        removable = _removable(old, context)
        for node in removable[: max(0, left)] if saves_money else removable:
            left -= saves_money
            commands.append(
                start_removal(node, replacement.policy, replacement.reason, context.now)
            )
            budget = replace(budget, taken=budget.taken | {node.name})
    return commands, budget


def _is_registered(token: str, replacement: Replacement, context: DisruptionContext) -> bool:
    """Whether all machines of a replacement have registered."""
    registered = sum(
        1
        for node in context.supply.agent_nodes
        if node.machine.tags.get(Tag.LAUNCH) == token and node.state in REGISTERED
    )
    return registered >= replacement.count


def _old_nodes(replacement: Replacement, context: DisruptionContext) -> list[AgentNode]:
    nodes = {node.name: node for node in context.supply.agent_nodes}
    return [nodes[name] for name in replacement.old_instance_ids if name in nodes]


def _removable(old: list[AgentNode], context: DisruptionContext) -> list[AgentNode]:
    """Old machines that do not leave yet and may."""
    return [
        node
        for node in old
        if node.removal is None
        and node.agent is not None
        and node.is_autoscaled
        and node.name not in context.supply.quarantined
    ]


def _waiting_count(context: DisruptionContext) -> int:
    """Replacements of which no old machine leaves."""
    leaving = {node.name for node in context.supply.agent_nodes if node.removal is not None}
    return sum(
        1
        for replacement in context.snapshot.state.replacements.values()
        if not leaving & set(replacement.old_instance_ids)
    )
