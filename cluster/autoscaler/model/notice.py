"""Announcements of AWS about machines: interruptions, scheduled events, rebalance advice. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.cluster_view import Agent, RunningTask
from mesaform.autoscaler.model.reason import Reason, ReasonCode

NoticeKind = Literal["interruption", "scheduled", "rebalance"]


@dataclass(frozen=True, slots=True)
class Notice:
    """An announcement about a machine.

    `at` is when it was made and `ends_at` when the machine ends (epoch seconds; 0: not known).
    `source` is where it was read first: `queue`, `machine` or `ec2`. `what` is the event's name.
    `is_reported` is whether a decision reports it.
    """

    kind: NoticeKind
    instance_id: str
    at: float
    ends_at: float = 0.0
    source: str = ""
    what: str = ""
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Risk:
    """Recent interruptions of an offering: `score` at the time `at` (epoch seconds).

    The score halves with time (`interruption.risk`).
    """

    score: float
    at: float


NEAR_S = 600.0
"""Seconds before a scheduled event from which it counts as an interruption.

From then on neither disruption budgets nor cool-downs delay it.
"""


def is_near(notice: Notice | None, now: float) -> bool:
    """Whether a machine's end is certain and close: it gets no tasks, and its tasks move."""
    if notice is None:
        return False
    return notice.kind == "interruption" or (
        notice.kind == "scheduled" and notice.ends_at - now < NEAR_S
    )


def reason_of(notice: Notice, now: float) -> Reason:
    """A notice as a reason; its time is relative to `now` (epoch s)."""
    left_s = notice.ends_at - now
    if notice.kind == "rebalance":
        return Reason.of(ReasonCode.REBALANCE_RECOMMENDED, event=notice.what)
    if notice.kind == "scheduled" and left_s >= NEAR_S:
        return Reason.of(ReasonCode.EVENT_SCHEDULED, event=notice.what, starts_in_s=left_s)
    return Reason.of(ReasonCode.INTERRUPTION_ANNOUNCED, event=notice.what, ends_in_s=left_s)


STOP_MARGIN_S = 5.0
"""Seconds before a machine's end at which its tasks have stopped.

The end is announced to the second, and messages take time.
"""


def tasks_to_move(agent: Agent, notice: Notice | None) -> list[RunningTask]:
    """An agent's tasks without those that finish before the machine ends."""
    return [work for work in agent.work if not has_time_to_finish(work, notice)]


def has_time_to_finish(work: RunningTask, notice: Notice | None) -> bool:
    """Whether a task said that it finishes before the machine ends."""
    return notice is not None and 0 < work.ends_at <= notice.ends_at - STOP_MARGIN_S
