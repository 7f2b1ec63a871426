"""Disruption policies, one in each module, and the order in which they are asked. Pure.

Each policy is a function from the context and the budget to commands and the budget that is left.
A machine that one policy takes is not offered to the next.
"""

from __future__ import annotations

from collections.abc import Callable

from mesaform.autoscaler.disruption import (
    consolidation,
    drift,
    emptiness,
    retirement,
    underutilization,
)
from mesaform.autoscaler.disruption.context import Budget, DisruptionContext, budget_of
from mesaform.autoscaler.disruption.removal_start import moves_after
from mesaform.autoscaler.disruption.replacements import finish_replacements
from mesaform.autoscaler.model.command import Command

__all__ = [
    "POLICIES",
    "Budget",
    "DisruptionContext",
    "budget_of",
    "finish_replacements",
    "moves_after",
    "propose",
]

Policy = Callable[[DisruptionContext, Budget], tuple[list[Command], Budget]]

POLICIES: tuple[Policy, ...] = (
    retirement.propose,
    emptiness.propose,
    drift.propose,
    underutilization.propose,
    consolidation.propose,
)
"""The policies in the order in which they are asked."""


def propose(context: DisruptionContext, budget: Budget) -> tuple[list[Command], Budget]:
    """The commands of all policies, and the budget that they leave."""
    commands: list[Command] = []
    for policy in POLICIES:
        proposed, budget = policy(context, budget)
        commands += proposed
    return commands, budget
