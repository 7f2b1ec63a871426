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
"""Removals that the cloud's announcements began (`interruption`): only their own rules take a machine back."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A machine on its way out. `since` is when its phase began; `asked_at` when the cloud or the engine was last told.

    `policy` is who wanted it; none means idle. With all others there may be tasks on it.
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
        """Whether the next step is `interruption`'s to take: until the end that was announced, or until what replaces it is up."""
        return self.policy in NOTICE_POLICIES and (
            self.phase == "deactivated"
            or (self.policy == "interruption" and self.phase == "draining")
        )


@dataclass(frozen=True, slots=True)
class Replacement:
    """Machines ordered to take the place of `old` ones, which go once `count` of them have registered. Kept by launch token."""

    old_instance_ids: tuple[str, ...]
    count: int
    at: float
    reason: Reason
    policy: PolicyName = "replace"
