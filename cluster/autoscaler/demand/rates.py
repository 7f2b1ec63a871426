"""What a framework's counters of offers show: rates, and how long it refuses offers for. Pure.

A framework is offered an agent's free resources again when its refusal of them ends: with the
default filter about 6 s later (5 s, then the next allocation). How often it declines per agent
with free resources therefore shows how long its refusals are. Declines with another cause are
subtracted: the first offer of each agent, REVIVE, and tasks that ended, whose resources are new.

The master's counters only grow, and begin anew when another master leads. A few marks of each
framework are kept, so that the state changes every few seconds and not with every pass. They begin
anew when it takes something: what it refused before says nothing of what it lacks then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesaform.autoscaler.model.cluster_view import ClusterView, Framework
from mesaform.autoscaler.model.planner_state import Mark
from mesaform.autoscaler.model.reason import Reason, ReasonCode

MARK_EVERY_S = 4.0
MARKS = 4
"""Time between marks (s) and their number. A window is up to three to four marks long."""

ROUND_S = 6.0
"""Time after which a framework is offered again what it refused with the default filter (s)."""

SHORT_S = 12.0
LONG_S = 24.0
"""Refusals estimated shorter than the first are short, from the second on they are long (s)."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened in the last `window_s` seconds.

    `ended` counts tasks of all frameworks that ended. `first_contacts` is how many agents the
    framework was offered before the window, at most. `began_at` is epoch seconds.
    """

    window_s: float
    sent: int
    accepted: int
    declined: int
    asked: int
    ended: int = 0
    first_contacts: int = 0
    began_at: float = 0.0

    def reason(self) -> Reason:
        """The rates as a reason."""
        return Reason.of(
            ReasonCode.OFFER_RATES,
            sent=self.sent,
            accepted=self.accepted,
            declined=self.declined,
            revived=self.asked,
            window_s=self.window_s,
        )

    def refusal_s(self, agents: int, new_agents: int, *, took_lately: bool) -> float | None:
        """The estimated length of its refusals (s) with so many agents to offer; infinite: none.

        `new_agents` of them registered in the window. A framework that `took_lately` may still
        repeat refusals from before. None: the window is too short to tell, or it took something in
        it. Two rounds of offers show a length: one round may be the end of long refusals.
        """
        if self.window_s < ROUND_S or not agents or self.accepted:
            return None
        caused = max(0, agents - self.first_contacts) + agents * (self.asked + took_lately)
        repeated = self.declined - caused - new_agents - self.ended
        rounds = repeated / agents
        if rounds >= (0.5 if caused else 1.5):
            return self.window_s / rounds
        is_long_enough = self.window_s >= ROUND_S * (1.5 + took_lately)
        return float("inf") if rounds < 0.5 and is_long_enough else None


def of(
    framework: Framework, view: ClusterView, known: Mapping[str, tuple[Mark, ...]], now: float
) -> Rates | None:
    """A framework's rates; None for a new framework, and after the counters began anew."""
    before = known.get(framework.framework_id, ())
    if not before or now - before[0].at < MARK_EVERY_S or _restarted(framework, before[-1]):
        return None
    first = before[0]
    return Rates(
        now - first.at,
        framework.sent - first.sent,
        framework.accepted - first.accepted,
        framework.declined - first.declined,
        framework.asked - first.asked,
        max(0, view.tasks_ended - first.ended),
        first.sent,
        first.at,
    )


def marks(
    view: ClusterView,
    known: Mapping[str, tuple[Mark, ...]],
    now: float,
    skipped: Collection[str] = (),
) -> dict[str, tuple[Mark, ...]]:
    """The marks to keep, by framework id: of those that ask for offers and are not `skipped`."""
    return {
        framework.framework_id: _marks(framework, view, known.get(framework.framework_id, ()), now)
        for framework in view.frameworks
        if framework.active and not framework.suppressed and framework.framework_id not in skipped
    }


def _marks(
    framework: Framework, view: ClusterView, before: tuple[Mark, ...], now: float
) -> tuple[Mark, ...]:
    here = Mark(
        now,
        framework.sent,
        framework.accepted,
        framework.declined,
        framework.asked,
        view.tasks_ended,
    )
    if not before or _restarted(framework, before[-1]) or framework.accepted > before[-1].accepted:
        return (here,)
    if now - before[-1].at < MARK_EVERY_S:
        return before
    return (*before[1 - MARKS :], here)


def _restarted(framework: Framework, last: Mark) -> bool:
    """Whether the counters are those of another leading master: they never shrink otherwise."""
    return (
        framework.sent < last.sent
        or framework.accepted < last.accepted
        or framework.declined < last.declined
    )
