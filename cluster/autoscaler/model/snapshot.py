"""What a pass knows and what it makes of it, as values: the world as seen, and what is remembered from pass to pass.

Everything is frozen; dictionaries inside are never changed in place. What is in `PlannerState` survives a change of leader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mesaform.autoscaler.forecasting.lifetimes import Ended, Lives
from mesaform.autoscaler.forecasting.weekly_profile import Profile
from mesaform.autoscaler.model.shape import NOTHING, Shape, minus
from mesaform.aws.ports import LaunchRequest, Machine, Offering, Override, Template
from mesaform.config.schema import ClusterSpec

Source = Literal[
    "services", "jobs", "framework", "headroom", "hint", "calendar", "profile", "displaced"
]
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
NoticeKind = Literal["interruption", "scheduled", "rebalance"]

ANNOUNCED: frozenset[PolicyName] = frozenset({"interruption", "retirement", "rebalance"})
"""Removals that the cloud's announcements began (`interruption`): only their own rules take a machine back."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A placement constraint of the services API: `field` is `hostname` or an attribute; `operator` as Marathon names it."""

    field: str
    operator: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """An entry of a work queue: `count` instances of `app` not yet launched. Not `overdue` means backing off after failures.

    `source` is whose queue it is: the services' `/v2/queue`, or the jobs'.
    """

    app: str
    shape: Shape
    count: int
    overdue: bool
    constraints: tuple[Constraint, ...] = ()
    role: str = "*"
    since: float = 0.0
    rejections: Mapping[str, int] = field(default_factory=dict)
    source: Literal["services", "jobs"] = "services"


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that runs. `name` is its services app, or its framework; `ends_at` is when it said it would be done (0: never)."""

    task_id: str
    name: str
    framework: str
    shape: Shape
    since: float = 0.0
    protected: bool = False
    ends_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as the elected master has it. `apps` counts running instances by services app id, for constraints.

    `work` is what runs, task by task; empty unless consolidation needs it. What is reserved and not in use is no part of `total`
    but in `reserved`, by role: nobody else is offered it.
    """

    agent_id: str
    hostname: str
    attributes: Mapping[str, str]
    total: Shape
    allocated: Shape = NOTHING
    active: bool = True
    deactivated: bool = False
    drain_state: str = ""
    tasks: int = 0
    apps: Mapping[str, int] = field(default_factory=dict)
    registered_at: float = 0.0
    work: tuple[RunningTask, ...] = ()
    reserved: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def instance_id(self) -> str:
        return self.attributes.get("instance_id", "")

    @property
    def free(self) -> Shape:
        """Total less allocated. What is offered counts as free: an offer is an answer that has not come yet."""
        return minus(self.total, self.allocated)

    @property
    def is_empty(self) -> bool:
        return not self.tasks and not any(self.allocated[:4])


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework and its counters since the leader was elected. `minimal` is its declared smallest useful offer.

    `roles` are those in which it takes offers: roles that it suppressed are left out, and `suppressed` means that none is left.
    `refusals` counts the refusals that stand in these roles, other frameworks' included (Mesos tells no more).
    """

    framework_id: str
    name: str
    active: bool = True
    suppressed: bool = False
    roles: tuple[str, ...] = ("*",)
    minimal: Shape | None = None
    task_shape: Shape | None = None
    sent: int = 0
    accepted: int = 0
    declined: int = 0
    asked: int = 0  # REVIVE and REQUEST calls
    refusals: int = 0
    constraints: tuple[Constraint, ...] = ()  # of its offers, as it declared them


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that a role may hold, and what it holds; None in `limit` is without bound. Roles below it count in."""

    role: str
    limit: tuple[
        int | None, int | None, int | None, int | None
    ]  # cpus, mem, disk, gpus in thousandths
    used: Shape = NOTHING


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The elected master's answers, all of one moment. `recovered` counts agents known and not yet back after a fail-over.

    `elected_at` is 0 when the master does not say; `allocator_lag_s` is how late its last allocation began.
    """

    agents: tuple[Agent, ...] = ()
    frameworks: tuple[Framework, ...] = ()
    recovered: int = 0
    quotas: tuple[Quota, ...] = ()
    ended: tuple[
        Ended, ...
    ] = ()  # tasks that ended by themselves lately; empty unless consolidation needs them
    elected_at: float = 0.0
    allocator_lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Intent:
    """A launch as journaled. `instance_ids` is None until CreateFleet's answer is known."""

    request: LaunchRequest
    at: float
    instance_ids: tuple[str, ...] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """A machine on its way out. `since` is when its phase began; `asked_at` when the cloud or the engine was last told.

    `policy` is who wanted it; none means idle. With all others there may be tasks on it.
    """

    agent_id: str
    phase: RemovalPhase
    since: float
    reason: str
    asked_at: float = 0.0
    policy: PolicyName = ""

    @property
    def disturbs(self) -> bool:
        """Whether tasks may have to move for it."""
        return self.policy in {"underused", "replace", "drift", "operator"} | ANNOUNCED

    @property
    def lasting(self) -> bool:
        """Whether demand does not take the machine back."""
        return self.policy == "operator" or self.policy in ANNOUNCED

    @property
    def waits_for_announcement(self) -> bool:
        """Whether the next step is `interruption`'s to take: until the end that was announced, or until what replaces it is up."""
        return self.policy in ANNOUNCED and (
            self.phase == "deactivated"
            or (self.policy == "interruption" and self.phase == "draining")
        )


@dataclass(frozen=True, slots=True)
class Replacement:
    """Machines ordered to take the place of `old` ones, which go once `count` of them have registered. Kept by launch token."""

    old: tuple[str, ...]
    count: int
    at: float
    reason: str
    policy: PolicyName = "replace"


@dataclass(frozen=True, slots=True)
class Backoff:
    """What had no capacity lately: not asked for before `until`; `strikes` errors in a row; then at most `window` machines in one go."""

    until: float
    strikes: int
    window: int = 1


@dataclass(frozen=True, slots=True)
class Advertised:
    """What agents of a type say they have, when that was last written down (see `catalogue`)."""

    shape: Shape
    at: float


@dataclass(frozen=True, slots=True)
class Notice:
    """What the cloud announced of a machine. `ends_at` is when it goes (0: nobody says); `source` is who told us first.

    `told` is whether a decision has said so.
    """

    kind: NoticeKind
    instance_id: str
    at: float
    ends_at: float = 0.0
    source: str = ""  # queue | machine | ec2
    what: str = ""
    told: bool = False


@dataclass(frozen=True, slots=True)
class Risk:
    """How often an offering was interrupted lately: `score` at the moment `at`; it halves with time (`risk`)."""

    score: float
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
    came: bool = False


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
class Rented:
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
    registered: dict[str, float] = field(default_factory=dict)
    lost_since: dict[str, float] = field(default_factory=dict)
    removals: dict[str, Removal] = field(default_factory=dict)
    history: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rented: dict[str, Rented] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(
        default_factory=dict
    )  # by scope: an offering key, a zone, a quota, a pool (see `budget`)
    probes: dict[str, Probe] = field(default_factory=dict)  # by framework id
    dry_since: dict[str, float] = field(default_factory=dict)  # by framework id
    told: dict[str, str] = field(default_factory=dict)  # by demand unit: the last refusal on record
    advertised: dict[str, Advertised] = field(default_factory=dict)  # by pool/type
    odd: dict[str, str] = field(
        default_factory=dict
    )  # by machine or agent: what is not as it should be, as said last
    underused_since: dict[str, float] = field(default_factory=dict)
    replacements: dict[str, Replacement] = field(default_factory=dict)  # by launch token
    marks: dict[str, tuple[Mark, ...]] = field(
        default_factory=dict
    )  # by framework id: counters now and then, oldest first
    findings: dict[str, Finding] = field(
        default_factory=dict
    )  # by shape as text: the probe framework's
    hinted: dict[str, Shape] = field(
        default_factory=dict
    )  # by order: the least that was in use since the hint was given
    spared: dict[str, float] = field(
        default_factory=dict
    )  # not disturbed before then: a removal was given up
    moves: dict[str, tuple[float, ...]] = field(
        default_factory=dict
    )  # by what runs: when its tasks were moved to save money
    lives: dict[str, Lives] = field(default_factory=dict)  # by what runs: how long its tasks lasted
    lives_until: float = 0.0  # tasks that ended by then are counted
    notices: dict[str, Notice] = field(
        default_factory=dict
    )  # the gravest announcement of each machine
    risks: dict[str, Risk] = field(default_factory=dict)  # by offering key


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at one moment. `cluster` is None without an elected master; `queue` is None when services do not answer."""

    spec: ClusterSpec
    cluster: ClusterView | None
    queue: tuple[QueueEntry, ...] | None
    machines: tuple[Machine, ...]
    offerings: Mapping[str, tuple[Offering, ...]]  # by pool
    intents: tuple[Intent, ...] = ()
    memory: PlannerState = field(default_factory=PlannerState)
    templates: Mapping[str, Template] = field(
        default_factory=dict
    )  # launch templates by pool, as far as they could be read
    fence: str | None = None
    trouble: tuple[str, ...] = ()  # what could not be read, for people
    orders: tuple[Override, ...] = ()  # what operators ask for, those that have run out included
    profile: Profile | None = None  # what past weeks were like; None: not read
    apps: Mapping[str, tuple[Constraint, ...]] | None = (
        None  # constraints of every app; None: not read, so nothing is moved
    )
