"""State that the planner keeps from pass to pass.

The journal stores it in ZooKeeper, so that it survives a change of leader.

Everything is frozen; dictionaries inside are never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mesaform.autoscaler.model.experiment import Experiment
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, FrameworkVerdict
from mesaform.autoscaler.model.lifetimes import LifetimeHistogram
from mesaform.autoscaler.model.notice import Notice, Risk, is_near
from mesaform.autoscaler.model.purchase_record import FailingApp, UnitPurchases
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import NOTICE_POLICIES, Removal, Replacement
from mesaform.autoscaler.model.shape import Shape


@dataclass(frozen=True, slots=True)
class Backoff:
    """Recent errors: no request before `until`, then at most `window` machines at once.

    `cause` is the cloud's text, or the machine that failed; empty for want of capacity.
    """

    until: float
    consecutive_errors: int
    window: int = 1
    cause: str = ""


@dataclass(frozen=True, slots=True)
class LaunchFailures:
    """Machines of a pool that failed in a row for one cause (`planner.launch_failures`).

    `instance_id` is the last one, `at` when it was seen, `template` the launch template's version.
    Once the pool stopped (`stops` times), nothing is bought before `until`.
    """

    pool: str
    cause: str
    count: int = 0
    at: float = 0.0
    until: float = 0.0
    stops: int = 0
    instance_id: str = ""
    template: str = ""


@dataclass(frozen=True, slots=True)
class Advertised:
    """Resources that agents of a type advertise at `at` (`planner.advertised_capacity`)."""

    shape: Shape
    at: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A framework's counters at one time, and the tasks that ended. Two marks give rates."""

    at: float
    sent: int
    accepted: int
    declined: int
    asked: int
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of the probe framework for a shape: whether it was offered, and on which agent."""

    at: float
    offered: bool
    where: str = ""


@dataclass(frozen=True, slots=True)
class BilledMachine:
    """What the last ledger row of a machine needs once EC2 no longer lists it.

    `planned_usd_per_hour` is the price of the offering that its order named first; 0 without an
    order.
    """

    instance_type: str
    zone: str
    capacity: str
    usd_per_hour: float
    pool: str
    managed_by: str
    role: str
    launched_at: float
    planned_usd_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannerState:
    """The planner's state. Keys are instance ids unless said otherwise; times are epoch seconds.

    Leader and machines:
        leader_since: since when a master leads, as seen here; None without one.
        idle_since, underused_since, lost_since: since when a machine is in that condition.
        idle_s: seconds that a machine was idle in periods that are over, for the ledger.
        registered_at: when a machine's agent was first seen.
        removals: removals in progress.
        history: the last states of each machine (`lifecycle`).
        billed_machines: live machines, for the ledger.
        cooldown_until: until when a machine is not disturbed after its removal was given up.
        notices: the most severe announcement of each machine.
    Purchases:
        backoffs: by scope: an offering, a zone, a quota, a pool (`planner.launch_backoff`).
        launch_failures: by `pool/cause`.
        failures_seen: machines whose end was counted or passed over, with the time.
        replacements: by launch token.
        risks: by offering.
        advertised: by `pool/type`.
    Demand:
        experiments: by framework id: purchases for inferred needs (`demand.experiments`).
        dry_since, marks: by framework id; `marks` are counters over time, oldest first.
        findings: the probe framework's results, by shape as text.
        hint_baselines: by override id: the least that was in use since the hint was given.
        purchases: by demand item: purchases for it and their outcomes (`purchase_outcomes`).
        failing_apps: by app: apps in a crash loop.
        reported: by framework id: what an adapter read of it last.
        frameworks: by framework id: the verdicts on connected frameworks.
    Tasks:
        moves: by app: when its tasks were moved to save money.
        lifetimes: by app: how long its tasks ran.
        lifetimes_until: tasks that ended by then are counted.
    Reports:
        last_reported: by demand item: the kind of its last reported refusal.
        anomalies: by instance or agent id: the last reported anomaly.
    """

    leader_since: float | None = None
    idle_since: dict[str, float] = field(default_factory=dict)
    idle_s: dict[str, float] = field(default_factory=dict)
    registered_at: dict[str, float] = field(default_factory=dict)
    lost_since: dict[str, float] = field(default_factory=dict)
    removals: dict[str, Removal] = field(default_factory=dict)
    history: dict[str, tuple[str, ...]] = field(default_factory=dict)
    billed_machines: dict[str, BilledMachine] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    dry_since: dict[str, float] = field(default_factory=dict)
    last_reported: dict[str, str] = field(default_factory=dict)
    advertised: dict[str, Advertised] = field(default_factory=dict)
    anomalies: dict[str, Reason] = field(default_factory=dict)
    underused_since: dict[str, float] = field(default_factory=dict)
    replacements: dict[str, Replacement] = field(default_factory=dict)
    marks: dict[str, tuple[Mark, ...]] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    hint_baselines: dict[str, Shape] = field(default_factory=dict)
    cooldown_until: dict[str, float] = field(default_factory=dict)
    moves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    lifetimes: dict[str, LifetimeHistogram] = field(default_factory=dict)
    lifetimes_until: float = 0.0
    notices: dict[str, Notice] = field(default_factory=dict)
    risks: dict[str, Risk] = field(default_factory=dict)
    launch_failures: dict[str, LaunchFailures] = field(default_factory=dict)
    failures_seen: dict[str, float] = field(default_factory=dict)
    purchases: dict[str, UnitPurchases] = field(default_factory=dict)
    failing_apps: dict[str, FailingApp] = field(default_factory=dict)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    reported: dict[str, FrameworkDemand] = field(default_factory=dict)
    frameworks: dict[str, FrameworkVerdict] = field(default_factory=dict)


def is_terminating(state: PlannerState, instance_id: str, now: float) -> bool:
    """Whether an announcement forbids placing tasks on a machine."""
    removal = state.removals.get(instance_id)
    return (removal is not None and removal.policy in NOTICE_POLICIES) or is_near(
        state.notices.get(instance_id), now
    )
