"""State that the planner keeps from pass to pass. The journal stores it in ZooKeeper, so that it survives a change of leader.

Everything is frozen; dictionaries inside are never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mesaform.autoscaler.model.lifetimes import LifetimeHistogram
from mesaform.autoscaler.model.notice import Notice, Risk, is_near
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import NOTICE_POLICIES, Removal, Replacement
from mesaform.autoscaler.model.shape import Shape


@dataclass(frozen=True, slots=True)
class Backoff:
    """What had no capacity lately: not asked for before `until`; `strikes` errors in a row; then at most `window` machines in one go."""

    until: float
    consecutive_errors: int
    window: int = 1


@dataclass(frozen=True, slots=True)
class Advertised:
    """What agents of a type say they have, when that was last written down (see `catalogue`)."""

    shape: Shape
    at: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What was last bought on a framework's hunch, and its counters then: whether it took what it got decides the next one.

    `came` once an agent of that size has registered since: before that, nothing was there to take.
    """

    at: float
    accepted: int
    asked: int
    size: int
    has_registered: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A framework's counters at a moment: two marks make rates."""

    at: float
    sent: int
    accepted: int
    declined: int
    asked: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What the probe framework found out about a shape: whether an offer of that size came, and where."""

    at: float
    offered: bool
    where: str = ""


@dataclass(frozen=True, slots=True)
class BilledMachine:
    """What the ledger needs to close a machine's row even when EC2 has forgotten it."""

    instance_type: str
    zone: str
    capacity: str
    usd_per_hour: float
    pool: str
    managed_by: str
    role: str
    launched_at: float
    planned_usd_per_hour: float = (
        0.0  # of the offering that was asked for first; 0: nobody planned it
    )


@dataclass(frozen=True, slots=True)
class PlannerState:
    """What outlives a pass, and in ZooKeeper a leader. Keys are instance ids unless said otherwise; times are epoch seconds."""

    leader_since: float | None = None
    idle_since: dict[str, float] = field(default_factory=dict)
    idle_s: dict[str, float] = field(
        default_factory=dict
    )  # seconds idle in periods that are over, for the ledger
    registered_at: dict[str, float] = field(default_factory=dict)
    lost_since: dict[str, float] = field(default_factory=dict)
    removals: dict[str, Removal] = field(default_factory=dict)
    history: dict[str, tuple[str, ...]] = field(default_factory=dict)
    billed_machines: dict[str, BilledMachine] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(
        default_factory=dict
    )  # by scope: an offering key, a zone, a quota, a pool (see `budget`)
    probes: dict[str, Probe] = field(default_factory=dict)  # by framework id
    dry_since: dict[str, float] = field(default_factory=dict)  # by framework id
    last_reported: dict[str, str] = field(
        default_factory=dict
    )  # by demand item: the kind of its last reported verdict
    advertised: dict[str, Advertised] = field(default_factory=dict)  # by pool/type
    anomalies: dict[str, Reason] = field(
        default_factory=dict
    )  # by instance or agent id: the last reported anomaly
    underused_since: dict[str, float] = field(default_factory=dict)
    replacements: dict[str, Replacement] = field(default_factory=dict)  # by launch token
    marks: dict[str, tuple[Mark, ...]] = field(
        default_factory=dict
    )  # by framework id: counters now and then, oldest first
    findings: dict[str, Finding] = field(
        default_factory=dict
    )  # by shape as text: the probe framework's
    hint_baselines: dict[str, Shape] = field(
        default_factory=dict
    )  # by order: the least that was in use since the hint was given
    cooldown_until: dict[str, float] = field(
        default_factory=dict
    )  # not disturbed before then: a removal was given up
    moves: dict[str, tuple[float, ...]] = field(
        default_factory=dict
    )  # by what runs: when its tasks were moved to save money
    lifetimes: dict[str, LifetimeHistogram] = field(
        default_factory=dict
    )  # by what runs: how long its tasks lasted
    lifetimes_until: float = 0.0  # tasks that ended by then are counted
    notices: dict[str, Notice] = field(
        default_factory=dict
    )  # the gravest announcement of each machine
    risks: dict[str, Risk] = field(default_factory=dict)  # by offering key


def is_terminating(memory: PlannerState, instance_id: str, now: float) -> bool:
    """Whether nothing may be placed on a machine any more because of what was announced."""
    removal = memory.removals.get(instance_id)
    return (removal is not None and removal.policy in NOTICE_POLICIES) or is_near(
        memory.notices.get(instance_id), now
    )
