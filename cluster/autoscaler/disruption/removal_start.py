"""First step of a machine's removal, and the record of tasks moved to save money. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.autoscaler.disruption.context import MOVE_INTERVAL_S
from mesaform.autoscaler.model.command import Command, Deactivate, removal_command
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import PolicyName, Removal
from mesaform.autoscaler.model.supply import AgentNode

SAVING_POLICIES: frozenset[PolicyName] = frozenset({"underused", "replace"})
"""Policies that disturb tasks only to save money."""


def start_removal(node: AgentNode, policy: PolicyName, reason: Reason, now: float) -> Command:
    """Deactivate the machine's agent."""
    agent_id = node.agent.agent_id if node.agent else ""
    removal = Removal(
        agent_id, "deactivated", now, reason, policy="" if policy == "idle" else policy
    )
    return removal_command(node, (Deactivate(node.name, agent_id),), removal, (reason,))


def moves_after(
    state: PlannerState, commands: Iterable[Command], now: float
) -> dict[str, tuple[float, ...]]:
    """When tasks of each app were moved to save money, with the moves that these commands begin."""
    moves = _recent(state, now)
    nodes = (
        node
        for command in commands
        if command.policy in SAVING_POLICIES
        for node in command.candidates
    )
    for node in nodes:
        for task in node.agent.work if node.agent else ():
            moves[task.name] = (*moves.get(task.name, ()), now)
    return moves


def _recent(state: PlannerState, now: float) -> dict[str, tuple[float, ...]]:
    since = now - MOVE_INTERVAL_S
    recent = {name: tuple(at for at in times if at > since) for name, times in state.moves.items()}
    return {name: times for name, times in recent.items() if times}
