"""Policies of giving back, one a file. `ORDER` is the order in which they are asked; what one takes, the next does not see."""

from __future__ import annotations

from mesaform.autoscaler.disruption.consolidation import Replace, replaced
from mesaform.autoscaler.disruption.drift import Drift
from mesaform.autoscaler.disruption.emptiness import Idle
from mesaform.autoscaler.disruption.policy import (
    DisruptionCommand,
    Policy,
    PolicyInput,
    disturbances_left,
    with_moves,
)
from mesaform.autoscaler.disruption.retirement import Announced
from mesaform.autoscaler.disruption.underutilization import Underused

__all__ = [
    "ORDER",
    "DisruptionCommand",
    "Policy",
    "PolicyInput",
    "disturbances_left",
    "propose",
    "replaced",
    "with_moves",
]

ORDER: tuple[Policy, ...] = (Announced(), Idle(), Drift(), Underused(), Replace())


def propose(view: PolicyInput) -> list[DisruptionCommand]:
    """What all policies want, in their order."""
    return [change for policy in ORDER for change in policy.propose(view)]
