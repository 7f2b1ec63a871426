"""What waits for offers: per app the delay after failures, and what became of the offers looked at. Pure.

How many instances wait is not kept here: it follows from the app and its instances (`scaling.plan`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mesaform.services.matching import FUNNEL
from mesaform.services.model import App

STABLE_FACTOR = 2.0
STABLE_LEAST_S = 60.0


@dataclass(slots=True)
class Backoff:
    """The pause before the next launch of an app whose instances end by themselves."""

    delay_s: float = 0.0
    until: float = 0.0

    def failed(self, app: App, ran_s: float, now: float) -> None:
        """An instance ended after `ran_s` seconds: wait, longer each time, unless it had run well for a while."""
        stable = ran_s >= max(STABLE_LEAST_S, STABLE_FACTOR * self.delay_s)
        longer = (
            app.backoff_seconds
            if stable or self.delay_s == 0
            else self.delay_s * app.backoff_factor
        )
        self.delay_s = min(longer, app.max_launch_delay_seconds)
        self.until = now + self.delay_s

    def reset(self) -> None:
        self.delay_s = self.until = 0.0

    def left_s(self, now: float) -> float:
        """Seconds until the app may be launched again; 0 when it may."""
        return max(0.0, self.until - now)


@dataclass(slots=True)
class Waiting:
    """One app in the queue, from when an instance began to be wanted until none is."""

    since: float
    processed: int = 0
    unused: int = 0
    last_used_at: float | None = None
    last_unused_at: float | None = None
    attempt: Counter[str] = field(default_factory=Counter)  # reasons since this wait began
    last_by_agent: dict[str, str | None] = field(
        default_factory=dict
    )  # the latest verdict on each agent; None: it was used

    def used(self, agent_id: str, now: float) -> None:
        self.processed += 1
        self.last_used_at = now
        self.last_by_agent[agent_id] = None

    def rejected(self, agent_id: str, reason: str, now: float) -> None:
        self.processed += 1
        self.unused += 1
        self.last_unused_at = now
        self.attempt[reason] += 1
        self.last_by_agent[agent_id] = reason

    def forget_agent(self, agent_id: str) -> None:
        self.last_by_agent.pop(agent_id, None)

    def reject_summary_launch_attempt(self) -> list[dict[str, object]]:
        return _funnel(self.attempt, self.processed)

    def reject_summary_last_offers(self) -> list[dict[str, object]]:
        reasons = Counter(reason for reason in self.last_by_agent.values() if reason is not None)
        return _funnel(reasons, len(self.last_by_agent))


def _funnel(reasons: Counter[str], processed: int) -> list[dict[str, object]]:
    """Each reason with how many offers reached it and how many stopped there."""
    rows: list[dict[str, object]] = []
    for reason in FUNNEL:
        rows.append({"reason": reason, "declined": reasons[reason], "processed": processed})
        processed -= reasons[reason]
    return rows
