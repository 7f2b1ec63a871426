"""AWS's announcements about a machine (interruption, scheduled event, rebalance advice) and what they say about its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.cluster_view import Agent, RunningTask
from mesaform.autoscaler.model.reason import Reason, ReasonCode

NoticeKind = Literal["interruption", "scheduled", "rebalance"]


@dataclass(frozen=True, slots=True)
class Notice:
    """What the cloud announced of a machine. `ends_at` is when it goes (0: nobody says); `source` is who told us first.

    `reported` is whether a decision reports it.
    """

    kind: NoticeKind
    instance_id: str
    at: float
    ends_at: float = 0.0
    source: str = ""  # queue | machine | ec2
    what: str = ""
    is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Risk:
    """How often an offering was interrupted lately: `score` at the moment `at`; it halves with time (`risk`)."""

    score: float
    at: float


NEAR_S = 600.0
"""A scheduled event closer than this is treated as an interruption: budgets and calendars no longer count."""


def is_near(notice: Notice | None, now: float) -> bool:
    """Whether a machine's end is certain and close: then nothing new goes there, and its tasks move."""
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
"""How long before a machine's end its tasks should have stopped: the end is announced to the second, messages take time."""


def tasks_to_move(agent: Agent, notice: Notice | None) -> list[RunningTask]:
    """An agent's work without what will be done by itself before the end."""
    return [work for work in agent.work if not has_time_to_finish(work, notice)]


def has_time_to_finish(work: RunningTask, notice: Notice | None) -> bool:
    return notice is not None and 0 < work.ends_at <= notice.ends_at - STOP_MARGIN_S
