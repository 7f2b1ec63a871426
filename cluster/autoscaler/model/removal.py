"""Removals and replacements of machines in progress, as they are journaled from pass to pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.reason import Reason

RemovalPhase = Literal["deactivated", "draining", "terminating", "abandoned"]


PolicyName = Literal[
    "idle",
    "underused",
    "replace",
    "drift",
    "operator",
    "interruption",
    "retirement",
    "rebalance",
    "",
]


NOTICE_POLICIES: frozenset[PolicyName] = frozenset({"interruption", "retirement", "rebalance"})
"""Policies of removals that announcements began. Demand does not take such machines back."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal in progress.

    `since` is when its phase began, `requested_at` when EC2 was last asked to terminate the machine
    (epoch seconds). `policy` began it; empty means `idle`. Machines of all other policies may have
    tasks.
    """

    agent_id: str
    phase: RemovalPhase
    since: float
    reason: Reason
    requested_at: float = 0.0
    policy: PolicyName = ""

    @property
    def is_disruptive(self) -> bool:
        """Whether tasks may have to move for it."""
        return self.policy in {"underused", "replace", "drift", "operator"} | NOTICE_POLICIES

    @property
    def is_lasting(self) -> bool:
        """Whether demand does not take the machine back."""
        return self.policy == "operator" or self.policy in NOTICE_POLICIES

    @property
    def is_waiting_for_notice(self) -> bool:
        """Whether `interruption` takes the next step: at the announced end, or once replaced."""
        return self.policy in NOTICE_POLICIES and (
            self.phase == "deactivated"
            or (self.policy == "interruption" and self.phase == "draining")
        )


@dataclass(frozen=True, slots=True)
class Replacement:
    """`count` machines that were ordered to replace old ones; these leave once all have registered.

    `at` is when it was decided (epoch seconds).
    """

    old_instance_ids: tuple[str, ...]
    count: int
    at: float
    reason: Reason
    policy: PolicyName = "replace"
