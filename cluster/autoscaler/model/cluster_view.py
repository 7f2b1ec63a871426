"""The cluster as the elected master and the work queues describe it: agents, frameworks, tasks, quotas, waiting work.

Everything is frozen; dictionaries inside are never changed in place. Depends on `shape` and `lifetimes` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.shape import NOTHING, Shape, minus


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
