"""Rates of offers from a framework's counters. Pure.

The master's counters only grow, and begin anew when another master leads. Two marks of each
framework are kept, so that the state changes every few seconds and not with every pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesaform.autoscaler.model.cluster_view import ClusterView, Framework
from mesaform.autoscaler.model.planner_state import Mark
from mesaform.autoscaler.model.reason import Reason, ReasonCode

MARK_EVERY_S = 10.0
"""Time between marks, in seconds. A window is between this and twice this long."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened in the last `window_s` seconds."""

    window_s: float
    sent: int
    accepted: int
    declined: int
    asked: int

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


def of(framework: Framework, known: Mapping[str, tuple[Mark, ...]], now: float) -> Rates | None:
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
    )


def marks(
    view: ClusterView, known: Mapping[str, tuple[Mark, ...]], now: float
) -> dict[str, tuple[Mark, ...]]:
    """The marks to keep, by framework id; none of frameworks that have left."""
    return {
        framework.framework_id: _marks(framework, known.get(framework.framework_id, ()), now)
        for framework in view.frameworks
    }


def _marks(framework: Framework, before: tuple[Mark, ...], now: float) -> tuple[Mark, ...]:
    here = Mark(now, framework.sent, framework.accepted, framework.declined, framework.asked)
    if not before or _restarted(framework, before[-1]):
        return (here,)
    if now - before[-1].at < MARK_EVERY_S:
        return before
    return (*before[-1:], here)


def _restarted(framework: Framework, last: Mark) -> bool:
    """Whether the counters are those of another leading master: they never shrink otherwise."""
    return (
        framework.sent < last.sent
        or framework.accepted < last.accepted
        or framework.declined < last.declined
    )
