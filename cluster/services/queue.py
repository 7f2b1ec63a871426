"""The launch queue: per app the delay after failures, and the results of offers. No I/O.

Mirrors `/v2/queue` of Marathon 1.11. The number of instances that wait is not stored: it follows
from the app and its instances (`scaling.plan`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mesaform.common.backoff import Backoff, Delay
from mesaform.services.matching import FAULT_REASON, REJECT_REASONS
from mesaform.services.model import App

STABLE_FACTOR = 2.0
"""A run of this many times the present delay counts as stable."""

STABLE_MIN_S = 60.0
"""Least seconds of a stable run."""


FAULT_DELAY = Backoff(first_s=1.0, cap_s=300.0)
"""Delay of an app in whose work this server fails."""


@dataclass(slots=True)
class LaunchDelay:
    """The delay before the next launch of an app whose instances end by themselves.

    Marathon's `backoffSeconds`, `backoffFactor` and `maxLaunchDelaySeconds` state the growth.
    """

    delay_s: float = 0.0
    _state: Delay = field(default_factory=Delay)

    def add_failure(self, app: App, ran_s: float, now: float) -> None:
        """An instance ended after `ran_s` seconds. A stable run resets the growth."""
        if ran_s >= max(STABLE_MIN_S, STABLE_FACTOR * self.delay_s):
            self._state = Delay()
        cap_s = app.max_launch_delay_seconds
        policy = Backoff(min(app.backoff_seconds, cap_s), cap_s, app.backoff_factor)
        self._state = self._state.after_failure(policy, now)
        self.delay_s = policy.delay_s(self._state.failures)

    def add_fault(self, now: float) -> None:
        """Add a failure of this server in the work for the app."""
        self._state = self._state.after_failure(FAULT_DELAY, now)
        self.delay_s = FAULT_DELAY.delay_s(self._state.failures)

    def reset(self) -> None:
        """Allow a launch at once."""
        self.delay_s, self._state = 0.0, Delay()

    def remaining_s(self, now: float) -> float:
        """Seconds until the app may be launched again; 0 when it may."""
        return self._state.remaining_s(now)


@dataclass(slots=True)
class QueueEntry:
    """One app in the queue, from when it needs an instance until it needs none.

    `attempt` counts reject reasons since then. `last_by_agent` has the latest result per agent;
    None: the offer was used.
    """

    since: float
    processed: int = 0
    unused: int = 0
    last_used_at: float | None = None
    last_unused_at: float | None = None
    attempt: Counter[str] = field(default_factory=Counter)
    last_by_agent: dict[str, str | None] = field(default_factory=dict)

    def add_used(self, agent_id: str, now: float) -> None:
        """Record that an offer was used."""
        self.processed += 1
        self.last_used_at = now
        self.last_by_agent[agent_id] = None

    def add_rejected(self, agent_id: str, reason: str, now: float) -> None:
        """Record that an offer was rejected."""
        self.processed += 1
        self.unused += 1
        self.last_unused_at = now
        self.attempt[reason] += 1
        self.last_by_agent[agent_id] = reason

    def forget_agent(self, agent_id: str) -> None:
        """Drop the result of an agent that was removed."""
        self.last_by_agent.pop(agent_id, None)

    def reject_summary_launch_attempt(self) -> list[dict[str, object]]:
        """Marathon's `rejectSummaryLaunchAttempt`."""
        return _summary(self.attempt, self.processed)

    def reject_summary_last_offers(self) -> list[dict[str, object]]:
        """Marathon's `rejectSummaryLastOffers`."""
        reasons = Counter(reason for reason in self.last_by_agent.values() if reason is not None)
        return _summary(reasons, len(self.last_by_agent))


def _summary(reasons: Counter[str], processed: int) -> list[dict[str, object]]:
    """Each reason with the offers that were examined for it and the offers that it rejected."""
    rows: list[dict[str, object]] = []
    named = (*REJECT_REASONS, FAULT_REASON) if reasons[FAULT_REASON] else REJECT_REASONS
    for reason in named:
        rows.append({"reason": reason, "declined": reasons[reason], "processed": processed})
        processed -= reasons[reason]
    return rows
