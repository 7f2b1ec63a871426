"""The cluster as the elected master and the work queues describe it.

Agents, frameworks, tasks, quotas, waiting work. Everything is frozen; dictionaries inside are never
changed in place. Depends on `shape` and `lifetimes` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.shape import NOTHING, Shape, minus
from mesaform.common.resources import Range
from mesaform.placement.constraints import Constraint
from mesaform.placement.task_labels import NO_LABELS, TaskLabels


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """An entry of the services' queue: `count` instances of `app` that are not launched yet.

    An entry that is not `overdue` backs off after failures. `since` is epoch seconds. `rejections`
    counts refused offers by reason. `accepts_unreserved`: the app takes resources of no role too.
    `config` is the version of its configuration: constraints count the instances of it. `labels`
    are its labels for Mesaform, whose constraints are in `constraints`.
    """

    app: str
    shape: Shape
    count: int
    overdue: bool
    constraints: tuple[Constraint, ...] = ()
    role: str = "*"
    since: float = 0.0
    rejections: Mapping[str, int] = field(default_factory=dict)
    accepts_unreserved: bool = True
    config: str = ""
    labels: TaskLabels = NO_LABELS


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A running task.

    `name` is its services app, or its framework. `since` is when it started and `ends_at` when it
    said that it finishes (epoch seconds; 0: not known, or never). `constraints` are those of its
    labels; a services app's are known with the app.
    """

    task_id: str
    name: str
    framework: str
    shape: Shape
    since: float = 0.0
    protected: bool = False
    ends_at: float = 0.0
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as the elected master has it.

    `apps` counts running instances by services app id, for constraints. `work` are the running
    tasks; empty unless consolidation needs them. Resources reserved and not in use are not in
    `total` but in `reserved`, by role: no other role is offered them. `ports` are the free host
    ports. `app_configs` counts the running instances of `apps` by their configuration, for apps
    with constraints; an instance of unknown configuration is in no entry. `app_since` is when the
    longest running instance of each app and configuration started (epoch seconds). `ended` counts
    tasks of the agent that ended and that the master still lists. `frameworks` counts running
    tasks by framework id.
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
    ports: tuple[Range, ...] = ()
    app_configs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    app_since: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ended: int = 0
    frameworks: Mapping[str, int] = field(default_factory=dict)

    @property
    def instance_id(self) -> str:
        return self.attributes.get("instance_id", "")

    @property
    def free(self) -> Shape:
        """Total less allocated. Offered resources count as free until an offer is accepted."""
        return minus(self.total, self.allocated)

    @property
    def is_empty(self) -> bool:
        return not self.tasks and not any(self.allocated[:4])


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework and its counters since the leader was elected.

    `minimal` is its declared smallest useful offer. `roles` are those in which it takes offers:
    suppressed roles are left out, and `suppressed` means that none is left. `asked` counts REVIVE
    and REQUEST calls. `refusals` counts the offer filters in these roles, other frameworks'
    included (Mesos reports no more). `constraints` are those that it declared for its offers.
    `webui_url` and `hostname` are as the framework states them, and are not to be trusted.
    `tasks` counts its running tasks, `held` the offers that it has not answered. `labels` are its
    labels for Mesaform, whose constraints are in `constraints`.
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
    asked: int = 0
    refusals: int = 0
    constraints: tuple[Constraint, ...] = ()
    webui_url: str = ""
    hostname: str = ""
    tasks: int = 0
    held: int = 0
    labels: TaskLabels = NO_LABELS


@dataclass(frozen=True, slots=True)
class Quota:
    """The limit of a role and what it holds, roles below it included.

    `limit` has cpus, mem, disk and gpus in thousandths; None is unlimited.
    """

    role: str
    limit: tuple[int | None, int | None, int | None, int | None]
    used: Shape = NOTHING


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The elected master's answers, all of one moment.

    `recovered` counts known agents that have not returned after a fail-over. `ended` are tasks that
    ended by themselves lately; empty unless consolidation needs them. `elected_at` is epoch seconds
    (0: not known). `allocator_lag_s` is how late the last allocation began. `unreadable` counts
    agents and tasks that cannot be read, so that a machine may have tasks that are not known.
    `tasks_ended` counts tasks of all frameworks that ended under this master.
    """

    agents: tuple[Agent, ...] = ()
    frameworks: tuple[Framework, ...] = ()
    recovered: int = 0
    quotas: tuple[Quota, ...] = ()
    ended: tuple[Ended, ...] = ()
    elected_at: float = 0.0
    allocator_lag_s: float = 0.0
    unreadable: int = 0
    tasks_ended: int = 0
